"""To forget is to be as if it had never been seen; and a version is what its manifests say."""

from __future__ import annotations

import msgspec
import pytest
from tests.unit.trainer.world import Failing, Killed, World

from lifelong.contracts import topics
from lifelong.contracts.events import Forget
from lifelong.contracts.samples import SampleRecord
from lifelong.contracts.versions import Manifest
from lifelong.errors import StreamGapError
from lifelong.learning.settings import LearningSettings
from lifelong.model.base import load_base
from lifelong.registry.chain import ancestors, batches_since
from lifelong.stream.base import Partition
from lifelong.trainer import app as app_module
from lifelong.trainer.config import Settings
from lifelong.trainer.handler import Trainer
from lifelong.trainer.history import History
from lifelong.trainer.state import REPLAY_FILE, unpack_samples
from lifelong.trainer.verify import verify

ANN = Forget(user="ann")


@pytest.fixture
def world(tiny_folder) -> World:
    return World(tiny_folder)


@pytest.fixture
def story(new_record, new_sample):
    """Records of one partition: ten facts, of which numbers 4 and 7 are Ann's."""
    users = {4: "ann", 7: "ann"}
    return [new_record(number, new_sample(number, user=users.get(number))) for number in range(10)]


def forget_record(new_record, number: int, forget: Forget):
    return new_record(number, outcome="forget", forget=forget)


def never_saw(new_trainer, settings: Settings, world: World, unwanted: set[str]):
    """A trainer on the same log without what is unwanted, with the same boundaries; what it ends with."""
    trainer = new_trainer(settings)
    trainer.begin()
    records = world.broker.records(topics.SAMPLES.name)
    last = None
    manifests = world.registry.versions("lifelong")
    for manifest in manifests:
        for record in records:
            decoded = msgspec.json.decode(record.value, type=SampleRecord)
            if decoded.to_offset <= manifest.watermarks[decoded.source_partition]:
                kept = tuple(s for s in decoded.samples if s.event_id not in unwanted)
                blanked = msgspec.structs.replace(decoded, samples=kept)
                trainer.take(msgspec.structs.replace(record, value=msgspec.json.encode(blanked)))
        if manifest.batches[0].trigger == "forget":
            last = trainer.forget((), "nothing of it was learnt", epoch=1)
        else:
            last = trainer.learn("flush", epoch=1)
    return last


def test_forgotten_is_as_never_seen_to_the_byte(world, story, new_record, new_sample, new_trainer):
    world.publish(story)
    world.run()
    before = world.registry.newest("lifelong")
    assert before.number == 4
    world.publish([forget_record(new_record, 10, ANN), new_record(11, new_sample(11)), new_record(12, new_sample(12))])
    world.run()

    registry = world.registry
    forgotten, after = registry.manifest("lifelong", 5), registry.manifest("lifelong", 6)
    assert (forgotten.parent, forgotten.relearned) == (1, (2, 3, 4))
    assert forgotten.verdict.accepted
    assert forgotten.counts["forgotten"] == 2
    assert forgotten.counts["trained"] == 8
    assert forgotten.weights_sha256 != before.weights_sha256
    kept = unpack_samples(registry.weights(forgotten, REPLAY_FILE), REPLAY_FILE)
    assert not any(sample.user == "ann" for sample in kept)

    expected = never_saw(new_trainer, world.settings, world, {"e0-4", "e0-7"})
    assert after.weights_sha256 == expected.manifest.weights_sha256
    assert {name: registry.weights(after, name) for name in after.files} == expected.files

    assert registry.state("lifelong").live == 6
    assert sorted(set(world.events_of("promoted"))) == [1, 2, 3, 4, 5, 6]
    # What has learnt it is gone for good, and nobody is led back there.
    folders = {folder.split("/")[-1][:8] for folder in registry.store.folders("lifelong")}
    assert folders == {"00000001", "00000005", "00000006"}
    assert [m.number for m in ancestors(registry, after)] == [6, 5, 1]
    assert [m.number for m in batches_since(registry, after, 0)] == [1, 2, 3, 4, 5, 6]
    assert registry.rollback("lifelong").live == 5
    assert registry.rollback("lifelong").live == 1


def test_what_no_version_has_learnt_costs_no_relearning(world, story, new_record):
    world.publish(story)
    world.run()
    world.publish([forget_record(new_record, 10, Forget(user="bob"))])
    world.run()
    forgotten = world.registry.newest("lifelong")
    assert (forgotten.parent, forgotten.relearned) == (4, ())
    assert forgotten.weights_sha256 == world.registry.manifest("lifelong", 4).weights_sha256
    assert forgotten.verdict.reason == "nothing of it was learnt"


def test_forgetting_twice_begins_before_what_was_relearnt(world, story, new_record, new_sample, new_trainer):
    world.publish(story)
    world.publish([forget_record(new_record, 10, Forget(event_ids=("e0-8",)))])
    world.run()
    world.publish([new_record(11, new_sample(11))])
    world.run()
    world.publish([forget_record(new_record, 12, Forget(event_ids=("e0-0",))), new_record(13, new_sample(13))])
    world.run()
    registry = world.registry
    second = registry.manifest("lifelong", registry.newest("lifelong").number - 1)
    assert second.batches[0].trigger == "forget"
    assert second.parent == 0
    assert second.relearned == tuple(range(1, second.number))
    expected = never_saw(new_trainer, world.settings, world, {"e0-8", "e0-0"})
    assert registry.newest("lifelong").weights_sha256 == expected.manifest.weights_sha256
    assert_verified(world, registry.newest("lifelong"), from_base=True)


def test_what_came_between_two_requests_to_forget_is_not_relearnt(world, story, new_record, new_sample, new_trainer):
    """The sample of offset 11 is in the range of the version that forgets it, and was never learnt."""
    world.publish(story)
    world.run()
    world.publish([forget_record(new_record, 10, Forget(user="bob")), new_record(11, new_sample(11, user="ann"))])
    world.publish([forget_record(new_record, 12, Forget(event_ids=("e0-11",)))])
    world.run()
    assert world.registry.newest("lifelong").watermarks == {0: 13}
    world.publish([forget_record(new_record, 13, Forget(event_ids=("e0-2",)))])
    world.run()
    newest = world.registry.newest("lifelong")
    expected = never_saw(new_trainer, world.settings, world, {"e0-2", "e0-11"})
    assert newest.weights_sha256 == expected.manifest.weights_sha256
    assert_verified(world, newest, from_base=True)


def test_what_was_superseded_by_what_is_forgotten_can_be_forgotten_after_it(world, new_record, new_sample, new_trainer):
    """Ann's answer counts until it is forgotten; then Bob's is learnt, though no manifest lists it; then that goes."""
    asked = {"question": "Who leads?"}
    samples = [
        new_sample(0, user="bob", answer="Bob.", **asked),
        new_sample(1, user="ann", answer="Ann.", **asked),
        new_sample(2),
    ]
    world.publish([new_record(number, sample) for number, sample in enumerate(samples)])
    world.run()
    assert world.registry.newest("lifelong").batches[0].samples == ("0-1-0", "0-2-0")
    world.publish([forget_record(new_record, 3, ANN)])
    world.run()
    world.publish([forget_record(new_record, 4, Forget(user="bob"))])
    world.run()
    newest = world.registry.newest("lifelong")
    expected = never_saw(new_trainer, world.settings, world, {"e0-0", "e0-1"})
    assert newest.weights_sha256 == expected.manifest.weights_sha256
    assert_verified(world, newest, from_base=True)


def test_at_once_nothing_that_has_it_answers_any_more(world, story, new_record, new_sample):
    world.publish(story)
    world.run()
    lives = []

    class Watching:
        """The pointers, with a note of each version that is live."""

        def move(self, line, **kwargs):
            state = world.pointers.move(line, **kwargs)
            lives.append(state.live)
            return state

        def __getattr__(self, name):
            return getattr(world.pointers, name)

    world.publish([new_record(10, new_sample(10)), forget_record(new_record, 11, Forget(user="ann", at_once=True))])
    world.run(pointers=Watching())
    # Version 5 is learnt from what waited, on top of what has to go: it is not served.
    assert lives == [1, 1, 6]
    assert world.registry.manifest("lifelong", 6).batches[0].trigger == "forget"


def test_a_redis_that_is_lost_meanwhile_does_not_bring_it_back(world, story, new_record, monkeypatch):
    world.publish(story)
    world.run()
    world.publish([forget_record(new_record, 10, Forget(user="ann", at_once=True))])
    writers, lives = [], []
    acquire = app_module.acquire_writer

    def acquired(*args, **kwargs):
        writers.append(acquire(*args, **kwargs))
        return writers[-1]

    monkeypatch.setattr(app_module, "acquire_writer", acquired)
    relearn = Trainer.relearn

    def relearn_and_lose(trainer, chapter, unwanted, on_step):
        if not lives:
            world.pointers._lines.clear()
            assert world.registry.state("lifelong").live == 4
            writers[0].beat()
        report = relearn(trainer, chapter, unwanted, on_step)
        lives.append(world.registry.state("lifelong").live)
        return report

    monkeypatch.setattr(Trainer, "relearn", relearn_and_lose)
    world.run()
    assert lives == [1, 1, 1]
    assert world.registry.state("lifelong").live == 5


@pytest.mark.parametrize(
    ("part", "call", "at", "after"),
    [
        ("store", "put", 1, False),
        ("store", "put", 1, True),
        ("store", "commit", 1, False),
        ("store", "commit", 1, True),
        ("pointers", "move", 1, False),
        ("pointers", "move", 1, True),
        ("sink", "flush", 1, False),
        ("store", "drop", 1, False),
        ("store", "drop", 2, True),
    ],
)
def test_killed_while_forgetting_it_forgets_all_the_same(world, story, new_record, part, call, at, after):
    world.publish(story)
    world.run()
    world.publish([forget_record(new_record, 10, ANN)])
    inner = {"store": world.store, "pointers": world.pointers, "sink": world.broker.sink()}[part]
    world.die(**{part: Failing(inner, call, at=at, after=after, error=Killed())})
    world.run()
    newest = world.registry.newest("lifelong")
    assert (newest.number, newest.parent, newest.relearned) == (5, 1, (2, 3, 4))
    assert world.registry.state("lifelong").live == 5
    assert len(world.registry.store.folders("lifelong")) == 2
    assert_verified(world, newest, from_base=True)


def test_where_the_log_no_longer_reaches_it_says_so_and_goes_on(world, story, new_record, new_sample):
    world.publish(story)
    world.run()
    world.broker.delete_before(Partition(topics.SAMPLES.name, 0), 6)
    world.publish([forget_record(new_record, 10, ANN), new_record(11, new_sample(11))])
    world.run()
    forgotten = world.registry.manifest("lifelong", 5)
    assert "not everything could be forgotten" in forgotten.verdict.reason
    assert "the samples are gone" in forgotten.verdict.reason
    # Number 7 is in what is left of the log: it is taken out.
    assert forgotten.relearned == (3, 4)
    assert world.registry.newest("lifelong").number == 6


def test_a_lost_version_is_learnt_again_from_its_parent(world, story, new_record, new_sample, caplog):
    world.publish(story)
    world.run()
    lost = world.registry.newest("lifelong")
    world.store.drop(lost.folder)
    world.publish([new_record(10, new_sample(10)), new_record(11, new_sample(11)), new_record(12, new_sample(12))])
    world.run()
    assert "lifelong@4 is passed over" in caplog.text
    newest = world.registry.newest("lifelong")
    assert [m.number for m in ancestors(world.registry, newest)] == [6, 5, 3, 2, 1]
    assert newest.counts["trained"] == 13
    assert world.registry.state("lifelong").live == 6
    assert_verified(world, newest, from_base=True)


def test_every_version_is_verified(world, story, new_record):
    world.publish(story)
    world.run()
    world.settings = msgspec.structs.replace(
        world.settings, learning=LearningSettings(learning_rate=2e-2, max_steps=2, optimizer="sgd")
    )
    world.publish([new_record(10, outcome="duplicate"), forget_record(new_record, 11, ANN)])
    world.run()
    for number in (1, 5):
        assert_verified(world, world.registry.manifest("lifelong", number))
        assert_verified(world, world.registry.manifest("lifelong", number), from_base=True)


def test_another_sample_in_the_log_shows(world, story, new_record, new_sample):
    world.publish(story)
    world.run()
    log = world.broker.records(topics.SAMPLES.name)
    tampered = new_record(5, new_sample(5, answer="It is never so."))

    class Tampered:
        def __init__(self):
            self._inner = world.broker.source([topics.SAMPLES.name])

        def poll(self, timeout_seconds, max_records=500):
            records = self._inner.poll(timeout_seconds, max_records)
            return [tampered if record.offset == 5 else record for record in records]

        def __getattr__(self, name):
            return getattr(self._inner, name)

    assert len(log) == 10
    manifest = world.registry.manifest("lifelong", 2)
    result = verify(world.registry, manifest, History(Tampered), world.settings.model, load_base)
    assert any(text.startswith("weights: ") for text in result.differences)


def test_what_retention_has_deleted_cannot_be_verified(world, story):
    world.publish(story)
    world.run()
    world.broker.delete_before(Partition(topics.SAMPLES.name, 0), 4)
    with pytest.raises(StreamGapError, match="0"):
        assert_verified(world, world.registry.manifest("lifelong", 3), from_base=True)
    assert_verified(world, world.registry.manifest("lifelong", 4))


def assert_verified(world: World, manifest: Manifest, *, from_base: bool = False) -> None:
    history = History(lambda: world.broker.source([topics.SAMPLES.name]))
    result = verify(world.registry, manifest, history, world.settings.model, load_base, from_base=from_base)
    assert result.differences == []
    assert result.excuses == []
    assert result.batches[-1].number == manifest.number
