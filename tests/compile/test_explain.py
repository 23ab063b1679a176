"""What programs tell of themselves."""

from __future__ import annotations

from pathlib import Path
from xml.etree import ElementTree

import numpy as np
import pytest

import striate
from striate import Tensor, nn, ops, train
from striate.compile import Program

rng = np.random.default_rng(2)


def drawn(*shape: int) -> Tensor:
    return striate.tensor(rng.standard_normal(shape).astype(np.float32))


@pytest.fixture
def program() -> Program:
    model = nn.Sequential(
        nn.Conv2d(3, 32, 3, padding=1),
        nn.ReLU(),
        nn.Conv2d(32, 32, 3, padding=1),
        nn.SiLU(),
        nn.Flatten(),
        nn.Linear(32 * 64, 5),
    )
    return striate.compile(model, drawn(2, 3, 8, 8))


def test_rows_tell_what_runs(program: Program) -> None:
    rows = program.explain().rows
    assert [row.op for row in rows] == ["conv2d", "conv2d", "flatten_memory", "linear"]
    assert rows[0].fused == ("bias", "relu")
    assert rows[1].fused == ("bias", "silu")
    assert rows[0].shape == (2, 32, 8, 8)
    assert rows[0].macs == 2 * 32 * 64 * 27
    assert rows[3].macs == 2 * 5 * 32 * 64
    assert rows[0].n_bytes == 4 * (2 * 3 * 64 + 32 * 27 + 32 + 2 * 32 * 64)
    assert (
        rows[0].algorithm == striate.machine.explain("conv2d", (2, 3, 8, 8), (32, 3, 3, 3), padding=1).chosen.algorithm
    )
    assert all(row.measured_ms is None for row in rows)


def test_sizes_follow_the_inputs(program: Program) -> None:
    assert program.explain(drawn(5, 3, 8, 8)).rows[0].shape == (5, 32, 8, 8)


def test_measured_times_fill_the_table(program: Program) -> None:
    found = program.explain(measure=True)
    assert found.measured_ms is not None
    assert found.measured_ms > 0
    assert all(row.measured_ms is not None and row.measured_ms >= 0 for row in found.rows)
    table = str(found).splitlines()
    assert len(table) == 6
    assert table[0].split()[:4] == ["node", "fused", "result", "algorithm"]
    assert "4 nodes" in table[-1]
    assert "GFLOP/s" in table[-1]


def test_what_was_not_fused_says_why() -> None:
    weight = drawn(8, 4, 3, 3)

    def function(x: Tensor) -> Tensor:
        y = striate.conv2d(x, weight)
        return striate.relu(y) + striate.relu(x[:, :, :6, :6].sum(dim=1, keepdim=True)) * y

    notes = {
        row.op: row.note for row in striate.compile(function, drawn(1, 4, 8, 8)).explain().rows if row.op == "relu"
    }
    assert notes == {"relu": "no convolution, product or batch-norm before it"}


def test_a_training_step_is_explained_and_left_as_it_was() -> None:
    model = nn.Sequential(nn.Conv2d(3, 8, 3), nn.BatchNorm2d(8), nn.ReLU(), nn.Flatten(), nn.Linear(8 * 36, 3))
    optimizer = train.SGD(model.parameters(), lr=0.1, momentum=0.9)
    step = striate.compile_step(model, nn.CrossEntropyLoss(), optimizer)
    x, y = drawn(4, 3, 8, 8), striate.tensor([0, 1, 2, 0])
    step(x, y)
    before = [p.detach().numpy().copy() for p in (*model.parameters(), *model.buffers())]
    found = step.explain(x, y, measure=True)
    assert all(
        np.array_equal(a, b.detach().numpy())
        for a, b in zip(before, (*model.parameters(), *model.buffers()), strict=True)
    )
    names = [row.op for row in found.rows]
    assert "conv2d_grad_weight" in names
    assert "sgd_step" in names
    fused = {row.op: row.fused for row in found.rows}
    assert fused["conv2d"] == ("bias", "moments")
    assert fused["batch_norm_eval"] == ("relu",)
    assert found.measured_ms is not None


def test_sources_are_the_rows_whose_results_are_read() -> None:
    weight = drawn(8, 8, 1, 1)

    def function(x: Tensor) -> Tensor:
        y = ops.relu(ops.conv2d(x, weight))
        return ops.cat([ops.max_pool2d(y, 2), ops.avg_pool2d(y, 2)], dim=3)

    rows = striate.compile(function, drawn(1, 8, 4, 4)).explain().rows
    assert [row.op for row in rows] == ["conv2d", "max_pool2d", "avg_pool2d", "concat"]
    assert [row.sources for row in rows] == [(), (0,), (0,), (1, 2)]


def test_plot_draws_every_node(program: Program, tmp_path: Path) -> None:
    pytest.importorskip("matplotlib")
    found = program.explain(measure=True)
    found.plot(tmp_path / "program.svg")
    drawing = ElementTree.parse(tmp_path / "program.svg").getroot()
    boxes = [path for path in drawing.iter("{http://www.w3.org/2000/svg}g") if path.get("id", "").startswith("patch_")]
    assert len(boxes) >= sum(row.measured_ms > 0 for row in found.rows if row.measured_ms is not None)
    found.plot(str(tmp_path / "program.png"))
    assert (tmp_path / "program.png").read_bytes().startswith(b"\x89PNG")


def test_plot_refuses(program: Program, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"plot: expected measured times, got none; call explain\(measure=True\)"):
        program.explain().plot(tmp_path / "program.png")
    with pytest.raises(ValueError, match=r"plot: expected a file that ends in .png, .svg, .pdf, got '.*program.bmp'"):
        program.explain(measure=True).plot(tmp_path / "program.bmp")
