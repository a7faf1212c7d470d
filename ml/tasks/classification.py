"""The linear probe."""

import math

import torch
import torch.nn.functional as F
from jaxtyping import Float, Float64, Int64
from torch import Generator, Tensor

from ml import spec, tasks
from ml.tasks import Features

PENALTY = 1.0  # on half the squared weights, beside the summed cross-entropy: scikit-learn's default C = 1
EPOCHS = 100  # of SGD, with the usual batches and momentum
BATCH = 256
FEWEST_BATCHES = 16  # in an epoch: of few labels a hundred steps would not be enough
MOMENTUM = 0.9
RATE = 0.7  # where inputs are white; above about 1.3 the penalty on what hardly varies would be stepped over
RATE_BY_BATCH = 2.0  # times the items of a batch over the dimensions that vary: a batch of fewer items is mostly noise

Weights = tuple[Float64[Tensor, "F C"], Float64[Tensor, " C"]]


@tasks.implements(spec.Classification)
def classification(
    task: spec.Classification, features: Features, labelled: Int64[Tensor, " L"], generator: Generator
) -> Int64[Tensor, " M"]:
    """Predictions of multinomial logistic regression on features standardised over the training split."""
    mean, std = features.train.mean(dim=0), features.train.std(dim=0)
    std = torch.where(std > 1e-6, std, 1.0)  # a feature that never moves in training says nothing in testing either
    train, test = ((split - mean) / std for split in (features.train[labelled], features.test))
    y = features.train_targets[labelled]
    if task.protocol == "sgd":
        weights, biases = logistic_regression_by_sgd(train, y, features.classes, generator)
    else:
        weights, biases = logistic_regression(train, y, features.classes)
    return (test.double() @ weights + biases).argmax(dim=1)


def logistic_regression(x: Float[Tensor, "N F"], y: Int64[Tensor, " N"], classes: int) -> Weights:
    """Weights and biases that minimise the summed cross-entropy plus PENALTY / 2 |weights|^2, by L-BFGS in float64.

    It is sought in coordinates in which the inputs are white, because features are strongly correlated: the optimum is the same,
    and it is found in half the time.
    """
    white, unwhiten, penalties = _whitened(x.double())
    turned = torch.zeros(x.shape[1], classes, dtype=torch.float64, device=x.device, requires_grad=True)
    biases = torch.zeros(classes, dtype=torch.float64, device=x.device, requires_grad=True)
    optimiser = torch.optim.LBFGS(
        [turned, biases],
        max_iter=500,
        tolerance_grad=1e-6,
        tolerance_change=1e-10,
        history_size=20,
        line_search_fn="strong_wolfe",
    )

    def mean_loss() -> Tensor:
        optimiser.zero_grad()
        loss = F.cross_entropy(white @ turned + biases, y) + (penalties @ turned.square()).sum() / 2
        loss.backward()
        return loss

    with torch.enable_grad():
        optimiser.step(mean_loss)
    return unwhiten @ turned.detach(), biases.detach()


def logistic_regression_by_sgd(x: Float[Tensor, "N F"], y: Int64[Tensor, " N"], classes: int, generator: Generator) -> Weights:
    """The same by the field's protocol: EPOCHS of SGD with Nesterov momentum and cosine decay, in float32.

    It ends near the optimum because its coordinates are white, too. In those of the features themselves it stops on its way:
    a hundred epochs are then a penalty of their own, which depends on the learning rate and on how correlated features are.
    """
    white, unwhiten, penalties = _whitened(x.double())
    batch_size = min(math.ceil(len(x) / FEWEST_BATCHES), BATCH)
    dimensions = (1 - penalties).sum().item()  # each counts by how much it varies beside its penalty
    rate = min(RATE, RATE_BY_BATCH * batch_size / max(dimensions, 1))
    white, penalties = white.float(), penalties.float()
    turned = torch.zeros(x.shape[1], classes, device=x.device, requires_grad=True)
    biases = torch.zeros(classes, device=x.device, requires_grad=True)
    optimiser = torch.optim.SGD([turned, biases], rate, momentum=MOMENTUM, nesterov=True)
    decay = torch.optim.lr_scheduler.CosineAnnealingLR(optimiser, EPOCHS * math.ceil(len(x) / batch_size))
    with torch.enable_grad():
        for _ in range(EPOCHS):
            order = torch.randperm(len(x), generator=generator, device=generator.device)
            for batch in order.split(batch_size):
                loss = F.cross_entropy(white[batch] @ turned + biases, y[batch]) + (penalties @ turned.square()).sum() / 2
                optimiser.zero_grad()
                loss.backward()
                optimiser.step()
                decay.step()
    return unwhiten @ turned.detach().double(), biases.detach().double()


def _whitened(x: Float64[Tensor, "N F"]) -> tuple[Float64[Tensor, "N F"], Float64[Tensor, "F F"], Float64[Tensor, " F"]]:
    """The inputs in white coordinates, what makes weights of x of weights there, and the penalty on each beside the mean loss."""
    identity = torch.eye(x.shape[1], dtype=torch.float64, device=x.device)
    variances, axes = torch.linalg.eigh(x.T @ x / len(x) + PENALTY / len(x) * identity)
    unwhiten = axes * variances.rsqrt()
    return x @ unwhiten, unwhiten, PENALTY / (len(x) * variances)
