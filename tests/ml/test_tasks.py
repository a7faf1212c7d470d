import math
import typing
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from sklearn.datasets import load_digits
from sklearn.linear_model import LogisticRegression
from torch import Generator, Tensor

from ml import spec, tasks
from ml.datasets import Library, load
from ml.tasks import Answer, Features, bootstrap, logistic
from ml.tasks.knn import weighted_votes

KINDS = [kind for kind in typing.get_args(typing.get_args(spec.Task)[0]) if kind is not spec.Localization]


def task_of(kind: type[spec.Part], **parameters: object) -> spec.Task:
    return kind.model_validate({"kind": typing.get_args(kind.model_fields["kind"].annotation)[0], **parameters})


def separable(classes: int = 4, items: int = 40) -> Features:
    generator = Generator().manual_seed(0)
    train_labels, test_labels = torch.arange(items) % classes, torch.arange(items // 2) % classes
    centres = 5 * torch.eye(classes)

    def around(labels: Tensor) -> Tensor:
        return centres[labels] + 0.1 * torch.randn(len(labels), classes, generator=generator)

    return Features(around(train_labels), train_labels, around(test_labels), test_labels, classes)


def noisy() -> Features:
    generator = Generator().manual_seed(0)
    x, y = torch.randn(900, 4, generator=generator), torch.arange(900) % 3
    return Features(x[:600] + y[:600, None] / 2, y[:600], x[600:] + y[600:, None] / 2, y[600:], 4)


@pytest.mark.parametrize("kind", KINDS)
class TestEveryTaskOfClasses:
    @pytest.mark.parametrize("labels", [None, 8])
    def test_separable_features_score_one(self, kind: type[spec.Part], labels: int | None) -> None:
        score, merits = tasks.evaluate(task_of(kind, labels=labels), separable(), Generator().manual_seed(0))
        assert score.metric == "accuracy"
        assert score.value == 1
        assert score.ci[0] < 1 and score.ci[1] == pytest.approx(1)
        assert score.chance == 0.25
        assert score.per_class == (1.0, 1.0, 1.0, 1.0)
        assert merits.tolist() == [1.0] * 20

    def test_features_without_information_score_chance(self, kind: type[spec.Part]) -> None:
        generator = Generator().manual_seed(0)
        x, y = torch.randn(2000, 4, generator=generator), torch.arange(2000) % 2
        features = Features(x[:1000], y[:1000], x[1000:], y[1000:], 2)
        score, merits = tasks.evaluate(task_of(kind), features, Generator().manual_seed(0))
        assert score.value == merits.mean() == pytest.approx(0.5, abs=4 * 0.5 / 1000**0.5)
        assert score.ci == pytest.approx(tasks.wilson(score.value, 1000), abs=0.006)

    def test_held_out_labels_are_not_looked_at(self, kind: type[spec.Part]) -> None:
        features = separable()
        wrong = Features(features.train, features.train_targets, features.test, (features.test_targets + 1) % 4, 4)
        score, _ = tasks.evaluate(task_of(kind), wrong, Generator().manual_seed(0))
        assert score.value == 0
        assert score.ci == pytest.approx((0, tasks.wilson(0.0, 20)[1]))

    def test_equal_generators_give_equal_scores(self, kind: type[spec.Part]) -> None:
        first, again = (tasks.evaluate(task_of(kind, labels=8), noisy(), Generator().manual_seed(0)) for _ in range(2))
        assert first[0] == again[0] and torch.equal(first[1], again[1])

    def test_what_a_task_draws_does_not_choose_the_labels(self, kind: type[spec.Part], monkeypatch: pytest.MonkeyPatch) -> None:
        seen = []

        def predict(task: spec.Task, features: Features, labelled: Tensor, generator: Generator) -> Answer:
            seen.append(labelled)
            torch.rand(5, generator=generator)
            return Answer(features.test_targets)

        monkeypatch.setitem(tasks._tasks._implementations, kind, predict)
        tasks.evaluate(task_of(kind, labels=8), separable(), Generator().manual_seed(0))
        generator = Generator().manual_seed(0)
        targets = separable().train_targets
        assert all(torch.equal(labels, tasks.labelled(targets, 8, generator)) for labels in seen)


def test_accuracies_of_classes_average_to_the_accuracy() -> None:
    score, _ = tasks.evaluate(task_of(spec.KNN), noisy(), Generator().manual_seed(0))
    assert score.per_class is not None and score.per_class[3] is None  # a class without held-out items
    assert sum(share for share in score.per_class if share is not None) / 3 == pytest.approx(score.value)


def test_the_probe_agrees_with_scikit_learn() -> None:
    x, y = load_digits(return_X_y=True)
    inputs, labels = torch.from_numpy(x[:300] / 16), torch.from_numpy(y[:300])
    weights, biases = logistic.fit(logistic.principal(inputs), labels, classes=10)
    reference = LogisticRegression(C=1.0, tol=1e-8, max_iter=2000).fit(x[:300] / 16, y[:300])
    torch.testing.assert_close(weights.T, torch.from_numpy(reference.coef_), rtol=0, atol=1e-3)
    ours = (inputs @ weights + biases).softmax(dim=1)
    torch.testing.assert_close(ours, torch.from_numpy(reference.predict_proba(x[:300] / 16)), rtol=0, atol=1e-4)


def test_a_feature_that_never_moves_in_training_is_ignored() -> None:
    features = separable()
    dead = Features(
        torch.cat((features.train, torch.full((40, 1), 0.3)), dim=1),
        features.train_targets,
        torch.cat((features.test, torch.full((20, 1), 9.0)), dim=1),
        features.test_targets,
        features.classes,
    )
    score, _ = tasks.evaluate(task_of(spec.Classification), dead, Generator().manual_seed(0))
    assert score.value == 1


def test_the_scatter_of_label_draws_is_in_the_interval() -> None:
    """Of one label a class it matters much which it is."""
    features = noisy()
    score, merits = tasks.evaluate(task_of(spec.KNN, labels=3), features, Generator().manual_seed(0))
    of_items = bootstrap.interval(merits[None], Generator().manual_seed(0))
    assert score.ci[1] - score.ci[0] > 1.3 * (of_items[1] - of_items[0])


@pytest.mark.parametrize("penalty", [0.1, 10.0])
def test_of_fewer_items_than_features_the_optimum_is_scikit_learns_too(penalty: float) -> None:
    x, y = load_digits(return_X_y=True)
    inputs, labels = torch.from_numpy(x[:50] / 16), torch.from_numpy(y[:50])
    weights, _ = logistic.fit(logistic.principal(inputs), labels, classes=10, penalty=penalty)
    reference = LogisticRegression(C=1 / penalty, tol=1e-8, max_iter=2000).fit(x[:50] / 16, y[:50])
    torch.testing.assert_close(weights.T, torch.from_numpy(reference.coef_), rtol=0, atol=1e-3)
    assert len(inputs) < inputs.shape[1]


def scores(features: Features) -> tuple[float, float]:
    """Of the two protocols, in percent."""
    lbfgs, sgd = (
        tasks.evaluate(task_of(spec.Classification, protocol=protocol), features, Generator().manual_seed(0))[0]
        for protocol in ("lbfgs", "sgd")
    )
    assert lbfgs.fitted is not None and sgd.fitted is not None
    assert lbfgs.fitted["penalty"] == sgd.fitted["penalty"] and sgd.fitted["learning_rate"] in logistic.RATES
    return 100 * lbfgs.value, 100 * sgd.value


def convolved(train: Tensor, test: Tensor, filters: int, cells: int) -> list[Tensor]:
    """Features that are as correlated as an encoder's: rectified random filters, averaged over the cells of a grid."""
    weights = torch.randn(filters, train.shape[1], 5, 5, generator=Generator().manual_seed(0))
    weights -= weights.mean(dim=(1, 2, 3), keepdim=True)
    return [F.adaptive_avg_pool2d(F.conv2d(images, weights).relu(), cells).flatten(1) for images in (train, test)]


def test_a_hundred_epochs_of_sgd_agree_with_the_optimum_on_digits() -> None:
    data = load(spec.Dataset(name="digits"), Library(*(Path("no-datasets"),) * 3), torch.device("cpu"))
    train, test = (split.take(torch.arange(len(split))) for split in (data.train, data.test))
    y, truth = data.train.targets["label"], data.test.targets["label"]
    train, test = convolved(train, test, filters=64, cells=2)
    lbfgs, sgd = scores(Features(train, y, test, truth, 10))
    assert abs(lbfgs - sgd) <= 0.5


@pytest.mark.parametrize(("filters", "cells"), [(256, 1), (192, 3)])
def test_a_hundred_epochs_of_sgd_agree_with_the_optimum_on_real_images(filters: int, cells: int, datasets_folder: Path) -> None:
    """Also where features are so many that the training items could be learned by heart."""
    library = Library(*(datasets_folder,) * 3)
    data = load(spec.Dataset(name="cifar10_lossless_subset", image_size=16), library, torch.device("cpu"))
    train, test = convolved(data.train.take(torch.arange(3000)), data.test.take(torch.arange(1000)), filters, cells)
    y, truth = data.train.targets["label"][:3000], data.test.targets["label"]
    lbfgs, sgd = scores(Features(train, y, test, truth, 10))
    assert abs(lbfgs - sgd) <= 0.5


@pytest.mark.parametrize(("items", "penalty"), [(600, 10.0), (30, 1e4)])
def test_sgd_minimises_the_same_loss_also_where_the_decay_is_strong(items: int, penalty: float) -> None:
    features = noisy()
    x, y = features.train[:items], features.train_targets[:items]

    def loss(weights: Tensor, biases: Tensor) -> float:
        return (F.cross_entropy(x.double() @ weights + biases, y, reduction="sum") + penalty * weights.square().sum() / 2).item()

    optimum = loss(*logistic.fit(logistic.principal(x), y, 3, penalty))
    by_sgd, _ = logistic.fit_by_sgd(x, y, 3, penalty, Generator().manual_seed(0))
    assert optimum <= loss(*by_sgd) < optimum * 1.0005


def test_both_protocols_have_the_same_chances_in_each_draw_of_labels(monkeypatch: pytest.MonkeyPatch) -> None:
    """So that they choose the same penalties."""
    states: dict[str, list[list[int]]] = {"lbfgs": [], "sgd": []}
    for protocol, seen in states.items():

        def choose(axes: logistic.Axes, y: Tensor, classes: int, generator: Generator, seen: list[list[int]] = seen) -> float:
            seen.append(generator.get_state().tolist())
            torch.rand(1, generator=generator)
            return 1.0

        monkeypatch.setattr(logistic, "choose_penalty", choose)
        tasks.evaluate(task_of(spec.Classification, protocol=protocol, labels=20), noisy(), Generator().manual_seed(0))
    assert states["lbfgs"] == states["sgd"]
    assert len(states["sgd"]) == tasks.LABEL_DRAWS and states["sgd"][0] != states["sgd"][1]


def test_items_of_a_class_that_was_held_out_whole_do_not_choose_the_penalty() -> None:
    """Without the twenty classes of one item each it is 10; where their items counted it would be 31.6."""
    x, y = noise(400, 3.0)
    rare = torch.arange(0, 400, 20)
    y = y.clone()
    y[rare] = torch.arange(2, 22)
    axes = logistic.principal(x)
    choices = {logistic.choose_penalty(axes, y, 22, Generator().manual_seed(seed)) for seed in range(3)}
    assert choices <= {10**0.5, 10.0}


def noise(items: int, informative: float) -> tuple[Tensor, Tensor]:
    """Forty features, of which the first tells two classes apart by so many deviations, and the classes."""
    x, y = torch.randn(items, 40, generator=Generator().manual_seed(0)), torch.arange(items) % 2
    x[:, 0] += informative * (y - 0.5)
    return x, y


def test_the_chosen_penalty_does_best_on_what_nobody_has_seen() -> None:
    """Of 300 items; the others of 60 000 judge it, by one place on the grid."""
    x, y = noise(60_000, 1.0)
    axes = logistic.principal(x[:300])
    chosen = logistic.choose_penalty(axes, y[:300], 2, Generator().manual_seed(0))

    def unseen(penalty: float) -> float:
        weights, biases = logistic.fit(axes, y[:300], 2, penalty)
        return F.cross_entropy(x[300:].double() @ weights + biases, y[300:]).item()

    best = min(logistic.PENALTIES, key=unseen)
    assert abs(math.log10(chosen / best)) <= 0.51  # half a decade is one place on the grid
    assert unseen(chosen) < unseen(logistic.PENALTY) - 0.02


@pytest.mark.parametrize(("informative", "lowest", "highest"), [(0.0, 1000, 10_000), (100.0, 1, 10)])
def test_noise_wants_a_strong_penalty_and_certainty_a_weak_one(informative: float, lowest: float, highest: float) -> None:
    x, y = noise(400, informative)
    assert lowest <= logistic.choose_penalty(logistic.principal(x), y, 2, Generator().manual_seed(0)) <= highest


def test_few_labels_have_the_usual_penalty_and_an_asked_one_is_kept() -> None:
    features = noisy()
    for labels, asked, used in ((None, 7.0, 7.0), (199, None, 1.0), (50, 3.0, 3.0)):
        score, _ = tasks.evaluate(
            task_of(spec.Classification, labels=labels, penalty=asked), features, Generator().manual_seed(0)
        )
        assert score.fitted == {"penalty": used}


def test_votes_are_weighed_by_similarity_as_worked_by_hand() -> None:
    query = torch.tensor([[1.0, 0.0]])
    bank = torch.tensor([[2.0, 0.0], [1.0, 1.0], [3.0, 3.0], [-1.0, 0.0]])  # cosines 1, sqrt(1/2), sqrt(1/2), -1
    votes = weighted_votes(query, bank, torch.tensor([0, 1, 1, 2]), classes=3, k=3, temperature=0.5)
    ratio = 2 * math.exp((math.sqrt(0.5) - 1) / 0.5)
    torch.testing.assert_close(votes, torch.tensor([[1.0, ratio, 0.0]]))
    assert ratio > 1  # two near neighbours outvote a nearer one


def test_the_budget_is_drawn_evenly_over_classes_of_any_size() -> None:
    labels = torch.cat((torch.zeros(500), torch.ones(100), torch.full((20,), 2))).long()
    chosen = tasks.labelled(labels, 62, Generator().manual_seed(0))
    assert len(chosen.unique()) == 62
    counts = labels[chosen].bincount()
    assert counts[2] == 20 and counts[:2].tolist() in ([21, 21], [20, 22], [22, 20])


def test_a_class_with_too_few_items_leaves_its_share_to_the_others() -> None:
    labels = torch.cat((torch.zeros(50), torch.ones(3))).long()
    assert labels[tasks.labelled(labels, 20, Generator().manual_seed(0))].bincount().tolist() == [17, 3]


def test_the_seed_chooses_the_labelled_items() -> None:
    labels = torch.arange(1000) % 10
    first, again, other = (tasks.labelled(labels, 50, Generator().manual_seed(seed)) for seed in (0, 0, 1))
    assert torch.equal(first, again)
    assert not torch.equal(first.sort()[0], other.sort()[0])


@pytest.mark.parametrize(("share", "trials", "interval"), [(0.8, 10, (0.4902, 0.9433)), (0.0, 10, (0.0, 0.2775))])
def test_wilson_intervals(share: float, trials: int, interval: tuple[float, float]) -> None:
    assert tasks.wilson(share, trials) == pytest.approx(interval, abs=1e-4)
