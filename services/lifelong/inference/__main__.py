from lifelong.inference.app import build
from lifelong.inference.config import Settings
from lifelong.runtime.process import main

if __name__ == "__main__":
    main("inference", Settings, build)
