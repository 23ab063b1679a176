"""striate against its peers and against the machine, interleaved in one run: convolutions, other ops, and whole networks.

    python -m venv .venv-peers && .venv-peers/bin/pip install -r bench/peers.txt
    python bench/run.py conv --shapes resnet18 vgg16 --batch 16 --threads 2
    python bench/run.py conv --shapes all --passes grad_input grad_weight --peers torch
    python bench/run.py ops --threads 2 1
    python bench/run.py model --models resnet50 unet --batch 1 --threads 2
    python bench/run.py train --peers torch

Each library lives in a process of its own, only one works at a time, and their turns alternate. Before anything is timed, sampled
elements of every result are compared with their formulas in float64: where striate is off by more than 2·10⁻⁵ of the largest
element nothing is timed, and a peer off by more than 2·10⁻³ does not count. A figure is the median of all calls, a peer's that of
its better memory format. The JSON file has every library's times and errors, and the machine's limits.

conv: at batch 1 the caches are emptied between calls, as the rest of a network would, with warm figures beside it. Shares are of
the roofline: the time of the operations at the multiply-add peak or of the bytes at the bandwidth, whichever is longer, both
measured before each shape; Winograd does fewer operations than are counted, and can pass it. Convolutions count once, however
often a network has them. ncnn and MNN have their input in their own layout, as inside a network.

The summary's `at the roofline`, or `at the bandwidth`, is how much faster than the best peer kernels exactly at that limit would
be: what a machine allows, though Winograd can pass it.

ops: pools, batch-norm, activations, joins, resizing, softmax and optimizer steps of shapes/ops.toml. Shares are of the best of
copy, non-temporal copy and triad (for global pools also reading) over as many bytes, counting each input and each output once.
A gradient is asked of each library's autograd, as a user does.

model: inference of networks.toml. All have the weights of striate's network, whose norms have the statistics of a few images. All
outputs are compared with PyTorch's in float32 first: striate's may differ by 10⁻⁴ of the largest, others' by 2·10⁻³. ONNX Runtime,
OpenVINO and MNN read the ONNX file that PyTorch writes for the batch, ncnn what `pnnx` makes of the traced network, a call for each
image; torch.compile freezes the weights. Every network has processes of its own. Shares are of the multiply-add peak, in the operations of
the direct algorithm. Repeats are fewer, down to three, the longer a call takes: `--seconds`.

train: training steps, SGD with momentum, PyTorch's fused, the loss read in each; the first losses are compared. Dropout is off.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

import conv_rows
import fingerprint
import model_rows
import op_rows
import step_rows
from turns import table

KINDS = {"conv": conv_rows, "ops": op_rows, "model": model_rows, "train": step_rows}


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    commands = parser.add_subparsers(dest="what", required=True)
    conv = commands.add_parser("conv", help="convolutions of bench/shapes")
    conv.add_argument("--shapes", nargs="+", default=["all"], help="files of bench/shapes, without .toml, or all")
    conv.add_argument("--families", nargs="+", default=list(conv_rows.FAMILIES), choices=conv_rows.FAMILIES)
    conv.add_argument("--passes", nargs="+", default=["forward"], choices=conv_rows.PASSES)
    conv.add_argument("--batch", nargs="+", type=int, default=[16])
    ops = commands.add_parser("ops", help="ops bound by memory bandwidth, and optimizer steps")
    ops.add_argument("--ops", nargs="+", default=list(op_rows.OPS), choices=op_rows.OPS)
    ops.add_argument("--passes", nargs="+", default=list(op_rows.PASSES), choices=op_rows.PASSES)
    ops.add_argument("--batch", nargs="+", type=int, default=[1, 16], help="of those that a row has")
    for command in (conv, ops):
        command.add_argument("--calls", type=int, default=5, help="most calls of a turn")
        command.add_argument("--limit", type=int, help="only the first layers or ops")
    model = commands.add_parser("model", help="inference of whole networks, compiled")
    model.add_argument("--batch", nargs="+", type=int, default=[1, 16])
    train = commands.add_parser("train", help="training steps of whole networks, compiled")
    train.add_argument("--eager", action="store_true", help="striate's step operator by operator")
    for command, kind in ((model, model_rows), (train, step_rows)):
        command.add_argument("--models", nargs="+", default=list(kind.MODELS), choices=list(kind.ROWS))
        command.add_argument(
            "--seconds", type=float, default=2.0, help="about how long each library's calls of a row take"
        )
    threads = {"conv": [2], "ops": [2], "model": [2, 1], "train": [2]}
    for command, name in ((conv, "conv"), (ops, "ops"), (model, "model"), (train, "train")):
        peers = list(KINDS[name].PEERS)
        command.add_argument("--threads", nargs="+", type=int, default=threads[name])
        command.add_argument("--peers", nargs="*", default=peers, choices=peers)
        command.add_argument("--peer-python", default=".venv-peers/bin/python", help="a Python that has the peers")
        command.add_argument("--avx2", action="store_true", help="hold every library to AVX2, where it can be held")
        command.add_argument("--rounds", type=int, default=7, help="turns of each library, at most")
        command.add_argument("--json", type=Path, help="also write the rows, the machine and its limits to this file")
    return parser.parse_args()


def main() -> None:
    arguments = parse()
    kind = KINDS[arguments.what]
    report: dict[str, Any] = fingerprint.occasion() | {"runs": []}
    rows: list[dict[str, Any]] = []
    for n_threads in arguments.threads:
        for i, part in enumerate(kind.parts(arguments)):
            workers = kind.start(part, n_threads, i == 0)
            if i == 0:
                report["machine"] = fingerprint.machine(workers)
                report["runs"].append(fingerprint.run(workers, n_threads))
                print(kind.HEADER)
            rows += kind.rows(workers, n_threads, part)
            for worker in workers.values():
                worker.stop()
        print()
    summary = kind.summarise(rows)
    print(table(summary))
    if arguments.json:
        arguments.json.write_text(json.dumps(report | {"rows": rows, "summary": summary}, indent=1))


if __name__ == "__main__":
    main()
