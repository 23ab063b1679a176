"""Marks and Hypothesis profiles shared by all tests.

`fast` (the default) draws the same geometries every time; `deep` draws many, other ones every run. Choose by
`--hypothesis-profile=deep` or HYPOTHESIS_PROFILE=deep.
"""

from __future__ import annotations

import os

import pytest
from hypothesis import HealthCheck, settings

_QUIET = (HealthCheck.too_slow, HealthCheck.data_too_large, HealthCheck.filter_too_much)
settings.register_profile(
    "fast",
    derandomize=True,
    database=None,
    max_examples=25,
    deadline=None,
    suppress_health_check=_QUIET,
    print_blob=True,
)
settings.register_profile("deep", max_examples=7000, deadline=None, suppress_health_check=_QUIET, print_blob=True)
settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE", "fast"))

_MARKS = {
    "slow": "takes more than a few seconds",
    "learning": "trains a network",
    "needs_avx512": "needs a CPU with AVX-512",
    "needs_peers": "needs torch (and torchvision), run in an environment of its own",
}


def pytest_configure(config: pytest.Config) -> None:
    """Register the marks, so that the tests run from a bare checkout too."""
    for name, meaning in _MARKS.items():
        config.addinivalue_line("markers", f"{name}: {meaning}")
