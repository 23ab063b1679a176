"""The laws hold every op to the bound of its direct algorithm; test_winograd.py holds the others to theirs."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

import striate


@pytest.fixture(autouse=True, scope="module")
def direct_algorithms() -> Iterator[None]:
    with striate.machine.algorithm("direct"):
        yield
