"""Contrastive multiview coding. Tian, Krishnan, Isola 2019."""

from jaxtyping import Float, Int64
from torch import Generator, Tensor, nn

from ml import methods, spec
from ml.distributed import gather, share
from ml.methods import Projecting, Setting
from ml.methods.bank import Bank, first_of
from ml.methods.simclr import info_nce
from ml.views import Inputs


@methods.implements(spec.CMC)
class CMC(Projecting):
    """Views of two kinds, each with an encoder; each finds its partner among the other kind's, in a bank or in the batch."""

    def __init__(self, method: spec.CMC, setting: Setting) -> None:
        super().__init__(method, setting)
        self.method = method
        kinds = range(2 if method.strangers == "bank" else 0)
        self.banks = nn.ModuleList(Bank(setting.items, method.projection, method.bank_momentum) for _ in kinds)
        self._seen: list[tuple[Bank, Tensor, Tensor]] = []

    def loss(self, drawn: Inputs, items: Int64[Tensor, " B"], chances: Generator) -> Float[Tensor, ""]:
        """InfoNCE from v1 to v2 and from v2 to v1, their mean."""
        z1, z2 = (gather(self.project(share(view), which)) for which, view in enumerate(drawn))
        if self.method.strangers == "batch":
            return info_nce(z1, z2, self.method.temperature)
        bank1, bank2 = self.banks
        assert isinstance(bank1, Bank) and isinstance(bank2, Bank) and self.method.negatives is not None, "as built"
        self._seen = [(bank1, items, z1), (bank2, items, z2)]
        candidates = bank1.candidates(items, self.method.negatives, chances)
        to_v2, to_v1 = (bank.scores(z, candidates) / self.method.temperature for bank, z in ((bank2, z1), (bank1, z2)))
        return (first_of(to_v2) + first_of(to_v1)) / 2

    def update(self) -> None:
        """The banks take in what this step saw."""
        for bank, items, z in self._seen:
            bank.remember(items, z)
        self._seen = []
