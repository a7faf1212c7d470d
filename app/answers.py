"""From rows to answers."""

from collections import Counter
from collections.abc import Sequence
from datetime import datetime
from typing import Any

from app import presets, schemas
from app.persistence import datasets, sweeps
from app.persistence.models import TERMINAL, Checkpoint, Dataset, Experiment, MiEstimate, Preview, Sweep
from app.persistence.sweeps import Member

LEAST_TRAINED = 0.05  # trainings after which a sweep says when it may end


def experiment(row: Experiment) -> schemas.Experiment:
    """An experiment as clients see it."""
    base = f"/v1/experiments/{row.id}"
    name = row.spec["dataset"]["name"]
    upload = {"dataset": f"/v1/datasets/{name}"} if datasets.ID.fullmatch(name) else {}
    parts = ("events", "metrics", "artifacts", "logs", "preview.png", "reproduce", "cancel", "retry")
    return schemas.Experiment(
        id=row.id,
        name=row.name,
        state=row.state,
        attempt=row.attempt,
        progress=schemas.Progress(**row.progress),
        spec=row.spec,
        results=row.results,
        error=row.error,
        retry_of=row.retry_of,
        links={"self": base, **{part.removesuffix(".png"): f"{base}/{part}" for part in parts}} | upload,
        created_at=row.created_at,
        started_at=row.started_at,
        finished_at=row.finished_at,
    )


def sweep_summary(row: Sweep, counts: Counter[str]) -> schemas.SweepSummary:
    """A sweep as lists show it, with its experiments counted by state."""
    base = f"/v1/sweeps/{row.id}"
    links = {name: f"{base}/{name}" for name in ("cancel", "retry")}
    links |= {"report.html": f"{base}/report.html", "recipe": f"{base}/recipe"}
    curves = {f"curve.{suffix}": f"{base}/curve.{suffix}" for suffix in ("json", "csv", "svg", "png", "pdf", "vl.json")}
    return schemas.SweepSummary(
        id=row.id,
        name=row.name,
        state=sweeps.state(counts, row.search),
        counts=schemas.SweepCounts(**counts, total=counts.total()),
        links={"self": base, "curve": f"{base}/curve", **curves, **links, "experiments": f"/v1/experiments?sweep={row.id}"},
        created_at=row.created_at,
    )


def sweep(row: Sweep, members: Sequence[Member], now: datetime) -> schemas.Sweep:
    """A sweep as clients see it, at the database's time `now`."""
    summary = sweep_summary(row, Counter(member.experiment.state for member in members))
    done = sum(_share_done(member.experiment) for member in members)
    starts = [member.experiment.started_at for member in members if member.experiment.started_at and not member.reused]
    ends = [member.experiment.finished_at for member in members if member.experiment.finished_at and not member.reused]
    trained = sum(_share_done(member.experiment) for member in members if not member.reused)
    finished = summary.state in TERMINAL
    total = len(members)
    if row.search is not None and not finished:  # short trainings are done early, and count as whole ones here
        total = max(total, row.spec["axis"]["search"]["trainings"])
    left = total - done
    known = starts and trained >= LEAST_TRAINED  # less than that is mostly the start of a training
    eta = (now - min(starts)).total_seconds() / trained * left if known else None
    places = [place["value"] for place in row.search["places"]] if row.search is not None else row.spec["axis"]["values"]
    return schemas.Sweep(
        **summary.model_dump(),
        spec=row.spec,
        progress=schemas.SweepProgress(step=round(done, 3), total=total, eta_s=0 if finished else eta),
        experiments=[_member(member, places) for member in members],
        search=_search(row),
        paper=presets.paper(row.spec.get("preset")),
        started_at=min(starts, default=None),
        finished_at=max(ends, default=row.created_at) if finished else None,
    )


def preview(row: Preview) -> schemas.Preview:
    """A preview that is not there yet."""
    return schemas.Preview(id=row.id, state=row.state, error=row.error, links={"self": f"/v1/previews/{row.id}"})


def upload(row: Dataset) -> schemas.Upload:
    """An uploaded dataset as clients see it."""
    return schemas.Upload(
        id=row.id,
        name=row.name,
        layout=row.layout,
        state=row.status,
        reason=row.error["message"] if row.error else None,
        progress=schemas.Progress(**row.progress),
        sha256=row.sha256,
        size=row.size,
        same_as=row.same_as,
        facts=row.facts,
        links={"self": f"/v1/datasets/{row.id}"},
        created_at=row.created_at,
        started_at=row.started_at,
        finished_at=row.finished_at,
    )


def checkpoint(row: Checkpoint) -> schemas.Checkpoint:
    """A checkpoint as clients see it."""
    links = {"self": f"/v1/checkpoints/{row.id}"}
    return schemas.Checkpoint(id=row.id, name=row.name, size=row.size, format=row.format, links=links)


def mi_estimate(row: MiEstimate) -> schemas.MiEstimation:
    """An estimate of two arrays' information as clients see it."""
    base = f"/v1/mi-estimates/{row.id}"
    results = None
    if row.results is not None:  # in the order asked for: the database keeps no order of keys
        results = {**row.results, "mi": {name: row.results["mi"][name] for name in row.spec["estimators"]}}
    return schemas.MiEstimation(
        id=row.id,
        name=row.name,
        state=row.state,
        attempt=row.attempt,
        progress=schemas.Progress(**row.progress),
        spec=row.spec,
        sha256=row.sha256,
        size=row.size,
        same_as=row.same_as,
        results=results,
        error=row.error,
        links={"self": base, "cancel": f"{base}/cancel"},
        created_at=row.created_at,
        started_at=row.started_at,
        finished_at=row.finished_at,
    )


def page(data: Sequence[Any], limit: int) -> dict[str, Any]:
    """A page of a list, of the answers that fit on it and one more if there is one."""
    more = len(data) > limit
    return {"data": data[:limit], "has_more": more, "next_cursor": data[limit - 1].id if more else None}


def _member(member: Member, values: Sequence[Any]) -> schemas.SweepMember:
    row = member.experiment
    return schemas.SweepMember(
        id=row.id,
        index=member.index,
        value=values[member.index],
        seed=member.seed,
        state=row.state,
        reused=member.reused,
        progress=schemas.Progress(**row.progress),
        error=row.error,
    )


def _search(row: Sweep) -> schemas.SearchState | None:
    if row.search is None:
        return None
    return schemas.SearchState(
        places=row.search["places"],
        finished=row.search["ended"] is not None,
        reason=row.search["ended"],
        error=row.search["error"],
        spent=row.search["spent"],
        trainings=row.spec["axis"]["search"]["trainings"],
        peak=row.search["peak"],
    )


def _share_done(row: Experiment) -> float:
    """1 for a finished experiment; for a running one the share of its training, which takes nearly all of its time.

    Where views are learned that is the first half of it, and pretraining the second.
    """
    if row.state in TERMINAL:
        return 1
    stages = ("views", "pretrain") if row.spec["views"]["kind"] == "learned" else ("pretrain",)
    stage, step, total = (row.progress[key] for key in ("stage", "step", "total"))
    if stage in (None, "data"):
        return 0
    if stage not in stages:  # what is measured afterwards
        return 0.95
    return 0.95 * (stages.index(stage) + (step / total if total else 0)) / len(stages)
