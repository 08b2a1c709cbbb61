"""Whether all is well after a schedule: the one checker on all there is, and what became of each event of the burst."""

from __future__ import annotations

from collections import defaultdict

from tests.schedules.burst import Burst
from tests.schedules.watch import LINE, STUDENT, Watch
from tests.simulation.invariants import Evidence, check

from lifelong.contracts import topics
from lifelong.contracts.versions import Manifest


def gathered(watch: Watch) -> Evidence:
    """Everything since the line began."""
    records = watch.topics.records
    return Evidence(
        events=records(topics.EVENTS.name),
        samples=records(topics.SAMPLES.name),
        dead_letters=records(topics.EVENTS_DLQ.name),
        manifests={line: watch.store.manifests(line) for line in (LINE, STUDENT)},
        read_file=lambda manifest, name: watch.store.store.get(manifest.folder, name, manifest.files[name]),
        version_events=records(topics.VERSIONS.name),
        requests=records(topics.REQUESTS.name),
        request_letters=records(topics.REQUESTS_DLQ.name),
        outputs=records(topics.OUTPUTS.name),
        moves=list(watch.pointers.moves),
        line=LINE,
        student_line=STUDENT,
    )


def problems(watch: Watch) -> list[str]:
    found = check(gathered(watch))
    letters = watch.topics.records(topics.SAMPLES_DLQ.name)
    return found + [f"samples record in the dead letters: {letter.headers}" for letter in letters]


def wrong_outcomes(burst: Burst, watch: Watch) -> list[str]:
    """What became of an event otherwise than it should have."""
    outcomes: dict[str, list[str]] = defaultdict(list)
    for account in watch.topics.accounts:
        if account.event_id is not None:
            outcomes[account.event_id].append(account.outcome)
    found = []
    for event_id, expected in burst.expected.items():
        came = outcomes[event_id]
        first = [outcome for outcome in came if outcome != "duplicate"] if expected != "expired" else list(set(came))
        if first != [expected]:
            found.append(f"event {event_id} should be {expected}, is {came}")
    return found


def pending_samples(watch: Watch, newest: Manifest | None) -> int:
    """Samples, and requests to forget, that are accounted for and not in this version."""
    watermarks = newest.watermarks if newest else {}
    num = 0
    for account in reversed(watch.topics.accounts):
        if account.to_offset > watermarks.get(account.source_partition, 0):
            num += len(account.samples) + (account.forget is not None)
    return num
