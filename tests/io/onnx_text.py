"""Small models written down in ONNX's own notation, and what the onnx package makes of them."""

from __future__ import annotations

from typing import Any

import numpy as np
from onnx import numpy_helper, parser
from onnx.reference import ReferenceEvaluator


def build(text: str, weights: dict[str, Any] | None = None, opset: int = 17) -> Any:
    """Make a model of a graph in ONNX's own notation, and its weights."""
    model = parser.parse_model(f'<ir_version: 8, opset_import: ["" : {opset}]> {text}')
    model.graph.initializer.extend(numpy_helper.from_array(np.asarray(v), k) for k, v in (weights or {}).items())
    return model


def reference(model: Any, *inputs: Any) -> list[Any]:
    names = [v.name for v in model.graph.input]
    return ReferenceEvaluator(model).run(None, dict(zip(names, inputs, strict=True)))
