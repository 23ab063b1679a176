"""Break each gate in a scratch copy of the working tree and expect it to go red, for the reason given.

Usage: python .ci/prove_gates.py [NAME ...]

Needs the tools of the extra `dev` and an installed striate (for the stub).
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parents[1]


@dataclass(frozen=True, slots=True)
class Gate:
    """A check, the file that is changed, what is added to its end, and what the check says then."""

    check: str
    file: str
    addition: str
    complaint: str


GATES = {
    "nm": Gate(
        "python scripts/check_isa_symbols.py build/ci copy.isa.cpp",
        "cpp/kernels/copy.isa.cpp",
        "template <class T> T twice(T x) { return x + x; }\ntemplate int twice<int>(int);\n",
        "weak symbol",
    ),
    "stubs": Gate("python scripts/make_stubs.py --check", "python/striate/_core.pyi", "GONE: int\n", "stale"),
    "imports": Gate("lint-imports", "python/striate/ops/create.py", "from striate import io\n", "BROKEN"),
    "includes": Gate(
        "pytest -q tests/architecture/test_floor_plan.py",
        "cpp/kernels/copy.isa.cpp",
        "#include <vector>\n",
        "includes <vector>",
    ),
    "mypy": Gate("mypy", "python/striate/ops/create.py", '\n_wrong: int = "text"\n', "Incompatible types"),
    "ruff": Gate("ruff check .", "python/striate/ops/create.py", "\nprint()\n", "T201"),
    "ruff format": Gate(
        "ruff format --check .", "python/striate/ops/create.py", "\n_x = {  }\n", "would be reformatted"
    ),
    "clang-format": Gate(
        "clang-format --dry-run -Werror cpp/ops/loop.cpp", "cpp/ops/loop.cpp", "int  x ;\n", "clang-format-violations"
    ),
    "clang-tidy": Gate(
        "clang-tidy -p build/ci --quiet cpp/tensor/window.cpp",
        "cpp/tensor/window.cpp",
        "int* nothing() { return 0; }\n",
        "modernize-use-nullptr",
    ),
    "length": Gate(
        "pytest -q tests/architecture/test_floor_plan.py", "tests/conftest.py", "#\n" * 900, "at_most_900_lines"
    ),
    "law_replay": Gate(
        f"python tests/write_cases.py cases conv2d-3x3 && {ROOT}/build/ci/law_replay cases",
        "tests/oracle/conv.py",
        "_right = conv\n\n\ndef conv(*a, **k):\n    return 1.001 * _right(*a, **k)\n",
        "of its bound",
    ),
}


def main() -> int:
    names = sys.argv[1:] or list(GATES)
    n_green = 0
    with tempfile.TemporaryDirectory() as folder:
        copy = Path(folder)
        listed = subprocess.run(
            ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"],
            check=True,
            capture_output=True,
            text=True,
            cwd=ROOT,
        )
        for path in filter(None, listed.stdout.split("\0")):
            if (ROOT / path).is_file():
                (copy / path).parent.mkdir(parents=True, exist_ok=True)
                shutil.copy(ROOT / path, copy / path)
        environment = {**os.environ, "PYTHONPATH": str(copy / "python")}
        subprocess.run(["cmake", "--preset", "ci"], check=True, cwd=copy, stdout=subprocess.DEVNULL)
        for module in (ROOT / "python" / "striate").glob("_core*.so"):
            shutil.copy(module, copy / "python" / "striate")
        for name in names:
            gate = GATES[name]
            whole = (copy / gate.file).read_text()
            (copy / gate.file).write_text(whole + gate.addition)
            done = subprocess.run(
                ["bash", "-c", gate.check], cwd=copy, env=environment, capture_output=True, text=True, check=False
            )
            (copy / gate.file).write_text(whole)
            said = done.stdout + done.stderr
            is_red = done.returncode != 0 and gate.complaint in said
            n_green += not is_red
            print(f"{name:14s} {'red when broken' if is_red else 'NOT RED'}", flush=True)
            if not is_red:
                print(said[-2000:])
    return 1 if n_green else 0


if __name__ == "__main__":
    sys.exit(main())
