"""One channel of a colour space against the other two."""

from jaxtyping import Float
from torch import Generator, Tensor

from ml import spec, views
from ml.views import Views
from ml.views.color import to_color_space


@views.implements(spec.ColorSplit)
def color_split(recipe: spec.ColorSplit, images: Float[Tensor, "B 3 H W"], generator: Generator) -> Views:
    """The first channel against the rest of the same pixels, or of another crop where `recipe.before` makes two."""
    if recipe.before is None:
        return split(recipe, images)
    crop1, crop2 = views.make(recipe.before, images, generator)
    return split(recipe, crop1)[0], split(recipe, crop2)[1]


@views.cleans(spec.ColorSplit)
def clean_split(recipe: spec.ColorSplit, images: Float[Tensor, "B 3 H W"]) -> Views:
    """The planes of the image itself."""
    return split(recipe, images)


def split(recipe: spec.ColorSplit, images: Float[Tensor, "B 3 H W"]) -> Views:
    """Channel `recipe.first` in `recipe.space`, and the other two in their order."""
    planes = to_color_space(images, recipe.space)
    others = [channel for channel in range(3) if channel != recipe.first]
    return planes[:, recipe.first : recipe.first + 1], planes[:, others]
