"""``python -m lifelong.collector``."""

from lifelong.collector.app import build
from lifelong.collector.config import Settings
from lifelong.runtime.process import main

if __name__ == "__main__":
    main("collector", Settings, build)
