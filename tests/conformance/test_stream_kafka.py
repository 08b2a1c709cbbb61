"""What only a real Kafka can do to us: other clients, missing topics, and brokers that go away."""

from __future__ import annotations

import socket
import subprocess
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from kafka.net.inet import KafkaNetSocket
from kafka.net.transport import KafkaTCPTransport
from tests.conformance.stream_worlds import KafkaWorld, read, settle
from tests.programs import program

from lifelong.config.shared import KafkaSettings
from lifelong.contracts.topics import EVENTS
from lifelong.errors import ConfigError, MissingPartError, StreamError, UnreachableError
from lifelong.local.child import Child, stop
from lifelong.local.kafka import KafkaBroker
from lifelong.local.ports import free_port
from lifelong.stream.admin import apply_topics
from lifelong.stream.base import Partition
from lifelong.stream.kafka import KafkaGroupSource, KafkaSink, KafkaSource

pytestmark = pytest.mark.kafka

TOPIC = EVENTS.name
P0, P1 = Partition(TOPIC, 0), Partition(TOPIC, 1)


@pytest.fixture
def world(kafka_settings: KafkaSettings) -> Iterator[KafkaWorld]:
    opened = KafkaWorld(kafka_settings)
    yield opened
    opened.close()


class TestOtherClients:
    @pytest.fixture
    def kcat(self, world: KafkaWorld) -> Callable[..., None]:
        path = program("kcat", "apt install kcat")

        def produce(text: bytes, *options: str | bytes) -> None:
            settings = world.settings
            where = ["-b", settings.bootstrap_servers, "-t", settings.topic_prefix + TOPIC, "-p", "0"]
            subprocess.run([path, "-P", *where, *options], input=text, check=True, timeout=60)

        return produce

    @pytest.mark.parametrize("codec", ["none", "gzip", "snappy", "lz4", "zstd"])
    def test_may_pack_as_they_like(self, world: KafkaWorld, kcat: Callable[..., None], codec: str) -> None:
        """Our client cannot unpack snappy and zstd, and hangs on them; so the topics are told to pack anew."""
        kcat(b"".join(b"%03d %s\n" % (n, b"x" * 500) for n in range(100)), "-z", codec)
        source = world.source([TOPIC])
        source.seek({})
        assert [int((r.value or b"")[:3]) for r in read(source, 100)] == list(range(100))

    @pytest.mark.parametrize("codec", ["none", "lz4", "zstd"])
    def test_may_write_header_names_that_are_no_text(
        self, world: KafkaWorld, kcat: Callable[..., None], codec: str
    ) -> None:
        kcat(b"before\n")
        kcat(b"odd\n", "-z", codec, "-H", b"\xff\xfe=1")
        kcat(b"after\n")
        source = world.source([TOPIC])
        source.seek({})
        assert [r.value for r in read(source, 3)] == [b"before", b"odd", b"after"]

    def test_may_write_headers_without_a_value(self, world: KafkaWorld, kcat: Callable[..., None]) -> None:
        kcat(b"v\n", "-H", "name")
        source = world.source([TOPIC])
        source.seek({})
        assert read(source, 1)[0].headers == (("name", b""),)

    def test_may_write_records_of_nothing(self, world: KafkaWorld, kcat: Callable[..., None]) -> None:
        kcat(b":\n", "-Z", "-K", ":")
        source = world.source([TOPIC])
        source.seek({})
        record = read(source, 1)[0]
        assert (record.key, record.value) == (None, None)

    def test_what_cannot_be_read_stays_an_error(self, world: KafkaWorld, kcat: Callable[..., None]) -> None:
        """kafka-python's own poll never returns after such an error."""
        world.configure(TOPIC, "compression.type", "producer")
        kcat(b"x" * 1000, "-z", "zstd")
        source = world.source([TOPIC])
        source.seek({})
        for _ in range(3):
            with pytest.raises(StreamError, match=r"cannot read on: .*zstd.*-0 at 0") as caught:
                read(source, 1)
            assert not caught.value.retriable


class TestGroup:
    def test_a_member_that_closes_is_gone_at_once(self, world: KafkaWorld) -> None:
        """Not only when its session times out."""
        one, two = world.group_source([TOPIC], "g"), world.group_source([TOPIC], "g")
        settle(lambda: sorted([list(one.assigned()), list(two.assigned())]) == [[P0], [P1]], one, two)
        group_id = world.settings.topic_prefix + "g"
        assert len(world.admin.describe_groups([group_id])[group_id]["members"]) == 2
        one.close()
        assert len(world.admin.describe_groups([group_id])[group_id]["members"]) == 1

    def test_brokers_keep_what_is_committed_under_the_groups_name(self, world: KafkaWorld) -> None:
        sink = world.sink()
        sink.send(TOPIC, b"v", partition=0)
        sink.flush()
        member = world.group_source([TOPIC], "g")
        read(member, 1)
        member.commit({P0: 1})
        group_id = world.settings.topic_prefix + "g"
        (offsets,) = world.admin.list_group_offsets([group_id]).values()
        assert {p.topic: at.offset for p, at in offsets.items()} == {world.settings.topic_prefix + TOPIC: 1}


class TestNamesAndPlaces:
    def test_installations_with_other_prefixes_see_nothing_of_ours(
        self, world: KafkaWorld, kafka_servers: str, fresh_line: str
    ) -> None:
        others = KafkaSettings(bootstrap_servers=kafka_servers, topic_prefix=f"{fresh_line}-other.", partitions=2)
        apply_topics(others)
        sink = world.sink()
        sink.send(TOPIC, b"ours", partition=0)
        sink.flush()
        theirs = KafkaSource(others, [TOPIC])
        assert theirs.end_positions() == {P0: 0, P1: 0}
        theirs.close()

    def test_a_missing_topic_names_the_mend(self, kafka_servers: str) -> None:
        settings = KafkaSettings(bootstrap_servers=kafka_servers, topic_prefix="nowhere.")
        before = threading.active_count()
        for make in (
            lambda: KafkaSource(settings, [TOPIC], patience_seconds=2),
            lambda: KafkaGroupSource(settings, [TOPIC], "nowhere", patience_seconds=2),
        ):
            with pytest.raises(MissingPartError, match=r"nowhere\..*lifelong topics apply"):
                make()
        assert threading.active_count() == before

    def test_sending_to_a_missing_topic_fails(self, kafka_servers: str) -> None:
        sink = KafkaSink(KafkaSettings(bootstrap_servers=kafka_servers, topic_prefix="nowhere."), patience_seconds=2)
        with pytest.raises((MissingPartError, UnreachableError), match="nowhere"):
            sink.send(TOPIC, b"v")
        sink.close()

    def test_no_broker_is_an_error_that_may_pass(self) -> None:
        settings = KafkaSettings(bootstrap_servers=f"127.0.0.1:{free_port()}")
        before = threading.active_count()
        for make in (
            lambda: KafkaSink(settings, patience_seconds=1),
            lambda: KafkaSource(settings, [TOPIC], patience_seconds=1),
            lambda: KafkaGroupSource(settings, [TOPIC], "g", patience_seconds=1),
        ):
            with pytest.raises(UnreachableError, match=settings.bootstrap_servers) as caught:
                make()
            assert caught.value.retriable
        assert threading.active_count() == before, "what could not connect has left a thread behind"

    def test_a_missing_certificate_file_names_the_setting(self, kafka_servers: str) -> None:
        settings = KafkaSettings(bootstrap_servers=kafka_servers, security_protocol="SSL", ssl_cafile="/no/such.pem")
        with pytest.raises(ConfigError, match=r"kafka\.ssl_cafile"):
            KafkaSink(settings)


class Broker:
    """A broker of one's own, to be killed and started again."""

    def __init__(self, home: Path) -> None:
        self._broker = KafkaBroker(home / "kafka", home / "kafka.log", free_port(), free_port())
        self._child: Child = self._broker.start()
        self.settings = KafkaSettings(bootstrap_servers=self._broker.address, partitions=2)

    def stop(self) -> None:
        stop(self._child)

    def start(self) -> None:
        self._child = self._broker.start()


@pytest.fixture
def broker(tmp_path: Path) -> Iterator[Broker]:
    running = Broker(tmp_path)
    apply_topics(running.settings)
    yield running
    running.stop()


def test_a_broker_that_goes_and_comes_back_is_one_error_and_no_loss(broker: Broker) -> None:
    """None of the clients has to be made anew."""
    sink = KafkaSink(broker.settings, patience_seconds=4)
    source = KafkaSource(broker.settings, [TOPIC], patience_seconds=4)
    member = KafkaGroupSource(broker.settings, [TOPIC], "g", patience_seconds=4)

    def write(value: bytes) -> None:
        sink.send(TOPIC, value, partition=0)
        sink.flush()

    write(b"0")
    source.seek({})
    read(source, 1)
    read(member, 1)
    member.commit({P0: 1})
    broker.stop()

    with pytest.raises(UnreachableError):
        write(b"lost or not")
    for quiet in (source, member):
        with pytest.raises(UnreachableError, match="has not answered"):
            read(quiet, 1)
    with pytest.raises(UnreachableError):
        member.commit({P0: 1})

    broker.start()
    while True:
        try:
            write(b"1")
            break
        except UnreachableError:
            pass  # It may take a moment until the broker takes records again.
    for reader in (source, member):
        values = [b""]
        while values[-1] != b"1":
            values += [r.value or b"" for r in patiently(reader)]
        assert values[1:-1] in ([], [b"1"], [b"lost or not"], [b"lost or not", b"1"])
    settle(lambda: set(member.assigned()) == {P0, P1}, member)
    member.commit({P0: 2})
    for client in (source, member, sink):
        client.close()


def patiently(reader: KafkaSource | KafkaGroupSource) -> list:
    try:
        return reader.poll(0.5)
    except UnreachableError:
        return []


def test_all_can_be_closed_while_the_broker_is_away(broker: Broker) -> None:
    before = threading.active_count()
    sink = KafkaSink(broker.settings, patience_seconds=2)
    source = KafkaSource(broker.settings, [TOPIC], patience_seconds=2)
    member = KafkaGroupSource(broker.settings, [TOPIC], "g", patience_seconds=2)
    source.seek({})
    source.poll(0.1)
    settle(lambda: len(member.assigned()) == 2, member)
    sink.send(TOPIC, b"v", partition=0)
    sink.flush()
    broker.stop()
    sink.send(TOPIC, b"never", partition=0)
    for client in (source, member, sink):
        client.close()
    assert threading.active_count() == before


def test_closed_with_something_yet_to_be_written_it_leaves_no_socket(
    kafka_settings: KafkaSettings, monkeypatch: pytest.MonkeyPatch
) -> None:
    opened: list[socket.socket] = []

    def remembered(*args: Any) -> socket.socket:
        opened.append(socket.socket(*args))
        return opened[-1]

    monkeypatch.setattr(KafkaNetSocket, "socket", lambda _self, *args: remembered(*args))
    source = KafkaSource(kafka_settings, [TOPIC], patience_seconds=2)
    source.seek({})
    source.poll(0.1)
    monkeypatch.setattr(KafkaTCPTransport, "_sock_send", lambda _self: (0, None))
    for transport in [conn.transport for conn in source._consumer._client._manager._conns.values()]:
        transport.write(b"never")
    source.close()
    assert opened
    assert {sock.fileno() for sock in opened} == {-1}


def test_the_address_of_a_port_that_says_nothing() -> None:
    """Something listens there, but it is no Kafka."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        settings = KafkaSettings(bootstrap_servers=f"127.0.0.1:{server.getsockname()[1]}")
        with pytest.raises(UnreachableError):
            KafkaSink(settings, patience_seconds=1)
