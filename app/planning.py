"""From what was asked to what will be run, and what that is likely to cost."""

import json
import math
from contextlib import suppress
from typing import Any, Literal

from pydantic import ValidationError
from sqlalchemy import Float, func, select
from sqlalchemy.orm import Session

from app import datasets, memory
from app.errors import FieldError, Invalid, StateConflict
from app.persistence import checkpoints, hardware, workers
from app.persistence.datasets import Named
from app.persistence.models import Experiment
from app.preset_documents import Size
from app.presets import Preset
from app.problems import field_errors
from app.schemas import Cost, PresetRun, PresetSize
from app.settings import settings
from ml.spec import (
    WHOLE,
    Dataset,
    DatasetFacts,
    ExperimentSpec,
    Learned,
    Search,
    SpecError,
    SweepSpec,
    Views,
    ablated,
    expand,
    resolve,
    tried,
)

# Pairs of stills per second on one CPU core at 16x16 pixels, where width is a choice at width 16. With the image's side and with
# width the rates fall by these powers, which fit small_conv at 16 and 32 pixels and widths 16 to 64.
REFERENCE_RATE = {
    "small_conv": 14_000.0,
    "small_alexnet": 1_300.0,
    "resnet18": 60.0,
    "resnet34": 30.0,
    "resnet50": 20.0,
    "conv_lstm": 7_000.0,
}
SIDE_POWER, WIDTH_POWER = 1.6, 1.3
FIXED_SECONDS = 2.0  # for loading, the information, the quality and the tasks
REFERENCE_SHARE = 1 / 8  # of the pretraining: what the supervised reference takes where items have classes
HIGHEST_SEED = 2**31 - 1  # that a spec accepts


def plan(session: Session, spec: ExperimentSpec) -> ExperimentSpec:
    """The resolved spec, or one that waits for an upload to be decoded. Raises Invalid with the field at fault."""
    try:
        named = Named(session)
        return _that_fits(session, _resolved(session, spec, named, _precision(session)), named)
    except SpecError as error:
        raise Invalid.field(error.pointer, error.message) from None


def plan_preview(session: Session, dataset: Dataset, views: Views) -> ExperimentSpec:
    """The same for views that are to be looked at, whatever training on them would take. Raises Invalid."""
    try:
        return _resolved(session, ExperimentSpec(dataset=dataset, views=views), Named(session), _precision(session))
    except SpecError as error:
        raise Invalid.field(error.pointer, error.message) from None


def plan_sweep(
    session: Session, sweep: SweepSpec, precision: Literal["float32", "bfloat16"] | None = None
) -> tuple[SweepSpec, list[tuple[int, ExperimentSpec]]]:
    """The resolved sweep and its resolved trainings, with one arithmetic for all, the workers' unless it is known.

    Raises Invalid with the fields at fault.
    """
    precision = precision or _precision(session)
    named = Named(session)
    if sweep.axis.search is not None:
        return _plan_search(session, sweep, sweep.axis.search, named, precision)
    trainings = []
    if sweep.axis.ablate:
        sweep = _with_recipes(sweep, named)
    if sweep.base.seed + sweep.seeds - 1 > HIGHEST_SEED:
        raise Invalid.field("/base/seed", f"at most {HIGHEST_SEED} less the other {sweep.seeds - 1} seeds, not {sweep.base.seed}")
    try:
        for index, spec in expand(sweep):
            trainings.append((index, _plan_member(session, sweep, index, spec, named, precision)))
    except SpecError as error:
        raise Invalid.field(error.pointer, error.message) from None
    except ValidationError as error:
        index = len(trainings) // sweep.seeds
        found = tuple(FieldError(f"/axis/values/{index}", item.message) for item in field_errors(error, None))
        detail = f"{sweep.axis.path}: {found[0].message}"
        raise Invalid(detail, errors=found) from None
    return sweep.model_copy(update={"base": _resolved_base(sweep, trainings[0][1], precision)}), trainings


def _with_recipes(sweep: SweepSpec, named: Named) -> SweepSpec:
    """A sweep that ablates, with the recipes that it compares. Raises Invalid with the field at fault."""
    try:
        known = None if named.awaited(sweep.base) else facts(sweep.base.dataset, "/base/dataset").channels
        return ablated(sweep, known)
    except SpecError as error:
        raise Invalid.field(error.pointer, error.message) from None


def _plan_search(
    session: Session, sweep: SweepSpec, search: Search, named: Named, precision: Literal["float32", "bfloat16"]
) -> tuple[SweepSpec, list[tuple[int, ExperimentSpec]]]:
    """The resolved search, with trainings as it may come to: at its ends and between them. Raises Invalid."""
    most = HIGHEST_SEED - search.trainings
    if sweep.base.seed > most:
        raise Invalid.field("/base/seed", f"at most {most}, since each value may be repeated, not {sweep.base.seed}")
    search = search if search.step is not None else _whole_numbers(sweep, search)
    grid = search.grid()
    likely = []
    with datasets.looked_up_once():
        for value in (grid[0], grid[-1], *grid[1:-1]):
            name = {grid[0]: "/low", grid[-1]: "/high"}.get(value, "")
            try:
                ((_, spec),) = expand(tried(sweep, value))
                likely.append(_that_fits(session, _resolved(session, spec, named, precision), named))
            except SpecError as error:
                raise _not_searched(sweep, name, value, error.pointer, error.message) from None
            except ValidationError as error:
                found = field_errors(error, None)[0]
                raise _not_searched(sweep, name, value, "/axis", found.message) from None
            except Invalid as error:
                raise _not_searched(sweep, name, value, error.errors[0].pointer, error.detail) from None
    if named.awaited(likely[0]):  # what tasks there are is known once it is decoded
        pretrain = sweep.base.pretrain.model_copy(update={"precision": likely[0].pretrain.precision})
        waits = sweep.model_copy(update={"base": sweep.base.model_copy(update={"pretrain": pretrain})})
        return waits, [(0, spec) for spec in likely[: search.trainings]]
    names = [task.name for task in likely[0].tasks]
    if not names:
        raise Invalid.field("/base/tasks", "a search needs a task whose peak it seeks, and the dataset has none to offer")
    if search.task not in (None, *names):
        raise Invalid.field("/axis/search/task", f"{' or '.join(map(str, names))}, not {search.task!r}")
    axis = sweep.axis.model_copy(update={"search": search.model_copy(update={"task": search.task or names[0]})})
    resolved = sweep.model_copy(update={"base": _resolved_base(sweep, likely[0], precision), "axis": axis, "seeds": 1})
    ends_and_middle = [likely[0], likely[1], likely[len(likely) // 2]]
    return resolved, [(0, ends_and_middle[number % 3]) for number in range(search.trainings)]


def _whole_numbers(sweep: SweepSpec, search: Search) -> Search:
    """The search with `step` 1 where the axis takes whole numbers only."""
    broken = next((value for value in search.grid() if value != int(value)), None)
    if broken is None:
        return search
    try:
        list(expand(tried(sweep, broken)))
    except ValidationError:
        whole = float(math.ceil(search.low))
        with suppress(ValidationError):
            list(expand(tried(sweep, whole)))
            return _with_step_one(search)
    except SpecError:  # which is told where it is planned
        pass
    return search


def _with_step_one(search: Search) -> Search:
    try:
        return Search.model_validate(search.model_dump() | {"step": 1.0})
    except ValidationError as error:
        raise Invalid.field("/axis/search", f"the axis takes whole numbers; {field_errors(error, None)[0].message}") from None


def _not_searched(sweep: SweepSpec, name: str, value: float, pointer: str, message: str) -> Invalid:
    """What is wrong with a value of a searching sweep whose training has a fault at `pointer`, in terms of the sweep.

    `name` says which end of the search the value is, or is empty between them.
    """
    if pointer == "/axis/path" or (name and not pointer.startswith("/axis") and not _at_node(sweep, pointer)):
        return Invalid.field(pointer if pointer == "/axis/path" else f"/base{pointer}", message)
    hint = "" if name else "; `step` leaves values out"
    return Invalid.field(f"/axis/search{name}", f"{sweep.axis.path} cannot be {value:g}: {message}{hint}")


def _at_node(sweep: SweepSpec, pointer: str) -> bool:
    return f"{pointer}/".startswith("/" + sweep.axis.path.replace(".", "/") + "/")


def plan_preset(session: Session, preset: Preset, run: PresetRun) -> tuple[SweepSpec, list[tuple[int, ExperimentSpec]]]:
    """The same for a preset. Raises Invalid at `/dataset` or `/size`, the fields of a run that a preset may not fit."""
    sweep = preset.at(run.size) if run.dataset is None else preset.on(run.dataset, run.size)
    base = sweep.base if run.seed is None else sweep.base.model_copy(update={"seed": run.seed})
    try:
        return plan_sweep(session, sweep.model_copy(update={"base": base, "name": run.name or sweep.name}))
    except Invalid as error:
        found = tuple(FieldError("/dataset", _of_preset(item)) for item in error.errors)
        raise Invalid(found[0].message, errors=found) from None


def sizes_of_preset(session: Session, preset: Preset, dataset: str | None = None) -> dict[Size, PresetSize]:
    """What each size of a preset takes; without a cost, and why, where it cannot be run as things stand."""
    found: dict[Size, PresetSize] = {}
    precision = _precision(session)
    for size in preset.documents:
        sweep = preset.at(size) if dataset is None else preset.on(dataset, size)
        estimate, reason = None, None
        try:  # each value once: seeds cost alike
            _, once = plan_sweep(session, sweep.model_copy(update={"seeds": 1}), precision)
            of_one = cost(session, *(training for _, training in once))
            seconds = float(f"{of_one.seconds * sweep.seeds:.3g}")
            estimate = of_one.model_copy(update={"trainings": of_one.trainings * sweep.seeds, "seconds": seconds})
        except (Invalid, StateConflict) as error:
            reason = error.detail
        trainings = estimate.trainings if estimate else len(ablated(sweep).axis.values) * sweep.seeds
        found[size] = PresetSize(trainings=trainings, cost=estimate, reason=reason, differs=preset.differs.get(size))
    return found


def cost(session: Session, *specs: ExperimentSpec) -> Cost:
    """What resolved specs are likely to take on one worker, each from experiments like it or from reference rates.

    Raises StateConflict where one waits for an upload.
    """
    named = Named(session)
    waits_for = next(filter(None, map(named.awaited, specs)), None)
    if waits_for:
        raise StateConflict(f"{waits_for} is still processing; what trainings on it cost is known once it is ready", "processing")
    paces = [_pace(spec) for spec in specs]
    known = session.info.setdefault("rates", {})  # a session lives as long as a request
    rates = {pace: known[pace] if pace in known else _measured_rate(session, pace) for pace in dict.fromkeys(paces)}
    known |= rates
    basis = "reference rates of one CPU core; measured ones follow"
    if any(rates.values()):
        basis = "the rate of finished experiments like this one"
        basis += "" if all(rates.values()) else " where there are any, else reference rates of one CPU core"
    total, memory_bytes = 0.0, 0
    for spec, pace in zip(specs, paces, strict=True):
        speed = rates[pace] or REFERENCE_RATE[spec.encoder.kind] * _smaller(spec)
        facts = datasets.facts(spec.dataset)
        memory_bytes = max(memory_bytes, memory.needed(spec, datasets.facts))
        pairs = spec.pretrain.total_steps(facts.train) * (spec.pretrain.batch_size or 256)
        trained = spec.method.kind != "frozen"
        pairs *= trained + REFERENCE_SHARE * any(facts.targets().values())
        total += FIXED_SECONDS + (pairs + _learning_views(spec)) / speed
    return Cost(trainings=len(specs), seconds=float(f"{total:.3g}"), memory_bytes=memory_bytes, basis=basis)


def _resolved_base(sweep: SweepSpec, first: ExperimentSpec, precision: Literal["float32", "bfloat16"]) -> ExperimentSpec:
    """The base with what all trainings have alike: the arithmetic, and the encoder and the tasks that the dataset calls for."""
    found: dict[str, Any] = {field: getattr(first, field) for field in ("encoder", "tasks")}
    together = {field for value in sweep.axis.values for field in value} if sweep.axis.path == WHOLE else set()
    found = {field: part for field, part in found.items() if field not in sweep.base.model_fields_set | together}
    if sweep.base.pretrain.precision == "auto":
        found["pretrain"] = sweep.base.pretrain.model_copy(update={"precision": precision})
    return sweep.base.model_copy(update=found)


def _of_preset(error: FieldError) -> str:
    return error.message if error.pointer == "/base/dataset/name" else f"{error.message} ({error.pointer} of the preset)"


def _smaller(spec: ExperimentSpec) -> float:
    """By how much a pair of views is quicker than two stills of 16x16 at width 16."""
    side = getattr(spec.views, "size", None) or spec.dataset.image_size or 32  # patches say their size
    frames = (getattr(spec.views, "frames", 1) + 1) / 2
    return float((16 / side) ** SIDE_POWER * (16 / getattr(spec.encoder, "width", 16)) ** WIDTH_POWER / frames)


def _plan_member(
    session: Session,
    sweep: SweepSpec,
    index: int,
    spec: ExperimentSpec,
    named: Named,
    precision: Literal["float32", "bfloat16"],
) -> ExperimentSpec:
    """Resolve one training, and say what is wrong with it in terms of the sweep: its axis value, or its base."""
    try:
        resolved = _resolved(session, spec, named, precision)
        return resolved if spec.seed > sweep.base.seed else _that_fits(session, resolved, named)  # seeds need the same
    except SpecError as error:
        raise Invalid.field(_in_sweep(sweep, index, error.pointer), error.message) from None
    except Invalid as error:
        raise Invalid.field(_in_sweep(sweep, index, error.errors[0].pointer), error.detail) from None


def facts(dataset: Dataset, pointer: str) -> DatasetFacts:
    """What is known of a dataset that stands at `pointer` of a spec. Raises Invalid."""
    try:
        return datasets.facts(dataset)
    except Invalid as error:
        found = tuple(FieldError(item.pointer.replace("/dataset", pointer, 1), item.message) for item in error.errors)
        raise Invalid(error.detail, errors=found) from None


def _resolved(session: Session, spec: ExperimentSpec, named: Named, precision: Literal["float32", "bfloat16"]) -> ExperimentSpec:
    """As it will be run; where an upload is not decoded yet, as it was asked but for the arithmetic."""
    checkpoints.require(session, spec)
    if not named.awaited(spec):
        return resolve(spec, facts, precision)
    chosen = precision if spec.pretrain.precision == "auto" else spec.pretrain.precision
    return spec.model_copy(update={"pretrain": spec.pretrain.model_copy(update={"precision": chosen})})


def _that_fits(session: Session, spec: ExperimentSpec, named: Named) -> ExperimentSpec:
    """A resolved spec that the largest worker can hold; what waits for an upload is taken to. Raises SpecError."""
    available = _memory(session)
    if available is not None and not named.awaited(spec):
        memory.require(spec, datasets.facts, available)
    return spec


def _memory(session: Session) -> int | None:
    """Bytes that the largest worker has, `SWEETSPOT_WORKER_MEMORY` with none there yet; None where one does not know its own.

    Those with GPUs do not: trainings lie in the GPU's memory, which is not told, and in theirs.
    """
    known = session.info.get("memory", 0)  # a session lives as long as a request
    if known == 0:
        machines = [worker.hardware for worker in workers.alive(session)]
        told = [None if machine.get("gpus") else machine.get("memory_bytes") for machine in machines]
        known = None if None in told else max(told, default=settings().worker_memory)
        session.info["memory"] = known
    return known


def _in_sweep(sweep: SweepSpec, index: int, pointer: str) -> str:
    if sweep.axis.path == WHOLE:
        value = sweep.axis.values[index]
        on_axis = isinstance(value, dict) and pointer.split("/")[1] in value
        return f"/axis/values/{index}{pointer}" if on_axis else f"/base{pointer}"
    node = "/" + sweep.axis.path.replace(".", "/")
    on_axis = f"{pointer}/".startswith(f"{node}/")
    return f"/axis/values/{index}{pointer.removeprefix(node)}" if on_axis else f"/base{pointer}"


def _precision(session: Session) -> Literal["float32", "bfloat16"]:
    """bfloat16 where every worker multiplies it in hardware, so that one choice serves whichever takes the job.

    With no worker there yet, it is taken to be like this machine.
    """
    machines = [worker.hardware for worker in workers.alive(session)] or [hardware.describe()]
    return "bfloat16" if all(machine.get("fast_bfloat16") for machine in machines) else "float32"


def _learning_views(spec: ExperimentSpec) -> float:
    """Pairs of pretraining that take about as long as learning the views.

    For each step of g its encoders see a batch once per step of theirs; in g's own step a pair goes through them and back through
    g, as long as three of those (measured with small encoders), and a labelled item through classifiers as a pair does.
    """
    views = spec.views
    if not isinstance(views, Learned):
        return 0
    passes = 0 if views.mode == "supervised" else views.critic_steps + 3
    return (views.steps or 0) * (passes * (views.batch_size or 0) + 3 * (views.labelled_batch_size or 0))


def _pace(spec: ExperimentSpec) -> str:
    """The part of a resolved spec on which its speed depends most, as JSON: experiments are alike that have it in common."""
    sizes = {field: getattr(spec.views, field) for field in ("size", "frames") if hasattr(spec.views, field)}
    like = {
        "encoder": spec.encoder.model_dump(mode="json", exclude={"weights"}),
        "method": {"kind": spec.method.kind},
        "dataset": {"image_size": spec.dataset.image_size},
        "views": {"kind": spec.views.kind} | sizes,
        "pretrain": {"precision": spec.pretrain.precision},
    }
    return json.dumps(like)


def _measured_rate(session: Session, pace: str) -> float | None:
    timing: Any = Experiment.results["timing"]["pairs_per_second"].astext.cast(Float)
    alike = Experiment.spec.contains(json.loads(pace))
    recent = select(timing.label("rate")).where(Experiment.state == "succeeded", alike)
    recent = recent.order_by(Experiment.created_at.desc()).limit(20)
    rate = session.scalar(select(func.percentile_cont(0.5).within_group(recent.subquery().c.rate)))
    return float(rate) if rate and math.isfinite(rate) else None
