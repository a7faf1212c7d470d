"""What holds for every method, and what the papers say of each: first losses, gradients, banks and queues."""

import copy
import math
from collections.abc import Iterator
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Generator, Tensor

from ml import encoders, methods, spec
from ml.encoders import Encoder, PixelEncoder, Standardise
from ml.methods import Method, Setting, jigsaw
from ml.methods.bank import Bank, first_of, nce, softmax_nce
from ml.methods.cmc import CMC
from ml.methods.cpc import CPC, prediction_loss, unit
from ml.methods.inst_dis import InstDis
from ml.methods.moco import MoCo, Queue
from ml.methods.pirl import PIRL
from ml.methods.simclr import SimCLR
from ml.methods.supervised import Supervised
from ml.optimiser import build as build_optimiser

AUGMENT = {"kind": "augment"}
SPLIT = {"kind": "color_split", "space": "ydbdr"}
GRID = {"kind": "patch_grid", "size": 12, "stride": 6}
ALL: dict[str, tuple[dict[str, Any], dict[str, Any]]] = {
    "simclr": ({"kind": "simclr"}, AUGMENT),
    "simclr of two kinds": ({"kind": "simclr"}, SPLIT),
    "moco v1": ({"kind": "moco", "version": "v1", "queue": 16}, AUGMENT),
    "moco v2": ({"kind": "moco", "version": "v2", "queue": 13}, AUGMENT),
    "moco of two kinds": ({"kind": "moco", "queue": 16}, SPLIT),
    "infomin": ({"kind": "infomin", "queue": 16}, AUGMENT),
    "inst_dis": ({"kind": "inst_dis", "negatives": 7}, AUGMENT),
    "inst_dis softmax": ({"kind": "inst_dis", "objective": "softmax"}, AUGMENT),
    "inst_dis of two kinds": ({"kind": "inst_dis", "negatives": 7}, SPLIT),
    "cmc": ({"kind": "cmc", "negatives": 7}, SPLIT),
    "cmc in the batch": ({"kind": "cmc", "strangers": "batch"}, SPLIT),
    "pirl": ({"kind": "pirl", "negatives": 7}, AUGMENT),
    "cpc": ({"kind": "cpc", "projection": 16}, GRID),
    "supervised": ({"kind": "supervised"}, AUGMENT),
}
ITEMS = 40
FACTS = spec.DatasetFacts(name="made", train=ITEMS, test=20, channels=3, image_size=24, classes=4)


class RandomFeatures(Encoder):
    """Another random direction for every input: what theory says of a loss is said of these."""

    features = 128

    def forward(self, pixels: Tensor) -> Tensor:
        return torch.randn(len(pixels), self.features)


def asked(name: str, facts: spec.DatasetFacts = FACTS, batch_size: int = 8, **parameters: Any) -> spec.ExperimentSpec:
    method, recipe = ALL[name]
    document = {
        "dataset": {"name": "made"},
        "views": recipe,
        "method": method | parameters,
        "encoder": {"kind": "small_conv", "width": 4},
        "pretrain": {"batch_size": batch_size, "steps": 3},
    }
    return spec.resolve(spec.ExperimentSpec.model_validate(document), lambda *_: facts)


def made(name: str, **parameters: Any) -> tuple[spec.ExperimentSpec, Method]:
    """A small one, its weights from seed 0."""
    experiment = asked(name, **parameters)
    torch.manual_seed(0)
    channels = (1, 2) if experiment.views.two_kinds else (3,)
    pixel = [
        PixelEncoder(
            encoders.build(experiment.encoder, count, experiment.method.norm), Standardise(torch.zeros(count), torch.ones(count))
        )
        for count in channels
    ]
    setting = Setting(pixel, [16] * len(pixel), ITEMS, experiment.views, {"label": torch.arange(ITEMS) % 4})
    return experiment, methods.build(experiment.method, setting)


def photographs(B: int = 8, side: int = 24, seed: int = 0) -> Tensor:
    return torch.rand(B, 3, side, side, generator=Generator().manual_seed(seed))


def drawn(experiment: spec.ExperimentSpec, method: Method, seed: int = 0) -> tuple[Tensor, ...]:
    return method.draw(experiment.views, photographs(), Generator().manual_seed(seed))


def steps(experiment: spec.ExperimentSpec, method: Method, count: int) -> Iterator[tuple[Tensor, Tensor]]:
    """Train; the items and the loss of each step, before banks and queues take them in."""
    optimiser = build_optimiser(method, experiment.pretrain)
    chances = Generator().manual_seed(1)
    for step in range(count):
        items = torch.randperm(ITEMS, generator=chances)[:8]
        loss = method(method.draw(experiment.views, photographs(seed=step), chances), items, chances)
        optimiser.zero_grad()
        loss.backward()
        for group in optimiser.param_groups:
            group["lr"] = 0.01
        optimiser.step()
        yield items, loss.detach()
        method.update()


# The first loss -------------------------------------------------------------------------------------------------------

B, N, M, K = 128, 4000, 1023, 2047
AT_FIRST = {
    "simclr": ({}, math.log(2 * B - 1)),
    "simclr of two kinds": ({}, math.log(B)),
    "moco v1": ({"queue": K}, math.log(K + 1)),
    "moco of two kinds": ({"queue": K, "head": "linear"}, math.log(K + 1)),
    "infomin": ({"queue": K, "head": "linear"}, math.log(K + 1)),
    "inst_dis": ({"negatives": M}, math.log(M + 1) + 1),
    "inst_dis softmax": ({}, math.log(N)),
    "inst_dis of two kinds": ({"negatives": M}, math.log(M + 1) + 1),
    "cmc": ({"negatives": M}, math.log(M + 1)),
    "cmc in the batch": ({}, math.log(B)),
    "pirl": ({"negatives": M}, math.log(M + 1) + 1),
    "cpc": ({"head": "linear", "projection": 128}, math.log(3 * B)),  # three columns of patches
}


@pytest.mark.parametrize("name", AT_FIRST)
def test_random_unit_features_at_temperature_one_lose_what_theory_says(name: str) -> None:
    parameters, expected = AT_FIRST[name]
    more = {"head": "linear", "projection": 128} if name.startswith("simclr") else {}
    facts = FACTS.model_copy(update={"train": N})
    experiment = asked(name, facts, batch_size=B, temperature=1.0, **more, **parameters)
    torch.manual_seed(0)
    networks: list[Encoder] = [RandomFeatures() for _ in range(2 if experiment.views.two_kinds else 1)]
    method = methods.build(experiment.method, Setting(networks, [128] * len(networks), N, experiment.views))
    chances = Generator().manual_seed(0)
    shown = method.draw(experiment.views, photographs(B), chances)
    assert method.loss(shown, torch.arange(B), chances).item() == pytest.approx(expected, rel=0.02)


# Gradients against loops in double precision ---------------------------------------------------------------------------


def naive(method: Any, tau: float, shown: tuple[Tensor, ...], items: Tensor, chances: Generator) -> Tensor:
    """The papers' equations, item by item, of a method in double precision."""
    equations: dict[type[Method], Any] = {
        InstDis: lambda: [_naive_inst_dis(method, way, shown, items, chances, tau) for way in range(len(method.against))],
        CMC: lambda: _naive_cmc(method, shown, items, chances, tau),
        PIRL: lambda: _naive_pirl(method, shown, items, chances, tau),
        MoCo: lambda: _naive_moco(method, shown, items, tau),
        CPC: lambda: _naive_cpc(method, shown[0], tau),
        Supervised: lambda: _naive_supervised(method, shown, items),
        SimCLR: lambda: _naive_in_batch(method.project(shown[0], 0), method.project(shown[1], 1), tau),
    }
    return torch.stack(next(terms for kind, terms in equations.items() if isinstance(method, kind))()).mean()


def _naive_softmax(row: Tensor, own: Tensor, others: list[Tensor], tau: float) -> Tensor:
    positive = (row @ own / tau).exp()
    return -torch.log(positive / (positive + sum((row @ other / tau).exp() for other in others)))


def _naive_in_batch(z1: Tensor, z2: Tensor, tau: float) -> list[Tensor]:
    return [
        _naive_softmax(row, theirs[i], [other for j, other in enumerate(theirs) if j != i], tau)
        for ours, theirs in ((z1, z2), (z2, z1))
        for i, row in enumerate(ours)
    ]


def _naive_cmc(method: CMC, shown: tuple[Tensor, ...], items: Tensor, chances: Generator, tau: float) -> list[Tensor]:
    z = [method.project(view, which) for which, view in enumerate(shown)]
    if not method.banks:
        return _naive_in_batch(z[0], z[1], tau)
    candidates = method.banks[0].candidates(items, method.method.negatives, chances)
    pasts = [bank.features for bank in method.banks]
    return [
        _naive_softmax(row, past[own], [past[other] for other in others], tau)
        for rows, past in zip(z, reversed(pasts), strict=True)
        for row, (own, *others) in zip(rows, candidates, strict=True)
    ]


def _naive_pirl(method: PIRL, shown: tuple[Tensor, ...], items: Tensor, chances: Generator, tau: float) -> list[Tensor]:
    candidates = method.bank.candidates(items, method.method.negatives, chances)
    terms = []
    for rows in (method.project(shown[0], 0), method._of_pieces(shown[1])):  # each has half the weight
        for row, others in zip(rows, candidates, strict=True):
            scores = [(row @ method.bank.features[j] / tau).exp() for j in others]
            own, *strangers = [score / sum(scores) for score in scores]
            terms.append(-torch.log(own) - sum(torch.log(1 - h) for h in strangers))
    return terms


def _naive_moco(method: MoCo, shown: tuple[Tensor, ...], items: Tensor, tau: float) -> list[Tensor]:
    terms = []
    for (query, key), network, queue in zip(method.ways, method.key_networks, method.queues, strict=True):
        queries = [method.project(shown[query], query)]
        if len(shown) == 3:
            queries.append(method.jigsaw(method.encoders[0], shown[2]))
        keys = network(shown[key])
        for rows in queries:
            for row, own, item in zip(rows, keys, items, strict=True):
                past = [k for k, of in zip(queue.keys, queue.items, strict=True) if of != item]
                terms.append(_naive_softmax(row, own, past, tau))
    return terms


def _naive_supervised(method: Supervised, shown: tuple[Tensor, ...], items: Tensor) -> list[Tensor]:
    logits = method.classifiers[0](method.encoders[0](torch.cat(shown)))
    return [-row.softmax(dim=0)[y].log() for row, y in zip(logits, method.labels[items].repeat(2), strict=True)]


def _naive_inst_dis(
    method: InstDis, way: int, shown: tuple[Tensor, ...], items: Tensor, chances: Generator, tau: float
) -> Tensor:
    which, past = method.against[way]
    bank = method.banks[past].features
    z = method.project(shown[which], which)
    if method.method.objective == "softmax":
        everyone = range(len(bank))
        terms = [
            _naive_softmax(row, bank[i], [bank[j] for j in everyone if j != i], tau) for row, i in zip(z, items, strict=True)
        ]
        return torch.stack(terms).mean()
    m, n = method.method.negatives, len(bank)
    candidates = method.banks[past].candidates(items, m, chances)
    likelihoods = [[(row @ bank[j] / tau).exp() for j in others] for row, others in zip(z, candidates, strict=True)]
    constant = n * torch.stack([torch.stack(row) for row in likelihoods]).mean().detach()
    terms = []
    for own, *others in likelihoods:
        h = own / constant / (own / constant + m / n)
        terms.append(-torch.log(h) - sum(torch.log(1 - p / constant / (p / constant + m / n)) for p in others))
    return torch.stack(terms).mean()


def _naive_cpc(method: CPC, patches: Tensor, tau: float) -> list[Tensor]:
    images, rows, columns = patches.shape[:3]
    z = torch.stack([torch.stack([method.project(patches[i, r], 0) for r in range(rows)]) for i in range(images)])
    context = method._context(z)
    means = []
    for step, prediction in enumerate(method.predictions, start=1):
        terms = []
        for r in range(rows - step):
            below = {(i, c): z[i, r + step, c] for i in range(images) for c in range(columns)}
            for at, own in below.items():
                said = unit(prediction(context[at[0], r, at[1]]))
                terms.append(_naive_softmax(said, own, [other for place, other in below.items() if place != at], tau))
        means.append(torch.stack(terms).mean())
    return means


@pytest.mark.parametrize("name", [name for name in ALL if name != "simclr"])  # whose equation has a test of its own
def test_loss_and_gradients_agree_with_the_equations_item_by_item_in_double_precision(name: str) -> None:
    experiment, method = made(name)
    assert sum(1 for _ in steps(experiment, method, 3)) == 3  # so that banks and queues have something in them
    for module in method.modules():
        if hasattr(module, "value"):
            module.value.fill_(torch.nan)  # the normaliser is estimated from this batch, as the equation has it
    exact = copy.deepcopy(method).double()
    for module in exact.modules():
        if isinstance(module, PixelEncoder):
            module.forward = exact_features(module)  # type: ignore[method-assign]
    shown, items = drawn(experiment, method), torch.arange(8)
    method.zero_grad()
    loss = method.loss(shown, items, Generator().manual_seed(2))
    loss.backward()
    assert experiment.method.temperature is not None
    truth = naive(exact, experiment.method.temperature, tuple(view.double() for view in shown), items, Generator().manual_seed(2))
    truth.backward()
    assert loss.item() == pytest.approx(truth.item(), rel=1e-5)
    for (where, ours), theirs in zip(method.named_parameters(), exact.parameters(), strict=True):
        if ours.requires_grad:
            assert ours.grad is not None and theirs.grad is not None, where
            apart = (ours.grad.double() - theirs.grad).abs().max() / theirs.grad.abs().max().clamp(min=1)
            assert apart < 1e-5, where


def exact_features(module: PixelEncoder) -> Any:
    return lambda pixels: module.encoder(module.standardise(pixels))


# Banks, queues and key networks ---------------------------------------------------------------------------------------


def test_the_bank_is_after_some_steps_what_the_papers_rule_says() -> None:
    bank = Bank(items=6, width=4, momentum=0.5)
    by_hand = [row.clone() for row in bank.features]
    assert torch.allclose(bank.features.norm(dim=1), torch.ones(6))
    for step in range(5):
        generator = Generator().manual_seed(step)
        items, z = torch.randperm(6, generator=generator)[:3], F.normalize(torch.randn(3, 4, generator=generator), dim=1)
        bank.remember(items, z)
        for item, new in zip(items.tolist(), z, strict=True):
            mixed = 0.5 * by_hand[item] + 0.5 * new
            by_hand[item] = mixed / mixed.norm()
    torch.testing.assert_close(bank.features, torch.stack(by_hand))


def test_the_queue_is_after_some_steps_the_last_keys_first_in_first_out() -> None:
    queue = Queue(length=7, width=3)
    pushed: list[tuple[Tensor, int]] = [(row.clone(), -1) for row in queue.keys]
    for step in range(5):
        keys = F.normalize(torch.randn(3, 3, generator=Generator().manual_seed(step)), dim=1)
        queue.push(keys, torch.arange(3) + 10 * step)
        pushed = (pushed + list(zip(keys, range(10 * step, 10 * step + 3), strict=True)))[-7:]
    held = sorted((of, tuple(key.tolist())) for key, of in zip(queue.keys, queue.items.tolist(), strict=True))
    assert held == sorted((of, tuple(key.tolist())) for key, of in pushed)


@pytest.mark.parametrize("name", ["moco v1", "moco of two kinds", "infomin"])
def test_key_networks_are_the_moving_average_of_the_trained_ones(name: str) -> None:
    experiment, method = made(name, momentum=0.9)
    assert isinstance(method, MoCo)
    by_hand = [[weights.clone() for weights in network.parameters()] for network in method.key_networks]
    for _ in steps(experiment, method, 4):
        for own, (_, key) in zip(by_hand, method.ways, strict=True):
            trained = [
                *method.encoders[key % len(method.encoders)].parameters(),
                *method.projections[key % len(method.projections)].parameters(),
            ]
            own[:] = [0.9 * old + 0.1 * new.detach() for old, new in zip(own, trained, strict=True)]
    for own, network in zip(by_hand, method.key_networks, strict=True):
        torch.testing.assert_close(own, list(network.parameters()))


@pytest.mark.parametrize("name", ["moco v2", "infomin", "inst_dis", "inst_dis of two kinds", "cmc", "pirl"])
def test_after_a_step_bank_and_queue_hold_what_the_step_saw(name: str) -> None:
    experiment, method = made(name)
    shown, items, chances = drawn(experiment, method), torch.arange(8), Generator().manual_seed(2)
    before = copy.deepcopy(method)
    method.loss(shown, items, chances)
    assert all(
        torch.equal(*pair) for pair in zip(method.buffers(), before.buffers(), strict=True) if pair[0].shape[:1] == (ITEMS,)
    )
    method.update()
    if isinstance(method, MoCo):
        torch.testing.assert_close(method.queues[0].keys[:8], before.key_networks[0].train()(shown[1]))
        assert method.queues[0].items[:8].tolist() == items.tolist()
        return
    banks = [method.bank] if isinstance(method, PIRL) else list(method.banks)
    olds = [before.bank] if isinstance(before, PIRL) else list(before.banks)
    for which, (bank, old) in enumerate(zip(banks, olds, strict=True)):
        expected = F.normalize(0.5 * old.features[:8] + 0.5 * before.project(shown[which], which), dim=1)
        torch.testing.assert_close(bank.features[:8], expected.detach())
        assert torch.equal(bank.features[8:], old.features[8:])


def test_a_bank_draws_strangers_evenly_and_never_the_item_itself() -> None:
    bank = Bank(items=5, width=2, momentum=0.5)
    items = torch.tensor([0, 2, 4])
    candidates = bank.candidates(items, 20_000, Generator().manual_seed(0))
    assert torch.equal(candidates[:, 0], items)
    for item, strangers in zip(items.tolist(), candidates[:, 1:], strict=True):
        counts = strangers.bincount(minlength=5)
        assert counts[item] == 0
        others = counts[[other for other in range(5) if other != item]].double()
        assert (others - 5000).abs().max() < 4 * math.sqrt(20_000 * 0.25 * 0.75)


def test_a_key_of_the_query_s_own_item_is_no_stranger() -> None:
    queue = Queue(length=4, width=3)
    queue.push(F.normalize(torch.ones(3, 3), dim=1), torch.tensor([7, 8, 7]))
    scores = queue.scores(F.normalize(torch.ones(2, 3), dim=1), torch.tensor([7, 9]))
    assert scores[0].isinf().tolist() == [True, False, True, False]
    assert not scores[1].isinf().any()


# Stability ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", [name for name in ALL if name != "supervised"])
def test_a_low_temperature_gives_no_nan(name: str) -> None:
    experiment, method = made(name, temperature=0.01)
    losses = [loss for _, loss in steps(experiment, method, 6)]
    assert torch.stack(losses).isfinite().all()
    assert all(parameter.isfinite().all() for parameter in method.parameters())
    assert all(parameter.grad is None or parameter.grad.isfinite().all() for parameter in method.parameters())


@pytest.mark.parametrize("loss", [softmax_nce, first_of, lambda logits: nce(logits, torch.tensor(0.0), 40)])
@pytest.mark.parametrize("own", [100.0, -100.0])
def test_candidates_told_apart_beyond_doubt_give_a_finite_loss_and_gradient(loss: Any, own: float) -> None:
    logits = torch.full((2, 5), -own)
    logits[:, 0] = own
    logits.requires_grad_()
    value = loss(logits)
    value.backward()
    assert value.isfinite() and logits.grad is not None and logits.grad.isfinite().all()
    assert value.item() < 1e-6 if own > 0 else value.item() > 100


# What is special ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ALL)
def test_every_method_embeds_both_views_on_one_sphere_and_trains_all_its_weights(name: str) -> None:
    experiment, method = made(name)
    method.eval()
    z1, z2 = method.embeddings(*method.views(experiment.views, photographs(), Generator().manual_seed(0)))
    assert z1.shape == z2.shape
    for z in (z1, z2):
        torch.testing.assert_close(z.norm(dim=1), torch.ones(8))
    method.train()
    method.loss(drawn(experiment, method), torch.arange(8), Generator().manual_seed(0)).backward()
    for where, parameter in method.named_parameters():
        assert parameter.grad is not None or not parameter.requires_grad, where


def test_a_jigsaw_has_each_cell_once_in_an_order_of_its_own_for_each_image() -> None:
    cells = (torch.arange(9).reshape(3, 3) + 1).repeat_interleave(8, 0).repeat_interleave(8, 1).float()
    pieces = jigsaw.cut(cells.expand(6, 3, 24, 24), Generator().manual_seed(0))
    assert pieces.shape == (6, 9, 3, 6, 6)  # 64 / 85 of 8 pixels
    assert torch.equal(pieces.amin(dim=(2, 3, 4)), pieces.amax(dim=(2, 3, 4)))  # no piece leaves its cell
    orders = pieces[:, :, 0, 0, 0]
    assert torch.equal(orders.sort(dim=1)[0], torch.arange(1.0, 10).expand(6, 9))
    assert len(orders.unique(dim=0)) == 6


def test_pieces_laid_out_are_an_image_of_three_rows() -> None:
    pieces = torch.arange(9.0).reshape(1, 9, 1, 1, 1).expand(2, 9, 3, 4, 4)
    image = jigsaw.laid_out(pieces)
    assert image.shape == (2, 3, 12, 12)
    assert image[0, 0, ::4, ::4].tolist() == [[0, 1, 2], [3, 4, 5], [6, 7, 8]]


def test_pieces_lie_at_random_places_in_their_cells() -> None:
    ramp = torch.arange(24.0).expand(400, 1, 24, 24)
    corners = jigsaw.cut(ramp, Generator().manual_seed(0))[:, :, 0, 0, 0] % 8
    assert sorted(corners.unique().tolist()) == [0, 1, 2]
    shares = corners.flatten().long().bincount() / corners.numel()
    torch.testing.assert_close(shares, torch.full((3,), 1 / 3), rtol=0, atol=4 * math.sqrt(2 / 9 / corners.numel()))


def test_what_cpc_says_of_a_row_depends_on_the_rows_above_it_and_on_itself_alone() -> None:
    _, method = made("cpc")
    assert isinstance(method, CPC)
    z = torch.randn(2, 3, 3, 16, generator=Generator().manual_seed(0))
    changed = z.clone()
    changed[:, 2] = 0
    assert torch.equal(method._context(z)[:, :2], method._context(changed)[:, :2])
    changed[:, 0] = 0
    assert not torch.allclose(method._context(z)[:, 1], method._context(changed)[:, 1])


def test_cpc_has_no_batch_norm_so_that_patches_do_not_know_each_other() -> None:
    _, method = made("cpc")
    assert not any(isinstance(module, torch.nn.BatchNorm2d) for module in method.modules())
    together = method.encoders[0](photographs(side=12))
    alone = torch.cat([method.encoders[0](image[None]) for image in photographs(side=12)])
    torch.testing.assert_close(together, alone, rtol=1e-4, atol=1e-5)


def test_predictions_that_are_right_lose_nothing() -> None:
    z = unit(torch.randn(4, 2, 3, 64, generator=Generator().manual_seed(0)))
    assert prediction_loss(z, z, temperature=0.01).item() < 1e-6


def test_instance_discrimination_compares_views_made_in_two_ways_with_each_other_s_past() -> None:
    assert made("inst_dis")[1].against == ((0, 0),)
    assert made("inst_dis of two kinds")[1].against == ((0, 1), (1, 0))
    assert spec.Augment(kind="augment").exchangeable
    assert not spec.Augment(kind="augment", recipe="byol").exchangeable
    assert not spec.Patches(kind="patches").exchangeable


def test_frozen_encoders_are_compared_by_their_features_and_have_no_loss() -> None:
    encoder = encoders.build(spec.SmallConv(width=4), 3).eval()
    method = methods.build(spec.Frozen(kind="frozen"), Setting([encoder], [16], ITEMS, spec.Augment(kind="augment")))
    v1, v2 = photographs(seed=0), photographs(seed=1)
    torch.testing.assert_close(method.embeddings(v1, v2)[1], F.normalize(encoder(v2), dim=1))
    with pytest.raises(NotImplementedError):
        method.loss((v1, v2), torch.arange(8), Generator())


def test_items_without_a_class_do_not_count_in_the_supervised_loss() -> None:
    experiment, method = made("supervised")
    shown = drawn(experiment, method)
    labels: Any = method.get_buffer("labels")
    labels[4:8] = -1
    method.eval()
    half = method.loss(tuple(view[:4] for view in shown), torch.arange(4), Generator())
    torch.testing.assert_close(method.loss(shown, torch.arange(8), Generator()), half)
    labels[:8] = -1
    assert method.loss(shown, torch.arange(8), Generator()).item() == 0
