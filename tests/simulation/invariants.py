"""What must hold after any run, whatever failed on the way: one checker for simulations and for real processes.

``check`` is a pure function of what a run left behind: the topics, the manifests, how the pointers moved. It knows
nothing of how that came about. The run must have come to rest: everything started again, nothing left to be done.
"""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import NamedTuple

import msgspec

from lifelong.contracts import topics
from lifelong.contracts.codec import decode, decode_event
from lifelong.contracts.events import Event
from lifelong.contracts.requests import Output, Request
from lifelong.contracts.samples import Sample, SampleRecord, coverage
from lifelong.contracts.versions import Manifest, VersionEvent, parse_version_key, version_key
from lifelong.errors import CorruptVersionError, DecodeError
from lifelong.registry.base import PointerState
from lifelong.registry.registry import is_accepted
from lifelong.stream.base import Record

OUTCOMES = ("sample", "duplicate", "dead-letter", "expired", "memory-only", "forget", "probe")
"""Of events, as counted in a manifest."""
FATES = ("trained", "held_out", "superseded", "skipped", "rejected", "forgotten")
"""Of samples, as counted in a manifest."""


class Move(NamedTuple):
    """What the pointers of a line said at some moment, in the order in which it was seen."""

    line: str
    state: PointerState | None
    """``None``: they were lost."""
    is_complete: bool | None = None
    """Whether at that moment the live version had its manifest and all its files; ``None``: nobody looked."""


@dataclass(frozen=True)
class Evidence:
    """What a run left behind. Records are of one topic, in order within each partition, retention has taken none."""

    events: Sequence[Record]
    samples: Sequence[Record]
    dead_letters: Sequence[Record]
    manifests: Mapping[str, Mapping[int, Manifest]]
    """By line and number: all that can be read."""
    read_file: Callable[[Manifest, str], bytes]
    """A file of a version, verified. Raises CorruptVersionError."""
    version_events: Sequence[Record] = ()
    requests: Sequence[Record] = ()
    request_letters: Sequence[Record] = ()
    outputs: Sequence[Record] = ()
    moves: Sequence[Move] = ()
    committers: Mapping[tuple[str, int], str] = field(default_factory=dict)
    """Who committed the version of a line with this number, where that is known: unlike any other process, or start of
    one."""
    followed: Mapping[str, Sequence[int]] = field(default_factory=dict)
    """Epochs in the order in which a server took them, by server."""
    line: str = "lifelong"
    student_line: str = "lifelong-student"
    max_pending_samples: int | None = 0
    """So many may wait for their micro-batch to fill; ``None``: any number."""
    retrained_sha256: str | None = None
    """Weights of the newest version, made again from the log by the boundaries in the manifests."""
    calm_sha256: str | None = None
    """Weights of the newest version of a run with the same events in which nothing failed."""
    expected_answer: Callable[[Output], str | None] = lambda output: None
    """What the version that an output names would have answered, where that is known."""
    seen_was_lost: bool = False
    """What the collector had seen was lost: a duplicate of what came before may have been taken for new."""


def check(evidence: Evidence) -> list[str]:
    """What does not hold, for people; empty if all is well."""
    found: list[str] = []
    books = Books(evidence)
    for part in (
        _coverage,
        _duplicates,
        _refusals,
        _chain,
        _counts,
        _listings,
        _student,
        _epochs,
        _pointers,
        _announcements,
        _weights,
        _answers,
    ):
        found += part(evidence, books)
    return found


class Account(NamedTuple):
    """The record of the samples topic by which a source offset is accounted for, and where it is."""

    record: SampleRecord
    at: Record


class Books:
    """The samples topic as every reader must read it: what is taken once is not taken again."""

    def __init__(self, evidence: Evidence) -> None:
        self._evidence = evidence
        self.accounts: dict[tuple[int, int], Account] = {}
        """By source partition and offset, in the order of the topic."""
        self.ends: dict[int, int] = {}
        """Source partition → first offset that is not accounted for."""
        self.problems: list[str] = []
        self.all: list[Account] = []
        for at in evidence.samples:
            record = msgspec.json.decode(at.value or b"", type=SampleRecord)
            self.all.append(Account(record, at))
            self._take(record, at)

    def _take(self, record: SampleRecord, at: Record) -> None:
        source = record.source_partition
        if source != at.partition:
            self.problems.append(f"{_at(at)} accounts for source partition {source}")
        watermark = self.ends.get(source, 0)
        if coverage(record, watermark) != "new":
            return
        if record.to_offset != watermark + 1:
            self.problems.append(f"{_at(at)}: offsets {watermark} to {record.to_offset - 1} have one account")
        self.ends[source] = record.to_offset
        self.accounts[source, record.to_offset - 1] = Account(record, at)

    @cached_property
    def events(self) -> dict[tuple[int, int], Event]:
        """By source partition and offset: those that can be decoded."""
        found = {}
        for record in self._evidence.events:
            try:
                event = decode_event(record.value, record.headers, record_time=record.time, max_bytes=1 << 30)
            except DecodeError:
                continue
            found[record.partition, record.offset] = event
        return found

    def between(self, earlier: Mapping[int, int], later: Mapping[int, int]) -> Iterator[Account]:
        """Accounts from the first watermarks up to before the second."""
        for (partition, offset), account in self.accounts.items():
            if earlier.get(partition, 0) <= offset < later.get(partition, 0):
                yield account

    def chain(self, line: str) -> list[Manifest]:
        """From the newest version back to the first; ends where a parent is missing."""
        manifests = self._evidence.manifests.get(line, {})
        found: list[Manifest] = []
        number = max(manifests, default=0)
        while number in manifests and len(found) <= len(manifests):
            found.append(manifests[number])
            number = manifests[number].parent or 0
        return found

    def batches(self, manifest: Manifest) -> Iterator[Manifest]:
        """The versions whose micro-batches are in this one beyond its parent: itself, and those relearnt in it."""
        manifests = self._evidence.manifests[manifest.line]
        wanted, done = [manifest.number], set[int]()
        while wanted:
            number = wanted.pop()
            if number not in done and number in manifests:
                done.add(number)
                yield manifests[number]
                wanted += manifests[number].relearned


def _coverage(evidence: Evidence, books: Books) -> Iterator[str]:
    """Every event has exactly one account, and whatever is said of it twice is the same both times."""
    yield from books.problems
    ends: dict[int, int] = {}
    for record in evidence.events:
        ends[record.partition] = record.offset + 1
        account = books.accounts.get((record.partition, record.offset))
        if account is None:
            yield f"{_at(record)} has no account"
            continue
        event = books.events.get((record.partition, record.offset))
        if account.record.outcome != "dead-letter" and (event is None or event.id != account.record.event_id):
            yield f"{_at(record)}: its account is of event {account.record.event_id!r}"
    for partition, end in books.ends.items():
        if end > ends.get(partition, 0):
            yield f"events partition {partition} ends at {ends.get(partition, 0)}, its accounts at {end}"
    if evidence.seen_was_lost:
        return
    first: dict[tuple[int, int], SampleRecord] = {}
    for record, at in books.all:
        position = (record.source_partition, record.to_offset - 1)
        # Where it starts depends on what was committed, nothing else does.
        same = msgspec.structs.replace(record, from_offset=0)
        if first.setdefault(position, same) != same:
            yield f"{_at(at)}: {position} is {same.outcome} ({same.detail}), was {first[position].outcome} before"


def _duplicates(evidence: Evidence, books: Books) -> Iterator[str]:
    """An event that was sent twice is learnt once, and not never."""
    if evidence.seen_was_lost:
        return
    taken: dict[tuple[str, str], list[str]] = {}
    for position, event in books.events.items():
        account = books.accounts.get(position)
        if account is not None and account.record.outcome not in ("dead-letter", "expired"):
            outcomes = taken.setdefault((event.source, event.id), [])
            outcomes.append(account.record.outcome)
    for (_, event_id), outcomes in taken.items():
        detail = ", ".join(outcomes)
        if len(outcomes) - outcomes.count("duplicate") > 1:
            yield f"event {event_id!r} was taken more than once: {detail}"
        # Its content may have been there before under another id, so one alone may be a duplicate.
    samples = Counter(sample.id for account in books.accounts.values() for sample in account.record.samples)
    yield from (f"sample {name} is in {number} accounts" for name, number in samples.items() if number > 1)


def _refusals(evidence: Evidence, books: Books) -> Iterator[str]:
    letters: dict[tuple[int, int], Record] = {}
    for letter in evidence.dead_letters:
        headers = dict(letter.headers)
        if not headers.get(topics.DLQ_HEADER_REASON):
            yield f"{_at(letter)} gives no reason"
        position = int(headers[topics.DLQ_HEADER_PARTITION]), int(headers[topics.DLQ_HEADER_OFFSET])
        letters[position] = letter
    for position, account in books.accounts.items():
        if (account.record.outcome == "dead-letter") != (position in letters):
            yield f"{position} is {account.record.outcome}, and {'' if position in letters else 'not '}a dead letter"
    for position in letters.keys() - books.accounts.keys():
        yield f"{position} is a dead letter without an account"


def _chain(evidence: Evidence, books: Books) -> Iterator[str]:
    for line in evidence.manifests:
        chain = books.chain(line)
        if chain and chain[-1].parent:
            yield f"{_key(chain[-1])}: its parent {chain[-1].parent} is missing"
        for manifest in chain:
            parent = evidence.manifests[line].get(manifest.parent or 0)
            if manifest.parent is None or manifest.parent >= manifest.number:
                yield f"{_key(manifest)} has parent {manifest.parent}"
            for name in ("watermarks", "positions"):
                now = getattr(manifest, name)
                for partition, at in getattr(parent, name).items() if parent else ():
                    if now.get(partition, 0) < at:
                        yield f"{_key(manifest)}: {name} of partition {partition} go back from {at}"
        if chain:
            newest = chain[0]
            for name in newest.files:
                try:
                    evidence.read_file(newest, name)
                except CorruptVersionError as error:
                    yield f"{_key(newest)}: {error}"
            yield from _resumable(newest, books)


def _resumable(manifest: Manifest, books: Books) -> Iterator[str]:
    """Whoever reads on from its positions with its watermarks misses nothing."""
    watermarks = dict(manifest.watermarks)
    for record, at in books.all:
        source = record.source_partition
        is_read = at.offset >= manifest.positions.get(at.partition, 0)
        if is_read and coverage(record, watermarks.get(source, 0)) == "new":
            watermarks[source] = record.to_offset
    for partition, end in books.ends.items():
        if watermarks.get(partition, 0) != end:
            yield f"{_key(manifest)}: reading on from it, partition {partition} ends at {watermarks.get(partition)}"


def _counts(evidence: Evidence, books: Books) -> Iterator[str]:
    """Events in = the sum of what became of them, sample by sample, in every version of the chain."""
    chain = books.chain(evidence.line)
    for manifest in chain:
        accounts = list(books.between({}, manifest.watermarks))
        outcomes = Counter(account.record.outcome for account in accounts)
        counted = {name: manifest.counts.get(name, 0) for name in OUTCOMES}
        if counted != {name: outcomes[name] for name in OUTCOMES}:
            yield f"{_key(manifest)} counts {_some(counted)}, the topic has {_some(outcomes)}"
        num_samples = sum(len(account.record.samples) for account in accounts)
        fates = {name: manifest.counts.get(name, 0) for name in FATES}
        if sum(fates.values()) != num_samples:
            yield f"{_key(manifest)} counts {_some(fates)}, together not the {num_samples} samples up to there"
        if unknown := manifest.counts.keys() - {*OUTCOMES, *FATES}:
            yield f"{_key(manifest)} counts {sorted(unknown)}"
    watermarks = chain[0].watermarks if chain else {}
    pending = list(books.between(watermarks, books.ends))
    num_known = sum(chain[0].counts.get(name, 0) for name in OUTCOMES) if chain else 0
    if num_known + len(pending) != len(evidence.events):
        yield f"{len(evidence.events)} events, of which {num_known} are in the newest version and {len(pending)} wait"
    num_waiting = sum(len(account.record.samples) for account in pending)
    if evidence.max_pending_samples is not None and num_waiting > evidence.max_pending_samples:
        yield f"{num_waiting} samples still wait, for which nothing was left to wait"


def _listings(evidence: Evidence, books: Books) -> Iterator[str]:
    """Every sample that a version says it learnt or held out is of the accounts that it took in, and of no other's."""
    manifests = evidence.manifests.get(evidence.line, {})
    seen: dict[str, str] = {}
    for manifest in reversed(books.chain(evidence.line)):
        parent = manifests.get(manifest.parent or 0)
        there: dict[str, Sample] = {}
        for account in books.between(parent.watermarks if parent else {}, manifest.watermarks):
            there.update((sample.id, sample) for sample in account.record.samples)
        listed = [
            name
            for version in books.batches(manifest)
            for batch in version.batches
            for name in (*batch.samples, *batch.held_out)
        ]
        for name in listed:
            if name in seen:
                yield f"sample {name} is in {seen[name]} and in {_key(manifest)}"
            seen[name] = _key(manifest)
            if name not in there:
                yield f"{_key(manifest)} has sample {name}, which is not between its parent's watermarks and its own"
        if manifest.relearned:
            continue  # Some of what is listed is forgotten now.
        before = parent.counts if parent else {}
        gained = {name: manifest.counts.get(name, 0) - before.get(name, 0) for name in FATES}
        # What was learnt and is then forgotten moves from one count to the other.
        if manifest.batches and all(batch.trigger != "forget" for batch in manifest.batches):
            num_held_out = sum(len(batch.held_out) for batch in manifest.batches)
            num_learnt = gained["trained"] + gained["rejected"]
            if (num_learnt, gained["held_out"]) != (len(listed) - num_held_out, num_held_out):
                yield f"{_key(manifest)} counts {_some(gained)} of its own and lists {len(listed)}"
            rest = gained["superseded"] + gained["skipped"] + gained["forgotten"]
            if rest != len(there) - len(listed):
                yield f"{_key(manifest)} leaves out {len(there) - len(listed)} samples and counts {rest} of them"
            refused = [name for part in manifest.refused for name in part.samples]
            if gained["rejected"] != len(refused) or not set(refused) <= set(listed):
                yield f"{_key(manifest)}: {_some(gained)}, and it names as refused {len(refused)} of its samples"
            if manifest.verdict is not None and not manifest.verdict.accepted and gained["trained"]:
                yield f"{_key(manifest)}: {_some(gained)} against its verdict"


def _student(evidence: Evidence, books: Books) -> Iterator[str]:
    for manifest in books.chain(evidence.student_line):
        accounts = books.between({}, manifest.watermarks)
        samples = [sample for account in accounts for sample in account.record.samples if _has_targets(sample)]
        if manifest.counts.get("samples", 0) != len(samples):
            yield f"{_key(manifest)} has taken in {manifest.counts.get('samples', 0)} samples of {len(samples)}"
        line, number = parse_version_key(manifest.teacher or "")
        if line != evidence.line or number not in evidence.manifests.get(line, {}):
            yield f"{_key(manifest)} was taught by {manifest.teacher}, which is not there"


def _epochs(evidence: Evidence, books: Books) -> Iterator[str]:
    for line, manifests in evidence.manifests.items():
        writers: dict[int, set[str]] = {}
        last = 0
        for number in sorted(manifests):
            epoch = manifests[number].epoch
            if epoch < last:
                yield f"{version_key(line, number)} is of epoch {epoch}, one before it of {last}"
            last = max(last, epoch)
            if (line, number) in evidence.committers:
                writers.setdefault(epoch, set()).add(evidence.committers[line, number])
        for epoch, names in writers.items():
            if len(names) > 1:
                yield f"{line}: epoch {epoch} has commits of {', '.join(sorted(names))}"
    for server, epochs in evidence.followed.items():
        if list(epochs) != sorted(epochs):
            yield f"{server} has followed the epochs {list(epochs)}"


def _pointers(evidence: Evidence, books: Books) -> Iterator[str]:
    epochs: dict[str, int] = {}
    for line, state, is_complete in evidence.moves:
        if state is None:
            epochs.pop(line, None)  # What is known of it afterwards is known from the manifests.
            continue
        if state.epoch < epochs.get(line, 0):
            yield f"{line}: the epoch goes back from {epochs[line]} to {state.epoch}"
        epochs[line] = state.epoch
        if is_complete is False:
            yield f"{version_key(line, state.live)} was live and not complete"
        for name, number in (("live", state.live), ("candidate", state.candidate)):
            manifest = evidence.manifests.get(line, {}).get(number)
            if number and manifest is None:
                yield f"{version_key(line, number)} was {name} and does not exist"
            elif manifest is not None and not state.held and not is_accepted(manifest):
                yield f"{_key(manifest)} was {name} and is rejected"
    last = {line: state for line, state, _ in evidence.moves}
    for line, state in last.items():
        accepted = [m.number for m in books.chain(line) if is_accepted(m)]
        if state is not None and accepted and state.candidate != accepted[0]:
            yield f"{version_key(line, accepted[0])} should be the candidate at the end, {state.candidate} is"


def _announcements(evidence: Evidence, books: Books) -> Iterator[str]:
    announced: dict[str, set[int]] = {}
    for record in evidence.version_events:
        event = msgspec.json.decode(record.value or b"", type=VersionEvent)
        manifest = evidence.manifests.get(event.line, {}).get(event.number)
        if manifest is None:
            yield f"{version_key(event.line, event.number)} was announced and does not exist"
        elif manifest.weights_sha256 != event.weights_sha256:
            yield f"{_key(manifest)} was announced with other weights"
        announced.setdefault(event.line, set()).add(event.number)
    if evidence.version_events:
        for line in evidence.manifests:
            for manifest in books.chain(line):
                if manifest.number not in announced.get(line, ()):
                    yield f"{_key(manifest)} was never announced"


def _weights(evidence: Evidence, books: Books) -> Iterator[str]:
    chain = books.chain(evidence.line)
    weights = chain[0].weights_sha256 if chain else None
    for what, sha256 in (("replayed from the log", evidence.retrained_sha256), ("undisturbed", evidence.calm_sha256)):
        if sha256 is not None and sha256 != weights:
            at = _key(chain[0]) if chain else evidence.line
            yield f"{at} has weights {str(weights)[:12]}, {what} it has {sha256[:12]}"


def _answers(evidence: Evidence, books: Books) -> Iterator[str]:
    outputs = [decode(record.value, Output) for record in evidence.outputs]
    answered = {output.request_id for output in outputs if not output.error}
    texts: dict[str, str] = {}
    for output in outputs:
        if not output.version:
            continue  # It was refused.
        if output.id != hashlib.sha256(f"{output.request_id}\n{output.version}".encode()).hexdigest()[:32]:
            yield f"the answer to {output.request_id!r} has the id {output.id}"
        line, number = parse_version_key(output.version)
        manifest = evidence.manifests.get(line, {}).get(number or 0)
        if number and manifest is None:
            yield f"{output.request_id!r} was answered by {output.version}, which does not exist"
        expected = evidence.expected_answer(output)
        if expected is not None and output.answer != expected:
            yield f"{output.request_id!r}: {output.version} would have answered otherwise"
        if texts.setdefault(output.id, output.answer) != output.answer:
            yield f"output {output.id} has two texts"
    refused = set()
    for letter in evidence.request_letters:
        headers = dict(letter.headers)
        refused.add((int(headers[topics.DLQ_HEADER_PARTITION]), int(headers[topics.DLQ_HEADER_OFFSET])))
    for record in evidence.requests:
        try:
            request_id = decode(record.value, Request).id
        except DecodeError:
            request_id = None
        if request_id not in answered and (record.partition, record.offset) not in refused:
            yield f"{_at(record)} ({request_id}) was neither answered nor refused"


def _has_targets(sample: Sample) -> bool:
    return sample.text is not None or any(message.role == "assistant" for message in sample.messages)


def _key(manifest: Manifest) -> str:
    return version_key(manifest.line, manifest.number)


def _at(record: Record) -> str:
    return f"{record.topic} {record.partition}-{record.offset}"


def _some(counts: Mapping[str, int]) -> str:
    return ", ".join(f"{number} {name}" for name, number in sorted(counts.items()) if number) or "nothing"
