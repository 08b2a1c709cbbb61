"""Real data where it can be had: without a network, or away from Debian, its tests are skipped; in CI they fail."""

from __future__ import annotations

from collections.abc import Generator

import pytest
from benchmarks.learning.data import DataError
from tests.programs import missing


@pytest.hookimpl(wrapper=True)
def pytest_pyfunc_call(pyfuncitem: pytest.Function) -> Generator[None, object, object]:
    try:
        return (yield)
    except DataError as error:
        if pyfuncitem.get_closest_marker("downloads") is None:
            raise
        missing(str(error))
