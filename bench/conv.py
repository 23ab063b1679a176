"""Convolution against the machine: GFLOP/s and share of the FMA peak that this process measures between the repeats.

python bench/conv.py                      the shapes of shapes/foundation.toml, forward, this CPU's instruction set
python bench/conv.py --algorithm direct   the same on the indirect GEMM alone
python bench/conv.py --isa avx2 --passes forward grad_input grad_weight
"""

from __future__ import annotations

import argparse
import json
import statistics
import time
import tomllib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

import striate
from striate import ops


def timed(run: Callable[[], Any]) -> float:
    """Seconds of one call."""
    begin = time.perf_counter()
    run()
    return time.perf_counter() - begin


def check(x: striate.Tensor, weight: striate.Tensor, y: striate.Tensor, layer: dict[str, Any]) -> None:
    """Compare a few outputs with the formula in float64 before anything is timed."""
    rng = np.random.default_rng(1)
    # Copies: memory that NumPy can see is exposed, and packed weights are not kept for it.
    xs, ws, ys = (ops.clone(t).numpy().astype(np.float64) for t in (x, weight, y))
    pad, stride, k = layer["padding"], layer["stride"], layer["kernel_size"]
    xs = np.pad(xs, ((0, 0), (0, 0), (pad, pad), (pad, pad)))
    for _ in range(50):
        n, o, i, j = (int(rng.integers(0, size)) for size in y.shape)
        patch = xs[n, :, i * stride : i * stride + k, j * stride : j * stride + k]
        if abs(ys[n, o, i, j] - (patch * ws[o]).sum()) > 1e-5 * np.abs(patch * ws[o]).sum():
            raise SystemExit(f"{layer['name']}: expected the formula's value at {(n, o, i, j)}, got another")


def passes(layer: dict[str, Any]) -> tuple[dict[str, Callable[[], Any]], float]:
    """Return what to time, by pass, and the floating-point operations of each."""
    rng = np.random.default_rng(0)
    c, o, k, size = layer["in_channels"], layer["out_channels"], layer["kernel_size"], layer["size"]
    x = ops.tensor(rng.standard_normal((layer["batch"], size, size, c), np.float32)).permute(0, 3, 1, 2)
    weight = ops.relayout(ops.tensor(rng.standard_normal((o, c, k, k), np.float32)))
    window = {"stride": layer["stride"], "padding": layer["padding"]}
    y = ops.conv2d(x, weight, **window)
    check(x, weight, y, layer)
    xg, wg = ops.clone(x).requires_grad_(), ops.clone(weight).requires_grad_()
    to_x, to_weight = ops.conv2d(xg, weight, **window), ops.conv2d(x, wg, **window)
    g = ops.ones_like(y)
    runs: dict[str, Callable[[], Any]] = {
        "forward": lambda: ops.conv2d(x, weight, **window),
        "grad_input": lambda: striate.autograd.grad(to_x, xg, g, retain_graph=True),
        "grad_weight": lambda: striate.autograd.grad(to_weight, wg, g, retain_graph=True),
    }
    return runs, 2.0 * y.size * c * k * k


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--shapes", default="foundation", help="a file of bench/shapes, without .toml")
    parser.add_argument("--passes", nargs="+", default=["forward"], choices=["forward", "grad_input", "grad_weight"])
    parser.add_argument("--isa", default=striate.machine.active_isa(), choices=striate.machine.available_isas())
    parser.add_argument(
        "--algorithm", default="auto", choices=["auto", "direct", "winograd2", "winograd4", "winograd5", "winograd6"]
    )
    parser.add_argument("--threads", nargs="+", type=int, default=[1, 2])
    parser.add_argument("--repeats", type=int, default=60)
    parser.add_argument("--json", type=Path, help="also write the rows to this file")
    arguments = parser.parse_args()
    layers = tomllib.loads((Path(__file__).parent / "shapes" / f"{arguments.shapes}.toml").read_text())["conv2d"]
    striate.isa(arguments.isa)
    striate.machine.algorithm(arguments.algorithm)
    machine = striate.machine.info()
    print(f"{machine['cpu']}, {arguments.isa}, striate {machine['version']}, {machine['build']}\n")
    print("| layer | pass | threads | GFLOP/s | spread | peak | share of peak | over one thread |")
    print("|---|---|--:|--:|--:|--:|--:|--:|")
    rows = []
    for layer in layers:
        runs, flops = passes(layer)
        for name in arguments.passes:
            alone = 0.0
            for n_threads in arguments.threads:
                with striate.threads(n_threads):
                    run, seconds, peaks = runs[name], [], []
                    for _ in range(3):
                        run()
                    for i in range(arguments.repeats):
                        if i % 10 == 0:
                            peaks.append(striate._core.measure_fma(striate.float32, 0.02))
                        seconds.append(timed(run))
                median = statistics.median(seconds)
                low, _, high = statistics.quantiles(seconds, n=4)
                rate = flops / median
                peak = statistics.median(peaks)
                if arguments.algorithm == "direct":  # Winograd does fewer operations than are counted
                    peak = max(peak, flops / min(seconds))
                alone = alone or rate
                row = {
                    "layer": layer["name"], "pass": name, "threads": n_threads, "gflops": rate / 1e9, "peak_gflops": peak / 1e9,
                    "share": rate / peak, "speed_up": rate / alone, "spread": (high - low) / median,
                }  # fmt: skip
                rows.append(row)
                print(
                    f"| {layer['name']} | {name} | {n_threads} | {rate / 1e9:.0f} | {row['spread']:.0%} | {peak / 1e9:.0f} "
                    f"| {rate / peak:.0%} | {rate / alone:.2f} |",
                    flush=True,
                )
    if arguments.json:
        arguments.json.write_text(json.dumps({"machine": machine, "rows": rows}, indent=1, default=str))


if __name__ == "__main__":
    main()
