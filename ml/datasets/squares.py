"""Square images of one size: the shorter side resized, then the central square."""

from collections.abc import Iterator

import numpy as np
import torch
import torch.nn.functional as F
from jaxtyping import Shaped
from torch import Tensor
from torchvision.transforms.v2.functional import center_crop

from ml.datasets.raw import Array

CHUNK_BYTES = 2**26  # of images that are resized at a time


def square(images: Shaped[Tensor, "N C H W"], size: int) -> Shaped[Tensor, "N C size size"]:
    """Bilinear with antialiasing, in the arithmetic of the images' own type."""
    H, W = images.shape[-2:]
    if max(H, W) > 4 * min(H, W):  # what is far outside of the square is not worth its memory
        images = center_crop(images, [min(H, 4 * W), min(W, 4 * H)])
        H, W = images.shape[-2:]
    height, width = max(size, round(H * size / min(H, W))), max(size, round(W * size / min(H, W)))
    top, left = (height - size) // 2, (width - size) // 2
    resized = F.interpolate(images, (height, width), mode="bilinear", antialias=True)
    return resized[:, :, top : top + size, left : left + size]


def resize(array: Array, into: Array) -> Iterator[int]:
    """Squares of images [N, ..., C, H, W] as [N, ..., C, size, size], rounded if they are integers; yields how many are done."""
    images, results = array.reshape(-1, *array.shape[-3:]), into.reshape(-1, *into.shape[-3:])
    a_time = max(1, CHUNK_BYTES // (4 * images[0].size))
    for start in range(0, len(images), a_time):
        chunk = torch.from_numpy(np.array(images[start : start + a_time]))
        squares = square(chunk.to(torch.float32), into.shape[-1])
        results[start : start + a_time] = (squares if chunk.is_floating_point() else squares.round_()).to(chunk.dtype).numpy()
        yield min(start + a_time, len(images)) * len(array) // len(images)
