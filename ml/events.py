"""What an experiment says while it runs. The consumer decides what to keep, and cancels by not asking for more."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

if TYPE_CHECKING:
    from torch import Tensor

StageName = Literal["data", "views", "pretrain", "information", "quality", "tasks", "estimate"]


@dataclass(frozen=True)
class Stage:
    """A stage begins."""

    name: StageName


@dataclass(frozen=True, eq=False)
class Checkpoint:
    """Everything that training needs to go on from `step` as if never disturbed; tensors for safetensors, scalars for JSON.

    Steps are counted from the first stage on: those in which views are learned come before those of pretraining.
    """

    step: int
    tensors: "Mapping[str, Tensor]"
    scalars: Mapping[str, float]


@dataclass(frozen=True, eq=False)
class Progress:
    """`step` of the stage's `total` steps are done.

    `snapshot()` copies the state of training, which costs a copy of all weights; it may be called until the next event is
    asked for. None while there is nothing to copy yet.
    """

    stage: StageName
    step: int
    total: int
    snapshot: Callable[[], Checkpoint] | None


@dataclass(frozen=True)
class Metric:
    """A reading while views are learned or during pretraining, after `step` steps of that stage."""

    name: str
    step: int
    value: float


@dataclass(frozen=True, eq=False)
class Artifact:
    """A file that the experiment made."""

    name: str
    media_type: str
    content: bytes


@dataclass(frozen=True, eq=False)
class Result:
    """The end: what `results` of the experiment is, ready for JSON."""

    results: dict[str, Any]


Event = Stage | Progress | Metric | Artifact | Result
