"""The linear probe."""

import torch
import torch.nn.functional as F
from jaxtyping import Float, Float64, Int64
from torch import Tensor

from ml import spec, tasks
from ml.tasks import Features

PENALTY = 1.0  # on half the squared weights, beside the summed cross-entropy: scikit-learn's default C = 1


@tasks.implements(spec.Classification)
def classification(task: spec.Classification, features: Features, labelled: Int64[Tensor, " L"]) -> Int64[Tensor, " M"]:
    """Predictions of multinomial logistic regression on features standardised over the training split."""
    mean, std = features.train.mean(dim=0), features.train.std(dim=0)
    std = torch.where(std > 1e-6, std, 1.0)  # a feature that never moves in training says nothing in testing either
    train, test = ((split - mean) / std for split in (features.train[labelled], features.test))
    weights, biases = logistic_regression(train, features.train_targets[labelled], features.classes)
    return (test.double() @ weights + biases).argmax(dim=1)


def logistic_regression(
    x: Float[Tensor, "N F"], y: Int64[Tensor, " N"], classes: int
) -> tuple[Float64[Tensor, "F C"], Float64[Tensor, " C"]]:
    """Weights and biases that minimise the summed cross-entropy plus PENALTY / 2 |weights|^2, by L-BFGS in float64.

    It is sought in coordinates in which the inputs are white, because features are strongly correlated: the optimum is the same,
    and it is found in half the time.
    """
    x = x.double()
    variances, axes = torch.linalg.eigh(x.T @ x / len(x) + PENALTY / len(x) * torch.eye(x.shape[1], device=x.device))
    unwhiten: Tensor = axes * variances.rsqrt()
    white = x @ unwhiten
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
        penalty = PENALTY / (2 * len(x)) * (unwhiten @ turned).square().sum()
        loss = F.cross_entropy(white @ turned + biases, y) + penalty
        loss.backward()
        return loss

    with torch.enable_grad():
        optimiser.step(mean_loss)
    weights: Tensor = unwhiten @ turned.detach()
    return weights, biases.detach()
