"""Encoders: from images to feature vectors. One file an architecture."""

from collections.abc import Callable

import torch
from jaxtyping import Float
from torch import Tensor, nn

from ml import spec
from ml.registry import Registry


class Encoder(nn.Module):
    """A network from images [B, C, H, W] to feature vectors [B, features]."""

    features: int


class PixelEncoder(Encoder):
    """An encoder with what stands before it: pixels in [0, 1] are standardised with the training split's mean and deviation.

    With `autocast` its arithmetic is bfloat16 where that is safe; features are float32 in any case.
    """

    mean: Tensor
    std: Tensor

    def __init__(self, encoder: Encoder, mean: Float[Tensor, " C"], std: Float[Tensor, " C"], autocast: bool = False) -> None:
        super().__init__()
        self.encoder = encoder
        self.features = encoder.features
        self.autocast = autocast
        self.register_buffer("mean", mean.clone())
        self.register_buffer("std", std.clone())

    def forward(self, pixels: Float[Tensor, "B C H W"]) -> Float[Tensor, "B F"]:
        """Features of images in the views' own unit."""
        images = ((pixels - self.mean[:, None, None]) / self.std[:, None, None]).contiguous(memory_format=torch.channels_last)
        with torch.autocast(pixels.device.type, torch.bfloat16, enabled=self.autocast):
            features: Tensor = self.encoder(images)
        return features.float()


_architectures: Registry[Callable[..., Encoder]] = Registry(__name__)
implements = _architectures.implements


def build(architecture: spec.Encoder, in_channels: int) -> Encoder:
    """A freshly initialised encoder of images with so many channels; its weights come from torch's global generator."""
    return _architectures.find(architecture)(architecture, in_channels)
