"""Whole networks: those in the onnx package, with its outputs, and with random weights against ONNX Runtime."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import pytest

onnx = pytest.importorskip("onnx")
sys.path.insert(0, str(Path(__file__).parent))
import light  # noqa: E402

import striate  # noqa: E402
import striate.onnx  # noqa: E402

#: Of the largest score. Rounding in 20 to 120 layers of 10² to 10⁴ products each; Winograd's bound is part of it.
TOLERANCE = 2e-4


@pytest.mark.slow
@pytest.mark.parametrize("name", light.NAMES)
def test_light_network(name: str) -> None:
    path = light.path(name)
    model = striate.onnx.load(path)
    stored = onnx.TensorProto.FromString(path.with_name(f"light_{name}_output_0.pb").read_bytes())
    wanted = onnx.numpy_helper.to_array(stored)
    from onnx.backend.test.runner import Runner

    given = {value.name: value for value in onnx.load(path).graph.input}[model.inputs[0]]
    x = Runner.generate_dummy_data(given, seed=0, name=name, random=False)
    got = striate.compile(model, x)(x).numpy()
    assert got.shape == wanted.shape
    np.testing.assert_allclose(got, wanted, rtol=1e-3, atol=1e-7)


@pytest.mark.needs_peers
@pytest.mark.parametrize("name", light.NAMES)
def test_light_network_with_random_weights(name: str) -> None:
    onnxruntime = pytest.importorskip("onnxruntime")
    model = light.drawn(name)
    x = light.example(model)
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    session = onnxruntime.InferenceSession(model.SerializeToString(), options)
    (wanted,) = session.run(None, {session.get_inputs()[0].name: x})
    module = striate.onnx.load(model)
    with striate.no_grad():
        eager = module(x).numpy()
    compiled = striate.compile(module, x)(x).numpy()
    scale = np.abs(wanted).max()
    assert np.abs(eager - wanted).max() <= TOLERANCE * scale
    assert np.abs(compiled - wanted).max() <= TOLERANCE * scale
    assert np.ptp(wanted) > 0.01 * scale  # not vacuous
