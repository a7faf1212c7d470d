"""An invertible map of colours: reversible blocks of couplings between the first channel and the other two, pixel by pixel.

NICE, Dinh et al. 2014 (additive couplings), and RealNVP, Dinh et al. 2017 (affine ones). The elementary maps, their inverses and
their determinants are zuko's. Its `CouplingTransform` wants channels last, which took 2.5 to 4 times as long on images.
"""

from collections.abc import Sequence

import torch
from jaxtyping import Float
from torch import Tensor, nn
from zuko.transforms import AdditiveTransform, MonotonicAffineTransform, Transform

from ml import spec
from ml.views.color import to_color_space

LEAST_SCALE = 1 / 3  # by which an affine coupling multiplies, and 3 the most, so that few of them can be undone exactly
PIXELS_IN_CACHE = 2**15  # of which a CPU has all that lies between couplings at hand: half the time of all pixels at once


class Flow(nn.Module):
    """g: from RGB in [0, 1] to three channels of which the first is v1 and the others are v2. It begins as its base space."""

    def __init__(self, recipe: spec.Learned) -> None:
        super().__init__()
        self.base_space = recipe.base_space
        affine = recipe.flow == "non_volume_preserving"
        self.blocks = nn.ModuleList(Block(recipe.hidden, affine) for _ in range(recipe.blocks))

    def forward(self, images: Float[Tensor, "B 3 H W"]) -> Float[Tensor, "B 3 H W"]:
        """The channels of RGB images."""
        return self.moved(self.based(images))

    def based(self, images: Float[Tensor, "B 3 H W"]) -> Float[Tensor, "B 3 H W"]:
        """RGB images in the space that the couplings start from."""
        return to_color_space(images, self.base_space)

    def moved(self, planes: Float[Tensor, "B 3 H W"]) -> Float[Tensor, "B 3 H W"]:
        """From the base space to the channels."""
        return _like(torch.cat([self._blocks(some) for some in _in_cache(_flattened(planes))], dim=1), planes)

    def inverse(self, channels: Float[Tensor, "B 3 H W"]) -> Float[Tensor, "B 3 H W"]:
        """From the channels back to the base space."""
        pixels = _flattened(channels)
        for block in reversed(self.blocks):
            assert isinstance(block, Block), "as built"
            pixels = block.inverse(pixels)
        return _like(pixels, channels)

    def _blocks(self, pixels: Float[Tensor, "3 N"]) -> Float[Tensor, "3 N"]:
        for block in self.blocks:
            pixels = block(pixels)
        return pixels

    def log_abs_det(self, planes: Float[Tensor, "B 3 H W"]) -> Float[Tensor, "B H W"]:
        """log|det J| of each pixel's map from the base space, in nats: 0 where volumes are preserved."""
        pixels, total = _flattened(planes), planes.new_zeros(len(planes) * planes[0, 0].numel())
        for block in self.blocks:
            assert isinstance(block, Block), "as built"
            total = total + block.log_abs_det(pixels)
            pixels = block(pixels)
        return total.view(-1, *planes.shape[2:])


class Block(nn.Module):
    """The first channel is moved by what the other two say of it, and then they by what it says of them."""

    def __init__(self, hidden: int, affine: bool) -> None:
        super().__init__()
        self.of_first = Coupling(2, 1, hidden, affine)
        self.of_others = Coupling(1, 2, hidden, affine)

    def forward(self, pixels: Float[Tensor, "3 N"]) -> Float[Tensor, "3 N"]:
        """One block further."""
        first, others = pixels[:1], pixels[1:]
        first = self.of_first(others)(first)
        others = self.of_others(first)(others)
        return torch.cat((first, others))

    def inverse(self, pixels: Float[Tensor, "3 N"]) -> Float[Tensor, "3 N"]:
        """One block back."""
        first, others = pixels[:1], pixels[1:]
        others = self.of_others(first).inv(others)
        first = self.of_first(others).inv(first)
        return torch.cat((first, others))

    def log_abs_det(self, pixels: Float[Tensor, "3 N"]) -> Float[Tensor, " N"]:
        """Of the block's Jacobian, for each pixel before it."""
        first, others = pixels[:1], pixels[1:]
        first, of_first = self.of_first(others).call_and_ladj(first)
        _, of_others = self.of_others(first).call_and_ladj(others)
        total: Tensor = of_first.sum(dim=0) + of_others.sum(dim=0)
        return total


class Coupling(nn.Module):
    """1x1 convolution - ReLU - 1x1 convolution, from the channels that stay to the map of those that move."""

    def __init__(self, stay: int, move: int, hidden: int, affine: bool) -> None:
        super().__init__()
        self.read = nn.Linear(stay, hidden)
        self.write = nn.Linear(hidden, 2 * move if affine else move)
        self.affine = affine
        nn.init.zeros_(self.write.weight)  # the identity, to begin with
        nn.init.zeros_(self.write.bias)

    def forward(self, stay: Float[Tensor, "C N"]) -> Transform:
        """The map of the channels that move, pixel by pixel."""
        hidden = torch.addmm(self.read.bias[:, None], self.read.weight, stay).relu_()
        written = torch.addmm(self.write.bias[:, None], self.write.weight, hidden)
        if not self.affine:
            return AdditiveTransform(written)
        shift, scale = written.chunk(2)
        return MonotonicAffineTransform(shift, scale, slope=LEAST_SCALE)


def _in_cache(pixels: Float[Tensor, "3 N"]) -> Sequence[Float[Tensor, "3 M"]]:
    return pixels.split(PIXELS_IN_CACHE, dim=1) if pixels.device.type == "cpu" else (pixels,)


def _flattened(images: Float[Tensor, "B 3 H W"]) -> Float[Tensor, "3 N"]:
    return images.transpose(0, 1).flatten(1)


def _like(pixels: Float[Tensor, "3 N"], images: Float[Tensor, "B 3 H W"]) -> Float[Tensor, "B 3 H W"]:
    B, _, H, W = images.shape
    return pixels.view(3, B, H, W).transpose(0, 1)
