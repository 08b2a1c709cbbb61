"""Everything on one machine: Kafka, Valkey, the topics and the four processes, kept in one folder."""

from __future__ import annotations

import functools
import os
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from types import TracebackType

import msgspec

from lifelong.errors import ConfigError, MissingPartError
from lifelong.local import kafka, valkey
from lifelong.local.child import Child, check_running, exit_code, is_running, spawn, stop, stop_all, wait_until
from lifelong.local.disk import naming_full_disk
from lifelong.local.ports import HOST, claim, is_open
from lifelong.local.processes import PROCESSES, Process, cores, thread_budget
from lifelong.local.state import State, exclusive, read_state, write_state
from lifelong.local.status import ProcessStatus, StackStatus, health, is_ready

KAFKA = "kafka"
VALKEY = "valkey"


def _silent(progress: str) -> None:
    pass


class LocalStack:
    """Started and stopped by different programs if need be: what runs is written down in ``home``.

    ``home`` holds ``stack.json``, ``kafka/``, ``valkey/``, ``artifacts/`` and ``logs/``. As a context manager it is up
    inside the ``with`` and down after it.
    """

    def __init__(
        self,
        home: Path,
        *,
        kafka: str | None = None,
        redis: str | None = None,
        kafka_port: int = 0,
        redis_port: int = 0,
        http_port: int = 0,
        settings: Mapping[str, str] | None = None,
        create_topics: Callable[[str], None] | None = None,
        progress: Callable[[str], None] = _silent,
        processes: Sequence[Process] = PROCESSES,
        ready_timeout_seconds: float = 600.0,
    ) -> None:
        """
        Args:
            kafka: bootstrap servers of a Kafka that is there already, instead of our own.
            redis: URL of a Redis or Valkey that is there already.
            kafka_port, redis_port, http_port: 0: the same as last time, else any free one.
            settings: more ``LIFELONG_<SECTION>__<FIELD>`` for the processes, before those of the environment.
            create_topics: called with the bootstrap servers before the processes start, at each ``up``.
            progress: told in a few words what is being waited for.
            ready_timeout_seconds: for the processes; the first start makes the model ready, which takes its time.
        """
        self._home = home.absolute()
        self._kafka = kafka
        self._redis = redis
        self._wanted_ports = {KAFKA: kafka_port, VALKEY: redis_port, "http": http_port}
        self._settings = dict(settings or {})
        self._create_topics = create_topics
        self._progress = progress
        self._processes = tuple(processes)
        self._ready_timeout_seconds = ready_timeout_seconds

    def __enter__(self) -> LocalStack:
        self.up()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.down()

    def up(self) -> StackStatus:
        """Start what does not run; blocks until all of it is ready. What this call started is stopped if it fails.

        Raises:
            AlreadyRunningError: another ``up`` or ``down`` is at work, or somebody else on the same data.
            ChildFailedError: something ended or did not get ready; shows the end of its log.
            ConfigError: a port is taken, or the stack runs with other servers or ports than those asked for.
            MissingPartError: a program or a server is not there; names the mend.
            DiskFullError: there is no room below ``home``.
        """
        with naming_full_disk(self._home), exclusive(self._home):
            before = read_state(self._home)
            state = msgspec.structs.replace(before, children=tuple(filter(is_running, before.children)))
            kept = {child.pid for child in state.children}
            try:
                state = self._start_servers(self._adopt(state))
                if self._create_topics is not None:
                    self._progress("topics")
                    self._create_topics(state.kafka)
                state = self._start_processes(state)
                self._wait_ready(state)
            except BaseException:
                now = read_state(self._home)
                started = [child for child in now.children if child.pid not in kept]
                self._stop(now, started)
                raise
        return self.status()

    def down(self) -> None:
        """Stop everything that is ours; data is kept. Nothing to do is no error.

        Raises:
            AlreadyRunningError: an ``up`` or another ``down`` is at work.
        """
        if not self._home.exists():
            return
        with exclusive(self._home):
            state = read_state(self._home)
            self._stop(state, state.children)

    def status(self) -> StackStatus:
        """Asks every process; takes a moment if one hangs, never blocks on ``up`` or ``down``."""
        state = read_state(self._home)
        processes = [self._server_status(state, name) for name in (KAFKA, VALKEY) if name not in state.foreign]
        processes += [self._process_status(state, process) for process in self._processes]
        if state.foreign:
            running = any(process.state == "running" for process in processes)
        else:
            running = all(process.state == "running" for process in processes if process.name in (KAFKA, VALKEY))
        http = self._http_url(state)
        version = health(http).get("version") if http and self._serves(state) else None
        return StackStatus(
            home=str(self._home),
            running=running,
            ready=all(process.ready for process in processes),
            kafka=state.kafka,
            redis=state.redis,
            http=http,
            artifacts=str(self._home / "artifacts"),
            live_version=version if isinstance(version, str) else None,
            processes=tuple(processes),
        )

    # Starting

    def _adopt(self, state: State) -> State:
        """The state with what is asked for, or the reason why that cannot be while something runs."""
        for name, wanted, present in ((KAFKA, self._kafka, state.kafka), (VALKEY, self._redis, state.redis)):
            if wanted and state.children and wanted != present:
                raise ConfigError(name, f"the stack in {self._home} runs with {present}: stop it first (lifelong down)")
        for name, port in self._wanted_ports.items():
            owner = next((process.name for process in self._processes if process.http), "") if name == "http" else name
            if port and state.child(owner) and state.ports.get(name) != port:
                raise ConfigError(
                    f"{name} port", f"the stack in {self._home} uses {state.ports[name]}: stop it first (lifelong down)"
                )
        if state.children:
            return state
        foreign = tuple(name for name, given in ((KAFKA, self._kafka), (VALKEY, self._redis)) if given)
        return msgspec.structs.replace(state, foreign=foreign, kafka=self._kafka or "", redis=self._redis or "")

    def _start_servers(self, state: State) -> State:
        before = (state.kafka, state.redis)
        state = self._start_valkey(state)
        state = self._start_kafka(state)
        if state.children and before != (state.kafka, state.redis):
            # A server had to move to another port: whoever still runs looks for it at the old one.
            names = {process.name for process in self._processes}
            state = self._stop(state, [child for child in state.children if child.name in names])
        return state

    def _start_valkey(self, state: State) -> State:
        if VALKEY in state.foreign:
            self._progress(f"Redis at {state.redis}")
            if not valkey.answers(state.redis):
                raise MissingPartError(f"no Redis answers at {state.redis}: start it, or leave out --redis for our own")
            return state
        if state.child(VALKEY):
            return state
        self._progress("Valkey")
        state = self._claim(state, VALKEY, self._wanted_ports[VALKEY])
        server = valkey.ValkeyServer(self._home / "valkey", self._log(VALKEY), state.ports[VALKEY])
        return self._keep(msgspec.structs.replace(state, redis=server.url), server.start())

    def _start_kafka(self, state: State) -> State:
        if KAFKA in state.foreign:
            self._progress(f"Kafka at {state.kafka}")
            if not kafka.is_reachable(state.kafka):
                raise MissingPartError(f"no Kafka answers at {state.kafka}: start it, or leave out --kafka for our own")
            return state
        if state.child(KAFKA):
            return state
        self._progress("Kafka (the first start fetches 45 MB)")
        state = self._claim(state, KAFKA, self._wanted_ports[KAFKA])
        state = self._claim(state, "kafka-controller", 0)
        server = kafka.KafkaBroker(
            self._home / "kafka", self._log(KAFKA), state.ports[KAFKA], state.ports["kafka-controller"]
        )
        return self._keep(msgspec.structs.replace(state, kafka=server.address), server.start())

    def _start_processes(self, state: State) -> State:
        for process in self._processes:
            if state.child(process.name):
                continue
            port = "http" if process.http else process.name
            state = self._claim(state, port, self._wanted_ports.get(port, 0))
            child = spawn(
                process.name,
                process.command,
                log=self._log(process.name),
                lock=self._home / "run" / f"{process.name}.lock",
                env=self._environment(state, process),
                nice=process.nice,
            )
            state = self._keep(state, child)
        return state

    def _environment(self, state: State, process: Process) -> dict[str, str]:
        environment = {**os.environ, **self._settings}
        threads = environment.setdefault("LIFELONG_MODEL__THREADS", str(thread_budget(process.name, cores())))
        if threads != "0":
            environment |= {f"{library}_NUM_THREADS": threads for library in ("OMP", "MKL", "OPENBLAS")}
        environment |= {
            "TOKENIZERS_PARALLELISM": "false",
            "PYTHONUNBUFFERED": "1",
            "LIFELONG_KAFKA__BOOTSTRAP_SERVERS": state.kafka,
            "LIFELONG_REDIS__URL": state.redis,
            "LIFELONG_ARTIFACTS__URL": str(self._home / "artifacts"),
        }
        if process.http:
            environment["LIFELONG_INFERENCE__PORT"] = str(state.ports["http"])
        else:
            environment["LIFELONG_METRICS__PORT"] = str(state.ports[process.name])
        return environment

    def _wait_ready(self, state: State) -> None:
        for process in self._processes:
            child = state.child(process.name)
            assert child is not None
            self._progress(process.name)
            ready = functools.partial(self._is_ready, state, process)
            wait_until(child, ready, timeout_seconds=self._ready_timeout_seconds)

    def _is_ready(self, state: State, process: Process) -> bool:
        # One may wait for the work of another: if any of them ends there is nothing to wait for.
        for child in state.children:
            check_running(child)
        return is_ready(self._url(state, process))

    def _claim(self, state: State, name: str, wanted: int) -> State:
        port = claim(f"{name} port", wanted, state.ports.get(name, 0))
        return msgspec.structs.replace(state, ports={**state.ports, name: port})

    def _keep(self, state: State, child: Child) -> State:
        """Written down at once: whatever happens next, this child can be found and stopped."""
        try:
            state = state.with_child(child)
            write_state(self._home, state)
        except BaseException:
            stop(child)
            raise
        return state

    def _stop(self, state: State, children: Sequence[Child]) -> State:
        servers = [child for child in children if child.name in (KAFKA, VALKEY)]
        # The processes first and together, while the servers that they say good-bye to still answer.
        for group in ([child for child in children if child not in servers], servers):
            for name in stop_all(list(reversed(group))):
                self._progress(f"{name} did not stop when told and was killed")
            state = state.without(*(child.name for child in group))
            write_state(self._home, state)
        return state

    # Looking

    def _log(self, name: str) -> Path:
        return self._home / "logs" / f"{name}.log"

    def _url(self, state: State, process: Process) -> str:
        port = state.ports.get("http" if process.http else process.name)
        return f"http://{HOST}:{port}" if port else ""

    def _http_url(self, state: State) -> str:
        port = state.ports.get("http")
        return f"http://{HOST}:{port}" if port else ""

    def _serves(self, state: State) -> bool:
        return any(process.http and state.child(process.name) for process in self._processes)

    def _server_status(self, state: State, name: str) -> ProcessStatus:
        child = state.child(name)
        running = child is not None and is_running(child)
        return ProcessStatus(
            name=name,
            state="running" if running else "ended" if child else "stopped",
            ready=running and is_open(state.ports[name]),
            pid=child.pid if child and running else None,
            exit_code=exit_code(child) if child else None,
            log=str(self._log(name)),
        )

    def _process_status(self, state: State, process: Process) -> ProcessStatus:
        child = state.child(process.name)
        running = child is not None and is_running(child)
        url = self._url(state, process)
        failure = health(url).get("failure") if running else None
        return ProcessStatus(
            name=process.name,
            state="running" if running else "ended" if child else "stopped",
            ready=running and is_ready(url),
            pid=child.pid if child and running else None,
            exit_code=exit_code(child) if child else None,
            metrics=f"{url}/metrics" if url else None,
            failure=failure if isinstance(failure, str) else None,
            log=str(self._log(process.name)),
        )
