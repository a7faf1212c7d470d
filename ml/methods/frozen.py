"""No training: encoders as they are."""

import torch.nn.functional as F
from jaxtyping import Float, Int64
from torch import Generator, Tensor, nn

from ml import methods, spec
from ml.methods import Method, Setting, in_parts
from ml.views import Inputs


@methods.implements(spec.Frozen)
class Frozen(Method):
    """The encoders alone; their features are what is compared."""

    def __init__(self, _method: spec.Frozen | spec.Supervised, setting: Setting) -> None:
        super().__init__()
        self.encoders = nn.ModuleList(setting.encoders)  # type: ignore[assignment]

    def loss(self, drawn: Inputs, items: Int64[Tensor, " B"], chances: Generator) -> Float[Tensor, ""]:
        """There is none. Raises NotImplementedError."""
        raise NotImplementedError("frozen encoders are not trained")

    def embeddings(
        self, v1: Float[Tensor, "B ..."], v2: Float[Tensor, "B ..."]
    ) -> tuple[Float[Tensor, "B D"], Float[Tensor, "B D"]]:
        """Features on the unit sphere."""
        z1, z2 = in_parts(self.encoders[0], v1), in_parts(self.encoders[-1], v2)
        return F.normalize(z1, dim=1), F.normalize(z2, dim=1)
