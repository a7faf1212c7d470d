"""One channel of a learned colour space against the other two. Tian et al. 2020, section 4.3."""

from jaxtyping import Float
from torch import Generator, Tensor

from ml import spec, views
from ml.learned_views import Found
from ml.views import Views
from ml.views.color import to_color_space


@views.implements(Found)
@views.implements(spec.Learned)
def learned(recipe: spec.Learned, images: Float[Tensor, "B 3 H W"], generator: Generator) -> Views:
    """Channel 0 of the first crop, and 1 and 2 of the second; of the image itself where `recipe.before` makes no crops."""
    if recipe.before is None:
        return split(recipe, images)
    crop1, crop2 = views.make(recipe.before, images, generator)
    return split(recipe, crop1)[0], split(recipe, crop2)[1]


@views.cleans(Found)
@views.cleans(spec.Learned)
def clean_split(recipe: spec.Learned, images: Float[Tensor, "B 3 H W"]) -> Views:
    """The channels of the image itself."""
    return split(recipe, images)


def split(recipe: spec.Learned, images: Float[Tensor, "B 3 H W"]) -> Views:
    """The first channel and the other two: those of the base space, where learning begins, as long as nothing was learned."""
    channels = recipe.channels(images) if isinstance(recipe, Found) else to_color_space(images, recipe.base_space)
    return channels[:, :1], channels[:, 1:]
