"""Overlapping patches of an image in rows, as CPC takes them. van den Oord, Li, Vinyals 2018; Henaff et al. 2020, section 3."""

import torch
from jaxtyping import Float, Int64
from torch import Generator, Tensor

from ml import spec, views
from ml.views import Views, augment, drawn


@views.implements(spec.PatchGrid)
def patch_grid(recipe: spec.PatchGrid, images: Float[Tensor, "B C H W"], generator: Generator) -> Views:
    """v1 is a patch that has others below it, v2 one of those in its column: both uniform."""
    patches = grid(recipe, augmented(recipe, images, generator))
    B, rows, columns = patches.shape[:3]
    column = torch.randint(columns, (B,), generator=generator, device=images.device)
    row1 = torch.randint(rows - 1, (B,), generator=generator, device=images.device)
    below = torch.rand(B, generator=generator, device=images.device) * (rows - 1 - row1)
    row2 = row1 + 1 + below.long()
    return _cell(patches, row1, column), _cell(patches, row2, column)


def augmented(recipe: spec.PatchGrid, images: Float[Tensor, "B C H W"], generator: Generator) -> Float[Tensor, "B C H W"]:
    """What the grid is cut from: one image even after `recipe.before`, for what is below a patch in another crop is anything."""
    return images if recipe.before is None else augment.augmented(recipe.before, images, generator)


def grid(recipe: spec.PatchGrid, images: Float[Tensor, "B C H W"]) -> Float[Tensor, "B rows columns C size size"]:
    """All patches, one every `recipe.stride` pixels from the top left corner on; no copies are made."""
    rows = images.unfold(2, recipe.size, recipe.stride)
    return rows.unfold(3, recipe.size, recipe.stride).permute(0, 2, 3, 1, 4, 5)


def _cell(
    patches: Float[Tensor, "B rows columns C size size"], row: Int64[Tensor, " B"], column: Int64[Tensor, " B"]
) -> Float[Tensor, "B C size size"]:
    drawn.note("column, row", column, row)
    return patches[torch.arange(len(patches), device=row.device), row, column]
