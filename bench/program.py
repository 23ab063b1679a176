"""What a program costs beside its calls: memory, cold start, planning, what a second thread brings, and what eager operators cost.

    python bench/program.py
    python bench/program.py --figures memory cold_start --saved
    python bench/program.py --figures speed_up --json program.json
    python bench/program.py --figures eager

Each figure is taken in fresh processes, with a bar beside it. Resident sets are the largest that the system saw, of the whole
process with Python and NumPy. A cold start is from process start to the first answer, above a process that imports NumPy; planning is
what a first call takes beyond later ones. Those figures count the building and recording of the network too, unless `--saved` has
them begin from a saved program. The overhead of an eager operator is what it takes beyond its node in a long program, on one
thread: half of that of conv2d (8 channels, 3×3, padding 1) and relu.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

BATCH_OF_STEP, BATCH_OF_SPEED_UP = 64, 16
SPED_UP = ("resnet50", "unet", "vgg16")
SIZES = {"resnet50": 224, "resnet18": 224, "vgg16": 224, "unet": 256}
#: Pairs of conv2d and relu in one program.
PAIRS = 64
#: Another size to plan for.
OTHER_SIZE = 256
#: Installed packages have .pyc files; a checkout gets them from the first run, unless the environment forbids it.
ENVIRONMENT = {name: value for name, value in os.environ.items() if name != "PYTHONDONTWRITEBYTECODE"}
IMPORT_NUMPY = "import numpy; print('{}', flush=True); input()"


def network(name: str) -> Any:
    """Build a network of striate.models in eval mode; imported here, so that a process that loads a program does without."""
    from striate import models

    return getattr(models, name)().eval()


def image(size: int, batch: int = 1) -> Any:
    from striate import ops

    x = np.random.default_rng(0).standard_normal((batch, size, size, 3), np.float32)
    return ops.clone(ops.tensor(x).permute(0, 3, 1, 2))


def program_of(name: str, saved: str | None) -> Any:
    """Return the program of a network, loaded where there is a file."""
    import striate

    if saved:
        return striate.load_program(saved)
    return striate.compile(network(name), image(SIZES[name]))


def peak_bytes() -> int:
    """Return the largest resident set of this process."""
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith("VmHWM:"):
            return int(line.split()[1]) * 1024
    raise SystemExit("program: expected VmHWM in /proc/self/status, got none; memory is measured on Linux only")


def timed(call: Callable[[], Any]) -> float:
    begin = time.perf_counter()
    call()
    return time.perf_counter() - begin


def save(name: str, file: str) -> dict[str, Any]:
    program = program_of(name, None)
    if not hasattr(program, "save"):
        raise SystemExit("program: expected programs that can be saved, got a build without; leave --saved out")
    program.save(file)
    return {}


def infer(name: str, saved: str | None) -> dict[str, Any]:
    """Memory of a network at batch 1."""
    program, x = program_of(name, saved), image(SIZES[name])
    for _ in range(3):
        program(x)
    return program.memory() | {"peak_bytes": peak_bytes()}


def answer(name: str, saved: str | None) -> dict[str, Any]:
    """Give one answer."""
    y = program_of(name, saved)(image(SIZES[name]))
    assert np.isfinite(y.numpy()).all()
    return {}


def plan(name: str, saved: str | None) -> dict[str, Any]:
    """First calls at two sizes beyond later ones."""
    begin = time.perf_counter()
    program = program_of(name, saved)
    found = {"recording": time.perf_counter() - begin}
    for what, size in (("planning", SIZES[name]), ("planning_again", OTHER_SIZE)):
        x = image(size)
        first = timed(lambda x=x: program(x))
        found[what] = first - statistics.median(timed(lambda x=x: program(x)) for _ in range(9))
    return found


def train(name: str) -> dict[str, Any]:
    """Memory of a training step."""
    import striate
    from striate import models, nn, ops
    from striate.train import SGD

    model = getattr(models, name)()
    x = image(32, BATCH_OF_STEP)
    target = ops.tensor(np.random.default_rng(1).integers(0, 10, BATCH_OF_STEP))
    step = striate.compile_step(model, nn.CrossEntropyLoss(), SGD(model.parameters(), lr=0.01, momentum=0.9))
    for _ in range(3):
        step(x, target)
    if step.reason is not None:
        raise SystemExit(f"program: expected a compiled step, got eager ones: {step.reason}")
    return step.memory() | {"peak_bytes": peak_bytes()}


def speed_up(name: str, rounds: int) -> dict[str, Any]:
    """Seconds on one thread and on two, in turns."""
    import striate

    model, x = network(name), image(SIZES[name], BATCH_OF_SPEED_UP)
    program = striate.compile(model, x)
    seconds: dict[int, list[float]] = {1: [], 2: []}
    for i in range(rounds + 1):
        for n_threads, values in seconds.items():
            with striate.threads(n_threads):
                value = timed(lambda: program(x))
                if i > 0:  # the first round warms up
                    values.append(value)
    return {str(n): statistics.median(values) for n, values in seconds.items()}


def eager(rounds: int) -> dict[str, Any]:
    """Seconds of conv2d and relu on a small image: eagerly, recorded for gradients, and as nodes of a program."""
    import striate
    from striate import ops

    rng = np.random.default_rng(0)
    x, weight, bias = (
        ops.relayout(ops.tensor(rng.standard_normal(shape, np.float32))) if len(shape) > 1 else ops.zeros(*shape)
        for shape in ((1, 8, 8, 8), (8, 8, 3, 3), (8,))
    )

    def pair(x: Any) -> Any:
        return ops.relu(ops.conv2d(x, weight, bias, padding=1))

    def chain(x: Any) -> Any:
        for _ in range(PAIRS):
            x = pair(x)
        return x

    def repeated(call: Callable[[Any], Any], n_calls: int) -> float:
        begin = time.perf_counter()
        for _ in range(n_calls):
            call(x)
        return (time.perf_counter() - begin) / n_calls

    found: dict[str, list[float]] = {"no_grad": [], "recording": [], "node": []}
    program = striate.compile(chain, x)
    with striate.threads(1):
        for _ in range(20 * rounds):  # the least of many turns: what else the machine does only adds
            with striate.no_grad():
                found["no_grad"].append(repeated(pair, 200))
            weight.requires_grad_(True)
            found["recording"].append(repeated(pair, 200))
            weight.requires_grad_(False)
            found["node"].append(repeated(program, 10) / PAIRS)
    return {name: min(seconds) for name, seconds in found.items()}


def fresh(*what: str) -> tuple[dict[str, Any], float]:
    """Run a function of this file, or code, in a new process; return what it found, and the seconds until it had it."""
    command = [sys.executable, "-c", what[1]] if what[0] == "-c" else [sys.executable, __file__, "--child", *what]
    begin = time.perf_counter()
    process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=ENVIRONMENT)
    assert process.stdout is not None
    line = process.stdout.readline()
    seconds = time.perf_counter() - begin
    process.communicate("\n")
    if not line:
        raise SystemExit(f"program: expected an answer of {what}, got none; see its message above")
    return json.loads(line), seconds


def child(what: list[str]) -> None:
    name, *rest = what
    functions: dict[str, Callable[..., Any]] = {
        function.__name__: function for function in (save, infer, answer, plan, train, speed_up, eager)
    }
    given: list[Any] = [int(value) if value.isdigit() else value or None for value in rest]
    print(json.dumps(functions[name](*given)), flush=True)
    sys.stdin.readline()  # the end of the process is no part of the figure


def memory_rows(saved: dict[str, str], _: argparse.Namespace) -> list[dict[str, Any]]:
    found = []
    for what, most_mb, answer_ in (
        ("ResNet-50, inference", 250, fresh("infer", "resnet50", saved.get("resnet50", ""))[0]),
        (f"ResNet-18-CIFAR, training at batch {BATCH_OF_STEP}", 700, fresh("train", "resnet18_cifar")[0]),
    ):
        found.append(row(f"peak resident set, {what}", answer_["peak_bytes"] / 1e6, most_mb, "MB"))
        found.append(row(f"arena over its least, {what}", answer_["arena_bytes"] / answer_["least_bytes"], 1.15, "×"))
    return found


def cold_start_rows(saved: dict[str, str], arguments: argparse.Namespace) -> list[dict[str, Any]]:
    above = []
    for _ in range(arguments.rounds + 1):
        numpy = fresh("-c", IMPORT_NUMPY)[1]
        above.append(fresh("answer", "resnet18", saved.get("resnet18", ""))[1] - numpy)
    return [row("first answer of ResNet-18, above NumPy", 1e3 * statistics.median(above[1:]), 250, "ms")]


def planning_rows(saved: dict[str, str], arguments: argparse.Namespace) -> list[dict[str, Any]]:
    runs = [fresh("plan", "resnet50", saved.get("resnet50", ""))[0] for _ in range(arguments.rounds)]
    ms = {name: 1e3 * statistics.median(run[name] for run in runs) for name in runs[0]}
    return [
        row("loading ResNet-50" if saved else "building and recording ResNet-50", ms["recording"], None, "ms"),
        row("planning ResNet-50", ms["planning"], 300, "ms"),
        row(f"planning it again, for {OTHER_SIZE}×{OTHER_SIZE}", ms["planning_again"], 50, "ms"),
    ]


def speed_up_rows(_: dict[str, str], arguments: argparse.Namespace) -> list[dict[str, Any]]:
    found = []
    for name in SPED_UP:
        seconds = fresh("speed_up", name, str(arguments.rounds))[0]
        what = f"two threads over one, {name} at batch {BATCH_OF_SPEED_UP}"
        found.append(row(what, seconds["1"] / seconds["2"], 1.8, "×", at_least=True))
    return found


def eager_rows(_: dict[str, str], arguments: argparse.Namespace) -> list[dict[str, Any]]:
    seconds = fresh("eager", str(arguments.rounds))[0]
    found = [row("conv2d and relu of 8×8×8 as nodes of a program, each", 0.5e6 * seconds["node"], None, "µs")]
    for what, most in (("no_grad", 3.0), ("recording", 6.0)):
        overhead = 0.5e6 * (seconds[what] - seconds["node"])
        found.append(row(f"overhead of an eager operator, {what}", overhead, most, "µs"))
    return found


def row(what: str, value: float, bar: float | None, unit: str, at_least: bool = False) -> dict[str, Any]:
    """Return a figure and its bar, printed."""
    meets = None if bar is None else value >= bar if at_least else value <= bar
    limit = "" if bar is None else f"{'≥' if at_least else '≤'} {bar:g} {unit}"
    print(f"| {what} | {value:.{0 if unit in ('ms', 'MB') else 2}f} {unit} | {limit} | {verdict(meets)} |", flush=True)
    return {"what": what, "value": value, "bar": bar, "unit": unit, "meets": meets}


def verdict(meets: bool | None) -> str:
    return {True: "yes", False: "no", None: ""}[meets]


FIGURES: dict[str, Callable[[dict[str, str], argparse.Namespace], list[dict[str, Any]]]] = {
    "memory": memory_rows,
    "cold_start": cold_start_rows,
    "planning": planning_rows,
    "speed_up": speed_up_rows,
    "eager": eager_rows,
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--figures", nargs="+", default=list(FIGURES), choices=list(FIGURES))
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--saved", action="store_true", help="begin from saved programs, where a figure can")
    parser.add_argument("--json", type=Path, help="also write the figures to this file")
    parser.add_argument("--child", nargs="+", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.child:
        child(arguments.child)
        return
    with tempfile.TemporaryDirectory() as folder:
        saved: dict[str, str] = {}
        if arguments.saved:
            saved = {name: str(Path(folder) / name) for name in ("resnet50", "resnet18")}
            for name, file in saved.items():
                fresh("save", name, file)
        print("| what | figure | bar | met |\n|---|--:|--:|---|")
        rows = [found for name in arguments.figures for found in FIGURES[name](saved, arguments)]
    if arguments.json:
        arguments.json.write_text(json.dumps(rows, indent=1))


if __name__ == "__main__":
    main()
