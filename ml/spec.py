"""The vocabulary: everything that can be asked of Sweetspot, on one page.

pydantic only, so that the API and the workers share it without torch in the API. Unknown fields are refused, numbers are finite,
and every part but `dataset` and `views` has a default. `resolve` turns what was asked into what will be run.
"""

from collections.abc import Iterator
from hashlib import sha256
from pathlib import Path
from typing import Annotated, Any, Literal
from zipfile import ZipFile

from pydantic import BaseModel, ConfigDict, Field, JsonValue, model_validator


class Part(BaseModel):
    """A piece of a spec: immutable, finite, and with no unknown fields."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)


class SpecError(ValueError):
    """A spec that is well-formed and still cannot be run; `pointer` is the JSON pointer of the field at fault."""

    def __init__(self, pointer: str, message: str) -> None:
        super().__init__(message)
        self.pointer = pointer
        self.message = message


Probability = Annotated[float, Field(ge=0, le=1)]


# Datasets ------------------------------------------------------------------------------------------------------------


class Dataset(Part):
    """Where the items come from, and the size at which they are seen."""

    name: str = Field(
        min_length=1,
        max_length=100,
        pattern=r"^[A-Za-z0-9][A-Za-z0-9_.-]*$",
        examples=["digits", "mnist", "cifar10"],
        description="A name of `GET /v1/catalog/datasets`, or of an npz file in the datasets folder.",
    )
    image_size: int | None = Field(
        None, ge=8, le=512, description="Side of the square images in pixels; the dataset's own by default."
    )
    version: str | None = Field(
        None,
        max_length=64,
        description="Digest of what a file of one's own holds: filled in by the service, refused where it holds other data.",
    )


class DatasetFacts(Part):
    """What must be known of a dataset to resolve a spec: counts of items, and the shape and classes of an item."""

    name: str
    train: int = Field(ge=1, description="Items for pretraining and for the probes' labels.")
    test: int = Field(ge=0, description="Held-out items: mutual information and the tasks are measured on them.")
    channels: int = Field(ge=1)
    image_size: int = Field(ge=1, description="The default side of an image in pixels.")
    classes: int | None = Field(None, description="Number of classes; null where there are no labels.")
    version: str | None = Field(None, description="Digest of what the file holds; null for the published datasets.")

    @property
    def calibration(self) -> int:
        """Held-out items kept apart to refit the temperature of I_NCE."""
        return min(self.test // 4, 1024)

    @property
    def candidates(self) -> int:
        """The largest K: held-out items from which I_NCE draws its candidates."""
        return self.test - self.calibration


def held_out(items: int) -> int:
    """Items held out of a dataset that comes without a split of its own: 40 %, to the nearest whole item."""
    return round(0.4 * items)


def npz_version(path: Path) -> str:
    """What an npz holds, as a digest of its directory, in which the checksum of each array stands: quick for any size.

    Raises OSError or zipfile.BadZipFile.
    """
    with ZipFile(path) as archive:
        content = sorted((member.filename, member.file_size, member.CRC) for member in archive.infolist())
    return sha256(repr(content).encode()).hexdigest()[:16]


# Views: one model a family --------------------------------------------------------------------------------------------


class Noise(Part):
    """v_i = x + sigma * n_i with standard Gaussian n_i, drawn anew for each view and not clipped."""

    kind: Literal["noise"]
    sigma: float = Field(
        0.5, ge=0, le=100, description="Standard deviation, in units of pixels scaled to [0, 1], before standardisation."
    )


class Crop(Part):
    """A square crop of exactly this fraction of the image at a uniform place, resized back; no flip."""

    kind: Literal["crop"]
    area: float = Field(0.5, gt=0, le=1, description="Fraction of the image's area that each view sees.")


class Augment(Part):
    """The augmentations of SimCLR, each with its strength and its chance, drawn per sample and per view.

    Applied in the order of the fields. On images of one channel, jitter changes brightness and contrast alone, and grayscale
    does nothing.
    """

    kind: Literal["augment"]
    crop_scale_min: float = Field(
        0.2, gt=0, le=1, description="c: a random resized crop takes a share of the area uniform in (c, 1)."
    )
    crop_ratio: tuple[float, float] = Field((3 / 4, 4 / 3), description="Aspect ratios of the crop, log-uniform.")
    crop_p: Probability = Field(1.0, description="Chance of the crop.")
    flip_p: Probability = Field(0.5, description="Chance of a horizontal flip.")
    jitter: float = Field(
        1.0,
        ge=0,
        le=2.5,
        description="x: brightness, contrast and saturation change by up to 0.8 x, hue by up to 0.2 x (at most 0.5).",
    )
    jitter_p: Probability = Field(0.8, description="Chance of the colour jitter.")
    grayscale_p: Probability = Field(0.2, description="Chance of grayscale.")
    blur_sigma: tuple[float, float] = Field((0.1, 2.0), description="Standard deviations of the blur in pixels, uniform.")
    blur_p: Probability = Field(0.0, description="Chance of the Gaussian blur.")

    @model_validator(mode="after")
    def _ranges_are_ordered(self) -> "Augment":
        for name in ("crop_ratio", "blur_sigma"):
            low, high = getattr(self, name)
            if not 0 < low <= high:
                raise ValueError(f"{name} must be (low, high) with 0 < low <= high, not ({low}, {high})")
        return self


Views = Annotated[Noise | Crop | Augment, Field(discriminator="kind")]


# Methods and encoders -------------------------------------------------------------------------------------------------


class SimCLR(Part):
    """NT-Xent over the 2N views of a batch. Chen et al. 2020."""

    kind: Literal["simclr"] = "simclr"
    temperature: float = Field(0.2, ge=0.005, le=10, description="Temperature of the softmax over cosine similarities.")
    projection: int = Field(64, ge=2, le=4096, description="Width of the projection in which the views are compared.")


Method = SimCLR


class SmallConv(Part):
    """Three strided 3x3 convolutions with batch norm, then the mean over positions."""

    kind: Literal["small_conv"] = "small_conv"
    width: int = Field(16, ge=4, le=512, description="Channels of the first layer; each later layer doubles them.")


class ResNet18(Part):
    """ResNet-18 with the 3x3 stem and no max pooling, as is usual on small images. He et al. 2016; Chen et al. 2020, B.9."""

    kind: Literal["resnet18"]


Encoder = Annotated[SmallConv | ResNet18, Field(discriminator="kind")]


# Pretraining, information, tasks --------------------------------------------------------------------------------------


class Pretrain(Part):
    """AdamW with linear warm-up and cosine decay, for a number of `steps` or of `epochs`."""

    steps: int | None = Field(None, ge=1, le=10_000_000, description="Optimiser steps; give these or `epochs`.")
    epochs: int | None = Field(None, ge=1, le=100_000, description="Passes over the training items; 100 where neither is given.")
    batch_size: int | None = Field(
        None, ge=2, le=65_536, description="Pairs a step; 256 by default, or all training items where there are fewer."
    )
    learning_rate: float | None = Field(
        None, gt=0, le=10, description="Peak learning rate; 0.01 for small_conv and 0.001 for deeper encoders by default."
    )
    weight_decay: float = Field(1e-4, ge=0, le=10, description="Decoupled weight decay; not on norms and biases.")
    warmup: Probability = Field(0.1, description="Share of the steps in which the learning rate rises.")
    precision: Literal["auto", "float32", "bfloat16"] = Field(
        "auto", description="Arithmetic of the encoder. `auto` is frozen to one of the others when the spec is resolved."
    )

    @model_validator(mode="after")
    def _one_length(self) -> "Pretrain":
        if self.steps is not None and self.epochs is not None:
            raise ValueError("give steps or epochs, not both")
        return self

    def total_steps(self, items: int) -> int:
        """Optimiser steps over a training split of so many items; the last short batch of an epoch is dropped."""
        return self.steps or (self.epochs or 100) * max(items // (self.batch_size or 256), 1)


class MutualInformation(Part):
    """How I(v1; v2) is measured on held-out items after pretraining."""

    estimators: tuple[Literal["infonce"], ...] = Field(
        ("infonce",), min_length=1, description="Estimators in nats; `infonce` is the lower bound log K - L_NCE."
    )
    k: int | None = Field(
        None,
        ge=2,
        le=65_536,
        description="Candidates, the positive included: the ceiling is log K. 512 by default, or as many as are held out.",
    )


class Classification(Part):
    """Linear probe: multinomial logistic regression on the frozen encoder's features of clean images."""

    kind: Literal["classification"]
    name: str | None = Field(None, min_length=1, max_length=60, description="Name in `results.tasks`; the kind by default.")
    target: Literal["label"] = Field("label", description="What is predicted.")
    labels: int | None = Field(
        None, ge=1, description="Label budget in items, drawn evenly over the classes from the training split; null: all."
    )


class KNN(Part):
    """Weighted k-nearest-neighbour vote on cosine similarity of the frozen features. Wu et al. 2018 (InstDis)."""

    kind: Literal["knn"]
    name: str | None = Field(None, min_length=1, max_length=60, description="Name in `results.tasks`; the kind by default.")
    target: Literal["label"] = Field("label", description="What is predicted.")
    labels: int | None = Field(
        None, ge=1, description="Label budget in items, drawn evenly over the classes from the training split; null: all."
    )
    k: int = Field(200, ge=1, le=10_000, description="Neighbours that vote (all labelled items where there are fewer).")
    temperature: float = Field(0.1, ge=0.005, le=10, description="A neighbour's vote weighs exp(cosine / temperature).")


Task = Annotated[Classification | KNN, Field(discriminator="kind")]


class Limits(Part):
    """When to give up."""

    seconds: float | None = Field(None, gt=0, description="Wall-clock limit of one attempt; null: none.")


# Experiment and sweep -------------------------------------------------------------------------------------------------


class ExperimentSpec(Part):
    """One pretraining on one view recipe, its mutual information and its task results."""

    model_config = ConfigDict(
        json_schema_extra={
            "examples": [
                {
                    "dataset": {"name": "digits"},
                    "views": {"kind": "noise", "sigma": 0.7},
                    "pretrain": {"steps": 300},
                    "tasks": [{"kind": "classification", "labels": 50}],
                }
            ]
        }
    )

    spec_version: Literal[1] = 1
    name: str = Field("", max_length=200, description="A title for people.")
    tags: tuple[Annotated[str, Field(min_length=1, max_length=60)], ...] = Field((), max_length=32)
    priority: int = Field(0, ge=-1000, le=1000, description="Higher runs first.")
    dataset: Dataset
    views: Views
    method: Method = SimCLR()
    encoder: Encoder = SmallConv()
    pretrain: Pretrain = Pretrain()
    mi: MutualInformation = MutualInformation()
    tasks: tuple[Task, ...] = Field(
        (Classification(kind="classification"),), max_length=16, description="What the representation is good for."
    )
    limits: Limits = Limits()
    seed: int = Field(0, ge=0, le=2**31 - 1, description="Seed of every chance; the same seed gives the same numbers on the CPU.")


class Axis(Part):
    """One node of the spec and the values it takes."""

    path: str = Field(
        min_length=1,
        max_length=200,
        pattern=r"^[a-z_0-9]+(\.[a-z_0-9]+)*$",
        examples=["views.sigma", "views"],
        description="Dotted path of any node of the spec, whole recipes included.",
    )
    values: tuple[JsonValue, ...] = Field(min_length=1, max_length=200, description="The values, in the order of the axis.")
    labels: tuple[Annotated[str, Field(min_length=1, max_length=60)], ...] | None = Field(
        None, description="A name for each value, for figures."
    )

    @model_validator(mode="after")
    def _labels_match(self) -> "Axis":
        if self.labels is not None and len(self.labels) != len(self.values):
            raise ValueError(f"labels must name each of the {len(self.values)} values, not {len(self.labels)}")
        return self

    @model_validator(mode="after")
    def _values_differ(self) -> "Axis":
        for index, value in enumerate(self.values):
            if value in self.values[:index]:  # equal trainings would count as independent ones
                raise ValueError(f"each value once; {value!r} stands there twice, and for repeats there are `seeds`")
        return self

    @property
    def ordered(self) -> bool:
        """Whether the values are numbers, which have an order for the two-lines test to run over."""
        return all(_is_number(value) for value in self.values)


class SweepSpec(Part):
    """Experiments along one axis of a base spec, times seeds."""

    model_config = ConfigDict(
        json_schema_extra={
            "examples": [
                {
                    "name": "noise on digits",
                    "seeds": 3,
                    "axis": {"path": "views.sigma", "values": [0, 0.1, 0.4, 0.7, 1, 2.5]},
                    "base": {
                        "dataset": {"name": "digits"},
                        "views": {"kind": "noise"},
                        "pretrain": {"steps": 300},
                        "tasks": [{"kind": "classification", "labels": 50}],
                    },
                }
            ]
        }
    )

    name: str = Field("", max_length=200, description="A title for people.")
    base: ExperimentSpec
    axis: Axis
    seeds: int = Field(3, ge=1, le=100, description="Trainings at each value, with seeds counted up from the base's.")

    @model_validator(mode="after")
    def _not_too_many(self) -> "SweepSpec":
        if len(self.axis.values) * self.seeds > 1000:
            raise ValueError(f"{len(self.axis.values)} values times {self.seeds} seeds; at most 1000 trainings a sweep")
        return self


# From what was asked to what is run -----------------------------------------------------------------------------------


def resolve(spec: ExperimentSpec, facts: DatasetFacts, precision: Literal["float32", "bfloat16"] = "float32") -> ExperimentSpec:
    """Fill in what depends on the dataset and the hardware, and refuse what cannot be run.

    Resolving is idempotent. Raises SpecError with the pointer of the first field at fault.
    """
    batch_size = spec.pretrain.batch_size or min(256, facts.train)
    if batch_size > facts.train:
        raise SpecError(
            "/pretrain/batch_size",
            f"{batch_size} pairs a step, but {facts.name} has {facts.train} training items; at most {facts.train}",
        )
    k = spec.mi.k or min(512, facts.candidates)
    if not 2 <= k <= facts.candidates:
        raise SpecError(
            "/mi/k", f"K = {k} candidates, but {facts.name} has {facts.candidates} held-out items; 2 to {facts.candidates}"
        )
    pretrain: dict[str, Any] = {"batch_size": batch_size}
    if spec.pretrain.learning_rate is None:
        pretrain["learning_rate"] = 1e-2 if isinstance(spec.encoder, SmallConv) else 1e-3
    if spec.pretrain.steps is None and spec.pretrain.epochs is None:
        pretrain["epochs"] = 100
    if spec.pretrain.precision == "auto":
        pretrain["precision"] = precision
    parts: dict[str, Any] = {
        "dataset": _resolve_dataset(spec.dataset, facts),
        "pretrain": spec.pretrain.model_copy(update=pretrain),
        "mi": spec.mi.model_copy(update={"k": k}),
        "tasks": tuple(_resolve_tasks(spec.tasks, facts)),
    }
    return spec.model_copy(update=parts)


def expand(sweep: SweepSpec) -> Iterator[tuple[int, ExperimentSpec]]:
    """The sweep's experiments as (index of the axis value, spec), values in order and seeds within a value.

    Raises SpecError at `/axis/path` for a path that is no node of the spec, and pydantic's ValidationError for a value that the
    spec refuses.
    """
    if (root := sweep.axis.path.split(".")[0]) in ("seed", *NOT_DECISIVE, "spec_version"):
        raise SpecError("/axis/path", f"{root!r} is no axis, since it decides no numbers; repeats come by `seeds`")
    for index in range(len(sweep.axis.values)):
        at_value = ExperimentSpec.model_validate(_with_node(sweep.base, sweep.axis, index))
        for seed in range(sweep.seeds):
            yield index, at_value.model_copy(update={"seed": sweep.base.seed + seed})


NOT_DECISIVE = ("name", "tags", "priority", "limits")


def identity(spec: ExperimentSpec) -> dict[str, Any]:
    """The part of a resolved spec that decides its numbers: all but its title, tags, priority and limits."""
    return spec.model_dump(mode="json", exclude=set(NOT_DECISIVE))


def _resolve_dataset(dataset: Dataset, facts: DatasetFacts) -> Dataset:
    if dataset.version not in (None, facts.version):
        raise SpecError("/dataset/version", f"{facts.name} holds version {facts.version} now, not {dataset.version}")
    return dataset.model_copy(update={"image_size": dataset.image_size or facts.image_size, "version": facts.version})


def _resolve_tasks(tasks: tuple[Task, ...], facts: DatasetFacts) -> Iterator[Task]:
    names: set[str] = set()
    for index, task in enumerate(tasks):
        name = task.name or task.kind
        if name in names:
            raise SpecError(f"/tasks/{index}/name", f"two tasks are called {name!r}; give each a name of its own")
        if facts.classes is None:
            raise SpecError(
                f"/tasks/{index}/target", f"{facts.name} has no labels; leave tasks empty, or choose a labelled dataset"
            )
        if task.labels is not None and not facts.classes <= task.labels <= facts.train:
            raise SpecError(
                f"/tasks/{index}/labels",
                f"a budget of {task.labels} labels; {facts.name} accepts {facts.classes} (one a class) to {facts.train} (all)",
            )
        names.add(name)
        yield task.model_copy(update={"name": name})


def _with_node(base: ExperimentSpec, axis: Axis, index: int) -> dict[str, Any]:
    root = base.model_dump(mode="json")
    node: Any = root
    value = axis.values[index]
    *parents, last = (int(key) if key.isdigit() else key for key in axis.path.split("."))
    try:
        for key in parents:
            node = node[key]
        was, node[last] = node[last], value  # a node that is there: a typo must not become a new field
    except (KeyError, IndexError, TypeError):
        raise SpecError("/axis/path", f"{axis.path!r} is no node of the spec; for example 'views.sigma' or 'views'") from None
    if _is_number(was) and isinstance(value, str | bool):  # pydantic would read "0.5" and true as numbers; the axis would not
        raise SpecError(f"/axis/values/{index}", f"{axis.path} takes numbers, not {value!r}")
    return root


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)
