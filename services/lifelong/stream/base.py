"""The two sides of a stream."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import NamedTuple, Protocol

import msgspec


class Partition(NamedTuple):
    """``topic`` is the contract's name, without the installation's prefix."""

    topic: str
    number: int


class Record(msgspec.Struct, frozen=True):
    topic: str
    partition: int
    offset: int
    key: bytes | None
    value: bytes | None
    headers: tuple[tuple[str, bytes], ...]
    time: float
    """Seconds since 1970, as Kafka has it."""


class Source(Protocol):
    """Records of chosen partitions, read by one reader that keeps its own positions.

    For a process whose offsets are part of its state. Never evicted, whatever time the work takes between polls.
    """

    def seek(self, positions: Mapping[Partition, int]) -> None:
        """Read on from these positions. Every partition of the topics not named starts at its beginning.

        Must be called before the first poll, and may be called again.

        Raises:
            StreamGapError: there is no such partition.
        """
        ...

    def first_positions(self) -> Mapping[Partition, int]:
        """Of the oldest record that is still there in each partition, or the end if there is none.

        Raises UnreachableError."""
        ...

    def end_positions(self) -> Mapping[Partition, int]:
        """Where the next record of each partition will be: ``seek`` there to read only what is yet to come."""
        ...

    def poll(self, timeout_seconds: float, max_records: int = 500) -> list[Record]:
        """Blocks for up to ``timeout_seconds`` until there is something; in order within each partition.

        Raises:
            StreamGapError: retention has deleted records between our position and what is left. Also raised by every
                poll after that, until ``seek``.
            UnreachableError: no broker has answered for long. Reading goes on with the next poll, nothing is left out.
            StreamError: cannot be read, and will not be.
        """
        ...

    def pending(self) -> Mapping[Partition, int]:
        """For each partition, the number of records between our position and the end as it was at the last poll.

        Raises:
            UnreachableError: of a partition that has not been polled yet, the broker had to be asked.
        """
        ...

    def close(self) -> None: ...


class GroupSource(Protocol):
    """Records shared out among the members of a group; positions are kept by the broker."""

    def poll(self, timeout_seconds: float, max_records: int = 500) -> list[Record]:
        """As :meth:`Source.poll`. Partitions come and go during these calls only, see ``assigned``.

        Whenever any partition comes or goes, all are given up and taken anew: reading goes on from what was committed,
        and what was read but not committed comes again.
        """
        ...

    def assigned(self) -> Mapping[Partition, int | None]:
        """The partitions that are ours, each with the position that was committed when it became ours.

        ``None``: nothing was ever committed. The caller compares this with what it had: a partition that went and
        came back is a new mapping entry, so ``generation`` grows with each assignment.
        """
        ...

    @property
    def generation(self) -> int:
        """Grows whenever partitions were assigned or revoked."""
        ...

    def commit(self, positions: Mapping[Partition, int]) -> None:
        """Blocks until the broker has them. Positions of partitions that are no longer ours are dropped silently:
        whoever has them now will do that work again.

        Raises:
            UnreachableError: the same call may be made again.
        """
        ...

    def skip_to(self, partition: Partition, offset: int) -> None:
        """After a StreamGapError: read on from this offset, in a partition that is ours. Nothing is committed."""
        ...

    def pending(self) -> Mapping[Partition, int]: ...

    def close(self) -> None:
        """Leaves the group at once, so that others take over without waiting for a time-out."""
        ...


class Sink(Protocol):
    """Writes records. Order within a partition is that of the calls, also when sends are retried."""

    def send(
        self,
        topic: str,
        value: bytes | None,
        *,
        key: bytes | None = None,
        partition: int | None = None,
        headers: Sequence[tuple[str, bytes]] = (),
        time: float | None = None,
    ) -> None:
        """Hand over one record; may block while buffers are full. ``partition`` ``None``: chosen by ``key``.

        Raises:
            ValueError: neither key nor value. Errors of the broker: here, or by the next ``flush``.
        """
        ...

    def flush(self) -> None:
        """Blocks until every record handed over is acknowledged by all in-sync replicas.

        Raises:
            the first error of any send since the last flush. Then nothing more may be assumed of those records than
            that each was written once, several times or not at all. The sink may be used again.
        """
        ...

    def close(self) -> None: ...
