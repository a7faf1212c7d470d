"""Critics and densities that are trained, held out and read: what an estimate says of two arrays, and when it says not to."""

import math
from collections.abc import Sequence

import pytest
import torch
from scipy.stats import norm
from torch import Generator, Tensor

from ml import spec
from ml.mi import Estimate, known, training
from ml.mi.arrays import ArraysInvalid, prepare
from ml.mi.cca import canonical
from ml.mi.conditional import Residuals, borne_out
from ml.mi.estimate import Estimates, estimate
from ml.mi.known import Known

DEFAULT = spec.MiEstimate().estimators
ALL = tuple(spec.ESTIMATORS)


def run(x: Tensor, y: Tensor, estimators: Sequence[str] = DEFAULT, repeats: int = 2, **asked: object) -> Estimates:
    steps = estimate(spec.MiEstimate.model_validate({"estimators": estimators, "repeats": repeats, **asked}), x, y)
    while True:
        try:
            next(steps)
        except StopIteration as end:
            found: Estimates = end.value
            return found


def sample(of: Known, n: int, seed: int = 0) -> tuple[Tensor, Tensor]:
    return of.sample(n, Generator().manual_seed(seed))


def gaussians(nats: float, d: int = 10) -> Known:
    return known.correlated(d, known.correlation(d, nats))


# The acceptance tests of the science ------------------------------------------------------------------------------------


@pytest.mark.parametrize("critic", ["separable", "bilinear"])
def test_a_trained_critic_reads_two_nats(critic: str) -> None:
    """10-dimensional Gaussians that share 2 nats: the optimal critic reads 1.957 to 1.974 at K = 512, and 1.824 at K = 64."""
    pairs = sample(gaussians(2.0), 5000, seed=1)
    found = {k: run(*pairs, ["infonce"], critic=critic, k=k).mi["infonce"] for k in (512, 64)}
    assert 1.88 <= found[512].value <= 2.02
    assert found[64].value <= 1.86
    assert (found[512].log_k, found[64].log_k) == (math.log(512), math.log(64))


@pytest.mark.parametrize(
    "name", ["infonce", "nwj", "tuba", "interpolated", "js", "dv", "smile", "leave_one_out", "club", "doe", "cca"]
)
def test_shuffled_pairs_read_nothing(name: str) -> None:
    x, y = sample(gaussians(2.0), 2000)
    found = run(x, y.roll(1, dims=0), [name]).mi[name]
    assert abs(found.value) <= 0.02 + 3 * found.stderr


def test_ten_nats_are_flagged_as_saturated_and_stay_below_log_k() -> None:
    found = run(*sample(gaussians(10.0), 2000), ["infonce"], k=512)
    assert found.mi["infonce"].value <= math.log(512)
    assert found.mi["infonce"].saturated
    assert "at least" in found.verdict and "ceiling" in found.verdict


def test_an_invertible_map_of_each_view_changes_little() -> None:
    """Invariance under homeomorphisms: Kraskov et al. 2004, section II."""
    x, y = sample(known.correlated(2, 0.8), 2000)
    turn = torch.tensor([[0.8, -0.6], [0.6, 0.8]], dtype=x.dtype)
    mapped = known.WIGGLY.forward(x @ turn), known.HALF_CUBE.forward(y) @ turn
    plain, bent = (run(*pairs, ["infonce", "ksg"]).mi for pairs in ((x, y), mapped))
    for name in ("infonce", "ksg"):
        assert bent[name].value == pytest.approx(plain[name].value, rel=0.05)


def test_independent_factors_add_up() -> None:
    one, other = known.shared_class(2), known.mapped(known.correlated(1, 0.75), x=known.NORMAL_CDF, y=known.WIGGLY)
    parts, both = (run(*sample(of, 2000), ["infonce"]).mi["infonce"] for of in (other, known.together(one, other)))
    assert one.information == math.log(2)
    assert both.value == pytest.approx(math.log(2) + parts.value, abs=0.05 + 3 * math.hypot(both.stderr, parts.stderr))


# What is said can be believed -------------------------------------------------------------------------------------------

EASY = (
    known.correlated(25, 0.0),
    gaussians(4.0, 5),
    known.sparse(3, 10, (0.8, 0.5)),
    known.mapped(known.correlated(3, 0.7), x=known.CUBE, y=known.WIGGLY),
    known.flipped_bit(0.18),
)
HARD = (
    known.student(5, 5, dof=3),
    known.mapped(known.correlated(2, 0.8), x=known.spiral(1.0), y=known.spiral(1.0)),
    known.mapped(known.sparse(12, 12, (0.8, 0.8)), x=known.spiral(0.1), y=known.spiral(0.1)),
)


def lower_bounds(found: Estimates) -> dict[str, Estimate]:
    return {name: its for name, its in found.mi.items() if its.kind == "lower"}


def test_the_best_lower_bound_is_near_the_truth_and_none_is_above_it() -> None:
    """Within .08 nats or 8 %, over all comparisons at once: Bonferroni at the 1 % level, with the held-out standard errors."""
    found = {of.name: run(*sample(of, 3000), ("infonce", "nwj")) for of in EASY}
    truth = {of.name: of.information for of in EASY}
    comparisons = [(truth[name], its) for name in found for its in lower_bounds(found[name]).values()]
    allowed = norm.isf(0.01 / len(comparisons))
    assert [pair for pair in comparisons if pair[1].value > pair[0] + allowed * pair[1].stderr + 1e-9] == []
    for name, estimates in found.items():
        best = max(its.value for its in lower_bounds(estimates).values())
        assert best == pytest.approx(truth[name], abs=max(0.08, 0.08 * truth[name])), name


@pytest.mark.parametrize("of", HARD, ids=lambda of: of.name)
def test_what_is_too_hard_is_flagged_and_not_called_an_upper_bound(of: Known) -> None:
    found = run(*sample(of, 2500))
    best = found.mi["infonce"]
    assert best.value < of.information - max(0.08, 0.08 * of.information)  # hard indeed
    assert best.caution is not None and ("there may be more" in best.caution or "low: " in best.caution)
    assert "trust it" not in found.verdict
    assert found.bracket is None


@pytest.mark.parametrize("nats", [1.0, 2.0])
def test_the_bracket_of_gaussians_holds_the_truth(nats: float) -> None:
    found = run(*sample(gaussians(nats), 4000), repeats=3)
    assert found.bracket is not None
    assert (found.bracket.lower_by, found.bracket.upper_by) == ("infonce", "leave_one_out")
    assert 0 <= found.bracket.upper - found.bracket.lower <= 0.1
    slack = 3 * found.mi["infonce"].stderr
    assert found.bracket.lower - slack <= nats <= found.bracket.upper + slack
    assert found.verdict.startswith(f"between {found.bracket.lower:.2f} and") and found.verdict.endswith("trust it")


def test_a_learned_density_that_is_wrong_bounds_nothing() -> None:
    """Given x, y is uniform, and no Gaussian."""
    found = run(*sample(known.uniform_noise(0.75), 3000), ["infonce", "leave_one_out", "club", "doe"])
    assert found.bracket is None
    assert [found.mi[name].kind for name in ("leave_one_out", "club")] == ["neither", "neither"]
    assert "residuals" in str(found.mi["leave_one_out"].caution)
    assert "to be minimised" in str(found.mi["club"].caution)


def normal(*shape: int, seed: int) -> Tensor:
    return torch.randn(*shape, generator=Generator().manual_seed(seed), dtype=torch.float64)


def test_residuals_of_the_true_density_bear_it_out() -> None:
    """At 1 %: that 4 or more of 40 are refused has a chance of 1 in 1400, by the binomial."""
    refused = sum(not borne_out(normal(1000, 5, seed=seed), normal(1000, 5, seed=seed + 100)) for seed in range(40))
    assert refused <= 3


@pytest.mark.parametrize("speed", [4.0, 6.0])
def test_what_was_not_learned_shows_in_residuals_nearby(speed: float) -> None:
    """sin(s u) is uncorrelated with u^2, and nearly so with u: E[u sin(s u)] = s exp(-s^2 / 2), .0013 at 4."""
    u, noise = normal(2000, 2, seed=0), normal(2000, 1, seed=1)
    residuals = 0.4 * math.sqrt(2) * (speed * u[:, :1]).sin() + math.sqrt(1 - 0.4**2) * noise
    assert borne_out(noise, u)
    assert not borne_out(residuals, u)


def test_residuals_are_turned_to_common_coordinates() -> None:
    """Canonical coordinates have no signs: what one part errs by in a direction another errs by in its own."""
    x, y = sample(known.correlated(3, 0.6), 3000)
    common = canonical(x, y)
    u, v = common.of_x(x), common.of_y(y)
    wrong = 0.15 * u + math.sqrt(1 - 0.15**2) * normal(3000, 3, seed=2)
    verdicts = []
    for errors in (wrong, normal(3000, 3, seed=2)):
        residuals = Residuals(common)
        for sign, part in zip((1, -1, 1), torch.arange(3000).chunk(3), strict=True):
            residuals.add(sign * errors[part], sign * v[part], x[part], y[part], part)
        verdicts.append(residuals.bear_out(torch.arange(3000)))
    assert verdicts == [False, True]


@pytest.mark.parametrize("of", [known.shared_class(6), known.mapped(known.correlated(2, 0.8), x=known.spiral(1.0))])
def test_from_few_pairs_no_bracket_is_wrong(of: Known) -> None:
    found = run(*sample(of, 1000, seed=1), repeats=3)
    assert found.mi["infonce"].value < of.information - 0.1
    assert found.bracket is None and "trust it" not in found.verdict


def test_linear_correlation_is_blind_to_a_wave_and_says_so() -> None:
    wave = known.wave(2, 0.5)
    found = run(*sample(wave, 2000), ["cca", "ksg"]).mi
    assert found["cca"].value < 0.1 and "blind" in str(found["cca"].caution)
    assert found["ksg"].value == pytest.approx(wave.information, abs=0.08)


def test_the_verdict_of_nothing_and_of_no_bound() -> None:
    x, y = sample(known.correlated(2, 0.0), 500)
    assert run(x, y, ["infonce"]).verdict.startswith("no information found")
    assert "bounds nothing" in run(x, y, ["ksg"]).verdict


# Arrays of all sorts ----------------------------------------------------------------------------------------------------


@pytest.fixture
def few_steps(monkeypatch: pytest.MonkeyPatch) -> None:
    """Where little is to be learned beyond what critics and densities begin with."""
    monkeypatch.setattr(training, "STEPS", 100)


def finite(found: Estimates) -> bool:
    return all(math.isfinite(number) for its in found.mi.values() for number in (its.value, its.stderr, *its.repeats))


@pytest.mark.usefixtures("few_steps")
@pytest.mark.parametrize("name", ALL)
def test_every_estimator_reads_a_small_sample(name: str) -> None:
    of = known.correlated(1, 0.9)
    found = run(*sample(of, 400), [name]).mi[name]
    if name == "club":  # loose: d rho^2 / (1 - rho^2)
        assert found.value == pytest.approx(0.81 / 0.19, rel=0.3)
    else:
        assert found.value == pytest.approx(of.information, abs=0.1 + 3 * found.stderr)
    assert found.stderr > 0


@pytest.mark.usefixtures("few_steps")
@pytest.mark.parametrize("critic", ["separable", "bilinear", "concatenated"])
def test_every_critic_reads_a_small_sample(critic: str) -> None:
    of = known.correlated(1, 0.9)
    found = run(*sample(of, 300), ["infonce"], critic=critic).mi["infonce"]
    assert found.value == pytest.approx(of.information, abs=0.1 + 3 * found.stderr)


def test_constants_share_exactly_nothing() -> None:
    found = run(torch.ones(100, 3), torch.randn(100, 2, generator=Generator().manual_seed(0)), ALL)
    assert {its.value for its in found.mi.values()} == {0.0}
    assert found.verdict == "exactly 0 nats: x is constant"
    assert found.dropped == {"x": [0, 1, 2], "y": []}


@pytest.mark.usefixtures("few_steps")
def test_constant_columns_are_left_out() -> None:
    x, y = sample(known.correlated(2, 0.8), 500)
    plain = run(x, y)
    found = run(torch.cat((torch.full((500, 1), 7.0), x), dim=1), y)
    assert found.mi == plain.mi
    assert (found.dropped, found.dimensions) == ({"x": [0], "y": []}, (2, 2))


def test_copies_of_pairs_do_not_pass_for_information() -> None:
    """Each pair of independent Gaussians five times over: a critic that sees some of the copies would know the others."""
    x, y = (side.repeat(5, 1) for side in sample(known.correlated(3, 0.0), 300))
    for name, found in run(x, y, ("infonce", "leave_one_out", "doe")).mi.items():
        assert abs(found.value) <= 0.02 + 3 * found.stderr, name


def test_a_few_copies_take_no_trust_away() -> None:
    """One in five pairs comes twice: no neighbour of another, and no news of it."""
    x, y = (torch.cat((side, side[:200])) for side in sample(known.correlated(1, 0.6), 1000))
    found = run(x, y, (*DEFAULT, "ksg"), repeats=3)
    assert found.mi["ksg"].value == pytest.approx(0.223, abs=3 * found.mi["ksg"].stderr)
    assert found.bracket is not None and found.verdict.endswith("trust it")


@pytest.mark.parametrize("rho", [0.0, 0.6])
def test_rounded_values_are_no_witnesses_to_more_and_take_no_trust_away(rho: float) -> None:
    of = known.correlated(1, rho)
    x, y = (side.mul(10).round() for side in sample(of, 2000))
    found = run(x, y, (*DEFAULT, "ksg"))
    assert "values repeat" in str(found.mi["ksg"].caution)
    assert found.mi["infonce"].caution is None
    assert found.mi["infonce"].value == pytest.approx(of.information, abs=0.02 + 3 * found.mi["infonce"].stderr)
    assert prepare(x, y, Generator()).unlike().tolist() == list(range(2000))


def test_copies_are_told_from_values_that_meet_by_chance() -> None:
    x, y = (torch.cat((side, side[:200])) for side in sample(known.correlated(1, 0.6), 1000))
    assert prepare(x, y, Generator()).unlike().tolist() == list(range(1000))
    photographs = torch.arange(1200) // 8
    assert prepare(x, y, Generator(), photographs).unlike().tolist() == list(range(0, 1200, 8))


@pytest.mark.usefixtures("few_steps")
def test_integers_and_booleans_are_numbers() -> None:
    bit = known.flipped_bit(0.1)
    x, y = sample(bit, 1000)
    as_booleans, as_integers = run(x.bool(), y.bool(), ["infonce"]), run((3 * x).to(torch.int16), y.long(), ["infonce"])
    assert as_booleans.mi == as_integers.mi
    assert as_integers.mi["infonce"].value == pytest.approx(bit.information, abs=0.08)


@pytest.mark.usefixtures("few_steps")
@pytest.mark.parametrize("scale", [1e-30, 1e30])
def test_units_do_not_matter(scale: float) -> None:
    x, y = sample(known.correlated(1, 0.8), 500)
    assert run(x * scale, y, ["infonce", "cca"]).mi == run(x, y, ["infonce", "cca"]).mi


@pytest.mark.usefixtures("few_steps")
def test_thousands_of_columns_are_reduced_and_said_to_be() -> None:
    x, y = sample(known.correlated(1, 0.9), 300)
    generator = Generator().manual_seed(1)
    wide = [side @ torch.randn(1, 4096, dtype=side.dtype, generator=generator) for side in (x, y)]
    wide = [side + 0.1 * torch.randn(300, 4096, dtype=side.dtype, generator=generator) for side in wide]
    found = run(*wide, ("infonce", "leave_one_out", "cca"))
    assert finite(found) and found.reduced and found.dimensions == (15, 15)
    assert found.bracket is None
    assert found.mi["leave_one_out"].kind == "neither"
    assert found.mi["infonce"].caution is not None


@pytest.mark.usefixtures("few_steps")
def test_where_one_decides_the_other_all_is_finite_and_saturated() -> None:
    x, _ = sample(known.correlated(2, 0.0), 400)
    found = run(x, 2 * x + 1, ("infonce", "nwj", "dv", "leave_one_out", "doe", "ksg", "cca"))
    assert finite(found)
    assert found.mi["infonce"].saturated and found.mi["infonce"].value <= found.mi["infonce"].log_k


X = torch.randn(100, 2, generator=Generator().manual_seed(0))


@pytest.mark.parametrize(
    ("x", "y", "words"),
    [
        (X[:10], X[:10], "x has 10 rows; an estimate needs at least 64 pairs"),
        (X, X[:90], "x has 100 rows and y has 90"),
        (X, torch.where(X[7, 1] == X, math.nan, X), "y is nan in row 7, column 1"),
        (X, torch.where(X[7, 1] == X, -math.inf, X), "y is -inf in row 7, column 1"),
        (X[:, :, None], X, "x has the shape"),
        (X, X[:, :0], "y has the shape"),
        (torch.ones(64, 8193), X[:64], "x has 8193 columns; at most 8192"),
    ],
)
def test_what_cannot_be_measured_is_refused_with_what_would_be(x: Tensor, y: Tensor, words: str) -> None:
    with pytest.raises(ArraysInvalid, match=words):
        run(x, y)


def test_more_candidates_than_are_held_out_are_refused() -> None:
    with pytest.raises(ArraysInvalid, match="k is 64, but 50 pairs are held out at a time; 2 to 50 are accepted"):
        run(X, X, k=64)


@pytest.mark.usefixtures("few_steps")
def test_the_seed_decides_every_chance() -> None:
    pairs = sample(known.correlated(2, 0.8), 300)
    one, again, other = (run(*pairs, ["infonce", "doe", "ksg"], seed=seed) for seed in (3, 3, 4))
    assert one == again != other


def test_normal_scores_share_the_mean_of_tied_ranks_and_do_not_see_a_rising_map() -> None:
    x = torch.tensor([3.0, 1.0, 3.0, 2.0]).repeat(16)[:, None]
    of_x = prepare(x, x.exp(), Generator().manual_seed(0))
    assert torch.equal(of_x.x, of_x.y)
    ranks = torch.where(x == 1, 8.5, torch.where(x == 2, 24.5, 48.5)) / 65  # 16, 16 and 32 of 64
    assert norm.cdf(of_x.x) == pytest.approx(ranks.numpy())


def test_k_beyond_what_the_concatenated_critic_can_afford_is_refused() -> None:
    x, y = sample(known.correlated(1, 0.5), 2000)
    with pytest.raises(ArraysInvalid, match="2 to 512 are accepted"):
        run(x, y, critic="concatenated", k=600)


def test_one_dimensional_arrays_are_one_column() -> None:
    x, y = sample(known.correlated(1, 0.9), 300)
    assert run(x[:, 0], y[:, 0], ["cca", "ksg"]).mi == run(x, y, ["cca", "ksg"]).mi


@pytest.mark.parametrize(("equal", "dimensions", "repeats"), [(58, 2, 10), (900, 30, 3)])
def test_pairs_that_are_nearly_all_copies_of_one_are_refused(equal: int, dimensions: int, repeats: int) -> None:
    """The copies are held out together, and what is left is too little."""
    n = 64 if equal == 58 else 1000
    x, y = (torch.randn(n, dimensions, generator=Generator().manual_seed(seed)) for seed in (0, 1))
    x[:equal], y[:equal] = 0, 0
    with pytest.raises(ArraysInvalid, match="copies"):
        run(x, y, repeats=repeats)


def test_groups_are_held_out_together_and_err_together() -> None:
    """Pairs of one group are alike but for a little noise: as copies are, they must not pass for information."""
    x, y = (side.repeat(6, 1) for side in sample(known.correlated(2, 0.0), 200))
    noise = Generator().manual_seed(1)
    x, y = (side + 1e-3 * torch.randn(side.shape, generator=noise, dtype=side.dtype) for side in (x, y))
    groups = torch.arange(200).repeat(6)
    asked = spec.MiEstimate(estimators=("infonce", "doe"), repeats=2)
    steps = estimate(asked, x, y, groups)
    while True:
        try:
            next(steps)
        except StopIteration as end:
            found = end.value.mi
            break
    for name, its in found.items():
        assert abs(its.value) <= 0.02 + 3 * its.stderr, name


@pytest.mark.usefixtures("few_steps")
def test_an_upper_bound_alone_is_called_one() -> None:
    assert run(*sample(gaussians(1.0, 3), 1500), ["leave_one_out"]).verdict.startswith("at most ")


@pytest.mark.usefixtures("few_steps")
@pytest.mark.parametrize("repeats", [2, 10])
def test_the_fewest_pairs_that_are_accepted_are_measured(repeats: int) -> None:
    found = run(*sample(known.correlated(1, 0.9), 64), ("infonce", "leave_one_out", "doe", "ksg", "cca"), repeats=repeats)
    assert finite(found)
    assert found.mi["leave_one_out"].kind == "neither"  # a handful of residuals bears nothing out
