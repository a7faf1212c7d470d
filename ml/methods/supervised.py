"""The encoder trained with labels: what the methods without them are held against."""

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int64
from torch import Generator, Tensor, nn

from ml import methods, spec
from ml.distributed import gather, share
from ml.methods import Setting
from ml.methods.frozen import Frozen
from ml.views import Inputs


@methods.implements(spec.Supervised)
class Supervised(Frozen):
    """A linear classifier upon each encoder; v1 and v2 are two examples of their item's class."""

    labels: Tensor

    def __init__(self, method: spec.Supervised, setting: Setting) -> None:
        super().__init__(method, setting)
        labels = setting.targets[method.target]
        self.register_buffer("labels", labels, persistent=False)
        self.classifiers = nn.ModuleList(nn.Linear(width, int(labels.max()) + 1) for width in setting.widths)

    def loss(self, drawn: Inputs, items: Int64[Tensor, " B"], chances: Generator) -> Float[Tensor, ""]:
        """Cross-entropy of the views whose item has a class; 0 where none has."""
        labels = self.labels[items]
        views = [share(view) for view in drawn]
        if len(self.classifiers) == 1:
            logits = list(self.classifiers[0](self.encoders[0](torch.cat(views))).chunk(2))
        else:
            logits = [head(encoder(view)) for head, encoder, view in zip(self.classifiers, self.encoders, views, strict=True)]
        losses = [F.cross_entropy(gather(part), labels, ignore_index=-1, reduction="sum") for part in logits]
        return torch.stack(losses).mean() / (labels >= 0).sum().clamp(min=1)
