"""Views that are learned: a map that can be undone, sides that pull as they should, and what g keeps and sheds, in nats."""

import math
from typing import Any

import pytest
import torch
from torch import Generator, Tensor, nn
from zuko.transforms import (
    AdditiveTransform,
    ComposedTransform,
    CouplingTransform,
    DependentTransform,
    MonotonicAffineTransform,
    Transform,
)

from ml import encoders, spec, views
from ml.datasets import Data
from ml.datasets.raw import BYTES
from ml.datasets.split import ImageSplit, Pixels
from ml.encoders import Encoder
from ml.events import Metric
from ml.learned_views import Found, stage
from ml.learned_views.flow import LEAST_SCALE, Flow
from ml.learned_views.game import BAND, Game
from ml.learned_views.learning import WARM_UP, Learning, play
from ml.mi.ksg import ksg
from ml.views import Views
from ml.views.color import to_color_space

CPU = torch.device("cpu")
FLOWS = ["volume_preserving", "non_volume_preserving"]


def recipe(**parts: Any) -> spec.Learned:
    return spec.Learned.model_validate({"kind": "learned", "base_space": "rgb", **parts})


def flow_of(asked: spec.Learned, seed: int = 0) -> Flow:
    """With weights as training might leave them."""
    torch.manual_seed(seed)
    flow = Flow(asked)
    for weights in flow.parameters():
        nn.init.normal_(weights, std=0.5)
    return flow


def images(B: int = 4, size: int = 6) -> Tensor:
    return torch.rand(B, 3, size, size, generator=Generator().manual_seed(1))


# The map --------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("base_space", ["rgb", "ydbdr"])
@pytest.mark.parametrize("kind", FLOWS)
def test_the_map_is_undone_exactly(kind: str, base_space: str) -> None:
    flow = flow_of(recipe(flow=kind, base_space=base_space))
    planes = flow.based(images())
    channels = flow(images())
    assert (channels - planes).abs().mean() > 0.1
    assert (flow.inverse(channels) - planes).abs().max() < 1e-5


@pytest.mark.parametrize("kind", FLOWS)
def test_the_determinant_is_that_of_autograd_and_that_of_additive_couplings_is_one(kind: str) -> None:
    flow = flow_of(recipe(flow=kind)).double()
    planes = images(1, 4).double()

    def of_pixel(pixel: Tensor) -> Tensor:
        return flow.moved(pixel.view(1, 3, 1, 1)).view(3)

    pixels = planes[0].flatten(1).T
    jacobians = torch.stack([torch.autograd.functional.jacobian(of_pixel, pixel) for pixel in pixels])  # type: ignore[no-untyped-call]
    told = flow.log_abs_det(planes).flatten()
    torch.testing.assert_close(told, jacobians.det().abs().log())
    if kind == "volume_preserving":
        assert (told == 0).all()
    else:
        assert told.abs().min() > 1e-3


@pytest.mark.parametrize("kind", FLOWS)
def test_the_couplings_are_those_of_zuko(kind: str) -> None:
    """The same weights in zuko's own couplings, which want channels last."""
    flow = flow_of(recipe(flow=kind, blocks=2))

    def coupled(coupling: Any, stays: Tensor) -> CouplingTransform:
        def of(staying: Tensor) -> Transform:
            written = coupling.write(coupling.read(staying).relu())
            if kind == "volume_preserving":
                return DependentTransform(AdditiveTransform(written), 1)
            return DependentTransform(MonotonicAffineTransform(*written.chunk(2, dim=-1), slope=LEAST_SCALE), 1)

        return CouplingTransform(of, stays)

    others = torch.tensor([False, True, True])
    parts = [part for block in flow.blocks for part in (coupled(block.of_first, others), coupled(block.of_others, ~others))]
    last = images().permute(0, 2, 3, 1)
    there, volumes = ComposedTransform(*parts).call_and_ladj(last)
    torch.testing.assert_close(flow.moved(images()).permute(0, 2, 3, 1), there)
    torch.testing.assert_close(flow.log_abs_det(images()), volumes)


def test_every_pixel_is_mapped_for_itself_and_learning_begins_at_the_base_space() -> None:
    flow = flow_of(recipe())
    shuffled = torch.randperm(36, generator=Generator().manual_seed(0))
    torch.testing.assert_close(
        flow(images()).flatten(2)[:, :, shuffled], flow(images().flatten(2)[:, :, shuffled].unflatten(2, (6, 6))).flatten(2)
    )
    assert torch.equal(Flow(recipe(base_space="ydbdr"))(images()), to_color_space(images(), "ydbdr"))


@pytest.mark.parametrize("kind", FLOWS)
def test_portions_of_the_pixels_are_mapped_and_learned_from_as_all_at_once(kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """On a CPU they are taken by portions; 144 pixels by 7, so that the last one is not full."""
    flow = flow_of(recipe(flow=kind)).double()

    def mapped() -> tuple[Tensor, ...]:
        channels = flow.moved(images().double())
        return channels, *torch.autograd.grad(channels.square().sum(), tuple(flow.parameters()))

    at_once = mapped()
    monkeypatch.setattr("ml.learned_views.flow.PIXELS_IN_CACHE", 7)
    torch.testing.assert_close(mapped(), at_once)


def test_views_come_from_the_learned_channels_of_two_crops() -> None:
    flow = flow_of(recipe())
    found = Found.of(recipe(), flow)
    assert found.model_dump() == recipe().model_dump()
    v1, v2 = views.make(found, images(), Generator())
    assert torch.equal(torch.cat((v1, v2), dim=1), flow(images()))
    crops = spec.Augment.model_validate({"kind": "augment", "jitter": 0, "grayscale_p": 0})
    asked = recipe(before=crops)
    crop1, crop2 = views.make(crops, images(), Generator().manual_seed(3))
    v1, v2 = views.make(Found.of(asked, flow), images(), Generator().manual_seed(3))
    assert torch.equal(v1, flow(crop1)[:, :1]) and torch.equal(v2, flow(crop2)[:, 1:])


# The game: colours of one pixel, of which one component is shared and of no use, and another tells the class --------------


SHARED, NOISE, BLUR = 2.0, 0.5, 0.1  # standard deviations
BATCH = 128


class Perceptron(Encoder):
    """For images of one pixel."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.features = 64
        self.layers = nn.Sequential(nn.Flatten(), nn.Linear(channels, 64), nn.ReLU(), nn.Linear(64, 64), nn.ReLU())

    def forward(self, pixels: Tensor) -> Tensor:
        told: Tensor = self.layers(pixels)
        return told


def colours(B: int, chances: Generator) -> tuple[Views, Tensor, Tensor]:
    """Two crops (t + n1 + s, t + n2 + s, s + n3), t and s of each: t is the task's component, s is shared; n differs by crop."""

    def drawn(deviation: float = 1.0) -> Tensor:
        return deviation * torch.randn(B, generator=chances)

    t, s = drawn(), drawn(SHARED)
    crop1, crop2 = (
        torch.stack((t + drawn(NOISE) + s, t + drawn(NOISE) + s, s + drawn(BLUR)), dim=1)[:, :, None, None] for _ in range(2)
    )
    return (crop1, crop2), t, s


def crops(chances: Generator) -> Views:
    return colours(BATCH, chances)[0]


def labelled(chances: Generator) -> tuple[Views, Tensor]:
    pair, t, _ = colours(BATCH, chances)
    return pair, (t > 0).long()


def game_of(seed: int = 0, **parts: Any) -> Game:
    asked = recipe(**{"batch_size": BATCH, "temperature": 0.2, "learning_rate": 5e-3} | parts)
    torch.manual_seed(seed)
    return Game(asked, Flow(asked), Perceptron, classes=2 if asked.labelled else 0, autocast=False)


def played(game: Game, seed: int = 0) -> dict[str, list[float]]:
    """The metrics of a game that was played to its end."""
    learning = Learning.begin(game, Generator().manual_seed(seed))
    told: dict[str, list[float]] = {}
    for event in play(learning, crops, labelled if game.recipe.labelled else None):
        if isinstance(event, Metric):
            told.setdefault(event.name, []).append(event.value)
    return told


def nats(a: Tensor, b: Tensor) -> float:
    """Mutual information by neighbours (Kraskov et al. 2004)."""
    return ksg(a, b, Generator().manual_seed(0)).value


@torch.no_grad()
def shares(game: Game | None, N: int = 2000) -> dict[str, float]:
    """Of fresh colours, in nats: I(v1; v2), I(v1; s), I(v1; t), I(v2; t), of the raw split where there is no game."""
    pair, t, s = colours(N, Generator().manual_seed(99))
    made = (pair[0][:, :1], pair[1][:, 1:]) if game is None else game.views(*pair)
    v1, v2 = (view.flatten(1) for view in made)
    return {
        "v1 v2": nats(v1, v2),
        "v1 s": nats(v1, s[:, None]),
        "v1 t": nats(v1, t[:, None]),
        "v2 t": nats(v2, t[:, None]),
    }


def gaussian(signal: float, noise: float) -> float:
    """I(x; x + n) in nats, by their variances."""
    return math.log(1 + signal / noise) / 2


def test_the_raw_split_shares_what_gaussians_of_these_variances_share() -> None:
    raw = shares(None)
    assert raw["v1 s"] == pytest.approx(gaussian(SHARED**2, 1 + NOISE**2), abs=0.08)  # .72, four standard errors of KSG
    assert raw["v1 t"] == pytest.approx(gaussian(1, SHARED**2 + NOISE**2), abs=0.08)  # .11


@pytest.mark.parametrize("kind", FLOWS)
def test_semi_supervised_views_keep_the_task_and_shed_what_else_is_shared(kind: str) -> None:
    """The most that v1 can tell of t is gaussian(1, NOISE^2) = .80 nats, as two channels less each other's s do."""
    game = game_of(mode="semi_supervised", flow=kind, steps=300)
    played(game)
    raw, found = shares(None), shares(game)
    assert found["v1 s"] < raw["v1 s"] / 4
    assert found["v1 v2"] < raw["v1 v2"] / 2
    assert found["v1 t"] > 3 * raw["v1 t"] and found["v1 t"] > 0.3
    assert found["v2 t"] > 0.3
    planes = colours(1000, Generator().manual_seed(5))[0][0]
    with torch.no_grad():
        assert (game.flow.inverse(game.flow.moved(planes)) - planes).abs().max() < 1e-4


def test_unsupervised_views_shed_all_and_supervised_ones_keep_what_the_task_shares() -> None:
    unsupervised, supervised = game_of(mode="unsupervised", steps=150), game_of(mode="supervised", steps=150)
    played(unsupervised)
    played(supervised)
    raw, without, with_labels = shares(None), shares(unsupervised), shares(supervised)
    assert without["v1 v2"] < 0.15 and raw["v1 v2"] > 1
    assert with_labels["v1 t"] > 0.6 and with_labels["v2 t"] > 0.6
    assert with_labels["v1 v2"] > without["v1 v2"] + 0.3


def test_the_sides_pull_in_opposite_directions() -> None:
    """A small step of the encoders finds more of the same batch, a small step of g leaves less of it."""
    game = game_of(mode="unsupervised", steps=60)
    played(game)
    pair = crops(Generator().manual_seed(7))
    before = game.i_nce(*game.views(*pair))
    of_critics, of_g = list(game.critics.parameters()), list(game.flow.parameters())
    uphill = torch.autograd.grad(game.i_nce(*game.views(*pair)), of_g)
    downhill = torch.autograd.grad(game.critics_loss(*game.views(*pair)), of_critics)

    def moved(parameters: list[nn.Parameter], gradients: tuple[Tensor, ...]) -> float:
        rate = 1e-3 / torch.stack([gradient.norm() for gradient in gradients]).norm().item()
        with torch.no_grad():
            torch._foreach_add_(parameters, gradients, alpha=-rate)
            after = game.i_nce(*game.views(*pair)).item()
            torch._foreach_add_(parameters, gradients, alpha=rate)
        return after

    assert moved(of_critics, downhill) > before.item()
    assert moved(of_g, uphill) < before.item()


def test_the_push_on_g_is_proportional_about_its_floor_or_target() -> None:
    def pushes(**parts: Any) -> list[float]:
        game = game_of(mode="unsupervised", steps=1, **parts)
        found = []
        for reading in (0.0, 1 - BAND / 2, 1.0, 1 + BAND / 2, 3.0):
            game.reading.fill_(reading)
            found.append(game.push().item())
        return found

    assert pushes() == [1, 1, 1, 1, 1]
    assert pushes(floor_nats=1.0) == pytest.approx([-1, -1, -1, -0.5, 1])
    assert pushes(target_nats=1.0) == pytest.approx([-1, -0.5, 0, 0.5, 1])


@pytest.mark.parametrize("target", [0.3, 0.9])
def test_a_target_is_met(target: float) -> None:
    told = played(game_of(mode="unsupervised", steps=250, target_nats=target))
    assert told["views_i_nce"][-1] == pytest.approx(target, abs=BAND)
    assert min(told["views_push"][: round(WARM_UP * 50)]) >= 0  # of 50 points


def test_a_floor_keeps_the_views_from_sharing_nothing() -> None:
    """Without one the game ends below .1 nats."""
    told = played(game_of(mode="unsupervised", steps=300, learning_rate=2e-3, floor_nats=0.5))
    assert told["views_i_nce"][-1] > 0.5


@pytest.mark.parametrize("parts", [{"gradient_penalty": 0.1}, {"spectral_norm": True}, {"critic_steps": 3}], ids=str)
def test_what_steadies_the_game_changes_it_and_lets_it_be_learned(parts: dict[str, Any]) -> None:
    plain, steadied = game_of(mode="unsupervised", steps=60), game_of(mode="unsupervised", steps=60, **parts)
    assert played(plain)["views_i_nce"] != (told := played(steadied)["views_i_nce"])
    assert all(map(math.isfinite, told)) and told[-1] < 0.5


def test_spectral_norm_stands_in_the_place_of_batch_norm() -> None:
    asked = recipe(mode="unsupervised", spectral_norm=True)
    torch.manual_seed(0)
    game = Game(asked, Flow(asked), lambda channels: encoders.build(spec.SmallConv(), channels), classes=0, autocast=False)
    for _ in range(30):  # power iterations
        game.i_nce(*game.views(images(8, 16), images(8, 16)))
    inner = [module for module in game.critics.modules() if isinstance(module, nn.BatchNorm2d | nn.Conv2d | nn.Linear)]
    assert [module.affine for module in inner if isinstance(module, nn.BatchNorm2d)] == [False, False]  # that of the channels
    layers = [module for module in inner if not isinstance(module, nn.BatchNorm2d)]
    assert len(layers) == 2 * 4
    for layer in layers:
        assert torch.linalg.matrix_norm(layer.weight.flatten(1), ord=2).item() == pytest.approx(1, abs=0.02)


@pytest.mark.parametrize("labels", [4, 9, None])
def test_g_sees_the_labels_that_it_may_see_and_training_items_alone(labels: int | None) -> None:
    """Items are told by their colour: number / 100 for training, white for those held out; every third has no class."""
    numbers = torch.arange(30)
    y = torch.where(numbers % 3 == 2, -1, numbers % 3)
    pixels = (numbers.view(30, 1, 1, 1) * torch.ones(30, 3, 4, 4)).to(torch.uint8)
    white = ImageSplit(Pixels(torch.full((9, 3, 4, 4), 255, dtype=torch.uint8), BYTES, CPU), {"label": torch.zeros(9).long()})
    facts = spec.DatasetFacts(name="made", train=30, test=9, channels=3, image_size=4, classes=2)
    data = Data(facts, ImageSplit(Pixels(pixels, BYTES, CPU), {"label": y}), white, "made", CPU)
    asked = recipe(labels=labels, batch_size=8, labelled_batch_size=4)
    chances = Generator().manual_seed(0)
    draw, crops_of = stage._labelled(asked, data, chances), stage._crops(asked, data)
    seen: set[int] = set()
    for _ in range(60):
        (crop, _), classes = draw(chances)
        items = (crop[:, 0, 0, 0] * 255).round().long()
        assert torch.equal(classes, y[items]) and (classes >= 0).all()
        seen |= set(items.tolist())
        assert (crops_of(chances)[0] < 0.5).all()
    assert len(seen) == (labels or 20)
    counts = y[torch.tensor(sorted(seen))].bincount()
    assert abs(int(counts[0] - counts[1])) <= 1  # drawn evenly


def test_the_penalty_is_half_the_squared_slope_of_the_true_pairs_scores() -> None:
    """By finite differences of the sum of scores."""
    game = game_of(mode="unsupervised", steps=1, gradient_penalty=1.0).eval()
    v1, v2 = (view.detach() for view in game.views(*(crop[:8] for crop in crops(Generator().manual_seed(2)))))
    plain = -game.i_nce(v1, v2) + math.log(8)

    def scores(v1: Tensor, v2: Tensor) -> Tensor:
        z1, z2 = (nn.functional.normalize(z, dim=1) for z in game._embedded(v1, v2))
        return (z1 * z2).sum() / game.recipe.temperature

    squares, step = 0.0, 1e-2
    with torch.no_grad():
        for which, view in enumerate((v1, v2)):
            for place in range(view.numel()):
                shift = torch.zeros(view.numel())
                shift[place] = step
                shift = shift.view(view.shape)
                up, down = ((v1 + shift, v2), (v1 - shift, v2)) if which == 0 else ((v1, v2 + shift), (v1, v2 - shift))
                squares += ((scores(*up) - scores(*down)) / (2 * step)).item() ** 2
    assert (game.critics_loss(v1, v2) - plain).item() == pytest.approx(squares / 2 / 8, rel=0.02)
