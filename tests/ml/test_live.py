from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Generator, Tensor, nn

from ml import spec
from ml.datasets import Data, Library, load
from ml.datasets.split import ImageSplit
from ml.live import Live, linear_scores, points
from ml.methods import Method
from ml.tasks.localization import ridge

CPU = torch.device("cpu")
DIGITS = load(spec.Dataset(name="digits"), Library(*(Path("no-datasets"),) * 3), CPU)


class Read(Method):
    """Encoders that are the pixels themselves, behind batch norm and dropout, and remember what they were shown."""

    def __init__(self, sides: int = 1) -> None:
        super().__init__()
        self.norm = nn.BatchNorm2d(1)
        self.dropout = nn.Dropout()
        self.seen: list[Tensor] = []
        self.encoders = [self.encode] * sides

    def encode(self, images: Tensor) -> Tensor:
        self.seen.append(images)
        features: Tensor = self.dropout(self.norm(images)).flatten(1)
        return features


class Recorded(ImageSplit):
    """A split that remembers which items were taken."""

    def __init__(self, split: Any) -> None:
        super().__init__(split.pixels, split.targets)
        self.taken: list[int] = []

    def take(self, items: Tensor) -> Tensor:
        self.taken += items.tolist()
        return super().take(items)


def asked(steps: int = 7, **parts: Any) -> spec.ExperimentSpec:
    document = {"dataset": {"name": "digits"}, "views": {"kind": "noise"}, "pretrain": {"steps": steps, "batch_size": 256}}
    return spec.resolve(spec.ExperimentSpec.model_validate(document | parts), lambda *_: DIGITS.facts)


def reading(data: Data = DIGITS, seed: int = 0, **parts: Any) -> Live:
    return Live(asked(**parts), data, Generator().manual_seed(seed))


def test_other_training_items_are_told_apart_by_their_pixels() -> None:
    found = {metric.name: metric.value for metric in reading().measure(Read(), 7)}
    assert list(found) == ["probe_accuracy", "knn_accuracy"]
    assert found["probe_accuracy"] > 0.85 and found["knn_accuracy"] > 0.9


def test_no_held_out_item_is_looked_at_and_none_is_read_twice() -> None:
    train, test = Recorded(DIGITS.train), Recorded(DIGITS.test)
    data = Data(DIGITS.facts, train, test, "", CPU)
    assert len(list(reading(data).measure(Read(), 7))) == 2
    assert test.taken == [] and len(set(train.taken)) == len(train.taken) == 1078


def test_reading_changes_nothing_and_draws_from_no_other_generator() -> None:
    method, live = Read(), reading()
    state = torch.get_rng_state()
    before = {name: tensor.clone() for name, tensor in method.state_dict().items()}
    first, again = (list(live.measure(method, 7)) for _ in range(2))
    assert first == again
    assert method.training
    assert torch.equal(torch.get_rng_state(), state)
    assert all(torch.equal(tensor, before[name]) for name, tensor in method.state_dict().items())
    assert not any(images.requires_grad for images in method.seen)


def test_features_of_two_encoders_stand_side_by_side() -> None:
    items = torch.arange(5)
    one = Read().eval().features(spec.Noise(kind="noise"), DIGITS.train, items)
    two = Read(2).eval().features(spec.Frequency(kind="frequency"), DIGITS.train, items)
    assert two.shape == (5, 2 * one.shape[1])


def test_steps_are_spread_evenly_and_end_with_the_last() -> None:
    of_hundred = points(spec.Pretrain(steps=100, batch_size=256), 1078, 1078)
    assert sorted(of_hundred) == [25, 50, 75, 100]  # 0.03 * 6 * 100 * 256 / 1078 = 4.3
    assert points(spec.Pretrain(steps=3, batch_size=16), 1078, 1078) == {3}
    assert len(points(spec.Pretrain(steps=100_000, batch_size=256), 50_000, 1536)) == 20
    live = reading(steps=100)
    assert [step for step in range(1, 101) if list(live.measure(Read(), step))] == [25, 50, 75, 100]


def test_the_first_tasks_target_is_foretold() -> None:
    targets = DIGITS.train.targets | {"background": torch.zeros(1078, dtype=torch.int64), "place": torch.rand(1078, 2)}
    facts = DIGITS.facts.model_copy(update={"factors": {"background": 3, "place": None}})
    data = Data(facts, ImageSplit(DIGITS.train.pixels, targets), DIGITS.test, "", CPU)
    tasks = (spec.Classification(kind="classification", target="background"), spec.KNN(kind="knn"))
    live = Live(asked().model_copy(update={"tasks": tasks}), data, Generator())
    assert {metric.value for metric in live.measure(Read(), 7)} == {1.0}
    transferred = tasks[0].model_copy(update={"dataset": spec.Dataset(name="mnist")})
    live = Live(asked().model_copy(update={"tasks": (transferred,)}), data, Generator())
    assert all(0.8 < metric.value < 1 for metric in live.measure(Read(), 7))


@pytest.mark.parametrize(("labelled", "readings"), [(0, 0), (95, 0), (96, 2)])
def test_without_classes_or_with_few_items_nothing_is_read(labelled: int, readings: int) -> None:
    label = DIGITS.train.targets["label"].clone()
    label[labelled:] = -1
    train = ImageSplit(DIGITS.train.pixels, {"label": label})
    live = reading(Data(DIGITS.facts, train, DIGITS.test, "", CPU))
    assert len(list(live.measure(Read(), 7))) == readings
    nameless = Data(DIGITS.facts.model_copy(update={"classes": None}), DIGITS.train, DIGITS.test, "", CPU)
    assert not list(reading(nameless).measure(Read(), 7))


def test_features_that_are_no_numbers_are_not_read() -> None:
    method = Read()
    nn.init.constant_(method.norm.weight, torch.nan)
    assert not list(reading().measure(method, 7))


def test_as_many_features_as_items_do_not_drown_the_probe() -> None:
    """Least squares alone would go through every item there, and foretell nothing."""
    generator = Generator().manual_seed(0)
    y = torch.arange(300) % 3
    signal = (torch.eye(3)[y] + 0.2 * torch.randn(300, 3, generator=generator)) @ torch.randn(3, 200, generator=generator)
    x = signal + 0.3 * torch.randn(300, 200, generator=generator)
    answers = linear_scores(x[:200], y[:200], x[200:], 3).argmax(dim=1)
    assert (answers == y[200:]).double().mean() > 0.95
    weights, biases = ridge(x[:200], torch.eye(3)[y[:200]], penalty=1e-6)
    assert ((x[200:].double() @ weights + biases).argmax(dim=1) == y[200:]).double().mean() < 0.9
