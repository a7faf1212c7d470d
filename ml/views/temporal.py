"""Two frames of a clip."""

import torch
from jaxtyping import Float
from torch import Generator, Tensor

from ml import spec, views
from ml.datasets.clips import Clips
from ml.datasets.scenes import LATER, Scenes
from ml.views import Views, drawn


@views.implements(spec.Temporal)
def temporal(recipe: spec.Temporal, clips: Clips | Scenes, generator: Generator) -> Views:
    """v1 at a uniform time, v2 `recipe.gap` frames later."""
    times = torch.randint(clips.length - recipe.gap, (len(clips), 1), generator=generator, device=clips.device)
    times = torch.cat((times, times + recipe.gap), dim=1)
    drawn.note("frames", times)
    v1, v2 = clips.frames(times).unbind(dim=1)
    return v1, v2


@views.cleans(spec.Temporal)
def clean_frame(recipe: spec.Temporal, clips: Clips | Scenes) -> tuple[Float[Tensor, "B C H W"]]:
    """The frame in the middle of each clip; of a scene its later image, in which the task of position asks for the digit."""
    time = LATER if isinstance(clips, Scenes) else clips.length // 2
    return (clips.frames(torch.full((len(clips), 1), time, device=clips.device))[:, 0],)
