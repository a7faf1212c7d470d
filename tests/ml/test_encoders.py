import typing

import pytest
import torch

from ml import encoders, spec
from ml.encoders import ClipEncoder, PixelEncoder, Standardise, Whiten

ARCHITECTURES = [
    architecture.model_validate({"kind": typing.get_args(architecture.model_fields["kind"].annotation)[0]})
    for architecture in typing.get_args(typing.get_args(spec.Encoder)[0])
]


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("architecture", ARCHITECTURES, ids=lambda architecture: architecture.kind)
class TestEveryEncoder:
    def test_gives_as_many_features_as_it_says(self, architecture: spec.Encoder, channels: int) -> None:
        encoder = encoders.build(architecture, channels)
        assert encoder(torch.rand(3, channels, 16, 16)).shape == (3, encoder.features)

    def test_gives_as_many_features_of_clips_as_it_says(self, architecture: spec.Encoder, channels: int) -> None:
        encoder = encoders.build(architecture, channels)
        if isinstance(encoder, ClipEncoder):
            assert encoder(torch.rand(3, 5, channels, 16, 16)).shape == (3, encoder.clip_features)

    def test_every_weight_has_a_gradient(self, architecture: spec.Encoder, channels: int) -> None:
        encoder = encoders.build(architecture, channels)
        encoder(torch.rand(4, channels, 16, 16)).square().sum().backward()
        if isinstance(encoder, ClipEncoder):
            encoder(torch.rand(4, 3, channels, 16, 16)).square().sum().backward()
        assert all(parameter.grad is not None and parameter.grad.abs().sum() > 0 for parameter in encoder.parameters())


def test_resnet18_on_cifar_has_the_parameters_of_the_paper() -> None:
    weights = sum(parameter.numel() for parameter in encoders.build(spec.ResNet18(kind="resnet18"), 3).parameters())
    assert weights == 11_168_832  # 11 689 512 of He et al. 2016, less the 1000-way head, and 3x3 in place of 7x7 in the stem


def test_the_small_encoder_halves_three_times() -> None:
    encoder = encoders.build(spec.SmallConv(width=4), 1)
    assert encoder.get_submodule("layers")(torch.rand(2, 1, 32, 32)).shape == (2, 16, 4, 4)


def test_pixels_are_standardised_before_the_encoder() -> None:
    mean, std = torch.tensor([0.2, 0.5, 0.8]), torch.tensor([0.1, 0.3, 0.2])
    encoder = encoders.build(spec.SmallConv(width=4), 3).eval()
    standard = torch.randn(5, 3, 16, 16)
    pixels = standard * std[:, None, None] + mean[:, None, None]
    torch.testing.assert_close(PixelEncoder(encoder, Standardise(mean, std))(pixels), encoder(standard), rtol=1e-4, atol=1e-5)


def test_bfloat16_gives_float32_features_near_those_of_float32() -> None:
    encoder = encoders.build(spec.SmallConv(width=16), 1).eval()
    pixels = torch.rand(8, 1, 16, 16)
    exact = PixelEncoder(encoder, Standardise(torch.zeros(1), torch.ones(1)))(pixels)
    rounded = PixelEncoder(encoder, Standardise(torch.zeros(1), torch.ones(1)), autocast=True)(pixels)
    assert rounded.dtype == torch.float32
    assert not torch.equal(rounded, exact)
    torch.testing.assert_close(rounded, exact, rtol=0.05, atol=0.02 * exact.abs().max().item())


def test_whitened_channels_are_uncorrelated_with_variance_one() -> None:
    mixing = torch.tensor([[1.0, 0.5, 0.0], [0.0, 2.0, 0.3], [0.1, 0.0, 0.5]])
    pixels = torch.einsum("dc,bchw->bdhw", mixing, torch.rand(8, 3, 16, 16, generator=torch.Generator().manual_seed(0)))
    channels = pixels.transpose(0, 1).flatten(1)
    white = Whiten(channels.mean(dim=1), torch.cov(channels))(pixels).transpose(0, 1).flatten(1)
    torch.testing.assert_close(torch.cov(white), torch.eye(3), rtol=0, atol=1e-4)
    torch.testing.assert_close(white.mean(dim=1), torch.zeros(3), rtol=0, atol=1e-4)
