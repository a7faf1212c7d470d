"""Instance discrimination. Wu, Xiong, Yu, Lin 2018."""

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int64
from torch import Generator, Tensor, nn

from ml import methods, spec
from ml.distributed import gather, share
from ml.methods import Projecting, Setting
from ml.methods.bank import Bank, LogNormaliser, nce
from ml.views import Inputs


@methods.implements(spec.InstDis)
class InstDis(Projecting):
    """An image against its own past feature among those of others.

    Of views that are made alike v1 alone is encoded, and its past stands for v2. Where they are made in different ways, each is
    compared with the other's past, in a bank of its own.
    """

    def __init__(self, method: spec.InstDis, setting: Setting) -> None:
        super().__init__(method, setting)
        self.method = method
        self.against = ((0, 0),) if setting.recipe.exchangeable else ((0, 1), (1, 0))
        self.banks = nn.ModuleList(Bank(setting.items, method.projection, method.bank_momentum) for _ in self.against)
        self.log_z = nn.ModuleList(LogNormaliser() for _ in self.against)
        self._seen: list[tuple[Bank, Tensor, Tensor]] = []

    def loss(self, drawn: Inputs, items: Int64[Tensor, " B"], chances: Generator) -> Float[Tensor, ""]:
        """Noise-contrastive estimation, or cross-entropy over the whole bank; the mean of both ways where there are two."""
        views = [gather(self.project(share(drawn[which]), which)) for which, _ in self.against]
        self._seen = [(bank, items, z) for bank, z in zip(self.banks, views, strict=True)]  # type: ignore[misc]
        losses = []
        for (which, past), log_z in zip(self.against, self.log_z, strict=True):
            bank = self.banks[past]
            assert isinstance(bank, Bank), "as built"
            if self.method.objective == "softmax":
                losses.append(F.cross_entropy(views[which] @ bank.features.T / self.method.temperature, items))
                continue
            assert self.method.negatives is not None, "a resolved spec has it"
            candidates = bank.candidates(items, self.method.negatives, chances)
            logits = bank.scores(views[which], candidates) / self.method.temperature
            losses.append(nce(logits, log_z(logits, len(bank.features)), len(bank.features)))
        return torch.stack(losses).mean()

    def update(self) -> None:
        """The bank takes in what this step saw."""
        for bank, items, z in self._seen:
            bank.remember(items, z)
        self._seen = []
