"""The floor plan: who may include whom, how files are named and how long they get."""

from __future__ import annotations

import ast
import re
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PYTHON = ROOT / "python" / "striate"
CPP = ROOT / "cpp"
CODE = sorted(
    path
    for folder, endings in (("cpp", ("cpp", "hpp")), ("python", ("py",)), ("tests", ("py",)), ("bench", ("py",)))
    for ending in endings
    for path in (ROOT / folder).rglob(f"*.{ending}")
)

# Folder of cpp/ → what its files may include by name. Kernels see no standard library but sizes and intrinsics.
PUBLIC = r"striate/\w+\.hpp"
OWN = {
    "include": PUBLIC,
    "machine": r"machine/\w+\.hpp|striate/(error|machine)\.hpp",
    "tensor": r"(tensor|machine)/\w+\.hpp|striate/(error|machine|tensor|window|safetensors)\.hpp",
    "kernels": r"kernels/\w+\.hpp",
    "ops": r"(ops|tensor|machine|kernels)/\w+\.hpp|striate/(error|machine|tensor|window|ops|optim|state)\.hpp",
    "program": rf"(program|ops|tensor|machine)/\w+\.hpp|{PUBLIC}",
    "bindings": rf"bindings/\w+\.hpp|{PUBLIC}",
}
DISPATCH = r"machine/\w+\.hpp|striate/(error|machine)\.hpp"
KERNEL_SYSTEM = {"cstddef", "cstdint", "immintrin.h", "arm_neon.h"}

# Optional packages and the folders that may import them: each file where it needs it, and the packages of AT_IMPORT, which
# are nothing without one, at once.
OPTIONAL = {
    "google": ("io",),  # protobuf, which onnx brings
    "matplotlib": ("apps", "compile"),
    "ml_dtypes": ("io",),  # onnx brings it
    "onnx": ("io",),
    "onnxruntime": ("apps",),
    "openvino": ("apps",),
    "PIL": ("apps", "data"),
    "rich": ("apps",),
    "sklearn": ("interop",),
    "torch": ("interop", "io"),
    "typer": ("apps",),
}


AT_IMPORT = ("apps", "interop", "io/onnx")


def name(path: Path) -> str:
    return str(path.relative_to(ROOT))


def third_party(tree: ast.AST) -> list[tuple[str, int]]:
    """Top-level names of the packages imported, with the line's column."""
    found = []
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            found += [(alias.name.split(".")[0], node.col_offset) for alias in node.names]
        elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
            found.append((node.module.split(".")[0], node.col_offset))
    return [(module, column) for module, column in found if module not in sys.stdlib_module_names]


@pytest.mark.parametrize("folder", sorted(OWN))
def test_includes_of(folder: str) -> None:
    wrong = []
    for path in sorted((CPP / folder).rglob("*.[ch]pp")):
        allowed = OWN[folder] + (f"|{DISPATCH}" if path.name == "dispatch.cpp" else "")
        for kind, included in re.findall(r'^#include ([<"])([^">]+)', path.read_text(), re.MULTILINE):
            if kind == '"' and not re.fullmatch(allowed, included):
                wrong.append(f"{name(path)} includes {included}")
            if folder == "kernels" and kind == "<" and path.name != "dispatch.cpp" and included not in KERNEL_SYSTEM:
                wrong.append(f"{name(path)} includes <{included}>")
    assert not wrong


def test_every_cpp_folder_has_a_rule() -> None:
    assert {path.name for path in CPP.iterdir() if path.is_dir()} <= set(OWN)


def test_one_file_knows_openmp() -> None:
    users = [name(path) for path in CODE if path.suffix in (".cpp", ".hpp") and "#pragma omp" in path.read_text()]
    assert users == ["cpp/machine/threads_openmp.cpp"]


@pytest.mark.parametrize("path", sorted(PYTHON.rglob("*.py")), ids=name)
def test_optional_packages_stay_in_their_files(path: Path) -> None:
    folder = path.relative_to(PYTHON).parts[0]
    wrong = []
    for module, column in third_party(ast.parse(path.read_text())):
        if module in ("numpy", "striate"):
            continue
        is_at_import = column == 0 and not path.relative_to(PYTHON).as_posix().startswith(AT_IMPORT)
        if folder not in OPTIONAL.get(module, ()) or is_at_import:
            wrong.append(module)
    assert not wrong, "import an optional package inside the function that needs it, in the folders of OPTIONAL"


@pytest.mark.parametrize("path", sorted(PYTHON.rglob("*.py")), ids=name)
def test_package_is_imported_by_its_parts(path: Path) -> None:
    # What the contracts of import-linter can't see: `import striate` and names that only the façade has.
    folder = path.relative_to(PYTHON).parts[0]
    if folder in ("apps", "interop", "__init__.py"):
        return
    parts = {part.stem for part in PYTHON.iterdir()} | {"_core"}
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            assert "striate" not in [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom) and node.module == "striate":
            assert {alias.name for alias in node.names} <= parts


@pytest.mark.parametrize("path", sorted((ROOT / "tests" / "oracle").glob("*.py")), ids=name)
def test_oracle_knows_only_numpy(path: Path) -> None:
    if path.name.startswith("test_"):
        pytest.skip("a test of the oracle, which compares it with others")
    assert {module for module, _ in third_party(ast.parse(path.read_text()))} <= {"numpy", "oracle"}


@pytest.mark.parametrize("path", CODE, ids=name)
def test_file_is_at_most_900_lines_long(path: Path) -> None:
    assert len(path.read_text().splitlines()) <= 900, "split it along an idea"


def test_no_file_is_named_after_nothing() -> None:
    nothing = re.compile(r"(^|_)(utils?|helpers?|common|managers?|misc)(_|$)")
    names = {part for path in CODE for part in path.relative_to(ROOT).with_suffix("").parts}
    assert not [part for part in names if nothing.search(part)]


def test_todo_names_an_issue() -> None:
    # Split, so that this file does not find itself.
    loose = [name(path) for path in CODE if re.search("TO" + r"DO(?!\([^)]*#\d+)|FIX" + "ME", path.read_text())]
    assert not loose
