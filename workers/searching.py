"""What sweeps that search train next: the database's side of `ml.search`. Whoever is free asks, one at a time for each sweep."""

from collections.abc import Iterator, Sequence
from typing import Any

import structlog
from sqlalchemy import func, select
from sqlalchemy.orm import Session

from app.errors import Invalid
from app.persistence import sweeps, workers
from app.persistence.datasets import Named, why
from app.persistence.models import ACTIVE, TERMINAL, Experiment, Sweep
from app.persistence.sweeps import Member
from ml import search
from ml.curve import ERRORS
from ml.search import Trial
from ml.spec import ExperimentSpec, Search, SpecError, SweepSpec, expand, resolve, tried

WORKER_SILENCE = 60  # seconds after which a worker is not counted any more

log = structlog.get_logger()


def advance(session: Session) -> int:
    """Begin what each search would train next, as far as workers are free for it; say how many experiments were queued."""
    queued = 0
    for sweep_id in sweeps.searching(session):
        sweep = sweeps.held(session, sweep_id)
        if sweep is not None and sweep.search is not None and sweep.search["ended"] is None:
            queued += _advance(session, sweep)
    return queued


def _advance(session: Session, sweep: Sweep) -> int:
    spec = SweepSpec.model_validate(sweep.spec)
    searched = spec.axis.search
    assert searched is not None and sweep.search is not None, "as `searching` finds them"
    named = Named(session)
    queued = 0
    try:
        if named.awaited(spec.base):
            return 0
        while True:  # what is reused has its outcome at once
            members = sweeps.members(session, sweep)
            active = sum(member.experiment.state in ACTIVE for member in members)
            trials = list(_trials(sweep.search["places"], searched, members))
            count = search.independent(searched, trials) or _free(session, active)
            asked = search.ask(searched, trials, count) if count else []
            _note(sweep, searched, trials, members)
            if not asked:
                if not active and count:
                    _end(sweep, searched, trials)
                return queued
            queued += _begin(session, sweep, spec, searched, asked, members, named)
    except (Invalid, SpecError) as error:
        log.warning("a search cannot go on", sweep=sweep.id, error=str(error))
        sweep.search = {**sweep.search, "ended": "failed", "error": why(error)["message"]}
        session.flush()
        return queued


def _trials(places: Sequence[dict[str, Any]], searched: Search, members: Sequence[Member]) -> Iterator[Trial]:
    for member in members:
        place, score = places[member.index], _score(searched, member)
        yield Trial(place["value"], score, place["short"], score is None and member.experiment.state in TERMINAL)


def _score(searched: Search, member: Member) -> float | None:
    """How well the task was done: more is better, so the sign of an error is turned; None without a result."""
    found = (member.experiment.results or {}).get("tasks", {}).get(searched.task)
    if member.experiment.state != "succeeded" or found is None:
        return None
    return -float(found["value"]) if found["metric"] in ERRORS else float(found["value"])


def _note(sweep: Sweep, searched: Search, trials: Sequence[Trial], members: Sequence[Member]) -> None:
    """Write the peak down where more was told since."""
    assert sweep.search is not None
    told = sum(trial.score is not None for trial in trials)
    spent = round(search.spent(searched, trials), 6)
    if (told, spent) == (sweep.search["told"], sweep.search["spent"]):
        return
    found = search.peak(searched, trials)
    peak = None
    if found is not None:
        tasks = [(member.experiment.results or {}).get("tasks", {}).get(searched.task) for member in members]
        metric = next(task["metric"] for task in tasks if task)
        peak = {
            "value": found.value,
            "value_ci": list(found.value_ci),
            "level": search.LEVEL,
            "accuracy": -found.score if metric in ERRORS else found.score,
            "task": searched.task,
        }
    sweep.search = {**sweep.search, "told": told, "spent": spent, "peak": peak}


def _end(sweep: Sweep, searched: Search, trials: Sequence[Trial]) -> None:
    assert sweep.search is not None
    reason = search.ended(searched, trials)
    error = None if reason else "too many of its trainings failed to tell where to go on"
    sweep.search = {**sweep.search, "ended": reason or "failed", "error": error}


def _begin(
    session: Session,
    sweep: Sweep,
    spec: SweepSpec,
    searched: Search,
    asked: Sequence[Trial],
    members: Sequence[Member],
    named: Named,
) -> int:
    """Queue the trainings; say how many there are to do. A value that stands there already is repeated with its next seed."""
    assert sweep.search is not None
    places = [dict(place) for place in sweep.search["places"]]
    seeds: dict[int, int] = {}
    for member in members:
        seeds[member.index] = max(seeds.get(member.index, -1), member.seed - spec.base.seed)
    trainings = []
    for trial in asked:
        place = {"value": trial.value, "short": trial.short}
        if place not in places:
            places.append(place)
        index = places.index(place)
        seeds[index] = seeds.get(index, -1) + 1
        trainings.append((index, _training(spec, searched, trial, seeds[index], named)))
    sweep.search = {**sweep.search, "places": places}
    before = {member.experiment.id for member in members}
    sweeps.add(session, sweep, trainings)
    added = [member for member in sweeps.members(session, sweep) if member.experiment.id not in before]
    return sum(not member.reused for member in added)


def _training(spec: SweepSpec, searched: Search, trial: Trial, repeat: int, named: Named) -> ExperimentSpec:
    ((_, asked),) = expand(tried(spec, trial.value))
    training = resolve(asked.model_copy(update={"seed": asked.seed + repeat}), named.facts)
    if not trial.short:
        return training
    steps = training.pretrain.total_steps(named.facts(training.dataset, "/dataset").train)
    fewer = max(1, round(steps * (searched.short or 1)))
    pretrain = training.pretrain.model_copy(update={"steps": fewer, "epochs": None})
    return resolve(training.model_copy(update={"pretrain": pretrain}), named.facts)


def _free(session: Session, active: int) -> int:
    """Workers without work; one at least where nothing of the search is being done."""
    alive = len(workers.alive(session, within=WORKER_SILENCE))
    at_work = session.scalar(select(func.count()).select_from(Experiment).where(Experiment.state.in_(ACTIVE))) or 0
    return max(alive - at_work, 0 if active else 1)
