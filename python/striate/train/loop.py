"""The training loop."""

from __future__ import annotations

import contextlib
import itertools
import math
import os
import signal
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence, Sized
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from striate import ops
from striate.autograd import Tensor, no_grad
from striate.compile import TrainingStep
from striate.nn import Module
from striate.train import checkpoint as checkpoints
from striate.train.callback import Callback, Monitor
from striate.train.metric import Metric
from striate.train.optim import Optimizer, clip_grad_norm_
from striate.train.schedule import Schedule

__all__ = ["Best", "Run", "evaluate", "fit", "to_tensors"]

Array = Tensor | NDArray[Any]
Batch = tuple[Array, Array]
Loss = Callable[[Tensor, Tensor], Tensor]
Row = dict[str, float]


@dataclass(frozen=True, slots=True)
class Best:
    """The best epoch so far.

    Attributes
    ----------
    epoch : int
        Counted from 1.
    value : float
        Of the monitored number.
    state : dict of str to Tensor
        A copy of the model's `state_dict`.
    """

    epoch: int
    value: float
    state: dict[str, Tensor]


class Run:
    """A training run: what `fit` hands to callbacks, and returns.

    Attributes
    ----------
    model, optimizer, schedule, loss
        As given to `fit`.
    epochs : int
        Epochs wanted.
    epoch : int
        Epochs completed.
    step : int
        Steps completed, over all epochs.
    batch, n_batches : int, int or None
        Steps completed in this epoch, and steps it will have if the data knows.
    n_samples : int
        Samples seen in this epoch.
    last_loss : float
        Of the last step.
    history : list of dict
        A row for each completed epoch: epoch (from 1), lr, loss, the metrics, val_loss and val_ metrics, seconds.
    best : Best or None
    is_stopping : bool
        Set it to end after this epoch.
    """

    def __init__(
        self,
        model: Module,
        optimizer: Optimizer,
        schedule: Schedule | None,
        loss: Loss,
        epochs: int,
        metrics: Mapping[str, Metric],
        callbacks: Sequence[Callback],
        monitor: Monitor | None,
    ) -> None:
        """Stand before the first step."""
        self.model = model
        self.optimizer = optimizer
        self.schedule = schedule
        self.loss = loss
        self.epochs = epochs
        self.metrics = metrics
        self.callbacks = callbacks
        self.monitor = monitor
        self.epoch = 0
        self.step = 0
        self.batch = 0
        self.n_batches: int | None = None
        self.n_samples = 0
        self.last_loss = math.nan
        self.sums: Row = {}
        self.seconds = 0.0
        self.history: list[Row] = []
        self.best: Best | None = None
        self.is_stopping = False

    def means(self) -> Row:
        """Return the mean loss and metrics of this epoch so far."""
        return {name: total / self.n_samples for name, total in self.sums.items()} if self.n_samples else {}

    def add(self, loss: float, scores: Tensor, labels: Array, n: int) -> None:
        """Count a batch of n samples."""
        self.last_loss = loss
        self.n_samples += n
        _add(self.sums, self.metrics, loss, scores, labels, n)

    def save(self, path: str | os.PathLike[str], data: Iterable[Batch]) -> None:
        """Write a checkpoint; see `striate.train.checkpoint`."""
        tensors, groups = self.optimizer.export_state()
        sections = {"model": self.model.state_dict(), "optimizer": tensors}
        if self.best is not None:
            sections["best"] = self.best.state
        info = {
            "epoch": self.epoch,
            "step": self.step,
            "batch": self.batch,
            "n_samples": self.n_samples,
            "sums": self.sums,
            "seconds": self.seconds,
            "history": self.history,
            "is_stopping": self.is_stopping,
            "best": None if self.best is None else {"epoch": self.best.epoch, "value": self.best.value},
            "optimizer": {"type": type(self.optimizer).__name__, **groups},
            "schedule": repr(self.schedule),
            "generator": ops.default_generator().state_dict(),
            "loader": _loader_state(data),
            "callbacks": [[type(c).__name__, c.state_dict()] for c in self.callbacks if c.state_dict()],
        }
        checkpoints.save(path, sections, info)

    def restore(self, path: str | os.PathLike[str], data: Iterable[Batch]) -> None:
        """Take everything back that `save` wrote.

        Raises
        ------
        ValueError
            A checkpoint of another network or optimizer, or of other callbacks with state.
        """
        found = checkpoints.load(path)
        info = found.info
        own = [callback for callback in self.callbacks if callback.state_dict()]
        names = [type(callback).__name__ for callback in own]
        saved = [name for name, _ in info["callbacks"]]
        if info["optimizer"]["type"] != type(self.optimizer).__name__ or saved != names:
            raise ValueError(
                f"fit: expected to resume {os.fspath(path)!r} with {info['optimizer']['type']} and {saved}, got "
                f"{type(self.optimizer).__name__} and {names}; use the optimizer and callbacks the run began with"
            )
        self.model.load_state_dict(found.sections["model"])
        self.optimizer.import_state(found.sections["optimizer"], info["optimizer"])
        for callback, (_, state) in zip(own, info["callbacks"], strict=True):
            callback.load_state_dict(state)
        for name in ("epoch", "step", "batch", "n_samples", "sums", "seconds", "history", "is_stopping"):
            setattr(self, name, info[name])
        if info["best"] is not None:
            self.best = Best(info["best"]["epoch"], info["best"]["value"], found.sections["best"])
        ops.default_generator().load_state_dict(info["generator"])
        load = getattr(data, "load_state_dict", None)
        if load is not None and info["loader"] is not None:
            load(info["loader"])


def to_tensors(batch: Batch) -> tuple[Tensor, Tensor]:
    """Return a batch as tensors, images with their channels where layers expect them.

    Parameters
    ----------
    batch : (x, y)
        Tensors stay as they are. An ndarray x of four axes is a batch of images (N, H, W, C) and becomes (N, C, H, W); nothing
        is copied. Other ndarrays keep their shape.
    """
    x, y = batch
    if not isinstance(x, Tensor):
        images = np.asarray(x)
        x = ops.from_numpy(images)
        if images.ndim == 4:
            x = x.permute(0, 3, 1, 2)
    return x, y if isinstance(y, Tensor) else ops.from_numpy(np.asarray(y))


def evaluate(
    model: Module,
    data: Iterable[Batch],
    *,
    loss: Loss | None = None,
    metrics: Mapping[str, Metric] | None = None,
) -> Row:
    """Return the mean loss and metrics over data, in eval mode and without gradients.

    Parameters
    ----------
    model : Module
        Modes of its parts are restored at the end.
    data : iterable of (x, y)
        See `to_tensors`.
    loss : callable, optional
        loss(scores, y) → mean over the batch.
    metrics : mapping of str to Metric, optional

    Returns
    -------
    dict of str to float
        "loss" and the metrics.

    Raises
    ------
    ValueError
        Data without a sample.
    """
    sums: Row = {}
    n_samples = 0
    modes = [(module, module.training) for module in model.modules()]
    model.eval()
    try:
        with no_grad():
            for batch in data:
                x, y = to_tensors(batch)
                scores = model(x)
                value = loss(scores, y).item() if loss is not None else 0.0
                _add(sums, metrics or {}, value, scores, batch[1], x.shape[0])
                n_samples += x.shape[0]
    finally:
        for module, mode in modes:
            module.training = mode
    if not n_samples:
        raise ValueError("evaluate: expected at least one sample, got none; check the data")
    if loss is None:
        sums.pop("loss", None)
    return {name: total / n_samples for name, total in sums.items()}


def fit(
    model: Module,
    train_data: Iterable[Batch],
    validation_data: Iterable[Batch] | None = None,
    *,
    optimizer: Optimizer,
    loss: Loss,
    epochs: int,
    schedule: Schedule | None = None,
    metrics: Mapping[str, Metric] | None = None,
    callbacks: Sequence[Callback] = (),
    monitor: Monitor | None = None,
    max_grad_norm: float | None = None,
    checkpoint: str | os.PathLike[str] | None = None,
    resume: bool = False,
    compile: bool = True,
    recompute: bool = False,
) -> Run:
    """Train a model.

    Parameters
    ----------
    model : Module
        Trained in place.
    train_data : iterable of (x, y)
        Iterated once an epoch; see `to_tensors`. A `striate.data.DataLoader` is told the epoch, so that its order depends on
        (seed, epoch) alone.
    validation_data : iterable of (x, y), optional
        Evaluated after each epoch.
    optimizer : Optimizer
    loss : callable
        loss(model(x), y) → the mean over the batch, such as `nn.CrossEntropyLoss()`.
    epochs : int
        Epochs to have at the end, those before resuming included.
    schedule : Schedule, optional
        Learning rate of each step; without one the optimizer's stays.
    metrics : mapping of str to Metric, optional
        Columns of the history, such as {"accuracy": Accuracy()}.
    callbacks : sequence of Callback
    monitor : Monitor, optional
        Chooses `Run.best`. Default: the lowest val_loss when there is validation data.
    max_grad_norm : float, optional
        Largest norm of all gradients together; larger ones are scaled down.
    checkpoint : path, optional
        Written after each epoch, and when Ctrl-C is pressed.
    resume : bool, default False
        Go on from `checkpoint` if that file exists. The result is the same, to the bit, as without the interruption.
    compile : bool, default True
        Run steps as one call into the core; see `striate.compile_step`. The first two are taken both ways and compared. A
        model that cannot be recorded is trained by eager calls, and the log says why. Gradients are not kept between steps.
    recompute : bool, default False
        Make cheap results again in the backward pass rather than keep them: less memory, more time, the same bits; see
        `striate.compile_step`. The first two steps, which are taken eagerly as well, keep them.

    Returns
    -------
    Run
        With `history` and `best`; the model holds the weights of the last epoch.

    Raises
    ------
    FloatingPointError
        A loss that is not finite; the weights are those before that step and the checkpoint that of the last epoch.
    KeyboardInterrupt
        After Ctrl-C: at the end of the step, when the checkpoint is written. A second Ctrl-C does not wait.
    ValueError
        Epochs below 1, no training data, a checkpoint of another run, or `recompute` without `compile`.
    """
    if epochs < 1:
        raise ValueError(f"fit: expected at least 1 epoch, got {epochs}; pass epochs=1")
    if recompute and not compile:
        raise ValueError(
            "fit: expected compile=True with recompute=True, got compile=False; eager steps keep what they need"
        )
    if monitor is None and validation_data is not None:
        monitor = Monitor()
    run = Run(model, optimizer, schedule, loss, epochs, metrics or {}, callbacks, monitor)
    if resume and checkpoint is not None and Path(checkpoint).exists():
        run.restore(checkpoint, train_data)
    step = TrainingStep(
        model,
        loss,
        optimizer,
        max_grad_norm=max_grad_norm,
        clip=clip_grad_norm_,
        n_verified=2,
        is_eager=not compile,
        recomputes=recompute,
    )
    for callback in callbacks:
        callback.on_train_begin(run)
    with _Interrupts() as interrupts:
        while run.epoch < epochs and not run.is_stopping:
            _train_epoch(run, train_data, step, interrupts, checkpoint)
            _end_epoch(run, validation_data)
            if checkpoint is not None:
                run.save(checkpoint, train_data)
            if interrupts.is_asked:
                raise KeyboardInterrupt
    for callback in callbacks:
        callback.on_train_end(run)
    return run


def _train_epoch(
    run: Run,
    data: Iterable[Batch],
    step: TrainingStep,
    interrupts: _Interrupts,
    checkpoint: str | os.PathLike[str] | None,
) -> None:
    model, optimizer = run.model, run.optimizer
    model.train()
    run.n_batches = len(data) if isinstance(data, Sized) else None
    start = time.perf_counter() - run.seconds
    for batch in _batches(data, run.epoch, run.batch):
        if run.schedule is not None:
            optimizer.set_lr(run.schedule(run.step))
        x, y = to_tensors(batch)
        try:
            loss, scores = step(x, y)
        except FloatingPointError as error:
            raise FloatingPointError(
                f"fit: expected a finite loss, got {error.args[0].split('got ')[-1].split(';')[0]} at step {run.step} of epoch "
                f"{run.epoch + 1} with lr {optimizer.lr:g}; lower the learning rate or look for bad values in the data"
            ) from error
        run.step += 1
        run.batch += 1
        run.add(loss.item(), scores, batch[1], x.shape[0])
        run.seconds = time.perf_counter() - start
        for callback in run.callbacks:
            callback.on_batch_end(run)
        if interrupts.is_asked:
            if checkpoint is not None:
                run.save(checkpoint, data)
            raise KeyboardInterrupt
    if not run.n_samples:
        raise ValueError("fit: expected at least one batch of training data, got none; check the data and drop_last")


def _end_epoch(run: Run, validation_data: Iterable[Batch] | None) -> None:
    row: Row = {"epoch": run.epoch + 1, "lr": run.optimizer.lr, **run.means()}
    if validation_data is not None:
        found = evaluate(run.model, validation_data, loss=run.loss, metrics=run.metrics)
        row.update({f"val_{name}": value for name, value in found.items()})
    row["seconds"] = run.seconds
    run.history.append(row)
    run.epoch += 1
    run.batch = 0
    run.n_samples = 0
    run.sums = {}
    run.seconds = 0.0
    if run.monitor is not None:
        value = run.monitor.value(row)
        if run.monitor.is_better(value, None if run.best is None else run.best.value):
            run.best = Best(run.epoch, value, {key: x.clone() for key, x in run.model.state_dict().items()})
    for callback in run.callbacks:
        callback.on_epoch_end(run)


def _add(sums: Row, metrics: Mapping[str, Metric], loss: float, scores: Tensor, labels: Array, n: int) -> None:
    sums["loss"] = sums.get("loss", 0.0) + loss * n
    if metrics:
        values = scores.detach().numpy()
        true = labels.detach().numpy() if isinstance(labels, Tensor) else np.asarray(labels)
        for name, metric in metrics.items():
            sums[name] = sums.get(name, 0.0) + metric(values, true)


def _loader_state(data: Iterable[Batch]) -> Any:
    state = getattr(data, "state_dict", None)
    return None if state is None else state()


def _batches(data: Iterable[Batch], epoch: int, batch: int) -> Iterator[Batch]:
    """Iterate over the rest of an epoch, whatever was iterated before."""
    load = getattr(data, "load_state_dict", None)
    if load is None:
        return itertools.islice(iter(data), batch, None)
    load({**_loader_state(data), "epoch": epoch, "batch": batch})
    return iter(data)


class _Interrupts(contextlib.AbstractContextManager["_Interrupts"]):
    """Turns the first Ctrl-C into a wish that is granted between two steps, where the state is whole."""

    def __init__(self) -> None:
        self.is_asked = False
        self._is_installed = False

    def __enter__(self) -> _Interrupts:
        is_main = threading.current_thread() is threading.main_thread()
        if is_main and signal.getsignal(signal.SIGINT) is signal.default_int_handler:
            signal.signal(signal.SIGINT, self._ask)
            self._is_installed = True
        return self

    def __exit__(self, *error: object) -> None:
        if self._is_installed:
            signal.signal(signal.SIGINT, signal.default_int_handler)

    def _ask(self, number: int, frame: object) -> None:
        if self.is_asked:
            raise KeyboardInterrupt
        self.is_asked = True
