"""Where something is in the image."""

import torch
from jaxtyping import Float, Float64, Int64
from torch import Generator, Tensor

from ml import spec, tasks
from ml.tasks import Answer, Features, standardised

PENALTY = 1.0  # on the squared weights, beside the summed squared errors: scikit-learn's default alpha = 1


@tasks.implements(spec.Localization)
def localization(task: spec.Localization, features: Features, labelled: Int64[Tensor, " L"], generator: Generator) -> Answer:
    """Places in pixels by ridge regression on features standardised over the training split."""
    train, test = standardised(features, labelled)
    weights, biases = ridge(train, features.train_targets[labelled])
    return Answer((test.double() @ weights + biases).float())


def ridge(
    x: Float[Tensor, "N F"], y: Float[Tensor, "N D"], penalty: float = PENALTY
) -> tuple[Float64[Tensor, "F D"], Float64[Tensor, " D"]]:
    """Weights and biases that minimise |x weights + biases - y|^2 + penalty |weights|^2, in closed form and float64."""
    x, y = x.double(), y.double()
    x_mean, y_mean = x.mean(dim=0), y.mean(dim=0)
    centred = x - x_mean
    damping = penalty * torch.eye(min(x.shape), dtype=torch.float64, device=x.device)
    if len(x) < x.shape[1]:  # the same, with fewer equations to solve
        weights = centred.T @ torch.linalg.solve(centred @ centred.T + damping, y - y_mean)
    else:
        weights = torch.linalg.solve(centred.T @ centred + damping, centred.T @ (y - y_mean))
    return weights, y_mean - x_mean @ weights
