"""AlexNet for small images."""

from jaxtyping import Float
from torch import Tensor, nn

from ml import encoders, spec
from ml.encoders import Encoder


@encoders.implements(spec.SmallAlexNet)
class SmallAlexNet(Encoder):
    """Five 3x3 convolutions with batch norm and ReLU, of 1, 2, 4, 4 and 2 times width channels; max pooling after three of them.

    Krizhevsky, Sutskever, Hinton 2012, as it is cut down for STL-10 in Tian, Krishnan, Isola 2019. Its two fully connected layers
    are the projection's here.
    """

    def __init__(self, architecture: spec.SmallAlexNet, in_channels: int) -> None:
        super().__init__()
        self.features = architecture.features
        width = architecture.width or 96
        self.layers = nn.Sequential(
            *_convolved(in_channels, width),
            _pooled(),
            *_convolved(width, 2 * width),
            _pooled(),
            *_convolved(2 * width, 4 * width),
            *_convolved(4 * width, 4 * width),
            *_convolved(4 * width, 2 * width),
            _pooled(),
        )
        self.pool = nn.Sequential(nn.AdaptiveAvgPool2d(3), nn.Flatten())

    def forward(self, images: Float[Tensor, "B C H W"]) -> Float[Tensor, "B F"]:
        """The last map, seen at 3x3."""
        features: Tensor = self.pool(self.layers(images))
        return features


def _convolved(in_channels: int, channels: int) -> tuple[nn.Module, ...]:
    convolution = nn.Conv2d(in_channels, channels, kernel_size=3, padding=1, bias=False)
    return convolution, nn.BatchNorm2d(channels), nn.ReLU(inplace=True)


def _pooled() -> nn.Module:
    return nn.MaxPool2d(kernel_size=3, stride=2, padding=1)
