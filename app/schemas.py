"""What the API answers, as typed models: they are its documentation."""

from datetime import datetime
from typing import Generic, Literal, TypeVar

from pydantic import BaseModel, ConfigDict, Field, JsonValue

from ml.spec import DATASET_NAME, Dataset, DatasetFacts, ExperimentSpec, SweepSpec, Views

State = Literal["queued", "running", "cancelling", "succeeded", "failed", "cancelled"]
Item = TypeVar("Item")


class FieldProblem(BaseModel):
    """One field at fault."""

    pointer: str = Field(
        description="JSON pointer into the body, or `query/NAME`, `path/NAME`, `header/NAME`.", examples=["/mi/k"]
    )
    message: str = Field(description="What it got and what it would accept.")


class Problem(BaseModel):
    """A problem document, RFC 9457."""

    model_config = ConfigDict(extra="allow")

    type: str = Field(description="Kind of problem.", examples=["urn:sweetspot:problem:invalid"])
    title: str
    status: int
    detail: str
    errors: list[FieldProblem] = Field(description="The fields at fault, if any.")
    request_id: str
    retryable: bool = Field(description="Whether the same request may succeed later.")


class Page(BaseModel, Generic[Item]):
    """A page of a list."""

    data: list[Item]
    has_more: bool
    next_cursor: str | None = Field(description="Pass it as `cursor` to get the next page.")


class Progress(BaseModel):
    """How far the current stage is."""

    stage: str | None = Field(description="`data`, `pretrain`, `information` or `tasks`; null before the first.")
    step: int
    total: int | None
    rate: float | None = Field(description="Steps per second.")
    eta_s: float | None = Field(description="Seconds until the stage ends, at this rate.")


class Estimate(BaseModel):
    """A mutual information in nats, with what is needed to judge it."""

    value: float
    stderr: float = Field(description="Standard error of the held-out estimate.")
    kind: Literal["lower", "upper", "neither"] = Field(description="Which side of the truth it bounds.")
    log_k: float | None = Field(None, description="The ceiling; null where there is none.")
    low: bool = Field(False, description="Above log K - 2.5: probably low by more than 5 %.")
    saturated: bool = Field(False, description="Above log K - 1: read it as 'at least'.")
    caution: str | None = Field(None, description="Why not to take it at its word; null where nothing speaks against it.")
    repeats: tuple[float, ...] = Field((), description="The value of each training, where there were several.")


class TaskResult(BaseModel):
    """How good the representation is for one task."""

    metric: str = Field(description="`accuracy`, of which more is better, or `pixels`, the mean distance, of which less is.")
    value: float
    ci: tuple[float, float] = Field(description="95 % interval over the held-out items.")
    chance: float = Field(description="What always giving the same answer would score.")
    per_class: tuple[float | None, ...] | None = Field(
        None,
        description="Accuracy on the items of each class, null for a class without held-out items; null where the target is a "
        "position.",
    )


class Results(BaseModel):
    """What an experiment found."""

    model_config = ConfigDict(extra="allow")

    mi: dict[str, Estimate] = Field(description="I(v1; v2) by estimator; `infonce` is always there.")
    information: dict[str, JsonValue] | None = Field(description="Its split into task and nuisance; null where not measured.")
    tasks: dict[str, TaskResult]
    quality: dict[str, JsonValue] | None = Field(
        description="Label-free measures of the representation; null where not measured."
    )
    timing: dict[str, JsonValue]
    hardware: dict[str, JsonValue]


class Failure(BaseModel):
    """Why an attempt ended."""

    model_config = ConfigDict(extra="allow")

    code: str = Field(description="`invalid`, `user`, `oom`, `stalled`, `timeout`, `lost`, `drained` or `internal`.")
    message: str


class Experiment(BaseModel):
    """An experiment, from its spec to its results."""

    id: str
    name: str
    state: State
    attempt: int = Field(description="Tries of a worker so far.")
    progress: Progress
    spec: ExperimentSpec
    results: Results | None
    error: Failure | None = Field(description="Why it failed; while queued again, why the last attempt ended.")
    retry_of: str | None
    links: dict[str, str]
    created_at: datetime
    started_at: datetime | None = Field(description="When the current attempt began.")
    finished_at: datetime | None


class Cost(BaseModel):
    """What an experiment or a sweep is likely to take."""

    trainings: int
    seconds: float = Field(description="On one worker, all trainings one after another.")
    basis: str = Field(description="Where the estimate comes from.")


class DryRun(BaseModel):
    """The resolved spec and its cost; nothing was queued."""

    spec: ExperimentSpec
    cost: Cost


class SweepDryRun(BaseModel):
    """The resolved sweep and its cost; nothing was queued."""

    spec: SweepSpec
    cost: Cost


class Event(BaseModel):
    """Something that happened to an experiment."""

    seq: int
    attempt: int
    type: str
    data: dict[str, JsonValue]
    at: datetime


class MetricPoint(BaseModel):
    """A number measured during pretraining."""

    name: str
    step: int
    value: float | None


class Metrics(BaseModel):
    """The current attempt's metrics."""

    data: list[MetricPoint]


class Artifact(BaseModel):
    """A file that an experiment left."""

    name: str
    media_type: str
    size: int = Field(description="Bytes.")
    sha256: str
    url: str


class Artifacts(BaseModel):
    """An experiment's files."""

    data: list[Artifact]


class Reproduce(BaseModel):
    """All that is needed to come to the same numbers."""

    spec: ExperimentSpec
    seed: int
    versions: dict[str, str]
    data: JsonValue
    hardware: JsonValue
    command: str


class SweepCounts(BaseModel):
    """Experiments of a sweep by state."""

    queued: int = 0
    running: int = 0
    cancelling: int = 0
    succeeded: int = 0
    failed: int = 0
    cancelled: int = 0
    total: int = 0


class SweepProgress(BaseModel):
    """How far a sweep is, in experiments."""

    step: float = Field(description="Finished experiments and the finished shares of those that run.")
    total: int
    eta_s: float | None


class SweepMember(BaseModel):
    """An experiment at its place on the axis."""

    id: str
    index: int = Field(description="Position of its value on the axis.")
    value: JsonValue
    seed: int
    state: State
    reused: bool = Field(description="It was finished before this sweep was asked for, and is not trained again.")
    progress: Progress
    error: Failure | None


class SweepSummary(BaseModel):
    """A sweep in a list."""

    id: str
    name: str
    state: State
    counts: SweepCounts
    links: dict[str, str]
    created_at: datetime


class Sweep(SweepSummary):
    """A sweep, with its experiments."""

    spec: SweepSpec
    progress: SweepProgress
    experiments: list[SweepMember]
    started_at: datetime | None
    finished_at: datetime | None


class PreviewRequest(BaseModel):
    """Which view pairs to show."""

    model_config = ConfigDict(
        extra="forbid",
        json_schema_extra={"examples": [{"dataset": {"name": "digits"}, "views": {"kind": "noise", "sigma": 0.4}}]},
    )

    dataset: Dataset
    views: Views


class Preview(BaseModel):
    """A picture in the making; its `Location` answers the PNG once it is there."""

    id: str
    state: State
    error: Failure | None
    links: dict[str, str]


UploadLayout = Literal["class_folders", "photos", "array", "clips", "paired"]
UploadState = Literal["processing", "ready", "rejected"]


class UploadForm(BaseModel):
    """What comes with an uploaded file."""

    model_config = ConfigDict(extra="forbid")

    name: str | None = Field(None, max_length=200, description="A title for people; the file's own name by default.")
    layout: UploadLayout | None = Field(
        None,
        description="`class_folders`: a zip with a folder of images for each class. `photos`: a zip of images of any sizes in "
        "any folders. `array`: an npz of `x` [N, H, W] or [N, H, W, C]. `clips`: an npz of `clips` [N, T, H, W, C]. `paired`: an "
        "npz of `v1` and `v2`. An npz may have labels `y` [N] and a `split` [N]. Guessed where it is left out.",
    )


class Upload(BaseModel):
    """A dataset of one's own. Experiments name it by its `id`, and may do so while it is still `processing`."""

    id: str = Field(examples=["ds_0193b1c2d3e47f0a8b9c0d1e2f3a4b5c"])
    name: str
    layout: UploadLayout | None = Field(description="As it was asked for; null: guessed.")
    state: UploadState
    reason: str | None = Field(description="Why it was rejected; while it is processed again, why the last attempt ended.")
    progress: Progress
    sha256: str = Field(description="Of the file as it came.")
    size: int = Field(description="Of the file as it came, in bytes.")
    same_as: str | None = Field(description="An earlier upload of the same file and layout, whose decoded form this one shares.")
    facts: DatasetFacts | None = Field(description="What is known of it once it is ready.")
    links: dict[str, str]
    created_at: datetime
    started_at: datetime | None = Field(description="When the current attempt at decoding it began.")
    finished_at: datetime | None


class PresetRun(BaseModel):
    """How to run a preset."""

    model_config = ConfigDict(extra="forbid")

    name: str | None = Field(None, max_length=200, description="A title for the sweep; the preset's own by default.")
    seed: int | None = Field(None, ge=0, le=2**31 - 101, description="The first seed; the others count up from it.")
    dataset: str | None = Field(
        None,
        min_length=1,
        max_length=100,
        pattern=DATASET_NAME,
        description="What to pretrain on instead of the preset's own dataset, for example an upload, `ds_…`.",
    )


class Variant(BaseModel):
    """Something that can be asked for, with the JSON Schema of its parameters."""

    model_config = ConfigDict(extra="allow")

    name: str
    description: str
    schema_: dict[str, JsonValue] | None = Field(alias="schema")


class Catalog(BaseModel):
    """All that can be asked for of one sort."""

    data: list[Variant]


class Health(BaseModel):
    """Alive, and what of."""

    status: str
    checks: dict[str, str] = {}


class Version(BaseModel):
    """What code answers."""

    version: str
    code: str
