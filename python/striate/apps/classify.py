"""Tell pictures apart: train a classifier, load it again, predict and evaluate."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

import striate
from striate import data, machine, models, nn, train
from striate.apps import picture
from striate.apps.progress import Reporter
from striate.apps.run import RunFolder
from striate.autograd import Tensor, no_grad
from striate.io import safetensors

MODEL_NAMES = models.names("classify")
EVALUATION_BATCH = 256


@dataclass(frozen=True, slots=True)
class Recipe:
    """How to train: everything that, with the data, decides the weights.

    Parameters
    ----------
    model : str
        A name of `striate.models.names("classify")`.
    epochs : int
        Passes over the training set.
    batch_size : int
        Images in a step; a smaller training set is one batch.
    lr : float
        Highest learning rate of the one-cycle schedule.
    weight_decay : float
        Factor of the L2 penalty.
    label_smoothing : float
        Share of the target spread over all classes.
    crop_padding : int
        Pixels by which a picture may be shifted; 0 for none.
    flip : bool
        Whether a picture may be mirrored.
    val_fraction : float
        Share of the training set held out for validation.
    size : int, optional
        Side to which pictures of a folder are scaled; None leaves the choice to `striate.data.image_folder`.
    seed : int
        Of weights, order, augmentation and the validation set.

    Raises
    ------
    ValueError
        When a value is out of range.
    """

    model: str = "plain-16"
    epochs: int = 15
    batch_size: int = 64
    lr: float = 0.1
    weight_decay: float = 5e-4
    label_smoothing: float = 0.0
    crop_padding: int = 2
    flip: bool = True
    val_fraction: float = 0.1
    size: int | None = None
    seed: int = 0

    def __post_init__(self) -> None:
        """Refuse values out of range."""
        if self.model not in MODEL_NAMES:
            raise ValueError(f"train: expected a model of {', '.join(MODEL_NAMES)}, got {self.model!r}")
        for name in ("epochs", "batch_size"):
            if getattr(self, name) < 1:
                raise ValueError(f"train: expected {name} ≥ 1, got {getattr(self, name)}")
        if not 0 < self.lr < float("inf"):
            raise ValueError(f"train: expected a positive learning rate, got lr={self.lr}")

    def but(self, **changes: Any) -> Recipe:
        """Return the recipe with those changes that are not None."""
        return replace(self, **{name: value for name, value in changes.items() if value is not None})


#: What `striate train` does when nothing else is asked, tuned on validation data.
RECIPES = {
    "embedded": Recipe(epochs=10, crop_padding=1, flip=False),
    "fashion-mnist": Recipe(epochs=12, batch_size=128, crop_padding=1),
    "folder": Recipe(epochs=30, lr=0.05),
}


def default_recipe(source: str | None) -> Recipe:
    """Return the recipe for a DATA argument: None or embedded, fashion-mnist, or a folder."""
    return RECIPES.get(source or "embedded", RECIPES["folder"])


@dataclass(frozen=True, slots=True, eq=False)
class Task:
    """The data of a run, divided, and the recipe to train with.

    Parameters
    ----------
    source : str
        embedded, fashion-mnist, or the absolute path of an image folder.
    recipe : Recipe
    train_set, val_set, test_set : Split
        Validation is held out of the training set; the test set is looked at once, at the end.
    """

    source: str
    recipe: Recipe
    train_set: data.Split
    val_set: data.Split
    test_set: data.Split

    @classmethod
    def new(cls, source: str | None, recipe: Recipe) -> Task:
        """Read and divide the data.

        Parameters
        ----------
        source : str or None
            DATA argument: None or embedded, fashion-mnist, or an image folder.
        recipe : Recipe

        Raises
        ------
        ValueError, OSError
            As the readers of `striate.data` do; or when the pictures are too small for the network.
        """
        if source is None or source == "embedded":
            source = "embedded"
            kept, test_set = data.embedded()
        elif source == "fashion-mnist":
            kept, test_set = data.fashion_mnist()
        else:
            kept, test_set = data.image_folder_splits(source, size=recipe.size)
            source = str(Path(source).resolve())
        train_set, val_set = data.hold_out(kept, recipe.val_fraction, seed=recipe.seed)
        task = cls(source, recipe, train_set, val_set, test_set)
        task.build()
        return task

    @classmethod
    def resumed(cls, run: RunFolder) -> Task:
        """Read the data and the recipe of a run that was stopped.

        Raises
        ------
        ValueError, OSError
            When the folder is not that of a run, the run is finished, or its data is not what it was.
        """
        config = run.read_config()
        if run.is_finished:
            raise ValueError(f"train: expected a run that was stopped, got {run.path}, which has its result.json")
        try:
            task = cls.new(str(config["source"]), Recipe(**config["recipe"]))
        except (KeyError, TypeError) as error:
            raise ValueError(f"train: expected a config.json of this version in {run.path}, got {error!r}") from error
        described = task.describe()
        for name in ("classes", "image_shape", "n_train", "n_val", "n_test"):
            if described[name] != config.get(name):
                raise ValueError(
                    f"train: expected the data this run began with, {name} = {config.get(name)}, "
                    f"got {described[name]} in {task.source}; put the data back or start a new run"
                )
        return task

    @property
    def image_shape(self) -> tuple[int, ...]:
        """Height, width and channels."""
        return self.train_set.images.shape[1:]

    @property
    def data_name(self) -> str:
        """Short name of the data, for a folder."""
        return Path(self.source).name or "run"

    def describe(self) -> dict[str, Any]:
        """Return what `config.json` holds."""
        return {
            "format": 1,
            "source": self.source,
            "recipe": asdict(self.recipe),
            "classes": list(self.train_set.classes),
            "image_shape": list(self.image_shape),
            "n_train": len(self.train_set),
            "n_val": len(self.val_set),
            "n_test": len(self.test_set),
        }

    def build(self) -> nn.Module:
        """Build the network, its weights drawn from the seed, with the normalisation of the training set."""
        striate.manual_seed(self.recipe.seed)
        return build(self.describe(), *data.channel_statistics(self.train_set.images))


def build(config: Mapping[str, Any], mean: NDArray[np.float32], std: NDArray[np.float32]) -> nn.Module:
    """Build the network that a `config.json` describes, and its pictures' normalisation, so that weights are all it needs."""
    height, width, channels = config["image_shape"]
    network = models.build(
        config["recipe"]["model"], len(config["classes"]), in_channels=channels, image_size=(height, width)
    )
    normalize = nn.Normalize(mean.tolist(), std.tolist())
    return nn.Sequential({"normalize": normalize, "network": network})


@dataclass(frozen=True, slots=True, eq=False)
class Verdict:
    """What an evaluation counted.

    Parameters
    ----------
    classes : tuple of str, length K
    counts : ndarray of int64, shape (K, K)
        Images of class i (row) that were classified as j (column).
    loss : float
        Mean cross-entropy.
    """

    classes: tuple[str, ...]
    counts: NDArray[np.int64]
    loss: float

    @property
    def accuracy(self) -> float:
        """Share of the images classified correctly."""
        return float(np.trace(self.counts) / self.counts.sum())

    def per_class(self) -> list[dict[str, Any]]:
        """Return name, number of images, precision and recall of each class; None where nothing was counted."""
        precision, recall = train.precision_recall(self.counts)
        return [
            {
                "class": name,
                "n_images": int(self.counts[k].sum()),
                "precision": None if np.isnan(precision[k]) else float(precision[k]),
                "recall": None if np.isnan(recall[k]) else float(recall[k]),
            }
            for k, name in enumerate(self.classes)
        ]


def evaluate(model: nn.Module, split: data.Split) -> Verdict:
    """Classify every image of a split.

    Parameters
    ----------
    model : Module
    split : Split
        At least one image.

    Returns
    -------
    Verdict
    """
    n_classes = len(split.classes)
    counts = np.zeros((n_classes, n_classes), np.int64)

    def count(scores: NDArray[Any], labels: NDArray[np.int64]) -> float:
        nonlocal counts
        counts += train.confusion_matrix(scores.argmax(axis=1), labels, n_classes)
        return 0.0

    batches = data.DataLoader(split, EVALUATION_BATCH)
    means = train.evaluate(model, batches, loss=nn.CrossEntropyLoss(), metrics={"counts": count})
    return Verdict(split.classes, counts, means["loss"])


class Trained:
    """A network of a run folder, ready to use.

    Parameters
    ----------
    run : RunFolder
        Of a run that has finished at least one epoch.

    Raises
    ------
    ValueError, OSError
        When the folder is not that of a run, or its files do not fit together.
    """

    def __init__(self, run: RunFolder) -> None:
        """Read the configuration and the weights."""
        config = run.read_config()
        try:
            self.classes = tuple(config["classes"])
            self.height, self.width, self.channels = config["image_shape"]
            self.source = str(config["source"])
            zero = np.zeros(self.channels, np.float32)
            self.model = build(config, zero, zero + 1)
        except (KeyError, TypeError) as error:
            raise ValueError(f"run: expected a config.json of this version in {run.path}, got {error!r}") from error
        if not run.model.is_file():
            raise FileNotFoundError(
                f"run: expected a trained network in {run.path}, got no {run.model.name}; "
                f"run striate train --resume {run.path}"
            )
        self.model.load_state_dict(safetensors.load(run.model))
        self.model.eval()

    def predict(self, path: str | os.PathLike[str]) -> list[tuple[str, float]]:
        """Return every class and its probability for one picture, the most probable first.

        Raises
        ------
        ValueError, OSError
            When the file is missing or not a picture.
        """
        image = data.read_image(path, size=(self.height, self.width), channels=self.channels)
        share = probabilities(self.model, image[None])[0]
        return [(self.classes[k], float(share[k])) for k in np.argsort(-share, kind="stable")]

    def test_split(self, source: str) -> data.Split:
        """Read the images to evaluate on: the test set where there is one, else all of a folder.

        Parameters
        ----------
        source : str
            embedded, fashion-mnist, or an image folder. The folder this network was trained on gives the part that
            training held out.

        Raises
        ------
        ValueError, OSError
            As the readers of `striate.data` do, or when classes or sizes are not those of the network.
        """
        size = self.height, self.width
        root = Path(source)
        if source in ("embedded", "fashion-mnist"):
            _, split = data.embedded() if source == "embedded" else data.fashion_mnist()
            if split.classes != self.classes or split.images.shape[1:] != (*size, self.channels):
                raise ValueError(
                    f"evaluate: expected data with the classes {', '.join(self.classes)}, got {source} with "
                    f"{', '.join(split.classes)}; pass an image folder"
                )
        elif str(root.resolve()) == self.source:
            _, split = data.image_folder_splits(root, size=size, channels=self.channels)
        else:
            is_divided = (root / "train").is_dir() and (root / "test").is_dir()
            split = data.image_folder(
                root / "test" if is_divided else root, size=size, channels=self.channels, classes=self.classes
            )
        return split


def load(run: RunFolder) -> Trained:
    """Load the network of a run folder, see `Trained`."""
    return Trained(run)


def probabilities(model: nn.Module, images: NDArray[np.uint8]) -> NDArray[np.float64]:
    """Return the probability of each class for each image: (N, H, W, C) gives (N, K)."""
    with no_grad():
        logits = model(striate.from_numpy(images).permute(0, 3, 1, 2)).numpy().astype(np.float64)
    powers: NDArray[np.float64] = np.exp(logits - logits.max(axis=1, keepdims=True))
    return np.asarray(powers / powers.sum(axis=1, keepdims=True))


def feature_maps(model: nn.Module, image: NDArray[np.uint8]) -> list[tuple[str, NDArray[np.float32]]]:
    """Return name and output, shape (C, H, W), of each ReLU and pooling layer for one picture; else of convolutions."""
    for kinds in ((nn.ReLU, nn.MaxPool2d), (nn.Conv2d,)):
        seen: list[tuple[str, NDArray[np.float32]]] = []
        handles = [
            module.register_forward_hook(_remember(seen, f"{path.removeprefix('network.')} {type(module).__name__}"))
            for path, module in model.named_modules()
            if isinstance(module, kinds)
        ]
        try:
            probabilities(model, image[None])
        finally:
            for handle in handles:
                handle.remove()
        if seen:
            break
    return seen


def _remember(seen: list[tuple[str, NDArray[np.float32]]], name: str) -> Callable[[nn.Module, Any, Tensor], None]:
    """Make a hook that keeps a copy of an output that is a picture."""

    def note(module: nn.Module, inputs: Any, y: Tensor) -> None:
        if y.ndim == 4 and min(y.shape[2:]) > 1:
            seen.append((name, y.detach().numpy()[0].copy()))

    return note


def train_task(task: Task, run: RunFolder, reporter: Reporter) -> dict[str, Any]:
    """Train a network, or go on with it, evaluate it once on the test set, and fill the run folder.

    Parameters
    ----------
    task : Task
    run : RunFolder
        New, or holding the checkpoint of an earlier part of the same run.
    reporter : Reporter

    Returns
    -------
    dict
        What `result.json` holds.

    Raises
    ------
    FloatingPointError
        When the loss is not finite; the folder keeps the last good epoch.
    KeyboardInterrupt
        After a checkpoint is written.
    """
    recipe, classes = task.recipe, task.train_set.classes
    model = task.build()
    reporter.say(
        f"{task.data_name}: {len(task.train_set):,} training, {len(task.val_set):,} validation and "
        f"{len(task.test_set):,} test images, {len(classes)} classes, {'×'.join(map(str, task.image_shape))}"
    )
    n_parameters = sum(p.size for p in model.parameters())
    reporter.say(
        f"{recipe.model}: {n_parameters:,} parameters; {machine.thread_count()} threads, {machine.active_isa()}"
    )
    run.write_json("config.json", task.describe())
    history = fit(model, task, run, reporter)
    model.eval()
    verdict = evaluate(model, task.test_set)
    title = f"Test set: {verdict.accuracy:.1%} of {len(task.test_set):,} images"
    run.write("curves.png", picture.draw_curves(history))
    run.write("confusion.png", picture.draw_confusion(verdict.counts, classes, title=title))
    run.write("filters.png", draw_filters(model))
    run.write("feature_maps.png", draw_feature_maps(model, task.test_set))
    result = {
        "test_accuracy": verdict.accuracy,
        "test_loss": verdict.loss,
        "n_test": len(task.test_set),
        "epochs": recipe.epochs,
        "per_class": verdict.per_class(),
    }
    # Last of all: that this file exists means that the run is complete.
    run.write_json("result.json", result)
    return result


class _Record(train.Callback):
    """Tell the reporter of every step, and keep weights and history of every epoch."""

    def __init__(self, run: RunFolder, reporter: Reporter, batch_size: int) -> None:
        """Keep where to write and whom to tell."""
        self.run = run
        self.reporter = reporter
        self.batch_size = batch_size

    def on_train_begin(self, run: train.Run) -> None:
        """Start the clock; of an epoch that was begun before, only the rest is to come."""
        self.reporter.begin(run.step / (run.step - run.batch) * run.epoch if run.epoch else 0.0)

    def on_batch_end(self, run: train.Run) -> None:
        """Show the averages of the epoch so far."""
        means = run.means()
        done = run.batch / (run.n_batches or run.batch)
        self.reporter.batch(run.epoch, done, means["loss"], means["accuracy"], run.n_samples / run.seconds)

    def on_epoch_end(self, run: train.Run) -> None:
        """Write what an epoch leaves behind; the checkpoint follows."""
        safetensors.save(run.model.state_dict(), self.run.model)
        self.run.write_history(run.history)
        row = run.history[-1]
        self.reporter.epoch(row, (run.n_batches or 0) * self.batch_size / row["seconds"])


def fit(model: nn.Module, task: Task, run: RunFolder, reporter: Reporter) -> list[dict[str, float]]:
    """Train the epochs of a recipe that are not done yet; return the history."""
    recipe = task.recipe
    augmentation: list[data.Transform] = []
    if recipe.crop_padding:
        augmentation.append(data.RandomCrop(recipe.crop_padding))
    if recipe.flip:
        augmentation.append(data.RandomHorizontalFlip())
    batches = data.DataLoader(
        task.train_set,
        min(recipe.batch_size, len(task.train_set)),
        shuffle=True,
        seed=recipe.seed,
        drop_last=True,
        transform=data.Compose(*augmentation),
    )

    state = train.fit(
        model,
        batches,
        data.DataLoader(task.val_set, EVALUATION_BATCH),
        optimizer=train.SGD(
            model.parameters(), lr=recipe.lr, momentum=0.9, nesterov=True, weight_decay=recipe.weight_decay
        ),
        loss=nn.CrossEntropyLoss(label_smoothing=recipe.label_smoothing),
        epochs=recipe.epochs,
        schedule=train.schedule.OneCycle(recipe.lr, recipe.epochs * len(batches)),
        metrics={"accuracy": train.Accuracy()},
        callbacks=[_Record(run, reporter, batches.batch_size)],
        checkpoint=run.checkpoint,
        resume=True,
    )
    return state.history


def draw_filters(model: nn.Module) -> bytes:
    """Draw the filters of the first convolution of a network."""
    path, first = next((path, module) for path, module in model.named_modules() if isinstance(module, nn.Conv2d))
    return picture.draw_filters(first.weight.detach().numpy(), name=path.removeprefix("network."))


def draw_feature_maps(model: nn.Module, split: data.Split) -> bytes:
    """Draw what each layer makes of the first picture of a split that the network gets right, or else of the first."""
    share = probabilities(model, split.images[:EVALUATION_BATCH])
    right = np.flatnonzero(share.argmax(axis=1) == split.labels[:EVALUATION_BATCH])
    i = int(right[0]) if len(right) else 0
    best = int(share[i].argmax())
    title = f"{split.classes[split.labels[i]]}\nclassified as {split.classes[best]} ({share[i, best]:.1%})"
    layers = feature_maps(model, split.images[i])
    keep = np.unique(np.linspace(0, len(layers) - 1, min(len(layers), 12)).round().astype(int))
    return picture.draw_feature_maps(split.images[i], [layers[k] for k in keep], title=title)
