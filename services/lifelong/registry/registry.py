"""The registry that everybody uses: versions that are durable, pointers that are current."""

from __future__ import annotations

import logging
import secrets
from collections.abc import Iterator, Mapping

import msgspec

from lifelong.contracts.versions import Manifest, version_key
from lifelong.errors import CorruptVersionError, FencedError, UnknownVersionError
from lifelong.registry import layout
from lifelong.registry.base import ArtifactStore, Pointers, PointerState
from lifelong.runtime.clock import Clock, SystemClock

log = logging.getLogger(__name__)


class Registry:
    """Safe to share between threads. Keeps nothing itself.

    Number 0 of a line is the base model before anything was learned: it is always there and has no manifest.

    Every method raises UnreachableError (retriable) or RegistryError (names the mend) where a store cannot be used.
    """

    def __init__(self, store: ArtifactStore, pointers: Pointers, clock: Clock | None = None) -> None:
        self.store = store
        self.pointers = pointers
        self.clock = clock or SystemClock()

    # Reading.

    def newest(self, line: str) -> Manifest | None:
        """The newest version, accepted or not; ``None`` where nothing was ever learned.

        One whose manifest is damaged is passed over, and the log says so.
        """
        return next(self._readable(line), None)

    def newest_whole(self, line: str) -> tuple[Manifest, dict[str, bytes]] | None:
        """The version to recover from, with its files: the newest of which all is there and undamaged.

        Others are passed over, and the log says so: what they took in is after the positions of this one, and so it is
        learnt again. ``None``: nothing was ever learned, or nothing of it is left.
        """
        for manifest in self._readable(line):
            try:
                return manifest, {name: self.weights(manifest, name) for name in manifest.files}
            except CorruptVersionError as error:
                log.error("%s is passed over: %s", version_key(line, manifest.number), error)
        return None

    def highest_number(self, line: str) -> int:
        """The next version has a higher one, whether the newest can be read or not. 0: there is none yet."""
        return max(self.store.numbers(line), default=0)

    def manifest(self, line: str, number: int) -> Manifest:
        """Raises UnknownVersionError (number 0 has no manifest), CorruptVersionError."""
        return self.store.manifest(line, number)

    def versions(self, line: str, limit: int | None = None) -> list[Manifest]:
        """The newest ``limit`` versions, or all, ascending. Raises CorruptVersionError."""
        numbers = self.store.numbers(line)
        if limit is not None:
            numbers = numbers[max(0, len(numbers) - limit) :]
        return [self.store.manifest(line, number) for number in numbers]

    def lines(self) -> list[str]:
        return self.store.lines()

    def weights(self, manifest: Manifest, name: str) -> bytes:
        """A file of the version, verified. Raises CorruptVersionError: not there (any more), or not these bytes."""
        entry = manifest.files.get(name)
        if entry is None:
            raise CorruptVersionError(f"{version_key(manifest.line, manifest.number)} has no file {name!r}")
        return self.store.get(manifest.folder, name, entry)

    def state(self, line: str) -> PointerState:
        """The pointers; where they were lost, restored from the manifests: live is the newest accepted version."""
        state = self.pointers.read(line)
        if state is not None:
            return state
        self.store.secure(line)
        newest = self.newest(line)
        accepted = self._newest_accepted(line)
        number = accepted.number if accepted else 0
        restored = PointerState(
            live=number,
            candidate=number,
            epoch=newest.epoch if newest else 0,
            moved=accepted.created if accepted else 0.0,
            restored=secrets.token_hex(4),
        )
        return self.pointers.restore(line, restored)

    # A writer's part.

    def commit(self, manifest: Manifest, files: Mapping[str, bytes]) -> Manifest:
        """Make a version: the files first, the manifest last, all of it durable when this returns.

        Args:
            manifest: ``folder`` and ``files`` are filled in here. With no ``files`` given they stay as they are, for a
                version that has the same files as its parent.

        Returns:
            the manifest as it was committed.

        Raises:
            FencedError: another writer has taken over, or has made this number; this one must stop.
        """
        line, number = manifest.line, manifest.number
        self._check_epoch(manifest)
        if files:
            folder = layout.new_folder(line, number, manifest.epoch)
            entries = self.store.put(folder, files)
            manifest = msgspec.structs.replace(manifest, folder=folder, files=entries)
            # Again: writing may have taken long.
            self._check_epoch(manifest)
        self.store.commit(manifest)
        return manifest

    def promote(
        self, line: str, number: int, *, epoch: int, live: bool = True, writer: str | None = None
    ) -> PointerState:
        """Make the version the candidate and, unless an operator holds the line, live.

        Raises:
            FencedError: ``epoch`` is over. UnknownVersionError: there is no such version.
        """
        self._check_exists(line, number)
        self.state(line)
        return self.pointers.move(
            line, epoch=epoch, candidate=number, live=number if live else None, now=self.clock.now(), writer=writer
        )

    def catch_up(
        self, line: str, *, epoch: int, newest: Manifest | None = None, writer: str | None = None
    ) -> PointerState:
        """Promote the newest accepted version if that was not done: a writer may die between commit and promotion,
        so its successor does this first. A line that serves an older version because something is being forgotten
        goes on doing so, until the version without it ends that.

        Args:
            newest: the version that is recovered from; the newest one there is by default.

        Raises FencedError.
        """
        self.store.secure(line)
        state = self.state(line)
        newest = newest or self.newest(line)
        accepted = self._accepted_ancestor(newest) if newest else None
        if accepted is None or accepted.number == state.candidate:
            return state
        live = not state.withdrawn or bool(accepted.relearned)
        return self.promote(line, accepted.number, epoch=epoch, live=live, writer=writer)

    def withdraw(self, line: str, number: int, *, epoch: int, writer: str | None = None) -> PointerState:
        """Serve this older version from now on, until a version ends that with ``promote``. An operator's hold is left
        as it is.

        Raises FencedError. UnknownVersionError: there is no such version.
        """
        self._check_exists(line, number)
        candidate = self.state(line).candidate
        now = self.clock.now()
        return self.pointers.move(line, epoch=epoch, candidate=candidate, live=number, now=now, writer=writer)

    # An operator's part.

    def hold(self, line: str, number: int) -> PointerState:
        """Make this version live, older or newer, accepted or not, and keep it so until ``release``.

        Raises:
            UnknownVersionError: there is no such version. CorruptVersionError: its files are not there any more.
        """
        if number:
            manifest = self.store.manifest(line, number)
            for name in manifest.files:
                self.weights(manifest, name)
        self.state(line)
        return self.pointers.set_live(line, number, held=True, now=self.clock.now())

    def rollback(self, line: str, number: int | None = None) -> PointerState:
        """Hold this version, or the accepted one before the live one.

        Raises:
            UnknownVersionError: there is no such version. CorruptVersionError: its files are not there any more.
        """
        if number is None:
            live = self.state(line).live
            if live == 0:
                raise UnknownVersionError(f"{version_key(line, 0)} is live; there is nothing before it")
            parent = self.store.manifest(line, live).parent
            accepted = self._accepted_ancestor(self.store.manifest(line, parent)) if parent else None
            number = accepted.number if accepted else 0
        return self.hold(line, number)

    def release(self, line: str) -> PointerState:
        """End the hold: the newest accepted version goes live, and promotions move it again."""
        self.state(line)
        accepted = self._newest_accepted(line)
        number = accepted.number if accepted else 0
        return self.pointers.set_live(line, number, held=False, now=self.clock.now())

    # Space.

    def prune(self, line: str, keep: int) -> list[str]:
        """Delete the files of most versions but the newest ``keep``, and what interrupted writers left behind.

        Of older ones some stay, ever fewer the older they are (of those up to twice as old every second, and so on):
        to forget something, or to verify a version, one goes back to the nearest. Kept beside those: live and
        candidate, the nearest accepted ancestor of each version kept (what a rollback goes to), and every folder that
        a version kept has its files in. Manifests are never deleted.

        Returns:
            the folders that were deleted.
        """
        numbers = self.store.numbers(line)
        if not numbers:
            return []
        state = self.state(line)
        recent = {*numbers[-max(1, keep) :], state.live, state.candidate}
        needed: set[str] = set()
        for number in numbers:
            if number in recent or _is_kept(number, numbers[-1], max(1, keep)):
                try:
                    manifest = self.store.manifest(line, number)
                    needed.add(manifest.folder)
                    if number in recent:
                        for ancestor in self._ancestors(manifest):
                            needed.add(ancestor.folder)
                except CorruptVersionError as error:
                    # Its manifest, or an ancestor's, may be restored; which folder it names nobody can tell until then.
                    log.warning("what %s needs is not all known: %s", version_key(line, number), error)
                    needed.update(f for f in self.store.folders(line) if layout.folder_number(f) == number)
        dropped = []
        for folder in self.store.folders(line):
            number_of_folder = layout.folder_number(folder)
            assert number_of_folder is not None
            # Of a number yet to come, somebody may be writing it at this moment; numbers taken are decided.
            if folder not in needed and number_of_folder <= numbers[-1]:
                self.store.drop(folder)
                dropped.append(folder)
        return dropped

    def drop_left_out(self, manifest: Manifest) -> list[int]:
        """Delete the files of all versions between this one and its parent: they have learnt what this one forgot.

        What is live stays (an operator may hold it).

        Returns:
            the numbers whose files are gone now.
        """
        line, live = manifest.line, self.state(manifest.line).live
        parent = manifest.parent or 0
        left_out = {n for n in self.store.numbers(line) if parent < n < manifest.number and n != live}
        folders = [f for f in self.store.folders(line) if layout.folder_number(f) in left_out]
        for folder in folders:
            self.store.drop(folder)
        return sorted(number for folder in folders if (number := layout.folder_number(folder)) is not None)

    def _ancestors(self, manifest: Manifest) -> Iterator[Manifest]:
        """Parents, up to the first accepted one."""
        while manifest.parent:
            manifest = self.store.manifest(manifest.line, manifest.parent)
            yield manifest
            if is_accepted(manifest):
                return

    def _readable(self, line: str) -> Iterator[Manifest]:
        """Newest first."""
        for number in reversed(self.store.numbers(line)):
            try:
                yield self.store.manifest(line, number)
            except CorruptVersionError as error:
                log.error("%s is passed over: %s", version_key(line, number), error)

    def _accepted_ancestor(self, manifest: Manifest) -> Manifest | None:
        """The version itself, or else the nearest of its ancestors that was accepted."""
        if is_accepted(manifest):
            return manifest
        return next((ancestor for ancestor in self._ancestors(manifest) if is_accepted(ancestor)), None)

    def _newest_accepted(self, line: str) -> Manifest | None:
        newest = self.newest(line)
        return self._accepted_ancestor(newest) if newest else None

    def _check_exists(self, line: str, number: int) -> None:
        if number:
            self.store.manifest(line, number)

    def _check_epoch(self, manifest: Manifest) -> None:
        epoch = self.state(manifest.line).epoch
        if manifest.epoch < epoch:
            raise FencedError(f"line {manifest.line!r}: epoch {manifest.epoch} is over, {epoch} has begun")


def is_accepted(manifest: Manifest) -> bool:
    """A version that no gate has judged counts as accepted."""
    return manifest.verdict is None or manifest.verdict.accepted


def _is_kept(number: int, newest: int, keep: int) -> bool:
    """The newest ``keep`` numbers, of those up to twice as old the multiples of 2, of those up to 4 times of 4 …"""
    stride, age = 1, newest - number
    while age >= keep * stride:
        stride *= 2
    return number % stride == 0
