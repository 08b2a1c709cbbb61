"""Threads of which only one runs at a time, chosen from a seed, on a clock that moves when nobody has anything to do.

Real code runs in real threads. Wherever it touches the world (a server, a disk, a clock) it calls ``Schedule.point``,
and there it may be made to wait while others run, to fail, or to die. Between two points nothing else happens, so a
seed decides everything.
"""

from __future__ import annotations

import hashlib
import heapq
import random
import threading
from collections.abc import Callable
from typing import Any

TICK_SECONDS = 0.002
START = 1_700_000_000.0


class Killed(BaseException):
    """As by kill -9: nothing that the process still does on its way out has any effect."""


class Process:
    """What lives and dies together. A start of the same process again is another one."""

    def __init__(self, kind: str, name: str) -> None:
        self.kind = kind
        self.name = name
        self.is_killed = False
        self.stalled_until = 0.0
        self.clock_skew = 0.0
        self.error: BaseException | None = None


class Task:
    def __init__(self, process: Process, name: str, work: Callable[[], None]) -> None:
        self.process = process
        self.name = name
        self.work = work
        self.baton = threading.Semaphore(0)
        self.stalled_until = 0.0
        self.on_end: Callable[[], None] = lambda: None
        self.ready: Callable[[], bool] | None = None
        self.wake: float | None = None
        """Runs on from then on, or as soon as ``ready``; ``None`` with ``ready``: only then."""
        self.is_done = False


Fault = Callable[[Task, str], str | None]
"""Called at every point; may kill or stall, or raise what the call at this point would raise. What it returns is for
the caller of ``point``."""


class Schedule:
    def __init__(self, seed: int, on_point: Fault) -> None:
        self.random = random.Random(f"schedule {seed}")
        self.now = 0.0
        self.num_points = 0
        self.switch_ratio = self.random.choice([0.1, 0.3, 0.6])
        self.current: Task | None = None
        self.trace = hashlib.sha256()
        self._on_point = on_point
        self._tasks: list[Task] = []
        self._main = threading.Semaphore(0)
        self._events: list[tuple[float, int, Callable[[], None]]] = []
        self._num_events = 0

    # -- by the world ----------------------------------------------------------------------------------------------

    def spawn(self, process: Process, name: str, work: Callable[[], None]) -> Task:
        task = Task(process, name, work)
        self._tasks.append(task)
        threading.Thread(target=self._run_task, args=(task,), daemon=True, name=f"{process.name}/{name}").start()
        return task

    def at(self, time: float, event: Callable[[], None]) -> None:
        """Something that happens to the world by itself."""
        self._num_events += 1
        heapq.heappush(self._events, (time, self._num_events, event))

    def after(self, seconds: float, event: Callable[[], None]) -> None:
        self.at(self.now + seconds, event)

    def run(self, is_over: Callable[[], bool]) -> None:
        while not is_over():
            while self._events and self._events[0][0] <= self.now:
                heapq.heappop(self._events)[2]()
                if is_over():
                    return
            runnable = [task for task in self._tasks if self._can_run(task)]
            if runnable:
                self._let_run(runnable[self.random.randrange(len(runnable))])
            else:
                self.now = max(self.now, self._next_moment())

    def end(self) -> None:
        """Whatever still runs is killed, so that no thread is left behind."""
        for task in self._tasks:
            task.process.is_killed = True
            task.on_end = lambda: None
        while alive := [task for task in self._tasks if not task.is_done]:
            self._let_run(alive[0])

    def is_running(self, process: Process) -> bool:
        return any(task.process is process and not task.is_done for task in self._tasks)

    # -- by the code that runs in it ---------------------------------------------------------------------------------

    def point(self, name: str) -> str | None:
        """Raises Killed, or what a fault makes of the call that comes now."""
        task = self.current
        if task is None:
            return None  # The world itself looks.
        if task.process.is_killed:
            raise Killed
        self.num_points += 1
        self.now += TICK_SECONDS
        self.trace.update(f"{task.process.name}/{task.name}:{name}\n".encode())
        fault = self._on_point(task, name)
        is_stalled = max(task.stalled_until, task.process.stalled_until) > self.now
        if task.process.is_killed or is_stalled or self.random.random() < self.switch_ratio:
            self._pause(task)
        if task.process.is_killed:
            raise Killed
        return fault

    def wait_until(self, ready: Callable[[], bool], seconds: float | None) -> bool:
        """Whether ``ready`` came true within so many seconds."""
        task = self.current
        assert task is not None
        if task.process.is_killed:
            raise Killed
        task.ready, task.wake = ready, None if seconds is None else self.now + max(0.0, seconds)
        self._pause(task)
        task.ready = task.wake = None
        if task.process.is_killed:
            raise Killed
        return ready()

    # -- within ------------------------------------------------------------------------------------------------------

    def _can_run(self, task: Task) -> bool:
        if task.process.is_killed:
            return True
        if task.stalled_until > self.now or task.process.stalled_until > self.now:
            return False
        if task.ready is None:
            return True
        return (task.wake is not None and task.wake <= self.now) or task.ready()

    def _next_moment(self) -> float:
        moments = [self._events[0][0]] if self._events else []
        for task in self._tasks:
            stalled = max(task.stalled_until, task.process.stalled_until)
            wake = self.now if task.ready is None else task.wake
            if stalled > self.now:
                moments.append(stalled)
            elif wake is not None:
                moments.append(wake)
        assert moments, "everybody waits for somebody else"
        return min(moments)

    def _let_run(self, task: Task) -> None:
        self.current = task
        task.baton.release()
        self._main.acquire()
        self.current = None
        if task.is_done:
            self._tasks.remove(task)
            task.on_end()

    def _pause(self, task: Task) -> None:
        self._main.release()
        task.baton.acquire()

    def _run_task(self, task: Task) -> None:
        task.baton.acquire()
        try:
            if not task.process.is_killed:
                task.work()
        except Killed:
            pass
        except BaseException as error:
            task.process.error = error
        finally:
            task.is_done = True
            self._main.release()


class SimulatedClock:
    """``now`` is a wall clock, which a process may have set wrong; ``monotonic`` is right."""

    def __init__(self, schedule: Schedule, process: Process | None = None) -> None:
        self._schedule = schedule
        self._process = process

    def now(self) -> float:
        return START + self._schedule.now + (self._process.clock_skew if self._process else 0.0)

    def monotonic(self) -> float:
        return self._schedule.now

    def sleep(self, seconds: float) -> None:
        self._schedule.wait_until(lambda: False, seconds)


class Threading:
    """Takes the place of the module ``threading`` in what is simulated."""

    def __init__(self, schedule: Schedule) -> None:
        self._schedule = schedule

    def Event(self) -> Event:
        return Event(self._schedule)

    def Lock(self) -> Lock:
        return Lock(self._schedule)

    def Condition(self) -> Condition:
        return Condition(self._schedule)

    def Thread(self, target: Callable[[], None], name: str = "", daemon: bool = True) -> Thread:
        del daemon
        return Thread(self._schedule, target, name)


class Event(threading.Event):
    def __init__(self, schedule: Schedule) -> None:
        super().__init__()
        self._schedule = schedule

    def wait(self, timeout: float | None = None) -> bool:
        return self._schedule.wait_until(self.is_set, timeout)


class Lock:
    def __init__(self, schedule: Schedule) -> None:
        self._schedule = schedule
        self._is_held = False

    def acquire(self, blocking: bool = True) -> bool:
        while self._is_held:
            if not blocking:
                return False
            self._schedule.wait_until(lambda: not self._is_held, None)
        self._is_held = True
        return True

    def release(self) -> None:
        self._is_held = False

    def __enter__(self) -> bool:
        return self.acquire()

    def __exit__(self, *_: Any) -> None:
        self.release()


class Condition:
    """Without a lock: what is done under it has no points, so nobody comes between."""

    def __init__(self, schedule: Schedule) -> None:
        self._schedule = schedule

    def wait_for(self, predicate: Callable[[], Any], timeout: float | None = None) -> bool:
        return self._schedule.wait_until(lambda: bool(predicate()), timeout)

    def notify_all(self) -> None:
        pass

    def __enter__(self) -> Condition:
        return self

    def __exit__(self, *_: Any) -> None:
        pass


class Thread:
    """A thread of the process that starts it."""

    def __init__(self, schedule: Schedule, target: Callable[[], None], name: str) -> None:
        self._schedule = schedule
        self._target = target
        self._name = name
        self._task: Task | None = None

    def start(self) -> None:
        current = self._schedule.current
        assert current is not None
        self._task = self._schedule.spawn(current.process, self._name, self._target)

    def join(self, timeout: float | None = None) -> None:
        self._schedule.wait_until(lambda: not self.is_alive(), timeout)

    def is_alive(self) -> bool:
        return self._task is not None and not self._task.is_done
