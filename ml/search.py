"""Where to train next when the peak of a curve is sought: ask and tell, behind a Gaussian process.

Nothing is remembered between calls: what was told so far is the state, and chance has a fixed seed, so that the same trials lead
to the same next ones wherever they are asked for. numpy and scipy only, no torch: the process that asks need not train.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import product
from typing import Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy.special import logsumexp

from ml import spec

Floats = NDArray[np.float64]

LEVEL = 0.9  # of the peak's interval
FIRST_VALUES = (5, 7)  # of the design that a search begins with, fewest and most
LEAST_FULL = 3  # whole trainings before a model chooses, where short ones came first
FOR_THE_VERDICT = 1 / 3  # of the trainings are repeats for the two-lines test, in a search of
LEAST_FOR_A_VERDICT = 15  # trainings or more
DRAWS = 600  # of the curve from its posterior
LENGTHS = (0.07, 0.1, 0.15, 0.22, 0.33, 0.5, 0.8)  # over which the curve changes, as shares of the range
AMPLITUDES = (0.5, 1.0, 2.0)  # of the curve, in standard deviations of what was told
NOISES = (0.01, 0.03, 0.06, 0.12, 0.25, 0.5, 0.9)  # of a training, likewise
LIKENESSES = (0.5, 0.8, 0.95)  # correlation of short trainings' curve with that of whole ones


@dataclass(frozen=True)
class Trial:
    """A training of a search: its value on the axis, and how well it did the task (more is better); None while that is unknown.

    `short` ones have fewer steps, and are taken as hints at what whole ones would do. Of one that `failed` no score will come.
    """

    value: float
    score: float | None = None
    short: bool = False
    failed: bool = False

    @property
    def pending(self) -> bool:
        """Whether its score is still to come."""
        return self.score is None and not self.failed


class Peak(NamedTuple):
    """Where the curve is highest: the tried or untried value of the search's grid, its interval, and the score expected there."""

    value: float
    value_ci: tuple[float, float]
    score: float


def ask(search: spec.Search, trials: Sequence[Trial], count: int = 1) -> list[Trial]:
    """Up to `count` trainings to begin now, given those begun so far; none where the search has ended.

    It begins with a design of evenly spaced values (of short trainings first, if it has those), goes on where the outcome tells
    most about the place of the peak (predictive entropy search, Hernández-Lobato et al. 2014, by draws from the posterior), and,
    of 15 trainings or more, keeps a third to repeat its design, which the two-lines test needs on both sides of the peak. Trials
    without a score are taken to come out as expected, so that several asked for at once differ.
    """
    begun = list(trials)
    asked: list[Trial] = []
    while len(asked) < count and (next_one := _next(search, begun)) is not None:
        asked.append(next_one)
        begun.append(next_one)
    return asked


def independent(search: spec.Search, trials: Sequence[Trial]) -> int:
    """How many trainings of the design are still to be asked for, which do not hang on the outcome of any."""
    if search.short is not None:
        return max(_first_values(search) - len(trials), 0)
    return max(_first_values(search) - sum(not trial.short for trial in trials), 0)


def peak(
    search: spec.Search,
    trials: Sequence[Trial],
    level: float = LEVEL,
    other_items: tuple[Floats, Floats] | None = None,
) -> Peak | None:
    """Where the peak is, by what was told so far, with its interval; None below five scores of whole trainings.

    Draws of the curve hold what another training would change. `other_items`, as (values [J], changes [R, J]), are by how much
    other held-out items would change the scores at these values, and widen the interval.
    """
    told = [trial for trial in trials if trial.score is not None]
    if sum(not trial.short for trial in told) < FIRST_VALUES[0]:
        return None
    model = _Model(search, told)
    draws = model.draws()
    if other_items is not None:
        values, changes = other_items
        at = positions(search, list(values))
        rising = np.argsort(at)
        draws = draws + np.array([np.interp(model.positions, at[rising], change[rising]) for change in changes[: len(draws)]])
    mean = model.mean()
    best = int(mean.argmax())
    low, high = np.quantile(model.positions[draws.argmax(axis=1)], [(1 - level) / 2, (1 + level) / 2])
    low, high = min(low, model.positions[best]), max(high, model.positions[best])
    ends = [float(f"{model.value_at(position):.4g}") for position in (low, high)]
    return Peak(model.grid[best], (max(ends[0], search.low), min(ends[1], search.high)), float(mean[best]))


def spent(search: spec.Search, trials: Sequence[Trial]) -> float:
    """Trainings begun so far; a short one counts by its share of the steps."""
    return sum((search.short or 1.0) if trial.short else 1.0 for trial in trials)


def ended(search: spec.Search, trials: Sequence[Trial]) -> Literal["tolerance", "trainings"] | None:
    """Why no more trainings are to begin: the peak is known as well as was asked, or none are left; None while neither is so."""
    if spent(search, trials) > search.trainings - 1 + 1e-9 and not _to_be_short(search, trials):
        return "trainings"
    return "tolerance" if _known_well_enough(search, trials) else None


def share_of_range(search: spec.Search, interval: tuple[float, float]) -> float:
    """The width of an interval of values as a share of the search's range, on its scale."""
    low, high = positions(search, interval)
    return float(high - low)


def _known_well_enough(search: spec.Search, trials: Sequence[Trial]) -> bool:
    if search.tolerance is None:
        return False
    found = peak(search, trials)
    return found is not None and share_of_range(search, found.value_ci) <= search.tolerance


def _next(search: spec.Search, begun: Sequence[Trial]) -> Trial | None:
    if ended(search, begun):
        return None
    grid = search.grid()
    design = [grid[place] for place in np.linspace(0, len(grid) - 1, _first_values(search)).round().astype(int)]
    if _to_be_short(search, begun):
        return Trial(design[len(begun)], short=True)
    whole = [trial for trial in begun if not trial.short]
    if len(whole) < (len(design) if search.short is None else LEAST_FULL):
        if any(trial.short and trial.pending for trial in begun):
            return None
        first = _outside_in(design) if search.short is None else [_best_short(begun, design), design[0], design[-1]]
        return Trial(first[len(whole)])
    if all(trial.score is None for trial in whole):
        return None  # nothing is known yet that could tell where
    repeats = search.trainings >= LEAST_FOR_A_VERDICT and spent(search, begun) >= (1 - FOR_THE_VERDICT) * search.trainings
    fewest = min(_outside_in(design), key=lambda value: sum(trial.value == value for trial in whole))
    return Trial(fewest if repeats else _most_telling(search, begun))


def _to_be_short(search: spec.Search, trials: Sequence[Trial]) -> bool:
    return search.short is not None and sum(trial.short for trial in trials) < _first_values(search)


def _first_values(search: spec.Search) -> int:
    return min(max(search.trainings // 2, FIRST_VALUES[0]), FIRST_VALUES[1], len(search.grid()))


def _outside_in(values: Sequence[float]) -> list[float]:
    """The middle first, then the ends, then the rest: what is told first tells most."""
    middle = len(values) // 2
    first = [middle, 0, len(values) - 1]
    return [values[place] for place in [*first, *(place for place in range(len(values)) if place not in first)]]


def _best_short(trials: Sequence[Trial], design: Sequence[float]) -> float:
    """The value that did best, the middle of the design where all failed."""
    done = [(trial.score, trial.value) for trial in trials if trial.short and trial.score is not None]
    return max(done)[1] if done else design[len(design) // 2]


def _most_telling(search: spec.Search, begun: Sequence[Trial]) -> float:
    """The value whose outcome is expected to narrow the place of the peak most."""
    told = [trial for trial in begun if trial.score is not None]
    model = _Model(search, told)
    for trial in begun:
        if trial.pending:
            expected = float(model.mean()[model.grid.index(_nearest(model.grid, trial.value))])
            model = _Model(search, [*model.trials, replace(trial, score=expected, short=False)])
    draws, noise = model.draws(), model.noise
    places = draws.argmax(axis=1)
    order = np.argsort(places, kind="stable")
    entropy = np.zeros(len(model.grid))
    for group in np.array_split(order, 12):  # draws alike in the place of their peak
        entropy += len(group) / len(draws) * 0.5 * np.log(draws[group].var(axis=0) + noise)
    return model.grid[int((0.5 * np.log(draws.var(axis=0) + noise) - entropy).argmax())]


def _nearest(values: Sequence[float], value: float) -> float:
    return min(values, key=lambda other: abs(other - value))


def positions(search: spec.Search, values: Sequence[float] | Floats) -> Floats:
    """From 0 at the lowest value to 1 at the highest, on the search's scale."""
    at = np.array([search.low, search.high, *values])
    at = np.log(at) if search.scale == "log" else at
    return np.asarray((at[2:] - at[0]) / (at[1] - at[0]))


class _Model:
    """Posterior of the curve on the search's grid, averaged over the hyperparameters of a Gaussian process.

    Matérn 5/2, and independent noise for each training. With ten trainings the likelihood's maximum would claim to know length,
    amplitude and noise, and its intervals would be too narrow; here each combination of a grid counts by its likelihood. Short
    and whole trainings are two correlated curves, each with its own mean.
    """

    def __init__(self, search: spec.Search, trials: Sequence[Trial]):
        self.search = search
        self.trials = list(trials)
        self.grid = list(search.grid())
        self.positions = positions(search, self.grid)
        at = positions(search, [trial.value for trial in trials])
        short = np.array([trial.short for trial in trials])
        scores = np.array([trial.score for trial in trials], dtype=np.float64)
        self._centre = scores[~short].mean() if (~short).any() else scores.mean()
        self._scale = (scores[~short] if (~short).any() else scores).std() or scores.std() or 1.0
        y = (scores - self._centre) / self._scale
        if short.any():
            y[short] = (scores[short] - scores[short].mean()) / (scores[short].std() or 1.0)
        likenesses = LIKENESSES if short.any() else (1.0,)
        choices = np.array(list(product(LENGTHS, AMPLITUDES, NOISES, likenesses)))
        lengths, amplitudes, noises, alike = (column[:, None, None] for column in choices.T)
        same = np.where(short[:, None] == short[None], 1.0, alike)
        among = amplitudes**2 * same * _matern(at[:, None] - at[None], lengths)
        factor = np.linalg.cholesky(among + noises**2 * np.eye(len(y)))
        across = amplitudes**2 * np.where(short[:, None], alike, 1.0) * _matern(at[:, None] - self.positions[None], lengths)
        white = np.linalg.solve(factor, np.broadcast_to(y[:, None], (len(choices), len(y), 1)))
        loadings = np.linalg.solve(factor, across)
        likelihood = -0.5 * (white**2).sum(axis=(1, 2)) - np.log(np.diagonal(factor, axis1=1, axis2=2)).sum(axis=1)
        self._weights = np.exp(likelihood - logsumexp(likelihood))
        self._means = (loadings.transpose(0, 2, 1) @ white)[:, :, 0]
        self._loadings, self._choices = loadings, choices

    @property
    def noise(self) -> float:
        """Variance of a training about the curve, expected."""
        return float((self._weights * self._choices[:, 2] ** 2).sum() * self._scale**2)

    def mean(self) -> Floats:
        """[G]: the curve expected, in units of the score."""
        return np.asarray(self._centre + self._scale * (self._weights @ self._means))

    def draws(self) -> Floats:
        """[S, G]: curves as likely as what was told makes them."""
        chance = np.random.default_rng(0)
        counts = chance.multinomial(DRAWS, self._weights)
        priors = {length: _matern(self.positions[:, None] - self.positions[None], length) for length in LENGTHS}
        curves = []
        for index in np.flatnonzero(counts):
            length, amplitude, _, _ = self._choices[index]
            prior = amplitude**2 * priors[length]
            covariance = prior - self._loadings[index].T @ self._loadings[index]
            root = np.linalg.cholesky(covariance + 1e-6 * amplitude**2 * np.eye(len(prior)))
            curves.append(self._means[index] + chance.standard_normal((counts[index], len(prior))) @ root.T)
        return np.asarray(self._centre + self._scale * np.concatenate(curves))

    def value_at(self, position: float) -> float:
        """The value on the axis at a position between 0 and 1."""
        low, high = self.search.low, self.search.high
        if self.search.scale == "log":
            return math.exp(math.log(low) + position * (math.log(high) - math.log(low)))
        return low + position * (high - low)


def _matern(offset: Floats, length: Floats | float) -> Floats:
    """Matérn 5/2: curves that can be differentiated twice (Rasmussen and Williams 2006, eq. 4.17)."""
    scaled = math.sqrt(5) * np.abs(offset) / length
    return np.asarray((1 + scaled + scaled**2 / 3) * np.exp(-scaled))
