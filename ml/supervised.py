"""The supervised reference: what networks trained with labels can tell of a class from an item, and from its views.

The best views keep all that the item says of the class, I(v1; y) = I(v2; y) = I(x; y): Tian et al. 2020, proposition 3.1. What
they miss is measured by networks of the encoder's own architecture, trained alike on the undisturbed x and on each view.
"""

import copy
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

import torch
import torch.nn.functional as F
from jaxtyping import Float, Float64, Int64
from torch import Tensor, nn

from ml import optimiser as optimisers
from ml.encoders import PixelEncoder
from ml.mi import Estimate, probe
from ml.mi.critics import silent
from ml.mi.probe import Answers, Classes
from ml.optimiser import learning_rate, set_rate
from ml.spec import Pretrain
from ml.views import Inputs

SHARE = 6  # of pretraining's steps one in so many
MOST_BATCH = 128
MOST_EPOCHS = 20  # over the labelled items, which would be learned by heart
TOLERATED = 0.05  # nats that a view may miss

Triple = tuple[Inputs, Inputs, Inputs]
"""What the three networks are given: x, which is two inputs where v1 and v2 are of two kinds, v1 and v2."""


@dataclass(frozen=True)
class Missing:
    """What views keep of what an item says of its class, in nats, by the supervised reference."""

    x: Estimate
    """I_V(x; y): of the undisturbed item."""
    v1: Estimate
    v2: Estimate
    missing_v1: Estimate
    """I(x; y) - I(v1; y): a difference of two lower bounds, its standard error over the same items."""
    missing_v2: Estimate
    holds: bool
    """Whether I(v1; y) = I(v2; y) = I(x; y) within 2 standard errors or TOLERATED nats, the larger of the two."""
    accuracy: float
    """Of the reference on undisturbed held-out items."""
    steps: int
    """In which it was trained."""


class Reference(nn.Module):
    """Three networks that start alike, so that what nothing was done to is read alike: of x, of v1 and of v2."""

    def __init__(self, encoders: Sequence[PixelEncoder], examples: Triple, classes: Mapping[str, int]) -> None:
        """`encoders` are fresh: one for all, or one of v1 and one of v2. `classes` are those of each target."""
        super().__init__()
        self.networks = nn.ModuleList(
            _Network(copy.deepcopy(own), inputs, classes)
            for own, inputs in zip((encoders, encoders[:1], encoders[-1:]), examples, strict=True)
        )

    def forward(self, inputs: Triple) -> dict[str, Float[Tensor, "3 B C"]]:
        """Logits of each target's classes from x, v1 and v2."""
        logits = [network(of_one) for network, of_one in zip(self.networks, inputs, strict=True)]
        return {target: torch.stack([of_one[target] for of_one in logits]) for target in logits[0]}


class _Network(nn.Module):
    def __init__(self, encoders: Sequence[PixelEncoder], inputs: Inputs, classes: Mapping[str, int]) -> None:
        super().__init__()
        self.encoders = nn.ModuleList(encoders)
        widths = [
            encoder.features if view.ndim == 4 else encoder.clip_features for encoder, view in zip(encoders, inputs, strict=True)
        ]
        self.heads = nn.ModuleDict({target: silent(sum(widths), count) for target, count in classes.items()})

    def forward(self, inputs: Inputs) -> dict[str, Float[Tensor, "B C"]]:
        features = torch.cat([encoder(view) for encoder, view in zip(self.encoders, inputs, strict=True)], dim=1)
        return {target: head(features) for target, head in self.heads.items()}


def steps(pretrain: Pretrain, items: int, labelled: int) -> int:
    """In which the reference is trained: a sixth of pretraining's over `items`, as long as it sees labelled items often enough.

    With batches of half the size, the three networks see an eighth of what pretraining sees.
    """
    epochs = MOST_EPOCHS * math.ceil(labelled / _batch_size(pretrain))
    return max(min(pretrain.total_steps(items) // SHARE, epochs), 1)


def _batch_size(pretrain: Pretrain) -> int:
    return max(min((pretrain.batch_size or 256) // 2, MOST_BATCH), 2)  # batch norm needs two


def train(
    reference: Reference,
    pretrain: Pretrain,
    steps: int,
    items: Int64[Tensor, " L"],
    labels: Mapping[str, Int64[Tensor, " N"]],
    draw: Callable[[Int64[Tensor, " B"]], Triple],
    generator: torch.Generator,
) -> Iterator[None]:
    """Train for so many steps on these items, of which `draw` makes fresh views; yields after each step.

    `labels` are those of all items, by target.
    """
    reference.train()
    optimiser = optimisers.build(reference, pretrain)
    batch_size = min(_batch_size(pretrain), len(items))
    order = items[:0]
    for step in range(steps):
        if len(order) < batch_size:
            order = items[torch.randperm(len(items), generator=generator, device=generator.device)]
        chosen, order = order[:batch_size], order[batch_size:]
        logits = reference(draw(chosen))
        losses = [F.cross_entropy(of_one, labels[target][chosen]) for target, answers in logits.items() for of_one in answers]
        set_rate(optimiser, learning_rate(pretrain, step, steps))
        optimiser.zero_grad()
        torch.stack(losses).sum().backward()
        optimiser.step()
        yield
    reference.eval()


def missing(x: Answers, v1: Answers, v2: Answers, classes: Classes, steps: int, probed: Estimate | None = None) -> Missing | None:
    """What the reference's answers on held-out items say of the views; None where its training came to no numbers.

    Where a probe of the pretrained encoders tells more than the reference, a caution says so.
    """
    if not all(torch.isfinite(part).all() for answers in (x, v1, v2) for part in (answers.calibration, answers.evaluation)):
        return None
    of_x, of_v1, of_v2 = (probe.contributions(answers, classes) for answers in (x, v1, v2))
    losses = _difference(of_x, of_v1), _difference(of_x, of_v2)
    right = x.evaluation.argmax(dim=1) == classes.evaluation
    told = probe.estimate(of_x)
    if probed is not None and probed.value - told.value > 2 * math.hypot(probed.stderr, told.stderr):
        more = f"after {steps} steps it tells less than the encoders' probe, {probed.value:.2f} nats"
        told = replace(told, caution=f"low, and so may be what views miss: {more}")
    return Missing(
        x=told,
        v1=probe.estimate(of_v1),
        v2=probe.estimate(of_v2),
        missing_v1=losses[0],
        missing_v2=losses[1],
        holds=all(loss.value <= max(TOLERATED, 2 * loss.stderr) for loss in losses),
        accuracy=right.double().mean().item(),
        steps=steps,
    )


def _difference(of_x: Float64[Tensor, " N"], of_view: Float64[Tensor, " N"]) -> Estimate:
    paired = of_x - of_view
    return Estimate(paired.mean().item(), (paired.std() / math.sqrt(len(paired))).item(), "neither")
