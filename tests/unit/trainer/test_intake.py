"""The books: each source offset once, in order, and none passed over."""

from __future__ import annotations

import msgspec
import pytest

from lifelong.contracts.events import Forget
from lifelong.contracts.samples import SampleRecord
from lifelong.trainer.config import TrainerSettings
from lifelong.trainer.intake import Intake

SETTINGS = TrainerSettings(batch_size=3, linger_seconds=2.0, idle_seconds=0.5, max_pending_samples=5)


@pytest.fixture
def intake():
    return Intake(SETTINGS, {})


@pytest.fixture
def take(new_record):
    def put(intake, number, *samples, now=0.0, partition=0, offset=None, **fields):
        record = new_record(number, *samples, partition=partition, offset=offset, **fields)
        decoded = msgspec.json.decode(record.value, type=SampleRecord)
        return intake.take(decoded, record.partition, record.offset, now)

    return put


def test_the_same_offset_again_is_a_duplicate(intake, take, new_sample):
    assert take(intake, 0, new_sample(0)) == "new"
    assert take(intake, 0, new_sample(0), offset=1) == "duplicate"
    assert intake.num_samples == 1


def test_an_offset_too_far_is_a_gap_until_the_missing_one_comes(intake, take, new_sample):
    assert take(intake, 0, new_sample(0)) == "new"
    assert take(intake, 2, new_sample(2), offset=1) == "gap"
    assert take(intake, 1, new_sample(1), offset=2) == "new"
    assert take(intake, 2, new_sample(2), offset=3) == "new"
    assert [sample.id for sample in intake.next_batch().samples] == ["0-0-0", "0-1-0", "0-2-0"]


def test_a_range_that_reaches_over_the_watermark_is_taken(intake, take, new_sample):
    """After a crash the collector covers from its last commit, which may lie before what we have."""
    take(intake, 0, new_sample(0))
    assert take(intake, 4, new_sample(4), from_offset=0) == "new"
    assert intake.watermarks == {0: 5}


def test_partitions_have_watermarks_of_their_own(intake, take, new_sample):
    take(intake, 0, new_sample(0))
    assert take(intake, 0, new_sample(0, partition=1), partition=1) == "new"
    assert intake.watermarks == {0: 1, 1: 1}


def test_a_restored_watermark_counts(take, new_sample):
    intake = Intake(SETTINGS, {0: 7})
    assert take(intake, 6, new_sample(6)) == "duplicate"
    assert take(intake, 8, new_sample(8)) == "gap"
    assert take(intake, 7, new_sample(7)) == "new"


@pytest.mark.parametrize(
    ("taken_at", "now", "trigger"),
    [
        ([0.0, 0.1, 0.2], 0.2, "size"),
        ([0.0, 0.4], 0.8, None),
        ([0.0], 0.5, "idle"),
        ([0.0, 1.9], 2.0, "age"),
        ([0.0, 1.9], 1.99, None),
    ],
)
def test_triggers(intake, take, new_sample, taken_at, now, trigger):
    for number, at in enumerate(taken_at):
        take(intake, number, new_sample(number), now=at)
    assert intake.ready(now) == trigger
    due = intake.seconds_to_trigger(now)
    assert (due == 0.0) == (trigger is not None)
    if trigger is None:
        assert intake.ready(now + due + 1e-9) is not None


def test_nothing_waits_for_records_without_samples(intake, take):
    take(intake, 0, outcome="duplicate")
    assert intake.ready(1000.0) is None
    assert intake.seconds_to_trigger(1000.0) is None


def test_records_without_samples_do_not_keep_a_lone_sample_waiting(intake, take, new_sample):
    take(intake, 0, new_sample(0), now=0.0)
    take(intake, 1, outcome="duplicate", now=0.4)
    assert intake.ready(0.5) == "idle"


def test_a_batch_is_whole_records_and_the_empty_ones_that_follow(intake, take, new_sample):
    take(intake, 0, outcome="expired", now=0.0)
    take(intake, 1, new_sample(1), now=1.0)
    take(intake, 2, *(new_sample(2, answer=f"{index}") for index in range(3)), now=2.0)
    take(intake, 3, outcome="duplicate", now=3.0)
    take(intake, 0, outcome="dead-letter", partition=1, now=3.0)
    take(intake, 4, new_sample(4), now=4.0)
    batch = intake.next_batch()
    assert len(batch.samples) == 4
    assert batch.watermarks == {0: 4, 1: 1}
    assert batch.positions == {0: 4, 1: 1}
    assert batch.outcomes == {"expired": 1, "sample": 2, "duplicate": 1, "dead-letter": 1}
    assert batch.taken_at == 1.0
    assert intake.num_samples == 1


def test_full_means_read_no_more(intake, take, new_sample):
    for number in range(5):
        assert not intake.is_full
        take(intake, number, new_sample(number))
    assert intake.is_full
    intake.next_batch()
    assert not intake.is_full


@pytest.mark.parametrize("forget", [Forget(event_ids=("e0-1",)), Forget(user="ann")])
def test_what_is_forgotten_in_time_is_never_learnt(intake, take, new_sample, forget):
    take(intake, 0, new_sample(0))
    take(intake, 1, new_sample(1, user="ann"))
    take(intake, 2, outcome="forget", forget=forget)
    take(intake, 3, new_sample(3, user="ann"))
    assert intake.num_samples == 2
    assert (intake.ready(0.0), intake.seconds_to_trigger(0.0)) == ("flush", 0.0)
    batch = intake.next_batch()
    assert [sample.id for sample in batch.samples] == ["0-0-0"]
    assert (batch.watermarks, batch.forgets) == ({0: 1}, [])
    assert (intake.ready(0.0), intake.next_forgets()) == ("forget", [forget])
    batch = intake.next_batch()
    assert (batch.samples, batch.watermarks, batch.forgets) == ([], {0: 3}, [forget])
    assert batch.outcomes == {"sample": 1, "forgotten": 1, "forget": 1}
    # What comes later is not meant.
    assert intake.ready(0.0) is None
    assert [sample.id for sample in intake.next_batch().samples] == ["0-3-0"]


def test_nothing_waits_for_samples_that_are_to_be_forgotten(intake, take, new_sample):
    take(intake, 0, outcome="duplicate")
    take(intake, 1, new_sample(1, user="ann"))
    take(intake, 2, outcome="forget", forget=Forget(user="ann", at_once=True))
    take(intake, 0, outcome="forget", forget=Forget(user="bob"), partition=1)
    assert intake.to_withdraw() == [Forget(user="ann", at_once=True)]
    assert intake.ready(0.0) == "forget"
    batch = intake.next_batch()
    assert batch.watermarks == {0: 3, 1: 1}
    assert batch.outcomes == {"duplicate": 1, "sample": 1, "forgotten": 1, "forget": 2}
    assert intake.ready(99.0) is None


def test_the_order_in_a_batch_does_not_depend_on_which_partition_was_read_first(intake, take, new_sample):
    take(intake, 0, new_sample(0, partition=1), partition=1)
    take(intake, 0, new_sample(0))
    take(intake, 1, new_sample(1))
    assert [sample.id for sample in intake.next_batch().samples] == ["0-0-0", "1-0-0", "0-1-0"]


def test_a_probe_waits_as_a_sample_does_and_makes_a_version_if_nothing_else_comes(intake, take, new_sample):
    probe = new_sample(0, task="must")
    take(intake, 0, outcome="probe", probe=probe)
    assert intake.num_samples == 1
    assert intake.ready(99.0) == "age"
    batch = intake.next_batch()
    assert (batch.samples, batch.probes, batch.watermarks) == ([], [probe], {0: 1})
    assert batch.outcomes == {"probe": 1}
    assert intake.num_samples == 0
    assert intake.ready(99.0) is None


def test_a_probe_is_there_until_the_request_to_forget_it_has_its_version(intake, take, new_sample):
    """So that relearning, which reads the topic again, comes to the same."""
    forget = Forget(event_ids=("e0-0",))
    take(intake, 0, outcome="probe", probe=new_sample(0))
    take(intake, 1, outcome="forget", forget=forget)
    take(intake, 2, outcome="probe", probe=new_sample(2))
    assert intake.ready(0.0) == "flush"
    assert [probe.id for probe in intake.next_batch().probes] == ["0-0-0"]
    assert intake.ready(0.0) == "forget"
    batch = intake.next_batch()
    assert (batch.probes, batch.forgets, batch.watermarks) == ([], [forget], {0: 2})
    assert [probe.id for probe in intake.next_batch().probes] == ["0-2-0"]
