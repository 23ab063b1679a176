"""ONNX's own backend interface.

References
----------
ONNX, "Implementing an ONNX backend", docs/ImplementingAnOnnxBackend.md; `onnx.backend.base`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import ml_dtypes
import numpy as np
from onnx import ModelProto, NodeProto
from onnx.backend.base import Backend, BackendRep, namedtupledict

from striate import _core
from striate.autograd import Tensor, no_grad
from striate.io.onnx.graph import Plan
from striate.io.onnx.mode import Mode
from striate.io.onnx.node import Node
from striate.io.onnx.read import OnnxModule, load
from striate.io.onnx.value import OnnxError, as_array, as_tensor, is_tensor_kind, widen

__all__ = ["StriateBackend", "StriateRep", "is_compatible", "prepare", "run_model", "run_node", "supports_device"]


class StriateRep(BackendRep):
    """A model that is ready to run.

    Attributes
    ----------
    module : OnnxModule
    """

    def __init__(self, module: OnnxModule) -> None:
        self.module = module

    def run(self, inputs: Any, **kwargs: Any) -> Any:
        """Run on arrays.

        Parameters
        ----------
        inputs : sequence, dict by name, or one array

        Returns
        -------
        named tuple of ndarray
            One for each output, under its name.
        """
        if isinstance(inputs, Mapping):
            given = [inputs.get(name) for name in self.module.inputs]
        elif isinstance(inputs, Sequence) and not isinstance(inputs, str):
            given = list(inputs)
        else:
            given = [inputs]
        with no_grad():
            results = self.module(*given)
        values = [results] if len(self.module.outputs) == 1 else list(results)
        return namedtupledict("Outputs", list(self.module.outputs))(*[to_numpy(v) for v in values])


def to_numpy(value: Any) -> Any:
    """Return a result as ONNX's users know it: an ndarray, or a list of these."""
    if isinstance(value, list):
        return [to_numpy(v) for v in value]
    if not isinstance(value, Tensor):
        return value
    if value.dtype == _core.DType.bfloat16:
        return value.to(_core.DType.float32).numpy().astype(ml_dtypes.bfloat16)
    return value.detach().numpy()


class StriateBackend(Backend):
    """striate as a backend of the onnx package; its methods are functions of this module, too."""

    @classmethod
    def is_compatible(cls, model: ModelProto, device: str = "CPU", **kwargs: Any) -> bool:
        """Say whether `prepare` takes this model."""
        if not cls.supports_device(device):
            return False
        try:
            load(model)
        except OnnxError:
            return False
        return True

    @classmethod
    def prepare(cls, model: ModelProto, device: str = "CPU", **kwargs: Any) -> StriateRep:
        """Read a model; raises OnnxError where it can't run, and ValueError for a device other than the CPU."""
        if not cls.supports_device(device):
            raise ValueError(f"backend: expected device 'CPU', got {device!r}; striate runs on CPUs")
        return StriateRep(load(model))

    @classmethod
    def run_model(cls, model: ModelProto, inputs: Any, device: str = "CPU", **kwargs: Any) -> Any:
        """Read a model and run it once."""
        return cls.prepare(model, device, **kwargs).run(inputs)

    @classmethod
    def run_node(
        cls, node: NodeProto, inputs: Any, device: str = "CPU", outputs_info: Any = None, **kwargs: Any
    ) -> Any:
        """Run one operator on arrays, of the newest opset unless `opset_version` says another."""
        from onnx import defs

        opset = int(kwargs.get("opset_version", defs.onnx_opset_version()))
        given = list(inputs.values()) if isinstance(inputs, Mapping) else list(inputs)
        values = iter([_accepted(value) for value in given])
        mode = Mode(trains_batch_norm=False)
        ready = Node(node, {node.domain: opset}, mode, lambda g: Plan(g, {"": opset}, mode))
        if not ready.is_supported:
            raise OnnxError(
                f"{ready.label}: expected an operator that striate supports, got another of domain {ready.domain!r}; "
                "compute it outside"
            )
        with no_grad():
            results = ready([next(values) if name else None for name in node.input])
        names = [name for name in node.output if name]
        kept = [as_array(r) for name, r in zip(node.output, results, strict=False) if name]
        return namedtupledict("Outputs", names)(*kept)

    @classmethod
    def supports_device(cls, device: str) -> bool:
        """Say whether a device is the CPU."""
        return device.split(":")[0].upper() == "CPU"


def _accepted(value: Any) -> Any:
    array = widen(np.asarray(value)) if not isinstance(value, Tensor | list) else value
    return as_tensor(array) if isinstance(array, np.ndarray) and is_tensor_kind(array) else array


is_compatible = StriateBackend.is_compatible
prepare = StriateBackend.prepare
run_model = StriateBackend.run_model
run_node = StriateBackend.run_node
supports_device = StriateBackend.supports_device
