"""What a frozen representation is good for: tasks on features of clean images. One file a task."""

import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
from jaxtyping import Float, Int64
from torch import Generator, Tensor

from ml import spec
from ml.registry import Registry

LABEL_DRAWS = 10


@dataclass(frozen=True, eq=False)
class Features:
    """Frozen features of a dataset's two splits, with their labels."""

    train: Float[Tensor, "N F"]
    train_labels: Int64[Tensor, " N"]
    test: Float[Tensor, "M F"]
    test_labels: Int64[Tensor, " M"]
    classes: int


@dataclass(frozen=True)
class Score:
    """How well a task is done on the held-out items."""

    metric: str
    value: float
    ci: tuple[float, float]
    """95 %, over the held-out items (not over seeds)."""
    chance: float
    """What always answering the commonest class among the labelled items would score."""


_tasks: Registry[Callable[..., Int64[Tensor, " M"]]] = Registry(__name__)
implements = _tasks.implements


def evaluate(task: spec.Task, features: Features, generator: Generator) -> Score:
    """Learn the task from labelled training items, and score its predictions on all held-out items.

    A label budget is drawn LABEL_DRAWS times and the accuracies are averaged, because with few labels it matters which ones they
    are. Equal generators draw the same items for every task with the same budget.
    """
    draws = 1 if task.labels is None else LABEL_DRAWS
    correct, chance = [], []
    for _ in range(draws):
        chosen = labelled(features.train_labels, task.labels, generator)
        predictions = _tasks.find(task)(task, features, chosen)
        commonest = torch.bincount(features.train_labels[chosen]).argmax()
        correct.append((predictions == features.test_labels).double().mean().item())
        chance.append((commonest == features.test_labels).double().mean().item())
    value = sum(correct) / draws
    return Score("accuracy", value, ci=wilson(value, len(features.test_labels)), chance=sum(chance) / draws)


def labelled(labels: Int64[Tensor, " N"], budget: int | None, generator: Generator) -> Int64[Tensor, " L"]:
    """Indices of the items whose labels may be used: drawn evenly over the classes, or from those that have items left."""
    if budget is None:
        return torch.arange(len(labels), device=labels.device)
    order = torch.randperm(len(labels), generator=generator, device=generator.device).to(labels.device)
    rank = torch.empty_like(order)  # of an item within its class, in the random order
    for label in labels.unique():
        members = labels[order] == label
        rank[members] = torch.arange(int(members.sum()), device=labels.device)
    return order[rank.argsort(stable=True)[:budget]]


def wilson(share: float, trials: int) -> tuple[float, float]:
    """95 % interval of a proportion; on the safe side for a mean over draws, which spreads less. Wilson 1927."""
    z = 1.959963985
    centre = (share + z**2 / (2 * trials)) / (1 + z**2 / trials)
    half = z / (1 + z**2 / trials) * math.sqrt(share * (1 - share) / trials + z**2 / (4 * trials**2))
    return centre - half, centre + half
