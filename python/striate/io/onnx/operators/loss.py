"""Losses."""

from __future__ import annotations

from typing import Any

from striate import _core, ops
from striate.io.onnx.node import Node, operator
from striate.io.onnx.value import as_tensor


def _options(node: Node) -> dict[str, Any]:
    ignored = node.attributes.get("ignore_index")
    return {"reduction": node.attributes["reduction"], "ignore_index": -(2**31) if ignored is None else ignored}


@operator("NegativeLogLikelihoodLoss")
def nll_loss(node: Node, x: Any, target: Any, weight: Any = None) -> Any:
    """Take the negative of the log-probability of each target."""
    target = ops.to(as_tensor(target), _core.DType.int64)
    return ops.nll_loss(as_tensor(x), target, None if weight is None else as_tensor(weight), **_options(node))


@operator("SoftmaxCrossEntropyLoss")
def softmax_cross_entropy(node: Node, scores: Any, labels: Any, weights: Any = None) -> Any:
    """Cross-entropy of scores, with the log-probabilities if wanted."""
    scores, labels = as_tensor(scores), ops.to(as_tensor(labels), _core.DType.int64)
    loss = ops.cross_entropy(scores, labels, None if weights is None else as_tensor(weights), **_options(node))
    if len(node.outputs) < 2 or not node.outputs[1]:
        return loss
    return loss, ops.log_softmax(scores, 1)
