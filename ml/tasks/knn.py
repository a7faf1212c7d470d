"""The k-nearest-neighbour vote."""

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int64
from torch import Generator, Tensor

from ml import spec, tasks
from ml.tasks import Answer, Features


@tasks.implements(spec.KNN)
def knn(task: spec.KNN, features: Features, labelled: Int64[Tensor, " L"], generator: Generator) -> Answer:
    """Predictions of the k labelled items most similar to each held-out one."""
    bank, labels = features.train[labelled], features.train_targets[labelled]
    votes = [
        weighted_votes(queries, bank, labels, features.classes, task.k, task.temperature) for queries in features.test.split(1024)
    ]
    return Answer(torch.cat(votes).argmax(dim=1))


def weighted_votes(
    queries: Float[Tensor, "M F"],
    bank: Float[Tensor, "L F"],
    labels: Int64[Tensor, " L"],
    classes: int,
    k: int,
    temperature: float,
) -> Float[Tensor, "M C"]:
    """For each class the sum of exp(cosine / temperature) over its items among the k nearest, up to a factor of the query's own.

    Wu et al. 2018, section 3.4.
    """
    cosines = F.normalize(queries, dim=1) @ F.normalize(bank, dim=1).T
    nearest, items = cosines.topk(min(k, len(bank)), dim=1)
    votes = torch.exp((nearest - nearest[:, :1]) / temperature)
    return votes.new_zeros(len(queries), classes).scatter_add_(1, labels[items], votes)
