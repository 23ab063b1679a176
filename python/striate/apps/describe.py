"""`striate info FILE`: what a file holds, an ONNX model, a program or weights."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from striate.apps.model_file import ModelFile, Sizes, import_onnx, kind_of
from striate.io import weights
from striate.io.port import Port


@dataclass(frozen=True, slots=True)
class Facts:
    """What a file holds.

    Attributes
    ----------
    facts : tuple of (str, str)
        Names and values, in the order to be read.
    tensors : tuple of (str, str, str)
        Key, shape and dtype of each tensor in a file of weights.
    complaint : str or None
        Why the file cannot be used here, in one line.
    """

    facts: tuple[tuple[str, str], ...]
    tensors: tuple[tuple[str, str, str], ...] = ()
    complaint: str | None = None


def describe(path: Path, sizes: Sizes | None = None, entry: str | None = None) -> Facts:
    """Say what a file holds.

    Parameters
    ----------
    path : path
        An ONNX model, a program file, or weights: safetensors, `.npz`, `.pt`.
    sizes : Sizes, optional
        For which multiply-adds are counted, where the file leaves sizes open.
    entry : str, optional
        For weights of torch, which part of a checkpoint.

    Returns
    -------
    Facts
        For an ONNX model that striate cannot load, too: `complaint` names the operators that it lacks.

    Raises
    ------
    ValueError
        A damaged file, or one of another kind; sizes that do not fit.
    OSError
        A file that cannot be opened.
    ModuleNotFoundError
        The onnx package is missing.
    """
    kind = kind_of(path)
    if kind != "weights" and entry is not None:
        raise ValueError(f"info: expected --entry for a file of torch only, got {path}, which is a model; leave it out")
    sizes = sizes or Sizes()
    if kind == "weights":
        return _of_weights(path, entry)
    return _of_program(path, sizes) if kind == "program" else _of_onnx(path, sizes)


def _of_weights(path: Path, entry: str | None) -> Facts:
    tensors = weights.load(path, entry=entry)
    n_elements = sum(math.prod(t.shape) for t in tensors.values())
    n_bytes = sum(math.prod(t.shape) * int(t.dtype.itemsize) for t in tensors.values())
    facts = (
        ("file", f"weights, {_bytes(path.stat().st_size)}"),
        ("tensors", f"{len(tensors):,} of {n_elements:,} elements, {_bytes(n_bytes)}"),
    )
    rows = tuple((key, "×".join(map(str, t.shape)) or "number", str(t.dtype)) for key, t in tensors.items())
    return Facts(facts, rows)


def _of_program(path: Path, sizes: Sizes) -> Facts:
    file = ModelFile(path)
    program = file.program([])
    graph = program.graph
    constants = [graph.value(i) for i in range(graph.n_values)]
    constants = [value for value in constants if value.kind == "constant"]
    n_weights = sum(math.prod(value.shape) for value in constants)
    n_bytes = sum(math.prod(value.shape) * int(value.dtype.itemsize) for value in constants)
    shapes = file.settle(sizes)
    macs = sum(row.macs for row in program.explain(*file.draw(shapes)).rows)
    return Facts(
        (
            ("file", f"program of striate, {_bytes(path.stat().st_size)}"),
            *_ports("input", file.inputs),
            *_ports("output", file.outputs),
            ("nodes", _counted(Counter(node.op for node in graph.nodes))),
            ("weights", f"{n_weights:,} ({_bytes(n_bytes)})"),
            ("multiply-adds", _macs(macs, shapes)),
        )
    )


def _of_onnx(path: Path, sizes: Sizes) -> Facts:
    onnx = import_onnx()
    found = onnx.describe(path)
    opsets = ", ".join(f"{domain} {version}" for domain, version in found.opsets.items())
    facts: list[tuple[str, str]] = [
        ("file", f"ONNX model, {_bytes(path.stat().st_size)}"),
        ("producer", found.producer or "unknown"),
        ("opset", f"{opsets} (IR version {found.ir_version})"),
        *_ports("input", found.inputs),
        *_ports("output", found.outputs),
        ("nodes", _counted(found.nodes)),
        ("weights", f"{found.n_weights:,} ({_bytes(found.weight_bytes)})"),
    ]
    if found.unsupported:
        facts += [
            ("unsupported", f"{operator}: {len(names):,} node{'s' if len(names) > 1 else ''}: {_listed(names)}")
            for operator, names in found.unsupported.items()
        ]
        complaint = (
            f"{path}: expected operators that striate supports, got {len(found.unsupported)} others: "
            f"{', '.join(found.unsupported)}; "
            "replace them, or compute them outside"
        )
        return Facts(tuple(facts), complaint=complaint)
    file = ModelFile(path)
    assert file.module is not None
    n_parameters = sum(math.prod(p.shape) for p in file.module.parameters())
    facts.append(("parameters", f"{n_parameters:,}"))
    facts.append(("multiply-adds", _counted_macs(file, sizes)))
    groups = {group: ", ".join(names) or "none" for group, names in file.module.operators().items()}
    facts.append(("differentiable", groups["differentiable"]))
    facts.append(("no gradient", f"by nature: {groups['flat']}"))
    facts.append(("no gradient", f"not yet: {groups['none yet']}"))
    return Facts(tuple(facts))


def _counted_macs(file: ModelFile, sizes: Sizes) -> str:
    """Count the multiply-adds where the sizes are known; say what is missing where nobody asked for a size."""
    try:
        shapes = file.settle(sizes)
    except ValueError:
        if sizes != Sizes():
            raise
        return "depend on sizes that the file leaves open; pass --size or --shape"
    try:
        inputs = file.draw(shapes)
        return _macs(sum(row.macs for row in file.program(inputs).explain(*inputs).rows), shapes)
    except ValueError as error:  # of which no program can be made, or that has no result for these sizes
        return f"unknown: {error}"


def _macs(n: int, shapes: Iterable[tuple[int, ...]]) -> str:
    """Return a number of multiply-adds and what it holds for."""
    for factor, unit in ((1e9, "G"), (1e6, "M"), (1e3, "k")):
        if n >= factor:
            text = f"{n / factor:.2f} {unit}"
            break
    else:
        text = str(n)
    return f"{text} for {', '.join('×'.join(map(str, shape)) or 'a number' for shape in shapes)}"


def _ports(what: str, ports: Iterable[Port]) -> Iterable[tuple[str, str]]:
    return [(what, str(port)) for port in ports]


def _counted(counts: Any) -> str:
    most = sorted(counts.items(), key=lambda pair: -pair[1])
    return f"{sum(counts.values()):,}: " + ", ".join(f"{n} {name}" for name, n in most)


def _listed(names: list[str]) -> str:
    return ", ".join(names[:5]) + (f" and {len(names) - 5:,} more" if len(names) > 5 else "")


def _bytes(n: int) -> str:
    for factor, unit in ((2**30, "GiB"), (2**20, "MiB"), (2**10, "KiB")):
        if n >= factor:
            return f"{n / factor:,.1f} {unit}"
    return f"{n} bytes"
