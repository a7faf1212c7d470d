"""ResNets."""

from jaxtyping import Float
from torch import Tensor, nn
from torchvision.models import resnet18, resnet34, resnet50

from ml import encoders, spec
from ml.encoders import Encoder


@encoders.implements(spec.ResNet18)
@encoders.implements(spec.ResNet34)
@encoders.implements(spec.ResNet50)
class ResNet(Encoder):
    """He et al. 2016 in torchvision's version; the small stem is that of Chen et al. 2020, appendix B.9."""

    def __init__(self, architecture: spec.ResNet18 | spec.ResNet34 | spec.ResNet50, in_channels: int) -> None:
        super().__init__()
        self.features = architecture.features
        self.network = {"resnet18": resnet18, "resnet34": resnet34, "resnet50": resnet50}[architecture.kind]()
        small = architecture.stem != "imagenet"
        kernel, stride, padding = (3, 1, 1) if small else (7, 2, 3)
        self.network.conv1 = nn.Conv2d(in_channels, 64, kernel, stride, padding, bias=False)
        nn.init.kaiming_normal_(self.network.conv1.weight, mode="fan_out", nonlinearity="relu")
        if small:
            self.network.maxpool = nn.Identity()
        self.network.fc = nn.Identity()

    def forward(self, images: Float[Tensor, "B C H W"]) -> Float[Tensor, "B F"]:
        """The mean over positions of the last block."""
        features: Tensor = self.network(images)
        return features
