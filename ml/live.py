"""What the encoders are good for while they train: accuracies on other training items, so that no held-out item is looked at."""

import math
from collections.abc import Iterator

import torch
import torch.nn.functional as F
from jaxtyping import Float, Float64, Int64
from torch import Generator, Tensor

from ml import spec
from ml.datasets import Data
from ml.events import Metric
from ml.methods import Method
from ml.tasks.knn import weighted_votes
from ml.tasks.localization import ridge

FITTED = 1024  # training items at most whose classes are known
SCORED = 512  # others, whose classes are foretold
FEWEST = 32  # of which an accuracy is worth drawing
SHARE = 0.03  # of pretraining's cost that may be spent
COST = 6  # of training on a pair, in passes of one view: two views forward, and backward at twice the cost
MOST_POINTS = 20
PENALTY = 0.1  # of the ridge, for each item: it spares directions in which standardised features hardly move
NEIGHBOURS = 200
TEMPERATURE = 0.1  # of votes, as in Wu et al. 2018


class Live:
    """Reads the encoders at some steps of pretraining, the last among them; at none where items have no class or are too few.

    Which steps and which items these are depends on the spec and on `generator` alone, and reading changes nothing. The weights
    are those that train, also where their average is what will be measured.
    """

    def __init__(self, asked: spec.ExperimentSpec, data: Data, generator: Generator) -> None:
        self._recipe = asked.views
        self._split = data.train
        self._steps: frozenset[int] = frozenset()
        found = _target(asked, data)
        if found is None:
            return
        target, self._classes = found
        self._labels = data.train.targets[target]
        known = (self._labels >= 0).nonzero()[:, 0]
        order = torch.randperm(len(known), generator=generator, device=generator.device).to(known.device)
        chosen = known[order[: FITTED + SCORED]]
        scored = len(chosen) * SCORED // (FITTED + SCORED)
        self._scored, self._fitted = chosen[:scored], chosen[scored:]
        if scored >= FEWEST:
            self._steps = points(asked.pretrain, data.facts.train, len(chosen))

    def measure(self, method: Method, step: int) -> Iterator[Metric]:
        """`probe_accuracy` and `knn_accuracy` after this many steps, if it is time for them."""
        if step not in self._steps:
            return
        training = method.training
        method.eval()
        fitted, scored = (method.features(self._recipe, self._split, items) for items in (self._fitted, self._scored))
        method.train(training)
        if not (torch.isfinite(fitted).all() and torch.isfinite(scored).all()):
            return  # the loss will be none either, which is said elsewhere
        y, truth = self._labels[self._fitted], self._labels[self._scored]
        answers = {
            "probe_accuracy": linear_scores(fitted, y, scored, self._classes),
            "knn_accuracy": weighted_votes(scored, fitted, y, self._classes, self._neighbours, TEMPERATURE),
        }
        for name, of_classes in answers.items():
            yield Metric(name, step, (of_classes.argmax(dim=1) == truth).double().mean().item())

    @property
    def _neighbours(self) -> int:
        """As many as have the query's class, on average."""
        return min(max(len(self._fitted) // self._classes, 1), NEIGHBOURS)


def points(pretrain: spec.Pretrain, items: int, read: int) -> frozenset[int]:
    """The steps after which so many items are read: evenly spread, the last of all among them, and no more than SHARE allows."""
    steps = pretrain.total_steps(items)
    affordable = int(SHARE * COST * steps * (pretrain.batch_size or 256) / read)
    count = min(max(affordable, 1), MOST_POINTS, steps)
    return frozenset(math.ceil(steps * point / count) for point in range(1, count + 1))


def linear_scores(
    x: Float[Tensor, "N F"], y: Int64[Tensor, " N"], queries: Float[Tensor, "M F"], classes: int
) -> Float64[Tensor, "M C"]:
    """Of each query by ridge regression of the classes' indicators on standardised features, which takes no steps."""
    mean, std = x.mean(dim=0), x.std(dim=0)
    std = torch.where(std > 1e-6, std, 1.0)
    weights, biases = ridge((x - mean) / std, F.one_hot(y, classes).double(), PENALTY * len(x))
    return ((queries - mean) / std).double() @ weights + biases


def _target(asked: spec.ExperimentSpec, data: Data) -> tuple[str, int] | None:
    """The target with its classes: the first that a task predicts of the items that are trained on, or else their first."""
    classes = {name: count for name, count in data.facts.targets().items() if count and name in data.train.targets}
    asked_for = [task.target for task in asked.tasks if task.dataset in (None, asked.dataset)]
    return next(((name, classes[name]) for name in (*asked_for, *classes) if name in classes), None)
