"""From the measurements of a sweep to its curve: intervals, the two-lines test, the sweet spot and the regimes.

numpy and scipy.special only (scipy.stats would double the start of the API). Every chance has a fixed seed, so the same
measurements give the same curve, and no number of a curve is NaN or infinite: what cannot be said is null.
"""

import math
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from functools import cache
from itertools import permutations
from typing import Any, Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, Field, JsonValue
from scipy.special import fdtrc, stdtr, stdtrit

from ml import search, spec

Shape = Literal["inverted_u", "half_u", "rising", "falling", "flat", "unclear"]
Regime = Literal["missing_information", "sweet_spot", "excess_noise", "unknown"]
Interval = tuple[float, float]
Floats = NDArray[np.float64]

LEVEL = 0.05  # of each line's two-sided test
LEANING = 0.2  # a line with a p below this is not called level
LEAST_VALUES = 5  # three on each line, the break point on both
LEAST_TRAININGS = 10
LEAST_RECIPES = 8  # where the axis has no order, a recipe is one observation
LEAST_TREND = 0.5  # concordance of axis and I_NCE below which the axis does not run along information
BANDWIDTH = 2.5  # of the smoother, in values of the axis: at most five values weigh in
ERRORS = frozenset({"pixels"})  # metrics of which less is better
QUALITIES = ("lidar", "rankme", "alignment", "uniformity", "alpha_req")  # that need no labels
LEAST_POINTS = 4  # to say how well a measure predicts a task
MOST_PERMUTED = 8  # points whose orders are all tried
RESAMPLES = 2000
POWER_80 = 0.8416  # standard errors that a power of 80 % takes beyond the critical value
MOST_SEEDS = 50  # more of them are not advised
MORE = "run more seeds"
LEAST_PAIRS = 3  # of trainings with and without an operation, for their scatter to be known


# What was measured ----------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class TaskResult:
    """A task's value on held-out items, with its 95 % interval over those items where one is known, and what it measures."""

    value: float
    ci: Interval | None = None
    metric: str = "accuracy"
    merits: Floats | None = field(default=None, compare=False, repr=False)
    """[N]: what each held-out item scored, where that was kept; `value` is their mean."""


@dataclass(frozen=True)
class Measurement:
    """What one finished experiment of a sweep measured; informations in nats, `index` the position of its value on the axis."""

    experiment: str
    index: int
    seed: int
    i_nce: float
    i_nce_stderr: float
    log_k: float
    saturated: bool
    tasks: dict[str, TaskResult]
    task_information: float | None = None
    nuisance: float | None = None
    quality: dict[str, float] = field(default_factory=dict)
    """Of `QUALITIES` those that are known."""


@dataclass(frozen=True)
class Hint:
    """What a short training of a search measured: it stands in no curve, and tells where the peak may be."""

    value: float
    seed: int
    tasks: dict[str, TaskResult]


# What is answered -----------------------------------------------------------------------------------------------------


class Part(BaseModel):
    """A piece of a curve: immutable, and finite or null."""

    model_config = ConfigDict(frozen=True, allow_inf_nan=False)


class CurveAxis(Part):
    """The axis of the sweep."""

    path: str = Field(description="Dotted path of the spec's node that varies.", examples=["views.sigma"])
    values: tuple[JsonValue, ...] = Field(description="The values, in the order of the sweep.")
    labels: tuple[str, ...] | None = Field(description="A name for each value, where the sweep gave names.")
    ordered: bool = Field(description="Whether the values are numbers, and so have an order.")
    along_information: bool = Field(description="Whether I_NCE runs along that order; true where the axis has none.")

    @property
    def name(self) -> str:
        """The last word of the path, for titles."""
        return self.path.rpartition(".")[2]


class TaskPoint(Part):
    """A task's results at one value of the axis."""

    metric: str = Field(description="`accuracy`, of which more is better, or `pixels`, of which less is.")
    value: float = Field(description="Mean over the seeds.")
    ci: Interval | None = Field(
        description="95 % interval of the mean: Student's t over the seeds; for a single seed that of its held-out items."
    )
    seeds: int = Field(description="Trainings in the mean.")


class Point(Part):
    """One value of the axis: information in nats, tasks, and the regime."""

    value: JsonValue = Field(description="The value on the axis.")
    label: str = Field(description="Its name in figures.")
    i_nce: float | None = Field(description="I_NCE in nats, mean over the seeds; null until one has finished.")
    i_nce_ci: Interval | None = Field(
        description="95 % interval of I_NCE: Student's t over the seeds; for a single seed from the estimate's standard error. "
        "Ends at log K, which the estimate cannot exceed."
    )
    log_k: float | None = Field(description="The ceiling of I_NCE in nats.")
    saturated: bool = Field(description="I_NCE lies within one nat of its ceiling for a seed: read it as `at least`.")
    low: bool = Field(description="I_NCE lies within 2.5 nats of its ceiling for a seed: probably low by more than 5 %.")
    task_information: float | None = Field(description="The part of I_NCE about the label, in nats; mean over the seeds.")
    nuisance: float | None = Field(description="I(v1;v2|y), the part that is not about the label, in nats; mean over the seeds.")
    quality: dict[str, float] = Field(
        description="Measures of the representation that need no labels, means over the seeds: `lidar`, `rankme`, `alignment`, "
        "`uniformity`, `alpha_req`, as an experiment's results have them; empty where not measured."
    )
    tasks: dict[str, TaskPoint] = Field(description="Results by task name.")
    regime: Regime = Field(
        description="Less information than the peak's interval, inside it, or more, along the axis's order (over I_NCE where it "
        "has none), by the verdict of the first task; unknown where that is no peak, or where the axis does not run along I_NCE."
    )
    experiments: tuple[str, ...] = Field(description="The experiments measured here, by seed.")


class TwoLines(Part):
    """Simonsohn's two-lines test: one line on each side of a break point, each with its own robust test."""

    p_left: float | None = Field(description="Two-sided p of the slope on the side of less information; null: too few points.")
    p_right: float | None = Field(description="Two-sided p of the slope on the side of more information; null: too few points.")
    slope_left: float | None = Field(
        description="Slope of the line of less information, per value of the axis (or per nat); above 0 the task is done better "
        "along it, so an error has its sign turned."
    )
    slope_right: float | None = Field(description="Slope of the line of more information, likewise.")
    break_at: float | None = Field(description="Where the lines divide: a value on the axis, or nats where it has no order.")
    p: float | None = Field(
        description="Of the claim that it rises and then falls: the larger of the two p, since both lines must hold; 1 where "
        "the slopes do not go that way."
    )
    p_holm: float | None = Field(description="`p` times what Holm 1979 asks of so many tasks judged on one curve.")
    tasks: int = Field(description="Tasks judged on this curve, each by a test of its own.")


class SweetSpot(Part):
    """The peak of the inverted U."""

    value: JsonValue = Field(description="The measured value of the axis (or the recipe) nearest to the peak.")
    label: str = Field(description="Its name in figures.")
    value_ci: Interval | None = Field(
        description="95 % interval of the peak, on the axis between measured values: a bootstrap over seeds and held-out items, "
        "never narrower than half-way to the neighbours of `value`; of a search by its Gaussian process. Null where the axis "
        "has no order."
    )
    i_nce: float = Field(description="I_NCE at `value`, in nats.")
    i_nce_ci: Interval = Field(description="I_NCE at the ends of the peak's interval, in nats.")
    accuracy: float = Field(description="The task's mean at `value`, in its metric: the largest accuracy, or the least error.")


class Verdict(Part):
    """What may be said of a task along the curve."""

    metric: str = Field(description="`accuracy`, of which more is better, or `pixels`, of which less is.")
    shape: Shape = Field(
        description="By the two-lines test at 5 %, read from less to more information, of how well the task is done, be that a "
        "larger accuracy or a smaller error. inverted_u: it rises, then falls. half_u: one of the two, the other line is level. "
        "rising, falling: throughout. flat: nothing beyond the scatter of the seeds. unclear: too few measurements, or they "
        "contradict each other."
    )
    words: str = Field(description="The verdict in a sentence.")
    values: int = Field(description="Values of the axis with a result of this task.")
    trainings: int = Field(description="Trainings with a result of this task.")
    more_seeds: int | None = Field(
        description="Where the shape is unclear for want of trainings: about how many more seeds at each value would settle it "
        "in four of five cases, if what was seen so far is so; with fewer trainings than any verdict takes, how many those lack. "
        "Null where it is clear, where more seeds would not help, or where it takes more than 50."
    )
    two_lines: TwoLines
    sweet_spot: SweetSpot | None = Field(description="Null unless the shape is an inverted U.")


class Predictor(Part):
    """How well a measure predicts the order in which a task is done along the curve."""

    rho: float = Field(
        description="Spearman's rank correlation of the measure with how well the task is done, be that a larger accuracy or a "
        "smaller error; the measure is taken as it is, so that -1 is perfect of one of which less is better."
    )
    p: float = Field(
        description="Two-sided, were all orders as likely: exact up to 8 points, by Student's t beyond. Points are values of one "
        "axis, which may be behind both."
    )
    points: int = Field(description="Values of the axis that have both.")


class Difference(Part):
    """How far two recipes are apart."""

    value: float = Field(description="Mean over the seeds that both have.")
    ci: Interval | None = Field(
        description="95 % interval: Student's t over the differences, seed by seed; of one or two seeds, or of equal ones, the "
        "widest that the intervals of the held-out items allow, which hold nothing of what another training would change."
    )


class Ablated(Part):
    """What an operation of a recipe is worth to a task: the whole recipe against the recipe without it."""

    operation: str = Field(description="What was left out.", examples=["crop", "jitter", "jigsaw"])
    label: str = Field(description="The name of the recipe without it, as the axis has it.", examples=["no crop"])
    metric: str = Field(description="The task's: `accuracy` or `pixels`.")
    cost: Difference = Field(
        description="By how much the task is done worse without it, in its metric: what the accuracy loses, or the error gains. "
        "Below 0 the recipe is better off without it."
    )
    nats: Difference | None = Field(description="How much more the views share without it, by I_NCE, in nats.")
    saturated: bool = Field(description="One of the two readings of I_NCE is within a nat of its ceiling: `nats` may be off.")
    seeds: int = Field(description="Seeds that both recipes have.")
    p: float | None = Field(
        description="Two-sided, that the cost is 0, by Student's t, times what Holm 1979 asks of so many operations of a task; "
        "null of one or two seeds, and of differences that are all equal."
    )


class Curve(Part):
    """Mutual information against how well the tasks are done over a sweep, and what may be said of it."""

    axis: CurveAxis
    points: tuple[Point, ...] = Field(description="One for each value of the axis, in its order, measured yet or not.")
    verdicts: dict[str, Verdict] = Field(description="By task name, the first task first.")
    predictors: dict[str, dict[str, Predictor | None]] = Field(
        description="By task name, of each measure that was taken: `i_nce`, `task_information`, `nuisance` and those of "
        "`quality`. Null with fewer than 4 points, or where all are equal."
    )
    ablation: dict[str, tuple[Ablated, ...]] | None = Field(
        None, description="By task name, of a sweep that ablates: its operations, the costliest first; null of others."
    )
    ablation_words: dict[str, str] | None = Field(None, description="The same in a sentence for each task.")


def trace(axis: spec.Axis, measurements: Sequence[Measurement], hints: Sequence[Hint] = ()) -> Curve:
    """The curve of the measurements there are so far, in any order; the first task of a measurement is the one regimes go by.

    *Direction.* What follows speaks of accuracy. Of a metric of which less is better the sign is turned first, so that lines
    rise where the error falls.

    *Order.* Points are put in the order of information: an ordered axis by its values, turned so that I_NCE rises along it;
    recipes by their I_NCE. Saturated points tie in I_NCE, but not on an ordered axis.

    *Two lines.* Simonsohn 2018 (doi 10.1177/2515245918805755): a smooth fit finds the internal maximum and the flat stretch
    within a standard error of it; two lines divided at the median of that stretch give |t| left and right; the break point is
    the stretch's quantile t_right / (t_left + t_right), which gives the weaker line more observations. Here the smooth fit is
    the one below, each line keeps at least three values, and both include the break point. Lines run over ranks and trainings,
    or over nats and recipe means (the scatter of recipes is not that of seeds); standard errors are HC3, t has n - 2 degrees
    of freedom. On simulated sweeps that rise to a plateau, 3 % were called inverted U.

    *Shape*, reading from less to more information. `unclear` below 5 values or 10 trainings (8 recipes where there is no
    order). Else, with "rises" and "falls" at p < .05:
    - `inverted_u`: the left line rises, the right line falls.
    - `half_u`: one of these holds, and the other line is level (p >= .2).
    - `rising` (`falling`): a line through all rises (falls), and neither half goes the other way, or leans to it with p < .2
      after the other one rose (fell).
    - `flat`: neither half, nor the line through all, nor an analysis of variance between values finds anything.
    - `unclear`: anything else, a dip for example.

    *Searches.* A search trains where the peak seems to be, and luck attracts trainings: an inverted U must lean the same way,
    with p < .2 of both lines, over its first values alone, which were fixed beforehand.

    *Several tasks.* Within a task both lines must be significant, which needs no correction; each further task is one more chance
    to be wrong. The shapes are each task's own at 5 %; `p_holm` says what is left of an inverted U among so many, and so do the
    words where it is not below 5 %.

    *More seeds.* Standard errors shrink with the root of the trainings: so many more bring the undecided line to a power of 80 %.

    *Sweet spot.* The maximum of a local quadratic fit over ranks (tricube weights, at most five values weigh in), reported as
    the nearest measured value; without an order, the best recipe. Its interval: residuals of the seeds about the means of their
    values, inflated by sqrt(n / (n - 1)) and pooled, are resampled 2000 times onto the means, and with them the held-out items,
    which all values share, by the normal approximation to their bootstrap; the 2.5 and 97.5 % quantiles of the maximum are
    widened to half-way to the value's neighbours, since a sweep resolves no finer. The values of a search crowd at the peak, and
    most have one training: there it is the maximum that its Gaussian process expects, and the quantiles of that maximum's draws.
    `hints` are the short trainings that the process knows of, too.

    *Predictors.* Spearman's rank correlation over the points, of means over the seeds, of each measure that needs no probe with
    each task; equal values share their mean rank.

    *Ablation*, where the axis ablates. The whole recipe less the recipe without an operation, seed by seed: equal seeds have the
    same items, labels and first weights. Student's t over these differences; Holm's correction over the operations of a task.

    Raises ValueError for a measurement that is not on the axis.
    """
    at_value: list[list[Measurement]] = [[] for _ in axis.values]
    for measurement in sorted(measurements, key=lambda measurement: (measurement.seed, measurement.experiment)):
        if not 0 <= measurement.index < len(axis.values):
            raise ValueError(
                f"{measurement.experiment} is at index {measurement.index} of an axis of {len(axis.values)} values; "
                f"0 to {len(axis.values) - 1}"
            )
        at_value[measurement.index].append(measurement)
    points = [_point(axis, index, group) for index, group in enumerate(at_value)]
    order = _information_order(axis, points)
    names = list(dict.fromkeys(name for group in at_value for measurement in group for name in measurement.tasks))
    ablation = {name: _ablation(name, axis, at_value) for name in names} if axis.ablate else None
    verdicts, intervals = {}, {}
    for name in names:
        verdicts[name], intervals[name] = _judge(name, axis, points, at_value, order, hints)
    verdicts = _among(verdicts)
    if names and order.along_information and (interval := intervals[names[0]]):
        points = [_with_regime(point, position, interval) for point, position in zip(points, order.positions, strict=True)]
    return Curve(
        axis=CurveAxis(
            path=axis.path,
            values=axis.values,
            labels=axis.labels,
            ordered=axis.ordered,
            along_information=order.along_information,
        ),
        points=tuple(points),
        verdicts=verdicts,
        predictors={name: _predictors(name, points) for name in names},
        ablation=ablation,
        ablation_words=None if ablation is None else {name: _ablation_in_words(found) for name, found in ablation.items()},
    )


# Points ---------------------------------------------------------------------------------------------------------------


def _point(axis: spec.Axis, index: int, group: Sequence[Measurement]) -> Point:
    finite = [measurement for measurement in group if math.isfinite(measurement.i_nce)]
    informations = [measurement.i_nce for measurement in finite]
    log_k = max((measurement.log_k for measurement in finite), default=None)
    interval = _t_interval(informations)
    if len(finite) == 1 and math.isfinite(finite[0].i_nce_stderr):
        half = 1.96 * finite[0].i_nce_stderr
        interval = (informations[0] - half, informations[0] + half)
    if interval is not None and log_k is not None:
        interval = (interval[0], min(interval[1], max(log_k, *informations)))
    names = dict.fromkeys(name for measurement in group for name in measurement.tasks)
    results = {name: _finite_results(group, name) for name in names}
    qualities = {name: _mean(measurement.quality.get(name) for measurement in group) for name in QUALITIES}
    return Point(
        value=axis.values[index],
        label=axis.labels[index] if axis.labels else spec.in_words(axis.values[index]),
        i_nce=_mean(informations),
        i_nce_ci=interval,
        log_k=log_k,
        saturated=any(measurement.saturated for measurement in finite),
        low=any(measurement.i_nce > measurement.log_k - 2.5 for measurement in finite),
        task_information=_mean(measurement.task_information for measurement in group),
        nuisance=_mean(measurement.nuisance for measurement in group),
        quality={name: value for name, value in qualities.items() if value is not None},
        tasks={name: _task_point(found) for name, found in results.items() if found},
        regime="unknown",
        experiments=tuple(measurement.experiment for measurement in group),
    )


def _finite_results(group: Sequence[Measurement], name: str) -> list[TaskResult]:
    found = [measurement.tasks[name] for measurement in group if name in measurement.tasks]
    return [result for result in found if math.isfinite(result.value)]


def _task_point(results: Sequence[TaskResult]) -> TaskPoint:
    values = [result.value for result in results]
    interval = results[0].ci if len(results) == 1 else _t_interval(values)
    if interval is not None and not all(math.isfinite(end) for end in interval):
        interval = None
    return TaskPoint(metric=results[0].metric, value=float(np.mean(values)), ci=interval, seeds=len(values))


def _mean(values: Iterable[float | None]) -> float | None:
    known = [value for value in values if value is not None and math.isfinite(value)]
    return float(np.mean(known)) if known else None


def _t_interval(values: Sequence[float]) -> Interval | None:
    if len(values) < 2:
        return None
    half = float(stdtrit(len(values) - 1, 0.975) * np.std(values, ddof=1) / math.sqrt(len(values)))
    mean = float(np.mean(values))
    return mean - half, mean + half


def _with_regime(point: Point, position: int | None, interval: Interval) -> Point:
    if position is None:
        return point
    regime: Regime = "sweet_spot"
    if position < interval[0]:
        regime = "missing_information"
    elif position > interval[1]:
        regime = "excess_noise"
    return point.model_copy(update={"regime": regime})


# The order of information ---------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class _Order:
    """Where each measured point stands when they are put from less to more information; equal values stand together.

    By position: `values` on the axis (None where it has no order) and `nats` of I_NCE. `along_information` is False where the
    axis has an order which I_NCE does not follow.
    """

    positions: list[int | None]
    values: Floats | None
    nats: Floats
    along_information: bool

    @property
    def at(self) -> Floats:
        """What lines run over: ranks, or nats where the axis has no order."""
        return self.nats if self.values is None else np.arange(len(self.nats), dtype=np.float64)

    def members(self, position: int) -> list[int]:
        """Indices of the points at a position."""
        return [index for index, at in enumerate(self.positions) if at == position]

    def axis_value(self, position: float) -> float | None:
        """The value on the axis, straight between the measured ones; None where the axis has no order."""
        if self.values is None:
            return None
        return float(np.interp(position, np.arange(len(self.values)), self.values))


def _information_order(axis: spec.Axis, points: Sequence[Point]) -> _Order:
    measured = [(index, point.i_nce) for index, point in enumerate(points) if point.i_nce is not None]
    nats = np.array([i_nce for _, i_nce in measured])
    keys, direction, along = nats, 1.0, True
    if axis.ordered:
        keys = np.array([axis.values[index] for index, _ in measured], dtype=np.float64)
        agree = np.sign(np.subtract.outer(keys, keys) * np.subtract.outer(nats, nats)).sum()
        trend = agree / max(len(keys) * (len(keys) - 1), 1)
        direction, along = (-1.0 if trend < 0 else 1.0), bool(abs(trend) >= LEAST_TREND)
    levels, place = np.unique(direction * keys, return_inverse=True)
    positions: list[int | None] = [None] * len(points)
    for (index, _), position in zip(measured, place, strict=True):
        positions[index] = int(position)
    level_nats = np.array([nats[place == position].mean() for position in range(len(levels))])
    return _Order(positions, direction * levels if axis.ordered else None, level_nats, along)


# Verdicts -------------------------------------------------------------------------------------------------------------


class _Line(NamedTuple):
    slope: float
    t: float
    p: float

    @property
    def sign(self) -> int:
        return int(np.sign(self.slope)) if self.p < LEVEL else 0


@dataclass(frozen=True)
class _Task:
    """How well a task is done by position, where it has a result; of an error the sign is turned, so that more is better.

    `at` is what lines run over, and `ordered` says whether by rank. An observation of a line is a training where the axis is
    ordered; else a recipe, for the scatter of recipes is not the seeds'.
    """

    metric: str
    groups: list[Floats]
    positions: list[int]
    at: Floats
    ordered: bool
    items: Floats | None
    """[J, N]: what each held-out item scored at each position, mean over its trainings; None where that was not kept for all."""

    @property
    def subject(self) -> str:
        return "performance" if self.metric in ERRORS else "accuracy"

    @property
    def means(self) -> Floats:
        return np.array([group.mean() for group in self.groups])

    @property
    def counts(self) -> NDArray[np.int64]:
        return np.array([len(group) for group in self.groups])

    @property
    def observations(self) -> tuple[Floats, Floats]:
        if self.ordered:
            return np.repeat(self.at, self.counts), np.concatenate(self.groups)
        return self.at, self.means


def _judge(
    name: str,
    axis: spec.Axis,
    points: Sequence[Point],
    at_value: Sequence[Sequence[Measurement]],
    order: _Order,
    hints: Sequence[Hint],
) -> tuple[Verdict, Interval | None]:
    """The verdict, and the interval of the peak as positions in the order of information where there is one."""
    task = _task(name, at_value, order)
    so_far = "so far " if any(point.i_nce is None for point in points) else ""
    least_values = LEAST_VALUES if task.ordered else LEAST_RECIPES
    values, trainings = len(task.groups), int(task.counts.sum())
    if values < least_values or trainings < LEAST_TRAININGS:
        words = (
            f"unclear: {so_far}{trainings} training{'s' * (trainings != 1)} at {values} value{'s' * (values != 1)}; "
            f"a verdict takes {LEAST_TRAININGS} at {least_values}"
        )
        none = TwoLines(p_left=None, p_right=None, slope_left=None, slope_right=None, break_at=None, p=None, p_holm=None, tasks=1)
        lacking = math.ceil((LEAST_TRAININGS - trainings) / values) if values >= least_values else None
        return Verdict(
            metric=task.metric,
            shape="unclear",
            words=words,
            values=values,
            trainings=trainings,
            more_seeds=lacking,
            two_lines=none,
            sweet_spot=None,
        ), None
    break_at, left, right = _two_lines(task)
    shape, reason = _shape(task, left, right)
    if axis.search is not None and shape == "inverted_u" and not _stands_by_design(task, axis.search, order):
        shape, reason = "unclear", "perhaps an inverted U, but its first values alone do not bear it out; let it train more"
    more_seeds = _more_seeds(task, left, right) if shape == "unclear" and MORE in reason else None
    if more_seeds is not None:
        reason = reason.replace(MORE, f"run {more_seeds} more seed{'s' * (more_seeds != 1)}")
    spot = interval = None
    if shape == "inverted_u":
        if axis.search is None:
            peak, interval = _peak(task)
        else:
            peak, interval = _searched_peak(task, axis, order, list(_trials(name, axis, at_value, hints)))
        best = next(points[index] for index in order.members(peak) if name in points[index].tasks)
        spot = _sweet_spot(name, best, order, interval)
        reason = _peak_in_words(axis, spot, task.metric, order.along_information)
    elif not task.ordered and any(point.saturated for point in points):
        reason += "; saturated points may hide the branch of excess noise"
    return Verdict(
        metric=task.metric,
        shape=shape,
        words=f"{shape.replace('inverted_u', 'inverted U').replace('half_u', 'half-U')}: {so_far}{reason}",
        values=values,
        trainings=trainings,
        more_seeds=more_seeds,
        two_lines=TwoLines(
            p_left=left.p,
            p_right=right.p,
            slope_left=left.slope,
            slope_right=right.slope,
            break_at=order.axis_value(break_at) if task.ordered else break_at,
            p=max(left.p, right.p) if left.slope > 0 > right.slope else 1.0,
            p_holm=None,
            tasks=1,
        ),
        sweet_spot=spot,
    ), interval


def _stands_by_design(task: _Task, searched: spec.Search, order: _Order) -> bool:
    """Whether both lines lean the same way over the values alone that a search began with.

    It goes on where the peak seems to be, so that luck attracts trainings; these values hang on no outcome.
    """
    assert order.values is not None  # as a search has an order
    first = search.design(searched)
    kept = [place for place, position in enumerate(task.positions) if float(order.values[position]) in first]
    if len(kept) < LEAST_VALUES:
        return False
    groups, positions = [task.groups[place] for place in kept], [task.positions[place] for place in kept]
    _, left, right = _two_lines(
        replace(task, groups=groups, positions=positions, at=np.arange(len(kept), dtype=np.float64), items=None)
    )
    return left.slope > 0 > right.slope and max(left.p, right.p) < LEANING


def _among(verdicts: dict[str, Verdict]) -> dict[str, Verdict]:
    """The verdicts of one curve, each told how many they are, with Holm's correction of the p of an inverted U."""
    tested = {name: verdict.two_lines.p for name, verdict in verdicts.items() if verdict.two_lines.p is not None}
    adjusted = _holm(tested)
    found = {}
    for name, verdict in verdicts.items():
        p_holm = adjusted.get(name)
        words = verdict.words
        if verdict.shape == "inverted_u" and p_holm is not None and p_holm >= LEVEL:
            words += f"; as one of {len(tested)} tasks judged it is not beyond doubt (p = {p_holm:.2g} by Holm)"
        lines = verdict.two_lines.model_copy(update={"p_holm": p_holm, "tasks": max(len(tested), 1)})
        found[name] = verdict.model_copy(update={"words": words, "two_lines": lines})
    return found


def _holm(p: dict[str, float]) -> dict[str, float]:
    """Each p adjusted for how many there are (Holm 1979)."""
    adjusted, least = {}, 0.0
    for rank, name in enumerate(sorted(p, key=lambda name: p[name])):
        least = max(least, min(p[name] * (len(p) - rank), 1.0))
        adjusted[name] = least
    return adjusted


def _task(name: str, at_value: Sequence[Sequence[Measurement]], order: _Order) -> _Task:
    metric = next(measurement.tasks[name].metric for group in at_value for measurement in group if name in measurement.tasks)
    groups = {}
    for position in range(len(order.nats)):
        found = [result.value for index in order.members(position) for result in _finite_results(at_value[index], name)]
        if found:
            groups[position] = -np.array(found) if metric in ERRORS else np.array(found)
    results = [[one for index in order.members(place) for one in _finite_results(at_value[index], name)] for place in groups]
    items = _items(results)
    if items is not None and metric in ERRORS:
        items = -items
    return _Task(metric, list(groups.values()), list(groups), order.at[list(groups)], order.values is not None, items)


def _items(groups: Sequence[Sequence[TaskResult]]) -> Floats | None:
    """[J, N]: the mean of each group's merits by item; None unless all have those of the same items."""
    kept = [[result.merits for result in group if result.merits is not None] for group in groups]
    complete = all(len(merits) == len(group) for merits, group in zip(kept, groups, strict=True))
    if not complete or len({len(merits) for group in kept for merits in group}) != 1:
        return None
    return np.array([np.mean(merits, axis=0) for merits in kept], dtype=np.float64)


def _shape(task: _Task, left: _Line, right: _Line) -> tuple[Shape, str]:
    """The shape as `trace` defines it, and why."""
    signs = (left.sign, right.sign)
    if signs == (1, -1):
        return "inverted_u", f"{task.subject} rises and then falls as information rises"
    if signs == (-1, 1):
        return "unclear", f"a dip, {task.subject} falls and then rises as information rises"
    if (signs == (1, 0) and right.slope < 0 and right.p < LEANING) or (signs == (0, -1) and left.slope > 0 and left.p < LEANING):
        return "unclear", f"perhaps an inverted U (p = {left.p:.2g} and {right.p:.2g}); {MORE}"
    if signs == (1, 0) and right.p >= LEANING:
        return "half_u", f"{task.subject} rises with information and then levels off"
    if signs == (0, -1) and left.p >= LEANING:
        return "half_u", f"{task.subject} holds and then falls as information rises"
    return _shape_without_a_turn(task, left, right)


def _shape_without_a_turn(task: _Task, left: _Line, right: _Line) -> tuple[Shape, str]:
    signs = (left.sign, right.sign)
    whole = _line(*task.observations).sign
    if whole > 0 and min(signs) >= 0:
        return "rising", f"{task.subject} rises with information throughout"
    if whole < 0 and max(signs) <= 0:
        return "falling", f"{task.subject} falls as information rises throughout"
    between = _p_between_values(task)
    if between is not None and between < LEVEL and left.slope < 0 < right.slope:
        return "unclear", "the values differ, but rather as a dip than as a peak"
    if between is not None and between < LEVEL:
        return "unclear", f"the values differ, but not along one line or two; {MORE}"
    if between is not None and signs == (0, 0) and whole == 0:
        return "flat", "no difference between the values beyond the scatter of the seeds"
    return "unclear", MORE


def _more_seeds(task: _Task, left: _Line, right: _Line) -> int | None:
    """How many more seeds at each value bring the lines that point at a shape, and are no proof of it yet, to a power of 80 %."""
    lines = [left, right] if left.slope > 0 > right.slope else [_line(*task.observations)]
    undecided = [line for line in lines if line.sign == 0]
    if not task.ordered or not undecided:
        return None
    seeds = float(task.counts.mean())
    least = min(abs(line.t) for line in undecided)
    wanted = float(stdtrit(max(task.counts.sum() / 2 - 2, 2), 1 - LEVEL / 2)) + POWER_80
    more = math.ceil(seeds * ((wanted / max(least, 1e-9)) ** 2 - 1))
    return more if 0 < more <= MOST_SEEDS else None


def _two_lines(task: _Task) -> tuple[float, _Line, _Line]:
    """The break point (in the units of `task.at`) and the two lines, left of it and right of it."""
    inner = np.arange(2, len(task.groups) - 2)
    smoother = _local_quadratic(inner, task.counts)
    fit = smoother @ task.means
    stderr = np.sqrt((smoother**2 / task.counts).sum(axis=1) * np.mean(_noise(task) ** 2))
    flat = inner[fit >= fit.max() - stderr[fit.argmax()]]
    stretch = np.repeat(task.at[flat], task.counts[flat] if task.ordered else 1)
    at, y = task.observations

    def divided(point: float) -> tuple[_Line, _Line]:
        return _line(at[at <= point], y[at <= point]), _line(at[at >= point], y[at >= point])

    left, right = divided(float(np.median(stretch)))
    total = abs(left.t) + abs(right.t)
    point = float(np.quantile(stretch, abs(right.t) / total)) if total > 0 else float(np.median(stretch))
    return point, *divided(point)


def _line(at: Floats, y: Floats) -> _Line:
    """Least squares with the HC3 standard error of MacKinnon and White 1985; t with n - 2 degrees of freedom."""
    centred = at - at.mean()
    spread = (centred**2).sum()
    if len(at) < 3 or spread == 0:
        return _Line(0.0, 0.0, 1.0)
    slope = float((centred * y).sum() / spread)
    leverage = 1 / len(at) + centred**2 / spread
    residuals = y - y.mean() - slope * centred
    stderr = math.sqrt(((centred * residuals / np.maximum(1 - leverage, 1e-9)) ** 2).sum()) / spread
    # residuals of rounding alone: a line through equal values is level, not significant
    t = slope / max(stderr, 1e-12)
    return _Line(slope, t, float(2 * stdtr(len(at) - 2, -abs(t))))


def _p_between_values(task: _Task) -> float | None:
    """p of a one-way analysis of variance; None without repeated trainings."""
    every = np.concatenate(task.groups)
    free, inside = len(task.groups) - 1, len(every) - len(task.groups)
    if inside < 1:
        return None
    within = sum(((group - group.mean()) ** 2).sum() for group in task.groups) / inside
    between = (task.counts * (task.means - every.mean()) ** 2).sum() / free
    return float(fdtrc(free, inside, between / within)) if within > 0 else float(between == 0)


# The peak -------------------------------------------------------------------------------------------------------------


def _peak(task: _Task) -> tuple[int, Interval]:
    """Position of the value nearest to the peak, and the peak's 95 % interval in positions; see `trace`."""
    last = len(task.groups) - 1
    grid = np.linspace(0, last, 20 * last + 1) if task.ordered else np.arange(last + 1)
    smoother = _local_quadratic(grid, task.counts) if task.ordered else np.eye(last + 1)
    peak = round(float(grid[(smoother @ task.means).argmax()]))
    chance, noise = np.random.default_rng(0), _noise(task)
    means = np.empty((RESAMPLES, last + 1))
    for position, count in enumerate(task.counts):
        means[:, position] = task.means[position] + chance.choice(noise, (RESAMPLES, count)).mean(axis=1)
    if task.items is not None:
        means += _of_other_items(task.items, chance)
    low, high = np.quantile(grid[(means @ smoother.T).argmax(axis=1)], [0.025, 0.975])
    ends = np.clip([min(low, peak - 0.5), max(high, peak + 0.5)], 0, last)
    low, high = np.interp(ends, np.arange(last + 1), task.positions)
    return task.positions[peak], (float(low), float(high))


def _trials(
    name: str, axis: spec.Axis, at_value: Sequence[Sequence[Measurement]], hints: Sequence[Hint]
) -> Iterator[search.Trial]:
    """What a search was told of a task, by whole trainings and by short ones."""
    whole = [
        (Hint(float(value), one.seed, one.tasks), False)  # type: ignore[arg-type]
        for value, group in zip(axis.values, at_value, strict=True)
        for one in group
    ]
    for one, short in [*whole, *((hint, True) for hint in hints)]:
        result = one.tasks.get(name)
        if result is not None and math.isfinite(result.value):
            score = -result.value if result.metric in ERRORS else result.value
            yield search.Trial(one.value, score, short, repeat=one.seed)


def _of_other_items(items: Floats, chance: np.random.Generator) -> Floats:
    """[R, J]: by how much the means at each position change with the held-out items drawn anew, the same ones for all."""
    centred = items - items.mean(axis=1, keepdims=True)
    levels, directions = np.linalg.eigh(centred @ centred.T / items.shape[1] ** 2)
    draws = chance.standard_normal((RESAMPLES, len(items))) * np.sqrt(np.clip(levels, 0, None))
    return np.asarray(draws @ directions.T)


def _searched_peak(task: _Task, axis: spec.Axis, order: _Order, trials: Sequence[search.Trial]) -> tuple[int, Interval]:
    """The same where the values were searched for, by all its trials, short ones among them."""
    searched = axis.search
    assert searched is not None and order.values is not None  # as a search has an order
    values = order.values[task.positions]
    other_items = None if task.items is None else (values, _of_other_items(task.items, np.random.default_rng(1)))
    found = search.peak(searched, trials, 0.95, other_items)
    assert found is not None  # as there are trainings enough for a verdict
    nearest = int(np.abs(search.positions(searched, values) - search.positions(searched, [found.value])).argmin())
    rising = np.argsort(order.values)
    ends = sorted(np.interp(found.value_ci, order.values[rising], rising.astype(np.float64)))
    at = float(task.positions[nearest])
    return task.positions[nearest], (min(float(ends[0]), at), max(float(ends[1]), at))


def _noise(task: _Task) -> Floats:
    """What a single training deviates from the mean of its value, pooled over the values.

    Without enough repeats, the second differences of neighbouring means, which the curve's bend can only enlarge (Gasser,
    Sroka and Jennen-Steinmetz 1986).
    """
    repeated = [group for group in task.groups if len(group) > 1]
    if sum(len(group) - 1 for group in repeated) >= 4:
        return np.concatenate([(group - group.mean()) * math.sqrt(len(group) / (len(group) - 1)) for group in repeated])
    means, share = task.means, 1 / task.counts
    bend = (means[:-2] - 2 * means[1:-1] + means[2:]) / np.sqrt(share[:-2] + 4 * share[1:-1] + share[2:])
    return np.concatenate([bend, -bend])


def _local_quadratic(grid: NDArray[Any], weights: NDArray[np.int64]) -> Floats:
    """[G, J]: the matrix that takes values at positions 0 .. J - 1 to a local quadratic fit at the positions of the grid."""
    offset = np.arange(len(weights)) - grid[:, None]
    kernel = np.clip(1 - (np.abs(offset) / BANDWIDTH) ** 3, 0, None) ** 3 * weights
    powers = np.stack([np.ones_like(offset), offset, offset**2], axis=1)
    weighted = powers * kernel[:, None]
    # at the ends fewer than three values may weigh in: the pseudo-inverse then takes the smallest curve through them
    smoother: Floats = (np.linalg.pinv(weighted @ powers.transpose(0, 2, 1)) @ weighted)[:, 0]
    return smoother


def _sweet_spot(name: str, point: Point, order: _Order, interval: Interval) -> SweetSpot:
    assert point.i_nce is not None  # else it had no position
    values = [order.axis_value(end) for end in interval]
    ends = sorted(value for value in values if value is not None)
    nats = [point.i_nce, *np.interp(interval, np.arange(len(order.nats)), order.nats)]
    return SweetSpot(
        value=point.value,
        label=point.label,
        value_ci=(ends[0], ends[1]) if ends else None,
        i_nce=point.i_nce,
        i_nce_ci=(float(min(nats)), float(max(nats))),
        accuracy=point.tasks[name].value,
    )


def _peak_in_words(axis: spec.Axis, spot: SweetSpot, metric: str, along_information: bool) -> str:
    name = f"{axis.path.rpartition('.')[2]} " if spot.value_ci and not axis.labels else ""
    between = f" ({spot.value_ci[0]:.3g} to {spot.value_ci[1]:.3g})" if spot.value_ci else ""
    sides = "" if along_information else "; I_NCE does not run along the axis, so neither side is named"
    peak = "least error" if metric in ERRORS else "peak"
    return f"the {peak} is at {name}{spot.label}{between}, {spot.i_nce:.2f} nats{sides}"


# Predictors -----------------------------------------------------------------------------------------------------------


def _predictors(name: str, points: Sequence[Point]) -> dict[str, Predictor | None]:
    """Of each measure that any point with a result of the task has."""
    done = [(point, point.tasks[name]) for point in points if name in point.tasks]
    well = [-result.value if result.metric in ERRORS else result.value for _, result in done]
    measures: dict[str, list[float | None]] = {
        "i_nce": [point.i_nce for point, _ in done],
        "task_information": [point.task_information for point, _ in done],
        "nuisance": [point.nuisance for point, _ in done],
    }
    measures |= {quality: [point.quality.get(quality) for point, _ in done] for quality in QUALITIES}
    predictors = {}
    for measure, values in measures.items():
        known = [(value, y) for value, y in zip(values, well, strict=True) if value is not None]
        if known:
            predictors[measure] = _spearman(*np.array(known).T)
    return predictors


def _spearman(x: Floats, y: Floats) -> Predictor | None:
    """Rank correlation and its p; None with too few points, or where one of the two is the same at all of them."""
    if len(x) < LEAST_POINTS:
        return None
    x, y = (_standardised(_ranks(values)) for values in (x, y))
    if not (x.any() and y.any()):
        return None
    rho = float(np.clip(x @ y, -1, 1))
    return Predictor(rho=rho, p=_p_of_rank_correlation(rho, x, y), points=len(x))


def _p_of_rank_correlation(rho: float, x: Floats, y: Floats) -> float:
    n = len(x)
    if n <= MOST_PERMUTED:
        return float((np.abs(y[_orders(n)] @ x) >= abs(rho) - 1e-9).mean())
    t = abs(rho) * math.sqrt((n - 2) / max(1 - rho**2, 1e-12))
    return max(float(2 * stdtr(n - 2, -t)), 2 / math.factorial(n))  # no order is rarer than the best and its reverse


@cache
def _orders(n: int) -> NDArray[np.int64]:
    return np.array(list(permutations(range(n))))


def _ranks(values: Floats) -> Floats:
    """1 to n; equal values share the mean of their ranks."""
    _, which, counts = np.unique(values, return_inverse=True, return_counts=True)
    return np.asarray(counts.cumsum() - (counts - 1) / 2)[which]


def _standardised(values: Floats) -> Floats:
    """With mean 0 and length 1, or all 0."""
    centred = values - values.mean()
    return np.asarray(centred / (np.linalg.norm(centred) or 1))


# Ablation -------------------------------------------------------------------------------------------------------------


def _ablation(name: str, axis: spec.Axis, at_value: Sequence[Sequence[Measurement]]) -> tuple[Ablated, ...]:
    """The operations of a task by what they cost, the costliest first; those with a seed in common with the whole recipe."""
    done = [_by_seed(name, group) for group in at_value]
    if not done:
        return ()
    found = [
        _ablated(name, label, [(done[0][seed], less[seed]) for seed in sorted(done[0].keys() & less.keys())])
        for label, less in zip((axis.labels or ())[1:], done[1:], strict=True)
        if done[0].keys() & less.keys()
    ]
    adjusted = _holm({one.label: one.p for one in found if one.p is not None})
    corrected = [one.model_copy(update={"p": adjusted.get(one.label)}) for one in found]
    return tuple(sorted(corrected, key=lambda one: -one.cost.value))


def _by_seed(name: str, group: Sequence[Measurement]) -> dict[int, Measurement]:
    known = [one for one in group if name in one.tasks]
    return {one.seed: one for one in known if math.isfinite(one.tasks[name].value)}


def _ablated(name: str, label: str, pairs: Sequence[tuple[Measurement, Measurement]]) -> Ablated:
    """The whole recipe's measurements with those of the recipe without an operation, as pairs of one seed."""
    metric = pairs[0][0].tasks[name].metric
    sign = -1.0 if metric in ERRORS else 1.0
    scores = [(whole.tasks[name], less.tasks[name]) for whole, less in pairs]
    costs = np.array([sign * (whole.value - less.value) for whole, less in scores])
    informed = [(whole, less) for whole, less in pairs if math.isfinite(whole.i_nce) and math.isfinite(less.i_nce)]
    nats = np.array([less.i_nce - whole.i_nce for whole, less in informed])
    return Ablated(
        operation=label.removeprefix(spec.LESS),
        label=label,
        metric=metric,
        cost=_difference(costs, [_widest(sign, *pair) for pair in scores]),
        nats=_difference(nats, [_widest_nats(*pair) for pair in informed]) if informed else None,
        saturated=any(one.saturated for pair in informed for one in pair),
        seeds=len(pairs),
        p=_p_of_mean(costs),
    )


def _difference(values: Floats, of_items: Sequence[Interval | None]) -> Difference:
    """With Student's interval, or, of too few or of equal values, the mean of their intervals by held-out items."""
    interval = _t_interval(values.tolist())
    if not _scatter_is_known(values):
        known = [ends for ends in of_items if ends is not None]
        interval = None
        if len(known) == len(values):
            interval = (float(np.mean([low for low, _ in known])), float(np.mean([high for _, high in known])))
    if interval is not None and not all(math.isfinite(end) for end in interval):
        interval = None
    return Difference(value=float(values.mean()), ci=interval)


def _scatter_is_known(values: Floats) -> bool:
    """Accuracies are multiples of one over the items: two differences are easily equal, and would be taken for certain."""
    return len(values) >= LEAST_PAIRS and float(np.ptp(values)) > 1e-9


def _widest(sign: float, whole: TaskResult, less: TaskResult) -> Interval | None:
    if whole.ci is None or less.ci is None:
        return None
    low, high = sorted(sign * end for end in (whole.ci[0] - less.ci[1], whole.ci[1] - less.ci[0]))
    return low, high


def _widest_nats(whole: Measurement, less: Measurement) -> Interval:
    half = 1.96 * (whole.i_nce_stderr + less.i_nce_stderr)
    return less.i_nce - whole.i_nce - half, less.i_nce - whole.i_nce + half


def _p_of_mean(values: Floats) -> float | None:
    """Two-sided, that the mean is 0; None of values whose scatter is not known."""
    if not _scatter_is_known(values):
        return None
    t = abs(values.mean()) / (np.std(values, ddof=1) / math.sqrt(len(values)))
    return float(2 * stdtr(len(values) - 1, -t))


def _ablation_in_words(found: Sequence[Ablated]) -> str:
    """The costliest operation, or that none can be told apart from nothing."""
    if not found:
        return "no recipe less an operation has been measured beside the whole one yet"
    certain = [one for one in found if one.p is not None and one.p < LEVEL and one.cost.value > 0]
    if certain:
        first, *others = certain
        more = f"; it costs something to leave out {_listed([one.operation for one in others])}, too" if others else ""
        return f"{first.operation} is worth most: without it {_cost_in_words(first)}{more}"
    first = found[0]
    seeds = max(one.seeds for one in found)
    if seeds < LEAST_PAIRS:
        return f"{seeds} seed{'s do' * (seeds > 1) or ' does'} not tell what an operation is worth; run at least {LEAST_PAIRS}"
    said = f"leaving out no operation costs anything beyond the scatter of {seeds} seeds"
    return f"{said}; {first.operation} comes first: without it {_cost_in_words(first)}"


def _cost_in_words(one: Ablated) -> str:
    subject, worse, better = ("the error", "grows", "falls") if one.metric in ERRORS else (one.metric, "falls", "grows")
    unit = " pixels" if one.metric == "pixels" else ""
    interval = f" ({one.cost.ci[0]:.3g} to {one.cost.ci[1]:.3g})" if one.cost.ci else ""
    value = one.cost.value
    return f"{subject} {worse} by {value:.3g}{unit}{interval}" if value >= 0 else f"{subject} {better} by {-value:.3g}{unit}"


def _listed(names: Sequence[str]) -> str:
    return " and ".join(filter(None, (", ".join(names[:-1]), names[-1])))
