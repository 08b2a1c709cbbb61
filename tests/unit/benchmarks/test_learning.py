"""Runs of the benchmark on a random model: what they count, and what is made of it."""

from __future__ import annotations

from pathlib import Path

import msgspec
import pytest
from benchmarks.learning import report
from benchmarks.learning.blind import Blind
from benchmarks.learning.check import check
from benchmarks.learning.exams import LabelExam
from benchmarks.learning.results import load, load_all, path_of, save
from benchmarks.learning.run import Examination, Phase, Progress, Result, Stream, run, settings_of
from benchmarks.learning.strategies import STRATEGIES, strategy_of

from lifelong.contracts.events import Message
from lifelong.contracts.samples import Sample
from lifelong.model.base import load_base
from lifelong.model.learner import AdapterLearner
from lifelong.model.settings import AdapterSettings, ModelSettings
from lifelong.model.tiny import tiny_random_model

LABELS = {"colour": ("red", "blue"), "size": ("large", "tiny")}


def labelled(task: str, number: int, label: str) -> Sample:
    messages = (Message("user", f"Text: {task} {number}\nLabel:"), Message("assistant", label))
    return Sample(id=f"{task}-{number}", event_id="", event_time=0.0, task=task, messages=messages)


def samples(task: str, first: int, count: int) -> list[Sample]:
    return [labelled(task, number, LABELS[task][number % 2]) for number in range(first, first + count)]


def stream() -> Stream:
    text = Sample(id="general", event_id="", event_time=0.0, task="general", text="It rains in Spain, mainly.")
    every = [sample for task in LABELS for sample in samples(task, 0, 24)]
    return Stream(
        "S1",
        [Phase(task, samples(task, 0, 16)) for task in LABELS],
        {task: samples(task, 16, 8) for task in LABELS},
        [text],
        lambda learner: LabelExam(learner, every, 256),
    )


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> ModelSettings:
    folder = tmp_path_factory.mktemp("model")
    tiny_random_model(0, folder)
    return ModelSettings(name=str(folder), dtype="float32", device="cpu")


def made(name: str, model: ModelSettings) -> Result:
    return run(stream(), name, strategy_of(name), 0, model, samples("colour", 90, 4))


def test_all_strategies_begin_as_one_and_learn_the_same(model: ModelSettings, tmp_path: Path) -> None:
    # The memory needs the default embedder; those of Avalanche have tests of their own.
    names = [name for name, strategy in STRATEGIES.items() if not (strategy.remembers or strategy.avalanche)]
    names.append("replay+learning.replay_samples=1")
    results = [made(name, model) for name in names]
    assert check(results) == []
    by_name = {result.strategy: result for result in results}
    naive, frozen = by_name["naive"], by_name["frozen"]
    assert [step.tasks for step in naive.progress] == [("colour",)] * 2 + [("size",)] * 2
    assert frozen.num_tokens == 0
    assert frozen.examinations[-1].general_nats == frozen.examinations[0].general_nats
    assert naive.examinations[-1].general_nats != naive.examinations[0].general_nats
    assert by_name["naive-twice"].num_tokens == 2 * naive.num_tokens
    assert by_name["joint"].num_tokens == 3 * naive.num_tokens
    assert by_name["replay"].num_tokens > by_name["replay+learning.replay_samples=1"].num_tokens > naive.num_tokens
    # The served weights are not those that learn, where slow ones are kept.
    assert by_name["ema"].examinations[-1].learning is not None
    for result in results:
        save(path_of(tmp_path, result.stream, result.strategy, result.seed), result)
    assert len(load_all(tmp_path)) == len(results)
    report.write(load_all(tmp_path), tmp_path / "docs")
    written = (tmp_path / "docs" / "results.md").read_text()
    assert all(f"| `{name}` | 1 |" in written for name in names)


def test_a_run_is_the_same_again_and_its_settings_are_told_from_others(model: ModelSettings, tmp_path: Path) -> None:
    result = made("der", model)
    again = made("der", model)
    assert (result.examinations, result.progress) == (again.examinations, again.progress)
    path = tmp_path / "result.json"
    save(path, result)
    found = load(path)
    assert found is not None
    assert found.settings == settings_of(stream(), STRATEGIES["der"], 0, model)
    assert found.settings != settings_of(stream(), STRATEGIES["replay"], 0, model)
    path.write_text("{}")
    with pytest.raises(ValueError, match="delete it to have it made again"):
        load(path)


def test_a_strategy_with_other_settings_is_known_by_them() -> None:
    other = strategy_of("default+recipe.dark_alpha=3+learning.replay=surprise")
    assert (other.curriculum.recipe.dark_alpha, other.curriculum.learning.replay) == (3, "surprise")
    assert other.curriculum.gate == STRATEGIES["default"].curriculum.gate
    assert other.what == "default with recipe.dark_alpha=3 and learning.replay=surprise"
    for wrong, why in {
        "defualt": "no strategy is called defualt",
        "default+dark_alpha=3": "no setting of a strategy is called dark_alpha",
        "default+recipe.dark_alhpa=3": "unknown field `dark_alhpa`",
        "default+recipe.dark_alpha=-3": ">= 0",
        "default+recipe.dark_alpha": "Expected `float`, got `str`",
        "default+learning.seed=5": "--seeds",
    }.items():
        with pytest.raises(ValueError, match=why):
            strategy_of(wrong)


def test_what_cannot_be_is_reported(model: ModelSettings) -> None:
    good = made("naive", model)
    lost = msgspec.structs.replace(good, progress=good.progress[1:])
    assert "24 samples were learnt of 32" in check([lost])[0]
    other = msgspec.structs.replace(good, strategy="other", examinations=good.examinations[1:])
    assert any("does not begin where" in what for what in check([good, other]))


def test_labels_that_begin_alike_are_refused(model: ModelSettings) -> None:
    learner = AdapterLearner(load_base(model), AdapterSettings(), seed=0, max_tokens=64)
    alike = [labelled("colour", 0, "red"), labelled("size", 0, "red")]
    with pytest.raises(ValueError, match="begin with the same token"):
        LabelExam(learner, alike, 256)


def made_up(strategy: str, seed: int, rows: list[list[float]]) -> Result:
    def examination(after: str, row: list[float]) -> Examination:
        scores = {task: {"class_incremental": v, "task_incremental": v} for task, v in zip("abc", row, strict=False)}
        return Examination(after, scores, None, 2.0)

    examinations = tuple(examination(f"phase {i}", row) for i, row in enumerate(rows))
    progress = (Progress(8, ("a",), {"class_incremental": (4.0, 8.0), "task_incremental": (4.0, 8.0)}, 1, True),)
    return Result("S1", strategy, seed, {}, {"device": "cpu"}, examinations, progress, None, 100, 2.0, 1.0, 1.0)


def test_the_table_says_what_the_matrix_says() -> None:
    # Before: .1 and .2; after a: .9 and .4; after b: .6 and .8.
    runs = {"naive": [made_up("naive", seed, [[0.1, 0.2], [0.9, 0.4], [0.6, 0.8]]) for seed in (0, 1)]}
    header, _, row = report.table("S1", runs).splitlines()[:3]
    cells = dict(zip(*([cell.strip() for cell in line.strip("|").split("|")] for line in (header, row)), strict=True))
    assert cells["accuracy"] == "0.700 ± 0.000"
    assert cells["forgetting"] == "0.300 ± 0.000"
    assert cells["plasticity"] == "0.850 ± 0.000"
    assert cells["of what comes next"] == "0.500 ± 0.000"
    assert cells["processor, of naive's steps"] == "1.000 ± 0.000"
    on_gpu = [msgspec.structs.replace(run, machine={"device": "NVIDIA"}) for run in runs["naive"]]
    header, _, row = report.table("S1", {"naive": on_gpu}).splitlines()[:3]
    cells = dict(zip(*([cell.strip() for cell in line.strip("|").split("|")] for line in (header, row)), strict=True))
    assert cells["processor, of naive's steps"] == ""
    assert cells["on"] == "NVIDIA"


def test_the_table_says_which_code_it_was() -> None:
    runs = [msgspec.structs.replace(made_up("naive", seed, [[0.1], [0.9]]), commit=f"abc{seed}") for seed in (1, 0)]
    assert report.table("S1", {"naive": runs}).splitlines()[2].endswith("| cpu | abc0, abc1 |")


def test_what_was_not_examined_is_in_no_sum() -> None:
    # c is first looked at after b.
    result = made_up("naive", 0, [[0.1, 0.2, 0.3], [0.9, 0.4], [0.6, 0.8, 0.2], [0.5, 0.7, 0.9]])
    header, _, row = report.table("S1", {"naive": [result]}).splitlines()[:3]
    cells = dict(zip(*([cell.strip() for cell in line.strip("|").split("|")] for line in (header, row)), strict=True))
    assert cells["accuracy"] == "0.700"
    assert cells["forgetting"] == "0.250"
    assert cells["anytime"] == "0.767"


def test_what_the_gate_refused_is_counted() -> None:
    result = made_up("default", 0, [[0.1, 0.2], [0.9, 0.7], [0.6, 0.4]])
    progress = msgspec.structs.replace(result.progress[0], refused=("poison-1", "poison-2", "3"))
    result = msgspec.structs.replace(result, progress=(progress,), settings={"num_poisoned": 8})
    header, _, row = report.table("S1-poison", {"default": [result]}).splitlines()[:3]
    cells = dict(zip(*([cell.strip() for cell in line.strip("|").split("|")] for line in (header, row)), strict=True))
    assert cells["accuracy before the burst"] == "0.800"
    assert cells["after it"] == "0.500"
    assert cells["wrong samples refused"] == "0.250"
    assert cells["right samples refused"] == "1.000"


def test_the_same_results_are_the_same_files(tmp_path: Path) -> None:
    results = [made_up("naive", seed, [[0.1, 0.2], [0.9, 0.4], [0.6, 0.8]]) for seed in (0, 1)]
    for folder in ("once", "again"):
        report.write(results, tmp_path / folder)
    files = {path.name: path.read_bytes() for path in (tmp_path / "once").iterdir()}
    assert set(files) == {"results.md", "S1-prequential.svg"}
    assert files == {path.name: path.read_bytes() for path in (tmp_path / "again").iterdir()}


def test_an_interval_is_students() -> None:
    # t of 2 degrees of freedom is 4.30, the standard error of 1, 2, 3 is 1/√3.
    assert report.interval([1.0, 2.0, 3.0]) == "2.000 ± 2.483"
    assert report.interval([1.0]) == "1.000"
    assert report.interval([]) == ""


class TestBlind:
    def right(self, window: int, *told: str, asked: str) -> tuple[float, float]:
        blind = Blind(window)
        for number, label in enumerate(told):
            blind.put([labelled("colour" if label in LABELS["colour"] else "size", number, label)])
        task = "colour" if asked in LABELS["colour"] else "size"
        shares = blind.exam(lambda *_: {})(None, [labelled(task, 99, asked)])
        return shares["class_incremental"].mean, shares["task_incremental"].mean

    def test_nothing_told_nothing_right(self) -> None:
        assert self.right(1, asked="red") == (0, 0)

    def test_the_last_of_all_and_the_last_of_the_task(self) -> None:
        assert self.right(1, "red", "blue", "tiny", asked="tiny") == (1, 1)
        assert self.right(1, "red", "blue", "tiny", asked="blue") == (0, 1)

    def test_the_most_frequent_within_the_window_of_equals_the_newest(self) -> None:
        assert self.right(3, "red", "red", "blue", "red", "blue", asked="blue") == (1, 1)
        assert self.right(5, "red", "red", "blue", "red", "blue", asked="red") == (1, 1)
        assert self.right(4, "red", "red", "blue", "blue", asked="blue") == (1, 1)
