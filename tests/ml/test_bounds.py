"""The bounds on mutual information, with critics that are exact, wrong and extreme."""

import itertools
import math
from collections.abc import Callable, Iterator
from functools import lru_cache

import pytest
import torch
from torch import Generator, Tensor

from ml.mi import club, doe, dv, infonce, interpolated, js, leave_one_out, nwj, smile, tuba

Bound = Callable[[Tensor], Tensor]


def no_baseline(scores: Tensor) -> Tensor:
    return torch.zeros(len(scores), dtype=torch.float64)


BOUNDS: dict[str, Bound] = {  # of scores log p(y|x) / p(y)
    "infonce": infonce.contributions,
    "nwj": lambda scores: nwj.contributions(1 + scores),
    "tuba": lambda scores: tuba.contributions(scores, no_baseline(scores)),
    "interpolated": lambda scores: interpolated.contributions(scores, no_baseline(scores)),
    "interpolated, alpha 1": lambda scores: interpolated.contributions(scores, no_baseline(scores), alpha=1.0),
    "dv": dv.contributions,
    "js": js.contributions,
    "smile": smile.contributions,
    "leave_one_out": leave_one_out.contributions,  # which any function of y leaves as it is
    "club": club.contributions,
}
each_bound = pytest.mark.parametrize("bound", BOUNDS.values(), ids=list(BOUNDS))


# Gaussians ------------------------------------------------------------------------------------------------------------


@lru_cache(maxsize=2)
def gaussians(nats: float, k: int, batches: int, d: int = 10) -> list[tuple[Tensor, Tensor]]:
    """Batches of log p(y_j | x_i) and log p(y_j) of correlated Gaussians with I = -d/2 log(1 - rho^2)."""
    generator = Generator().manual_seed(0)
    variance = math.exp(-2 * nats / d)  # of y given x: 1 - rho^2
    rho, constant = math.sqrt(1 - variance), d / 2 * math.log(2 * math.pi)
    found = []
    for _ in range(batches):
        x, noise = torch.randn(2, k, d, generator=generator, dtype=torch.float64)
        y = rho * x + math.sqrt(variance) * noise
        squares = torch.cdist(rho * x, y).square()
        log_conditionals = -squares / (2 * variance) - d / 2 * math.log(variance) - constant
        found.append((log_conditionals, -y.square().sum(dim=1) / 2 - constant))
    return found


def readings(bound: Bound, nats: float, k: int, batches: int) -> Tensor:
    """Of each batch with the exact critic, less what the pairs' mean log ratio is above I by chance."""
    all_scores = [log_conditionals - log_marginal for log_conditionals, log_marginal in gaussians(nats, k, batches)]
    return torch.stack([bound(scores).mean() - scores.diagonal().mean() for scores in all_scores]) + nats


def three_standard_errors(values: Tensor) -> float:
    return 3 * values.std().item() / math.sqrt(len(values))


KNOWN = {  # (nats, K): batches here, and what InfoNCE, the leave-one-out bound and SMILE read, from and to
    (1, 512): (6, (0.994, 0.994), (1.006, 1.006), (1.00, 1.00)),
    (2, 64): (60, (1.824, 1.824), (2.158, 2.158), (2.02, 2.02)),
    (2, 512): (8, (1.957, 1.974), (2.02, 2.04), (2.01, 2.04)),
    (4, 512): (8, (3.74, 3.74), (4.24, 4.24), (4.19, 4.24)),
    (6, 2048): (2, (5.55, 5.55), (6.43, 6.43), (6.7, 6.7)),
    (10, 512): (8, (6.13, 6.13), (15.5, 15.5), (12.3, 12.3)),
}


@pytest.mark.parametrize(("nats", "k"), KNOWN)
def test_with_the_exact_critic_infonce_leave_one_out_and_smile_read_what_is_known(nats: int, k: int) -> None:
    batches, *known = KNOWN[nats, k]
    for name, (low, high) in zip(("infonce", "leave_one_out", "smile"), known, strict=True):
        read = readings(BOUNDS[name], nats, k, batches)
        tolerance = 0.01 * nats + three_standard_errors(read)  # what is known is rounded
        assert low - tolerance <= read.mean().item() <= high + tolerance, name


@pytest.mark.parametrize(("nats", "k"), [case for case in KNOWN if case != (6, 2048)])  # whose batches are too few for an error
def test_with_the_exact_critic_lower_bounds_are_below_the_truth_and_upper_bounds_above(nats: int, k: int) -> None:
    for name in ("infonce", "nwj", "tuba", "interpolated", "interpolated, alpha 1"):
        read = readings(BOUNDS[name], nats, k, KNOWN[nats, k][0])
        assert read.mean().item() <= nats + three_standard_errors(read), name
    for name in ("leave_one_out", "club"):
        read = readings(BOUNDS[name], nats, k, KNOWN[nats, k][0])
        assert read.mean().item() >= nats - three_standard_errors(read), name


def test_the_bracket_is_narrow_where_log_k_allows() -> None:
    upper, lower = (readings(bound, 2, 512, 8) for bound in (leave_one_out.contributions, infonce.contributions))
    assert 0 < (upper - lower).mean().item() <= 0.1


@pytest.mark.parametrize(("nats", "k", "measured", "batches"), [(2, 64, 0.25, 200), (2, 512, 0.09, 40), (4, 512, 0.13, 40)])
def test_the_variance_of_nwj_is_the_known_one(nats: int, k: int, measured: float, batches: int) -> None:
    """d rho^2 / B of the pairs' log ratios, (exp 2I - 1) / B (B - 1) of the strangers' ratios, whose second moment is exp 2I."""
    d = 10
    exact = math.sqrt(-d * math.expm1(-2 * nats / d) / k + math.expm1(2 * nats) / (k * (k - 1)))
    assert exact == pytest.approx(measured, rel=0.15)
    values = [nwj.contributions(1 + conditionals - marginal).mean() for conditionals, marginal in gaussians(nats, k, batches)]
    assert torch.stack(values).std().item() == pytest.approx(exact, rel=3 / math.sqrt(2 * batches))


def test_ten_nats_are_too_many_for_nwj_and_for_infonce_and_fewer_too_many_for_what_lies_between() -> None:
    saturated, between, unstable = (
        readings(BOUNDS[name], 10, 512, KNOWN[10, 512][0]) for name in ("infonce", "interpolated", "nwj")
    )
    assert unstable.std() > 2 * between.std()
    assert saturated.mean().item() < math.log(512) < 9 < between.mean().item() < 10


def test_the_difference_of_entropies_is_exact_with_exact_densities() -> None:
    contributions = torch.cat([doe.contributions(marginal, joint.diagonal()) for joint, marginal in gaussians(10, 512, 4)])
    assert contributions.mean().item() == pytest.approx(10, abs=three_standard_errors(contributions))


def test_club_with_the_true_conditional_reads_d_times_rho_squared_over_its_complement() -> None:
    read, exact = readings(club.contributions, 2, 512, 8), 10 * math.expm1(0.4)
    assert exact == pytest.approx(4.92, abs=0.005)
    assert read.mean().item() == pytest.approx(exact, abs=three_standard_errors(read))


@pytest.mark.parametrize("bound", list(BOUNDS.values())[1:], ids=list(BOUNDS)[1:])
def test_the_standard_error_is_the_spread_over_repetitions(bound: Bound) -> None:
    """Of a critic that is wrong in scale and takes a coin of each x for more than it is: rows vary as much as columns."""
    batches, generator = 250, Generator().manual_seed(0)
    values, variances = [], []
    for log_conditionals, log_marginal in gaussians(1, 128, batches):
        coins = torch.rand(128, 1, generator=generator) < 0.2
        contributions = bound(0.7 * (log_conditionals - log_marginal) + 3 * coins)
        values.append(contributions.mean())
        variances.append(contributions.var() / len(contributions))
    claimed, spread = torch.stack(variances).mean().sqrt().item(), torch.stack(values).std().item()
    assert claimed == pytest.approx(spread, rel=3 / math.sqrt(2 * batches))


# Fair and unfair coins, where every expectation is a finite sum ---------------------------------------------------------

JOINT = torch.tensor([[0.4, 0.1], [0.2, 0.3]], dtype=torch.float64)
PRODUCT = JOINT.sum(dim=1, keepdim=True) * JOINT.sum(dim=0)
LOG_RATIO = (JOINT / PRODUCT).log()
TRUTH = (JOINT * LOG_RATIO).sum().item()
B = 3
OUTCOMES = torch.tensor(list(itertools.product(range(4), repeat=B)))  # of B pairs of coins


def expectation(bound: Callable[..., Tensor], critic: Tensor, *of_y: Tensor) -> float:
    """Of the estimate from B pairs, over all of their outcomes."""
    x, y = OUTCOMES // 2, OUTCOMES % 2
    chances = JOINT[x, y].prod(dim=1)
    contributions = torch.vmap(bound)(critic[x[:, :, None], y[:, None, :]], *(function[y] for function in of_y))
    return (chances @ contributions.mean(dim=1)).item()


def critics(count: int) -> Iterator[tuple[Tensor, Tensor]]:
    """Scores of each x and y, and log baselines of each y, more and less wrong."""
    generator = Generator().manual_seed(0)
    for scale in torch.logspace(-2, 1, count).tolist():
        noise, baseline = torch.randn(2, 2, generator=generator), torch.randn(2, generator=generator)
        yield LOG_RATIO + scale * noise.double(), scale * baseline.double()


@pytest.mark.parametrize("alpha", [0.0, 0.01, 0.3, 0.9, 1.0])
def test_no_critic_and_no_baseline_reads_above_the_truth_interpolated(alpha: float) -> None:
    def bound(scores: Tensor, log_baseline: Tensor) -> Tensor:
        return interpolated.contributions(scores, log_baseline, alpha)

    assert expectation(bound, LOG_RATIO, torch.zeros(2)) <= TRUTH + 1e-12
    assert all(expectation(bound, critic, baseline) <= TRUTH + 1e-12 for critic, baseline in critics(25))


def test_no_critic_reads_above_the_truth_by_nwj_or_tuba_and_the_exact_one_reads_it() -> None:
    assert expectation(nwj.contributions, 1 + LOG_RATIO) == pytest.approx(TRUTH, abs=1e-12)
    of_y = torch.tensor([0.7, -1.9], dtype=torch.float64)
    assert expectation(tuba.contributions, LOG_RATIO + of_y, of_y) == pytest.approx(TRUTH, abs=1e-12)
    for critic, baseline in critics(25):
        assert expectation(nwj.contributions, 1 + critic) <= TRUTH
        assert expectation(tuba.contributions, critic, baseline) <= TRUTH


def test_the_true_conditional_reads_above_the_truth_by_leave_one_out_and_club() -> None:
    log_conditional = (JOINT / JOINT.sum(dim=1, keepdim=True)).log()
    assert expectation(leave_one_out.contributions, log_conditional) > TRUTH
    exact = ((JOINT - PRODUCT) * log_conditional).sum().item()
    assert expectation(club.contributions, log_conditional) == pytest.approx(exact, abs=1e-12)
    assert exact > TRUTH


def test_donsker_varadhan_in_minibatches_is_no_bound() -> None:
    assert expectation(dv.contributions, LOG_RATIO) > TRUTH + 0.01


def test_the_jensen_shannon_bound_is_highest_at_the_log_ratio() -> None:
    mixture = (JOINT + PRODUCT) / 2
    divergence = ((JOINT * (JOINT / mixture).log()).sum() + (PRODUCT * (PRODUCT / mixture).log()).sum()).item() / 2
    highest = expectation(js.contributions, LOG_RATIO)
    assert highest == pytest.approx(2 * divergence - math.log(4), abs=1e-12)
    assert all(expectation(js.contributions, critic) < highest for critic, _ in critics(25))


# Slow twins -----------------------------------------------------------------------------------------------------------


def strangers(function: Callable[[int, int], Tensor], items: int) -> Tensor:
    return sum(function(i, j) for i in range(items) for j in range(items) if i != j) / (items * (items - 1))


def slow_nwj(f: Tensor, log_a: Tensor) -> Tensor:
    n = len(f)
    return sum(f[i, i] for i in range(n)) / n - strangers(lambda i, j: f[i, j].exp(), n) / math.e


def slow_tuba(f: Tensor, log_a: Tensor) -> Tensor:
    n = len(f)
    pairs = sum(f[i, i] - log_a[i] for i in range(n)) / n
    return 1 + pairs - strangers(lambda i, j: f[i, j].exp() / log_a[j].exp(), n)


def slow_interpolated(f: Tensor, log_a: Tensor, alpha: float) -> Tensor:
    n = len(f)
    value = 1
    for j in range(n):
        next_one = (j + 1) % n
        m = sum(f[i, j].exp() for i in range(n) if i != next_one) / (n - 1)
        value = value + (f[j, j].exp() / (alpha * m + (1 - alpha) * log_a[j].exp())).log() / n
        m = sum(f[i, j].exp() for i in range(n) if i != j) / (n - 1)
        for i in range(n):
            if i != j:
                value = value - f[i, j].exp() / (alpha * m + (1 - alpha) * log_a[j].exp()) / (n * (n - 1))
    return value


def slow_dv(f: Tensor, log_a: Tensor) -> Tensor:
    n = len(f)
    return sum(f[i, i] for i in range(n)) / n - strangers(lambda i, j: f[i, j].exp(), n).log()


def slow_js(f: Tensor, log_a: Tensor) -> Tensor:
    n = len(f)
    return sum(f[i, i].sigmoid().log() for i in range(n)) / n + strangers(lambda i, j: (1 - f[i, j].sigmoid()).log(), n)


def slow_smile(f: Tensor, log_a: Tensor) -> Tensor:
    n = len(f)
    clipped = strangers(lambda i, j: f[i, j].exp().clamp(math.exp(-2), math.exp(2)), n)
    return sum(f[i, i] for i in range(n)) / n - clipped.log()


def slow_leave_one_out(f: Tensor, log_a: Tensor) -> Tensor:
    n = len(f)
    mixtures = [sum(f[j, i].exp() for j in range(n) if j != i) / (n - 1) for i in range(n)]
    return sum((f[i, i].exp() / mixtures[i]).log() for i in range(n)) / n


def slow_club(f: Tensor, log_a: Tensor) -> Tensor:
    n = len(f)
    return sum(f[i, i] for i in range(n)) / n - strangers(lambda i, j: f[i, j], n)


@pytest.mark.parametrize(
    ("fast", "slow"),
    [
        (lambda f, _: nwj.contributions(f), slow_nwj),
        (tuba.contributions, slow_tuba),
        *(
            (
                lambda f, log_a, alpha=alpha: interpolated.contributions(f, log_a, alpha),
                lambda f, log_a, alpha=alpha: slow_interpolated(f, log_a, alpha),
            )
            for alpha in (0.0, 0.01, 0.5, 1.0)
        ),
        (lambda f, _: dv.contributions(f), slow_dv),
        (lambda f, _: js.contributions(f), slow_js),
        (lambda f, _: smile.contributions(f, clip=2.0), slow_smile),
        (lambda f, _: leave_one_out.contributions(f), slow_leave_one_out),
        (lambda f, _: club.contributions(f), slow_club),
        (lambda f, log_a: doe.contributions(log_a, f.diagonal()), lambda f, log_a: (f.diagonal() - log_a).sum() / len(f)),
    ],
)
@pytest.mark.parametrize("items", [2, 7])
def test_value_and_gradient_agree_with_a_slow_twin(fast: Callable[..., Tensor], slow: Callable[..., Tensor], items: int) -> None:
    generator = Generator().manual_seed(items)
    scores = (2 * torch.randn(items, items, generator=generator, dtype=torch.float64)).requires_grad_()
    log_baseline = torch.randn(items, generator=generator, dtype=torch.float64).requires_grad_()
    contributions, twin = fast(scores, log_baseline), slow(scores, log_baseline)
    assert contributions.shape == (items,)
    torch.testing.assert_close(contributions.mean(), twin, rtol=1e-7, atol=1e-7)
    for leaf in (scores, log_baseline):
        found, expected = (
            torch.autograd.grad(of, leaf, retain_graph=True, allow_unused=True)[0] for of in (contributions.mean(), twin)
        )
        zeros = torch.zeros_like(leaf)
        torch.testing.assert_close(
            zeros if found is None else found, zeros if expected is None else expected, rtol=1e-7, atol=1e-7
        )


# What holds of any scores ---------------------------------------------------------------------------------------------


def some_scores(items: int = 16) -> Tensor:
    return 2 * torch.randn(items, items, generator=Generator().manual_seed(1), dtype=torch.float64)


def test_alpha_leads_from_tuba_to_infonce() -> None:
    scores, log_baseline = some_scores(), some_scores()[0]
    tubas = tuba.contributions(scores, log_baseline)
    torch.testing.assert_close(interpolated.contributions(scores, log_baseline, alpha=0.0), tubas)
    torch.testing.assert_close(interpolated.contributions(scores, log_baseline, alpha=1e-9), tubas, rtol=1e-5, atol=1e-5)
    without_next = scores.masked_fill(torch.eye(16, dtype=torch.bool).roll(1, dims=0), -math.inf)
    one_direction = scores.diagonal() - without_next.logsumexp(dim=0) + math.log(15)
    of_any_baseline = interpolated.contributions(scores, log_baseline, alpha=1.0)
    torch.testing.assert_close(of_any_baseline.mean(), one_direction.mean())


@pytest.mark.parametrize("alpha", [1e-4, 0.01, 0.5, 1.0])
def test_alpha_sets_the_ceiling(alpha: float) -> None:
    K = 15
    never_mistaken = 1e3 * (2 * torch.eye(K + 1, dtype=torch.float64) - 1)
    ceiling = (0 if alpha == 1 else 1) + math.log(K) - math.log(alpha)
    value = interpolated.contributions(never_mistaken, torch.zeros(K + 1), alpha).mean().item()
    assert value == pytest.approx(ceiling, abs=1e-9)


def test_tuba_with_the_baseline_e_is_nwj() -> None:
    torch.testing.assert_close(tuba.contributions(some_scores(), torch.ones(16)), nwj.contributions(some_scores()))


@pytest.mark.parametrize(
    "bound", [dv.contributions, leave_one_out.contributions, club.contributions, BOUNDS["interpolated, alpha 1"]]
)
def test_a_constant_added_to_all_scores_changes_nothing(bound: Bound) -> None:
    torch.testing.assert_close(bound(some_scores() + 500), bound(some_scores()), rtol=1e-9, atol=1e-9)


def test_smile_within_its_clip_is_donsker_varadhan() -> None:
    scores = some_scores()
    torch.testing.assert_close(smile.contributions(scores, clip=100.0), dv.contributions(scores))
    assert smile.contributions(scores, clip=1.0).mean() > dv.contributions(scores).mean()


@each_bound
@pytest.mark.parametrize(
    "scores",
    [
        torch.full((16, 16), 1e3),
        torch.full((16, 16), -1e3),
        1e3 * (2 * torch.eye(16) - 1),
        1e3 * (1 - 2 * torch.eye(16)),
        1e3 * some_scores().sign().float(),
        some_scores().float().tanh() / 0.01,  # cosines at a low temperature
    ],
    ids=["high", "low", "never mistaken", "always mistaken", "either", "cold"],
)
def test_extreme_scores_give_finite_readings_and_gradients(bound: Bound, scores: Tensor) -> None:
    scores = scores.clone().requires_grad_()
    contributions = bound(scores)
    assert contributions.isfinite().all()
    contributions.mean().backward()
    assert scores.grad is not None and scores.grad.isfinite().all()


# MINE -----------------------------------------------------------------------------------------------------------------


def test_the_running_mean_takes_the_bias_from_the_gradient_of_donsker_varadhan() -> None:
    """f = theta (x + y) / sqrt 2 of independent Gaussians: E[f] = 0 and log E[exp f] = theta^2 / 2, so the gradient is -theta."""
    theta, generator = 1.0, Generator().manual_seed(0)
    exact = torch.tensor(theta**2 / 2, dtype=torch.float64)  # log E[exp f]
    corrected, plain, running = [], [], exact
    for _ in range(400):
        x, y = torch.randn(2, 8, generator=generator, dtype=torch.float64)
        parameter = torch.tensor(theta, dtype=torch.float64, requires_grad=True)
        scores = parameter * (x[:, None] + y[None, :]) / math.sqrt(2)
        objective, running = dv.surrogate(scores, running, decay=0.9999)
        corrected.append(torch.autograd.grad(objective, parameter, retain_graph=True)[0])
        plain.append(torch.autograd.grad(dv.contributions(scores).mean(), parameter)[0])
    (mean, error), (biased, its_error) = (
        (torch.stack(found).mean().item(), torch.stack(found).std().item() / math.sqrt(400)) for found in (corrected, plain)
    )
    assert mean == pytest.approx(-theta, abs=3 * error)
    assert abs(biased + theta) > 5 * its_error
    assert running.item() == pytest.approx(exact.item(), abs=0.1)


def test_the_running_mean_starts_at_the_first_batch_and_then_forgets_exponentially() -> None:
    first, second = (scale * torch.ones(4, 4, dtype=torch.float64, requires_grad=True) for scale in (1.0, 3.0))
    objective, running = dv.surrogate(first, torch.tensor(-math.inf, dtype=torch.float64), decay=0.9)
    assert running.item() == pytest.approx(1.0)
    plain = torch.autograd.grad(dv.contributions(first).mean(), first)[0]
    torch.testing.assert_close(torch.autograd.grad(objective, first)[0], plain)
    _, running = dv.surrogate(second, running, decay=0.9)
    assert running.exp().item() == pytest.approx(0.9 * math.e + 0.1 * math.exp(3))
    assert not running.requires_grad


@pytest.mark.parametrize("scores", [1e3, -1e3])
def test_the_surrogate_stays_finite_where_scores_leap(scores: float) -> None:
    objective, running = dv.surrogate(torch.full((4, 4), scores), torch.tensor(0.0, dtype=torch.float64))
    assert objective.isfinite() and running.isfinite()
