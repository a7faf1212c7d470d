"""A memory bank of the training items' past features, and the losses among strangers drawn from it."""

import math

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int64
from torch import Generator, Tensor, nn


class Bank(nn.Module):
    """A feature of each training item on the unit sphere, random to begin with. Wu, Xiong, Yu, Lin 2018, section 3.1."""

    features: Tensor

    def __init__(self, items: int, width: int, momentum: float) -> None:
        super().__init__()
        self.momentum = momentum
        self.register_buffer("features", F.normalize(torch.randn(items, width), dim=1))

    def scores(self, z: Float[Tensor, "B D"], chosen: Int64[Tensor, "B M"]) -> Float[Tensor, "B M"]:
        """Cosines of each row with the remembered features of its chosen items."""
        return (z @ self.features.T).gather(1, chosen)

    def remember(self, items: Int64[Tensor, " B"], z: Float[Tensor, "B D"]) -> None:
        """The items' new features count 1 - momentum; the sum goes back to the sphere."""
        first = (items[:, None] == items).int().argmax(dim=1) == torch.arange(len(items), device=items.device)
        items, z = items[first], z.detach()[first]  # photographs come more than once in a batch: no two may want one place
        self.features[items] = F.normalize(self.momentum * self.features[items] + (1 - self.momentum) * z, dim=1)

    def candidates(self, items: Int64[Tensor, " B"], negatives: int, chances: Generator) -> Int64[Tensor, "B M"]:
        """Each item itself, and then so many strangers: uniform, anew for each item, and never the item itself."""
        drawn = torch.randint(len(self.features) - 1, (len(items), negatives), generator=chances, device=items.device)
        strangers = drawn + (drawn >= items[:, None])
        return torch.cat((items[:, None], strangers), dim=1)


class LogNormaliser(nn.Module):
    """log Z of the non-parametric softmax over the bank, estimated once, from the first batch. Wu et al. 2018, section 3.2."""

    value: Tensor

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("value", torch.tensor(torch.nan))

    def forward(self, logits: Float[Tensor, "B M"], items: int) -> Float[Tensor, ""]:
        """log of `items` times the mean of exp(logits), as the first batch had it."""
        if self.value.isnan():
            self.value.copy_(math.log(items / logits.numel()) + logits.detach().flatten().logsumexp(dim=0))
        return self.value


def nce(logits: Float[Tensor, "B M"], log_z: Float[Tensor, ""], items: int) -> Float[Tensor, ""]:
    """Noise-contrastive estimation: is a candidate the item itself (first column), or uniform noise? Wu et al. 2018, eq. 7.

    A candidate's probability exp(logit) / Z is held against that of being one of M - 1 strangers out of `items`.
    """
    margin = logits - log_z - math.log((logits.shape[1] - 1) / items)
    return -(F.logsigmoid(margin[:, 0]) + F.logsigmoid(-margin[:, 1:]).sum(dim=1)).mean()


def softmax_nce(logits: Float[Tensor, "B M"]) -> Float[Tensor, ""]:
    """-log h of the item itself (first column) less the sum of log(1 - h) of strangers, where h is the softmax over all of them.

    Misra, van der Maaten 2020, eq. 5. log(1 - h) of the largest is the log of what the others have: nothing overflows at h = 1.
    """
    total = logits.logsumexp(dim=1)
    largest = logits.argmax(dim=1, keepdim=True)
    others = logits.scatter(1, largest, -torch.inf).logsumexp(dim=1, keepdim=True)
    shares = (logits - total[:, None]).scatter(1, largest, -1.0)  # what stands there is not used
    rest = torch.log(-torch.expm1(shares)).scatter(1, largest, others - total[:, None])
    return -(logits[:, 0] - total + rest[:, 1:].sum(dim=1)).mean()


def first_of(logits: Float[Tensor, "B M"]) -> Float[Tensor, ""]:
    """InfoNCE with the positive in the first column. van den Oord et al. 2018, eq. 4."""
    return F.cross_entropy(logits, torch.zeros(len(logits), dtype=torch.long, device=logits.device))
