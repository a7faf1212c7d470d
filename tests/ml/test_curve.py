"""The curve against what is known of it: closed forms, simulated truths with known peaks, and controls that have none."""

import json
import math
from collections.abc import Callable, Iterable, Sequence

import numpy as np
import pytest
from scipy.stats import permutation_test, spearmanr, ttest_1samp

from ml import spec
from ml.curve import Curve, Measurement, Predictor, TaskResult, trace

# Measured on scikit-learn's digits: additive noise, 50 labels, K = 512, the sd over seeds .01 to .02.
SIGMAS = (0, 0.1, 0.2, 0.4, 0.7, 1, 1.6, 2.5)
ACCURACIES = (0.56, 0.73, 0.78, 0.83, 0.86, 0.84, 0.82, 0.75)
NATS = (6.24, 6.19, 5.98, 4.73, 2.64, 1.39, 0.36, 0.02)
LOG_K = math.log(512)

# The linear-Gaussian toy in closed form: strength t, I(v1;v2) in nats (pinned at log 2048 as I_NCE), accuracy of the probe.
TOY = ((0, 22.3, 0.582), (0.8, 8.14, 0.713), (1.0, 4.92, 0.814), (1.2, 3.12, 0.826), (1.4, 2.17, 0.818), (2.0, 1.13, 0.785),
       (2.4, 0.83, 0.765))  # fmt: skip


def simulate(
    accuracies: Sequence[float],
    nats: Sequence[float],
    seeds: int = 3,
    sd: float = 0.015,
    chance: int = 0,
    log_k: float = LOG_K,
    metric: str = "accuracy",
) -> list[Measurement]:
    draw = np.random.default_rng(chance)
    return [
        Measurement(
            experiment=f"exp_{index}_{seed}",
            index=index,
            seed=seed,
            i_nce=min(information + 0.02 * draw.standard_normal(), log_k),
            i_nce_stderr=0.02,
            log_k=log_k,
            saturated=information > log_k - 1,
            tasks={
                "classification": TaskResult(accuracy + sd * draw.standard_normal(), (accuracy - 0.03, accuracy + 0.03), metric)
            },
        )
        for index, (accuracy, information) in enumerate(zip(accuracies, nats, strict=True))
        for seed in range(seeds)
    ]


def digits(**options: float) -> Curve:
    return trace(spec.Axis(path="views.sigma", values=SIGMAS), simulate(ACCURACIES, NATS, **options))


def shapes(accuracies: Sequence[float], seeds: int = 3, times: int = 100, sd: float = 0.015) -> list[str]:
    axis = spec.Axis(path="views.sigma", values=tuple(range(len(accuracies))))
    nats = np.linspace(6, 0.1, len(accuracies))
    curves = (trace(axis, simulate(accuracies, nats, seeds, sd, chance)) for chance in range(times))
    return [curve.verdicts["classification"].shape for curve in curves]


def numbers(node: object) -> Iterable[float]:
    if isinstance(node, dict):
        yield from (number for child in node.values() for number in numbers(child))
    elif isinstance(node, list):
        yield from (number for child in node for number in numbers(child))
    elif isinstance(node, float):
        yield node


# The test for a U -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("chance", range(20))
def test_the_digits_curve_is_an_inverted_u(chance: int) -> None:
    verdict = digits(chance=chance, sd=0.01).verdicts["classification"]
    assert verdict.shape == "inverted_u"
    assert verdict.two_lines.p_left is not None and verdict.two_lines.p_left < 1e-3
    assert verdict.two_lines.p_right is not None and verdict.two_lines.p_right < 1e-3


def test_three_seeds_at_twice_the_scatter_still_show_the_digits_curve() -> None:
    found = shapes(ACCURACIES, sd=0.02)
    assert found.count("inverted_u") >= 95


@pytest.mark.parametrize(
    "accuracies",
    [
        (0.50, 0.55, 0.60, 0.65, 0.70, 0.75, 0.80, 0.85),
        (0.56, 0.73, 0.78, 0.81, 0.83, 0.845, 0.855, 0.86),
        (0.86, 0.855, 0.845, 0.83, 0.81, 0.78, 0.73, 0.56),
        (0.56, 0.73, 0.78, 0.83, 0.86, 0.86, 0.86, 0.86),
        (0.86, 0.86, 0.86, 0.86, 0.83, 0.78, 0.73, 0.56),
        (0.60, 0.70, 0.78, 0.82, 0.83),
        (0.80,) * 8,
    ],
)
def test_a_control_without_a_peak_is_not_called_a_u_in_95_of_100_sweeps(accuracies: tuple[float, ...]) -> None:
    assert 100 - shapes(accuracies).count("inverted_u") >= 95


def test_the_shape_is_named_from_less_to_more_information() -> None:
    # I_NCE falls along this axis: accuracy that rises along it falls as information rises.
    assert set(shapes((0.50, 0.55, 0.60, 0.65, 0.70, 0.75, 0.80, 0.85), times=20)) == {"falling"}
    assert set(shapes((0.85, 0.80, 0.75, 0.70, 0.65, 0.60, 0.55, 0.50), times=20)) == {"rising"}
    assert shapes((0.86, 0.86, 0.86, 0.86, 0.80, 0.74, 0.68, 0.56)).count("half_u") >= 75
    assert shapes((0.80,) * 8).count("flat") >= 75
    assert set(shapes((0.85, 0.80, 0.75, 0.70, 0.75, 0.80, 0.85, 0.90), times=20)) == {"unclear"}


def test_p_left_is_the_side_of_less_information_however_the_axis_runs() -> None:
    steep_at_strong_noise = (0.80, 0.81, 0.82, 0.83, 0.84, 0.70, 0.55, 0.40)
    measured = simulate(steep_at_strong_noise, NATS)
    along = trace(spec.Axis(path="views.sigma", values=SIGMAS), measured).verdicts["classification"].two_lines
    against = trace(spec.Axis(path="views.sharpness", values=[-sigma for sigma in SIGMAS]), measured)
    assert along.slope_left is not None and along.slope_right is not None
    assert along.slope_left > 5 * -along.slope_right > 0
    two_lines = against.verdicts["classification"].two_lines
    assert (two_lines.p_left, two_lines.p_right) == (along.p_left, along.p_right)
    assert along.break_at == pytest.approx(-two_lines.break_at)


def test_saturated_points_do_not_hide_the_branch_of_excess_noise() -> None:
    pinned = [min(information, 4.15) for information in NATS]
    curve = trace(spec.Axis(path="views.sigma", values=SIGMAS), simulate(ACCURACIES, pinned, log_k=4.16))
    assert [point.saturated for point in curve.points] == [True] * 4 + [False] * 4
    assert curve.verdicts["classification"].shape == "inverted_u"
    assert [point.regime for point in curve.points][:2] == ["excess_noise"] * 2


@pytest.mark.parametrize(("values", "seeds"), [(5, 1), (8, 1), (4, 3), (4, 30), (3, 3), (1, 3)])
def test_too_few_measurements_are_unclear(values: int, seeds: int) -> None:
    axis = spec.Axis(path="views.sigma", values=SIGMAS[:values])
    measured = simulate(ACCURACIES[8 - values :], NATS[8 - values :], seeds, sd=1e-4)
    verdict = trace(axis, measured).verdicts["classification"]
    assert (verdict.shape, verdict.sweet_spot, verdict.two_lines.p_left) == ("unclear", None, None)
    assert verdict.words.startswith(f"unclear: {values * seeds} training")
    assert verdict.words.endswith("; a verdict takes 10 at 5")


def test_five_values_with_three_seeds_are_enough() -> None:
    assert shapes((0.60, 0.75, 0.86, 0.80, 0.70)).count("inverted_u") >= 95


def test_equal_accuracies_have_no_slope() -> None:
    verdict = digits(sd=0).verdicts["classification"]
    assert verdict.shape == "inverted_u"
    axis = spec.Axis(path="views.sigma", values=SIGMAS)
    level = trace(axis, simulate((0.5,) * 8, NATS, sd=0)).verdicts["classification"]
    assert (level.shape, level.two_lines.p_left, level.two_lines.p_right) == ("flat", 1, 1)


# The sweet spot -------------------------------------------------------------------------------------------------------


def bump(rank: float) -> float:
    return 0.6 + 0.25 * math.exp(-0.5 * ((rank - 3.4) / 2) ** 2)


def tent(rank: float) -> float:
    return 0.85 - 0.04 * abs(rank - 3.3)


def skewed(rank: float) -> float:
    return 0.85 - (0.01 if rank < 4.3 else 0.06) * (rank - 4.3) ** 2


@pytest.mark.parametrize(("truth", "peak"), [(bump, 3.4), (tent, 3.3), (skewed, 4.3)])
@pytest.mark.parametrize(("sd", "seeds"), [(0.004, 3), (0.015, 3), (0.015, 2)])
def test_the_interval_covers_a_known_peak(truth: Callable[[float], float], peak: float, sd: float, seeds: int) -> None:
    axis = spec.Axis(path="views.sigma", values=tuple(range(8)))
    accuracies, nats = [truth(rank) for rank in range(8)], np.linspace(5, 0.1, 8)
    covered = []
    for chance in range(100):
        verdict = trace(axis, simulate(accuracies, nats, seeds, sd, chance)).verdicts["classification"]
        if verdict.sweet_spot is not None and verdict.sweet_spot.value_ci is not None:
            low, high = verdict.sweet_spot.value_ci
            covered.append(low <= peak <= high)
    assert len(covered) >= 70
    assert np.mean(covered) >= 0.9  # 95 % less two standard errors at 80 sweeps


def test_the_digits_curve_has_its_peak_at_sigma_0_7() -> None:
    spots = [digits(chance=chance, sd=0.01).verdicts["classification"].sweet_spot for chance in range(100)]
    assert sum(spot is not None and spot.value == 0.7 for spot in spots) >= 90
    assert (
        sum(spot is not None and spot.value_ci is not None and spot.value_ci[0] <= 0.7 <= spot.value_ci[1] for spot in spots)
        >= 90
    )


def test_the_interval_is_not_wider_than_it_must_be() -> None:
    spots = [digits(chance=chance).verdicts["classification"].sweet_spot for chance in range(20)]
    widths = [spot.value_ci[1] - spot.value_ci[0] for spot in spots if spot is not None and spot.value_ci is not None]
    assert np.median(widths) < 0.7  # half-way to the neighbours is 0.3
    assert min(widths) == pytest.approx(0.3)


def test_the_toy_has_its_peak_where_the_closed_form_has_it() -> None:
    log_k = math.log(2048)
    ts, informations, accuracies = zip(*TOY, strict=True)
    nats = [min(information, log_k) for information in informations]
    axis = spec.Axis(path="views.strength", values=ts)
    found = 0
    for chance in range(20):
        curve = trace(axis, simulate(accuracies, nats, sd=0.005, chance=chance, log_k=log_k))
        assert [point.saturated for point in curve.points] == [True, True] + [False] * 5
        spot = curve.verdicts["classification"].sweet_spot
        found += spot is not None and 1.0 <= spot.value <= 1.4 and 2.1 <= spot.i_nce <= 5.0
    assert found >= 18


def test_the_sweet_spot_is_a_measured_value_with_its_numbers() -> None:
    curve = digits()
    spot = curve.verdicts["classification"].sweet_spot
    point = curve.points[4]
    assert spot is not None and spot.value_ci is not None
    assert (spot.value, spot.i_nce, spot.accuracy) == (point.value, point.i_nce, point.tasks["classification"].value)
    assert spot.value_ci[0] <= 0.7 <= spot.value_ci[1]
    assert spot.i_nce_ci[0] <= spot.i_nce <= spot.i_nce_ci[1]
    assert curve.verdicts["classification"].words.startswith("inverted U: the peak is at sigma 0.7 (0.55 to ")


def test_regimes_lie_on_their_sides_of_the_peak() -> None:
    regimes = [point.regime for point in digits(sd=0.005).points]
    assert regimes == ["excess_noise"] * 4 + ["sweet_spot"] + ["missing_information"] * 3


def test_regimes_are_unknown_where_information_does_not_run_along_the_axis() -> None:
    up_and_down = (1.0, 2.0, 3.0, 4.0, 4.1, 3.1, 2.1, 1.1)
    curve = trace(spec.Axis(path="views.sigma", values=SIGMAS), simulate(ACCURACIES, up_and_down))
    assert curve.verdicts["classification"].shape == "inverted_u"
    assert {point.regime for point in curve.points} == {"unknown"}
    assert "does not run along the axis" in curve.verdicts["classification"].words


def test_recipes_without_an_order_are_judged_over_i_nce() -> None:
    labels = tuple("hgfedcba")
    values = tuple({"kind": "crop", "area": 0.1 + index / 10} for index in range(8))
    nats = (0.3, 4.9, 1.0, 4.2, 1.7, 3.5, 2.4, 2.9)
    accuracies = [0.85 - 0.05 * abs(information - 2.4) for information in nats]
    curve = trace(spec.Axis(path="views", values=values, labels=labels), simulate(accuracies, nats, sd=0.003))
    verdict = curve.verdicts["classification"]
    assert not curve.axis.ordered
    assert verdict.shape == "inverted_u"
    spot = verdict.sweet_spot
    assert spot is not None
    assert (spot.value, spot.label, spot.value_ci) == (values[6], "b", None)
    assert spot.i_nce_ci[0] == pytest.approx((1.7 + 2.4) / 2, abs=0.05)
    assert [point.regime for point in curve.points][:2] == ["missing_information", "excess_noise"]


# Errors, of which less is better --------------------------------------------------------------------------------------


def in_pixels(measured: Sequence[Measurement]) -> list[Measurement]:
    """The same sweep of a task whose error is 16 px less 12 px for all of the accuracy."""
    errors = {
        measurement.experiment: TaskResult(16 - 12 * measurement.tasks["classification"].value, None, "pixels")
        for measurement in measured
    }
    return [Measurement(**{**vars(each), "tasks": {"localization": errors[each.experiment]}}) for each in measured]


def test_an_error_is_judged_as_the_accuracy_that_it_mirrors() -> None:
    axis, measured = spec.Axis(path="views.sigma", values=SIGMAS), simulate(ACCURACIES, NATS)
    of_accuracy, of_error = trace(axis, measured), trace(axis, in_pixels(measured))
    accuracy, error = of_accuracy.verdicts["classification"], of_error.verdicts["localization"]
    assert (accuracy.metric, error.metric) == ("accuracy", "pixels")
    assert accuracy.shape == error.shape == "inverted_u"
    assert (error.two_lines.p_left, error.two_lines.p_right) == pytest.approx(
        (accuracy.two_lines.p_left, accuracy.two_lines.p_right)
    )
    assert error.two_lines.slope_left == pytest.approx(12 * accuracy.two_lines.slope_left)
    assert accuracy.sweet_spot is not None and error.sweet_spot is not None
    assert (error.sweet_spot.value, error.sweet_spot.value_ci) == (accuracy.sweet_spot.value, accuracy.sweet_spot.value_ci)
    assert error.sweet_spot.accuracy == pytest.approx(16 - 12 * accuracy.sweet_spot.accuracy)
    assert error.sweet_spot.accuracy == min(point.tasks["localization"].value for point in of_error.points)
    assert error.words.startswith("inverted U: the least error is at sigma 0.7 (")
    assert [point.regime for point in of_error.points] == [point.regime for point in of_accuracy.points]
    assert {point.tasks["localization"].metric for point in of_error.points} == {"pixels"}


def test_an_error_that_falls_with_information_is_a_rising_performance() -> None:
    axis = spec.Axis(path="views.sigma", values=SIGMAS)  # along which I_NCE falls
    growing = trace(axis, simulate((4, 5, 6, 7, 8, 9, 10, 11), NATS, sd=0.2, metric="pixels")).verdicts["classification"]
    assert (growing.shape, growing.words) == ("rising", "rising: performance rises with information throughout")
    falling = trace(axis, simulate((11, 10, 9, 8, 7, 6, 5, 4), NATS, sd=0.2, metric="pixels")).verdicts["classification"]
    assert (falling.shape, falling.words) == ("falling", "falling: performance falls as information rises throughout")
    hill = trace(axis, simulate((4, 6, 8, 10, 9, 7, 5, 3), NATS, sd=0.2, metric="pixels")).verdicts["classification"]
    assert (hill.shape, hill.sweet_spot) == ("unclear", None)


def test_each_task_of_a_sweep_has_its_own_sweet_spot() -> None:
    digit = simulate(ACCURACIES, NATS, sd=0.01)
    place = simulate((14, 12, 9, 6, 8, 11, 13, 15), NATS, sd=0.1, metric="pixels")
    both = [
        Measurement(**{**vars(one), "tasks": {"digit": one.tasks["classification"], "place": other.tasks["classification"]}})
        for one, other in zip(digit, place, strict=True)
    ]
    curve = trace(spec.Axis(path="views.sigma", values=SIGMAS), both)
    spots = {name: verdict.sweet_spot for name, verdict in curve.verdicts.items()}
    assert {name: spot and spot.value for name, spot in spots.items()} == {"digit": 0.7, "place": 0.4}


# Predictors -----------------------------------------------------------------------------------------------------------


def planted(
    measures: Sequence[float], results: Sequence[float], metric: str = "accuracy", name: str = "lidar"
) -> dict[str, Predictor | None]:
    """What the curve says of a task with these results along with a measure without labels and an I_NCE of the same."""
    axis = spec.Axis(path="views.sigma", values=tuple(range(len(measures))))
    tasks = [{"knn": TaskResult(result, None, metric)} for result in results]
    measured = [
        Measurement(f"exp_{index}", index, 0, value, 0.1, LOG_K, False, tasks[index], quality={name: value})
        for index, value in enumerate(measures)
    ]
    return trace(axis, measured).predictors["knn"]


def test_a_measure_that_runs_with_a_task_predicts_it_perfectly_and_one_that_runs_against_it_too() -> None:
    bent = [math.exp(rank) for rank in range(10)]
    for predictor in (planted(bent, range(10))["lidar"], planted(bent, range(10))["i_nce"]):
        assert predictor is not None
        assert (predictor.rho, predictor.points) == (pytest.approx(1), 10)
        assert predictor.p <= 2 / math.factorial(10) * 1.001
    against = planted(bent[::-1], range(10))["lidar"]
    assert against is not None
    assert against.rho == pytest.approx(-1)


def test_an_errors_sign_is_turned() -> None:
    falling = planted(range(6), (9, 8, 6, 5, 3, 1), metric="pixels")["lidar"]
    assert falling is not None
    assert falling.rho == pytest.approx(1)


@pytest.mark.parametrize("chance", range(5))
@pytest.mark.parametrize("points", [5, 6, 9, 30])
def test_rank_correlation_is_scipys_with_ties_and_without(points: int, chance: int) -> None:
    draw = np.random.default_rng(chance)
    x, y = draw.integers(0, (4, 1000)[chance % 2], points).astype(float), draw.integers(0, 6, points).astype(float)
    x[:2], y[:2] = (0, 3), (1, 4)  # never all alike
    found, truth = planted(x.tolist(), y.tolist())["lidar"], spearmanr(x, y)
    assert found is not None
    assert found.rho == pytest.approx(truth.statistic)
    if points > 8:
        assert found.p == pytest.approx(truth.pvalue)
    else:
        exact = permutation_test(
            (x,), lambda x: abs(spearmanr(x, y).statistic), permutation_type="pairings", alternative="greater", n_resamples=np.inf
        )
        assert found.p == pytest.approx(exact.pvalue)


def test_p_is_the_tables_where_points_are_few() -> None:
    assert [planted(range(n), range(n))["lidar"].p for n in (4, 5, 6)] == pytest.approx([2 / 24, 2 / 120, 2 / 720])
    swapped = planted((0, 1, 2, 4, 3), range(5))["lidar"]
    assert swapped is not None
    assert (swapped.rho, swapped.p) == pytest.approx((0.9, 10 / 120))


def test_too_few_points_and_ties_alone_predict_nothing() -> None:
    assert planted(range(3), range(3))["lidar"] is None
    assert planted([0.5] * 6, range(6))["lidar"] is None
    assert planted(range(6), [0.5] * 6)["lidar"] is None
    broken = planted([0.0, 1.0, 2.0, math.nan], range(4))
    assert broken["lidar"] is None and broken["i_nce"] is None


def test_what_was_not_measured_is_no_predictor() -> None:
    assert list(planted(range(5), range(5), name="rankme")) == ["i_nce", "rankme"]
    axis = spec.Axis(path="views.sigma", values=SIGMAS)
    predictors = trace(axis, [Measurement(**vars(each) | {"nuisance": each.i_nce / 2}) for each in simulate(ACCURACIES, NATS)])
    assert list(predictors.predictors["classification"]) == ["i_nce", "nuisance"]
    assert predictors.predictors["classification"]["nuisance"] == predictors.predictors["classification"]["i_nce"]


def test_predictors_are_of_means_over_the_seeds() -> None:
    def seed(index: int, seed: int, accuracy: float, quality: dict[str, float]) -> Measurement:
        task = {"knn": TaskResult(accuracy)}
        return Measurement(f"exp_{index}_{seed}", index, seed, index, 0.1, LOG_K, False, task, quality=quality)

    measured = [
        one
        for index in range(5)
        for one in (
            seed(index, 0, index + 0.5, {"rankme": index + 9}),
            seed(index, 1, index + 0.7, {"rankme": index - 9}),
            seed(index, 2, index - 3, {}),
        )
    ]
    curve = trace(spec.Axis(path="views.sigma", values=tuple(range(5))), measured)
    assert [point.quality for point in curve.points] == [{"rankme": index} for index in range(5)]
    predictor = curve.predictors["knn"]["rankme"]
    assert predictor is not None
    assert (predictor.rho, predictor.points) == (pytest.approx(1), 5)


# Points ---------------------------------------------------------------------------------------------------------------


def test_intervals_are_students_over_seeds() -> None:
    measured = [
        Measurement(f"exp_{seed}", 0, seed, nats, 0.5, LOG_K, False, {"knn": TaskResult(accuracy)}, 1.5, nats - 1.5)
        for seed, (nats, accuracy) in enumerate([(1.9, 0.80), (2.0, 0.82), (2.1, 0.84)])
    ]
    point = trace(spec.Axis(path="views.sigma", values=[0.5]), measured).points[0]
    half = 4.302653 / math.sqrt(3)  # the 97.5 % quantile of t with 2 degrees of freedom
    assert point.i_nce == pytest.approx(2.0)
    assert point.i_nce_ci == pytest.approx((2 - 0.1 * half, 2 + 0.1 * half))
    assert point.tasks["knn"].value == pytest.approx(0.82)
    assert point.tasks["knn"].ci == pytest.approx((0.82 - 0.02 * half, 0.82 + 0.02 * half))
    assert point.tasks["knn"].seeds == 3
    assert (point.task_information, point.nuisance) == pytest.approx((1.5, 0.5))
    assert point.experiments == ("exp_0", "exp_1", "exp_2")


def test_a_single_seed_has_its_own_intervals() -> None:
    measured = Measurement("exp_0", 0, 0, 2.0, 0.1, LOG_K, False, {"knn": TaskResult(0.8, (0.75, 0.85))})
    point = trace(spec.Axis(path="views.sigma", values=[0.5]), [measured]).points[0]
    assert point.i_nce_ci == pytest.approx((2 - 0.196, 2 + 0.196))
    assert point.tasks["knn"].ci == (0.75, 0.85)


def test_values_of_any_sort_have_a_readable_name() -> None:
    named = {
        "digit + position": ["digit", "position"],
        "crop, area 0.3": {"kind": "crop", "area": 0.3},
        "color_split, space lab, before (augment, jitter 1)": {
            "kind": "color_split",
            "space": "lab",
            "before": {"kind": "augment", "jitter": 1.0},
        },
        "0.75, 1.333": [3 / 4, 4 / 3],
        "null": None,
        "true": True,
        "mnist": {"name": "mnist"},
        "ydbdr": "ydbdr",
        "0.0001235": 0.000123456,
    }
    curve = trace(spec.Axis(path="views", values=tuple(named.values())), [])
    assert [point.label for point in curve.points] == list(named)
    assert curve.points[0].value == ["digit", "position"]


def test_no_interval_of_i_nce_exceeds_log_k() -> None:
    for point in digits(seeds=2).points:
        assert point.i_nce_ci is not None and point.log_k is not None
        assert point.i_nce_ci[1] <= point.log_k


# A sweep that still runs ----------------------------------------------------------------------------------------------


def test_a_sweep_without_measurements_has_its_axis() -> None:
    curve = trace(spec.Axis(path="views.sigma", values=SIGMAS), [])
    assert [point.value for point in curve.points] == list(SIGMAS)
    assert all(point.i_nce is None and point.tasks == {} and point.regime == "unknown" for point in curve.points)
    assert curve.verdicts == {}


@pytest.mark.parametrize("finished", range(25))
def test_the_curve_works_while_the_sweep_runs(finished: int) -> None:
    measured = [measurement for _, measurement in sorted(enumerate(simulate(ACCURACIES, NATS)), key=lambda pair: pair[0] % 7)]
    curve = trace(spec.Axis(path="views.sigma", values=SIGMAS), measured[:finished])
    assert sum(len(point.experiments) for point in curve.points) == finished
    assert all(math.isfinite(number) for number in numbers(json.loads(curve.model_dump_json())))


def test_a_verdict_on_part_of_the_axis_says_so() -> None:
    measured = [measurement for measurement in simulate(ACCURACIES, NATS) if measurement.index not in (0, 3)]
    verdict = trace(spec.Axis(path="views.sigma", values=SIGMAS), measured).verdicts["classification"]
    assert verdict.words.startswith("inverted U: so far the peak is at sigma ")
    assert (verdict.values, verdict.trainings) == (6, 18)


def test_not_a_number_never_gets_out() -> None:
    measured = simulate(ACCURACIES, NATS)
    broken = Measurement("exp_nan", 2, 9, math.nan, math.inf, LOG_K, False, {"classification": TaskResult(math.nan)}, math.nan)
    without = trace(spec.Axis(path="views.sigma", values=SIGMAS), measured)
    curve = trace(spec.Axis(path="views.sigma", values=SIGMAS), [*measured, broken])
    assert curve.verdicts == without.verdicts
    assert curve.points[2].experiments[-1] == "exp_nan"
    lone = Measurement("exp_0", 0, 0, 2.0, math.nan, LOG_K, False, {"knn": TaskResult(0.8, (math.nan, 0.85))})
    point = trace(spec.Axis(path="views.sigma", values=[0.5]), [lone]).points[0]
    assert (point.i_nce_ci, point.tasks["knn"].ci) == (None, None)


def test_the_curve_does_not_depend_on_the_order_of_measurements() -> None:
    measured = simulate(ACCURACIES, NATS)
    axis = spec.Axis(path="views.sigma", values=SIGMAS)
    assert trace(axis, measured).model_dump_json() == trace(axis, measured[::-1]).model_dump_json()


def test_the_curve_does_not_depend_on_the_order_in_which_values_are_written() -> None:
    backwards = [
        Measurement(**{**vars(measurement), "index": 7 - measurement.index}) for measurement in simulate(ACCURACIES, NATS)
    ]
    curve = trace(spec.Axis(path="views.sigma", values=SIGMAS[::-1]), backwards)
    assert curve.verdicts == digits().verdicts


def test_a_measurement_off_the_axis_is_refused() -> None:
    with pytest.raises(ValueError, match=r"exp_4_0 is at index 4 of an axis of 4 values; 0 to 3"):
        trace(spec.Axis(path="views.sigma", values=SIGMAS[:4]), simulate(ACCURACIES, NATS, seeds=1))


def test_regimes_follow_the_first_task() -> None:
    measured = [
        Measurement(**{**vars(measurement), "tasks": {"knn": TaskResult(0.5), **measurement.tasks}})
        for measurement in simulate(ACCURACIES, NATS)
    ]
    curve = trace(spec.Axis(path="views.sigma", values=SIGMAS), measured)
    assert list(curve.verdicts) == ["knn", "classification"]
    assert curve.verdicts["classification"].shape == "inverted_u"
    assert {point.regime for point in curve.points} == {"unknown"}


# Ablation -------------------------------------------------------------------------------------------------------------


COSTS = {"crop": 0.08, "jitter": 0.05, "blur": 0.02, "flip": 0.0, "grayscale": -0.01}  # of accuracy, operations adding up
NATS_SHED = {"crop": 1.5, "jitter": 0.8, "blur": 0.1, "flip": 0.0, "grayscale": 0.3}
ABLATION = spec.Axis(
    path="views",
    ablate=True,
    values=[{"kind": "augment", "less": name} for name in ("nothing", *COSTS)],
    labels=["all of it", *(f"no {name}" for name in COSTS)],
)


def ablation(seeds: int = 5, sd: float = 0.003, chance: int = 0, metric: str = "accuracy") -> list[Measurement]:
    """A task to which every operation adds its own; what a seed draws moves all recipes alike, and some of it each for itself."""
    draw = np.random.default_rng(chance)
    sign = -1 if metric == "pixels" else 1
    measured = []
    for seed in range(seeds):
        level = 0.7 + 0.05 * draw.standard_normal()
        for index, cost in enumerate((0.0, *COSTS.values())):
            value = level - sign * cost + sd * draw.standard_normal()
            nats = 1 + (0.0, *NATS_SHED.values())[index] + 0.02 * draw.standard_normal()
            task = {"knn": TaskResult(value, (value - 0.03, value + 0.03), metric)}
            measured.append(Measurement(f"exp_{index}_{seed}", index, seed, nats, 0.02, LOG_K, False, task))
    return measured


def test_operations_are_ranked_by_what_they_cost_and_costs_have_the_scatter_of_pairs() -> None:
    curve = trace(ABLATION, ablation())
    assert curve.ablation is not None
    found = curve.ablation["knn"]
    assert [one.operation for one in found] == ["crop", "jitter", "blur", "flip", "grayscale"]
    assert [one.label for one in found][:2] == ["no crop", "no jitter"]
    for one in found:
        assert one.nats is not None
        assert one.cost.value == pytest.approx(COSTS[one.operation], abs=0.006)
        assert one.nats.value == pytest.approx(NATS_SHED[one.operation], abs=0.05)
        assert one.cost.ci is not None and one.cost.ci[1] - one.cost.ci[0] < 0.03  # though the levels scatter by .05
        assert one.seeds == 5
    assert curve.ablation_words is not None
    told = curve.ablation_words["knn"]
    assert told.startswith("crop is worth most: without it accuracy falls by 0.07")
    assert told.endswith("; it costs something to leave out jitter and blur, too")


def test_an_ablations_interval_covers_the_cost_in_95_of_100() -> None:
    covered = []
    for chance in range(200):
        found = trace(ABLATION, ablation(3, 0.02, chance)).ablation
        assert found is not None
        covered += [one.cost.ci[0] <= COSTS[one.operation] <= one.cost.ci[1] for one in found["knn"] if one.cost.ci]
    assert np.mean(covered) == pytest.approx(0.95, abs=0.02)


def test_an_error_that_grows_without_an_operation_is_a_cost() -> None:
    found, errors = (trace(ABLATION, ablation(metric=metric)).ablation for metric in ("accuracy", "pixels"))
    assert found is not None and errors is not None
    assert [one.operation for one in errors["knn"]] == [one.operation for one in found["knn"]]
    assert errors["knn"][0].cost.value > 0


def test_ablation_is_corrected_for_so_many_operations() -> None:
    found = trace(ABLATION, ablation(3, 0.01)).ablation
    assert found is not None
    measured = {(one.index, one.seed): one.tasks["knn"].value for one in ablation(3, 0.01)}
    alone = {
        name: float(ttest_1samp([measured[0, seed] - measured[index, seed] for seed in range(3)], 0).pvalue)
        for index, name in enumerate(COSTS, start=1)
    }
    ordered = sorted(alone, key=lambda name: alone[name])
    corrected = np.maximum.accumulate([min(alone[name] * (5 - rank), 1) for rank, name in enumerate(ordered)])
    assert {one.operation: one.p for one in found["knn"]} == pytest.approx(dict(zip(ordered, corrected, strict=True)))


def test_where_nothing_costs_anything_no_operation_is_named_in_95_of_100() -> None:
    idle = [Measurement(**{**vars(one), "tasks": {}}) for one in ablation(3)]
    draw = np.random.default_rng(1)
    words = []
    for _ in range(200):
        measured = [
            Measurement(**{**vars(one), "tasks": {"knn": TaskResult(0.7 + 0.02 * draw.standard_normal())}}) for one in idle
        ]
        found = trace(ABLATION, measured).ablation_words
        assert found is not None
        words.append(found["knn"])
    assert sum("is worth most" in told for told in words) <= 14  # 5 %, of one side at most, and chance
    assert any(told.startswith("leaving out no operation costs anything beyond the scatter of 3 seeds") for told in words)


def test_a_single_seed_has_the_widest_interval_of_its_items_and_no_p() -> None:
    measured = [one for one in ablation(1, sd=0) if one.index < 2]
    curve = trace(ABLATION, measured)
    assert curve.ablation is not None and curve.ablation_words is not None
    (crop,) = curve.ablation["knn"]
    assert crop.nats is not None and crop.nats.ci is not None
    assert (crop.seeds, crop.p) == (1, None)
    assert crop.cost.ci == pytest.approx((0.08 - 0.06, 0.08 + 0.06))
    assert crop.nats.ci[1] - crop.nats.ci[0] == pytest.approx(2 * 1.96 * 0.04)
    assert curve.ablation_words["knn"] == "1 seed does not tell what an operation is worth; run at least 3"


def test_two_seeds_that_cost_alike_by_chance_prove_nothing() -> None:
    """Accuracies on 100 items, of recipes that are all the same."""
    draw, certain = np.random.default_rng(0), 0
    for _ in range(100):
        measured = [
            Measurement(**{**vars(one), "tasks": {"knn": TaskResult(draw.binomial(100, 0.8) / 100, (0.7, 0.9))}})
            for one in ablation(2)
        ]
        found = trace(ABLATION, measured).ablation
        assert found is not None
        certain += any(one.p is not None and one.p < 0.05 for one in found["knn"])
    assert certain == 0


def test_an_ablation_compares_seeds_that_both_recipes_have() -> None:
    measured = [one for one in ablation(4) if (one.index, one.seed) not in {(0, 0), (1, 1)}]
    found = trace(ABLATION, measured).ablation
    assert found is not None
    assert {one.operation: one.seeds for one in found["knn"]} == {"crop": 2, "jitter": 3, "blur": 3, "flip": 3, "grayscale": 3}
    started = trace(ABLATION, [one for one in measured if one.index])
    assert started.ablation == {"knn": ()}
    assert trace(ABLATION, []).ablation == {}


def test_only_a_sweep_that_ablates_has_an_ablation() -> None:
    assert digits().ablation is None and digits().ablation_words is None


# How sure that is -----------------------------------------------------------------------------------------------------


def test_so_many_more_seeds_as_advised_settle_four_of_five_unclear_us() -> None:
    axis = spec.Axis(path="views.sigma", values=SIGMAS)
    sd, settled, advised = 0.05, 0, []
    for chance in range(300):
        few = simulate(ACCURACIES, NATS, 2, sd, chance)
        verdict = trace(axis, few).verdicts["classification"]
        if verdict.shape == "unclear" and verdict.more_seeds is not None and "perhaps an inverted U" in verdict.words:
            assert f"run {verdict.more_seeds} more seed" in verdict.words
            advised.append(verdict.more_seeds)
            more = simulate(ACCURACIES, NATS, verdict.more_seeds + 2, sd, 1000 + chance)
            settled += trace(axis, more).verdicts["classification"].shape == "inverted_u"
    assert len(advised) >= 30
    assert settled / len(advised) > 0.8 - 3 * math.sqrt(0.8 * 0.2 / len(advised))


def test_no_seeds_are_advised_where_the_shape_is_clear_or_a_dip() -> None:
    assert digits(sd=0.01).verdicts["classification"].more_seeds is None
    dip = trace(spec.Axis(path="views.sigma", values=SIGMAS), simulate((0.85, 0.8, 0.75, 0.7, 0.75, 0.8, 0.85, 0.9), NATS))
    assert dip.verdicts["classification"].more_seeds is None


def test_seeds_are_counted_where_there_are_values_enough_and_too_few_trainings() -> None:
    axis = spec.Axis(path="views.sigma", values=SIGMAS[:5])
    verdict = trace(axis, simulate(ACCURACIES[:5], NATS[:5], seeds=1)).verdicts["classification"]
    assert (verdict.shape, verdict.trainings, verdict.more_seeds) == ("unclear", 5, 1)


def with_tasks(count: int, sd: float, chance: int) -> Curve:
    """Tasks of their own scatter, on which nothing depends but the first."""
    draw = np.random.default_rng(chance)
    measured = []
    for one in simulate(ACCURACIES, NATS, sd=sd, chance=chance):
        others = {f"other {number}": TaskResult(0.5 + 0.01 * draw.standard_normal()) for number in range(count - 1)}
        measured.append(Measurement(**{**vars(one), "tasks": one.tasks | others}))
    return trace(spec.Axis(path="views.sigma", values=SIGMAS), measured)


def test_p_of_an_inverted_u_is_the_larger_of_both_lines_and_holm_counts_the_tasks() -> None:
    alone = with_tasks(1, 0.02, 1).verdicts["classification"].two_lines
    assert alone.p_left is not None and alone.p_right is not None
    assert alone.p == alone.p_holm == max(alone.p_left, alone.p_right) and alone.tasks == 1
    among = with_tasks(5, 0.02, 1).verdicts
    lines = among["classification"].two_lines
    assert (lines.tasks, lines.p) == (5, alone.p)
    ranked = sorted(verdict.two_lines.p or 0 for verdict in among.values())
    assert lines.p_holm == pytest.approx(min(ranked[0] * 5, 1)) and lines.p == ranked[0]


def test_an_inverted_u_that_many_tasks_put_in_doubt_says_so() -> None:
    curves = [with_tasks(12, 0.035, chance).verdicts["classification"] for chance in range(40)]
    found = [verdict for verdict in curves if verdict.shape == "inverted_u"]
    doubtful = [verdict for verdict in found if (verdict.two_lines.p_holm or 0) >= 0.05]
    assert doubtful and len(doubtful) < len(found)
    assert all(("as one of 12 tasks judged" in verdict.words) == (verdict in doubtful) for verdict in found)


def test_held_out_items_that_all_values_share_widen_the_peaks_interval_as_far_as_they_differ_between_values() -> None:
    """Items that are as hard at every value cancel; those that only some values get right do not."""

    def width(differ: float) -> float:
        draw = np.random.default_rng(3)
        hard = draw.random(200)
        measured = []
        for one in simulate(ACCURACIES, NATS, sd=0.004, chance=2):
            (result,) = one.tasks.values()
            own = draw.random(200)
            merits = ((1 - differ) * hard + differ * own < np.quantile((1 - differ) * hard + differ * own, result.value)) * 1.0
            measured.append(Measurement(**{**vars(one), "tasks": {"classification": TaskResult(result.value, merits=merits)}}))
        spot = trace(spec.Axis(path="views.sigma", values=SIGMAS), measured).verdicts["classification"].sweet_spot
        assert spot is not None and spot.value_ci is not None
        return spot.value_ci[1] - spot.value_ci[0]

    assert width(1.0) > 1.3 * width(0.0)
