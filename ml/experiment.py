"""One experiment, top to bottom: data, pretraining, information, tasks. It yields events and does not know who listens."""

import math
import time
from collections.abc import Callable, Generator, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from functools import partial
from io import BytesIO
from typing import Any
from zipfile import ZipFile, ZipInfo

import numpy as np
import torch
from jaxtyping import Bool, Float, Float64, Int64
from safetensors.torch import save
from torch import Tensor
from torch.nn.parallel import DistributedDataParallel
from torch.nn.utils import clip_grad_norm_
from torch.optim import Optimizer

from ml import datasets, distributed, encoders, information, methods, optimiser, preview, quality, takeaway, tasks, views
from ml.datasets import Data, Library, Split
from ml.encoders import PixelEncoder, Standardise, Whiten
from ml.events import Artifact, Checkpoint, Event, Metric, Progress, Result, Stage
from ml.hardware import hardware
from ml.information import Information
from ml.learned_views import stage as learned_views
from ml.learned_views.learning import Outcome
from ml.live import Live
from ml.methods import Method, Setting
from ml.optimiser import Average, finite, learning_rate, set_rate
from ml.spec import ColorSplit, ConvLSTM, Dataset, ExperimentSpec, Frozen, Patches, resolve
from ml.views import Views
from ml.weights import load as load_weights

METRIC_POINTS = 50  # of each metric in a run
STATISTICS_ITEMS = 10_000  # from which the encoder's standardisation is computed
MOST_EMBEDDED = 32_000_000  # bytes of features that are kept of both splits


def run(spec: ExperimentSpec, library: Library, device: torch.device, resume: Checkpoint | None = None) -> Iterator[Event]:
    """Carry out a resolved spec on the datasets of the library, from the beginning or from a checkpoint of the same spec.

    The same spec gives the same numbers, bit for bit on a CPU with the same number of threads, resumed or not. To cancel, stop
    iterating. Raises DatasetMissing, DatasetInvalid, CheckpointInvalid, SpecError (the spec does not fit the dataset) and
    Diverged.
    """
    timing: dict[str, float] = {}
    started = time.perf_counter()
    yield Stage("data")
    spec, data, loaded = yield from _prepare(spec, library, device)
    timing["data"] = time.perf_counter() - started
    spec, outcome = yield from learned_views.learn(spec, data, partial(_generator, spec, device=device), resume)
    yield Artifact("preview.png", "image/png", preview.of_data(data, spec.views, 8, spec.seed, spec.method))
    if outcome is not None:
        timing["views"] = outcome.seconds
        yield from learned_views.show(spec, data)
    training = _begin(spec, data, library, device, outcome, resume)

    yield Stage("pretrain")
    yield from _pretrain(spec, data, training)
    timing["pretrain"] = training.seconds
    method = training.method.eval()

    started = time.perf_counter()
    yield Stage("information")
    fresh, generator = partial(_untrained, spec, data, device), partial(_generator, spec, device=device)
    mi, found = yield from information.measure(spec, data, method, fresh, generator, training.snapshot)
    timing["information"] = time.perf_counter() - started

    started = time.perf_counter()
    yield Stage("quality")
    label_free = yield from quality.measure(spec, data, method, generator("quality"), training.snapshot)
    timing["quality"] = time.perf_counter() - started

    started = time.perf_counter()
    yield Stage("tasks")
    scores, merits, encoded = yield from _evaluate_tasks(spec, library, training, found)
    timing["tasks"] = time.perf_counter() - started

    yield from _take_away(spec, data, library, training, merits, encoded)
    timing["pairs_per_second"] = training.step * _batch_size(spec) / max(training.seconds, 1e-9)
    yield Result(
        {
            "mi": {name: asdict(estimate) for name, estimate in mi.items()},
            "information": asdict(found),
            "tasks": scores,
            "quality": asdict(label_free),
            "views": None if outcome is None else learned_views.examine(data, outcome),
            "timing": timing,
            "hardware": hardware(device),
            "data": {
                "digest": data.digest,
                "train": data.facts.train,
                "test": data.facts.test,
                "transfer": {dataset.name: found.digest for dataset, found in loaded.items() if dataset != spec.dataset},
            },
        }
    )


Encoded = dict[Dataset, tuple[Tensor, Tensor]]
"""Features of the two splits of datasets."""


def pretrain(spec: ExperimentSpec, library: Library, device: torch.device, resume: Checkpoint | None = None) -> Iterator[Event]:
    """The pretraining alone: the checkpoint of its last step is one from which `run` goes on to measure.

    Where a process group is there its processes train together, each calling this with the same arguments. Raises as `run` does.
    """
    yield Stage("data")
    spec, data, _ = yield from _prepare(spec, library, device)
    spec, outcome = yield from learned_views.learn(spec, data, partial(_generator, spec, device=device), resume)
    training = _begin(spec, data, library, device, outcome, resume)
    yield Stage("pretrain")
    yield from _pretrain(spec, data, training)


def _prepare(
    spec: ExperimentSpec, library: Library, device: torch.device
) -> Generator[Event, None, tuple[ExperimentSpec, Data, dict[Dataset, Data]]]:
    """The spec as it will be run, its dataset, and all datasets that it names."""
    as_photographs = isinstance(spec.views, Patches)
    wanted = [(spec.dataset, as_photographs), *((task.dataset, False) for task in spec.tasks if task.dataset)]
    for dataset, whole in wanted:
        for done, total in datasets.prepare(dataset, library, whole):
            yield Progress("data", done, total, snapshot=None)
    loaded = {dataset: datasets.load(dataset, library, device, whole) for dataset, whole in wanted}
    data = datasets.load(spec.dataset, library, device, as_photographs)
    return resolve(spec, lambda dataset, _: loaded[dataset].facts), data, loaded


@dataclass(eq=False)
class Training:
    """What changes while training, and what a checkpoint therefore holds."""

    method: Method
    optimiser: Optimizer
    generator: torch.Generator
    order: Int64[Tensor, " N"]
    """The training items in the order of the epoch that runs; photographs come round until a batch is full."""
    average: Average | None
    """Of the weights, where that is what is measured."""
    views: Outcome | None
    """Of the game in which the views were learned, where they were."""
    step: int = 0
    seconds: float = 0.0

    def snapshot(self) -> Checkpoint:
        """A copy, in main memory."""
        tensors = {f"method.{name}": tensor for name, tensor in self.method.state_dict().items()}
        tensors |= optimiser.moments(self.optimiser, "optimiser")
        if self.average is not None:
            tensors |= {f"average.{index}": tensor for index, tensor in enumerate(self.average.weights)}
        tensors |= {"generator": self.generator.get_state(), "order": self.order}
        weights, numbers = ({}, {}) if self.views is None else self.views.kept()
        copies = {name: tensor.detach().to("cpu", copy=True).contiguous() for name, tensor in (tensors | weights).items()}
        return Checkpoint(self.step_before + self.step, copies, {"seconds": self.seconds} | numbers)

    @property
    def step_before(self) -> int:
        """Steps of the stages before."""
        return 0 if self.views is None else self.views.steps


def _begin(
    spec: ExperimentSpec,
    data: Data,
    library: Library,
    device: torch.device,
    outcome: Outcome | None,
    resume: Checkpoint | None,
) -> Training:
    """Pretraining at its beginning, or where a checkpoint of it was taken."""
    training = _start(spec, data, library, device, outcome)
    if resume is None or (outcome is not None and not Outcome.stands_in(resume)):
        return training
    return _resume(training, resume)


def _start(spec: ExperimentSpec, data: Data, library: Library, device: torch.device, outcome: Outcome | None) -> Training:
    examples = _examples(spec, data, device)
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(_seed(spec, "weights"))
        pixel_encoders = _pixel_encoders(spec, data, device)
        if spec.encoder.weights is not None:
            load_weights(library.checkpoint(spec.encoder.weights), pixel_encoders)
        widths = _widths(pixel_encoders, examples)
        classes = {name: target for name, target in data.train.targets.items() if not target.is_floating_point()}
        method = methods.build(spec.method, Setting(pixel_encoders, widths, data.facts.train, spec.views, classes))
    if method.synced:
        distributed.synced(method)
    # Channels last is faster in either precision, on a CPU too; torch's stubs forget that a module can be told.
    method = method.to(device).to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    return Training(
        method=method,
        optimiser=optimiser.build(method, spec.pretrain),
        generator=_generator(spec, "pretrain", device),
        order=torch.arange(data.facts.train, device=device),
        average=None if spec.pretrain.ema is None else Average(method, spec.pretrain.ema),
        views=outcome,
    )


def _untrained(spec: ExperimentSpec, data: Data, device: torch.device) -> list[PixelEncoder]:
    """Encoders as pretraining began with, but of other weights."""
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(_seed(spec, "reference"))
        return _pixel_encoders(spec, data, device)


def _pixel_encoders(spec: ExperimentSpec, data: Data, device: torch.device) -> list[PixelEncoder]:
    """One, or one for each view; their weights come from torch's global generator."""
    return [
        PixelEncoder(
            encoders.build(spec.encoder, view.shape[-3], spec.method.norm), standardise, spec.pretrain.precision == "bfloat16"
        )
        for view, standardise in zip(_examples(spec, data, device), _standardisers(spec, data, device), strict=False)
    ]


def _examples(spec: ExperimentSpec, data: Data, device: torch.device) -> Views:
    """Views of two items, for their shapes."""
    return views.make(spec.views, data.train.take(torch.arange(2, device=device)), _generator(spec, "examples", device))


def _widths(pixel_encoders: Sequence[PixelEncoder], examples: Views) -> list[int]:
    """Of the features of v1 and v2, or of both if one encoder reads both and they are of one shape."""
    v1, v2 = examples
    apart = len(pixel_encoders) == 2 or v1.ndim != v2.ndim
    of_each = zip((pixel_encoders[0], pixel_encoders[-1]), (v1, v2) if apart else (v1,), strict=False)
    return [encoder.features if view.ndim == 4 else encoder.clip_features for encoder, view in of_each]


def _standardisers(spec: ExperimentSpec, data: Data, device: torch.device) -> list[Standardise | Whiten]:
    """What stands before each encoder, from the clean inputs of training items; from patches where there are photographs."""
    generator = _generator(spec, "statistics", device)
    items = torch.linspace(0, len(data.train) - 1, min(len(data.train), STATISTICS_ITEMS), device=device).long()
    moments: list[Moments] = []
    for chunk in items.split(512):
        batch = data.train.take(chunk)
        drawn = isinstance(batch, datasets.Photographs)
        inputs = views.make(spec.views, batch, generator)[:1] if drawn else views.clean(spec.views, batch)
        moments = moments or [Moments(pixels.shape[1], device) for pixels in inputs]
        for found, pixels in zip(moments, inputs, strict=True):
            found.add(pixels)
    whiten = isinstance(spec.views, ColorSplit) and spec.views.whiten
    return [
        Whiten(found.mean().float(), found.covariance()) if whiten else Standardise(found.mean().float(), found.deviation())
        for found in moments
    ]


class Moments:
    """Mean and covariance of channels, added up in float64."""

    def __init__(self, channels: int, device: torch.device) -> None:
        self.pixels = 0
        self.sums = torch.zeros(channels, dtype=torch.float64, device=device)
        self.products = torch.zeros(channels, channels, dtype=torch.float64, device=device)

    def add(self, images: Float[Tensor, "B C H W"]) -> None:
        """Count a batch in."""
        pixels = images.transpose(0, 1).flatten(1).double()
        self.pixels += pixels.shape[1]
        self.sums += pixels.sum(dim=1)
        self.products += pixels @ pixels.T

    def mean(self) -> Float64[Tensor, " C"]:
        """Of each channel."""
        return self.sums / self.pixels

    def covariance(self) -> Float64[Tensor, "C C"]:
        """Of the channels."""
        mean = self.mean()
        return self.products / self.pixels - torch.outer(mean, mean)

    def deviation(self) -> Float[Tensor, " C"]:
        """Standard deviation of each channel; 1 where a channel has no contrast, so that it stays as it is."""
        deviation = self.covariance().diagonal().clamp(min=0).sqrt()
        return torch.where(deviation > 1e-6, deviation, 1.0).float()


def _resume(training: Training, checkpoint: Checkpoint) -> Training:
    parts: dict[str, dict[str, Tensor]] = {"method": {}}
    for name, tensor in checkpoint.tensors.items():
        part, _, rest = name.partition(".")
        parts.setdefault(part, {})[rest] = tensor
    training.method.load_state_dict(parts["method"])
    optimiser.restore(training.optimiser, checkpoint.tensors, "optimiser")
    if training.average is not None:
        for place, weights in enumerate(training.average.weights):
            weights.copy_(parts["average"][str(place)])
    training.generator.set_state(checkpoint.tensors["generator"])
    training.order = checkpoint.tensors["order"].to(training.order.device)
    training.step = checkpoint.step - training.step_before
    training.seconds = checkpoint.scalars["seconds"]
    return training


def _pretrain(spec: ExperimentSpec, data: Data, training: Training) -> Iterator[Event]:
    items, batch_size = data.facts.train, _batch_size(spec)
    steps = _steps(spec, items)
    steps_an_epoch = max(items // batch_size, 1)
    every = max(math.ceil(steps / METRIC_POINTS), 1)
    method = training.method.train()
    live = Live(spec, data, _generator(spec, "live", data.device))
    loss_of: Callable[..., Tensor] = method
    if distributed.processes() > 1:
        some_idle = isinstance(spec.encoder, ConvLSTM)  # whose LSTM has nothing to do where there are no clips
        loss_of = DistributedDataParallel(method, broadcast_buffers=False, find_unused_parameters=some_idle)
    while training.step < steps:
        started = time.perf_counter()
        batch = training.step % steps_an_epoch
        if batch == 0:
            rounds = range(math.ceil(batch_size / items))
            orders = [torch.randperm(items, generator=training.generator, device=training.generator.device) for _ in rounds]
            training.order = torch.cat(orders)
        chosen = training.order[batch * batch_size : (batch + 1) * batch_size]
        drawn = method.draw(spec.views, data.train.take(chosen), training.generator)
        loss = loss_of(drawn, chosen, training.generator)
        rate = learning_rate(spec.pretrain, training.step, steps)
        set_rate(training.optimiser, rate)
        training.optimiser.zero_grad()
        loss.backward()
        if spec.pretrain.gradient_clip is not None:
            clip_grad_norm_(method.parameters(), spec.pretrain.gradient_clip)
        training.optimiser.step()
        method.update()
        if training.average is not None:
            training.average.follow(training.step)
        training.step += 1
        training.seconds += time.perf_counter() - started
        if training.step % every == 0 or training.step == steps:
            yield Metric("loss", training.step, finite(loss, training.step))
            yield Metric("learning_rate", training.step, rate)
        yield from live.measure(method, training.step)
        yield Progress("pretrain", training.step, steps, training.snapshot)
    if training.average is not None:
        training.average.install()


def _evaluate_tasks(
    spec: ExperimentSpec, library: Library, training: Training, known: Information
) -> Generator[Event, None, tuple[dict[str, Any], dict[str, Tensor], Encoded]]:
    """The tasks on the frozen encoders' features of clean items, by their names; each dataset is encoded once.

    Also what each held-out item scored, a mean over draws of labels, and its place in the split.
    """
    encoded: Encoded = {}
    scores: dict[str, Any] = {}
    merits: dict[str, Tensor] = {}
    device = training.generator.device
    for step, task in enumerate(spec.tasks, start=1):
        dataset = task.dataset or spec.dataset
        data = datasets.load(dataset, library, device)
        if dataset not in encoded:
            of_train, of_test = (_features(spec, training.method, split) for split in (data.train, data.test))
            encoded[dataset] = (of_train, of_test)
        train, test = (_with_target(*part, task.target) for part in zip((data.train, data.test), encoded[dataset], strict=True))
        features = tasks.Features(*train, *test, classes=data.facts.targets()[task.target] or 0)
        score, of_items = tasks.evaluate(task, features, _generator(spec, "labels", device))
        name = task.name or task.kind
        scores[name] = asdict(replace(score, supervised=_supervised(known, task.target) if dataset == spec.dataset else None))
        has_it = _known(data.test)[list(data.test.targets).index(task.target)]
        merits |= {f"{name}.merits": of_items.float(), f"{name}.items": has_it.nonzero()[:, 0]}
        yield Progress("tasks", step, len(spec.tasks), training.snapshot)
    return scores, merits, encoded


def _take_away(
    spec: ExperimentSpec, data: Data, library: Library, training: Training, merits: Mapping[str, Tensor], encoded: Encoded
) -> Iterator[Artifact]:
    """The encoders, what they make of the dataset, and how each held-out item fared."""
    for which, encoder in enumerate(training.method.encoders, start=1):
        weights = {name: tensor.contiguous() for name, tensor in encoder.state_dict().items()}
        name = "encoder.safetensors" if len(training.method.encoders) == 1 else f"encoder_v{which}.safetensors"
        yield Artifact(name, "application/octet-stream", save(weights))
    yield Artifact("load_encoder.py", "text/x-python", takeaway.load_encoder(spec).encode())
    if merits:
        yield Artifact("predictions.npz", "application/x-npz", _npz(merits))
    sizeless = isinstance(spec.views, Patches) and data.facts.layout == "photos"
    if spec.dataset in encoded or not sizeless:
        yield Artifact("embeddings.npz", "application/x-npz", _embeddings(spec, library, training, encoded.get(spec.dataset)))


def _supervised(known: Information, target: str) -> float | None:
    """Accuracy of the supervised reference on undisturbed items."""
    about = known if target == known.target else (known.by_target or {}).get(target)
    return about.missing.accuracy if about is not None and about.missing is not None else None


def _embeddings(spec: ExperimentSpec, library: Library, training: Training, encoded: tuple[Tensor, Tensor] | None) -> bytes:
    """An npz of features of clean items of the dataset with their targets: of both splits where they are few, else held out."""
    data = datasets.load(spec.dataset, library, training.generator.device)
    train, test = encoded or (None, _features(spec, training.method, data.test))
    kept = {"test": (data.test, test)}
    if train is not None and (len(train) + len(test)) * test.shape[1] * 4 <= MOST_EMBEDDED:
        kept = {"train": (data.train, train)} | kept
    arrays = {}
    for name, (split, features) in kept.items():
        arrays[name] = features
        arrays |= {f"{name}_{target}": values[_known(split).any(dim=0)] for target, values in split.targets.items()}
    return _npz(arrays)


def _npz(arrays: Mapping[str, Tensor]) -> bytes:
    """The same bytes for the same arrays, unlike np.savez's, which know the time."""
    content = BytesIO()
    with ZipFile(content, "w") as archive:
        for name, tensor in arrays.items():
            with archive.open(ZipInfo(f"{name}.npy"), "w", force_zip64=True) as file:
                np.lib.format.write_array(file, tensor.cpu().numpy(), allow_pickle=False)
    return content.getvalue()


def _features(spec: ExperimentSpec, method: Method, split: Split) -> Float[Tensor, "N F"]:
    """Features of the items that have any target, or of all where there is none."""
    everything = torch.arange(len(split), device=next(method.parameters()).device)
    items = everything[_known(split).any(dim=0)] if split.targets else everything
    return method.features(spec.views, split, items)


def _with_target(split: Split, features: Float[Tensor, "N F"], target: str) -> tuple[Float[Tensor, "M F"], Tensor]:
    """Of those features the ones of items that have this target, and the targets."""
    known = _known(split)
    has_it = known[list(split.targets).index(target)]
    return features[has_it[known.any(dim=0)]], split.targets[target][has_it]


def _known(split: Split) -> Bool[Tensor, "targets N"]:
    """Which items have which of the split's targets: places are always known, and classes but for -1."""
    return torch.stack(
        [
            torch.ones(len(target), dtype=torch.bool, device=target.device) if target.is_floating_point() else target >= 0
            for target in split.targets.values()
        ]
    )


def _generator(spec: ExperimentSpec, purpose: str, device: torch.device) -> torch.Generator:
    return torch.Generator(device).manual_seed(_seed(spec, purpose))


def _seed(spec: ExperimentSpec, purpose: str) -> int:
    """A seed of its own for each purpose, so that drawing more for one does not move the others."""
    return int(np.random.SeedSequence((spec.seed, *purpose.encode())).generate_state(1)[0])


def _steps(spec: ExperimentSpec, items: int) -> int:
    """Of pretraining over so many items."""
    return 0 if isinstance(spec.method, Frozen) else spec.pretrain.total_steps(items)


def _batch_size(spec: ExperimentSpec) -> int:
    assert spec.pretrain.batch_size is not None, "a resolved spec has it"
    return spec.pretrain.batch_size
