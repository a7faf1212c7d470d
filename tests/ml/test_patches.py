import pytest
import torch
from scipy.stats import chisquare
from torch import Generator, Tensor

from ml import spec, views
from ml.datasets.photographs import PhotographSplit, of_images
from ml.datasets.split import Pixels
from ml.views import drawn
from ml.views.patch_grid import grid

CPU = torch.device("cpu")
AS_STORED = (0.0, 1.0)


def ramp(H: int, W: int, C: int = 1) -> Tensor:
    """An image of which every pixel says its own number, row by row."""
    return torch.arange(H * W, dtype=torch.float32).view(1, 1, H, W).expand(1, C, H, W)


def patches(size: int, distance: int) -> spec.Patches:
    return spec.Patches(kind="patches", size=size, distance=distance)


def patch_grid(size: int, stride: int, **parameters: object) -> spec.PatchGrid:
    return spec.PatchGrid.model_validate({"kind": "patch_grid", "size": size, "stride": stride, **parameters})


def corners(view: Tensor, W: int) -> tuple[Tensor, Tensor]:
    first = view[:, 0, 0, 0].long()
    return first // W, first % W


def is_uniform(values: Tensor, choices: int) -> bool:
    """By Pearson's test at one in a thousand, which a fixed seed passes always or never."""
    counts = torch.bincount(values, minlength=choices)
    return len(counts) == choices and (choices == 1 or chisquare(counts.numpy()).pvalue > 1e-3)


@pytest.mark.parametrize(("H", "W", "size", "distance"), [(12, 15, 4, 3), (9, 9, 4, 0), (11, 30, 5, 6), (7, 8, 4, 3)])
def test_patches_lie_at_every_place_alike_and_at_their_distance(H: int, W: int, size: int, distance: int) -> None:
    down, across = H - size - distance + 1, W - size - distance + 1
    photographs = of_images(ramp(H, W, C=3), AS_STORED, CPU).take(torch.zeros(100 * down * across, dtype=torch.long))
    v1, v2 = views.make(patches(size, distance), photographs, Generator().manual_seed(0))
    top, left = corners(v1, W)
    assert is_uniform(top, down) and is_uniform(left, across)
    assert is_uniform(top * across + left, down * across)
    assert torch.equal(v2, v1 + distance * (W + 1))
    assert torch.equal(v1, v1[:, :1, :1, :1] + ramp(H, W)[:, :, :size, :size].expand(1, 3, -1, -1))


def test_a_photograph_that_just_fits_has_one_place() -> None:
    v1, v2 = views.make(patches(4, 5), of_images(ramp(9, 9), AS_STORED, CPU).take(torch.zeros(50, dtype=torch.long)), Generator())
    assert torch.equal(v1, ramp(9, 9)[:, :, :4, :4].expand(50, -1, -1, -1))
    assert torch.equal(v2, ramp(9, 9)[:, :, 5:, 5:].expand(50, -1, -1, -1))


def test_photographs_of_a_batch_have_sizes_of_their_own() -> None:
    sizes = torch.tensor([(10, 21), (17, 8)])
    stored = torch.cat([ramp(*size).flatten() + 1000 * i for i, size in enumerate(sizes.tolist())])
    shapes = torch.cat((torch.tensor([[0], [210]]), sizes), dim=1)
    photographs = PhotographSplit(Pixels(stored, AS_STORED, CPU), shapes, channels=1).take(torch.arange(2).repeat(3000))
    v1, v2 = views.make(patches(4, 2), photographs, Generator().manual_seed(0))
    for i, (H, W) in enumerate(sizes.tolist()):
        top, left = corners(v1[i::2] - 1000 * i, W)
        assert is_uniform(top, H - 5) and is_uniform(left, W - 5)
        assert torch.equal(v2[i::2], v1[i::2] + 2 * (W + 1))


def test_the_probe_of_patches_reads_whole_images() -> None:
    images = torch.rand(2, 3, 8, 8)
    (clean,) = views.clean(patches(4, 2), images)
    assert clean is images


def test_places_are_noted_for_captions() -> None:
    photographs = of_images(ramp(20, 20), AS_STORED, CPU).take(torch.zeros(3, dtype=torch.long))
    with drawn.recording() as record:
        v1, v2 = views.make(patches(4, 5), photographs, Generator().manual_seed(0))
    for sample in range(3):
        noted = [[f"left, top {left[sample]}, {top[sample]} px"] for top, left in (corners(v1, 20), corners(v2, 20))]
        assert list(record.captions(sample)) == [[], *noted]


@pytest.mark.parametrize(
    ("H", "W", "size", "stride", "rows", "columns"),
    [(256, 256, 64, 32, 7, 7), (64, 64, 16, 8, 7, 7), (24, 18, 8, 5, 4, 3), (16, 16, 8, 8, 2, 2)],
)
def test_the_grid_has_a_patch_every_stride(H: int, W: int, size: int, stride: int, rows: int, columns: int) -> None:
    """7 x 7 patches of 64 pixels, half overlapping, are those of a 256 x 256 image in CPC."""
    images = torch.rand(2, 3, H, W, generator=Generator().manual_seed(0))
    patches = grid(patch_grid(size, stride), images)
    assert patches.shape == (2, rows, columns, 3, size, size)
    for row in range(rows):
        for column in range(columns):
            top, left = row * stride, column * stride
            assert torch.equal(patches[:, row, column], images[:, :, top : top + size, left : left + size])


def test_v2_lies_below_v1_in_its_column_at_every_place_alike() -> None:
    H, W, size, stride, rows, columns = 26, 20, 8, 6, 4, 3
    images = ramp(H, W, C=3).expand(9000, -1, -1, -1)
    v1, v2 = views.make(patch_grid(size, stride), images, Generator().manual_seed(0))
    (top1, left1), (top2, left2) = corners(v1, W), corners(v2, W)
    assert torch.equal(left1, left2)
    assert torch.equal(v1, v1[:, :1, :1, :1] + ramp(H, W)[:, :, :size, :size].expand(1, 3, -1, -1))
    row1, row2, column = (places.div(stride, rounding_mode="floor") for places in (top1, top2, left1))
    assert is_uniform(row1 * columns + column, (rows - 1) * columns)
    for row in range(rows - 1):
        below = (row2 - row1)[row1 == row]
        assert below.min() == 1 and is_uniform(below - 1, rows - 1 - row)


def test_both_patches_come_out_of_one_augmented_image() -> None:
    jitter = {"kind": "augment", "crop_p": 0, "flip_p": 0, "jitter_p": 1, "grayscale_p": 0}
    images = torch.full((16, 1, 24, 24), 0.4)
    v1, v2 = views.make(patch_grid(8, 8, before=jitter), images, Generator().manual_seed(0))
    assert torch.equal(v1, v2)
    assert len(v1.flatten(1).unique(dim=0)) == 16
