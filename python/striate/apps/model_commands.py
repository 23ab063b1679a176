"""The commands for models in files: info, run, bench, convert."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer
from rich.table import Table

from striate.apps.model_file import Sizes
from striate.apps.terminal import BAD_INPUT, complain, console, reported, say, say_fact

ShapeOption = Annotated[
    list[str] | None,
    typer.Option(help="Shape of an input, as NAME=1x3x224x224; may stand several times.", show_default=False),
]
SizeOption = Annotated[str | None, typer.Option(help="Height and width of images, 224 or 224x320.", show_default=False)]
BatchOption = Annotated[int | None, typer.Option(help="Samples a call.", show_default=False)]


def info(
    file: Annotated[
        Path | None,
        typer.Argument(
            help="An ONNX model, a program file or weights (.safetensors, .npz, .pt). Default: describe the machine.",
            show_default=False,
        ),
    ] = None,
    shape: ShapeOption = None,
    size: SizeOption = None,
    entry: Annotated[
        str | None, typer.Option(help="Part of a checkpoint of torch that holds the weights.", show_default=False)
    ] = None,
) -> None:
    """Describe a model or a file of weights; without one, the installation and the machine.

    Exit code 2 for a model with operators that striate does not support; they are listed.
    """
    with reported():
        if file is None:
            _say_machine()
            return
        from striate.apps.describe import describe

        found = describe(file, Sizes.parsed(shape or (), size), entry)
        for name, value in found.facts:
            say_fact(name, value)
        if found.tensors:
            # No table of rich: it would cut keys that are longer than a line.
            rows = [("key", "shape", "dtype"), *found.tensors]
            widths = [max(len(row[i]) for row in rows) for i in range(2)]
            for key, sizes, dtype in rows:
                say(f"{key:<{widths[0]}}  {sizes:<{widths[1]}}  {dtype}")
        if found.complaint is not None:
            complain(found.complaint)
            raise typer.Exit(BAD_INPUT)


def _say_machine() -> None:
    from striate import machine

    for name, value in machine.info().items():
        shown = ", ".join(map(str, value)) if isinstance(value, list | tuple) else str(value)
        if name.endswith("_bytes") and isinstance(value, int):
            name, shown = name.removesuffix("_bytes"), f"{value / 1024:,.0f} KiB" if value else "unknown"
        say_fact(name.replace("_", " "), shown)


def run(
    model: Annotated[Path, typer.Argument(help="An ONNX model or a program file.", show_default=False)],
    inputs: Annotated[
        list[Path],
        typer.Argument(help="PNG or JPEG files, or arrays: .npy, .npz with the names of inputs.", show_default=False),
    ],
    size: SizeOption = None,
    scale: Annotated[
        float | None, typer.Option(help="Factor of pixels from 0 to 255. Default: 1/255.", show_default=False)
    ] = None,
    mean: Annotated[
        str | None, typer.Option(help="Subtracted after that: a number, or one for each channel, 0.5,0.5,0.5.")
    ] = None,
    std: Annotated[str | None, typer.Option(help="Divided by after that, likewise.")] = None,
    imagenet: Annotated[bool, typer.Option("--imagenet", help="Mean and std of ImageNet's pictures.")] = False,
    labels: Annotated[
        Path | None, typer.Option(help="Text file with the names of classes, one a line.", show_default=False)
    ] = None,
    output: Annotated[
        Path | None, typer.Option(help="Save the raw outputs: .npz or .safetensors.", show_default=False)
    ] = None,
) -> None:
    """Run a model on pictures: the best five classes, or the range of what comes out.

    Pictures are scaled until they cover the model's size, and cut; where the model leaves its size open, they keep theirs.
    """
    with reported():
        from striate.apps import infer
        from striate.apps.model_file import ModelFile

        if output is not None:
            infer.check_output(output)
        names = infer.read_labels(labels) if labels is not None else None
        loaded = ModelFile(model)
        preparation = infer.Preparation.parsed(scale, mean, std, is_imagenet=imagenet)
        infer.check_preparation(loaded, preparation)
        answers = []
        is_bad = False
        for found in infer.answer(loaded, inputs, preparation, Sizes.parsed(size=size).size):
            if found.error is not None:
                # One bad file does not cost the others their answers.
                complain(str(found.error))
                is_bad = True
                continue
            for line in infer.lines(found, names):
                say(line)
            answers.append(found)
        if output is not None and answers:
            infer.save(answers, output)
            say(f"wrote {output}")
        if is_bad:
            raise typer.Exit(BAD_INPUT)


def bench(
    model: Annotated[Path, typer.Argument(help="An ONNX model.", show_default=False)],
    batch: BatchOption = None,
    size: SizeOption = None,
    shape: ShapeOption = None,
    threads: Annotated[
        int | None, typer.Option(min=1, help="Threads of every library. Default: as striate uses.", show_default=False)
    ] = None,
    seconds: Annotated[float, typer.Option(help="About how long each library's calls take.")] = 3.0,
) -> None:
    """Time a model compiled by striate against ONNX Runtime and OpenVINO, where these are installed.

    Outputs are compared before anything is timed; exit code 2 where they differ by more than 0.002 of the largest.
    """
    with reported():
        from striate.apps.compare import compare

        found = compare(model, Sizes.parsed(shape or (), size, batch), n_threads=threads, seconds=seconds)
        for note in found.notes:
            say(note)
        shapes = ", ".join("×".join(map(str, s)) for s in found.shapes)
        say(f"{model.name}, {shapes}, {found.n_threads} thread{'s' if found.n_threads > 1 else ''}")
        table = Table(box=None, pad_edge=False)
        table.add_column("library")
        for title in ("ms", "spread", "calls", "striate is", "outputs differ"):
            table.add_column(title, justify="right")
        ours = found.timings[0]
        for timing in found.timings:
            is_peer = timing is not ours
            table.add_row(
                timing.name,
                f"{1e3 * timing.median:.2f}",
                f"{timing.spread:.0%}",
                f"{len(timing.seconds):,}",
                f"{timing.median / ours.median:.2f} × as fast" if is_peer else "",
                f"{timing.error:.0e}" if is_peer else "",
            )
        console.print(table)


def convert(
    source: Annotated[Path, typer.Argument(help="An ONNX model, a program file or weights.", show_default=False)],
    target: Annotated[
        Path,
        typer.Argument(
            help="Its ending says what to write: .onnx, .striate (a program), .safetensors or .npz (weights).",
            show_default=False,
        ),
    ],
    shape: ShapeOption = None,
    size: SizeOption = None,
    batch: BatchOption = None,
    fold: Annotated[
        bool, typer.Option("--fold", help="From ONNX to ONNX: fold batch-norm and constants into weights.")
    ] = False,
    opset: Annotated[
        int | None, typer.Option(help="Of the ONNX operators to write, 18 or newer.", show_default=False)
    ] = None,
    open_axes: Annotated[
        str | None,
        typer.Option(
            "--open",
            help="Which open sizes stay so in the ONNX model to write: all, batch or none. Default: all.",
            show_default=False,
        ),
    ] = None,
    entry: Annotated[
        str | None, typer.Option(help="Part of a checkpoint of torch that holds the weights.", show_default=False)
    ] = None,
) -> None:
    """Convert models and weights: ONNX to a program, to ONNX anew or to weights, a program to ONNX, weights to weights.

    A file already there is replaced, at once or not at all.
    """
    with reported():
        from striate.apps.convert import convert as write

        sizes = Sizes.parsed(shape or (), size, batch)
        what = write(source, target, sizes, fold=fold, opset=opset, open_axes=open_axes, entry=entry)
        say(f"wrote {target}: {what}")
