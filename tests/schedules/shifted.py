"""``python shifted.py SECONDS MODULE``: runs a process of ours with its clock so much ahead (or behind).

The wall clock only: a monotonic clock cannot be wrong in this way.
"""

from __future__ import annotations

import runpy
import sys
import time

_time, _time_ns = time.time, time.time_ns


def main() -> None:
    seconds, module = int(sys.argv[1]), sys.argv[2]
    time.time = lambda: _time() + seconds
    time.time_ns = lambda: _time_ns() + seconds * 1_000_000_000
    sys.argv = [module]
    runpy.run_module(module, run_name="__main__", alter_sys=True)


if __name__ == "__main__":
    main()
