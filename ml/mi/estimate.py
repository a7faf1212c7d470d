"""I(x; y) of two arrays by several estimators, each with its error, and what may be said of it."""

import math
import time
from collections.abc import Callable, Generator, Iterator
from dataclasses import asdict, dataclass, replace
from typing import Literal

import torch
from jaxtyping import Int64
from torch import Tensor

from ml import spec
from ml.events import Event, Progress, Result
from ml.hardware import hardware
from ml.mi import Estimate, cca, club, doe, dv, infonce, interpolated, ksg, leave_one_out, nwj, smile, tuba
from ml.mi.arrays import ArraysInvalid, Pairs, prepare
from ml.mi.conditional import Conditional, Residuals, borne_out, log_standard_normal
from ml.mi.strangers import exponentials
from ml.mi.training import VALIDATION, Learned, Scores, calibration, critic_aim, density_aim, learn

MOST_CANDIDATES = 2048
MOST_NEIGHBOURHOODS = 10_000  # of pairs among which KSG counts
FEW_DIMENSIONS = 6  # together, in which KSG may be believed
TOLERATED = 0.08  # nats, or this share of the value: what a bound may be off by; half of it is said
WITNESSES = ("ksg", "cca", "leave_one_out", "doe")  # that no critic has a part in: where one fails, so may all critics
LEAST_HELD_OUT = 4  # pairs at a time
LEAST_EFFECTIVE = 0.02  # of the items, below which few of them carry the mean over strangers

TRAINED_FOR = {  # which training each estimator is read from
    "infonce": "infonce",
    "nwj": "nwj",
    "tuba": "tuba",
    "interpolated": "interpolated",
    "dv": "dv",
    "js": "js",
    "smile": "js",
    "leave_one_out": "density",
    "club": "density",
    "doe": "density",
}


@dataclass(frozen=True)
class Bracket:
    """Between which bounds the information lies, in nats, and whose bounds they are."""

    lower: float
    upper: float
    lower_by: str
    upper_by: str


@dataclass(frozen=True)
class Estimates:
    """What was found of two arrays."""

    mi: dict[str, Estimate]
    bracket: Bracket | None
    """Where there are a lower and an upper bound against which nothing speaks."""
    verdict: str
    """In one line."""
    k: int
    """Candidates, the positive included."""
    pairs: int
    dimensions: tuple[int, int]
    """Of x and y, as they were measured."""
    reduced: bool
    """Whether these are principal components."""
    dropped: dict[str, list[int]]
    """Constant columns."""


def run(asked: spec.MiEstimate, x: Tensor, y: Tensor) -> Iterator[Event]:
    """Progress and at last a Result, ready for JSON. Raises ArraysInvalid."""
    started = time.perf_counter()
    found = yield from estimate(asked, x, y)
    timing = {"seconds": time.perf_counter() - started}
    yield Result({**asdict(found), "timing": timing, "hardware": hardware(torch.device("cpu"))})


def estimate(
    asked: spec.MiEstimate, x: Tensor, y: Tensor, groups: Int64[Tensor, " N"] | None = None
) -> Generator[Progress, None, Estimates]:
    """I(x; y) of N pairs [N, d1] and [N, d2] by the estimators that were asked for; row i of x belongs to row i of y.

    Columns go to normal scores. Each of `repeats` trainings holds out another part of the pairs, on which alone it is read, so
    that together they are read on all; a fifth of the rest says when to stop, and calibrates the scores. So a lower bound is one
    also of what it was trained to be high on. The standard error is that over pairs, or over the trainings where that is larger.
    Pairs of one of the `groups`, copies by default, are held out together, and err together. Raises ArraysInvalid.
    """
    generator = torch.Generator().manual_seed(asked.seed)
    pairs = prepare(x, y, generator, groups)
    folds = _folds(pairs.groups, asked.repeats, generator)
    k = _candidates(asked, min(len(fold) for fold in folds))
    if 0 in (pairs.x.shape[1], pairs.y.shape[1]):
        return _nothing(asked, pairs, k)
    trainings = list(dict.fromkeys(TRAINED_FOR[name] for name in asked.estimators if name in TRAINED_FOR))
    total = len(trainings) * len(folds) + 1
    readings: dict[str, Readings] = {name: Readings(pairs.groups) for name in asked.estimators if name in TRAINED_FOR}
    residuals = Residuals(cca.canonical(pairs.x, pairs.y))
    for turn, held_out in enumerate(folds):
        fold = _fold(pairs, held_out, k, generator)
        for which, training in enumerate(trainings):
            at = turn * len(trainings) + which
            yield Progress("estimate", at, total, snapshot=None)
            if training == "density":
                steps = _read_density(fold, readings, residuals)
            else:
                steps = _read_critic(training, asked, fold, readings)
            for _ in steps:
                yield Progress("estimate", at, total, snapshot=None)
    yield Progress("estimate", total - 1, total, snapshot=None)
    if "density" in trainings:
        _judge_density(pairs, readings, residuals)
    mi: dict[str, Estimate] = {name: reading.estimate(name) for name, reading in readings.items()}
    mi |= {name: _untrained(name, pairs, generator) for name in asked.estimators if name not in mi}
    mi = _compared({name: mi[name] for name in asked.estimators}, pairs, generator)
    yield Progress("estimate", total, total, snapshot=None)
    bracket = _bracket(mi)
    return Estimates(
        mi=mi,
        bracket=bracket,
        verdict=_verdict(mi, bracket),
        k=k,
        pairs=len(pairs.x),
        dimensions=(pairs.x.shape[1], pairs.y.shape[1]),
        reduced=pairs.reduced,
        dropped=pairs.dropped,
    )


# Training and reading ---------------------------------------------------------------------------------------------------


@dataclass(frozen=True, eq=False)
class Fold:
    """Pairs, and which of them are held out, validate and train."""

    pairs: Pairs
    held_out: Int64[Tensor, " H"]
    validation: Int64[Tensor, " V"]
    training: Int64[Tensor, " T"]
    batches: list[Int64[Tensor, " K"]]
    """Of held-out pairs that are each other's candidates."""
    generator: torch.Generator

    def trained_on(self) -> list[Int64[Tensor, " K"]]:
        """As large batches of pairs that are not held out: all that fill one."""
        both = torch.cat((self.training, self.validation))
        k = len(self.batches[0])
        return [both[batch] for batch in infonce.candidate_batches(len(both), k, 1, self.generator)]


class Readings:
    """What an estimator read on each fold."""

    def __init__(self, groups: Int64[Tensor, " N"]) -> None:
        self.groups = groups
        self.contributions: list[Tensor] = []
        self.items: list[Tensor] = []
        self.values: list[float] = []
        self.seen: list[float] = []
        """On pairs it was trained on."""
        self.cautions: list[str] = []
        self.kind: Literal["lower", "upper", "neither"] | None = None
        self.k = 0

    def add(self, contributions: list[Tensor], batches: list[Tensor]) -> None:
        """What the items of some batches contributed."""
        self.k = len(batches[0])
        self.contributions += contributions
        self.items += batches
        self.values.append(torch.cat(contributions).mean().item())

    def estimate(self, name: str) -> Estimate:
        """Over all folds; every item counts equally.

        What is learned from few pairs is wrong by about half of what those pairs read more than others, as Akaike 1974 has it: a
        lower bound is low by so much, and says so where it is much, and as much is added to an upper bound.
        """
        contributions, items = torch.cat(self.contributions), torch.cat(self.items)
        found = infonce.from_contributions(contributions, items, self.k)
        away = infonce.by_item(contributions, items) - found.value
        by_group = torch.bincount(self.groups[items.unique()], weights=away)
        clustered = by_group.square().sum().sqrt().item() / len(away)
        spread = torch.tensor(self.values, dtype=torch.float64).std().item() / math.sqrt(len(self.values))
        stderr = max(found.stderr, clustered, spread)
        gap = max(sum(self.seen) / len(self.seen) - found.value, 0.0) / 2 if self.seen else 0.0
        cautions = list(dict.fromkeys(self.cautions))
        claimed = spec.ESTIMATORS[name].kind
        kind = self.kind or claimed
        if kind == "upper":
            found = replace(found, value=found.value + gap)
        elif claimed == "lower" and gap > max(TOLERATED, TOLERATED * found.value) and gap > 2 * stderr:
            cautions.append(
                f"low by about {gap:.2f} nats, as far as pairs that it was trained on tell: more pairs would raise it"
            )
        if name != "infonce":
            found = Estimate(found.value, stderr, kind)
        if found.caution is not None:
            cautions.insert(0, found.caution)
        return replace(found, stderr=stderr, caution="; ".join(cautions) or None, repeats=tuple(self.values))


def _read_critic(training: str, asked: spec.MiEstimate, fold: Fold, readings: dict[str, Readings]) -> Iterator[None]:
    """Train a critic, and read every estimator that is read from it."""
    pairs = fold.pairs
    aim = critic_aim(training, asked.critic)
    learned: Learned[Scores] = yield from learn(aim, pairs.x, pairs.y, fold.validation, fold.training, fold.generator)
    scores = _scorer(learned, pairs)
    most = spec.MOST_CONCATENATED if asked.critic == "concatenated" else MOST_CANDIDATES
    assert learned.earlier is not None, "what learn returns has one"
    validating = _scorer(learned.earlier, pairs)(fold.validation[:most])
    read = _reader(training, validating, len(fold.validation))
    (seen, *_) = fold.trained_on()
    found = []
    for batch in fold.batches:
        found.append(scores(batch))
        yield
    for name, reading in readings.items():
        if TRAINED_FOR[name] == training:
            reading.add([read[name](*part) for part in found], fold.batches)
            reading.seen.append(read[name](*scores(seen)).mean().item())
            reading.cautions += _carried_by_few(name, read["relative"](*found[0]))


def _scorer(learned: Learned[Scores], pairs: Pairs) -> Callable[[Tensor], tuple[Tensor, Tensor]]:
    def scores(items: Tensor) -> tuple[Tensor, Tensor]:
        with torch.no_grad():
            found: tuple[Tensor, Tensor] = learned.network(*learned.inputs(pairs.x[items], pairs.y[items]))
        return found

    return scores


def _reader(training: str, validating: tuple[Tensor, Tensor], items: int) -> dict[str, Callable[[Tensor, Tensor], Tensor]]:
    """How scores and log baselines are read, calibrated on validation pairs."""
    if training == "infonce":
        temperature = infonce.fit_temperature([validating[0]], 1.0, items)
        return {"infonce": lambda scores, _: infonce.contributions(scores / temperature), "relative": lambda scores, _: scores}
    with_baseline = training in ("tuba", "interpolated")
    scale, shift = calibration(validating[0] - validating[1] if with_baseline else validating[0])

    def relative(scores: Tensor, baseline: Tensor) -> Tensor:
        return scale * (scores - baseline if with_baseline else scores).double() + shift

    def none(scores: Tensor) -> Tensor:
        return torch.zeros(len(scores), dtype=torch.float64)

    return {
        "nwj": lambda scores, baseline: nwj.contributions(1 + relative(scores, baseline)),
        "js": lambda scores, baseline: nwj.contributions(1 + relative(scores, baseline)),
        "tuba": lambda scores, baseline: tuba.contributions(relative(scores, baseline), none(scores)),
        "interpolated": lambda scores, baseline: interpolated.contributions(relative(scores, baseline), none(scores)),
        "dv": lambda scores, baseline: dv.contributions(relative(scores, baseline)),
        "smile": lambda scores, _: smile.contributions(scores),
        "relative": relative,
    }


def _carried_by_few(name: str, relative: Tensor) -> list[str]:
    """A caution where the mean of exponentials over strangers rests on a few items. Kish 1965, effective sample size."""
    if name in ("infonce", "smile"):
        return []
    weights = exponentials(relative)
    shares = (weights.sum(dim=1) + weights.sum(dim=0)) / (2 * weights.sum()).clamp(min=1e-300)
    effective = 1 / shares.square().sum().clamp(min=1e-300).item() / len(shares)
    return ["a few pairs carry its mean over strangers, so that its standard error cannot be trusted"] * (
        effective < LEAST_EFFECTIVE
    )


def _read_density(fold: Fold, readings: dict[str, Readings], residuals: Residuals) -> Iterator[None]:
    """Learn the density of y given x, and read every estimator that is read from it."""
    pairs = fold.pairs
    learned: Learned[Conditional] = yield from learn(
        density_aim(), pairs.x, pairs.y, fold.validation, fold.training, fold.generator
    )
    with torch.no_grad():
        x, y = pairs.x[fold.held_out], pairs.y[fold.held_out]
        u, v = learned.inputs(x, y)
        residuals.add(learned.network.residuals(u, v), v, x, y, fold.held_out)
        found, seen = (
            [_by_density(learned, pairs.x[batch], pairs.y[batch]) for batch in batches]
            for batches in (fold.batches, fold.trained_on())
        )
    for name, reading in readings.items():
        if TRAINED_FOR[name] == "density":
            reading.add([of_batch[name] for of_batch in found], fold.batches)
            if name != "doe":  # which errs either way
                reading.seen.append(torch.cat([of_batch[name] for of_batch in seen]).mean().item())


def _judge_density(pairs: Pairs, readings: dict[str, Readings], residuals: Residuals) -> None:
    """Say of what was read from learned densities whether it bounds anything."""
    misfit = (
        [] if residuals.bear_out(pairs.unlike()) else ["held-out residuals are not what the learned density of y given x says"]
    )
    components = ["it is that of principal components, and of the arrays there may be more"] if pairs.reduced else []
    for name, reading in readings.items():
        if TRAINED_FOR[name] != "density":
            continue
        reading.cautions += misfit if name == "doe" else [f"no bound: {why}" for why in misfit + components]
        if name != "doe" and misfit + components:
            reading.kind = "neither"
        if name == "club":
            reading.cautions.append("loose by nature: to be minimised rather than reported")


def _by_density(learned: Learned[Conditional], x: Tensor, y: Tensor) -> dict[str, Tensor]:
    u, v = learned.inputs(x, y)
    densities = learned.network.log_densities(u, v)
    return {
        "leave_one_out": leave_one_out.contributions(densities),
        "club": club.contributions(densities),
        "doe": doe.contributions(log_standard_normal(v), densities.diagonal()),
    }


def _untrained(name: str, pairs: Pairs, generator: torch.Generator) -> Estimate:
    unlike = pairs.unlike()
    if name == "cca":
        found = cca.cca(pairs.x, pairs.y)
        found = replace(found, stderr=found.stderr * math.sqrt(len(pairs.x) / len(unlike)))
        full = cca.canonical(pairs.x, pairs.y)
        u, v = full.of_x(pairs.x), full.of_y(pairs.y)
        rho = torch.zeros(v.shape[1], dtype=torch.float64)
        rho[: len(full.correlations)] = full.correlations
        partner = torch.nn.functional.pad(u, (0, max(v.shape[1] - u.shape[1], 0)))[:, : v.shape[1]]
        residuals = (v - rho * partner) / (1 - rho.square()).sqrt()
        fits = borne_out(residuals[unlike].float(), u[unlike].float())
        return found if fits else replace(found, caution="blind to all but linear dependence of normal scores, and there is more")
    alike = len(unlike) < spec.LEAST_PAIRS
    counted = torch.arange(len(pairs.x)) if alike else unlike
    some = counted[torch.randperm(len(counted), generator=generator)[:MOST_NEIGHBOURHOODS]]
    found = ksg.ksg(pairs.x[some], pairs.y[some], generator)
    dimensions = pairs.x.shape[1] + pairs.y.shape[1]
    if alike:
        return replace(found, low=False, caution=f"neighbours are alike: the pairs are of {len(unlike)} groups")
    if dimensions <= FEW_DIMENSIONS or (found.caution is not None and not found.low):
        return found
    many = f"counts of neighbours read low in {dimensions} dimensions; {FEW_DIMENSIONS} together are few enough"
    return replace(found, low=True, caution=many)


# Splitting --------------------------------------------------------------------------------------------------------------


def _folds(groups: Int64[Tensor, " N"], repeats: int, generator: torch.Generator) -> list[Int64[Tensor, " H"]]:
    """Parts of the pairs, each to be held out once; a group stays together."""
    count = int(groups.max()) + 1
    part_of = torch.randperm(count, generator=generator) % repeats
    folds = [(part_of[groups] == part).nonzero()[:, 0] for part in range(repeats)]
    if min(map(len, folds)) < LEAST_HELD_OUT:
        raise ArraysInvalid(
            f"the pairs are copies of {count} distinct ones, too few to hold out {repeats} parts of them; more distinct pairs "
            "are needed"
        )
    return folds


def _fold(pairs: Pairs, held_out: Int64[Tensor, " H"], k: int, generator: torch.Generator) -> Fold:
    others = torch.ones(len(pairs.x), dtype=torch.bool)
    others[held_out] = False
    rest = others.nonzero()[:, 0]
    chance = torch.rand(int(pairs.groups.max()) + 1, generator=generator)[pairs.groups[rest]]
    order = rest[chance.argsort(stable=True)]
    ends = pairs.groups[order].diff().nonzero()[:, 0] + 1  # a group is not cut
    wanted = max(round(VALIDATION * len(rest)), 2)
    cut = int(ends[(ends - wanted).abs().argmin()]) if len(ends) else 0
    training, dimensions = len(order) - cut, pairs.x.shape[1] + pairs.y.shape[1]
    if cut < 2 or training <= max(dimensions, 2):
        raise ArraysInvalid(
            f"too many of the pairs are copies of each other: {training} are left to learn {dimensions} dimensions from, and "
            f"{cut} to say when to stop; more distinct pairs are needed"
        )
    rounds = 1 if len(held_out) % k == 0 or len(held_out) < 2 * k else 3
    batches = [held_out[batch] for batch in infonce.candidate_batches(len(held_out), k, rounds, generator)]
    return Fold(pairs, held_out, order[:cut], order[cut:], batches, generator)


def _candidates(asked: spec.MiEstimate, held_out: int) -> int:
    """K: what was asked for, or held-out pairs in equal batches that are as large as may be. Raises ArraysInvalid."""
    if asked.k is not None:
        accepted = min(held_out, spec.MOST_CONCATENATED) if asked.critic == "concatenated" else held_out
        if asked.k > accepted:
            raise ArraysInvalid(f"k is {asked.k}, but {held_out} pairs are held out at a time; 2 to {accepted} are accepted")
        return asked.k
    most = spec.MOST_CONCATENATED if asked.critic == "concatenated" else MOST_CANDIDATES
    return held_out // math.ceil(held_out / most)


# What may be said -------------------------------------------------------------------------------------------------------


def _nothing(asked: spec.MiEstimate, pairs: Pairs, k: int) -> Estimates:
    """What constants share."""
    constant = "x" if pairs.x.shape[1] == 0 else "y"
    mi: dict[str, Estimate] = {
        name: Estimate(0.0, 0.0, spec.ESTIMATORS[name].kind, log_k=math.log(k) if name == "infonce" else None)
        for name in asked.estimators
    }
    return Estimates(
        mi=mi,
        bracket=None,
        verdict=f"exactly 0 nats: {constant} is constant",
        k=k,
        pairs=len(pairs.x),
        dimensions=(pairs.x.shape[1], pairs.y.shape[1]),
        reduced=pairs.reduced,
        dropped=pairs.dropped,
    )


def _compared(mi: dict[str, Estimate], pairs: Pairs, generator: torch.Generator) -> dict[str, Estimate]:
    """Set the estimates beside what others read of these pairs: a bound that they contradict, or that none bears out, says so.

    Beside those that were asked for, neighbours are counted where dimensions are few, and Gaussians fitted: it costs little.
    """
    others = dict(mi)
    dimensions = pairs.x.shape[1] + pairs.y.shape[1]
    for name in ("cca", "ksg"):
        if name not in others and (name == "cca" or dimensions <= FEW_DIMENSIONS):
            others[name] = _untrained(name, pairs, generator)
    lower = max((found.value - 3 * found.stderr for found in mi.values() if found.kind == "lower"), default=-math.inf)
    low = {name: its for name, its in others.items() if name == "ksg" and its.low}  # what reads less than it is lower still
    untrained = low | {name: its for name, its in others.items() if name in ("ksg", "cca") and its.caution is None}
    mi = {name: _beneath(found, lower, untrained) for name, found in mi.items()}
    others |= mi
    witnesses = {name: others[name] for name in WITNESSES if name in others and others[name].caution is None}
    return {name: _beside(found, witnesses, low, pairs.reduced) if found.kind == "lower" else found for name, found in mi.items()}


def _beneath(found: Estimate, lower: float, untrained: dict[str, Estimate]) -> Estimate:
    """An upper bound that is beneath a lower one is none, nor one beneath what no network learned."""
    if found.kind != "upper":
        return found
    above = [f"a lower bound is above it, at {lower:.2f} nats"] if found.value + 3 * found.stderr < lower else []
    for name, its in untrained.items():
        if its.value - found.value > 2 * math.hypot(found.stderr, its.stderr):
            above.append(f"{name} reads {its.value:.2f} nats")
    return replace(found, kind="neither", caution=_and(found.caution, f"no bound: {'; '.join(above)}")) if above else found


def _beside(found: Estimate, witnesses: dict[str, Estimate], low: dict[str, Estimate], reduced: bool) -> Estimate:
    """A lower bound beside estimates that no critic had a part in; those that read less do not bear it out from above."""
    tolerated = max(TOLERATED, TOLERATED * found.value)
    for name, its in (witnesses | low).items():
        more = its.value - found.value
        if more > max(TOLERATED, TOLERATED * its.value) / 2 and more > 2 * math.hypot(found.stderr, its.stderr):
            return replace(found, caution=_and(found.caution, f"low: {name} reads {its.value:.2f} nats"))
    if not reduced and any(its.value > found.value - tolerated for its in witnesses.values()):
        return found
    return replace(found, caution=_and(found.caution, "nothing bears it out from above: there may be more"))


def _and(caution: str | None, more: str) -> str:
    return more if caution is None else f"{caution}; {more}"


def _bracket(mi: dict[str, Estimate]) -> Bracket | None:
    lower = [name for name, its in mi.items() if its.kind == "lower" and (its.caution is None or its.low)]
    upper = [name for name, its in mi.items() if its.kind == "upper" and its.caution is None]
    if not (lower and upper):
        return None
    highest, lowest = max(lower, key=lambda name: mi[name].value), min(upper, key=lambda name: mi[name].value)
    ends = max(mi[highest].value, 0.0), max(mi[lowest].value, 0.0)
    if ends[0] - ends[1] > max(TOLERATED, TOLERATED * ends[0]):
        return None
    if ends[0] > ends[1]:  # by noise
        ends = (sum(ends) / 2, sum(ends) / 2)
    return Bracket(*ends, highest, lowest)


def _verdict(mi: dict[str, Estimate], bracket: Bracket | None) -> str:
    """One line of words and numbers."""
    bounds = {name: its for name, its in mi.items() if its.kind == "lower"}
    trusted = {name: its for name, its in bounds.items() if its.caution is None}
    if not bounds:
        name, found = min(mi.items(), key=lambda item: item[1].kind != "upper")
        words = found.caution or "nothing speaks against it"
        if found.kind == "upper":
            return f"at most {_nats(found)} by {name}; {words}"
        return f"{_nats(found)} by {name}, which bounds nothing; {words}"
    found = max((trusted or bounds).values(), key=lambda its: its.value)
    if found.value < 2 * found.stderr + 0.005:
        return f"no information found: {_nats(found)}" + ("" if trusted else f"; {found.caution}")
    if bracket is not None and bracket.upper - bracket.lower < max(0.5, bracket.lower / 4):
        return f"between {bracket.lower:.2f} and {bracket.upper:.2f} nats (± {found.stderr:.2f}); trust it"
    ceiling = f"; the ceiling is {found.log_k:.1f}" if found.log_k is not None else ""
    return f"at least {found.value:.2f} nats (± {found.stderr:.2f}){ceiling}; {found.caution or 'trust it'}"


def _nats(found: Estimate) -> str:
    return f"{max(found.value, 0.0):.2f} ± {found.stderr:.2f} nats"
