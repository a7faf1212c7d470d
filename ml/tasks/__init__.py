"""What a frozen representation is good for: tasks on features of clean images. One file a task."""

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from statistics import median_low

import torch
from jaxtyping import Float, Float64, Int64
from torch import Generator, Tensor

from ml import spec
from ml.registry import Registry
from ml.tasks import bootstrap

LABEL_DRAWS = 10
Z = 1.959963985  # of a 95 % interval


@dataclass(frozen=True, eq=False)
class Features:
    """Frozen features of a dataset's two splits, with what is to be predicted of each item.

    Targets are class indices int64 [N], or places in pixels float [N, 2]; `classes` is 0 for places.
    """

    train: Float[Tensor, "N F"]
    train_targets: Tensor
    test: Float[Tensor, "M F"]
    test_targets: Tensor
    classes: int


@dataclass(frozen=True, eq=False)
class Answer:
    """What a task says of the held-out items: class indices int64 [M], or places in pixels float [M, 2]."""

    predictions: Tensor
    fitted: Mapping[str, float] = field(default_factory=dict)
    """What it was fitted with, as asked for or as the labelled items decided."""


@dataclass(frozen=True)
class Score:
    """How well a task is done on the held-out items."""

    metric: str
    """`accuracy`, of which more is better, or `pixels`, of which less is."""
    value: float
    ci: tuple[float, float]
    """95 %, over the held-out items and the draws of a label budget (not over seeds)."""
    chance: float
    """What always giving the same answer would score: the commonest class, or the mean place, of the labelled items."""
    per_class: tuple[float | None, ...] | None = None
    """Accuracy on the items of each class; None for a class without held-out items."""
    supervised: float | None = None
    """Accuracy of the supervised reference in the task's place; None where there is none."""
    fitted: Mapping[str, float] | None = None
    """What a linear probe was fitted with, `penalty` and perhaps `learning_rate`: medians over the draws of a label budget."""


_tasks: Registry[Callable[..., Answer]] = Registry(__name__)
implements = _tasks.implements


def evaluate(task: spec.Task, features: Features, generator: Generator) -> tuple[Score, Float64[Tensor, " M"]]:
    """Learn the task from labelled training items, and score its predictions on all held-out items; what each item scored, too.

    A label budget is drawn LABEL_DRAWS times and the scores are averaged, because with few labels it matters which ones they
    are. For the interval the draws are a chance of their own, as seeds would be: it is about any labels of that number, not about
    these. Equal generators draw the same items for every task with the same budget.
    """
    draws = 1 if task.labels is None else LABEL_DRAWS
    budgets = [labelled(features.train_targets, task.labels, generator) for _ in range(draws)]  # before all other chances
    values, chances, fitted = [], [], []
    for chosen in budgets:
        answer = _tasks.find(task)(task, features, chosen, generator)
        constant = _constant(features.train_targets[chosen])
        values.append(_merits(answer.predictions, features.test_targets))
        fitted.append(answer.fitted)
        chances.append(_merits(constant.expand_as(features.test_targets), features.test_targets).mean().item())
    by_draw, chance = torch.stack(values), sum(chances) / draws
    merits = by_draw.mean(dim=0)
    value = merits.mean().item()
    if features.classes == 0:
        return Score("pixels", value, bootstrap.interval(by_draw, generator), chance), merits
    all_alike = bool((by_draw == by_draw[0, 0]).all())  # of which resampling would make an interval of no width
    ci = wilson(value, len(merits)) if all_alike else bootstrap.interval(by_draw, generator)
    usual = {name: median_low(of_draw[name] for of_draw in fitted) for name in fitted[0]}
    return Score("accuracy", value, ci, chance, _per_class(merits, features), fitted=usual or None), merits


def standardised(features: Features, labelled: Int64[Tensor, " L"]) -> tuple[Float[Tensor, "L F"], Float[Tensor, "M F"]]:
    """Features of the labelled items and of the held-out ones, by mean and deviation over the training split, labels or not."""
    mean, std = features.train.mean(dim=0), features.train.std(dim=0)
    std = torch.where(std > 1e-6, std, 1.0)  # a feature that never moves in training says nothing in testing either
    return (features.train[labelled] - mean) / std, (features.test - mean) / std


def labelled(targets: Tensor, budget: int | None, generator: Generator) -> Int64[Tensor, " L"]:
    """Indices of the items whose labels may be used: all, or so many, of classes drawn evenly as long as they have items left."""
    if budget is None:
        return torch.arange(len(targets), device=targets.device)
    order = torch.randperm(len(targets), generator=generator, device=generator.device).to(targets.device)
    if targets.is_floating_point():
        return order[:budget]
    rank = torch.empty_like(order)  # of an item within its class, in the random order
    for label in targets.unique():
        members = targets[order] == label
        rank[members] = torch.arange(int(members.sum()), device=targets.device)
    return order[rank.argsort(stable=True)[:budget]]


def wilson(share: float, trials: int) -> tuple[float, float]:
    """95 % interval of a proportion. Wilson 1927."""
    centre = (share + Z**2 / (2 * trials)) / (1 + Z**2 / trials)
    half = Z / (1 + Z**2 / trials) * math.sqrt(share * (1 - share) / trials + Z**2 / (4 * trials**2))
    return centre - half, centre + half


def _constant(targets: Tensor) -> Tensor:
    """The best answer without a look at the item."""
    return targets.mean(dim=0) if targets.is_floating_point() else torch.bincount(targets).argmax()


def _merits(predictions: Tensor, targets: Tensor) -> Float64[Tensor, " M"]:
    """Of each item: 1 for the right class and 0 for a wrong one, or the distance from the right place in pixels."""
    if targets.is_floating_point():
        return (predictions.double() - targets.double()).square().sum(dim=1).sqrt()
    return (predictions == targets).double()


def _per_class(merits: Float64[Tensor, " M"], features: Features) -> tuple[float | None, ...]:
    counts = torch.bincount(features.test_targets, minlength=features.classes)
    sums = torch.bincount(features.test_targets, weights=merits, minlength=features.classes)
    return tuple(right / of if of else None for right, of in zip(sums.tolist(), counts.tolist(), strict=True))
