"""ONNX's own tests of backends: every node test in plain dtypes, the layers that PyTorch exported, and refusals."""

from __future__ import annotations

import os
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pytest

onnx = pytest.importorskip("onnx")

with warnings.catch_warnings():
    warnings.simplefilter("ignore")  # its cases divide by zero and overflow on purpose
    from onnx.backend.test.loader import load_model_tests
    from onnx.backend.test.runner import Runner, _normalize_tensor

    NODES = {test.name: test for test in load_model_tests(kind="node")}
    EXPORTED = {
        test.name: test
        for kind in ("pytorch-converted", "pytorch-operator", "simple")
        for test in load_model_tests(kind=kind)
    }

import striate.onnx  # noqa: E402

#: Node tests that no implementation can pass, or that striate refuses, and why.
EXCEPTIONS = {
    "random numbers": ("test_bernoulli",),
    "another domain than ONNX's own": (
        "test_adagrad",
        "test_adam",
        "test_ai_onnx_ml",
        "test_momentum",
        "test_nesterov",
    ),
    "the runner itself can't compare a number in a sequence": ("test_loop16_seq_none",),
    "rounds to float16 after every step": ("test_attention_4d_causal_fp16_expanded",),
}
REFUSED = sorted(
    name
    for name in NODES
    if name.startswith(EXCEPTIONS["another domain than ONNX's own"])
    # ONNX defines it by others as far as it knows the types of operands, which needs its own inference.
    or (name.startswith("test_flexattention") and "expanded" not in name)
)
PASSING = sorted(
    name for name in NODES if name not in REFUSED and not name.startswith(tuple(sum(EXCEPTIONS.values(), ())))
)


def check(test: Any, model: Any, sets: Any) -> None:
    ready = striate.onnx.backend.prepare(model)
    for inputs, outputs in sets:
        Runner.assert_similar_outputs(
            ref_outputs=outputs, outputs=list(ready.run(inputs)), rtol=test.rtol, atol=test.atol
        )


def test_almost_all_node_tests_are_expected_to_pass() -> None:
    """The bar is 75 %."""
    assert len(PASSING) >= 0.97 * len(NODES)


@pytest.mark.parametrize("first", range(0, len(PASSING), 100))
def test_nodes_of_onnx(first: int) -> None:
    """In groups, so that their names don't drown the suite's."""
    failed = []
    for name in PASSING[first : first + 100]:
        test = NODES[name]
        sets = [([_normalize_tensor(x) for x in a], [_normalize_tensor(y) for y in b]) for a, b in test.data_sets]
        try:
            check(test, test.model, sets)
        except Exception as error:
            failed.append(f"{name}: {str(error)[:200]}")
    assert not failed


def test_a_loop_over_an_empty_optional() -> None:
    """What the runner cannot compare, element by element."""
    test = NODES["test_loop16_seq_none"]
    ((inputs, (wanted,)),) = test.data_sets
    (got,) = striate.onnx.backend.prepare(test.model).run(inputs)
    assert len(got) == len(wanted) == 6
    for y, expected in zip(got, wanted, strict=True):
        np.testing.assert_array_equal(y, expected)


def tensors(values: Any) -> list[Any] | None:
    """Return inputs as what a program takes; None where one is no tensor."""
    try:
        return [striate.from_numpy(np.array(_normalize_tensor(x))) for x in values] or None
    except (striate.DTypeError, ValueError):
        return None


@pytest.mark.parametrize("first", range(0, len(PASSING), 100))
def test_nodes_of_onnx_in_programs(first: int) -> None:
    """Whatever runs eagerly on tensors compiles to the same values, unless it hands on what no tensor holds."""
    failed = []
    for name in PASSING[first : first + 100]:
        given = tensors(NODES[name].data_sets[0][0])
        module = striate.onnx.load(NODES[name].model)
        if given is None or len(given) != len(module.inputs):
            continue
        try:
            with striate.no_grad():
                wanted = module(*given)
            got = striate.compile(module, *given)(*given)
            as_arrays = striate.onnx.backend.to_numpy
            pairs = zip(*[as_arrays(list(y) if isinstance(y, tuple) else [y]) for y in (got, wanted)], strict=True)
            Runner.assert_similar_outputs(*map(list, zip(*pairs, strict=True)), rtol=1e-5, atol=1e-6)
        except Exception as error:
            if "expected results that a tensor holds" not in str(error):
                failed.append(f"{name}: {str(error)[:200]}")
    assert not failed


@pytest.mark.parametrize("name", REFUSED)
def test_refusal_of_other_domains(name: str) -> None:
    with pytest.raises(striate.onnx.OnnxError, match="expected operators that striate supports, got 1 others: "):
        striate.onnx.backend.prepare(NODES[name].model)


def stored(folder: Path, model: Any) -> list[Any]:
    """Read the inputs and outputs that lie beside a model."""
    sets = []
    for data in sorted(folder.glob("test_data_set*")):
        inputs: list[Any] = []
        outputs: list[Any] = []
        for values, kind, infos in ((inputs, "input", model.graph.input), (outputs, "output", model.graph.output)):
            for i in range(len(list(data.glob(f"{kind}_*.pb")))):
                Runner._load_proto(None, os.fspath(data / f"{kind}_{i}.pb"), values, infos[i].type)
        sets.append((inputs, outputs))
    return sets


@pytest.mark.parametrize("name", sorted(EXPORTED))
def test_models_in_the_onnx_package(name: str) -> None:
    test = EXPORTED[name]
    model = onnx.load(Path(test.model_dir) / "model.onnx")
    if any(node.op_type == "Gradient" for node in model.graph.node):
        with pytest.raises(striate.onnx.OnnxError, match="Gradient"):
            striate.onnx.backend.prepare(model)
        return
    check(test, model, stored(Path(test.model_dir), model))


def test_run_node() -> None:
    node = onnx.helper.make_node("Add", ["a", "b"], ["c"])
    (c,) = striate.onnx.backend.run_node(node, [np.float32([1, 2]), np.float32([3, 4])])
    np.testing.assert_array_equal(c, np.float32([4, 6]))


def test_device() -> None:
    assert striate.onnx.backend.supports_device("CPU")
    assert not striate.onnx.backend.supports_device("CUDA:0")
    with pytest.raises(ValueError, match="expected device 'CPU', got 'CUDA'"):
        striate.onnx.backend.prepare(NODES["test_abs"].model, "CUDA")


def test_is_compatible() -> None:
    assert striate.onnx.backend.is_compatible(NODES["test_abs"].model)
    assert not striate.onnx.backend.is_compatible(NODES["test_adam"].model)
    assert not striate.onnx.backend.is_compatible(NODES["test_abs"].model, "CUDA")
