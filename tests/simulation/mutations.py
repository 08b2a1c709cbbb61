"""The product with one safeguard taken out, to see that the checker misses it."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from typing import Any
from unittest import mock

import msgspec

from lifelong.collector.dedupe import Claim, LocalSeen
from lifelong.contracts.samples import SampleRecord
from lifelong.contracts.versions import Manifest
from lifelong.registry import layout
from lifelong.registry.directory import DirectoryStore
from lifelong.registry.local import LocalPointers
from lifelong.registry.registry import Registry
from lifelong.registry.writer import Writer
from lifelong.trainer import intake
from lifelong.trainer.handler import Trainer

Mutation = Callable[[], Any]


@contextmanager
def no_offsets_in_manifest() -> Iterator[None]:
    restore = Trainer.restore

    def forgetful(trainer: Trainer, manifest: Manifest, files: Any) -> None:
        restore(trainer, msgspec.structs.replace(manifest, watermarks={}, positions={}), files)

    with mock.patch.object(Trainer, "restore", forgetful):
        yield


@contextmanager
def no_watermark() -> Iterator[None]:
    with mock.patch.object(intake, "coverage", return_value="new"):
        yield


@contextmanager
def no_coverage() -> Iterator[None]:
    """Whatever ends beyond the watermark is new, wherever it begins."""

    def careless(record: SampleRecord, watermark: int) -> str:
        return "new" if record.to_offset > watermark else "duplicate"

    with mock.patch.object(intake, "coverage", careless):
        yield


@contextmanager
def no_fence() -> Iterator[None]:
    """Neither the pointers nor the registry compare epochs or writers, and nobody minds a lost lease."""
    move = LocalPointers.move

    def careless(pointers: LocalPointers, line: str, *, epoch: int, **kwargs: Any) -> Any:
        kwargs.pop("writer", None)
        if line in pointers._lines:
            pointers._lines[line].epoch = min(epoch, pointers._lines[line].epoch)
        return move(pointers, line, epoch=epoch, **kwargs)

    with (
        mock.patch.object(LocalPointers, "move", careless),
        mock.patch.object(Registry, "_check_epoch", return_value=None),
        mock.patch.object(Writer, "check", return_value=None),
    ):
        yield


@contextmanager
def no_fsync_of_files() -> Iterator[None]:
    def write(store: DirectoryStore, path: Any, data: bytes) -> None:
        with store._disk.create(path) as file:
            file.write(data)

    with mock.patch.object(DirectoryStore, "_write", write):
        yield


@contextmanager
def no_fsync_of_folders() -> Iterator[None]:
    from tests.simulation.disk import Mounted

    with mock.patch.object(Mounted, "sync_folder", lambda disk, path: disk._on("disk.sync_folder")):
        yield


@contextmanager
def manifest_in_place() -> Iterator[None]:
    def commit(store: DirectoryStore, manifest: Manifest) -> None:
        folder = store._root / layout.manifests_path(manifest.line)
        store._make_folders(folder)
        path = folder / layout.manifest_name(manifest.number)
        with suppress(FileNotFoundError):
            store._disk.unlink(path)
        store._write(path, msgspec.json.encode(manifest))
        store._disk.sync_folder(folder)

    with mock.patch.object(DirectoryStore, "commit", commit):
        yield


@contextmanager
def seen_before() -> Iterator[None]:
    """What was seen is a duplicate, also for the record that was seen."""
    claim_of = LocalSeen._claim

    def claim(seen: LocalSeen, key: str, claim: Claim) -> str | None:
        firsts = seen._firsts.get(key, [])
        return firsts[0][0] if firsts else claim_of(seen, key, claim)

    with mock.patch.object(LocalSeen, "_claim", claim):
        yield


@contextmanager
def commit_before_flush() -> Iterator[None]:
    """The collector takes it that what it has sent has arrived."""
    from tests.simulation.parts import Sink

    flush = Sink.flush

    def hasty(sink: Sink) -> None:
        task = sink._schedule.current
        if task is None or task.process.kind != "collector":
            flush(sink)

    with mock.patch.object(Sink, "flush", hasty):
        yield


MUTATIONS: dict[str, Mutation] = {
    mutation.__name__.replace("_", " "): mutation
    for mutation in (
        no_offsets_in_manifest,
        no_watermark,
        no_coverage,
        no_fence,
        no_fsync_of_files,
        no_fsync_of_folders,
        manifest_in_place,
        seen_before,
        commit_before_flush,
    )
}
