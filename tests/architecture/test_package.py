"""What a user installs: metadata, data files, what an import costs, and that CI runs what the README promises."""

from __future__ import annotations

import importlib.metadata
import os
import re
import subprocess
import sys
import tomllib
from importlib.resources import files
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
OPTIONAL = ("PIL", "matplotlib", "onnx", "rich", "safetensors", "scipy", "sklearn", "torch", "typer")


def readme_commands() -> list[str]:
    blocks = re.findall(r"```sh\n(.*?)```", (ROOT / "README.md").read_text(), re.DOTALL)
    return [line for block in blocks for line in block.splitlines()]


def test_import_takes_no_optional_package() -> None:
    code = f"import sys, striate; print([name for name in {OPTIONAL} if name in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, env=os.environ)
    assert done.stdout.strip() == "[]"
    assert done.stderr == ""


def test_package_holds_its_data_files() -> None:
    package = files("striate")
    for path in (
        "py.typed",
        "_core.pyi",
        "data/embedded/fashion_mnist_slice.npz",
        "data/embedded/LICENSE-fashion-mnist.txt",
    ):
        assert package.joinpath(path).is_file(), path


def test_metadata_agrees_with_the_package() -> None:
    import striate

    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    assert striate.__version__ == project["version"]
    assert project["dependencies"] == ["numpy>=1.26"]
    minors = [int(match.group(1)) for line in project["classifiers"] if (match := re.search(r":: 3\.(\d+)$", line))]
    assert minors == list(range(11, 16))
    assert set(project["optional-dependencies"]) >= {"app", "onnx", "test", "bench", "dev"}


def test_metadata_of_an_installed_package() -> None:
    try:
        metadata = importlib.metadata.metadata("striate")
    except importlib.metadata.PackageNotFoundError:
        pytest.skip("striate runs from a source tree here")
    requires = [line for line in importlib.metadata.requires("striate") or [] if "extra ==" not in line]
    assert requires == ["numpy>=1.26"]
    assert "Typing :: Typed" in metadata.get_all("Classifier", [])
    assert metadata["License-Expression"] == "BSD-3-Clause"


def test_ci_runs_the_commands_of_the_readme() -> None:
    commands = readme_commands()
    assert commands[:2] == ["pip install '.[app]' && striate train", "pip install '.[test]' && pytest"]
    script = (ROOT / ".ci" / "run").read_text()
    for part in ("install '.[app]'", "striate train", "pip install '.[test]' && pytest"):
        assert part in script
    assert re.search(r"stages=\(.* test\)$", script, re.MULTILINE), "the README's test command comes last"


def test_tools_are_pinned() -> None:
    extras = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["optional-dependencies"]
    for tool in ("clang-format", "clang-tidy", "import-linter", "mypy", "pybind11-stubgen", "ruff"):
        assert any(re.fullmatch(rf"{tool}==[\d.]+", line) for line in extras["dev"]), tool
