"""The random stream's oracle gives the answers published with the paper."""

from __future__ import annotations

import pytest

from oracle import philox


@pytest.mark.parametrize(("counter", "key", "output"), philox.KNOWN_ANSWERS)
def test_philox_gives_the_published_answers(
    counter: tuple[int, ...], key: tuple[int, ...], output: tuple[int, ...]
) -> None:
    assert philox.philox4x32(counter, key) == output
