import typing

import numpy as np
import pytest
import skimage.color
import torch
from torch import Generator, Tensor

from ml import spec
from ml.views.color import CHANNELS, to_color_space

SPACES = typing.get_args(spec.ColorSpace)
LUMA_CHROMA = ("yuv", "yiq", "ypbpr", "ycbcr", "ydbdr")


def pixels() -> Tensor:
    """Colours of every sort: any, full and empty channels, greys, dark ones, 8 bits; black and white among them."""
    images = torch.rand(5, 3, 64, 64, generator=Generator().manual_seed(0))
    images[1] = images[1].round()
    images[2] = images[2, :1]
    images[3] *= 0.02
    images[4] = (255 * images[4]).round() / 255
    return images


def colour(*rgb: float) -> Tensor:
    return torch.tensor(rgb, dtype=torch.float32).view(1, 3, 1, 1)


def correlated_colours() -> Tensor:
    """Channels that go together as those of photographs do, and red the most with how light it is."""
    generator = Generator().manual_seed(0)
    light, tint = torch.randn(4, 1, 64, 64, generator=generator), torch.randn(4, 3, 64, 64, generator=generator)
    return torch.sigmoid(torch.tensor((1.5, 1.0, 0.5))[:, None, None] * light + 0.6 * tint)


def whitened(values: Tensor) -> Tensor:
    """Samples [N, d] turned and scaled to unit covariance."""
    values = values - values.mean(dim=0)
    variances, axes = torch.linalg.eigh(values.T @ values / len(values))
    return values @ (axes / variances.sqrt()) @ axes.T


def gaussian_information(planes: Tensor) -> float:
    """I(first channel; other two) in nats, if they were Gaussian: -1/2 sum log(1 - r^2) over their canonical correlations r."""
    samples = planes.double().movedim(1, -1).reshape(-1, 3)
    first, others = whitened(samples[:, :1]), whitened(samples[:, 1:])
    correlations = torch.linalg.svdvals(first.T @ others / len(samples))
    return -0.5 * torch.log1p(-correlations.square()).sum().item()


@pytest.mark.parametrize("space", SPACES)
def test_conversions_are_scikit_images(space: str) -> None:
    """Within 2 millionths of what each channel spans: a few roundings of float32."""
    images = pixels()
    reference = images.double().movedim(1, -1).numpy()
    if space != "rgb":
        reference = getattr(skimage.color, f"rgb2{space}")(reference)
    spans = np.ptp(reference, axis=(0, 1, 2))
    errors = np.abs(to_color_space(images, space).movedim(1, -1).numpy() - reference).max(axis=(0, 1, 2))
    assert (errors <= 2e-6 * spans).all()


@pytest.mark.parametrize(
    ("space", "rgb", "known"),
    [
        ("lab", (1, 0, 0), (53.24, 80.09, 67.20)),
        ("lab", (1, 1, 1), (100, 0, 0)),
        ("luv", (1, 0, 0), (53.24, 175.01, 37.76)),
        ("xyz", (1, 1, 1), (0.9505, 1, 1.0888)),
        ("hsv", (0, 0, 1), (2 / 3, 1, 1)),
        ("hsv", (0.5, 0.25, 0.25), (0, 0.5, 0.5)),
        ("hsv", (1, 0, 0.5), (11 / 12, 1, 1)),
        ("ycbcr", (1, 0, 0), (81.48, 90.20, 240)),
        ("ycbcr", (0, 0, 0), (16, 128, 128)),
        ("yuv", (0, 0, 1), (0.114, 0.436, -0.1)),
        ("hed", (1, 1, 1), (0, 0, 0)),
    ],
)
def test_colours_that_are_known(space: str, rgb: tuple[float, ...], known: tuple[float, ...]) -> None:
    converted = to_color_space(colour(*rgb), space).flatten()
    assert converted.tolist() == pytest.approx(known, abs=0.02 if max(map(abs, known)) > 2 else 1e-4)


@pytest.mark.parametrize("space", SPACES)
def test_black_and_nearly_black_are_finite(space: str) -> None:
    for level in (0.0, 1e-30, 1e-9, 1e-6, 1 / 255):
        assert to_color_space(colour(level, 0, level), space).isfinite().all()


def test_black_has_no_lightness_and_no_chroma() -> None:
    for space in ("luv", "hsv", "xyz"):
        assert torch.equal(to_color_space(colour(0, 0, 0), space).flatten(), torch.zeros(3))


@pytest.mark.parametrize("space", ["hsv", *LUMA_CHROMA])
def test_greys_have_no_colour(space: str) -> None:
    greys = torch.linspace(0, 1, 256).expand(1, 3, 1, 256)
    planes = to_color_space(greys, space)
    if space == "hsv":
        assert torch.equal(planes[:, :2], torch.zeros(1, 2, 1, 256))
    else:
        neutral = torch.full((1, 2, 1, 256), 128.0 if space == "ycbcr" else 0.0)
        torch.testing.assert_close(planes[:, 1:], neutral, rtol=0, atol=2e-5 if space == "ycbcr" else 5e-7)


@pytest.mark.parametrize("space", SPACES)
def test_every_pixel_is_converted_for_itself(space: str) -> None:
    images = pixels()
    order = torch.randperm(64, generator=Generator().manual_seed(0))
    torch.testing.assert_close(to_color_space(images[..., order], space), to_color_space(images, space)[..., order])


@pytest.mark.parametrize("space", SPACES)
def test_channels_have_names(space: str) -> None:
    assert len(set(CHANNELS[space])) == 3


@pytest.mark.parametrize("other", LUMA_CHROMA)
@pytest.mark.parametrize("space", LUMA_CHROMA)
def test_luma_and_chroma_of_one_space_are_affine_in_those_of_another(space: str, other: str) -> None:
    """One luma axis and one plane of chroma: so the five share their mutual information exactly."""
    colours = torch.rand(1, 3, 100, 100, generator=Generator().manual_seed(0), dtype=torch.float64)
    source, target = (to_color_space(colours, name).flatten(2)[0].T for name in (space, other))
    for channels in (slice(0, 1), slice(1, 3)):
        known = torch.cat((source[:, channels], torch.ones(len(source), 1)), dim=1)
        fit = torch.linalg.lstsq(known, target[:, channels]).solution
        assert (known @ fit - target[:, channels]).abs().max() < 1e-5
        assert torch.linalg.matrix_rank(fit[:-1]) == channels.stop - channels.start


def test_the_gaussian_information_of_luma_and_chroma_is_one_number_in_five_spaces() -> None:
    colours = correlated_colours()
    information = [gaussian_information(to_color_space(colours, space)) for space in LUMA_CHROMA]
    assert max(information) - min(information) < 1e-4
    assert min(information) > 0.01
    for space in ("rgb", "xyz", "hsv"):
        assert abs(gaussian_information(to_color_space(colours, space)) - information[0]) > 0.05
