"""The steps of the game, from its beginning or from a checkpoint."""

import math
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Float, Int64
from torch import Generator, Tensor, nn
from torch.optim import Adam

from ml import optimiser
from ml.events import Checkpoint, Event, Metric, Progress
from ml.learned_views.flow import Flow
from ml.learned_views.game import Game
from ml.views import Views

METRIC_POINTS = 50  # of each metric in a game
WARM_UP = 0.1  # share of the steps in which a low reading is the encoders', who know little yet, and g is not pushed up for it

Crops = Callable[[Generator], Views]
"""Two crops of each of a batch of items."""
Labelled = Callable[[Generator], tuple[Views, Int64[Tensor, " B"]]]
"""The same of labelled items, with their classes."""


@dataclass(eq=False)
class Learning:
    """What changes while views are learned, and what a checkpoint therefore holds."""

    game: Game
    generator: Generator
    of_critics: Adam | None
    """None where nobody plays against g."""
    of_g: Adam
    """Of g and the classifiers."""
    step: int = 0
    seconds: float = 0.0

    @classmethod
    def begin(cls, game: Game, generator: Generator) -> "Learning":
        """Before the first step. Adam with momenta .5 and .999, as in the paper."""
        return cls(game, generator, _adam(game.critics) if len(game.critics) else None, _adam(game.flow, game.classifiers))

    def snapshot(self) -> Checkpoint:
        """A copy, in main memory."""
        tensors = {f"game.{name}": tensor for name, tensor in self.game.state_dict().items()}
        tensors |= optimiser.moments(self.of_g, "of_g")
        if self.of_critics is not None:
            tensors |= optimiser.moments(self.of_critics, "of_critics")
        tensors["generator"] = self.generator.get_state()
        copies = {name: tensor.detach().to("cpu", copy=True).contiguous() for name, tensor in tensors.items()}
        return Checkpoint(self.step, copies, {"seconds": self.seconds})

    def resume(self, checkpoint: Checkpoint) -> None:
        """Go on from there."""
        within = {name.removeprefix("game."): at for name, at in checkpoint.tensors.items() if name.startswith("game.")}
        self.game.load_state_dict(within)
        optimiser.restore(self.of_g, checkpoint.tensors, "of_g")
        if self.of_critics is not None:
            optimiser.restore(self.of_critics, checkpoint.tensors, "of_critics")
        self.generator.set_state(checkpoint.tensors["generator"])
        self.step = checkpoint.step
        self.seconds = checkpoint.scalars["seconds"]


@dataclass(frozen=True, eq=False)
class Outcome:
    """What is left of a game that is over: g, and how it came about."""

    flow: Flow
    steps: int
    seconds: float
    i_nce: float | None
    """The game's last reading in nats; None where nobody played against g."""

    @classmethod
    def of(cls, learning: Learning) -> "Outcome":
        """Of a game that has been played to its end."""
        reading = learning.game.reading.item()
        return cls(learning.game.flow, learning.step, learning.seconds, None if math.isnan(reading) else reading)

    def kept(self) -> tuple[dict[str, Tensor], dict[str, float]]:
        """The tensors and the numbers by which checkpoints of later stages hold it."""
        numbers = {"views_steps": self.steps, "views_seconds": self.seconds, "views_i_nce": self.i_nce}
        weights = {f"views.{name}": tensor for name, tensor in self.flow.state_dict().items()}
        return weights, {name: float(number) for name, number in numbers.items() if number is not None}

    @staticmethod
    def stands_in(checkpoint: Checkpoint) -> bool:
        """Whether it is one of a later stage."""
        return "views_steps" in checkpoint.scalars

    @classmethod
    def recalled(cls, checkpoint: Checkpoint, flow: Flow) -> "Outcome | None":
        """From a checkpoint of a later stage, into a flow of the same shape; None where that is not one."""
        if not cls.stands_in(checkpoint):
            return None
        numbers = checkpoint.scalars
        weights = {name.removeprefix("views."): at for name, at in checkpoint.tensors.items() if name.startswith("views.")}
        flow.load_state_dict(weights)
        return cls(flow, int(numbers["views_steps"]), numbers["views_seconds"], numbers.get("views_i_nce"))

    @torch.no_grad()
    def report(self, images: Float[Tensor, "B 3 H W"]) -> dict[str, Any]:
        """For `results.views`: how far the inverse misses these RGB images at most, and log|det J| from the base space on."""
        planes = self.flow.based(images)
        volumes = self.flow.log_abs_det(planes)
        return {
            "steps": self.steps,
            "i_nce": self.i_nce,
            "inverse_error": (self.flow.inverse(self.flow.moved(planes)) - planes).abs().max().item(),
            "log_abs_det": {"mean": volumes.mean().item(), "min": volumes.min().item(), "max": volumes.max().item()},
        }


def play(learning: Learning, crops: Crops, labelled: Labelled | None) -> Iterator[Event]:
    """Play to the end. Raises Diverged."""
    game, recipe = learning.game.train(), learning.game.recipe
    assert recipe.steps is not None, "a resolved recipe has it"
    every = max(math.ceil(recipe.steps / METRIC_POINTS), 1)
    while learning.step < recipe.steps:
        started = time.perf_counter()
        falls = 0.2 ** sum(learning.step >= share * recipe.steps for share in (0.6, 0.8))
        if learning.of_critics is not None:
            optimiser.set_rate(learning.of_critics, recipe.critic_learning_rate * falls)
            for _ in range(recipe.critic_steps):
                _critics_step(game, learning.of_critics, crops(learning.generator))
        optimiser.set_rate(learning.of_g, recipe.learning_rate * falls)
        seen = labelled(learning.generator) if labelled is not None else None
        pair = crops(learning.generator) if len(game.critics) else None
        loss, told = _g_step(game, learning.of_g, pair, seen, least_push=0.0 if learning.step < WARM_UP * recipe.steps else -1.0)
        learning.step += 1
        learning.seconds += time.perf_counter() - started
        if learning.step % every == 0 or learning.step == recipe.steps:
            optimiser.finite(loss, learning.step)
            for name, value in told.items():
                yield Metric(name, learning.step, value.item())
        yield Progress("views", learning.step, recipe.steps, learning.snapshot)


def _critics_step(game: Game, of_critics: Adam, crops: Views) -> None:
    """The encoders find more of what the views share."""
    with torch.no_grad():
        v1, v2 = game.views(*crops)
    of_critics.zero_grad()
    game.critics_loss(v1, v2).backward()
    of_critics.step()


def _g_step(
    game: Game, of_g: Adam, crops: Views | None, labelled: tuple[tuple[Tensor, Tensor], Tensor] | None, least_push: float
) -> tuple[Tensor, dict[str, Tensor]]:
    """g leaves less of it, but what tells the classes apart; the loss, and what there is to tell."""
    losses: list[Tensor] = []
    told: dict[str, Tensor] = {}
    game.critics.requires_grad_(requires_grad=False)
    if crops is not None:
        i_nce = game.i_nce(*game.views(*crops))
        game.read(i_nce)
        push = game.push().clamp(min=least_push)
        losses.append(push * i_nce)
        told |= {"views_i_nce": game.reading, "views_push": push}
    if labelled is not None:
        crops_with_class, y = labelled
        cross_entropy = game.cross_entropy(*game.views(*crops_with_class), y)
        losses.append(game.recipe.label_weight * cross_entropy)
        told["views_cross_entropy"] = cross_entropy.detach() / 2
    loss = torch.stack(losses).sum()
    of_g.zero_grad()
    loss.backward()
    of_g.step()
    game.critics.requires_grad_(requires_grad=True)
    return loss, told


def _adam(*networks: nn.Module) -> Adam:
    parameters = [parameter for network in networks for parameter in network.parameters()]
    return Adam(parameters, lr=0.0, betas=(0.5, 0.999), fused=True)
