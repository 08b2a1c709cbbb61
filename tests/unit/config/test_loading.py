"""Where settings come from, and what is said about wrong ones."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import msgspec
import pytest
from msgspec import Meta

from lifelong.config.loading import SECTIONS, load
from lifelong.config.shared import KafkaSettings, LineSettings, LogSettings, MetricsSettings
from lifelong.errors import ConfigError


class TrainerSettings(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    batch_size: Annotated[int, Meta(ge=1)] = 8
    learning_rate: float = 0.5
    resume: bool = True
    probes: tuple[str, ...] = ()
    weights: dict[str, int] = {}
    seed: int | None = None


class Settings(msgspec.Struct, frozen=True):
    line: LineSettings = LineSettings()
    kafka: KafkaSettings = KafkaSettings()
    trainer: TrainerSettings = TrainerSettings()


class Needy(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    needed: int


class NeedySettings(msgspec.Struct, frozen=True):
    gate: Needy


def environ(**variables: str) -> dict[str, str]:
    return {"PATH": "/bin", **{f"LIFELONG_{name}": text for name, text in variables.items()}}


def toml(folder: Path, text: str | bytes) -> Path:
    path = folder / "lifelong.toml"
    path.write_bytes(text.encode() if isinstance(text, str) else text)
    return path


def wrong(path: Path | None = None, **variables: str) -> ConfigError:
    with pytest.raises(ConfigError) as caught:
        load(Settings, path=path, environ=environ(**variables))
    return caught.value


def test_defaults() -> None:
    assert load(Settings, environ=environ()) == Settings()


def test_from_the_environment() -> None:
    settings = load(
        Settings,
        environ=environ(
            LINE__NAME="shop",
            KAFKA__BOOTSTRAP_SERVERS="[::1]:9092",
            TRAINER__BATCH_SIZE="3",
            TRAINER__LEARNING_RATE="1e-4",
            TRAINER__RESUME="false",
            TRAINER__PROBES='["a", "b"]',
            TRAINER__WEIGHTS='{"a": 1}',
            TRAINER__SEED="7",
        ),
    )
    assert settings.line.name == "shop"
    assert settings.kafka.bootstrap_servers == "[::1]:9092"
    assert settings.trainer == TrainerSettings(3, 1e-4, False, ("a", "b"), {"a": 1}, 7)


def test_a_text_that_looks_like_json_stays_a_text() -> None:
    settings = load(Settings, environ=environ(KAFKA__SASL_PASSWORD='["a"]', KAFKA__SASL_USERNAME="{}"))
    assert (settings.kafka.sasl_password, settings.kafka.sasl_username) == ('["a"]', "{}")


def test_the_environment_wins_over_the_file(tmp_path: Path) -> None:
    path = toml(tmp_path, '[line]\nname = "file"\n[trainer]\nbatch_size = 2\nprobes = ["x"]\n')
    settings = load(Settings, environ=environ(CONFIG=str(path), TRAINER__BATCH_SIZE="4"))
    assert (settings.line.name, settings.trainer.batch_size, settings.trainer.probes) == ("file", 4, ("x",))


def test_an_empty_variable_counts_as_not_set(tmp_path: Path) -> None:
    path = toml(tmp_path, "[trainer]\nbatch_size = 2\n")
    settings = load(Settings, path=path, environ=environ(TRAINER__BATCH_SIZE="", TRAINER__SEED="", CONFIG=""))
    assert settings.trainer == TrainerSettings(batch_size=2)


def test_sections_of_other_processes_are_left_to_them(tmp_path: Path) -> None:
    path = toml(tmp_path, "[inference]\nport = 8000\n")
    assert load(Settings, path=path, environ=environ(DISTILLER__ALPHA="0.5")) == Settings()


@pytest.mark.parametrize("name", ["CONFIG", "HOME", "CACHE", "HTTP"])
def test_variables_that_are_no_settings(name: str, tmp_path: Path) -> None:
    assert load(Settings, environ=environ(**{name: str(toml(tmp_path, ""))})) == Settings()


@pytest.mark.parametrize(
    ("variables", "field", "problem"),
    [
        ({"TRAINER__BATCHSIZE": "1"}, "trainer.batchsize", "unknown setting"),
        ({"TRAINER__BATCH_SIZE": "many"}, "trainer.batch_size", "Expected `int`"),
        ({"TRAINER__BATCH_SIZE": "0"}, "trainer.batch_size", ">= 1"),
        ({"TRAINER__RESUME": "maybe"}, "trainer.resume", "bool"),
        ({"TRAINER__PROBES": "a,b"}, "trainer.probes", "array"),
        ({"TRAINER__PROBES": '["a", 1]'}, "trainer.probes", "Expected `str`"),
        ({"TRAINER__PROBES": '["a"'}, "trainer.probes", "array"),
        ({"TRAINER__WEIGHTS": '{"a": "b"}'}, "trainer.weights", "Expected `int`"),
        ({"LINE__NAME": "Has Spaces"}, "line.name", "matching regex"),
        ({"KAFKA__ENABLE_AUTO_COMMIT": "true"}, "kafka", "must stay false"),
        ({"KAFKA__SECURITY_PROTOCOL": "SASL_SSL"}, "kafka", "sasl_username"),
        ({"TRAINR__BATCH_SIZE": "1"}, "LIFELONG_TRAINR__BATCH_SIZE", "unknown variable"),
        ({"TRAINER_BATCH_SIZE": "1"}, "LIFELONG_TRAINER_BATCH_SIZE", "unknown variable"),
        ({"TRAINER_BATCH_SIZE": ""}, "LIFELONG_TRAINER_BATCH_SIZE", "unknown variable"),
    ],
)
def test_wrong_variables(variables: dict[str, str], field: str, problem: str) -> None:
    error = wrong(**variables)
    assert error.field == field
    assert problem in str(error)


@pytest.mark.parametrize(
    ("text", "field", "problem"),
    [
        ("[trainr]\n", "trainr", "unknown section"),
        ("line = 5\n", "line", "expected a table"),
        ("[trainer]\nbatch_size = 1.5\n", "trainer.batch_size", "Expected `int`"),
        ("[trainer]\nsize = 1\n", "trainer.size", "unknown setting"),
        ("[trainer\n", "LIFELONG_CONFIG", "is not TOML"),
        (b"[line]\nname = '\xff'\n", "LIFELONG_CONFIG", "is not TOML"),
    ],
)
def test_wrong_files(tmp_path: Path, text: str | bytes, field: str, problem: str) -> None:
    error = wrong(toml(tmp_path, text))
    assert error.field == field
    assert problem in str(error)


def test_no_such_file(tmp_path: Path) -> None:
    assert "No such file" in str(wrong(CONFIG=str(tmp_path / "nowhere.toml")))
    assert "Is a directory" in str(wrong(CONFIG=str(tmp_path)))


def test_a_setting_without_default_is_named(tmp_path: Path) -> None:
    for document, field in (("", "gate"), ("[gate]\n", "gate.needed")):
        with pytest.raises(ConfigError, match="has no default") as caught:
            load(NeedySettings, path=toml(tmp_path, document), environ={})
        assert caught.value.field == field
    assert load(NeedySettings, environ=environ(GATE__NEEDED="1")).gate.needed == 1


def test_the_shared_sections_are_known() -> None:
    for section in (LineSettings, KafkaSettings, MetricsSettings, LogSettings):
        name = section.__name__.removesuffix("Settings").lower()
        assert name in SECTIONS
        assert section() == msgspec.convert({}, section)


def test_the_student_is_a_line_of_its_own() -> None:
    assert LineSettings(name="shop").student == "shop-student"
