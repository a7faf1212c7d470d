"""The search against curves whose peak is known, and against controls that have none."""

import math
from collections import Counter
from collections.abc import Callable
from functools import cache

import numpy as np
import pytest
from numpy.typing import NDArray

from ml import search
from ml.curve import Curve, Measurement, TaskResult, trace
from ml.search import Trial
from ml.spec import Axis, Search

LOG_K = math.log(2048)
SIGNAL, NUISANCE, CAPACITY, LABELS, PAIRS = 4, 12, 6, 200, 2000
PEAK = 1.16  # of the toy, by 2500 draws every .05; the accuracies at 1.15 and 1.2 differ by two standard errors


def correlations(t: float) -> tuple[float, float]:
    """Of a signal and of a nuisance dimension between the views: strength t hits the nuisance faster."""
    return 1 / (1.15 + 0.1 * t**2), 1 / (1.02 + 0.6 * t**4)


def information(t: float) -> float:
    """I(v1;v2) in nats, in closed form."""
    signal, nuisance = correlations(t)
    return -SIGNAL / 2 * math.log(1 - signal**2) - NUISANCE / 2 * math.log(1 - nuisance**2)


def accuracy(t: float, chance: np.random.Generator) -> float:
    """Of one training: the top 6 directions of a CCA of 2000 pairs, ridge 1 on 200 labels of a random linear task.

    On infinitely many held-out items, since two jointly normal numbers of correlation c differ in sign with arccos(c) / pi.
    """
    signal, nuisance = correlations(t)
    r = np.r_[np.full(SIGNAL, signal), np.full(NUISANCE, nuisance)]

    def views(count: int) -> tuple[NDArray[np.float64], NDArray[np.float64], NDArray[np.float64]]:
        shared = chance.standard_normal((count, len(r)))
        own = chance.standard_normal((2, count, len(r))) * np.sqrt(1 - r)
        return shared, np.sqrt(r) * shared + own[0], np.sqrt(r) * shared + own[1]

    _, v1, v2 = views(PAIRS)
    encoder = np.linalg.svd(v1.T @ v2)[0][:, :CAPACITY]
    task = np.zeros(len(r))
    task[:SIGNAL] = chance.standard_normal(SIGNAL)
    task /= np.linalg.norm(task)
    shared, view, _ = views(LABELS)
    features = view @ encoder
    probe = np.linalg.solve(features.T @ features + np.eye(CAPACITY), features.T @ np.sign(shared @ task))
    direction = encoder @ probe
    return float(1 - np.arccos((np.sqrt(r) * direction) @ task / np.linalg.norm(direction)) / np.pi)


def searched(seed: int, measure: Callable[[float, np.random.Generator], float], **options: float) -> tuple[Search, list[Trial]]:
    asked = Search(**{"low": 0.0, "high": 2.4, "trainings": 10} | options)
    chance, trials = np.random.default_rng(seed), list[Trial]()
    while following := search.ask(asked, trials):
        (trial,) = following
        repeat = sum((other.value, other.short) == (trial.value, trial.short) for other in trials)
        trials.append(Trial(trial.value, measure(trial.value, chance), trial.short, repeat=repeat))
    return asked, trials


@cache
def on_the_toy(trainings: int = 10) -> list[tuple[Search, list[Trial]]]:
    return [searched(seed, accuracy, trainings=trainings) for seed in range(100)]


def traced(asked: Search, trials: list[Trial], merits: NDArray[np.float64] | None = None) -> Curve:
    values = sorted({trial.value for trial in trials})
    measured = [
        Measurement(
            experiment=f"exp_{number}",
            index=values.index(trial.value),
            seed=trial.repeat,
            i_nce=min(information(trial.value), LOG_K),
            i_nce_stderr=0.02,
            log_k=LOG_K,
            saturated=information(trial.value) > LOG_K - 1,
            tasks={"classification": TaskResult(trial.score or 0.0, merits=None if merits is None else merits[number])},
        )
        for number, trial in enumerate(trials)
    ]
    return trace(Axis.model_construct(path="views.t", values=tuple(values), labels=None, search=asked, ablate=False), measured)


# On the toy -----------------------------------------------------------------------------------------------------------


def test_the_toy_is_as_it_was_computed() -> None:
    """`t`, I(v1;v2), and the accuracy as 60 draws of it gave: to .01 where a draw scatters by .01, to .02 where by .05."""
    for t, nats, expected, tolerance in ((0.8, 8.14, 0.713, 0.02), (1.2, 3.12, 0.826, 0.005), (2.0, 1.13, 0.785, 0.005)):
        assert information(t) == pytest.approx(nats, abs=0.01)
        chance = np.random.default_rng(0)
        assert np.mean([accuracy(t, chance) for _ in range(100)]) == pytest.approx(expected, abs=tolerance)


def test_ten_trainings_find_the_peak_of_the_toy_in_18_of_20_seeds() -> None:
    peaks = [search.peak(*run) for run in on_the_toy()[:20]]
    assert all(len(trials) <= 10 for _, trials in on_the_toy())
    found = [peak for peak in peaks if peak and 1.0 <= peak.value <= 1.4 and 2.1 <= information(peak.value) <= 5.0]
    assert len(found) >= 18


def test_intervals_of_nominally_90_percent_cover_the_true_peak_in_80_to_98_of_100() -> None:
    peaks = [search.peak(*run) for run in on_the_toy()]
    assert 80 <= sum(peak is not None and peak.value_ci[0] <= PEAK <= peak.value_ci[1] for peak in peaks) <= 98


def test_sixteen_trainings_are_enough_to_say_inverted_u() -> None:
    verdicts = [traced(*run).verdicts["classification"] for run in on_the_toy(16)[:20]]
    assert sum(verdict.shape == "inverted_u" for verdict in verdicts) >= 18
    spots = [verdict.sweet_spot for verdict in verdicts if verdict.sweet_spot]
    assert sum(spot.value_ci is not None and spot.value_ci[0] <= PEAK <= spot.value_ci[1] for spot in spots) >= 17
    for (asked, trials), verdict in zip(on_the_toy(16), verdicts, strict=False):
        peak = search.peak(asked, trials)
        assert peak is not None
        if verdict.sweet_spot:
            nearest = min(abs(trial.value - peak.value) for trial in trials)
            apart = abs(float(verdict.sweet_spot.value) - peak.value)  # type: ignore[arg-type]
            assert apart == pytest.approx(nearest), "the picture and the search name the same place"


def test_a_control_without_a_peak_is_no_u_in_95_of_100_searches() -> None:
    def measure(t: float, chance: np.random.Generator) -> float:
        return 0.8 - 0.2 * math.exp(-3 * t) + 0.008 * chance.standard_normal()  # rises to a plateau

    shapes = Counter(traced(*searched(seed, measure)).verdicts["classification"].shape for seed in range(100))
    assert shapes["inverted_u"] <= 5


def test_luck_that_attracts_trainings_makes_no_u() -> None:
    """The hardest control: level, then falling. By all trainings alike 7 of 100 looked like an inverted U."""

    def measure(t: float, chance: np.random.Generator) -> float:
        return 0.8 - 0.2 / (1 + math.exp(-6 * (t - 1.8))) + 0.008 * chance.standard_normal()

    runs = (searched(1000 + seed, measure, trainings=16) for seed in range(100))
    assert sum(traced(*run).verdicts["classification"].shape == "inverted_u" for run in runs) <= 5


# Asking ---------------------------------------------------------------------------------------------------------------


def test_it_begins_with_values_evenly_spaced_on_its_scale() -> None:
    asked = Search(low=0.01, high=100, scale="log", trainings=10)
    design = search.ask(asked, [], 5)
    assert sorted(trial.value for trial in design) == [0.01, 0.1, 1, 10, 100]
    assert search.independent(asked, []) == 5 and search.independent(asked, design) == 0
    assert search.ask(asked, design) == [], "what comes next hangs on what these will say"


def test_several_asked_for_at_once_differ() -> None:
    asked = Search(low=0, high=1, trainings=20)
    told = [Trial(trial.value, 1 - (trial.value - 0.3) ** 2) for trial in search.ask(asked, [], 7)]
    following = search.ask(asked, told, 4)
    assert len({trial.value for trial in following}) >= 3
    assert search.ask(asked, told, 4) == following, "the same was told, so the same is asked"


def test_no_more_is_asked_than_there_are_trainings() -> None:
    asked, trials = searched(0, lambda t, chance: -((t - 1) ** 2) + 0.01 * chance.standard_normal(), trainings=12)
    assert len(trials) == 12
    assert search.ended(asked, trials) == "trainings"


def test_a_noiseless_peak_is_known_soon() -> None:
    asked, trials = searched(0, lambda t, _: -((t - 1.5) ** 2), trainings=40, tolerance=0.1)
    peak = search.peak(asked, trials)
    assert search.ended(asked, trials) == "tolerance" and len(trials) < 20
    assert peak is not None
    assert search.share_of_range(asked, peak.value_ci) <= 0.1
    assert peak.value_ci[0] <= 1.5 <= peak.value_ci[1]


def test_short_trainings_count_by_their_share_and_whole_ones_begin_where_they_did_best() -> None:
    asked, trials = searched(0, lambda t, _: -((t - 0.8) ** 2), trainings=12, short=0.2)
    shorts = [trial for trial in trials if trial.short]
    assert [trial.short for trial in trials] == [True] * len(shorts) + [False] * (len(trials) - len(shorts))
    assert search.spent(asked, trials) == pytest.approx(0.2 * len(shorts) + len(trials) - len(shorts)) and len(shorts) == 5
    assert search.spent(asked, trials) <= 12
    best = max(shorts, key=lambda trial: trial.score or 0)
    assert trials[len(shorts)].value == best.value


def test_short_trainings_that_rank_alike_narrow_the_peak() -> None:
    asked, values = Search(low=0, high=2.4, trainings=12, short=0.2), np.linspace(0, 2.4, 9)
    widths, covered = [], 0
    for seed in range(20):
        chance = np.random.default_rng(seed)
        whole = [Trial(t, 0.8 - 0.1 * (t - 0.9) ** 2 + 0.015 * chance.standard_normal()) for t in values[::2]]
        shorts = [Trial(t, 0.5 - 0.08 * (t - 0.9) ** 2 + 0.005 * chance.standard_normal(), short=True) for t in values]
        alone, helped = search.peak(asked, whole), search.peak(asked, [*whole, *shorts])
        assert alone is not None and helped is not None
        assert helped.score == pytest.approx(0.8, abs=0.05), "in units of whole trainings"
        widths.append(search.share_of_range(asked, helped.value_ci) / search.share_of_range(asked, alone.value_ci))
        covered += helped.value_ci[0] <= 0.9 <= helped.value_ci[1]
    assert np.median(widths) < 0.8
    assert covered >= 15


def test_one_that_failed_is_not_waited_for() -> None:
    asked = Search(low=0, high=1, trainings=10)
    told = [Trial(trial.value, 0.5 + trial.value) for trial in search.ask(asked, [], 5)]
    broken = [*told[:4], Trial(told[4].value, failed=True)]
    assert search.ask(asked, broken)
    assert not search.ask(asked, [Trial(trial.value, failed=True) for trial in told])


def test_scores_that_are_all_alike_tell_nothing_of_a_place() -> None:
    asked = Search(low=0, high=1, trainings=10)
    peak = search.peak(asked, [Trial(trial.value, 0.5) for trial in search.ask(asked, [], 5)])
    assert peak is not None and search.share_of_range(asked, peak.value_ci) > 0.5


def test_the_peak_does_not_hang_on_the_units_of_the_score() -> None:
    asked, trials = on_the_toy()[0]
    peak = search.peak(asked, trials)
    scaled = search.peak(asked, [Trial(trial.value, 100 * (trial.score or 0) - 7) for trial in trials])
    assert peak is not None and scaled is not None
    assert scaled.value == peak.value and scaled.score == pytest.approx(100 * peak.score - 7)
    assert scaled.value_ci == pytest.approx(peak.value_ci, abs=2 * 2.4 / 64), "as exactly as 2000 draws tell quantiles"


def test_noise_that_a_seed_shares_is_told_apart_from_the_curve() -> None:
    """A draw of labels that lifts all its trainings hides no peak: with seeds known the interval is narrower, and holds it."""
    asked, values, widths, held = Search(low=0, high=1, trainings=24), np.linspace(0, 1, 7), [], 0
    for seed in range(20):
        chance = np.random.default_rng(seed)
        lifts = 0.03 * chance.standard_normal(3)
        told = [
            Trial(value, 0.8 - 0.3 * (value - 0.4) ** 2 + lifts[repeat] + 0.003 * chance.standard_normal(), repeat=repeat)
            for place, value in enumerate(values)
            for repeat in range(1 + (place % 2) + (place % 3 == 0))
        ]
        unknown = [Trial(trial.value, trial.score, repeat=place) for place, trial in enumerate(told)]
        peaks = [search.peak(asked, trials) for trials in (told, unknown)]
        assert peaks[0] and peaks[1]
        widths.append([search.share_of_range(asked, one.value_ci) for one in peaks if one])
        held += peaks[0].value_ci[0] <= 0.4 <= peaks[0].value_ci[1]
    known, hidden = np.median(widths, axis=0)
    assert known < 0.75 * hidden
    assert held >= 15


def test_other_held_out_items_widen_the_interval() -> None:
    asked, trials = on_the_toy(16)[0]
    few = np.random.default_rng(0).random((len(trials), 100)) < np.array([[trial.score or 0] for trial in trials])
    narrow, wide = traced(asked, trials), traced(asked, trials, few.astype(np.float64))
    ends = [curve.verdicts["classification"].sweet_spot for curve in (narrow, wide)]
    assert ends[0] and ends[1] and ends[0].value_ci and ends[1].value_ci
    assert ends[1].value_ci[1] - ends[1].value_ci[0] > ends[0].value_ci[1] - ends[0].value_ci[0]


@pytest.mark.parametrize(("options", "count"), [({"low": 1, "high": 9, "step": 1.0}, 9), ({"low": 0, "high": 1}, 65)])
def test_the_grid_holds_the_ends(options: dict[str, float], count: int) -> None:
    grid = Search(**options).grid()
    assert (grid[0], grid[-1], len(grid)) == (options["low"], options["high"], count)
    assert list(grid) == sorted(grid)
