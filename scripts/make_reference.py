"""Write the reference, a Markdown page for each package, from docstrings, signatures and the registry of ops.

Usage: python scripts/make_reference.py [FOLDER, default build/reference]
"""

from __future__ import annotations

import importlib
import inspect
import sys
from pathlib import Path
from typing import Any

import striate

PACKAGES = (
    *("ops", "nn", "train", "data", "models", "autograd", "machine", "memory"),
    *("onnx", "io.weights", "io.torch_weights", "io.safetensors", "io.npz", "io.errors"),
)


def signature(value: Any) -> str:
    try:
        return str(inspect.signature(value)).replace("'", "")
    except (TypeError, ValueError):
        return ""


def entry(name: str, value: Any) -> list[str]:
    lines = [f"## {name}", ""]
    if inspect.ismodule(value):
        return [*lines, inspect.getdoc(value) or "", ""]
    if callable(value):
        lines += ["```text", f"{name}{signature(value)}", "```", ""]
    lines += ["```text", inspect.getdoc(value) or "", "```", ""]
    row = striate.autograd.registry.get(name)
    if row is not None:
        lines += [f"Gradient: {'a row of its own' if row.vjp else 'none, its result is not differentiable'}.", ""]
    return lines


def main() -> None:
    folder = Path(sys.argv[1] if len(sys.argv) > 1 else "build/reference")
    folder.mkdir(parents=True, exist_ok=True)
    index = ["# Reference", ""]
    for package in PACKAGES:
        module = importlib.import_module(f"striate.{package}")
        names = getattr(module, "__all__", None) or [
            name
            for name, value in vars(module).items()
            if not name.startswith("_") and getattr(value, "__module__", None) == module.__name__
        ]
        lines = [f"# striate.{package}", "", inspect.getdoc(module) or "", ""]
        for name in sorted(names):
            lines += entry(name, getattr(module, name))
        (folder / f"{package}.md").write_text("\n".join(lines))
        index.append(f"* [striate.{package}]({package}.md): {(inspect.getdoc(module) or '').splitlines()[0]}")
    (folder / "README.md").write_text("\n".join(index) + "\n")


if __name__ == "__main__":
    main()
