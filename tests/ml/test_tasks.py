import math
import typing

import pytest
import torch
from sklearn.datasets import load_digits
from sklearn.linear_model import LogisticRegression
from torch import Generator, Tensor

from ml import spec, tasks
from ml.tasks import Features
from ml.tasks.classification import logistic_regression
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


@pytest.mark.parametrize("kind", KINDS)
class TestEveryTaskOfClasses:
    @pytest.mark.parametrize("labels", [None, 8])
    def test_separable_features_score_one(self, kind: type[spec.Part], labels: int | None) -> None:
        score = tasks.evaluate(task_of(kind, labels=labels), separable(), Generator().manual_seed(0))
        assert score.metric == "accuracy"
        assert score.value == 1
        assert score.ci[0] < 1 and score.ci[1] == pytest.approx(1)
        assert score.chance == 0.25
        assert score.per_class == (1.0, 1.0, 1.0, 1.0)

    def test_features_without_information_score_chance(self, kind: type[spec.Part]) -> None:
        generator = Generator().manual_seed(0)
        x, y = torch.randn(2000, 4, generator=generator), torch.arange(2000) % 2
        features = Features(x[:1000], y[:1000], x[1000:], y[1000:], 2)
        score = tasks.evaluate(task_of(kind), features, Generator().manual_seed(0))
        assert score.value == pytest.approx(0.5, abs=4 * 0.5 / 1000**0.5)

    def test_held_out_labels_are_not_looked_at(self, kind: type[spec.Part]) -> None:
        features = separable()
        wrong = Features(features.train, features.train_targets, features.test, (features.test_targets + 1) % 4, 4)
        assert tasks.evaluate(task_of(kind), wrong, Generator().manual_seed(0)).value == 0


def test_accuracies_of_classes_average_to_the_accuracy() -> None:
    generator = Generator().manual_seed(0)
    x, y = torch.randn(900, 4, generator=generator), torch.arange(900) % 3
    score = tasks.evaluate(task_of(spec.KNN), Features(x[:600], y[:600], x[600:], y[600:], 4), Generator().manual_seed(0))
    assert score.per_class is not None and score.per_class[3] is None  # a class without held-out items
    assert sum(share for share in score.per_class if share is not None) / 3 == pytest.approx(score.value)


def test_the_probe_agrees_with_scikit_learn() -> None:
    x, y = load_digits(return_X_y=True)
    inputs, labels = torch.from_numpy(x[:300] / 16), torch.from_numpy(y[:300])
    weights, biases = logistic_regression(inputs, labels, classes=10)
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
    assert tasks.evaluate(task_of(spec.Classification), dead, Generator().manual_seed(0)).value == 1


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
