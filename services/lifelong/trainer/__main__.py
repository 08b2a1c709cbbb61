"""``python -m lifelong.trainer``."""

from lifelong.runtime.process import main
from lifelong.trainer.app import build
from lifelong.trainer.config import Settings

if __name__ == "__main__":
    main("trainer", Settings, build)
