"""The loop: it learns, it stops, and an interruption changes nothing."""

from __future__ import annotations

import math
import signal
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import striate
from striate import nn, train
from striate.compile import TrainingStep
from striate.data import DataLoader, Split
from striate.train import schedule


def _split(n: int = 96, seed: int = 0) -> Split:
    """Bright squares in one of four corners, under noise."""
    random = np.random.default_rng(seed)
    labels = np.arange(n) % 4
    images = random.integers(0, 120, (n, 8, 8, 1), dtype=np.uint8)
    for image, label in zip(images, labels, strict=True):
        image[4 * (label // 2) : 4 * (label // 2) + 4, 4 * (label % 2) : 4 * (label % 2) + 4] += 100
    return Split(images, labels.astype(np.int64), tuple("abcd"))


def _net(seed: int = 0) -> nn.Sequential:
    striate.manual_seed(seed)
    return nn.Sequential(
        nn.Normalize(0.4, 0.3),
        nn.Conv2d(1, 6, 3, padding=1),
        nn.BatchNorm2d(6),
        nn.ReLU(),
        nn.MaxPool2d(2),
        nn.Flatten(),
        nn.Dropout(0.2),
        nn.Linear(96, 4),
    )


def _fit(net: nn.Module, epochs: int = 3, loader_seed: int = 1, **arguments: Any) -> train.Run:
    options: dict[str, Any] = {
        "optimizer": train.Adam(net.parameters(), lr=0.01),
        "loss": nn.CrossEntropyLoss(),
        "metrics": {"accuracy": train.Accuracy()},
        "schedule": schedule.Cosine(0.01, 18),
        **arguments,
    }
    loader = DataLoader(_split(), 16, shuffle=True, seed=loader_seed)
    return train.fit(net, loader, DataLoader(_split(40, 1), 16), epochs=epochs, **options)


def _weights(net: nn.Module) -> np.ndarray[Any, Any]:
    return np.concatenate([x.numpy().ravel().astype(np.float64) for x in net.state_dict().values()])


def _without_seconds(history: list[dict[str, float]]) -> list[dict[str, float]]:
    return [{name: value for name, value in row.items() if name != "seconds"} for row in history]


def test_fit_learns_and_keeps_a_history() -> None:
    net = _net()
    run = _fit(net)
    assert [row["epoch"] for row in run.history] == [1, 2, 3]
    assert list(run.history[0]) == ["epoch", "lr", "loss", "accuracy", "val_loss", "val_accuracy", "seconds"]
    assert run.history[-1]["loss"] < run.history[0]["loss"] / 2
    assert run.history[-1]["val_accuracy"] > 0.9
    assert run.step == 18
    assert run.history[-1]["lr"] == schedule.Cosine(0.01, 18)(17)
    assert run.best is not None
    assert run.best.value == min(row["val_loss"] for row in run.history)


def test_fit_is_a_function_of_its_seeds() -> None:
    runs = [_fit(_net(), loader_seed=seed) for seed in (1, 1, 2)]
    np.testing.assert_array_equal(_weights(runs[0].model), _weights(runs[1].model))
    assert _without_seconds(runs[0].history) == _without_seconds(runs[1].history)
    assert _without_seconds(runs[0].history) != _without_seconds(runs[2].history)


@pytest.mark.parametrize("stop", [6, 7, 11])
def test_resume_goes_on_bitwise(tmp_path: Path, stop: int) -> None:
    path = tmp_path / "checkpoint.safetensors"
    whole = _net()
    expected = _fit(whole, callbacks=[train.EarlyStopping(patience=9)])

    def interrupt(run: train.Run) -> None:
        if run.step == stop:
            signal.raise_signal(signal.SIGINT)

    with pytest.raises(KeyboardInterrupt):
        _fit(_net(), callbacks=[train.EarlyStopping(patience=9), train.OnBatch(interrupt)], checkpoint=path)
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler
    assert train.checkpoint.load(path).info["step"] == stop
    resumed = _net(seed=7)
    callbacks = [train.EarlyStopping(patience=9), train.OnBatch(lambda run: None)]
    got = _fit(resumed, loader_seed=9, callbacks=callbacks, checkpoint=path, resume=True)
    np.testing.assert_array_equal(_weights(resumed), _weights(whole))
    assert _without_seconds(got.history) == _without_seconds(expected.history)
    assert got.best is not None
    assert expected.best is not None
    assert (got.best.epoch, got.best.value) == (expected.best.epoch, expected.best.value)
    for key, value in expected.best.state.items():
        np.testing.assert_array_equal(got.best.state[key].numpy(), value.numpy())


def test_resume_of_a_finished_run_trains_no_more(tmp_path: Path) -> None:
    path = tmp_path / "checkpoint.safetensors"
    net = _net()
    _fit(net, epochs=2, checkpoint=path)
    other = _net(seed=3)
    run = _fit(other, epochs=2, checkpoint=path, resume=True)
    np.testing.assert_array_equal(_weights(net), _weights(other))
    assert len(run.history) == 2
    assert _fit(other, epochs=3, checkpoint=path, resume=True).epoch == 3


def test_plain_batches_resume_too(tmp_path: Path) -> None:
    split = _split()
    batches = [(split.images[i : i + 16], split.labels[i : i + 16]) for i in range(0, 96, 16)]

    def fit(net: nn.Module, callbacks: list[train.Callback], resume: bool) -> None:
        optimizer = train.SGD(net.parameters(), lr=0.1, momentum=0.9)
        path = tmp_path / "c"
        train.fit(
            net,
            batches,
            optimizer=optimizer,
            loss=nn.CrossEntropyLoss(),
            epochs=2,
            callbacks=callbacks,
            checkpoint=path,
            resume=resume,
        )

    fit(whole := _net(), [], False)

    class Stop(train.Callback):
        def on_batch_end(self, run: train.Run) -> None:
            if run.step == 8:
                signal.raise_signal(signal.SIGINT)

    with pytest.raises(KeyboardInterrupt):
        fit(_net(), [Stop()], False)
    fit(resumed := _net(seed=2), [], True)
    np.testing.assert_array_equal(_weights(resumed), _weights(whole))


def test_early_stopping_waits_for_its_patience() -> None:
    net = _net()
    stopping = train.EarlyStopping(train.Monitor("loss"), patience=2)
    optimizer = train.SGD(net.parameters(), lr=0.0)
    run = _fit(net, 30, optimizer=optimizer, schedule=None, callbacks=[stopping])
    losses = [row["loss"] for row in run.history]
    assert len(losses) < 30
    assert min(losses) == losses[-4]
    stopping = train.EarlyStopping(train.Monitor("x", "max"), patience=1)
    for value, stops in ((1.0, False), (2.0, False), (1.5, False), (math.nan, True)):
        run.is_stopping = False
        run.history.append({"x": value})
        stopping.on_epoch_end(run)
        assert run.is_stopping is stops


def test_resume_needs_the_same_run(tmp_path: Path) -> None:
    path = tmp_path / "c"
    _fit(_net(), 1, checkpoint=path, callbacks=[train.EarlyStopping()])
    with pytest.raises(
        ValueError, match=r"fit: expected to resume .* with Adam and \['EarlyStopping'\], got Adam and \[\]"
    ):
        _fit(_net(), 2, checkpoint=path, resume=True)
    net = _net()
    with pytest.raises(ValueError, match=r"fit: expected to resume .* with Adam and .*, got SGD and"):
        _fit(net, 2, checkpoint=path, resume=True, optimizer=train.SGD(net.parameters()))
    with pytest.raises(ValueError, match="load_state_dict: expected the keys and shapes of Linear, got missing keys"):
        _fit(nn.Linear(3, 2), 2, checkpoint=path, resume=True, callbacks=[train.EarlyStopping()])


def test_loss_that_is_not_finite_ends_training_and_keeps_the_checkpoint(tmp_path: Path) -> None:
    path = tmp_path / "c"
    net = _net()

    def spoil(run: train.Run) -> None:
        if run.step == 8:
            run.optimizer.set_lr(0.0)
            striate.ops.assign(net[-1].bias, striate.full((4,), math.nan))

    with pytest.raises(FloatingPointError, match="fit: expected a finite loss, got nan at step 8 of epoch 2 with lr"):
        _fit(net, callbacks=[train.OnBatch(spoil)], checkpoint=path)
    assert train.checkpoint.load(path).info["epoch"] == 1


def test_evaluate_restores_modes_and_needs_samples() -> None:
    net = _net()
    net[2].eval()
    data = DataLoader(_split(40, 1), 16)
    found = train.evaluate(net, data, metrics={"accuracy": train.Accuracy(), "top": train.TopK(4)})
    assert list(found) == ["accuracy", "top"]
    assert found["top"] == 1
    assert net.training
    assert not net[2].training
    with pytest.raises(ValueError, match="evaluate: expected at least one sample"):
        train.evaluate(net, [])


def test_gradients_are_clipped() -> None:
    net = _net()
    norms = []

    def look(run: train.Run) -> None:
        norms.append(
            math.sqrt(sum(float((p.grad * p.grad).sum().item()) for p in net.parameters() if p.grad is not None))
        )

    _fit(net, 1, max_grad_norm=0.1, callbacks=[train.OnBatch(look)])
    assert max(norms) <= 0.1001


def test_what_is_made_again_gives_the_same_bits(monkeypatch: pytest.MonkeyPatch) -> None:
    graphs = []

    class Spy(TrainingStep):
        def __call__(self, x: striate.Tensor, y: striate.Tensor) -> tuple[striate.Tensor, striate.Tensor]:
            result = super().__call__(x, y)
            graphs.append(self.graph)
            return result

    monkeypatch.setattr("striate.train.loop.TrainingStep", Spy)

    def net() -> nn.Sequential:
        striate.manual_seed(0)
        blocks = [nn.Sequential(nn.Conv2d(c, 8, 3, padding=1), nn.BatchNorm2d(8), nn.SiLU()) for c in (1, 8, 8)]
        return nn.Sequential(nn.Normalize(0.4, 0.3), *blocks, nn.Flatten(), nn.Linear(512, 4))

    weights, n_nodes = [], []
    for recompute in (False, True):
        model = net()
        _fit(model, recompute=recompute)
        weights.append(_weights(model))
        n_nodes.append(len(graphs[-1].nodes))
    assert np.array_equal(*weights)
    assert n_nodes[1] > n_nodes[0]


def test_order_is_a_function_of_seed_and_epoch() -> None:
    seen: list[list[int]] = []

    class Spy(DataLoader):
        def __iter__(self) -> Any:
            for images, labels in super().__iter__():
                seen.append(labels.tolist())
                yield images, labels

    loader = Spy(_split(), 16, shuffle=True, seed=4)
    next(iter(loader))
    seen.clear()
    for _ in range(2):
        net = _net()
        train.fit(net, loader, optimizer=train.SGD(net.parameters()), loss=nn.CrossEntropyLoss(), epochs=2)
    assert seen[:12] == seen[12:]
    assert seen[:6] != seen[6:12]


def test_images_are_viewed_not_copied() -> None:
    images = np.zeros((2, 5, 4, 3), np.uint8)
    x, y = train.to_tensors((images, np.zeros(2, np.int64)))
    assert x.shape == (2, 3, 5, 4)
    assert np.shares_memory(x.numpy(), images)
    assert y.dtype == striate.int64


def test_refusals() -> None:
    net = _net()
    with pytest.raises(ValueError, match="fit: expected at least 1 epoch, got 0"):
        _fit(net, 0)
    with pytest.raises(ValueError, match="fit: expected compile=True with recompute=True, got compile=False"):
        _fit(net, compile=False, recompute=True)
    with pytest.raises(ValueError, match="fit: expected at least one batch of training data"):
        train.fit(net, [], optimizer=train.SGD(net.parameters()), loss=nn.CrossEntropyLoss(), epochs=1)
    with pytest.raises(ValueError, match=r"Monitor: expected a column of the history \(epoch, lr, .*got 'acc'"):
        _fit(net, 1, monitor=train.Monitor("acc", "max"))
    with pytest.raises(ValueError, match="Monitor: expected mode 'min' or 'max', got 'up'"):
        train.Monitor("x", "up")  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="EarlyStopping: expected patience of at least 0, got -1"):
        train.EarlyStopping(patience=-1)
    with pytest.raises(ValueError, match="TopK: expected k of at least 1, got 0"):
        train.TopK(0)


def test_metrics() -> None:
    scores = np.array([[3.0, 2, 1], [1, 2, 3], [2, 3, 1], [1, 1, 0]])
    labels = np.array([0, 1, 1, 1])
    assert train.Accuracy()(scores, labels) == 2
    assert train.TopK(2)(scores, labels) == 4
    assert train.TopK(1)(scores, labels) == 3
    counts = train.confusion_matrix(scores.argmax(axis=1), labels, 3)
    assert counts.tolist() == [[1, 0, 0], [1, 1, 1], [0, 0, 0]]
    precision, recall = train.precision_recall(counts)
    np.testing.assert_allclose(precision, [0.5, 1, 0])
    np.testing.assert_allclose(recall, [1, 1 / 3, np.nan])
    with pytest.raises(ValueError, match="confusion_matrix: expected classes from 0 to 1, got 0 to 2"):
        train.confusion_matrix(np.array([2]), np.array([0]), 2)


@pytest.mark.learning
@pytest.mark.slow
def test_digits() -> None:
    """At least 98 % of a held-out quarter of scikit-learn's digits, mean of five seeds."""
    from sklearn.datasets import load_digits
    from sklearn.model_selection import train_test_split

    data = load_digits()
    images = (data.images[..., None] * 15.9375).astype(np.uint8)
    names = tuple("0123456789")
    accuracies = []
    for seed in range(5):
        parts = train_test_split(
            images, data.target.astype(np.int64), test_size=0.25, random_state=seed, stratify=data.target
        )
        x, x_test, y, y_test = parts
        striate.manual_seed(seed)
        net = nn.Sequential(
            nn.Normalize(0.3, 0.38),
            nn.Conv2d(1, 16, 3, padding=1, bias=False),
            nn.BatchNorm2d(16),
            nn.ReLU(),
            nn.Conv2d(16, 32, 3, padding=1, bias=False),
            nn.BatchNorm2d(32),
            nn.ReLU(),
            nn.MaxPool2d(2),
            nn.Flatten(),
            nn.Linear(512, 10),
        )
        loader = DataLoader(Split(x, y, names), 32, shuffle=True, seed=seed)
        epochs = 8
        optimizer = train.SGD(net.parameters(), lr=0.05, momentum=0.9, nesterov=True, weight_decay=5e-4)
        rates = schedule.OneCycle(0.05, epochs * len(loader))
        train.fit(net, loader, optimizer=optimizer, schedule=rates, loss=nn.CrossEntropyLoss(), epochs=epochs)
        test = DataLoader(Split(x_test, y_test, names), 256)
        accuracies.append(train.evaluate(net, test, metrics={"accuracy": train.Accuracy()})["accuracy"])
    assert np.mean(accuracies) >= 0.98, accuracies
