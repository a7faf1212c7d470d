"""Where to train next when the peak of a curve is sought: ask and tell, behind a Gaussian process.

Nothing is remembered between calls: what was told so far is the state, and chance has a fixed seed, so that the same trials lead
to the same next ones wherever they are asked for. numpy and scipy only, no torch: the process that asks need not train.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
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
LEAST_TRAININGS = 10  # whole ones, before a peak may be called known: fewer are no basis for a verdict
FOR_THE_VERDICT = 0.3  # of the trainings are repeats for the two-lines test, in a search of
LEAST_FOR_A_VERDICT = 15  # trainings or more
DRAWS = 2000  # of the curve from its posterior
LENGTHS = (0.07, 0.1, 0.15, 0.22, 0.33, 0.5, 0.8)  # over which the curve changes, as shares of the range
AMPLITUDES = (0.5, 1.0, 2.0)  # of the curve, in standard deviations of what was told
NOISES = (0.02, 0.05, 0.1, 0.2, 0.4, 0.8)  # of a training, likewise
SHARED = (0.0, 1.0, 3.0)  # noise of a seed, the same at all values, in that of a training
LIKENESSES = (0.5, 0.8, 0.95)  # correlation of short trainings' curve with that of whole ones


@dataclass(frozen=True)
class Trial:
    """A training of a search: its value on the axis, and how well it did the task (more is better); None while that is unknown.

    `short` ones have fewer steps, and are taken as hints at what whole ones would do. Of one that `failed` no score will come.
    Trainings of the same `repeat` have the same seed, and so the same first weights and labels.
    """

    value: float
    score: float | None = None
    short: bool = False
    failed: bool = False
    repeat: int = 0

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
    of 15 trainings or more, keeps 30 % to repeat its design, which the two-lines test needs on both sides of the peak. Trials
    without a score are taken to come out as expected, so that several asked for at once differ.
    """
    begun, asked = list(trials), list[Trial]()
    if ended(search, begun):
        return asked
    known = _known_well_enough(search, begun)
    belief: _Belief | None = None
    while len(asked) < count and _room(search, begun):
        following = _of_design(search, begun)
        if following is None and not _independent_is_over(search, begun):
            break
        if following is None and (known or _time_for_the_verdict(search, begun)):
            following = _fewest(search, begun)
        if following is None:
            belief = belief or _Belief(_Model(search, begun), [trial.value for trial in begun if trial.pending])
            following = Trial(belief.most_telling())
        if belief is not None:
            belief.expect(following.value)
        asked.append(following)
        begun.append(following)
    return asked


def independent(search: spec.Search, trials: Sequence[Trial]) -> int:
    """How many trainings of the design are still to be asked for, which do not hang on the outcome of any."""
    done = len(trials) if search.short is not None else sum(not trial.short for trial in trials)
    return max(len(design(search)) - done, 0)


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
    if sum(trial.score is not None and not trial.short for trial in trials) < FIRST_VALUES[0]:
        return None
    model = _Model(search, trials)
    draws = model.draws()
    if other_items is not None:
        values, changes = other_items
        at = positions(search, list(values))
        rising = np.argsort(at)
        draws = draws + np.array([np.interp(model.positions, at[rising], change[rising]) for change in changes[: len(draws)]])
    mean = model.mean()
    best = model.grid[int(mean.argmax())]
    low, high = np.quantile(draws.argmax(axis=1), [(1 - level) / 2, (1 + level) / 2])
    # half-way to the next value of the grid, since no draw peaks between two
    at = np.interp([low - 0.5, high + 0.5], np.arange(len(model.grid)), model.positions)
    ends = [float(f"{model.value_at(position):.4g}") for position in at]
    inside = (min(max(ends[0], search.low), best), max(min(ends[1], search.high), best))
    return Peak(best, inside, float(mean.max()))


def spent(search: spec.Search, trials: Sequence[Trial]) -> float:
    """Trainings begun so far; a short one counts by its share of the steps."""
    return sum((search.short or 1.0) if trial.short else 1.0 for trial in trials)


def ended(search: spec.Search, trials: Sequence[Trial]) -> Literal["tolerance", "trainings"] | None:
    """Why no more trainings are to begin: the peak is known as well as was asked, or none are left; None while neither is so.

    A peak that is known ends a search of 15 trainings or more once its first values were trained twice, too.
    """
    if not _room(search, trials):
        return "trainings"
    if not _known_well_enough(search, trials):
        return None
    repeated = search.trainings < LEAST_FOR_A_VERDICT or _fewest(search, trials, below=2) is None
    return "tolerance" if repeated else None


def design(search: spec.Search) -> list[float]:
    """The values that a search begins with, evenly spaced on its scale: they hang on no outcome."""
    grid = search.grid()
    at = positions(search, grid)
    places = {int(np.abs(at - position).argmin()) for position in np.linspace(0, 1, _first_values(search))}
    return [grid[place] for place in sorted(places)]


def share_of_range(search: spec.Search, interval: tuple[float, float]) -> float:
    """The width of an interval of values as a share of the search's range, on its scale."""
    low, high = positions(search, interval)
    return float(high - low)


def positions(search: spec.Search, values: Sequence[float] | Floats) -> Floats:
    """From 0 at the lowest value to 1 at the highest, on the search's scale."""
    at = np.array([search.low, search.high, *values])
    at = np.log(at) if search.scale == "log" else at
    return np.asarray((at[2:] - at[0]) / (at[1] - at[0]))


# What comes next ------------------------------------------------------------------------------------------------------


def _room(search: spec.Search, trials: Sequence[Trial]) -> bool:
    return _to_be_short(search, trials) or spent(search, trials) <= search.trainings - 1 + 1e-9


def _known_well_enough(search: spec.Search, trials: Sequence[Trial]) -> bool:
    """The interval is as narrow as asked with the last score and without it: one of many looks would be lucky."""
    told = [trial for trial in trials if trial.score is not None]
    if search.tolerance is None or sum(not trial.short for trial in told) < LEAST_TRAININGS:
        return False
    found = (peak(search, told), peak(search, told[:-1]))
    return all(one is not None and share_of_range(search, one.value_ci) <= search.tolerance for one in found)


def _of_design(search: spec.Search, begun: Sequence[Trial]) -> Trial | None:
    """The next of the design; None where that has been asked for, or waits for short trainings."""
    first_values = design(search)
    if _to_be_short(search, begun):
        return Trial(first_values[len(begun)], short=True)
    whole = sum(not trial.short for trial in begun)
    if search.short is None:
        return Trial(_outside_in(first_values)[whole]) if whole < len(first_values) else None
    if whole >= LEAST_FULL or any(trial.short and trial.pending for trial in begun):
        return None
    return Trial([_best_short(begun, first_values), first_values[0], first_values[-1]][whole])


def _independent_is_over(search: spec.Search, begun: Sequence[Trial]) -> bool:
    """Whether the design has been asked for, and something is known that could tell where to go on."""
    whole = [trial for trial in begun if not trial.short]
    return len(whole) >= (LEAST_FULL if search.short else 1) and any(trial.score is not None for trial in whole)


def _time_for_the_verdict(search: spec.Search, begun: Sequence[Trial]) -> bool:
    return search.trainings >= LEAST_FOR_A_VERDICT and spent(search, begun) >= (1 - FOR_THE_VERDICT) * search.trainings


def _fewest(search: spec.Search, begun: Sequence[Trial], below: int | None = None) -> Trial | None:
    """The value of the design that was trained least often; None where that is not `below` so many times."""
    whole = [trial.value for trial in begun if not trial.short]
    value = min(_outside_in(design(search)), key=whole.count)
    return Trial(value) if below is None or whole.count(value) < below else None


def _to_be_short(search: spec.Search, trials: Sequence[Trial]) -> bool:
    return search.short is not None and sum(trial.short for trial in trials) < len(design(search))


def _first_values(search: spec.Search) -> int:
    return min(max(search.trainings // 3, FIRST_VALUES[0]), FIRST_VALUES[1])


def _outside_in(values: Sequence[float]) -> list[float]:
    """The middle first, then the ends, then the rest: what is told first tells most."""
    middle = len(values) // 2
    first = [middle, 0, len(values) - 1]
    return [values[place] for place in [*first, *(place for place in range(len(values)) if place not in first)]]


def _best_short(trials: Sequence[Trial], first_values: Sequence[float]) -> float:
    """The value that did best, the middle one where all failed."""
    done = [(trial.score, trial.value) for trial in trials if trial.short and trial.score is not None]
    return max(done)[1] if done else first_values[len(first_values) // 2]


# What is known --------------------------------------------------------------------------------------------------------


class _Model:
    """Posterior of the curve on the search's grid, averaged over the hyperparameters of a Gaussian process.

    Matérn 5/2, independent noise for each training, and noise that trainings of one seed share: the draw of a label budget, for
    example, lifts or lowers a whole curve. With ten trainings the likelihood's maximum would claim to know length, amplitude and
    noises, and its intervals would be too narrow; here each combination of a grid counts by its likelihood. Short and whole
    trainings are two correlated curves, each with its own mean.
    """

    def __init__(self, search: spec.Search, trials: Sequence[Trial]):
        self.search = search
        self.grid = list(search.grid())
        self.positions = positions(search, self.grid)
        told = [(trial, trial.score) for trial in trials if trial.score is not None]
        scores = np.array([score for _, score in told])
        short = np.array([trial.short for trial, _ in told])
        seeds = np.array([trial.repeat for trial, _ in told])
        self._centre, self._scale = float(scores[~short].mean()), float(scores[~short].std()) or 1.0
        y = (scores - self._centre) / self._scale
        if short.any():
            y[short] = (scores[short] - scores[short].mean()) / (scores[short].std() or 1.0)
        repeated = len(set(seeds)) > 1
        likenesses, shares = LIKENESSES if short.any() else (1.0,), SHARED if repeated else (0.0,)
        self._choices = np.array(list(product(LENGTHS, AMPLITUDES, NOISES, shares, likenesses)))
        lengths, amplitudes, noises, shared, alike = (column[:, None, None] for column in self._choices.T)
        at = positions(search, [trial.value for trial, _ in told])
        same = np.where(short[:, None] == short[None], 1.0, alike)
        among = amplitudes**2 * same * _matern(at[:, None] - at[None], lengths)
        among += noises**2 * (np.eye(len(y)) + shared**2 * (seeds[:, None] == seeds[None]))
        factor = np.linalg.cholesky(among)
        across = amplitudes**2 * np.where(short[:, None], alike, 1.0) * _matern(at[:, None] - self.positions[None], lengths)
        white = np.linalg.solve(factor, np.broadcast_to(y[:, None], (len(self._choices), len(y), 1)))
        self._loadings = np.linalg.solve(factor, across)
        likelihood = -0.5 * (white**2).sum(axis=(1, 2)) - np.log(np.diagonal(factor, axis1=1, axis2=2)).sum(axis=1)
        self._weights = np.exp(likelihood - logsumexp(likelihood))
        self._means = (self._loadings.transpose(0, 2, 1) @ white)[:, :, 0]

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
            length, amplitude = self._choices[index, :2]
            covariance = amplitude**2 * priors[length] - self._loadings[index].T @ self._loadings[index]
            root = np.linalg.cholesky(covariance + 1e-6 * amplitude**2 * np.eye(len(covariance)))
            curves.append(self._means[index] + chance.standard_normal((counts[index], len(covariance))) @ root.T)
        return np.asarray(self._centre + self._scale * np.concatenate(curves))

    def value_at(self, position: float) -> float:
        """The value on the axis at a position between 0 and 1."""
        low, high = self.search.low, self.search.high
        if self.search.scale == "log":
            return math.exp(math.log(low) + position * (math.log(high) - math.log(low)))
        return low + position * (high - low)


class _Belief:
    """Draws of the curve that know, too, what the trainings under way are expected to tell.

    Each is taken to come out at the mean: the draws are moved as an ensemble Kalman filter moves them (Evensen 1994), so that
    they scatter less where something will be known.
    """

    def __init__(self, model: _Model, pending: Sequence[float]):
        self._grid, self._noise, self._draws = model.grid, model.noise, model.draws()
        self._chance = np.random.default_rng(1)
        for value in pending:
            self.expect(value)

    def expect(self, value: float) -> None:
        """A training at this value is under way."""
        place = min(range(len(self._grid)), key=lambda place: abs(self._grid[place] - value))
        centred = self._draws - self._draws.mean(axis=0)
        gain = centred.T @ centred[:, place] / len(centred) / (centred[:, place].var() + self._noise)
        missed = -centred[:, place] - math.sqrt(self._noise) * self._chance.standard_normal(len(centred))
        self._draws = self._draws + missed[:, None] * gain

    def most_telling(self) -> float:
        """The value whose outcome is expected to narrow the place of the peak most."""
        order = np.argsort(self._draws.argmax(axis=1), kind="stable")
        entropy = np.zeros(len(self._grid))
        for group in np.array_split(order, 12):  # draws alike in the place of their peak
            entropy += len(group) / len(order) * 0.5 * np.log(self._draws[group].var(axis=0) + self._noise)
        return self._grid[int((0.5 * np.log(self._draws.var(axis=0) + self._noise) - entropy).argmax())]


def _matern(offset: Floats, length: Floats | float) -> Floats:
    """Matérn 5/2: curves that can be differentiated twice (Rasmussen and Williams 2006, eq. 4.17)."""
    scaled = math.sqrt(5) * np.abs(offset) / length
    return np.asarray((1 + scaled + scaled**2 / 3) * np.exp(-scaled))
