"""Check that no object of a *.isa.cpp holds a weak symbol when built at -O0.

Usage: python scripts/check_isa_symbols.py BUILD_FOLDER [NAME.isa.cpp ...]

An inline function or template with external linkage, compiled under several instruction sets, is merged by the linker, and the one
that wins may use instructions that the machine does not have. At -O0 nothing is inlined away, so each such function shows as a weak
symbol. The flags are those of BUILD_FOLDER/compile_commands.json.
"""

from __future__ import annotations

import json
import re
import shlex
import subprocess
import sys
import tempfile
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path


def weak_symbols(entry: dict[str, str]) -> list[str]:
    command = shlex.split(entry["command"])
    if "-c" not in command:
        raise SystemExit(f"expected a compile command with -c, got {entry['command']}")
    with tempfile.TemporaryDirectory() as folder:
        target = str(Path(folder) / "kernel.o")
        command[command.index("-o") + 1] = target
        command = [word for word in command if not re.fullmatch(r"-O\S*|-M\S*|\S+\.d|-Werror", word)]
        command = [word for i, word in enumerate(command) if word != "-MF" and (i == 0 or command[i - 1] != "-MF")]
        subprocess.run([*command, "-O0"], check=True, cwd=entry["directory"])
        listing = subprocess.run(["nm", "-C", target], check=True, capture_output=True, text=True).stdout
    return [line for line in listing.splitlines() if re.match(r"^[0-9a-f ]{16,} [uvVwW] ", line)]


def main() -> int:
    build, *names = sys.argv[1:]
    commands = json.loads((Path(build) / "compile_commands.json").read_text())
    entries = [entry for entry in commands if entry["file"].endswith(".isa.cpp")]
    if names:
        entries = [entry for entry in entries if Path(entry["file"]).name in names]
    if not entries:
        raise SystemExit("expected compile commands of *.isa.cpp, got none; configure the build first")
    n_weak = 0
    with ThreadPoolExecutor(2) as pool:
        for entry, weak in zip(entries, pool.map(weak_symbols, entries), strict=True):
            n_weak += len(weak)
            target = re.search(r"STRIATE_TARGET=(\w+)", entry["command"])
            for line in weak:
                print(f"{Path(entry['file']).name} ({target.group(1) if target else '?'}): weak symbol {line.strip()}")
    print(f"{len(entries)} kernel objects at -O0, {n_weak} weak symbols")
    return 1 if n_weak else 0


if __name__ == "__main__":
    sys.exit(main())
