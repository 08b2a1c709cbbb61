"""One Kafka broker in KRaft mode, which is its own controller, on the loopback interface."""

from __future__ import annotations

import os
import shutil
import subprocess
import uuid
from base64 import urlsafe_b64encode
from pathlib import Path

from kafka.admin import KafkaAdminClient
from kafka.errors import KafkaConfigurationError, KafkaError

from lifelong.contracts.topics import MAX_MESSAGE_BYTES
from lifelong.errors import ConfigError
from lifelong.local.child import Child, ChildFailedError, check_free, last_lines, spawn, stop, wait_until
from lifelong.local.disk import MEND, check_room, naming_full_disk
from lifelong.local.java import find_java
from lifelong.local.kafka_jars import kafka_jars
from lifelong.local.ports import HOST, is_open

# Seconds on an idle machine; beside models that learn on every core it has taken more than a minute.
_READY_TIMEOUT_SECONDS = 180

# The serial collector and the quick compiler alone: for one user's stream they are as fast, the broker is ready in
# half the time, and it stays small beside the models.
_JVM = ("-Xms64m", "-Xmx256m", "-XX:+UseSerialGC", "-XX:TieredStopAtLevel=1", "-Djava.awt.headless=true")

_PROPERTIES = """\
# Written anew at each start by lifelong.
process.roles=broker,controller
node.id=1
listeners=BROKER://{host}:{port},CONTROLLER://{host}:{controller_port}
advertised.listeners=BROKER://{host}:{port},CONTROLLER://{host}:{controller_port}
listener.security.protocol.map=BROKER:PLAINTEXT,CONTROLLER:PLAINTEXT
inter.broker.listener.name=BROKER
controller.listener.names=CONTROLLER
controller.quorum.bootstrap.servers={host}:{controller_port}
log.dirs={data}

# Topics are made by `lifelong topics apply`, with the right number of partitions and retention.
auto.create.topics.enable=false
# A record of this size is taken, so that an event too large to learn from reaches the collector, which dead-letters
# it with its reason, instead of failing in the producer of the application.
message.max.bytes={max_message_bytes}

# One node holds everything once.
default.replication.factor=1
min.insync.replicas=1
offsets.topic.replication.factor=1
offsets.topic.num.partitions=4
transaction.state.log.replication.factor=1
transaction.state.log.min.isr=1
transaction.state.log.num.partitions=1
share.coordinator.state.topic.replication.factor=1
share.coordinator.state.topic.min.isr=1
share.coordinator.state.topic.num.partitions=1
group.initial.rebalance.delay.ms=0
# After a kill the controller waits so long for the broker that was, before it lets the new one register.
broker.session.timeout.ms=4000
broker.heartbeat.interval.ms=500

# The cleaner takes its buffer at start, half of this heap by default.
log.cleaner.dedupe.buffer.size=16777216
num.network.threads=2
num.io.threads=4
"""

_LOGGING = """\
status=error
appender.console.type=Console
appender.console.name=console
appender.console.layout.type=PatternLayout
appender.console.layout.pattern=%d %p %m (%c{1})%n
rootLogger.level=warn
rootLogger.appenderRef.console.ref=console
logger.start.name=kafka.server.KafkaRaftServer
logger.start.level=info
# It closes the connections of clients that went without a word.
logger.selector.name=org.apache.kafka.common.network.Selector
logger.selector.level=error
"""


class KafkaBroker:
    """Keeps everything below ``folder``; its data survives a stop, a kill and a change of ports."""

    def __init__(self, folder: Path, log: Path, port: int, controller_port: int) -> None:
        self._folder = folder.absolute()
        self._log = log.absolute()
        self._port = port
        self._controller_port = controller_port

    @property
    def address(self) -> str:
        return f"{HOST}:{self._port}"

    def start(self) -> Child:
        """Blocks until clients are answered. The first start of a folder formats it.

        Raises:
            MissingPartError: no Java, or no Kafka and no network.
            ConfigError: Kafka cannot keep its data in a folder of this name.
            DiskFullError: there is no room for its data.
            AlreadyRunningError: another broker works on this folder.
            ChildFailedError: it did not come up; names the mend where it is known.
        """
        lock = self._folder / "broker.lock"
        check_free("kafka", lock)
        with naming_full_disk(self._folder):
            child = spawn("kafka", self._prepare(), log=self._log, lock=lock, env=_environment())
        try:
            wait_until(child, self._is_ready, timeout_seconds=_READY_TIMEOUT_SECONDS, diagnose=diagnose)
        except BaseException:
            stop(child)
            raise
        return child

    def _prepare(self) -> tuple[str, ...]:
        """The command to run, once everything that it reads is in its place."""
        if "," in str(self._folder):
            raise ConfigError("home", f"Kafka takes a comma for the end of a path: choose another than {self._folder}")
        java = find_java()
        class_path = ":".join(str(path) for path in kafka_jars())
        self._folder.mkdir(parents=True, exist_ok=True)
        check_room(self._folder)
        logging = self._folder / "log4j2.properties"
        logging.write_text(_LOGGING)
        run = (str(java.path), *_JVM, f"-Dlog4j2.configurationFile={logging}", "-cp", class_path)
        data = self._folder / "data"
        if not data.exists():
            self._format(run, data)
        return (*run, "kafka.Kafka", str(self._write_properties("server.properties", data)))

    def _format(self, run: tuple[str, ...], data: Path) -> None:
        """Beside the place of the data and moved there when done, so that there is no half-formatted folder."""
        fresh = self._folder / "data.new"
        shutil.rmtree(fresh, ignore_errors=True)
        properties = self._write_properties("format.properties", fresh)
        cluster_id = urlsafe_b64encode(uuid.uuid4().bytes).decode().rstrip("=")
        command = (*run, "kafka.tools.StorageTool", "format", "--standalone")
        # With `=`: an id may begin with a hyphen.
        done = subprocess.run(
            [*command, f"--cluster-id={cluster_id}", f"--config={properties}"],
            capture_output=True,
            text=True,
            env=_environment(),
            check=False,
        )
        if done.returncode:
            output = done.stdout + done.stderr
            mend = diagnose(output)
            raise ChildFailedError(
                f"Kafka cannot format {data}." + (f" {mend}" if mend else "") + f" It says:\n{last_lines(output)}"
            )
        fresh.rename(data)

    def _write_properties(self, name: str, data: Path) -> Path:
        path = self._folder / name
        path.write_text(
            _PROPERTIES.format(
                host=HOST,
                port=self._port,
                controller_port=self._controller_port,
                data=_escape(str(data)),
                max_message_bytes=MAX_MESSAGE_BYTES,
            )
        )
        return path

    def _is_ready(self) -> bool:
        # The client waits long for a broker that is not there: ask it only once somebody listens.
        return is_open(self._port) and answers(self.address)


def _environment() -> dict[str, str]:
    # In the C locale Java cannot name a file outside ASCII.
    return {**os.environ, "LC_ALL": "C.UTF-8"}


def _escape(value: str) -> str:
    """For a Java properties file, which is Latin-1 and takes the rest as UTF-16 units."""
    units = value.replace("\\", "\\\\").encode("utf-16-be")
    numbers = (int.from_bytes(units[i : i + 2], "big") for i in range(0, len(units), 2))
    return "".join(chr(number) if number < 128 else f"\\u{number:04x}" for number in numbers)


def is_reachable(bootstrap_servers: str) -> bool:
    """Whether somebody takes connections at one of them at least. Says nothing of security settings: a client of
    somebody else's Kafka has its own."""
    for server in bootstrap_servers.split(","):
        host, _, port = server.strip().rpartition(":")
        if not host or not port.isdecimal():
            raise ConfigError("kafka", f"expected host:port[,host:port], got {bootstrap_servers!r}")
        if is_open(int(port), host.strip("[]"), timeout_seconds=5):
            return True
    return False


def answers(bootstrap_servers: str, timeout_seconds: float = 5) -> bool:
    """Whether a broker there negotiates its API versions and takes part in its cluster."""
    timeout_ms = int(timeout_seconds * 1000)
    try:
        with KafkaAdminClient(
            bootstrap_servers=bootstrap_servers.split(","),
            bootstrap_timeout_ms=timeout_ms,
            request_timeout_ms=timeout_ms,
        ) as admin:
            # A fenced broker is known but not yet given any partition.
            return any(not broker.get("is_fenced") for broker in admin.describe_cluster()["brokers"])
    except KafkaConfigurationError:
        raise
    except (KafkaError, OSError):
        return False


def diagnose(output: str) -> str | None:
    """What to do about what the broker says before it gives up."""
    if "No space left on device" in output:
        return f"The disk is full: {MEND}."
    if "Address already in use" in output:
        return "A port was taken meanwhile: start again, or choose another port."
    if "Failed to acquire lock on file .lock" in output:
        return "Another broker works on this folder: stop it, or use another home."
    if "UnsupportedClassVersionError" in output:
        return "Java is too old: point JAVA_HOME at a newer one."
    return None
