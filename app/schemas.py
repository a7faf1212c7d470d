"""What the API answers, as typed models: they are its documentation."""

from datetime import datetime
from typing import Generic, Literal, TypeVar

from pydantic import BaseModel, ConfigDict, Field, JsonValue, field_validator

from ml.spec import DATASET_NAME, Dataset, DatasetFacts, ExperimentSpec, MiEstimate, SweepSpec, Views

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

    stage: str | None = Field(
        description="`data`, `views` where they are learned, `pretrain`, `information`, `quality` or `tasks`; of an upload "
        "`decode`, of two arrays `estimate`; null before the first."
    )
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
    low: bool = Field(False, description="Probably low by more than 5 %: above log K - 2.5, or by a caution of `ksg`.")
    saturated: bool = Field(False, description="Above log K - 1: read it as 'at least'.")
    caution: str | None = Field(None, description="Why not to take it at its word; null where nothing speaks against it.")
    repeats: tuple[float, ...] = Field((), description="The value of each training, where there were several.")


class Probe(BaseModel):
    """I_V(v; y) = H(y) less held-out cross-entropy, of linear classifiers of the trained encoder's features of the views."""

    v1: Estimate
    v2: Estimate
    both: Estimate = Field(description="Of the features of v1 and v2 side by side.")
    entropy: float = Field(description="H(y), the most there is to know, in nats.")
    fitted_on: int = Field(description="Training items on whose views the classifiers were fitted, drawn evenly.")


class Missing(BaseModel):
    """Whether the views keep what the item says of its class, I(v1;y) = I(v2;y) = I(x;y), by networks trained with labels."""

    x: Estimate = Field(description="I_V(x; y) of the undisturbed item, by a network of the encoder's architecture.")
    v1: Estimate = Field(description="I_V(v1; y), by one that was trained alike.")
    v2: Estimate
    missing_v1: Estimate = Field(description="I_V(x; y) - I_V(v1; y); its standard error is over the same items.")
    missing_v2: Estimate
    holds: bool = Field(description="Neither view misses more than 2 standard errors, or 0.05 nats where that is more.")
    accuracy: float = Field(description="Of the network of undisturbed items, on held-out ones.")
    steps: int = Field(description="In which the networks were trained: a sixth of the pretraining's at most.")


class About(BaseModel):
    """How much of what the views share is about a class y, in nats; null where items have none."""

    total: Estimate = Field(
        description="I_NCE(v1; v2) of the held-out items that have a class: `mi.infonce` where all of them have one, or none."
    )
    items: int = Field(description="Held-out items that it was read on.")
    classes: int | None = Field(description="Classes of the target.")
    nuisance: Estimate | None = Field(
        description="I(v1; v2 | y): InfoNCE with strangers of the same class; its `log_k` is their mean log, the pair included."
    )
    task: Estimate | None = Field(description="Total less nuisance: what the views share about y.")
    probe: Probe | None
    missing: Missing | None


class Information(About):
    """What the views share and keep, by the target of the first task that the views show."""

    target: str | None = Field(description="The target that is y; null where items have no class.")
    by_target: dict[str, About] | None = Field(description="The same by the dataset's other targets.")


class TaskResult(BaseModel):
    """How good the representation is for one task."""

    metric: str = Field(description="`accuracy`, of which more is better, or `pixels`, the mean distance, of which less is.")
    value: float
    ci: tuple[float, float] = Field(description="95 % interval over the held-out items and the draws of a label budget.")
    chance: float = Field(description="What always giving the same answer would score.")
    supervised: float | None = Field(
        None,
        description="Accuracy of the supervised reference, a network of the encoder's architecture trained with labels for "
        "`information.missing.steps` steps; null where there is none.",
    )
    per_class: tuple[float | None, ...] | None = Field(
        None,
        description="Accuracy on the items of each class, null for a class without held-out items; null where the target is a "
        "position.",
    )
    fitted: dict[str, float] | None = Field(
        None,
        description="Of a linear probe the `penalty`, as asked for, or chosen on held-out labelled items, or 1 where fewer than "
        "200 are labelled; of one by SGD the `learning_rate` that ended lowest, too. Medians over the draws of a label budget; "
        "null of other tasks.",
    )


class Quality(BaseModel):
    """What held-out items tell of a representation without their labels; of two views' numbers the mean."""

    lidar: float = Field(
        description="LiDAR: dimensions of embeddings that tell items apart, an effective rank up to the embedding's width. "
        "More is better. Thilak et al. 2024."
    )
    rankme: float = Field(
        description="RankMe: dimensions that the embeddings use, an effective rank up to the embedding's width. "
        "More is better. Garrido et al. 2023."
    )
    alignment: float = Field(
        description="Mean squared distance of the embeddings of an item's two views on the unit sphere, 0 to 4. Less is better. "
        "Wang and Isola 2020."
    )
    uniformity: float = Field(
        description="Log of the mean of exp(-2 |z - z'|^2) over embeddings of different items on the unit sphere, from about -4 "
        "to 0. Less is better. Wang and Isola 2020."
    )
    alpha_req: float | None = Field(
        description="alpha-ReQ: the exponent by which the eigenvalues of the features' covariance fall with their rank. Nearer "
        "to 1 is better. Null where fewer than 8 dimensions vary. Agrawal et al. 2022."
    )
    items: int = Field(description="Held-out items whose views were compared.")
    views: int = Field(description="Views of each item that LiDAR compares.")


class LogAbsDet(BaseModel):
    """log|det J| from the base space on, over the pixels of some held-out images, in nats: 0 of additive couplings."""

    mean: float
    min: float
    max: float


class LearnedViews(BaseModel):
    """How the learning of the views ended, before pretraining."""

    steps: int = Field(description="Of the map g.")
    i_nce: float | None = Field(
        description="I_NCE in nats as the game's own encoders read it last, on training items; null of supervised views, which "
        "are learned without. What the views share is `mi.infonce`."
    )
    inverse_error: float = Field(
        description="By how much the inverse of g misses some held-out images at most, in units of the base space."
    )
    log_abs_det: LogAbsDet


class Results(BaseModel):
    """What an experiment found."""

    model_config = ConfigDict(extra="allow")

    mi: dict[str, Estimate] = Field(description="I(v1; v2) by estimator; `infonce` is always there.")
    information: Information | None = Field(
        description="Its split into task and nuisance part, and what the views keep of the class; null where not measured."
    )
    tasks: dict[str, TaskResult]
    quality: Quality | None = Field(description="Label-free measures of the representation; null where not measured.")
    views: LearnedViews | None = Field(None, description="How views were learned; null of other families.")
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
    memory_bytes: int = Field(description="Main memory that the largest of them needs, about.")
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
    """A number measured during pretraining, or before it while views are learned."""

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


class PaperNumber(BaseModel):
    """A published number, read from a source."""

    label: str = Field(description="The value of the axis that it belongs to, as the axis or its labels name it.")
    task: str | None = Field(description="The task of the sweep that comes nearest; null where it is no task's.")
    metric: str = Field(description="`accuracy`, or `sweet_spot`: where on the axis the peak lies.")
    value: float = Field(description="Accuracies as shares, as everywhere here.")
    setting: str = Field(description="What it was measured on.")


class Paper(BaseModel):
    """What was published on the experiment that a preset repeats."""

    source: str
    finding: str
    numbers: list[PaperNumber] = Field([], description="Only such as were read from a source; often there are none.")
    note: str | None = Field(None, description="Why there are no numbers, or what to mind in comparing them.")


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


class SearchPlace(BaseModel):
    """A value that a search chose."""

    value: float
    short: bool = Field(description="Trained for a share of the steps only, as a hint where whole trainings pay.")


class SearchPeak(BaseModel):
    """Where a search takes the peak to be, by a Gaussian process over all it was told."""

    value: float = Field(description="Where the curve is expected to be highest.")
    value_ci: tuple[float, float] = Field(description="Interval of the peak's place, at `level`.")
    level: float = Field(description="How likely the peak lies in the interval: 0.9.")
    accuracy: float = Field(description="The task's value expected there, in its metric.")
    task: str


class SearchState(BaseModel):
    """How far a search is."""

    places: list[SearchPlace] = Field(description="Values chosen so far; `experiments[].index` counts them.")
    finished: bool
    reason: Literal["tolerance", "trainings", "cancelled", "failed"] | None = Field(
        description="Why it ended. `tolerance`: the peak is known as well as was asked. `trainings`: none are left."
    )
    error: str | None = Field(description="Why it failed.")
    spent: float = Field(description="Trainings begun; a short one counts by its share of the steps.")
    trainings: int = Field(description="The most trainings.")
    peak: SearchPeak | None = Field(description="Null until five trainings have a result.")


class SweepMember(BaseModel):
    """An experiment at its place on the axis."""

    id: str
    index: int = Field(description="Position of its value on the axis, or among the places of a search.")
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
    search: SearchState | None = Field(None, description="Where the axis is searched; null where its values are listed.")
    paper: Paper | None = Field(None, description="What was published, where the sweep comes from a preset that repeats it.")
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


class CheckpointForm(BaseModel):
    """What comes with an encoder's weights."""

    model_config = ConfigDict(extra="forbid")

    name: str | None = Field(None, max_length=200, description="A title for people; the file's own name by default.")


class Checkpoint(BaseModel):
    """An encoder's weights, from which an experiment begins that names them as its `encoder.weights`."""

    id: str = Field(examples=[f"ckp_{'0f' * 32}"], description="`ckp_` and the SHA-256 of the file.")
    name: str
    size: int = Field(description="In bytes.")
    format: Literal["safetensors", "torch"]
    links: dict[str, str]


class MiEstimateForm(MiEstimate):
    """What comes with two arrays."""

    name: str | None = Field(None, max_length=200, description="A title for people; the file's own name by default.")

    @field_validator("estimators", mode="before")
    @classmethod
    def _apart(cls, estimators: object) -> object:
        if not isinstance(estimators, str):
            return estimators
        return [name.strip() for name in estimators.split(",") if name.strip()]


class Bracket(BaseModel):
    """Between which bounds the information lies, in nats, and whose bounds they are."""

    lower: float = Field(description="In nats.")
    upper: float = Field(description="In nats.")
    lower_by: str = Field(description="The estimator that says so.")
    upper_by: str


class MiResults(BaseModel):
    """What was found of two arrays."""

    model_config = ConfigDict(extra="allow")

    mi: dict[str, Estimate] = Field(description="I(x; y) by estimator.")
    bracket: Bracket | None = Field(description="Null unless there are a lower and an upper bound against which nothing speaks.")
    verdict: str = Field(description="What may be said of it, in one line.")
    k: int = Field(description="Candidates, the positive included.")
    pairs: int = Field(description="Pairs that were measured.")
    dimensions: tuple[int, int] = Field(description="Of x and y, as they were measured: without constant columns.")
    reduced: bool = Field(description="Whether principal components took the place of columns, which were too many.")
    dropped: dict[str, list[int]] = Field(description="The constant columns of `x` and of `y`.")
    timing: dict[str, JsonValue]
    hardware: dict[str, JsonValue]


class MiEstimation(BaseModel):
    """The mutual information of two arrays of one's own, from what was asked to what was found."""

    id: str = Field(examples=["mie_0193b1c2d3e47f0a8b9c0d1e2f3a4b5c"])
    name: str
    state: State
    attempt: int = Field(description="Tries of a worker so far.")
    progress: Progress
    spec: MiEstimate
    sha256: str = Field(description="Of the file as it came.")
    size: int = Field(description="Of the file as it came, in bytes.")
    same_as: str | None = Field(description="An earlier estimate of the same file, which asked for the same and found this.")
    results: MiResults | None
    error: Failure | None = Field(description="Why it failed; while queued again, why the last attempt ended.")
    links: dict[str, str]
    created_at: datetime
    started_at: datetime | None = Field(description="When the current attempt began.")
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
    size: Literal["quick", "standard", "full"] = Field(
        "standard",
        description="`quick`: minutes on two cores. `full`: as published, for GPUs. Not every preset has all: "
        "`GET /v1/catalog/presets`.",
    )


class PresetSize(BaseModel):
    """What a size of a preset takes, and in what it is not as published."""

    trainings: int
    cost: Cost | None = Field(description="Null where it cannot be run as things stand.")
    reason: str | None = Field(description="Why there is no cost: usually a dataset that is not there.")
    differs: str | None = Field(description="In what it is not as the paper's experiment; null where it is none of the paper's.")


class PresetDryRun(SweepDryRun):
    """What a run of a preset would queue, and what its other sizes would take; nothing was queued."""

    size: str
    sizes: dict[str, PresetSize]
    paper: Paper | None


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


class Quota(BaseModel):
    """One limit of a key, and how much of it is used."""

    limit: int | None = Field(description="Null where there is none.")
    used: int


class Quotas(BaseModel):
    """The limits of a key."""

    max_queued: Quota = Field(description="Experiments, estimates and previews that wait for a worker, and searches that go on.")
    max_running: Quota = Field(description="Experiments at work at once; more wait.")
    max_stored_bytes: Quota = Field(description="Bytes of uploaded files, and of those that experiments left.")
    per_minute: Quota = Field(description="Requests in a sliding minute.")


class Key(BaseModel):
    """Who asks."""

    id: str | None = Field(description="`key_…`; null where no key is needed and none came.")
    name: str
    owner: str = Field(description="Whose the things are that it makes, and which it sees.")
    scopes: list[Literal["read", "submit", "admin"]]
    expires_at: datetime | None
    quotas: Quotas
