"""`striate tune`: the fit, the file it writes, and what a file does to choices."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

import striate
from striate.apps import tune


def _costs() -> dict[str, float]:
    return striate._core.conv_costs(striate.machine.active_isa())


def _file(path: Path, **changes: object) -> Path:
    table = _costs() | changes
    path.write_text(
        json.dumps({"format": striate.machine.TUNING_FORMAT, "costs": {striate.machine.active_isa(): table}})
    )
    return path


def test_fit_finds_the_coefficients_that_made_the_times():
    rng = np.random.default_rng(0)
    shipped = np.array(list(_costs().values()))
    true = shipped * rng.uniform(0.4, 2.5, len(shipped))
    works = rng.uniform(0, 1, (4000, len(shipped))) * (rng.uniform(size=(4000, len(shipped))) < 0.3) / shipped
    works[:, 0] += 1 / shipped[0]
    times = works @ true
    times[::400] *= 5  # another program ran
    found = tune.fit([tune.Measurement((i,), w, t) for i, (w, t) in enumerate(zip(works, times, strict=True))], shipped)
    np.testing.assert_allclose(found, true, rtol=0.1)


def test_regret_compares_the_choice_with_the_best():
    unit = np.eye(2)
    rows = [tune.Measurement(("a",), unit[0], 3.0), tune.Measurement(("a",), unit[1], 1.5)]
    assert tune.regret(rows, np.array([1.0, 2.0])) == 2.0
    assert tune.regret(rows, np.array([2.0, 1.0])) == 1.0


def test_the_file_is_written_and_read(tmp_path, monkeypatch):
    monkeypatch.setattr(tune, "SHAPES", ((1, 8, 8, 8),))
    path = tmp_path / "tuning.json"
    before = _costs()
    assert striate.machine.info()["tuning"] == "shipped"
    regrets = tune.tune(path, [striate.machine.active_isa()], lambda *_: None)
    assert all(ratio >= 1 for pair in regrets.values() for ratio in pair)
    assert _costs() == before  # measuring changes nothing
    with striate.machine.tuning(path):
        written = json.loads(path.read_text())["costs"][striate.machine.active_isa()]
        assert _costs() == written
        assert len(striate.machine.info()["tuning"]) == 12
    assert _costs() == before
    assert striate.machine.info()["tuning"] == "shipped"


def test_a_tuning_decides_what_runs(tmp_path):
    def chosen() -> str:
        return striate.machine.explain("conv2d", (4, 64, 28, 28), (64, 64, 3, 3), padding=1).chosen.algorithm

    slow_products = _file(tmp_path / "a.json", product=1e6)
    only_winograd2 = _file(tmp_path / "b.json", gemm=1e6, write4=1e6)
    with striate.machine.tuning(slow_products):
        assert chosen() == "direct"
        with striate.machine.tuning(only_winograd2):
            assert chosen() == "winograd2"
        assert chosen() == "direct"


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("{", "expected JSON"),
        ("[]", "striate tuning 1"),
        ('{"format": "striate tuning 1"}', "got none"),
        ('{"format": "striate tuning 1", "costs": {"avx2": 3}}', "got None"),
        ('{"format": "striate tuning 1", "costs": {"avx2": {"gemm": NaN}}}', "gemm of avx2"),
        ('{"format": "striate tuning 1", "costs": {"avx2": {"gemm": -1}}}', "got -1"),
        ('{"format": "striate tuning 1", "costs": {"avx2": {"gemm": true}}}', "got True"),
    ],
)
def test_other_files_are_refused(tmp_path, text, said):
    path = tmp_path / "tuning.json"
    path.write_text(text)
    before = _costs()
    with pytest.raises(ValueError, match="tuning: expected") as error:
        striate.machine.tuning(path)
    assert said in str(error.value)
    assert "striate tune" in str(error.value)
    assert _costs() == before
