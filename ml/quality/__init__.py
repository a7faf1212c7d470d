"""Measures of a representation that need no labels, read on held-out items. One file a measure."""

import math
from collections.abc import Callable, Generator
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from ml import spec, views
from ml.datasets import Data
from ml.events import Checkpoint, Progress
from ml.methods import Method
from ml.quality import alignment, alpha_req, lidar, rankme, uniformity

MOST_ITEMS = 1000  # whose views are compared
PAIRS = 5000  # of views in all, about, and undisturbed items at most
ROUNDS = (5, 25)  # of pairs of each item, at least and at most: LiDAR's 10 to 50 views, or half as many of each kind
CHUNK = 512  # items whose views are made at a time


@dataclass(frozen=True)
class Quality:
    """What held-out items tell of a representation without their labels; LiDAR to uniformity are of embeddings of views."""

    lidar: float
    """Effective number of dimensions in which items are told apart, up to the embedding's width; more is better."""
    rankme: float
    """Effective number of dimensions that are used, up to the embedding's width; more is better."""
    alignment: float
    """Mean squared distance of an item's two views on the unit sphere, 0 to 4; less is better."""
    uniformity: float
    """Log of the mean Gaussian potential of different items on the unit sphere, from about -4 to 0; less is better."""
    alpha_req: float | None
    """Exponent by which the spectrum of the features decays; nearer to 1 is better. None where too few dimensions vary."""
    items: int
    """Held-out items whose views were compared."""
    views: int
    """Views of each item that LiDAR compares."""


def measure(
    asked: spec.ExperimentSpec, data: Data, method: Method, chances: torch.Generator, snapshot: Callable[[], Checkpoint]
) -> Generator[Progress, None, Quality]:
    """The measures, of fresh views of held-out items; alpha-ReQ of undisturbed items, as the tasks read them.

    LiDAR, RankMe, alignment and uniformity read the projections, as in their papers, here on the unit sphere where the loss
    compares them, and alpha-ReQ the features before them. Of each item as many pairs are drawn as make 5000 of at most 1000
    items, but no fewer than 5 and no more than 25. Where v1 and v2 are of one kind both count as views of the item to LiDAR;
    where they are not, it is the mean of both kinds, as RankMe and uniformity always are. Photographs have no undisturbed
    patches, nor are patches disturbed: there alpha-ReQ reads each v1.
    """
    shuffled = torch.randperm(len(data.test), generator=chances, device=chances.device)
    compared = shuffled[:MOST_ITEMS]
    rounds = min(max(math.ceil(PAIRS / len(compared)), ROUNDS[0]), ROUNDS[1])
    patches = isinstance(asked.views, spec.Patches)
    pairs = [items for _ in range(rounds) for items in compared.split(CHUNK)]
    alone = pairs if patches else list(shuffled[:PAIRS].split(CHUNK))
    embedded, features, steps = [], [], len(pairs) + len(alone)
    for step, items in enumerate(pairs, start=1):
        v1, v2 = method.views(asked.views, data.test.take(items), chances)
        with torch.no_grad():
            embedded.append(method.embeddings(v1, v2))
        yield Progress("quality", step, steps, snapshot)
    for step, items in enumerate(alone, start=len(pairs) + 1):
        taken = data.test.take(items)
        inputs = views.make(asked.views, taken, chances)[:1] if patches else views.clean(asked.views, taken)
        with torch.no_grad():
            features.append(torch.cat([encoder(view) for encoder, view in zip(method.encoders, inputs, strict=True)], dim=1))
        yield Progress("quality", step, steps, snapshot)
    z1, z2 = (torch.cat(view).unflatten(0, (rounds, len(compared))) for view in zip(*embedded, strict=True))
    of_items = [z.transpose(0, 1) for z in (z1, z2)]
    if v1.shape == v2.shape and not asked.views.two_kinds:
        of_items = [torch.cat(of_items, dim=1)]
    return Quality(
        lidar=_mean([lidar.lidar(z) for z in of_items]),
        rankme=_mean([rankme.rankme(z.flatten(0, 1)) for z in (z1, z2)]),
        alignment=alignment.alignment(z1.flatten(0, 1), z2.flatten(0, 1)).item(),
        uniformity=_mean([uniformity.uniformity(z) for z in (z1, z2)]),
        alpha_req=alpha_req.alpha_req(torch.cat(features)),
        items=len(compared),
        views=of_items[0].shape[1],
    )


def _mean(numbers: list[Float[Tensor, ""]]) -> float:
    return torch.stack(numbers).mean().item()
