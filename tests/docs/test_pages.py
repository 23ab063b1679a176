"""Every code block of README, CONTRIBUTING and docs runs, every link leads somewhere, every docstring example is right."""

from __future__ import annotations

import doctest
import importlib
import pkgutil
import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

import striate

ROOT = Path(__file__).parents[2]
PAGES = sorted([ROOT / "README.md", ROOT / "CONTRIBUTING.md", *(ROOT / "docs").rglob("*.md")])
BLOCK = re.compile(r"^```(\w*)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
# Commands of a developer's shell; .ci/run runs the like of them, and test_package.py checks those of the README.
SHELL = ("pip ", "pytest", "git ", "cmake ", "bash .ci/run", "pre-commit ", "python scripts/", "python bench/")


def page_name(path: Path) -> str:
    return str(path.relative_to(ROOT))


def blocks(path: Path, language: str) -> list[str]:
    return [body for kind, body in BLOCK.findall(path.read_text()) if kind == language]


def script_of(path: Path) -> str:
    """The page's Python, each line where it stands on the page, so that a traceback points into the page."""
    lines = path.read_text().splitlines()
    is_code = False
    for i, line in enumerate(lines):
        if line.startswith("```"):
            is_code = line == "```python" and not is_code
            lines[i] = ""
        elif not is_code:
            lines[i] = ""
    return "\n".join(lines) + "\n"


def commands_of(path: Path) -> str:
    """The page's commands to `striate`; others are commands of a developer, which must be known."""
    found = []
    for line in "".join(blocks(path, "sh")).splitlines():
        if line.startswith("striate "):
            found.append(line.replace("striate ", f"{shlex.quote(sys.executable)} -m striate.apps.cli ", 1))
        else:
            assert line.startswith(SHELL), f"{page_name(path)}: a command that nothing checks: {line}"
    return "\n".join(found)


@pytest.mark.parametrize("path", [p for p in PAGES if blocks(p, "python") or blocks(p, "sh")], ids=page_name)
def test_code_of_a_page_runs(path: Path, tmp_path: Path) -> None:
    # A process of its own, since a page may register an op. First its Python, then its commands, in one folder.
    script = tmp_path / path.with_suffix(".py").name
    script.write_text(script_of(path))
    for command in (
        [sys.executable, "-W", "error", str(script)],
        ["bash", "-euo", "pipefail", "-c", commands_of(path)],
    ):
        done = subprocess.run(
            command, cwd=tmp_path, stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False
        )
        assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.parametrize("path", PAGES, ids=page_name)
def test_blocks_have_a_language(path: Path) -> None:
    assert {kind for kind, _ in BLOCK.findall(path.read_text())} <= {"python", "sh", "text", "cpp"}


@pytest.mark.parametrize("path", PAGES, ids=page_name)
def test_links_lead_somewhere(path: Path) -> None:
    targets = re.findall(r"\]\(([^)#]+)", path.read_text())
    assert not [target for target in targets if "://" not in target and not (path.parent / target).exists()]


def module_names() -> list[str]:
    return [found.name for found in pkgutil.walk_packages(striate.__path__, "striate.")]


@pytest.mark.parametrize("name", module_names())
def test_docstring_examples(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    options = doctest.ELLIPSIS | doctest.NORMALIZE_WHITESPACE
    assert doctest.testmod(importlib.import_module(name), optionflags=options).failed == 0


def test_every_public_name_says_what_it_is() -> None:
    silent = []
    for name in module_names():
        module = importlib.import_module(name)
        for public in getattr(module, "__all__", ()):
            value = getattr(module, public)
            if (callable(value) or isinstance(value, type)) and not (value.__doc__ or "").strip():
                silent.append(f"{name}.{public}")
    assert not silent


def test_reference_is_written(tmp_path: Path) -> None:
    subprocess.run([sys.executable, str(ROOT / "scripts" / "make_reference.py"), str(tmp_path)], check=True)
    for page in ("ops.md", "nn.md", "train.md", "data.md"):
        assert (tmp_path / page).stat().st_size > 2000
    assert "## conv2d" in (tmp_path / "ops.md").read_text()
