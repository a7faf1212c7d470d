"""Estimators of mutual information, in nats. One file an estimator; `ml.spec.ESTIMATORS` says what each of them claims."""

from dataclasses import dataclass
from typing import Literal


@dataclass(frozen=True)
class Estimate:
    """A mutual information in nats, with what is needed to judge it."""

    value: float
    stderr: float
    """Of the held-out estimate: over items, whose contributions are first averaged over their rounds."""
    kind: Literal["lower", "upper", "neither"]
    """Which side of the truth it bounds."""
    log_k: float | None = None
    """The ceiling; None where there is none."""
    low: bool = False
    """It may be more than 5 % too low: above log K - 2.5, or where neighbours are too far apart to be counted."""
    saturated: bool = False
    """Above log K - 1: the ceiling is what was measured; say "at least"."""
    caution: str | None = None
    """Why not to take it at its word; None where nothing speaks against it."""
    repeats: tuple[float, ...] = ()
    """The value of each training, where there were several."""
