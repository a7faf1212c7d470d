"""What views share, how much of it is about a class, and what of the class they lost: read on held-out items."""

import math
from collections.abc import Callable, Generator, Sequence
from dataclasses import dataclass, replace
from typing import Any, TypeVar

import torch
from jaxtyping import Float, Int64
from torch import Tensor

from ml import spec, supervised, views
from ml.datasets import Data, Split
from ml.encoders import PixelEncoder
from ml.events import Checkpoint, Progress
from ml.methods import Method
from ml.mi import Estimate, infonce, probe
from ml.mi import split as parts
from ml.mi.estimate import estimate
from ml.mi.probe import Answers, Classes, Probe
from ml.supervised import Missing, Reference, Triple

MOST_ROUNDS = 32  # over few held-out items: more would say little more of them
PAIRS_MEASURED = 4096  # at least, and every held-out item at least three times
PROBE_ITEMS = 5000  # training items at most on whose views the probes are fitted
CHUNK = 512  # items whose views are made at a time

T = TypeVar("T")


@dataclass(frozen=True)
class About:
    """How much of what the views share is about a class y, in nats; None where items have none."""

    total: Estimate
    """I(v1; v2), of the held-out items that have a class; of all where none has."""
    items: int
    """Held-out items that it was read on."""
    classes: int | None = None
    nuisance: Estimate | None = None
    """I(v1; v2 | y)."""
    task: Estimate | None = None
    """Total less nuisance."""
    probe: Probe | None = None
    """I_V(v; y) by the trained encoder's features."""
    missing: Missing | None = None
    """I(x; y) - I(v; y) by the supervised reference."""


@dataclass(frozen=True)
class Information(About):
    """About the first task's target, and about the others that the dataset has."""

    target: str | None = None
    by_target: dict[str, About] | None = None


@dataclass(frozen=True, eq=False)
class HeldOut:
    """Batches of held-out items, each other's candidates: of some items to set the temperature, of others to be read."""

    calibrating: list[Int64[Tensor, " k"]]
    evaluating: list[Int64[Tensor, " K"]]


@dataclass(frozen=True, eq=False)
class Labelled:
    """Items that have a class in each target, and how many classes those have."""

    classes: dict[str, int]
    train: Int64[Tensor, " L"]
    calibration: Int64[Tensor, " M"]
    evaluation: Int64[Tensor, " N"]


def measure(
    asked: spec.ExperimentSpec,
    data: Data,
    method: Method,
    fresh: Callable[[], Sequence[PixelEncoder]],
    generator: Callable[[str], torch.Generator],
    snapshot: Callable[[], Checkpoint],
) -> Generator[Progress, None, tuple[dict[str, Estimate], Information]]:
    """I(v1; v2) by each estimator that was asked for, and what of I_NCE is about the class.

    `fresh` makes encoders like the method's, but untrained; `generator` makes one for each purpose, always the same.
    """
    chances = generator("information")
    held_out = _hold_out(asked, data, chances)
    labelled = _labelled(asked, data, held_out)
    steps = 0 if labelled is None else supervised.steps(asked.pretrain, data.facts.train, len(labelled.train))
    planned = len(held_out.evaluating) + (0 if labelled is None else steps + _readings(labelled))
    pace = _Pace(planned, snapshot)

    i_nce, shared = yield from pace.follow(_shared(asked, data, method, held_out, labelled, chances))
    information = Information(i_nce, items=len(torch.cat(held_out.evaluating).unique()))
    if labelled is not None:
        chances = generator("reference")
        reference = yield from pace.follow(_reference(asked, data, fresh(), labelled, steps, chances))
        known = yield from pace.follow(_known(asked, data, method, reference, labelled, steps, chances))
        about = {
            target: About(
                total=found.total,
                items=len(labelled.evaluation),
                classes=labelled.classes[target],
                nuisance=found.nuisance,
                task=found.task,
                probe=known[target][0],
                missing=known[target][1],
            )
            for target, found in shared.items()
        }
        target = next(iter(about))
        information = Information(**vars(about.pop(target)), target=target, by_target=about)
    others = yield from pace.follow(_by_others(asked, data, method, generator("estimators")), each=0)
    return {"infonce": i_nce, **others}, information


class _Pace:
    """Says how far the stage is."""

    def __init__(self, planned: int, snapshot: Callable[[], Checkpoint]) -> None:
        self.planned = planned
        self.snapshot = snapshot
        self.done = 0

    def follow(self, steps: Generator[Any, None, T], each: int = 1) -> Generator[Progress, None, T]:
        """Progress for each of these steps, of which each counts for so much; what they return."""
        while True:
            try:
                next(steps)
            except StopIteration as end:
                found: T = end.value
                return found
            self.done += each
            yield Progress("information", self.done, self.planned, self.snapshot)


def _hold_out(asked: spec.ExperimentSpec, data: Data, chances: torch.Generator) -> HeldOut:
    shuffled = torch.randperm(data.facts.test, generator=chances, device=chances.device)
    k = asked.mi.k
    assert k is not None, "a resolved spec has it"

    def batches(items: Int64[Tensor, " N"]) -> list[Int64[Tensor, " k"]]:
        if isinstance(asked.views, spec.Patches):  # K counts pairs, of which a photograph has many
            pairs = torch.randint(len(items), (math.ceil(PAIRS_MEASURED / k), k), generator=chances, device=chances.device)
            return list(items[pairs])
        rounds = min(max(3, math.ceil(PAIRS_MEASURED / len(items))), MOST_ROUNDS)
        return [items[batch] for batch in infonce.candidate_batches(len(items), min(k, len(items)), rounds, chances)]

    calibration, evaluation = shuffled[: data.facts.calibration], shuffled[data.facts.calibration :]
    return HeldOut(batches(calibration), batches(evaluation))


def _labelled(asked: spec.ExperimentSpec, data: Data, held_out: HeldOut) -> Labelled | None:
    """Items with a class in each target that views show, the first task's target first; None where there are too few."""
    classes = {name: count for name, count in data.facts.targets().items() if count and name in data.test.targets}
    if isinstance(asked.views, spec.Factors):
        classes = {"digit": classes["digit"]}  # the others are drawn anew for each pair
    if not classes:
        return None
    first = [task.target for task in asked.tasks if task.dataset in (None, asked.dataset) and task.target in classes]
    classes = {name: classes[name] for name in dict.fromkeys((*first, *classes))}

    def known(split: Split, items: Int64[Tensor, " N"]) -> Int64[Tensor, " M"]:
        return items[torch.stack([split.targets[name][items] >= 0 for name in classes]).all(dim=0)]

    labelled = Labelled(
        classes,
        known(data.train, torch.arange(len(data.train), device=data.device)),
        known(data.test, torch.cat(held_out.calibrating).unique()),
        known(data.test, torch.cat(held_out.evaluating).unique()),
    )
    few = min(len(labelled.train), len(labelled.calibration), len(labelled.evaluation)) < 2
    return None if few else labelled


def _shared(
    asked: spec.ExperimentSpec, data: Data, method: Method, held_out: HeldOut, labelled: Labelled | None, chances: torch.Generator
) -> Generator[None, None, tuple[Estimate, dict[str, parts.Split]]]:
    """I_NCE with fresh views, and its parts by each target; each with a temperature of its own, from items of its own."""

    def similarities(items: Int64[Tensor, " K"]) -> Float[Tensor, "K K"]:
        with torch.no_grad():
            return method.similarities(*method.views(asked.views, data.test.take(items), chances))

    found = [similarities(items) for items in held_out.calibrating]
    temperature = infonce.fit_temperature(found, _trained_at(asked), data.facts.calibration)
    targets = {} if labelled is None else {target: data.test.targets[target] for target in labelled.classes}
    within = {}  # the temperatures of the nuisance parts: a critic that knows the class alone must read 0, and not below
    for target, y in targets.items():
        blocks = [
            block
            for scores, items in zip(found, held_out.calibrating, strict=True)
            for _, block in parts.of_one_class(scores, y[items])
        ]
        within[target] = infonce.fit_temperature(blocks, _trained_at(asked), data.facts.calibration)
    whole = []
    of_class: dict[str, list[tuple[Tensor, ...]]] = {target: [] for target in targets}
    for items in held_out.evaluating:
        scores = similarities(items)
        whole.append(infonce.contributions(scores / temperature))
        for target, y in targets.items():
            which, nuisance, log_candidates = parts.contributions(scores / within[target], y[items])
            of_class[target].append((items[which], whole[-1][which], nuisance, log_candidates))
        yield
    k = len(held_out.evaluating[0])
    shared = {}
    for target, batches in of_class.items():
        items, *contributed = (torch.cat(part) for part in zip(*batches, strict=True))
        total, nuisance, log_candidates = (infonce.by_item(part, items) for part in contributed)
        shared[target] = parts.split(total, nuisance, log_candidates, k)
    return infonce.from_contributions(torch.cat(whole), torch.cat(held_out.evaluating), k), shared


def _trained_at(asked: spec.ExperimentSpec) -> float:
    assert asked.method.temperature is not None, "a resolved spec has it"
    return asked.method.temperature


def _reference(
    asked: spec.ExperimentSpec,
    data: Data,
    encoders: Sequence[PixelEncoder],
    labelled: Labelled,
    steps: int,
    chances: torch.Generator,
) -> Generator[None, None, Reference]:
    """The supervised reference, trained on the training items that have a class."""

    def draw(items: Int64[Tensor, " B"]) -> Triple:
        return _triple(asked, data.train, items, chances)

    reference = Reference(encoders, draw(labelled.train[:2]), labelled.classes).to(data.device)
    reference.to(memory_format=torch.channels_last)  # type: ignore[call-overload] # as the method is
    labels = {target: data.train.targets[target] for target in labelled.classes}
    yield from supervised.train(reference, asked.pretrain, steps, labelled.train, labels, draw, chances)
    return reference


def _readings(labelled: Labelled) -> int:
    """Steps of `_known`."""
    held_out = len(labelled.calibration) + len(labelled.evaluation)
    return math.ceil(min(len(labelled.train), PROBE_ITEMS) / CHUNK) + math.ceil(held_out / CHUNK) + 3 * len(labelled.classes)


def _known(
    asked: spec.ExperimentSpec,
    data: Data,
    method: Method,
    reference: Reference,
    labelled: Labelled,
    steps: int,
    chances: torch.Generator,
) -> Generator[None, None, dict[str, tuple[Probe, Missing | None]]]:
    """What linear probes of the trained encoders tell of each target from fresh views, and what the reference tells."""
    even = torch.linspace(0, len(labelled.train) - 1, min(len(labelled.train), PROBE_ITEMS), device=data.device).long()
    fitted_on = labelled.train[even]
    held_out = torch.cat((labelled.calibration, labelled.evaluation))
    train, test, answers = [], [], []
    for items in fitted_on.split(CHUNK):
        train.append(_features(method, _triple(asked, data.train, items, chances)))
        yield
    for items in held_out.split(CHUNK):
        triple = _triple(asked, data.test, items, chances)
        test.append(_features(method, triple))
        with torch.no_grad():
            answers.append(reference(triple))
        yield
    features = [tuple(torch.cat(view) for view in zip(*split, strict=True)) for split in (train, test)]
    sizes = [len(labelled.calibration), len(labelled.evaluation)]
    known = {}
    for target, count in labelled.classes.items():
        y = data.train.targets[target][fitted_on]
        frequencies = probe.log_frequencies(data.train.targets[target][labelled.train], count)
        calibration, evaluation = data.test.targets[target][held_out].split(sizes)
        classes = Classes(calibration, evaluation, frequencies)
        of_views = []
        for chosen in (slice(0, 1), slice(1, 2), slice(0, 2)):
            seen, unseen = (torch.cat(split[chosen], dim=1) for split in features)
            said = Answers(*probe.linear(seen, y, unseen, count).split(sizes))
            of_views.append(probe.estimate(probe.contributions(said, classes)))
            yield
        v1, v2, both = of_views
        logits = torch.cat([of_chunk[target] for of_chunk in answers], dim=1)
        of_x, of_v1, of_v2 = (Answers(*of_one.split(sizes)) for of_one in logits)
        missing = supervised.missing(of_x, of_v1, of_v2, classes, steps, probed=both)
        known[target] = Probe(v1, v2, both, classes.entropy(), len(fitted_on)), missing
    return known


def _triple(asked: spec.ExperimentSpec, split: Split, items: Int64[Tensor, " B"], chances: torch.Generator) -> Triple:
    """Undisturbed items, and fresh views of them."""
    taken = split.take(items)
    v1, v2 = views.make(asked.views, taken, chances)
    return views.clean(asked.views, taken), (v1,), (v2,)


def _features(method: Method, triple: Triple) -> tuple[Float[Tensor, "B F"], Float[Tensor, "B G"]]:
    """The trained encoders' of v1 and v2."""
    _, (v1,), (v2,) = triple
    with torch.no_grad():
        return method.encoders[0](v1), method.encoders[-1](v2)


def _by_others(
    asked: spec.ExperimentSpec, data: Data, method: Method, chances: torch.Generator
) -> Generator[object, None, dict[str, Estimate]]:
    """I(z1; z2) of the embeddings of held-out views, by the estimators that were asked for beside InfoNCE."""
    names = tuple(name for name in asked.mi.estimators if name != "infonce")
    if not names:
        return {}
    if isinstance(asked.views, spec.Patches):
        items = torch.randint(len(data.test), (PAIRS_MEASURED,), generator=chances, device=chances.device)
    else:
        items = torch.randperm(len(data.test), generator=chances, device=chances.device)[: spec.MOST_PAIRS]
    embedded = []
    for chunk in items.split(CHUNK):
        with torch.no_grad():
            embedded.append(method.embeddings(*method.views(asked.views, data.test.take(chunk), chances)))
        yield None
    z1, z2 = (torch.cat(view).cpu() for view in zip(*embedded, strict=True))
    of_photographs = items.cpu() if isinstance(asked.views, spec.Patches) else None  # their patches are alike
    seed = int(torch.randint(2**31 - 1, (), generator=chances, device=chances.device))
    found = yield from estimate(spec.MiEstimate(estimators=names, critic=asked.mi.critic, seed=seed), z1, z2, of_photographs)
    return {name: _of_views(read) for name, read in found.mi.items()}


def _of_views(found: Estimate) -> Estimate:
    """What is said of z1 and z2 as it may be said of v1 and v2, of which they are functions: I(z1; z2) <= I(v1; v2)."""
    if found.kind != "upper":
        return found
    more = "an upper bound on what the embeddings share, and the views may share more"
    return replace(found, kind="neither", caution=more if found.caution is None else f"{more}; {found.caution}")
