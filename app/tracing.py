"""From the finished experiments of a sweep to its curve."""

from collections.abc import Sequence
from functools import lru_cache
from zipfile import BadZipFile

import numpy as np

from app.persistence import files
from app.persistence.models import Experiment, Sweep
from app.persistence.sweeps import Member
from ml import curve
from ml.curve import Curve, Floats, Hint, Measurement, TaskResult
from ml.spec import Axis, SweepSpec


def curve_of(row: Sweep, members: Sequence[Member]) -> Curve:
    """The curve so far. Of a search its points are the values that were tried, rising; short trainings stand in none."""
    axis = SweepSpec.model_validate(row.spec).axis
    if row.search is None:
        return curve.trace(axis, measurements(members))
    places = row.search["places"]
    values = sorted({place["value"] for place in places if not place["short"]})
    at = {number: values.index(place["value"]) for number, place in enumerate(places) if not place["short"]}
    whole = [member for member in members if member.index in at]
    tried = Axis.model_construct(path=axis.path, values=tuple(values), labels=None, search=axis.search, ablate=False)
    hints = [
        Hint(places[member.index]["value"], member.seed, task_results(member.experiment))
        for member in members
        if member.index not in at and member.experiment.state == "succeeded"
    ]
    return curve.trace(tried, measurements(whole, at), hints)


def measurements(members: Sequence[Member], at: dict[int, int] | None = None) -> list[Measurement]:
    """What the experiments that succeeded found; `at` says where on the curve's axis each of the sweep's places is."""
    return [
        Measurement(
            experiment=member.experiment.id,
            index=member.index if at is None else at[member.index],
            seed=member.seed,
            i_nce=member.experiment.results["mi"]["infonce"]["value"],
            i_nce_stderr=member.experiment.results["mi"]["infonce"]["stderr"],
            log_k=member.experiment.results["mi"]["infonce"]["log_k"],
            saturated=member.experiment.results["mi"]["infonce"]["saturated"],
            tasks=task_results(member.experiment),
            task_information=_part(member, "task"),
            nuisance=_part(member, "nuisance"),
            quality=_quality(member),
        )
        for member in members
        if member.experiment.state == "succeeded" and member.experiment.results
    ]


def task_results(experiment: Experiment) -> dict[str, TaskResult]:
    """In the order of the spec: the first task is the one that regimes go by, and the database keeps no order of keys."""
    found = experiment.results["tasks"] if experiment.results else {}
    try:
        merits = _merits(experiment.id, experiment.attempt) if found else {}
    except (OSError, ValueError, KeyError, BadZipFile):  # not there (any more), or damaged
        merits = {}
    return {
        name: TaskResult(found[name]["value"], tuple(found[name]["ci"]), found[name]["metric"], merits.get(name))
        for name in (task["name"] for task in experiment.spec["tasks"])
        if name in found
    }


@lru_cache(maxsize=1200)  # a sweep has 1000 trainings at most, and is asked for again and again
def _merits(experiment_id: str, attempt: int) -> dict[str, Floats]:
    """By task name, what each held-out item scored. Raises OSError, ValueError, KeyError, BadZipFile."""
    path = files.attempt_folder(experiment_id, attempt) / "predictions.npz"
    with np.load(path, allow_pickle=False) as arrays:
        names = [name for name in arrays.files if name.endswith(".merits")]
        return {name.removesuffix(".merits"): arrays[name].astype(np.float16) for name in names}


def _part(member: Member, name: str) -> float | None:
    """Of the information, in nats; None where it was not split."""
    found = (member.experiment.results or {}).get("information") or {}
    return found[name]["value"] if found.get(name) else None


def _quality(member: Member) -> dict[str, float]:
    """What is known of it: nothing where it was not measured."""
    found = (member.experiment.results or {}).get("quality") or {}
    return {name: found[name] for name in curve.QUALITIES if found.get(name) is not None}
