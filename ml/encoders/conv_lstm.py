"""A small convolutional encoder of stills with an LSTM for clips."""

from itertools import pairwise

import torch
from jaxtyping import Float
from torch import Tensor, nn

from ml import encoders, spec
from ml.encoders import ClipEncoder


@encoders.implements(spec.ConvLSTM)
class ConvLSTM(ClipEncoder):
    """Four 3x3 convolutions of stride 2, each with batch norm and ReLU, of 1, 2, 4 and 8 times width channels; then an LSTM.

    Stills [B C H W] become the last map's mean over positions, or with `flatten` the map itself, seen at 4x4 (which is what it is
    for images of 64x64): `features` numbers. Clips [B T C H W] become the LSTM's state after reading their frames' features:
    `clip_features` numbers. Tian et al. 2020, section 4.4.
    """

    def __init__(self, architecture: spec.ConvLSTM, in_channels: int) -> None:
        super().__init__()
        widths = [in_channels, *(architecture.width * 2**layer for layer in range(4))]
        side = 4 if architecture.pooling == "flatten" else 1
        self.features = architecture.features
        self.clip_features = architecture.lstm
        self.layers = nn.Sequential(*(_halved(*channels) for channels in pairwise(widths)))
        self.pool = nn.Sequential(nn.AdaptiveAvgPool2d(side), nn.Flatten())
        self.lstm = nn.LSTM(self.features, self.clip_features, batch_first=True)

    def forward(self, items: Float[Tensor, "B *T C H W"]) -> Float[Tensor, "B F"]:
        """Features of stills, or of clips where there is an axis of time."""
        if items.ndim == 4:
            features: Tensor = self.pool(self.layers(items))
            return features
        frames = items.flatten(0, 1).contiguous(memory_format=torch.channels_last)
        features = self.pool(self.layers(frames)).unflatten(0, items.shape[:2])
        _, (states, _) = self.lstm(features)
        last: Tensor = states[0]
        return last


def _halved(in_channels: int, channels: int) -> nn.Sequential:
    return nn.Sequential(
        nn.Conv2d(in_channels, channels, kernel_size=3, stride=2, padding=1, bias=False),
        nn.BatchNorm2d(channels),
        nn.ReLU(inplace=True),
    )
