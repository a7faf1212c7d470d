"""The one number that is refitted after training: how much a critic's scores, or a classifier's, are to be trusted."""

import math
from collections.abc import Callable

from scipy.optimize import minimize_scalar


def fit(loss: Callable[[float], float], trained_at: float, items: int) -> float:
    """The temperature from 0.001 to 1000 at which calibration pairs or items lose least, in nats a piece.

    There are so many `items`; a few of them are soon told apart without a mistake, and would have the critic surer than it may
    be of others. So temperatures below the one of training bear the weight of one observation against them, log-normal with
    deviation 1, which is nothing beside hundreds of items.
    """

    def penalised(log_temperature: float) -> float:
        surer = max(math.log(trained_at) - log_temperature, 0)
        return loss(math.exp(log_temperature)) + surer**2 / (2 * items)

    found = minimize_scalar(penalised, bounds=(math.log(1e-3), math.log(1e3)), method="bounded", options={"xatol": 1e-3})
    return math.exp(found.x)
