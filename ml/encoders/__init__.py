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


class ClipEncoder(Encoder):
    """A network that also takes clips [B, T, C, H, W], to feature vectors [B, clip_features]."""

    clip_features: int


class Standardise(nn.Module):
    """Each channel shifted and scaled to mean 0 and deviation 1, by statistics of the training split."""

    mean: Tensor
    std: Tensor

    def __init__(self, mean: Float[Tensor, " C"], std: Float[Tensor, " C"]) -> None:
        super().__init__()
        self.register_buffer("mean", mean.clone())
        self.register_buffer("std", std.clone())

    def forward(self, pixels: Float[Tensor, "... C H W"]) -> Float[Tensor, "... C H W"]:
        """Standardised channels."""
        return (pixels - self.mean[:, None, None]).div_(self.std[:, None, None])


class Whiten(nn.Module):
    """Channels shifted and mixed until they are uncorrelated, each of variance 1, and as near as can be to what they were.

    ZCA, Bell and Sejnowski 1997. An invertible linear map of the channels beforehand then turns the result and no more.
    """

    mean: Tensor
    mixing: Tensor

    def __init__(self, mean: Float[Tensor, " C"], covariance: Float[Tensor, "C C"]) -> None:
        super().__init__()
        variances, axes = torch.linalg.eigh(covariance.double())
        scales = torch.where(variances > 1e-12, variances, 1.0).rsqrt()  # an axis without contrast stays as it is
        self.register_buffer("mean", mean.clone())
        self.register_buffer("mixing", (axes * scales @ axes.T).float())

    def forward(self, pixels: Float[Tensor, "... C H W"]) -> Float[Tensor, "... C H W"]:
        """Whitened channels."""
        return torch.einsum("dc,...chw->...dhw", self.mixing, pixels - self.mean[:, None, None])


class PixelEncoder(ClipEncoder):
    """An encoder with what stands before it, so that it takes views in pixels.

    With `autocast` its arithmetic is bfloat16 where that is safe; features are float32 in any case.
    """

    def __init__(self, encoder: Encoder, standardise: nn.Module, autocast: bool = False) -> None:
        super().__init__()
        self.standardise = standardise
        self.encoder = encoder
        self.features = encoder.features
        self.clip_features = encoder.clip_features if isinstance(encoder, ClipEncoder) else 0
        self.autocast = autocast

    def forward(self, pixels: Float[Tensor, "B *T C H W"]) -> Float[Tensor, "B F"]:
        """Features of images, or of clips, in the views' own unit."""
        images: Tensor = self.standardise(pixels)
        if images.ndim == 4:
            images = images.contiguous(memory_format=torch.channels_last)
        with torch.autocast(pixels.device.type, torch.bfloat16, enabled=self.autocast):
            features: Tensor = self.encoder(images)
        return features.float()


_architectures: Registry[Callable[..., Encoder]] = Registry(__name__)
implements = _architectures.implements


def build(architecture: spec.Encoder, in_channels: int, norm: spec.Norm = "batch") -> Encoder:
    """A freshly initialised encoder of images with so many channels; its weights come from torch's global generator."""
    encoder = _architectures.find(architecture)(architecture, in_channels)
    return layer_normed(encoder) if norm == "layer" else encoder


def layer_normed(encoder: Encoder) -> Encoder:
    """The encoder with a layer norm over channels and positions in the place of each batch norm. Ba, Kiros, Hinton 2016."""
    for module in list(encoder.modules()):
        for name, child in module.named_children():
            if isinstance(child, nn.BatchNorm2d):
                setattr(module, name, nn.GroupNorm(1, child.num_features))
    return encoder
