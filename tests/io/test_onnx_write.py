"""ONNX files: names, axes, files, refusals. The numbers are in test_onnx_numbers."""

from __future__ import annotations

import os
import sys
from collections import namedtuple
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import striate
from striate import Tensor, models, nn, ops
from striate.autograd.op import registry

onnx = pytest.importorskip("onnx")
write = pytest.importorskip("striate.io.onnx.write")
save, to_model = write.save, write.to_model

Pair = namedtuple("Pair", ["left", "right"])


def image(*shape: int) -> Tensor:
    return striate.tensor(np.random.default_rng(0).standard_normal(shape).astype(np.float32))


def weights_of(proto: Any) -> dict[str, np.ndarray[Any, Any]]:
    return {w.name: onnx.numpy_helper.to_array(w) for w in proto.graph.initializer}


def sizes_of(value: Any) -> list[int | str]:
    return [d.dim_param or d.dim_value for d in value.type.tensor_type.shape.dim]


class Small(nn.Module):
    def __init__(self) -> None:
        self.body = nn.Sequential(nn.Conv2d(3, 4, 3, bias=False), nn.BatchNorm2d(4), nn.ReLU())
        self.head = nn.Linear(4, 5)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(ops.flatten(ops.adaptive_avg_pool2d(self.body(x), 1), 1))


# Which operators there are.


def test_every_row_of_a_forward_pass_can_be_written() -> None:
    """Gradients, optimizers, states and random numbers are what is left."""
    left = {name for name in registry if name not in write.ROWS}
    training = ("_grad", "_grad_input", "_grad_weight", "_pick", "_step", "_update")
    others = {name for name in left if not name.endswith(training)}
    assert others == {
        *("rand", "randn", "randint", "randperm", "dropout", "dropout2d", "mask_scale"),
        *("spread", "index_add", "require_finite"),
    }


# Names.


def test_weights_have_the_keys_of_the_state_dict() -> None:
    net = Small().eval()
    stored = weights_of(to_model(net, image(1, 3, 8, 8)))
    state = {key: value for key, value in net.state_dict().items() if not key.endswith("num_batches_tracked")}
    assert set(stored) == set(state)
    for key, value in state.items():
        np.testing.assert_array_equal(stored[key], value.numpy())


def test_a_folded_weight_has_the_name_of_its_original() -> None:
    net = Small().eval()
    for key, buffer in net.named_buffers():
        if key.endswith("var"):
            ops.assign(buffer, striate.tensor([0.5, 1.0, 2.0, 4.0]))
    x = image(1, 3, 8, 8)
    stored = weights_of(to_model(striate.compile(net, x), x))
    assert set(stored) == {"body.0.weight", "body.0.bias", "head.weight", "head.bias"}
    scale = 1 / np.sqrt(np.array([0.5, 1.0, 2.0, 4.0]) + 1e-5)
    folded = net.state_dict()["body.0.weight"].numpy() * scale[:, None, None, None].astype(np.float32)
    np.testing.assert_allclose(stored["body.0.weight"], folded, rtol=2.0**-22)


@pytest.mark.parametrize("name", ["resnet18", "densenet121", "mobilenet_v2", "efficientnet_b0", "shufflenet_v2_x1_0"])
def test_all_weights_of_a_program_are_found_again(name: str) -> None:
    net, x = models.build(name, 10).eval(), striate.zeros(1, 3, 64, 64)
    stored = set(weights_of(to_model(striate.compile(net, x), x)))
    wide = {key for key, value in net.named_parameters() if value.ndim > 1}
    assert wide <= stored


def test_equal_filters_keep_their_own_names() -> None:
    """Filters that are all 0, or one layer's the double of another's, are matched in order."""
    net = nn.Sequential(*[nn.Conv2d(4, 4, 1, bias=False) for _ in range(3)]).eval()
    for layer in net.parameters():
        ops.assign(layer.detach(), striate.ones(4, 4, 1, 1))
    x = image(1, 4, 5, 5)
    assert set(weights_of(to_model(striate.compile(net, x), x))) == {"0.weight", "1.weight", "2.weight"}


def test_nodes_are_named_by_their_module() -> None:
    x = image(1, 3, 8, 8)
    net = Small().eval()
    names = [node.name for node in to_model(net, x).graph.node]
    assert names == [
        "body.0/Conv",
        "body.1/BatchNormalization",
        "body.2/Relu",
        "GlobalAveragePool",
        "Flatten",
        "head/Gemm",
    ]
    compiled = [node.name for node in to_model(striate.compile(net, x), x).graph.node]
    assert compiled[:2] == ["body.0/Conv", "body.0/Relu"]


@pytest.mark.parametrize(
    ("model", "names"),
    [
        (lambda x: x * 2.0, ["output0"]),
        (lambda x: (x * 2.0, [x + 1.0, x - 1.0]), ["output0", "output1.0", "output1.1"]),
        (lambda x: {"out": x * 2.0, "aux": {"deep": x + 1.0}}, ["out", "aux.deep"]),
        (lambda x: Pair(x * 2.0, x + 1.0), ["left", "right"]),
    ],
)
def test_results_are_flattened_in_order(model: Callable[[Tensor], Any], names: list[str]) -> None:
    x = image(2, 3)
    for made in (model, striate.compile(model, x)):
        assert [value.name for value in to_model(made, x).graph.output] == names


def test_inputs_and_outputs_take_the_names_given() -> None:
    proto = to_model(
        lambda x, y: (x + y, x), (image(2, 3), image(3)), input_names=["a", "b"], output_names=["sum", "same"]
    )
    assert [value.name for value in proto.graph.input] == ["a", "b"]
    assert [value.name for value in proto.graph.output] == ["sum", "same"]
    assert proto.producer_name == "striate" and proto.producer_version == striate.__version__


def test_one_value_may_be_several_results() -> None:
    from onnx.reference import ReferenceEvaluator

    weight = image(2, 3)
    x = image(2, 3)

    def model(x: Tensor) -> tuple[Tensor, ...]:
        y = ops.relu(x)
        return y, y, x, weight

    got = ReferenceEvaluator(to_model(model, x)).run(None, {"input0": x.numpy()})
    for y, expected in zip(got, model(x), strict=True):
        np.testing.assert_array_equal(y, expected.numpy())


def test_half_precision_weights_are_stored_as_they_are() -> None:
    half, brain = image(2, 3).to(striate.float16), image(2, 3).to(striate.bfloat16)
    proto = to_model(lambda x: x + half.to(striate.float32) + brain.to(striate.float32), image(2, 3))
    types = {w.data_type for w in proto.graph.initializer}
    assert types == {onnx.TensorProto.FLOAT16, onnx.TensorProto.BFLOAT16}
    (stored,) = [w for w in proto.graph.initializer if w.data_type == onnx.TensorProto.BFLOAT16]
    np.testing.assert_array_equal(
        onnx.numpy_helper.to_array(stored).astype(np.float32), brain.to(striate.float32).numpy()
    )


def test_a_model_in_training_mode_is_written_in_eval_mode_and_stays_as_it_was() -> None:
    net = Small().train()
    before = {key: np.array(value.numpy()) for key, value in net.state_dict().items()}
    proto = to_model(net, image(2, 3, 8, 8))
    assert "BatchNormalization" in [node.op_type for node in proto.graph.node]
    assert all(module.training for module in net.modules())
    for key, value in net.state_dict().items():
        np.testing.assert_array_equal(value.numpy(), before[key])


def test_writing_does_not_expose_the_memory_of_weights() -> None:
    """Packed weights are kept only for memory that outside code cannot write."""
    net = Small().eval()
    exposed = [value._array.is_exposed for value in net.parameters()]
    to_model(net, image(1, 3, 8, 8))
    assert [value._array.is_exposed for value in net.parameters()] == exposed


# Axes.


def test_axes_are_fixed_unless_named() -> None:
    x = image(2, 3, 8, 8)
    proto = to_model(Small().eval(), x)
    assert sizes_of(proto.graph.input[0]) == [2, 3, 8, 8] and sizes_of(proto.graph.output[0]) == [2, 5]
    proto = to_model(Small().eval(), x, dynamic_axes={"input0": {0: "batch", -1: "width"}})
    assert sizes_of(proto.graph.input[0]) == ["batch", 3, 8, "width"] and sizes_of(proto.graph.output[0]) == [
        "batch",
        5,
    ]


def test_axes_in_a_list_get_names() -> None:
    proto = to_model(lambda x: x[:, 1:], image(2, 3), dynamic_axes={0: [0, 1]})
    assert sizes_of(proto.graph.input[0]) == ["input0_axis0", "input0_axis1"]
    assert sizes_of(proto.graph.output[0]) == ["input0_axis0", "input0_axis1 - 1"]


def test_an_output_names_what_follows_from_the_inputs() -> None:
    proto = to_model(
        lambda x: ops.max_pool2d(x, 2),
        image(2, 3, 8, 8),
        dynamic_axes={"input0": {2: "height", 3: "width"}, "output0": {2: "half"}},
    )
    assert sizes_of(proto.graph.output[0]) == [2, 3, "half", "width // 2"]


def test_axes_that_must_agree_get_one_name() -> None:
    proto = to_model(lambda x, y: x + y, (image(2, 3), image(2, 3)), dynamic_axes={0: {0: "n"}, 1: {0: "m"}})
    assert [sizes_of(value)[0] for value in proto.graph.input] == ["n", "n"]


def test_conditions_are_in_the_metadata() -> None:
    def model(x: Tensor) -> Tensor:
        return ops.concat([x, ops.interpolate(ops.max_pool2d(x, 2), scale_factor=2)], 1)

    proto = to_model(model, image(1, 2, 8, 8), dynamic_axes={0: {2: "height", 3: "width"}})
    (found,) = proto.metadata_props
    assert (found.key, found.value) == ("striate_sizes", "height == 2 * (height // 2); width == 2 * (width // 2)")
    assert not to_model(model, image(1, 2, 8, 8), dynamic_axes={0: [0]}).metadata_props


def test_sizes_are_computed_from_the_inputs_shape() -> None:
    """Rounded down as the sizes of a record are, also where Div would round towards zero."""
    from onnx.reference import ReferenceEvaluator

    def model(x: Tensor) -> Tensor:
        return ops.concat(ops.chunk(x, 3, dim=1)[:2], 0)

    proto = to_model(model, image(2, 7), dynamic_axes={0: {1: "n"}})
    for n in (7, 8, 9, 13):
        x = image(2, n)
        if n // -3 == 7 // -3:
            (y,) = ReferenceEvaluator(proto).run(None, {"input0": x.numpy()})
            np.testing.assert_array_equal(y, model(x).numpy())


# Files.


def test_the_file_passes_the_checker(tmp_path: Path) -> None:
    save(Small().eval(), tmp_path / "small.onnx", image(2, 3, 8, 8), dynamic_axes={0: {0: "batch"}})
    onnx.checker.check_model(onnx.load(tmp_path / "small.onnx"), full_check=True)
    assert os.listdir(tmp_path) == ["small.onnx"]


def test_the_same_model_gives_the_same_bytes(tmp_path: Path) -> None:
    net, x = Small().eval(), image(2, 3, 8, 8)
    for name in ("a", "b"):
        save(net, tmp_path / name, x)
    assert (tmp_path / "a").read_bytes() == (tmp_path / "b").read_bytes()


def test_large_weights_go_beside_the_file(tmp_path: Path) -> None:
    net, x = nn.Sequential(nn.Linear(40, 50), nn.Linear(50, 60)).eval(), image(2, 40)
    save(net, tmp_path / "net.onnx", x, external_data=True)
    assert sorted(os.listdir(tmp_path)) == ["net.onnx", "net.onnx.data"]
    onnx.checker.check_model(str(tmp_path / "net.onnx"), full_check=True)
    stored = weights_of(onnx.load(tmp_path / "net.onnx"))
    for key, value in net.state_dict().items():
        np.testing.assert_array_equal(stored[key], value.numpy())
    assert (tmp_path / "net.onnx").stat().st_size < 4000


def test_a_model_above_what_a_file_holds_is_split(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(write, "MOST_BYTES", 1000)
    net, x = nn.Linear(40, 50).eval(), image(2, 40)
    save(net, tmp_path / "net.onnx", x)
    assert (tmp_path / "net.onnx.data").exists()
    with pytest.raises(ValueError, match=r"onnx.save: expected at most 1000 bytes of weights .*, got 8200; leave"):
        save(net, tmp_path / "other.onnx", x, external_data=False)
    assert not (tmp_path / "other.onnx").exists()


def test_a_refused_model_leaves_the_file_as_it_was(tmp_path: Path) -> None:
    path = tmp_path / "net.onnx"
    path.write_text("before")
    with pytest.raises(ValueError, match="got rand"):
        save(lambda x: x + ops.rand(3), path, image(2, 3))
    with pytest.raises(FileNotFoundError):
        save(Small().eval(), tmp_path / "missing" / "net.onnx", image(2, 3, 8, 8))
    path.rename(tmp_path / "kept")
    path.mkdir()
    with pytest.raises(IsADirectoryError):
        save(Small().eval(), path, image(2, 3, 8, 8))
    assert sorted(os.listdir(tmp_path)) == ["kept", "net.onnx"] and (tmp_path / "kept").read_text() == "before"


# Refusals.


def test_all_operators_that_cannot_be_written_are_named_at_once() -> None:
    def model(x: Tensor) -> Tensor:
        ops.randn(4)  # nobody reads it
        return ops.dropout(x, 0.5) + ops.rand(3) + ops.require_finite(x)

    with pytest.raises(
        ValueError, match=r"expected operators that ONNX has, got dropout, rand, require_finite; compute these outside"
    ):
        to_model(model, image(2, 3))


class Counting(nn.Module):
    def __init__(self) -> None:
        self.register_buffer("n_calls", striate.zeros(1))

    def forward(self, x: Tensor) -> Tensor:
        ops.assign(self.n_calls, self.n_calls + 1.0)
        return x * self.n_calls


def test_a_model_that_changes_its_state_is_refused() -> None:
    with pytest.raises(ValueError, match="expected operators that ONNX has, got assign; compute these outside"):
        to_model(Counting(), image(2, 3))


def _gradient(x: Tensor) -> Tensor:
    with striate.enable_grad():
        y = x.detach().requires_grad_()
        ops.sum(ops.sigmoid(y)).backward()
    assert y.grad is not None
    return y.grad


UNWRITABLE: dict[str, tuple[Callable[[Tensor], Any], str]] = {
    "one-hot": (
        lambda x: ops.one_hot((x[0, :, 0, 0] * 0.0).to(striate.int64), x.shape[1]),
        "one_hot .with a number of",
    ),
    "smoothing": (
        lambda x: ops.cross_entropy(x, (x[:, 0] * 0.0).to(striate.int64), label_smoothing=0.1),
        "cross_entropy .label_smoothing over a number of classes",
    ),
    "groups": (lambda x: ops.instance_norm(x), "instance_norm .of a number of groups"),
    "corners": (
        lambda x: ops.interpolate(x, (4, 4), mode="bilinear", align_corners=True, antialias=True),
        "interpolate .with these options on axes that may change",
    ),
    "indices": (
        lambda x: ops.max_pool2d(x, 2, stride=3, ceil_mode=True, return_indices=True),
        "max_pool2d_taps .indices of windows that reach beyond",
    ),
    "cells": (
        lambda x: ops.adaptive_max_pool2d(x, 3, return_indices=True),
        "adaptive_max_pool2d_taps .indices of cells of different sizes",
    ),
    "stride": (
        lambda x: ops.avg_pool2d(x, 2, stride=3, ceil_mode=True, count_include_pad=False),
        "avg_pool2d .ceil_mode with a stride above the kernel",
    ),
    "gradient": (_gradient, "sigmoid_grad, spread"),
}


@pytest.mark.parametrize("name", UNWRITABLE)
def test_a_form_that_cannot_be_written_is_refused(name: str) -> None:
    model, text = UNWRITABLE[name]
    with pytest.raises(ValueError, match=text):
        to_model(model, image(2, 4, 8, 8), dynamic_axes={0: {1: "channels", 2: "height", 3: "width"}})


@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        ({"opset_version": 17}, r"expected opset_version from 18 to \d+, got 17; choose"),
        ({"input_names": ["a", "b"]}, r"expected input_names as 1 different names, got \['a', 'b'\]; name each"),
        ({"output_names": [""]}, r"expected output_names as 1 different names, got \[''\]; name each of \['output0'\]"),
        (
            {"output_names": ["input0"]},
            "expected different names for inputs and outputs, got 'input0' for both; choose",
        ),
        ({"input_names": ["head.weight"]}, "outputs that no weight has, got 'head.weight'; pass input_names"),
        ({"dynamic_axes": {"x": [0]}}, r"as keys of dynamic_axes, got 'x'; choose from \['input0', 'output0'\]"),
        (
            {"dynamic_axes": {0: [4]}},
            r"expected axes of 'input0' of shape \(2, 3, 8, 8\) in dynamic_axes, got 4; check",
        ),
        (
            {"dynamic_axes": {0: {0: "n", 2: "n"}}},
            "one name in dynamic_axes to be of one size, got 2 and 8 for 'n'; give",
        ),
        (
            {"dynamic_axes": {0: {1: "c"}}},
            r"got axis 1 of input 0 \('c'\) in a record that holds for c == 3 only; leave",
        ),
    ],
)
def test_arguments_that_do_not_fit_are_refused(arguments: dict[str, Any], text: str) -> None:
    with pytest.raises(ValueError, match=rf"onnx.save: .*{text}"):
        to_model(Small().eval(), image(2, 3, 8, 8), **arguments)


def test_an_example_and_tensors_as_results_are_asked_for() -> None:
    with pytest.raises(TypeError, match="onnx.save: expected an example of every input, got none; pass one tensor"):
        to_model(Small().eval(), [])
    with pytest.raises(
        TypeError, match="onnx.save: expected a model that returns tensors, .*, got int; return tensors only"
    ):
        to_model(lambda x: 3, image(2, 3))


def test_a_missing_package_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "onnx", None)
    with pytest.raises(
        ImportError, match=r"onnx.save: expected the onnx package, .*; run pip install 'striate\[onnx\]'"
    ):
        to_model(Small().eval(), image(2, 3, 8, 8))
