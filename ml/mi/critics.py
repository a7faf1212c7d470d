"""Critics f(x, y): what scores how well an x and a y go together."""

from abc import abstractmethod

import torch
from jaxtyping import Float
from torch import Tensor, nn

from ml import spec
from ml.mi.cca import Canonical

CLIP = 60.0  # nats; a clipped critic is a critic still, and nothing overflows
WIDTH = 128  # of hidden layers
INNER = 32  # dimensions of the inner product


class Critic(nn.Module):
    """A network that scores every x of a batch with every y; 0 for all before it is trained."""

    @abstractmethod
    def forward(self, x: Float[Tensor, "A d1"], y: Float[Tensor, "B d2"]) -> Float[Tensor, "A B"]:
        """f(x_i, y_j) in row i and column j."""


class Separable(Critic):
    """g(x) h(y) with two networks: as cheap as encoding. van den Oord et al. 2018; so named in Poole et al. 2019, section 3."""

    def __init__(self, d1: int, d2: int) -> None:
        super().__init__()
        self.g, self.h = _network(d1, nn.Linear(WIDTH, INNER)), _network(d2, silent(WIDTH, INNER))

    def forward(self, x: Float[Tensor, "A d1"], y: Float[Tensor, "B d2"]) -> Float[Tensor, "A B"]:
        """Inner products."""
        scores: Tensor = self.g(x) @ self.h(y).T
        return scores


class Bilinear(Critic):
    """x W y: right where one is a linear map of the other with Gaussian noise. van den Oord et al. 2018, eq. 3."""

    def __init__(self, d1: int, d2: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.zeros(d1, d2))

    def forward(self, x: Float[Tensor, "A d1"], y: Float[Tensor, "B d2"]) -> Float[Tensor, "A B"]:
        """Bilinear forms."""
        return x @ self.weight @ y.T


class Concatenated(Critic):
    """A network of (x, y): the most general, and A times B evaluations. Belghazi et al. 2018."""

    def __init__(self, d1: int, d2: int) -> None:
        super().__init__()
        self.of_x, self.of_y = nn.Linear(d1, WIDTH), nn.Linear(d2, WIDTH, bias=False)  # together: one layer of (x, y)
        self.rest = nn.Sequential(nn.ReLU(), nn.Linear(WIDTH, WIDTH), nn.ReLU(), silent(WIDTH, 1))

    def forward(self, x: Float[Tensor, "A d1"], y: Float[Tensor, "B d2"]) -> Float[Tensor, "A B"]:
        """All pairs, some rows at a time to spare memory."""
        of_y = self.of_y(y)
        rows = [self.rest(part[:, None] + of_y).squeeze(2) for part in self.of_x(x).split(64)]
        return torch.cat(rows)


class Gaussian(nn.Module):
    """The log density ratio of Gaussians with the leading canonical correlations, of canonical coordinates."""

    correlations: Tensor

    def __init__(self, canonical: Canonical, rank: int) -> None:
        super().__init__()
        self.register_buffer("correlations", canonical.correlations[:rank].float())

    def forward(self, u: Float[Tensor, "A r1"], v: Float[Tensor, "B r2"]) -> Float[Tensor, "A B"]:
        """log p(v|u) / p(v), which is that of the arrays themselves."""
        rho = self.correlations
        u, v = u[:, : len(rho)], v[:, : len(rho)]
        left = 1 - rho.square()
        squares = u.square() @ (rho.square() / left), v.square() @ (rho.square() / left)
        product = u * (rho / left) @ v.T
        return product - (squares[0][:, None] + squares[1][None, :]) / 2 - left.log().sum() / 2


class Headed(Critic):
    """A critic upon the Gaussian one: it begins where linear correlation ends."""

    def __init__(self, head: Gaussian, critic: Critic) -> None:
        super().__init__()
        self.head, self.critic = head, critic

    def forward(self, x: Float[Tensor, "A r1"], y: Float[Tensor, "B r2"]) -> Float[Tensor, "A B"]:
        """Their sum, clipped."""
        scores: Tensor = self.head(x, y) + self.critic(x, y)
        return scores.clamp(-CLIP, CLIP)


CRITICS: dict[spec.Critic, type[Separable] | type[Bilinear] | type[Concatenated]] = {
    "separable": Separable,
    "bilinear": Bilinear,
    "concatenated": Concatenated,
}


def silent(inputs: int, outputs: int) -> nn.Linear:
    """A layer that answers 0 before it is trained."""
    layer = nn.Linear(inputs, outputs)
    nn.init.zeros_(layer.weight)
    nn.init.zeros_(layer.bias)
    return layer


def _network(inputs: int, last: nn.Linear) -> nn.Sequential:
    return nn.Sequential(nn.Linear(inputs, WIDTH), nn.ReLU(), nn.Linear(WIDTH, WIDTH), nn.ReLU(), last)
