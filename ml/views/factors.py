"""Views of a wandering digit that share chosen factors and no others."""

import torch
from jaxtyping import Float, Int64
from torch import Generator, Tensor

from ml import spec, views
from ml.datasets.scenes import LATER, PAST, Scenes
from ml.views import Views, drawn


@views.implements(spec.Factors)
def factors(recipe: spec.Factors, scenes: Scenes, generator: Generator) -> Views:
    """v1 [B T 3 64 64] is the last of the past frames, v2 [B 3 64 64] a later image of a scene that shares `recipe.shared`.

    Of the items only the digits are kept: all else is drawn anew for v1, and what is not shared once more for v2. A shared
    background is the same crop of the same image, and a shared position the same path: v2 shows where v1's digit will be.
    """
    past = scenes.redrawn(("digit",), generator)
    later = past.redrawn(recipe.shared, generator)
    if "digit" in recipe.shared and recipe.digit_by == "class":
        later = later.rewritten(generator)
    if drawn.is_recording():
        for scene in (past, later):
            drawn.note("digit", scene.split.digit_labels[scene.digits])
            drawn.note("background", scene.backgrounds)
            row, column = scene.positions(_later(scene))[:, 0].unbind(dim=1)
            drawn.note("later position x, y", column, row, unit="px")  # v1 itself ends earlier
    times = torch.arange(PAST - recipe.frames, PAST, device=generator.device)
    return past.frames(times.expand(len(past), -1)), later.frames(_later(later))[:, 0]


@views.cleans(spec.Factors)
def clean_factors(recipe: spec.Factors, scenes: Scenes) -> tuple[Float[Tensor, "B 3 64 64"]]:
    """The later images of the items themselves."""
    return (scenes.frames(_later(scenes))[:, 0],)


def _later(scenes: Scenes) -> Int64[Tensor, "B 1"]:
    return torch.full((len(scenes), 1), LATER, device=scenes.device)
