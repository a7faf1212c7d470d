"""Critics and densities learned from pairs, and when to stop."""

import copy
import math
from collections.abc import Callable, Generator
from dataclasses import dataclass
from typing import Generic, TypeVar

import torch
from jaxtyping import Float, Float64, Int64
from scipy.optimize import minimize_scalar
from torch import Tensor, nn
from torch.optim import AdamW
from torch.optim.lr_scheduler import CosineAnnealingLR

from ml import spec
from ml.mi import dv, infonce, interpolated, js, nwj, tuba
from ml.mi.cca import Canonical, canonical
from ml.mi.conditional import Conditional
from ml.mi.critics import CRITICS, Gaussian, Headed, silent
from ml.mi.strangers import log_mean_exp

STEPS = 800  # at most
LOOK = 20  # steps between looks at the validation pairs
PATIENCE = 6  # looks without a gain
GAIN = 1e-3  # nats; less is none
VALIDATION = 0.2  # of the pairs that are not held out
PART = 4  # batches of validation pairs that are each other's candidates
LEARNING_RATE = 3e-3  # at first; half a cosine leads it to 0
WEIGHT_DECAY = 1e-2
STEEPEST = 4.0  # times which calibration may scale scores
RANKS = (0, 1, 2, 3, 4, 6, 8, 12, 16, 24, 32, 48, 64, 96, 128)

Network = TypeVar("Network", bound=nn.Module)


class Scores(nn.Module):
    """A critic upon the Gaussian one, and a log baseline of each y that starts at 0; for MINE also its running mean, as a log."""

    running: Tensor

    def __init__(self, found: Canonical, rank: int, critic: spec.Critic) -> None:
        super().__init__()
        d1, d2 = found.x_weights.shape[1], found.y_weights.shape[1]
        self.critic = Headed(Gaussian(found, rank), CRITICS[critic](d1, d2))
        self.baseline = nn.Sequential(nn.Linear(d2, 64), nn.ReLU(), silent(64, 1))
        self.register_buffer("running", torch.tensor(-math.inf, dtype=torch.float64))

    def forward(self, u: Float[Tensor, "A r1"], v: Float[Tensor, "B r2"]) -> tuple[Float[Tensor, "A B"], Float[Tensor, " B"]]:
        """Scores, whose optimum is log p(y|x) / p(y), and the log baseline of each column, whose optimum is then 0."""
        return self.critic(u, v), self.baseline(v)[:, 0]


OBJECTIVES: dict[str, Callable[[Float[Tensor, "B B"], Float[Tensor, " B"]], Float64[Tensor, " B"]]] = {
    "infonce": lambda scores, _: infonce.contributions(scores),
    "nwj": lambda scores, _: nwj.contributions(1 + scores),
    "tuba": tuba.contributions,
    "interpolated": interpolated.contributions,
    "dv": lambda scores, _: dv.contributions(scores),
    "js": lambda scores, _: js.contributions(scores),
}
"""What each training of a critic ascends, by item."""


@dataclass(frozen=True, eq=False)
class Learned(Generic[Network]):
    """A network, the canonical coordinates that it reads, and its like that has not seen the validation pairs."""

    coordinates: Canonical
    network: Network
    earlier: "Learned[Network] | None"
    validation: Int64[Tensor, " V"]
    """Which of the pairs the earlier one has not seen."""

    def inputs(
        self, x: Float64[Tensor, "N d1"], y: Float64[Tensor, "N d2"]
    ) -> tuple[Float[Tensor, "N r1"], Float[Tensor, "N r2"]]:
        """Canonical coordinates of x and y, as the network reads them."""
        return self.coordinates.of_x(x).float(), self.coordinates.of_y(y).float()


@dataclass(frozen=True, eq=False)
class Aim(Generic[Network]):
    """What is learned, and how it is judged: `contributions(network, u, v)`, by item, the more the better."""

    build: Callable[[Canonical, int], Network]
    contributions: Callable[[Network, Tensor, Tensor], Tensor]
    batch: int
    ascent: Callable[[Network, Tensor, Tensor], Tensor] | None = None
    """What a step ascends, where that is not the contributions' mean."""


def critic_aim(objective: str, critic: spec.Critic) -> Aim[Scores]:
    """A critic for one of OBJECTIVES."""

    def contributions(network: Scores, u: Tensor, v: Tensor) -> Tensor:
        return OBJECTIVES[objective](*network(u, v))

    def mine(network: Scores, u: Tensor, v: Tensor) -> Tensor:
        ascended, network.running = dv.surrogate(network(u, v)[0], network.running)
        return ascended

    batch = 64 if critic == "concatenated" else 128  # it scores all pairs of a batch one by one
    return Aim(lambda found, rank: Scores(found, rank, critic), contributions, batch, mine if objective == "dv" else None)


def density_aim() -> Aim[Conditional]:
    """The density of y given x, by maximum likelihood."""
    return Aim(Conditional, lambda network, u, v: network.log_density(u, v), 128)


def learn(
    aim: Aim[Network],
    x: Float64[Tensor, "N d1"],
    y: Float64[Tensor, "N d2"],
    validation: Int64[Tensor, " V"],
    training: Int64[Tensor, " T"],
    generator: torch.Generator,
) -> Generator[None, None, "Learned[Network]"]:
    """Learn from training pairs until validation pairs gain no more; then as long from both together. Yields now and then.

    It begins with the leading canonical pairs, as many as validation pairs bear out, or none; the network upon them starts at
    zero, and so nothing is lost where it finds nothing.
    """
    found = canonical(x[training], y[training])
    held = found.of_x(x[validation]).float(), found.of_y(y[validation]).float()
    rank = _best_rank(aim, found, held, generator)
    network = _build(aim, found, rank, generator)
    steps = yield from _train(
        aim, network, found.of_x(x[training]).float(), found.of_y(y[training]).float(), STEPS, held, generator
    )
    earlier = Learned(found, network, None, validation)
    both = torch.cat((training, validation))
    found = canonical(x[both], y[both])
    network = _build(aim, found, rank, generator)
    yield from _train(aim, network, found.of_x(x[both]).float(), found.of_y(y[both]).float(), steps, None, generator)
    return Learned(found, network, earlier, validation)


def calibration(scores: Float[Tensor, "V V"]) -> tuple[float, float]:
    """Scale and shift at which these scores are best read as log p(y|x) / p(y): highest in Donsker-Varadhan, of mean exp 1.

    Where they say nothing the scale is 0, and they read 0.
    """
    scores = scores.double()
    fit = minimize_scalar(
        lambda scale: -dv.contributions(scale * scores).mean().item(),
        bounds=(0, STEEPEST),
        method="bounded",
        options={"xatol": 1e-3},
    )
    scale = fit.x if fit.fun < 0 else 0.0
    return scale, -log_mean_exp(scale * scores).item()


def _best_rank(aim: Aim[Network], found: Canonical, held: tuple[Tensor, Tensor], generator: torch.Generator) -> int:
    most = len(found.correlations)
    best, gained = 0, 0.0
    with torch.no_grad():
        start = _contributions(aim, _build(aim, found, 0, generator), held)
        for rank in sorted({*(rank for rank in RANKS if 0 < rank < most), most}):
            gain = (_contributions(aim, _build(aim, found, rank, generator), held) - start).double()
            if gain.mean() > max(gained, (gain.std() / math.sqrt(len(gain))).item()):
                best, gained = rank, gain.mean().item()
    return best


def _build(aim: Aim[Network], found: Canonical, rank: int, generator: torch.Generator) -> Network:
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(generator.initial_seed())
        return aim.build(found, rank)


def _train(
    aim: Aim[Network],
    network: Network,
    u: Float[Tensor, "N r1"],
    v: Float[Tensor, "N r2"],
    steps: int,
    held: tuple[Tensor, Tensor] | None,
    generator: torch.Generator,
) -> Generator[None, None, int]:
    """Train in place for so many steps; with held pairs, until they gain no more, and answer at which step they gained most."""
    optimiser = AdamW(network.parameters(), LEARNING_RATE, weight_decay=WEIGHT_DECAY, fused=True)
    schedule = CosineAnnealingLR(optimiser, max(steps, 1))
    best = -math.inf if held is None else _value(aim, network, held)
    kept, at = copy.deepcopy(network.state_dict()), 0
    for step in range(1, steps + 1):
        chosen = torch.randperm(len(u), generator=generator)[: aim.batch]
        ascended = (aim.ascent or _mean(aim))(network, u[chosen], v[chosen])
        optimiser.zero_grad()
        (-ascended).backward()
        nn.utils.clip_grad_norm_(network.parameters(), 10.0)
        optimiser.step()
        schedule.step()
        if step % LOOK == 0:
            yield
            if held is not None and (value := _value(aim, network, held)) > best + GAIN:
                best, at, kept = value, step, copy.deepcopy(network.state_dict())
            if held is not None and step - at >= LOOK * PATIENCE:
                break
    if held is not None:
        network.load_state_dict(kept)
    return at


def _mean(aim: Aim[Network]) -> Callable[[Network, Tensor, Tensor], Tensor]:
    return lambda network, u, v: aim.contributions(network, u, v).mean()


def _value(aim: Aim[Network], network: Network, held: tuple[Tensor, Tensor]) -> float:
    with torch.no_grad():
        value = _contributions(aim, network, held).mean().item()
    return value if math.isfinite(value) else -math.inf


def _contributions(aim: Aim[Network], network: Network, held: tuple[Tensor, Tensor]) -> Tensor:
    """In parts, since a critic costs the square of their length."""
    parts = math.ceil(len(held[0]) / (PART * aim.batch))
    return torch.cat(
        [aim.contributions(network, u, v) for u, v in zip(*(side.tensor_split(parts) for side in held), strict=True)]
    )
