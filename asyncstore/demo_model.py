"""The classifier of the demo: a small network in scikit-learn, kept as plain `.npy` files.

Everything here blocks: call it in a worker thread.
"""

from __future__ import annotations

import json
import warnings
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import threadpoolctl  # type: ignore[import-untyped]  # ships no types
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from numpy.typing import NDArray
from sklearn import datasets
from sklearn.metrics import ConfusionMatrixDisplay
from sklearn.model_selection import train_test_split
from sklearn.neural_network import MLPClassifier

__all__ = ["Digits", "Model", "Trainer", "load_digits", "one_thread_each"]

Floats = NDArray[np.float64]
Labels = NDArray[np.int64]
HIDDEN = (224, 64)
BATCH_SIZE = 200
MEMBERS = 5
CLASSES = np.arange(10)
SEED = 20


@dataclass(frozen=True)
class Digits:
    """Handwritten digits: images of 8 x 8 pixels from 0 to 16, and what they show."""

    images: Floats
    labels: Labels
    split: NDArray[np.str_]

    def part(self, name: str) -> tuple[Floats, Labels]:
        """The images and labels of `train`, `validation` or `test`."""
        chosen = self.split == name
        return self.images[chosen], self.labels[chosen]

    def write_parquet(self, path: Path) -> None:
        """The data set as a table: 64 pixels, the label, and the part it belongs to."""
        table = pd.DataFrame(self.images, columns=[f"pixel_{n}" for n in range(64)])
        table.assign(label=self.labels, split=self.split).to_parquet(path)


def load_digits() -> Digits:
    """scikit-learn's bundled digits, cut into 60 % train, 20 % validation and 20 % test."""
    images, labels = datasets.load_digits(return_X_y=True)
    split = np.full(len(labels), "train", dtype="<U10")
    _, rest = train_test_split(
        np.arange(len(labels)), test_size=0.4, random_state=SEED, stratify=labels
    )
    validation, test = train_test_split(
        rest, test_size=0.5, random_state=SEED, stratify=labels[rest]
    )
    split[validation], split[test] = "validation", "test"
    return Digits(images.astype(np.float64), labels.astype(np.int64), split)


def one_thread_each() -> AbstractContextManager[object]:
    """Keep linear algebra to the thread that asks for it, in the whole process, for the block.

    Networks that train at once share the cores better so, and sums come out the same to the last
    bit.
    """
    limits: AbstractContextManager[object] = threadpoolctl.threadpool_limits(1)
    return limits


Layers = list[tuple[Floats, Floats]]


@dataclass(frozen=True)
class Model:
    """An ensemble: the mean of what the network said at its best epochs.

    Args:
        mean: Mean of each pixel in the training images.
        scale: Standard deviation of each pixel, 1 where it never changes.
        members: Weights and bias of each layer, by epoch.
    """

    mean: Floats
    scale: Floats
    members: dict[int, Layers]

    def predict_probabilities(self, images: Floats) -> Floats:
        """The probability of each digit for each image."""
        outputs = [self._forward(layers, images) for layers in self.members.values()]
        return np.asarray(np.mean(outputs, axis=0), dtype=np.float64)

    def _forward(self, layers: Layers, images: Floats) -> Floats:
        values = (images - self.mean) / self.scale
        for weights, bias in layers[:-1]:
            values = np.maximum(values @ weights + bias, 0)
        weights, bias = layers[-1]
        logits = values @ weights + bias
        exponents = np.exp(logits - logits.max(axis=1, keepdims=True))
        return np.asarray(exponents / exponents.sum(axis=1, keepdims=True), dtype=np.float64)

    @staticmethod
    def load(directory: Path) -> Model:
        """Read a model directory, and check each member against the checkpoint history.

        Raises:
            ValueError: A member is not what the history has for its epoch.
        """
        described = json.loads((directory / "model.json").read_text())
        history = np.load(directory / "checkpoints.npy", mmap_mode="r", allow_pickle=False)
        members: dict[int, Layers] = {}
        for epoch in described["members"]:
            member = directory / "members" / f"epoch_{epoch:04}"
            layers: Layers = [
                (
                    np.load(member / f"layer_{n}_weights.npy", allow_pickle=False),
                    np.load(member / f"layer_{n}_bias.npy", allow_pickle=False),
                )
                for n in range(described["layers"])
            ]
            if not np.array_equal(_flat(layers), history[epoch]):
                raise ValueError(f"the member of epoch {epoch} differs from the checkpoint history")
            members[epoch] = layers
        return Model(
            np.load(directory / "scaler_mean.npy", allow_pickle=False),
            np.load(directory / "scaler_scale.npy", allow_pickle=False),
            members,
        )


class Trainer:
    """One network in training.

    Args:
        digits: The data.
        learning_rate: Adam's.
        epochs: How many `train_epoch` calls will come.
    """

    def __init__(self, digits: Digits, learning_rate: float, epochs: int) -> None:
        self._digits = digits
        images, self._labels = digits.part("train")
        self._mean = images.mean(axis=0)
        self._scale = images.std(axis=0)
        self._scale[self._scale == 0] = 1
        self._images = (images - self._mean) / self._scale
        held_out, self._validation_labels = digits.part("validation")
        self._validation = (held_out - self._mean) / self._scale
        self._network = MLPClassifier(
            HIDDEN,
            learning_rate_init=learning_rate,
            batch_size=BATCH_SIZE,
            alpha=0.01,
            random_state=SEED,
        )
        self._epoch = 0
        self._epochs = epochs
        self._history: Floats = np.empty((0, 0))
        self._losses: list[float] = []

    @property
    def history_size(self) -> int:
        """Bytes of the checkpoint history."""
        return self._history.nbytes

    @property
    def params(self) -> dict[str, Any]:
        """What to log about it."""
        return {
            "learning_rate": self._network.learning_rate_init,
            "hidden_layers": "x".join(str(size) for size in HIDDEN),
            "solver": self._network.solver,
            "batch_size": BATCH_SIZE,
            "l2": self._network.alpha,
            "epochs": self._epochs,
        }

    def train_epoch(self) -> dict[str, float]:
        """One pass over the training images.

        Returns:
            Loss and accuracy, on the training and on the validation images.
        """
        self._network.partial_fit(self._images, self._labels, classes=CLASSES)
        train_loss, train_accuracy = self._measure(self._images, self._labels)
        loss, accuracy = self._measure(self._validation, self._validation_labels)
        weights = _flat(self._layers())
        if self._epoch == 0:
            self._history = np.empty((self._epochs, len(weights)))
        self._history[self._epoch] = weights
        self._losses.append(loss)
        self._epoch += 1
        return {
            "train_loss": train_loss,
            "train_accuracy": train_accuracy,
            "validation_loss": loss,
            "validation_accuracy": accuracy,
        }

    def _measure(self, images: Floats, labels: Labels) -> tuple[float, float]:
        probabilities = self._network.predict_proba(images)
        right = np.maximum(probabilities[np.arange(len(labels)), labels], np.finfo(float).tiny)
        loss = float(-np.log(right).mean())
        return loss, float(np.mean(probabilities.argmax(axis=1) == labels))

    def _layers(self) -> Layers:
        return list(zip(self._network.coefs_, self._network.intercepts_, strict=True))

    def model(self) -> Model:
        """The ensemble of the epochs with the lowest validation loss."""
        best = sorted(np.argsort(self._losses)[:MEMBERS].tolist())
        shapes = [(weights.shape, bias.shape) for weights, bias in self._layers()]
        members = {epoch: _unflat(self._history[epoch], shapes) for epoch in best}
        return Model(self._mean, self._scale, members)

    def save(self, model: Model, directory: Path) -> None:
        """Write a model directory.

        `checkpoints.npy` is the history of all weights, a row an epoch, from which the members were
        taken; `expected_probabilities.npy` is what the model says of the test images.
        """
        layers = len(HIDDEN) + 1
        described = {
            "members": list(model.members),
            "layers": layers,
            "learning_rate": self._network.learning_rate_init,
            "validation_losses": self._losses,
        }
        directory.mkdir(parents=True)
        (directory / "model.json").write_text(json.dumps(described, indent=2))
        np.save(directory / "checkpoints.npy", self._history)
        np.save(directory / "scaler_mean.npy", model.mean)
        np.save(directory / "scaler_scale.npy", model.scale)
        np.save(
            directory / "expected_probabilities.npy",
            model.predict_probabilities(self._digits.part("test")[0]),
        )
        for epoch, member in model.members.items():
            below = directory / "members" / f"epoch_{epoch:04}"
            below.mkdir(parents=True)
            for number, (weights, bias) in enumerate(member):
                np.save(below / f"layer_{number}_weights.npy", weights)
                np.save(below / f"layer_{number}_bias.npy", bias)

    def draw_confusion_matrix(self, model: Model, path: Path) -> None:
        """What was shown against what was read, for the test images, as PNG."""
        images, labels = self._digits.part("test")
        figure = Figure(figsize=(6, 6), layout="constrained")
        FigureCanvasAgg(figure)
        axes = figure.add_subplot()
        with warnings.catch_warnings():
            # A digit that was never predicted is no news.
            warnings.simplefilter("ignore", UserWarning)
            ConfusionMatrixDisplay.from_predictions(
                labels,
                model.predict_probabilities(images).argmax(axis=1),
                ax=axes,
                colorbar=False,
                labels=CLASSES,
            )
        figure.savefig(path)


def same_as_expected(directory: Path, probabilities: Floats) -> bool:
    """Whether these are, to the last bit, what the model of a directory said when it was saved."""
    expected = np.load(directory / "expected_probabilities.npy", allow_pickle=False)
    return bool(np.array_equal(expected, probabilities))


def _flat(layers: Layers) -> Floats:
    return np.concatenate([part.ravel() for layer in layers for part in layer])


def _unflat(flat: Floats, shapes: list[tuple[tuple[int, ...], tuple[int, ...]]]) -> Layers:
    layers: Layers = []
    offset = 0
    for pair in shapes:
        parts = []
        for shape in pair:
            size = int(np.prod(shape))
            parts.append(flat[offset : offset + size].reshape(shape).copy())
            offset += size
        layers.append((parts[0], parts[1]))
    return layers
