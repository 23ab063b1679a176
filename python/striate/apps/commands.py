"""The commands of `striate`: read the arguments, call the library, print."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Annotated

import typer
from rich.markup import escape
from rich.table import Table

from striate.apps import classify, model_commands
from striate.apps.progress import ConsoleReporter
from striate.apps.run import RunFolder
from striate.apps.terminal import BAD_INPUT, INTERRUPTED, complain, console, reported, say

app = typer.Typer(
    name="striate",
    help="Train and use convolutional neural networks on the CPU you have.",
    no_args_is_help=True,
    add_completion=False,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
)


@app.command()
def train(
    data: Annotated[
        str | None,
        typer.Argument(
            help="fashion-mnist, or a folder with a sub-folder of images for each class. "
            "Default: 6,000 pictures of clothes that come with the package.",
            show_default=False,
        ),
    ] = None,
    model: Annotated[str | None, typer.Option(help=f"Network: {', '.join(classify.MODEL_NAMES)}.")] = None,
    epochs: Annotated[int | None, typer.Option(help="Passes over the training set.")] = None,
    lr: Annotated[float | None, typer.Option(help="Highest learning rate of the schedule.")] = None,
    batch_size: Annotated[int | None, typer.Option(help="Images in a step.")] = None,
    seed: Annotated[int, typer.Option(help="Same seed, same weights.")] = 0,
    size: Annotated[int | None, typer.Option(help="Side to which pictures of a folder are scaled.")] = None,
    out: Annotated[Path | None, typer.Option(help="Run folder. Default: a new one under runs/.")] = None,
    resume: Annotated[Path | None, typer.Option(help="Continue the run in this folder.")] = None,
) -> None:
    """Train a network to tell pictures apart."""
    with reported():
        if resume is not None:
            given: dict[str, object] = {
                "DATA": data,
                "--model": model,
                "--epochs": epochs,
                "--lr": lr,
                "--batch-size": batch_size,
            }
            given |= {"--size": size, "--out": out, "--seed": seed or None}
            extra = [name for name, value in given.items() if value is not None]
            if extra:
                raise ValueError(
                    f"train: expected --resume alone, because the run keeps its settings, got {', '.join(extra)} too"
                )
            run = RunFolder(resume)
            task = classify.Task.resumed(run)
        else:
            recipe = classify.default_recipe(data).but(
                model=model, epochs=epochs, lr=lr, batch_size=batch_size, seed=seed, size=size
            )
            # Data and network come first: a mistake there leaves no folder behind.
            task = classify.Task.new(data, recipe)
            run = RunFolder.new(out, task.data_name)
        with ConsoleReporter(console, task.recipe.epochs) as reporter:
            try:
                result = classify.train_task(task, run, reporter)
            except KeyboardInterrupt:
                complain(f"train: stopped; continue with striate train --resume {run.path}")
                raise typer.Exit(INTERRUPTED) from None
        console.print(
            f"test accuracy {result['test_accuracy']:.2%} on {result['n_test']:,} images; "
            f"everything is in {run.path}{os.sep}",
            highlight=False,
            markup=False,
        )


@app.command()
def predict(
    run: Annotated[Path, typer.Argument(help="Folder of a training run.", show_default=False)],
    images: Annotated[list[Path], typer.Argument(help="PNG or JPEG files.", show_default=False)],
) -> None:
    """Say what is in pictures: label and probability, best five."""
    with reported():
        trained = classify.load(RunFolder(run))
        is_bad = False
        for path in images:
            try:
                best = trained.predict(path)[:5]
            except (ValueError, OSError) as error:
                # One bad file does not cost the others their answers.
                complain(str(error))
                is_bad = True
                continue
            others = ", ".join(f"{label} {probability:.1%}" for label, probability in best[1:])
            label, probability = best[0]
            say(f"{path}: {label} {probability:.1%}  ({others})")
        if is_bad:
            raise typer.Exit(BAD_INPUT)


@app.command()
def evaluate(
    run: Annotated[Path, typer.Argument(help="Folder of a training run.", show_default=False)],
    data: Annotated[str, typer.Argument(help="embedded, fashion-mnist, or an image folder with the same classes.")],
) -> None:
    """Measure a trained network on a data set: accuracy, precision and recall of each class."""
    with reported():
        trained = classify.load(RunFolder(run))
        split = trained.test_split(data)
        verdict = classify.evaluate(trained.model, split)
        table = Table(box=None, pad_edge=False)
        table.add_column("class")
        for name in ("images", "precision", "recall"):
            table.add_column(name, justify="right")
        for row in verdict.per_class():
            table.add_row(escape(row["class"]), f"{row['n_images']:,}", _share(row["precision"]), _share(row["recall"]))
        console.print(table)
        console.print(
            f"accuracy {verdict.accuracy:.2%} on {len(split):,} images, loss {verdict.loss:.4f}", highlight=False
        )


@app.command()
def tune(
    out: Annotated[Path, typer.Option(help="File to write.")] = Path("tuning.json"),
) -> None:
    """Measure this machine, so that convolutions choose their algorithms by its own times.

    Load the file with striate.machine.tuning. Takes about a minute; the machine should do nothing else.
    """
    from rich.progress import Progress

    from striate import machine
    from striate.apps import tune as tuner

    with reported():
        isas = [name for name in machine.available_isas() if name not in ("baseline", "generic512")] or ["baseline"]
        with Progress(console=console, transient=True) as progress:
            tasks = {name: progress.add_task(name, total=None) for name in isas}
            regrets = tuner.tune(
                out, isas, lambda name, done, total: progress.update(tasks[name], completed=done, total=total)
            )
        for name, (before, after) in regrets.items():
            console.print(
                f"{name}: choices are {before - 1:.1%} slower than the best ones as shipped, {after - 1:.1%} tuned",
                highlight=False,
                markup=False,
            )
        say(f"wrote {out}; load it with striate.machine.tuning({str(out)!r})")


@app.command()
def profile(
    model: Annotated[str, typer.Argument(help="A network of the catalog, or a program file.", show_default=False)],
    batch: Annotated[int, typer.Option(min=1, help="Images a call.")] = 1,
    size: Annotated[int | None, typer.Option(help="Side of the images; the network's own by default.")] = None,
    plot: Annotated[Path | None, typer.Option(help="Also draw it into this file: png, svg or pdf.")] = None,
) -> None:
    """Run a network as a program and show what each node does, and how long it takes.

    Weights of a network of the catalog are random; times do not depend on them.
    """
    from striate.apps.profile import profile as measure

    with reported():
        found = measure(model, batch, size)
        say(str(found))
        if plot is not None:
            found.plot(plot)
            say(f"wrote {plot}")


def _share(value: float | None) -> str:
    return "–" if value is None else f"{value:.1%}"


for _command in (model_commands.info, model_commands.run, model_commands.bench, model_commands.convert):
    app.command()(_command)
