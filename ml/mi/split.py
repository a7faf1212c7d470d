"""What of the shared information is about a class y and what is not: I(v1; v2) = I(v1; v2; y) + I(v1; v2 | y), the chain rule.

The nuisance part I(v1; v2 | y) is InfoNCE with strangers of the pair's own class alone, and the task part is the rest: where
views are best, the nuisance part is 0 and the task part I(x; y). Tian et al. 2020, proposition 3.1. Both readings are of one
critic in the same batches, so that at their ceilings, log K and log K / C, the difference still reads the log C of C equal
classes.
"""

import math
from dataclasses import dataclass

import torch
from jaxtyping import Float, Float64, Int64
from torch import Tensor

from ml.mi import Estimate, infonce


@dataclass(frozen=True)
class Split:
    """The information that two views share, in nats, as the sum of two parts; standard errors are over the same items."""

    total: Estimate
    nuisance: Estimate
    """I(v1; v2 | y); its `log_k` is the mean log of the candidates there are of a pair's own class."""
    task: Estimate
    """Total less nuisance."""


def of_one_class(
    scores: Float[Tensor, "K K"], classes: Int64[Tensor, " K"]
) -> list[tuple[Int64[Tensor, " k"], Float[Tensor, "k k"]]]:
    """Of each class in a batch which pairs are of it, and their scores among themselves; class -1 stands for none."""
    members = [(classes == label).nonzero()[:, 0] for label in classes[classes >= 0].unique()]
    return [(which, scores[which][:, which]) for which in members]


def contributions(
    scores: Float[Tensor, "K K"], classes: Int64[Tensor, " K"]
) -> tuple[Int64[Tensor, " M"], Float64[Tensor, " M"], Float64[Tensor, " M"]]:
    """Of the pairs that have a class: which they are, what each contributes to the nuisance part, and the log of its candidates.

    The candidates are the k pairs of its class, itself included; where that is all there are, it contributes 0 = log 1.
    """
    blocks = of_one_class(scores, classes)
    nothing = torch.empty(0, dtype=torch.float64, device=scores.device)
    return (
        torch.cat([nothing.long(), *(which for which, _ in blocks)]),
        torch.cat([nothing, *(infonce.contributions(block) for _, block in blocks)]),
        torch.cat([nothing, *(torch.full_like(block[0].double(), math.log(len(block))) for _, block in blocks)]),
    )


def split(total: Float64[Tensor, " N"], nuisance: Float64[Tensor, " N"], log_candidates: Float64[Tensor, " N"], k: int) -> Split:
    """The parts, from what each item contributed to the total, found among `k`, and to the nuisance part."""
    whole = infonce.from_items(total, math.log(k))
    other = infonce.from_items(nuisance, log_candidates.mean().item())
    near = " and ".join(name for name, part in (("total", whole), ("nuisance", other)) if part.low)
    task = Estimate(
        value=whole.value - other.value,
        stderr=((total - nuisance).std() / math.sqrt(len(total))).item(),
        kind="neither",
        caution=f"near the ceiling: {near}; the difference of two lower bounds may be off either way" if near else None,
    )
    return Split(whole, other, task)
