"""Weights from anywhere into any module: files recognised by their content, poured in with a report.

References
----------
PyTorch, `torch.nn.Module.load_state_dict`, whose keys these are.
"""

from __future__ import annotations

import os
import re
from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import Any

import numpy as np

from striate import _core, nn, ops
from striate.autograd import Tensor, no_grad
from striate.io import npz, safetensors, torch_weights
from striate.io.archive import MAGIC, Archive
from striate.io.arrays import mapped
from striate.io.errors import FileError, Source, quoted
from striate.io.report import LoadReport, Misfit, WeightsError, similar_keys

__all__ = ["TABLES", "FileError", "LoadReport", "Misfit", "WeightsError", "load", "load_into", "save"]

Path = str | os.PathLike[str]
KeyMapping = Mapping[str, str] | Sequence[tuple[str, str]]

#: Name → (pattern, replacement) pairs for files whose keys differ from those of the same network here. Networks of torchvision
#: need none, but for the DenseNet files that it downloads: made when names had dots, they are renamed by torchvision, too.
TABLES: Mapping[str, tuple[tuple[str, str], ...]] = MappingProxyType(
    {"densenet-dotted": ((r"^(.*denselayer\d+\.(?:norm|relu|conv))\.([12]\.)", r"\1\2"),)}
)

# What wraps a whole model and stands before each of its keys: DataParallel, torch.compile.
_WRAPPERS = ("module.", "_orig_mod.")
_COUNTER = "num_batches_tracked"


def load(path: Path, *, entry: str | None = None) -> dict[str, Tensor]:
    """Read the tensors of a safetensors, `.npz`, `.pt` or `.pth` file, whatever its name.

    Parameters
    ----------
    path : str or path
    entry : str, optional
        For files of torch, which part of a checkpoint is wanted; see `striate.io.torch_weights.load_state_dict`.

    Returns
    -------
    dict of str to Tensor
        Each in memory of its own.

    Raises
    ------
    FileError
        A file of another kind, and what `striate.io.safetensors.load`, `striate.io.npz.load` and
        `striate.io.torch_weights.load_state_dict` refuse.
    ValueError
        `entry` for a file that is not torch's.
    OSError
        A file that cannot be opened.

    Notes
    -----
    Nothing in a file is run. Do not write to the file while it is read.
    """
    kind = _kind(path)
    if kind == "torch":
        return torch_weights.load_state_dict(path, entry)
    if entry is not None:
        raise ValueError(
            f"weights: expected no entry for a file that is one set of tensors, got {quoted(entry)}; leave it out"
        )
    return npz.load(path) if kind == "npz" else safetensors.load(path)


def _kind(path: Path) -> str:
    source = Source("weights", os.fspath(path))
    data = mapped(source)
    start = bytes(data[:16])
    if start[:4] in MAGIC:
        names = Archive(source, data).members
        if any(name.endswith("/data.pkl") for name in names):
            return "torch"
        if all(name.endswith(".npy") for name in names):
            return "npz"
        found = ", ".join(quoted(name, 40) for name in list(names)[:5])
        source.refuse("an archive of torch.save or numpy.savez", f"one that holds {found}", "choose a file of weights")
    if start[:1] == b"\x80" or bytes(data[257:262]) == b"ustar":
        return "torch"
    if start[8:9] == b"{":
        return "safetensors"
    return source.refuse(
        "safetensors, an .npz archive or a file of torch.save", f"a file that starts with {start!r}", "convert it first"
    )


def save(tensors: Mapping[str, Tensor], path: Path) -> None:
    """Write tensors to a `.safetensors` or `.npz` file; it appears whole or not at all.

    Parameters
    ----------
    tensors : mapping of str to Tensor
        A `state_dict`, say.
    path : str or path
        Its ending chooses the format. A file already there is replaced.

    Raises
    ------
    ValueError
        Another ending, or a key that the format cannot hold.
    DTypeError
        A bfloat16 tensor for `.npz`.
    OSError
        A folder that is missing or cannot be written, a full disk.
    """
    ending = os.path.splitext(os.fspath(path))[1]
    if ending == ".safetensors":
        safetensors.save(tensors, path)
    elif ending == ".npz":
        npz.save(tensors, path)
    else:
        raise ValueError(
            f"weights: expected a name that ends with .safetensors or .npz, got {quoted(ending)}; choose one of the two"
        )


def load_into(
    model: nn.Module,
    weights: Mapping[str, Tensor] | Path,
    *,
    mapping: KeyMapping | None = None,
    prefix: str = "",
    strict: bool = True,
    entry: str | None = None,
) -> LoadReport:
    """Pour weights into a model; nothing changes unless everything fits.

    Keys of the weights are taken in these steps: those outside `prefix` are skipped, `module.` (DataParallel) and `_orig_mod.`
    (torch.compile) are stripped where every key has them, `mapping` renames the rest.

    Parameters
    ----------
    model : Module
    weights : mapping of str to Tensor, or path
        A `state_dict`, or any file that `load` reads.
    mapping : mapping of str to str, or sequence of (str, str), optional
        Key of the weights → key of the model, for some or all keys; or pairs of a regular expression and its replacement, applied
        one after another wherever they match. `TABLES` has some.
    prefix : str, default ""
        Keys are taken only if they start with it, and without it: `"backbone."`.
    strict : bool, default True
        Whether missing and unexpected keys are errors; another shape or another kind of number always is.
    entry : str, optional
        For files of torch, as in `load`.

    Returns
    -------
    LoadReport
        What was matched, missing, unexpected, renamed and converted, and where numbers are not finite. Its `str` is a table.

    Raises
    ------
    WeightsError
        Weights that do not fit, or of which nothing fits; its `report` says what would have gone where.
    FileError
        As `load`.
    ValueError
        A `mapping` that names keys which the weights lack, that gives two of them one name, or that is no regular expression;
        `entry` for anything but a file of torch.
    TypeError
        Weights that are not Tensors.
    OSError
        A file that cannot be opened.

    Notes
    -----
    Another floating-point or integer dtype is converted to the model's. Counters `num_batches_tracked` may be missing or
    unexpected, as in files of torch before 0.4.1; missing ones keep their value. NaN and infinity are loaded, and reported.

    Examples
    --------
    >>> import striate
    >>> from striate import nn
    >>> from striate.io import weights
    >>> model = nn.Linear(2, 1)
    >>> given = {"module.weight": striate.zeros(1, 2), "module.bias": striate.zeros(1, dtype=striate.float64)}
    >>> print(weights.load_into(model, given))
    a mapping into Linear
    matched          2
    converted        1
        bias: float64 to float32
    renamed          2
        module.weight to weight
        module.bias to bias
    note: every key starts with 'module.', which was left out
    """
    if isinstance(weights, Mapping):
        if entry is not None:
            raise ValueError(
                f"load_into: expected entry for a file only, got {quoted(entry)} with a mapping; index the mapping instead"
            )
        given, source = dict(weights), "a mapping"
        for key, value in given.items():
            if not isinstance(key, str) or not isinstance(value, Tensor):
                raise TypeError(
                    f"load_into: expected texts as keys and Tensors as values, got {type(value).__name__} "
                    f"for {quoted(key)}; make one with striate.tensor(...)"
                )
    else:
        given, source = load(weights, entry=entry), os.fspath(weights)
    own = model.state_dict()
    names, notes = _names(given, own, prefix, mapping)
    state = {name: given[key] for key, name in names.items()}
    report, values = _compared(
        own, state, type(model).__name__, source, names, tuple(k for k in given if k not in names), notes
    )
    if not report.matched and own and not report.is_complete:
        _refuse(report, "keys and shapes", "pass prefix=... or mapping=..., or load the weights of this architecture")
    if report.mis_shaped or report.mis_typed:
        _refuse(report, "shapes and dtypes", "load the weights of the same architecture")
    if strict and not report.is_complete:
        _refuse(report, "keys", "rename them with mapping=..., or pass strict=False to skip them")
    with no_grad():
        for key, value in values.items():
            ops.assign(own[key], value)
    return report


def _refuse(report: LoadReport, what: str, advice: str) -> None:
    counts = {
        "missing": report.missing,
        "unexpected": report.unexpected,
        "mis-shaped": report.mis_shaped,
        "mis-typed": report.mis_typed,
    }
    got = ", ".join(f"{len(keys)} {name}" for name, keys in counts.items() if keys)
    raise WeightsError(
        f"load_into: expected the {what} of {report.model}, got {got} and {len(report.matched)} matched; {advice}\n{report}",
        report,
    )


def _names(
    given: Mapping[str, Tensor], own: Mapping[str, Tensor], prefix: str, mapping: KeyMapping | None
) -> tuple[dict[str, str], list[str]]:
    """Return key of the weights → key of the model, and notes."""
    names = {key: key.removeprefix(prefix) for key in given if key.startswith(prefix)}
    notes = []
    for wrapper in _WRAPPERS:
        is_wrapped = bool(names) and all(name.startswith(wrapper) for name in names.values())
        if is_wrapped and not any(key.startswith(wrapper) for key in own):
            names = {key: name.removeprefix(wrapper) for key, name in names.items()}
            notes.append(f"every key starts with {wrapper!r}, which was left out")
    if mapping:
        names = _mapped(names, mapping)
    twice = _twice(names)
    if twice is not None:
        raise ValueError(
            f"load_into: expected a mapping that gives each key a name of its own, got {quoted(twice)} for two; "
            "change the mapping"
        )
    return names, notes


def _mapped(names: dict[str, str], mapping: KeyMapping) -> dict[str, str]:
    if isinstance(mapping, Mapping):
        unknown = [key for key in mapping if key not in names.values()]
        if unknown:
            raise ValueError(
                f"load_into: expected keys of the weights in mapping, got {quoted(unknown[0])}; "
                "give keys without the prefix, as striate.io.weights.load shows them"
            )
        return {key: mapping.get(name, name) for key, name in names.items()}
    for pattern, replacement in mapping:
        try:
            compiled = re.compile(pattern)
            names = {key: compiled.sub(replacement, name) for key, name in names.items()}
        except (re.error, IndexError) as error:
            raise ValueError(
                f"load_into: expected a regular expression and its replacement in mapping, got {pattern!r} and "
                f"{replacement!r} ({error}); see Python's re"
            ) from error
    return names


def _twice(names: Mapping[str, str]) -> str | None:
    seen: set[str] = set()
    for name in names.values():
        if name in seen:
            return name
        seen.add(name)
    return None


def _compared(
    own: Mapping[str, Tensor],
    state: Mapping[str, Tensor],
    model: str,
    source: str,
    names: Mapping[str, str],
    skipped: tuple[str, ...],
    notes: list[str],
) -> tuple[LoadReport, dict[str, Tensor]]:
    """Return the report, and the values to assign, in the dtypes of the model."""
    values: dict[str, Tensor] = {}
    mis_shaped, mis_typed, converted, non_finite = [], [], [], []
    for key, wanted in own.items():
        if key not in state:
            continue
        value = state[key].detach()
        if tuple(value.shape) != tuple(wanted.shape):
            mis_shaped.append(Misfit(key, str(tuple(value.shape)), str(tuple(wanted.shape))))
            continue
        if value.dtype != wanted.dtype:
            misfit = Misfit(key, str(value.dtype), str(wanted.dtype))
            if _number_kind(value) != _number_kind(wanted):
                mis_typed.append(misfit)
                continue
            converted.append(misfit)
            with no_grad():
                value = value.to(wanted.dtype)
        values[key] = value
        n_non_finite = _count_non_finite(value)
        if n_non_finite:
            non_finite.append((key, n_non_finite))
    missing = [key for key in own if key not in state]
    unexpected = [key for key in state if key not in own]
    counters = sum(_is_counter(key) for key in missing)
    if counters:
        notes.append(f"{counters} counters num_batches_tracked are not in the weights, and keep their value")
        missing = [key for key in missing if not _is_counter(key)]
    counters = sum(_is_counter(key) for key in unexpected)
    if counters:
        notes.append(f"{counters} counters num_batches_tracked are not in the model, and are left out")
        unexpected = [key for key in unexpected if not _is_counter(key)]
    notes += _hints(missing, unexpected, own)
    shapes_missing = [(key, tuple(own[key].shape)) for key in missing]
    report = LoadReport(
        model,
        source,
        matched=tuple(values),
        missing=tuple(missing),
        unexpected=tuple(unexpected),
        mis_shaped=tuple(mis_shaped),
        mis_typed=tuple(mis_typed),
        converted=tuple(converted),
        non_finite=tuple(non_finite),
        renamed=tuple((key, name) for key, name in names.items() if key != name),
        skipped=skipped,
        suggestions=similar_keys(shapes_missing, [(key, tuple(state[key].shape)) for key in unexpected]),
        notes=tuple(notes),
    )
    return report, values


def _is_counter(key: str) -> bool:
    return key.rpartition(".")[2] == _COUNTER


def _hints(missing: Sequence[str], unexpected: Sequence[str], own: Mapping[str, Any]) -> list[str]:
    """Return which table or prefix would make the unexpected keys those that are missing."""
    if not missing or not unexpected:
        return []
    wanted = set(missing)
    hints = []
    for title, table in TABLES.items():
        renamed = set(_mapped({key: key for key in unexpected}, table).values())
        if len(renamed & wanted) * 2 > len(wanted):
            hints.append(f"most missing keys are there under older names; pass mapping=weights.TABLES[{title!r}]")
    for depth in (1, 2):
        start = ".".join(unexpected[0].split(".")[:depth]) + "."
        found = {key.removeprefix(start) for key in unexpected if key.startswith(start)}
        if len(found & wanted) * 2 > len(wanted):
            hints.append(f"most missing keys are there behind {quoted(start)}; pass prefix={quoted(start)}")
    return hints


def _number_kind(x: Tensor) -> str:
    if x.dtype.is_floating_point:
        return "float"
    return "bool" if x.dtype == _core.DType.bool else "integer"


def _count_non_finite(x: Tensor) -> int:
    if not x.dtype.is_floating_point:
        return 0
    with no_grad():
        is_finite = ops.isfinite(x.to(_core.DType.float32) if x.dtype.itemsize == 2 else x).numpy()
    return is_finite.size - int(np.count_nonzero(is_finite))
