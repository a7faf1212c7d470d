"""Images cut into nine pieces and shuffled, and what a network makes of them. Misra, van der Maaten 2020, section 3.4."""

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Generator, Tensor, nn

from ml import spec
from ml.encoders import Encoder
from ml.methods import projection

CUT = 64 / 85  # of a cell's side: a piece of 64 pixels at a random place of a cell of 85


def cut(images: Float[Tensor, "B C H W"], chances: Generator) -> Float[Tensor, "B 9 C s s"]:
    """A piece of each cell of a 3x3 grid, at a random place in it, in an order drawn for each image."""
    B, device = len(images), images.device
    cell = min(images.shape[2:]) // 3
    side = round(CUT * cell)
    order = torch.rand(B, 9, generator=chances, device=device).argsort(dim=1)
    shifts = torch.randint(cell - side + 1, (2, B, 9), generator=chances, device=device)
    along = torch.arange(side, device=device)
    rows = (order // 3 * cell + shifts[0])[..., None] + along
    columns = (order % 3 * cell + shifts[1])[..., None] + along
    image = torch.arange(B, device=device)[:, None, None, None]
    return images[image, :, rows[..., :, None], columns[..., None, :]].permute(0, 1, 4, 2, 3)


def laid_out(pieces: Float[Tensor, "B 9 C s s"]) -> Float[Tensor, "B C S S"]:
    """The pieces in their order, three to a row, as one image to look at."""
    rows: Tensor = pieces.unflatten(1, (3, 3)).permute(0, 3, 1, 4, 2, 5)
    return rows.flatten(4, 5).flatten(2, 3)


class JigsawHead(nn.Module):
    """The pieces' features projected singly, set side by side in their order, and brought to one projection."""

    def __init__(self, width: int, method: spec.PIRL | spec.InfoMin) -> None:
        super().__init__()
        self.of_piece = projection(width, method)
        self.of_all = nn.Linear(9 * method.projection, method.projection)

    def forward(self, encoder: Encoder, pieces: Float[Tensor, "B 9 C s s"]) -> Float[Tensor, "B D"]:
        """On the unit sphere."""
        features = encoder(pieces.flatten(0, 1))
        projected: Tensor = self.of_all(self.of_piece(features).unflatten(0, (len(pieces), 9)).flatten(1))
        return F.normalize(projected, dim=1)
