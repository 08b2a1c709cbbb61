"""Settings of the trainer that are others than its defaults, as benchmarks are given them: ``recipe.dark_alpha=1``."""

from __future__ import annotations

from collections.abc import Sequence

import msgspec

from lifelong.trainer.config import Settings


def changed(settings: Settings, assignments: Sequence[str]) -> Settings:
    """Each is ``SECTION.FIELD=VALUE``, the value in JSON; what is no JSON is a string.

    Raises:
        ValueError: there is no such setting, or it cannot have that value.
    """
    for assignment in assignments:
        name, _, value = assignment.partition("=")
        section, _, field = name.partition(".")
        old = getattr(settings, section, None)
        if not isinstance(old, msgspec.Struct):
            raise ValueError(f"no setting of the trainer is called {name}")
        try:
            decoded = msgspec.json.decode(value)
        except msgspec.DecodeError:
            decoded = value
        try:
            new = msgspec.convert(msgspec.to_builtins(old) | {field: decoded}, type(old))
        except msgspec.ValidationError as error:
            raise ValueError(f"{assignment}: {error}") from error
        settings = msgspec.structs.replace(settings, **{section: new})
    return settings
