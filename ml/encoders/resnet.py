"""ResNet-18 for small images."""

from jaxtyping import Float
from torch import Tensor, nn
from torchvision.models import resnet18

from ml import encoders, spec
from ml.encoders import Encoder


@encoders.implements(spec.ResNet18)
class ResNet18(Encoder):
    """He et al. 2016 with the stem of Chen et al. 2020, appendix B.9: a 3x3 convolution of stride 1, and no max pooling."""

    def __init__(self, architecture: spec.ResNet18, in_channels: int) -> None:
        super().__init__()
        self.features = 512
        self.network = resnet18()
        self.network.conv1 = nn.Conv2d(in_channels, 64, kernel_size=3, stride=1, padding=1, bias=False)
        nn.init.kaiming_normal_(self.network.conv1.weight, mode="fan_out", nonlinearity="relu")
        self.network.maxpool = nn.Identity()
        self.network.fc = nn.Identity()

    def forward(self, images: Float[Tensor, "B C H W"]) -> Float[Tensor, "B 512"]:
        """The mean over positions of the last block."""
        features: Tensor = self.network(images)
        return features
