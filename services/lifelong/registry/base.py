"""The two stores behind the registry, in prose.

**Artifacts** are durable and are the truth. A version is a folder of files and a manifest. The files go first, under a
folder name that no other writer uses; the manifest goes last, under ``{line}/{number}``, created only if nobody else
has created it. A version without a manifest does not exist. A manifest is never changed.

**Pointers** are small, shared and may be lost: which version of a line is live, which is the newest candidate, the
fencing epoch, and whether an operator holds the live version. They live in Redis and are rebuilt from the manifests.

A *writer* of a line takes the lease and with it a new epoch, higher than any before. Everything it writes carries that
epoch; a write with an older epoch than the store has seen is refused with FencedError.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Protocol

import msgspec

from lifelong.contracts.versions import FileEntry, Manifest


class PointerState(msgspec.Struct, frozen=True):
    """``live`` and ``candidate`` are version numbers; 0 is the base model before anything was learned."""

    live: int = 0
    candidate: int = 0
    epoch: int = 0
    held: bool = False
    """An operator chose the live version: promotions move only the candidate until released."""
    moved: float = 0.0
    """Seconds since 1970 of the last move of ``live``."""
    restored: str = ""
    """Unlike that of any other time when the pointers were made from the manifests. Epochs of pointers that differ in
    it cannot be compared: those that were taken and never committed anything are lost with the store."""

    @property
    def withdrawn(self) -> bool:
        """Newer versions are there, but have learnt what has to be forgotten at once."""
        return self.live != self.candidate and not self.held


class ArtifactStore(Protocol):
    """Paths are those of :mod:`lifelong.registry.layout`.

    Every method raises RegistryError where the store cannot be used (full, no rights; names the mend), or
    UnreachableError where trying again may help.
    """

    def put(self, folder: str, files: Mapping[str, bytes]) -> dict[str, FileEntry]:
        """Writes the files durably (they survive a power cut once this returns). ``folder``: from ``new_folder``.

        All files or, after an error, none.
        """
        ...

    def get(self, folder: str, name: str, entry: FileEntry) -> bytes:
        """Raises CorruptVersionError: missing, or not the bytes that ``entry`` says."""
        ...

    def commit(self, manifest: Manifest) -> None:
        """Makes the version exist, durably and in one step.

        Raises FencedError: another writer has already made a version with this number. MissingPartError: the store
        has no way to create something only if it is not there.
        """
        ...

    def secure(self, line: str) -> None:
        """Makes all versions of the line durable that can be seen: who made one may have died before it was."""
        ...

    def manifest(self, line: str, number: int) -> Manifest:
        """Raises UnknownVersionError, CorruptVersionError."""
        ...

    def numbers(self, line: str) -> list[int]:
        """Of all versions that exist, ascending."""
        ...

    def lines(self) -> list[str]: ...

    def folders(self, line: str) -> list[str]:
        """All folders of this line that are there, whether a manifest names them or not."""
        ...

    def drop(self, folder: str) -> None:
        """Deletes the folder and what is in it, to free space. Manifests stay. A missing folder is no error."""
        ...


class Pointers(Protocol):
    """Every method raises UnreachableError, which is retriable, where the store does not answer."""

    def read(self, line: str) -> PointerState | None:
        """``None``: nothing is known of this line (it is new, or the store was lost)."""
        ...

    def acquire(self, line: str, writer: str, ttl_seconds: float, at_least_epoch: int) -> int | None:
        """Take the lease; the new epoch, higher than ``at_least_epoch`` and than any before. ``None``: somebody else
        has it now."""
        ...

    def renew(self, line: str, writer: str, ttl_seconds: float) -> bool:
        """False: somebody else has or had the lease since; this writer must stop.

        A lease that ran out is taken up again if nobody took it meanwhile: a stall alone does no harm.
        """
        ...

    def reclaim(self, line: str, writer: str, ttl_seconds: float, epoch: int) -> bool:
        """Take up a lease that the store has lost with all that it knew of writers, under the epoch it had.

        False: the store knows of a writer since, or of a newer epoch; this writer must stop. Where another came and
        the store was lost again after that, the number of the version that the other has made stops this one.
        """
        ...

    def release(self, line: str, writer: str) -> None: ...

    def writer(self, line: str) -> str | None:
        """Who has the lease now."""
        ...

    def move(
        self, line: str, *, epoch: int, candidate: int, live: int | None, now: float, writer: str | None = None
    ) -> PointerState:
        """A writer's move, in one step. ``live=None``, or a held line: only the candidate moves.

        Args:
            writer: who moves it. Where the pointers were lost, and with them an epoch in which there was no version
                yet, two writers can have the same epoch.

        Raises FencedError: ``epoch`` is not the newest, or the newest writer is another. RegistryError: nothing is
        known of this line, ``restore`` comes first.
        """
        ...

    def set_live(self, line: str, number: int, *, held: bool, now: float) -> PointerState:
        """An operator's move: roll back (``held=True``) or release (``held=False``). Needs no lease.

        Raises RegistryError: nothing is known of this line, ``restore`` comes first.
        """
        ...

    def restore(self, line: str, state: PointerState) -> PointerState:
        """Set the state only if there is none; what is there afterwards is returned. The epoch never goes back."""
        ...
