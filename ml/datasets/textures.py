"""Ten classes of procedural textures, for backgrounds where there are no photographs."""

import math
from collections.abc import Callable

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int64, UInt8
from torch import Generator, Tensor

Pattern = Callable[[Tensor, Tensor, Generator], Tensor]


def textures(items: int, size: int, seed: int) -> tuple[UInt8[Tensor, "N 3 size size"], Int64[Tensor, " N"]]:
    """Square textures and their classes, which take turns.

    The class is the pattern. Where it lies, how it is turned, its period (an eighth to a third of the picture) and its two
    colours are each texture's own. The same seed gives the same textures, and another one none of them.
    """
    generator = Generator().manual_seed(seed)
    labels = torch.arange(items) % len(PATTERNS)
    images = torch.empty(items, 3, size, size, dtype=torch.uint8)
    for label, pattern in enumerate(PATTERNS):
        mine = labels == label
        x, y = _plane(int(mine.sum()), size, generator)
        images[mine] = _coloured(pattern(x, y, generator).sigmoid(), generator)
    return images, labels


def _stripes(x: Tensor, y: Tensor, generator: Generator) -> Tensor:
    return 8 * torch.sin(2 * math.pi * x)


def _checks(x: Tensor, y: Tensor, generator: Generator) -> Tensor:
    return 16 * torch.sin(math.pi * x) * torch.sin(math.pi * y)


def _dots(x: Tensor, y: Tensor, generator: Generator) -> Tensor:
    return 30 * (0.3 - torch.hypot(_from_lattice(x), _from_lattice(y)))


def _grid(x: Tensor, y: Tensor, generator: Generator) -> Tensor:
    return 40 * (0.12 - torch.minimum(_from_lattice(x).abs(), _from_lattice(y).abs()))


def _bricks(x: Tensor, y: Tensor, generator: Generator) -> Tensor:
    courses = y.floor().remainder(2) / 2
    joints = torch.minimum(_from_lattice(y).abs(), 2 * _from_lattice(x / 2 + courses).abs())
    return 40 * (joints - 0.1)


def _zigzags(x: Tensor, y: Tensor, generator: Generator) -> Tensor:
    return 8 * torch.sin(2 * math.pi * (y + 2 * _from_lattice(x / 2).abs()))


def _rings(x: Tensor, y: Tensor, generator: Generator) -> Tensor:
    return 8 * torch.sin(2 * math.pi * torch.hypot(x, y))


def _rays(x: Tensor, y: Tensor, generator: Generator) -> Tensor:
    return 8 * torch.sin(8 * torch.atan2(y, x))


def _clouds(x: Tensor, y: Tensor, generator: Generator) -> Tensor:
    return sum((12 / cells * _noise(x, cells, generator) for cells in (4, 8, 16)), torch.zeros_like(x))


def _grain(x: Tensor, y: Tensor, generator: Generator) -> Tensor:
    return 3 * _noise(x, x.shape[-1] // 2, generator)


PATTERNS: tuple[Pattern, ...] = (
    _stripes,
    _checks,
    _dots,
    _grid,
    _bricks,
    _zigzags,
    _rings,
    _rays,
    _clouds,
    _grain,
)
"""Each from coordinates in periods, and chance, to the log-odds of the one colour against the other."""


def _plane(items: int, size: int, generator: Generator) -> tuple[Tensor, Tensor]:
    """Coordinates of the pixels in periods, from an origin somewhere in the picture, along axes turned at random."""
    down, right, turn, stretch = torch.rand(4, items, 1, 1, generator=generator)
    period = size * (1 / 8) ** (1 - stretch) * (1 / 3) ** stretch
    pixels = torch.arange(size) + 0.5
    rows, columns = ((pixels[:, None] - size * down) / period, (pixels - size * right) / period)
    cosine, sine = torch.cos(2 * math.pi * turn), torch.sin(2 * math.pi * turn)
    return cosine * columns - sine * rows, sine * columns + cosine * rows


def _from_lattice(x: Tensor) -> Tensor:
    """How far from the nearest whole number, -1/2 to 1/2."""
    return x - x.round()


def _noise(like: Tensor, cells: int, generator: Generator) -> Tensor:
    """Smooth Gaussian noise, independent from one of `cells` cells a side to the next."""
    chances = torch.randn(len(like), 1, cells, cells, generator=generator)
    return F.interpolate(chances, like.shape[-2:], mode="bicubic")[:, 0]


def _coloured(share: Float[Tensor, "N S S"], generator: Generator) -> UInt8[Tensor, "N 3 S S"]:
    """Mixtures of two colours that lie on different sides of the middle in every channel."""
    low, high, side = torch.rand(3, len(share), 3, 1, 1, generator=generator)
    low, high = 0.45 * low, 0.55 + 0.45 * high
    first, second = torch.where(side < 0.5, low, high), torch.where(side < 0.5, high, low)
    return torch.lerp(first, second, share[:, None]).mul_(255).round_().to(torch.uint8)
