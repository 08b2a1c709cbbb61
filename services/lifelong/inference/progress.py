"""How far each partition is answered, when answers come in another order than their requests."""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping

from lifelong.stream.base import Partition


class _Track:
    def __init__(self, committed: int) -> None:
        self.committed = committed
        self.position = committed
        """Everything before it is answered, and the answers are out."""
        self.tickets: dict[int, int | None] = {}
        """In the order of the offsets: that of the answer, or ``None`` while there is none."""


class Progress:
    """``answered`` may be called by any thread, everything else by the one that reads."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._tracks: dict[Partition, _Track] = {}

    @property
    def num_open(self) -> int:
        """Begun and not committed."""
        with self._lock:
            return sum(len(track.tickets) + (track.position > track.committed) for track in self._tracks.values())

    @property
    def num_running(self) -> int:
        """Begun and not answered."""
        with self._lock:
            return sum(ticket is None for track in self._tracks.values() for ticket in track.tickets.values())

    def assign(self, assigned: Mapping[Partition, int | None]) -> None:
        """These are our partitions now, with what is committed of each.

        A partition that we had before goes on where it was: what is under way will still be answered, whether or not
        its requests are read again. What others have answered meanwhile need not be ours any more.
        """
        with self._lock:
            kept = {partition: track for partition, track in self._tracks.items() if partition in assigned}
            for partition, at in assigned.items():
                track = kept.setdefault(partition, _Track(at or 0))
                # What we thought committed may have come too late, and is committed again then.
                track.committed = at or 0
                track.position = max(track.position, track.committed)
                track.tickets = {offset: t for offset, t in track.tickets.items() if offset >= track.position}
            self._tracks = kept

    def begin(self, partition: Partition, offset: int) -> bool:
        """False: it is under way already, or answered, and was read a second time."""
        with self._lock:
            track = self._tracks.setdefault(partition, _Track(0))
            if offset < track.position or offset in track.tickets:
                return False
            track.tickets[offset] = None
            return True

    def give_back(self, partition: Partition, offset: int) -> None:
        """This one and what follows it will not be committed by us."""
        with self._lock:
            if track := self._tracks.get(partition):
                track.tickets = {at: ticket for at, ticket in track.tickets.items() if at < offset}

    def answered(self, partition: Partition, offset: int, ticket: int) -> None:
        """Nothing happens where the partition, or the request, is not ours any more."""
        with self._lock:
            track = self._tracks.get(partition)
            if track is not None and offset in track.tickets:
                track.tickets[offset] = ticket

    def done(self, is_out: Callable[[int], bool]) -> dict[Partition, int]:
        """The positions to commit, of partitions where there is something new."""
        positions = {}
        with self._lock:
            for partition, track in self._tracks.items():
                for offset, ticket in list(track.tickets.items()):
                    if ticket is None or not is_out(ticket):
                        break
                    del track.tickets[offset]
                    track.position = offset + 1
                if track.position > track.committed:
                    positions[partition] = track.position
        return positions

    def committed(self, positions: Mapping[Partition, int]) -> None:
        with self._lock:
            for partition, at in positions.items():
                if partition in self._tracks:
                    self._tracks[partition].committed = at
