from lifelong.distiller.app import build
from lifelong.distiller.config import Settings
from lifelong.runtime.process import main

if __name__ == "__main__":
    main("distiller", Settings, build)
