"""A small convolutional encoder, for small images and no GPU."""

from jaxtyping import Float
from torch import Tensor, nn

from ml import encoders, spec
from ml.encoders import Encoder


@encoders.implements(spec.SmallConv)
class SmallConv(Encoder):
    """Three 3x3 convolutions of stride 2, each with batch norm and ReLU, of width, 2 width and 4 width channels."""

    def __init__(self, architecture: spec.SmallConv, in_channels: int) -> None:
        super().__init__()
        width = architecture.width
        self.features = architecture.features
        self.layers = nn.Sequential(
            _halved(in_channels, width),
            _halved(width, 2 * width),
            _halved(2 * width, 4 * width),
        )

    def forward(self, images: Float[Tensor, "B C H W"]) -> Float[Tensor, "B F"]:
        """The mean over positions of the last layer."""
        maps: Tensor = self.layers(images)
        return maps.mean(dim=(2, 3))


def _halved(in_channels: int, channels: int) -> nn.Sequential:
    return nn.Sequential(
        nn.Conv2d(in_channels, channels, kernel_size=3, stride=2, padding=1, bias=False),
        nn.BatchNorm2d(channels),
        nn.ReLU(inplace=True),
    )
