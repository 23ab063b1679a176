"""Plans that a file pins: the same algorithms, and so the same bits, wherever the same instruction set runs."""

from __future__ import annotations

import json
import os
import struct
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import striate
from striate import Tensor, _core, machine, nn
from striate.compile import Program

SHAPE = (4, 16, 12, 12)
CONVOLUTIONS = ["conv2d", "conv_transpose2d", "conv2d"]
rng = np.random.default_rng(0)


def drawn(*shape: int) -> Tensor:
    return striate.tensor(rng.standard_normal(shape).astype(np.float32))


def compiled() -> Program:
    """A convolution and a transposed one that every Winograd form of 3×3 applies to, and one that none does."""
    model = nn.Sequential(
        nn.Conv2d(16, 16, 3, padding=1),
        nn.ReLU(),
        nn.ConvTranspose2d(16, 16, 3, padding=1),
        nn.Conv2d(16, 4, 4, stride=2),
    )
    return striate.compile(model.eval(), drawn(*SHAPE))


def algorithms(program: Program, *shapes: tuple[int, ...]) -> list[str]:
    """What the program's convolutions take for inputs of these shapes."""
    core = program._variants[0].core
    found = core.choices(list(shapes)).algorithms
    named = {
        node.op: name for node, name in zip(program.graph.nodes, found, strict=True) if not node.op.startswith("conv")
    }
    assert all(name is None for name in named.values())
    return [name for node, name in zip(program.graph.nodes, found, strict=True) if node.op.startswith("conv")]


def costly_tuning(path: Path) -> Any:
    """Coefficients of a machine on which Winograd's transforms and products take a thousand times as long."""
    costs = dict.fromkeys(_core.conv_costs(machine.active_isa()), 1.0)
    costs |= {name: 1000.0 for name in costs if name.startswith(("product", "read", "write"))}
    path.write_text(json.dumps({"format": machine.TUNING_FORMAT, "costs": {machine.active_isa(): costs}}))
    return machine.tuning(path)


CONDITIONS: dict[str, Callable[[Path], Any]] = {
    "algorithm": lambda folder: machine.algorithm("direct"),
    "other algorithm": lambda folder: machine.algorithm("winograd2"),
    "budget": lambda folder: striate.precision(budget=0),
    "tuning": lambda folder: costly_tuning(folder / "tuning.json"),
}


@pytest.mark.parametrize("name", CONDITIONS)
def test_pinned_plan_keeps_its_algorithms(name: str, tmp_path: Path) -> None:
    program, x = compiled(), drawn(*SHAPE)
    with machine.algorithm("winograd4"):
        expected = program(x).numpy()
        program.save(tmp_path / "pinned", pin_plan=True)
        program.save(tmp_path / "free")
    with CONDITIONS[name](tmp_path):
        loaded = striate.load_program(tmp_path / "pinned")
        free = striate.load_program(tmp_path / "free")
        for _ in range(2):  # traced, then from the arena
            assert loaded(x).numpy().tobytes() == expected.tobytes()
        assert free(x).numpy().tobytes() != expected.tobytes()
        assert algorithms(loaded, SHAPE) == ["winograd4", "winograd4", "direct"]
        assert algorithms(free, SHAPE)[:2] != ["winograd4", "winograd4"]
        rows = [row for row in loaded.explain(x).rows if row.op == "conv2d"]
        assert [row.algorithm for row in rows] == ["winograd4", "direct"]
        with striate.threads(3):
            assert loaded(x).numpy().tobytes() == expected.tobytes()


def test_plans_of_all_shapes_met_are_pinned_and_no_others(tmp_path: Path) -> None:
    program, met, other = compiled(), (2, 16, 9, 10), (1, 16, 11, 11)
    with machine.algorithm("winograd2"):
        program(drawn(*met))
        program.save(tmp_path / "pinned", pin_plan=True)
    loaded = striate.load_program(tmp_path / "pinned")
    with striate.precision(budget=0):
        assert algorithms(loaded, met) == algorithms(loaded, SHAPE) == ["winograd2", "winograd2", "direct"]
        assert algorithms(loaded, other) == ["direct"] * 3
        x = drawn(*other)
        assert loaded(x).numpy().tobytes() == program(x).numpy().tobytes()


def test_pins_survive_saving_again(tmp_path: Path) -> None:
    program = compiled()
    with machine.algorithm("winograd2"):
        program.save(tmp_path / "first", pin_plan=True)
    loaded = striate.load_program(tmp_path / "first")
    loaded.save(tmp_path / "second", pin_plan=True)
    assert (tmp_path / "second").read_bytes() == (tmp_path / "first").read_bytes()
    loaded.save(tmp_path / "free")
    program.save(tmp_path / "never pinned")
    assert (tmp_path / "free").read_bytes() == (tmp_path / "never pinned").read_bytes()


def split(function: Callable[[Tensor], Tensor], shape: tuple[int, ...], path: Path) -> list[dict[str, Any]]:
    striate.compile(function, drawn(*shape)).save(path, pin_plan=True)
    plans: list[dict[str, Any]] = entry(path)["plans"]
    return plans


def test_batch_in_parts_is_pinned_with_the_plans_of_its_parts(tmp_path: Path) -> None:
    weight = drawn(16, 8, 1, 1)
    plans = split(lambda x: striate.conv2d(x, weight), (17, 8, 160, 160), tmp_path / "program")
    sizes = {plan["inputs"][0][0]: plan["samples_at_a_time"] for plan in plans}
    part = sizes.pop(17)  # a layer's images are more than 24 MiB, which no cache is taken to hold
    assert 0 < part < 17
    assert sizes == dict.fromkeys({part, 17 % part or part}, 0)


def test_pinned_samples_at_a_time_are_taken(tmp_path: Path) -> None:
    program, x = compiled(), drawn(*SHAPE)
    program.save(tmp_path / "program", pin_plan=True)
    expected = program(x).numpy()
    edit(tmp_path / "program", lambda plans: plans[0].update(samples_at_a_time=3))
    loaded = striate.load_program(tmp_path / "program")
    explained = loaded.explain(x)
    assert explained.samples_at_a_time == 3
    assert np.allclose(loaded(x).numpy(), expected, rtol=1e-4, atol=1e-4)  # as on another instruction set, below
    assert loaded._variants[0].core.memory()["n_plans"] >= 2  # of three samples, and of the one that is left


@pytest.mark.skipif(machine.active_isa() == "baseline", reason="needs two instruction sets")
def test_another_instruction_set_plans_anew(tmp_path: Path) -> None:
    program, x = compiled(), drawn(*SHAPE)
    with machine.algorithm("winograd4"):
        program.save(tmp_path / "program", pin_plan=True)
    np.save(tmp_path / "x.npy", x.numpy())
    code = (
        "import numpy, striate\n"
        "program = striate.load_program('program')\n"
        "x = numpy.load('x.npy')\n"
        "with striate.precision(budget=0):\n"
        "    numpy.save('y.npy', program(x).numpy())\n"
        "    print(*program._variants[0].core.choices([x.shape]).algorithms)\n"
        "program.save('again', pin_plan=True)\n"
    )
    environment = os.environ | {"STRIATE_ISA": "baseline"}
    ran = subprocess.run(
        [sys.executable, "-c", code], cwd=tmp_path, check=True, env=environment, stdout=subprocess.PIPE, text=True
    )
    assert set(ran.stdout.split()) == {"direct"}
    # 16 · 9 products a sum in three layers, of numbers around 1.
    assert np.allclose(np.load(tmp_path / "y.npy"), program(x).numpy(), rtol=1e-4, atol=1e-4)
    again = {plan["kernels"]: plan for plan in entry(tmp_path / "again")["plans"]}
    assert len(again) == 2  # what was pinned stays, beside what this one chose
    assert again[machine.active_isa()] == entry(tmp_path / "program")["plans"][0]


# Files with plans that no program can have.


def entry(path: Path) -> dict[str, Any]:
    data = path.read_bytes()
    (n,) = struct.unpack("<Q", data[:8])
    graph: dict[str, Any] = json.loads(json.loads(data[8 : 8 + n])["__metadata__"]["striate_program"])
    return graph


def edit(path: Path, change: Callable[[list[Any]], Any]) -> None:
    """Change the plans of a file in place."""
    data = path.read_bytes()
    (n,) = struct.unpack("<Q", data[:8])
    header = json.loads(data[8 : 8 + n])
    graph = json.loads(header["__metadata__"]["striate_program"])
    change(graph["plans"])
    header["__metadata__"]["striate_program"] = json.dumps(graph)
    text = json.dumps(header).encode()
    path.write_bytes(struct.pack("<Q", len(text)) + text + data[8 + n :])


EDITS: dict[str, tuple[Callable[[list[Any]], Any], str]] = {
    "kind": (lambda p: p.__setitem__(0, 3), "an object in plan 0.*a whole number"),
    "missing key": (lambda p: p[0].pop("kernels"), "key 'kernels' in plan 0"),
    "unknown key": (lambda p: p[0].update(more=1), "keys of the format only in plan 0.*'more'"),
    "kernels": (lambda p: p[0].update(kernels=7), "a text in plan 0"),
    "twice": (lambda p: p.append(dict(p[0])), "one plan for the same kernels and inputs in plan 1"),
    "no inputs": (lambda p: p[0].update(inputs=[]), "sizes of 1 inputs, got 0"),
    "axes": (lambda p: p[0].update(inputs=[[4, 16]]), r"4 sizes of 'input0', got \(4, 16\)"),
    "many axes": (lambda p: p[0].update(inputs=[[1] * 99]), "at most . axes in plan 0.*99"),
    "negative size": (lambda p: p[0].update(inputs=[[-4, 16, 12, 12]]), "a number from 0 to .*-4"),
    "huge sizes": (lambda p: p[0].update(inputs=[[2**40, 16, 2**40, 12]]), "fit into memory|below 2.63"),
    "other channels": (lambda p: p[0].update(inputs=[[4, 15, 12, 12]]), "expected sizes for which .*i0.1"),
    "empty result": (lambda p: p[0].update(inputs=[[4, 16, 0, 0]]), r"fit into memory, got \(4, 4, -1, -1\)"),
    "negative samples": (lambda p: p[0].update(samples_at_a_time=-1), "a number from 0 to .*-1"),
    "all samples": (lambda p: p[0].update(samples_at_a_time=4), "0 samples at a time, or .*got 4"),
    "more samples": (lambda p: p[0].update(samples_at_a_time=2**62), "0 samples at a time, or"),
    "few algorithms": (lambda p: p[0]["algorithms"].pop(), "algorithms of . nodes, got"),
    "more algorithms": (lambda p: p[0]["algorithms"].append(None), "algorithms of . nodes, got"),
    "unknown algorithm": (lambda p: p[0]["algorithms"].__setitem__(0, "fft"), "an algorithm of convolutions.*'fft'"),
    "no algorithm": (lambda p: p[0]["algorithms"].__setitem__(0, None), "one of each convolution, got auto"),
    "one that does not apply": (
        lambda p: p[0]["algorithms"].__setitem__(-1, "winograd4"),
        r"node \d \(conv2d\) can take.*got winograd4",
    ),
}


@pytest.mark.parametrize("name", EDITS)
def test_refusal_of_a_changed_plan(name: str, tmp_path: Path) -> None:
    change, message = EDITS[name]
    path = tmp_path / "program"
    compiled().save(path, pin_plan=True)
    edit(path, change)
    with pytest.raises(ValueError, match=f"(?s)program: expected.*{message}") as caught:
        striate.load_program(path)
    assert str(path) in str(caught.value)


def test_samples_that_mix_are_not_run_apart(tmp_path: Path) -> None:
    path = tmp_path / "program"
    for function in (lambda x: x - x.mean(0, keepdim=True), lambda x: x.sum(0), lambda x: x[1:]):
        striate.compile(function, drawn(4, 3)).save(path, pin_plan=True)
        edit(path, lambda plans: plans[0].update(samples_at_a_time=2))
        with pytest.raises(ValueError, match="0 samples at a time, or as many as this batch may be cut into, got 2"):
            striate.load_program(path)
    # Inputs of other batches are not cut alike: a part would read past their end.
    striate.compile(lambda x, y: x + y, drawn(4, 3), drawn(1, 3)).save(path, pin_plan=True)
    edit(path, lambda plans: plans[0].update(samples_at_a_time=2))
    with pytest.raises(ValueError, match="0 samples at a time, or"):
        striate.load_program(path)
