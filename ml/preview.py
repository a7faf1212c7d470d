"""A picture of view pairs, in the pixels that the encoder sees."""

from pathlib import Path

import torch
from jaxtyping import Float, UInt8
from torch import Generator, Tensor
from torchvision.io import encode_png
from torchvision.utils import make_grid

from ml import datasets, views
from ml.datasets import Data, to_pixels
from ml.spec import Dataset
from ml.spec import Views as Recipe

WIDTH = 700  # pixels that a picture is enlarged to, about
GAP = 3  # pixels between v1 and v2; between pairs it is wider


def preview(dataset: Dataset, recipe: Recipe, root: Path, pairs: int = 8, seed: int = 0) -> bytes:
    """A PNG of v1 and v2 side by side for a few training items. Raises DatasetMissing or DatasetInvalid."""
    data = datasets.load(dataset.name, dataset.image_size, root, torch.device("cpu"))
    return of_data(data, recipe, pairs, seed)


def of_data(data: Data, recipe: Recipe, pairs: int, seed: int) -> bytes:
    """The same for a dataset that is already loaded."""
    generator = Generator(data.train_images.device).manual_seed(seed)
    items = torch.randperm(len(data.train_images), generator=generator, device=generator.device)[:pairs]
    v1, v2 = views.make(recipe, to_pixels(data.train_images[items]), generator)
    png: Tensor = encode_png(_grid(_bytes(v1), _bytes(v2)).cpu())
    return png.numpy().tobytes()


def _grid(v1: UInt8[Tensor, "B 3 H W"], v2: UInt8[Tensor, "B 3 H W"]) -> UInt8[Tensor, "3 height width"]:
    """Up to four pairs v1 | v2 in a row, on white; pixels are enlarged a whole number of times."""
    width = 2 * v1.shape[-1]
    columns = max(1, min(4, len(v1), WIDTH // width))
    scale = max(1, WIDTH // (columns * width))
    left, right = (view.repeat_interleave(scale, dim=2).repeat_interleave(scale, dim=3) for view in (v1, v2))
    between = left.new_full((*left.shape[:3], GAP), 255)
    grid: Tensor = make_grid(torch.cat((left, between, right), dim=3), nrow=columns, padding=5 * GAP, pad_value=255)
    return grid


def _bytes(view: Float[Tensor, "B C H W"]) -> UInt8[Tensor, "B 3 H W"]:
    return view.clamp(0, 1).mul(255).round().to(torch.uint8).expand(-1, 3, -1, -1)
