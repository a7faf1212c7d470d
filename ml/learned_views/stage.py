"""The stage of an experiment in which its views are learned, what it shows of them, and what it leaves to take away."""

from collections.abc import Callable, Generator, Iterator
from typing import Any

import torch
from jaxtyping import Float, Int64
from safetensors.torch import save
from torch import Tensor

from ml import distributed, encoders, spec, takeaway, tasks, views
from ml.datasets import Data, Split
from ml.events import Artifact, Checkpoint, Event, Stage
from ml.learned_views import Found, pictures
from ml.learned_views.flow import Flow
from ml.learned_views.game import Game
from ml.learned_views.learning import Crops, Labelled, Learning, Outcome, play
from ml.optimiser import Diverged
from ml.views import Views

EXAMINED = 256  # images on which the inverse of what was learned is tried
MOST_ERROR = 1e-4  # of the inverse, in units of the base space
SHOWN = 6


def learn(
    asked: spec.ExperimentSpec, data: Data, generator: Callable[[str], torch.Generator], resume: Checkpoint | None
) -> Generator[Event, None, tuple[spec.ExperimentSpec, Outcome | None]]:
    """The spec with its views as they are from here on: where they are to be learned, with the map that was found.

    From a checkpoint of this stage it goes on, and of a later one it takes what was found. `generator` makes one for each
    purpose, always the same. Where several processes train, each learns all of it, and the first one's map counts.

    Raises Diverged.
    """
    recipe = asked.views
    if not isinstance(recipe, spec.Learned):
        return asked, None
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(generator("views").initial_seed())
        flow = Flow(recipe).to(data.device)
        outcome = None if resume is None else Outcome.recalled(resume, flow)
        game = None if outcome is not None else _game(asked, recipe, flow, data)
    if game is not None:
        yield Stage("views")
        learning = Learning.begin(game, generator("view chances"))
        if resume is not None:
            learning.resume(resume)
        labelled = _labelled(recipe, data, generator("view labels")) if recipe.labelled else None
        yield from play(learning, _crops(recipe, data), labelled)
        distributed.as_the_first(flow)
        outcome = Outcome.of(learning)
        _refuse_what_cannot_be_undone(outcome.report(_images(data, data.train))["inverse_error"])
    return asked.model_copy(update={"views": Found.of(recipe, flow)}), outcome


def show(asked: spec.ExperimentSpec, data: Data) -> Iterator[Artifact]:
    """The learned map, to look at and to take away."""
    recipe = asked.views
    assert isinstance(recipe, Found), "as `learn` leaves it"
    yield Artifact("learned_channels.png", "image/png", pictures.channels(recipe, data, SHOWN, asked.seed))
    yield Artifact("learned_colours.png", "image/png", pictures.colour_space(recipe))
    weights = {name: tensor.contiguous() for name, tensor in recipe.channels.state_dict().items()}
    yield Artifact("view_generator.safetensors", "application/octet-stream", save(weights))
    yield Artifact("view_generator.py", "text/x-python", takeaway.view_generator(asked).encode())


def examine(data: Data, outcome: Outcome) -> dict[str, Any]:
    """What results say of the learned map, tried on some held-out images."""
    return outcome.report(_images(data, data.test))


def _images(data: Data, split: Split) -> Float[Tensor, "B 3 H W"]:
    images: Tensor = split.take(torch.arange(min(len(split), EXAMINED), device=data.device))
    return images


def _refuse_what_cannot_be_undone(error: float) -> None:
    if not error < MOST_ERROR:
        raise Diverged(f"the inverse of the learned map is wrong by {error:.1g}; fewer /views/blocks or a lower rate may help")


def _game(asked: spec.ExperimentSpec, recipe: spec.Learned, flow: Flow, data: Data) -> Game:
    """Against encoders of the experiment's own architecture."""

    def encoder(channels: int) -> encoders.Encoder:
        return encoders.build(asked.encoder, channels, asked.method.norm)

    game = Game(recipe, flow, encoder, data.facts.classes or 0, asked.pretrain.precision == "bfloat16").to(data.device)
    return game.to(memory_format=torch.channels_last)  # type: ignore[call-overload, no-any-return] # as methods are


def _crops(recipe: spec.Learned, data: Data) -> Crops:
    everything = torch.arange(len(data.train), device=data.device)

    def crops(chances: torch.Generator) -> Views:
        return _two(recipe, data.train.take(_some(everything, recipe.batch_size, chances)), chances)

    return crops


def _labelled(recipe: spec.Learned, data: Data, chances: torch.Generator) -> Labelled:
    y = data.train.targets["label"]
    known = (y >= 0).nonzero()[:, 0]
    allowed = known[tasks.labelled(y[known], recipe.labels, chances)]

    def labelled(chances: torch.Generator) -> tuple[Views, Int64[Tensor, " B"]]:
        chosen = _some(allowed, recipe.labelled_batch_size, chances)
        return _two(recipe, data.train.take(chosen), chances), y[chosen]

    return labelled


def _some(items: Int64[Tensor, " N"], count: int | None, chances: torch.Generator) -> Int64[Tensor, " B"]:
    return items[torch.randperm(len(items), generator=chances, device=chances.device)[:count]]


def _two(recipe: spec.Learned, images: Tensor, chances: torch.Generator) -> Views:
    """The two crops of each image that g maps; the image twice where `recipe.before` makes none."""
    return (images, images) if recipe.before is None else views.make(recipe.before, images, chances)
