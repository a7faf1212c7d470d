"""Intervals by resampling what a mean was taken over: held-out items, and seeds or draws of labels."""

from collections.abc import Iterator, Sequence

import torch
from jaxtyping import Float, Float64
from torch import Generator, Tensor

RESAMPLES = 2000
AT_A_TIME = 2**22  # draws of items, to spare memory


def interval(merits: Float[Tensor, "S M"], generator: Generator) -> tuple[float, float]:
    """95 % of the mean of what each of S seeds scored on each of M items, by the percentiles of RESAMPLES resampled means.

    Items are drawn with replacement, the same ones for all seeds, which share the held-out items; and so are seeds, S - 1 at a
    time, which makes the variance the right one (Rao, Wu 1988). Both at once is a little on the safe side (Owen 2007), but of
    two or three seeds percentiles cannot know the tails: Student's t of their means is then the better interval.
    """
    (means,) = _resampled((merits,), generator)
    return _percentiles(means)


def difference(merits_a: Float[Tensor, "S M"], merits_b: Float[Tensor, "T M"], generator: Generator) -> tuple[float, float]:
    """95 % of the mean of a less the mean of b, paired by item: what is hard for both does not widen it."""
    a, b = _resampled((merits_a, merits_b), generator)
    return _percentiles(a - b)


def _resampled(groups: Sequence[Float[Tensor, "_ M"]], generator: Generator) -> Iterator[Float64[Tensor, " R"]]:
    """The resampled means of each group of seeds; the items of a resample are the same for all groups."""
    merits = torch.cat(tuple(groups)).double().to(generator.device)
    items = merits.shape[1]
    at_a_time = max(AT_A_TIME // items, 1)
    parts = [min(at_a_time, RESAMPLES - first) for first in range(0, RESAMPLES, at_a_time)]
    means = torch.cat([_counts(part, items, items, generator) @ merits.T / items for part in parts])
    for of_group in means.split([len(group) for group in groups], dim=1):
        draws = max(of_group.shape[1] - 1, 1)
        yield (_counts(RESAMPLES, of_group.shape[1], draws, generator) * of_group).sum(dim=1) / draws


def _counts(resamples: int, things: int, draws: int, generator: Generator) -> Float64[Tensor, "R things"]:
    """How often each of so many things is drawn, in each resample."""
    drawn = torch.randint(things, (resamples, draws), generator=generator, device=generator.device)
    counts = torch.zeros(resamples, things, dtype=torch.float64, device=generator.device)
    return counts.scatter_add_(1, drawn, torch.ones_like(drawn, dtype=torch.float64))


def _percentiles(means: Float64[Tensor, " R"]) -> tuple[float, float]:
    low, high = means.quantile(means.new_tensor((0.025, 0.975))).tolist()
    return low, high
