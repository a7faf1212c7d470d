"""What sweeps that search train next: the database's side of `ml.search`. Whoever is free asks, one at a time for each sweep."""

from collections.abc import Iterator, Sequence
from typing import Any

import structlog
from pydantic import ValidationError
from sqlalchemy.exc import SQLAlchemyError
from sqlalchemy.orm import Session

from app.errors import Invalid
from app.persistence import callers, experiments, sweeps, workers
from app.persistence.database import open_session
from app.persistence.datasets import Named, why
from app.persistence.models import ACTIVE, TERMINAL, Sweep
from app.persistence.sweeps import Member
from ml import search
from ml.curve import ERRORS
from ml.search import Trial
from ml.spec import ExperimentSpec, Search, SpecError, SweepSpec, expand, resolve, tried

MOST_AT_ONCE = 8  # trainings that one look begins beyond the design; the next look begins more
MOST_REUSED = 20  # rounds of a look whose trainings were all done before

log = structlog.get_logger()


def advance() -> int:
    """Begin what each search would train next, as far as workers are free for it; say how many experiments were queued.

    A sweep is held for one short transaction. What goes wrong with it ends that search, and nobody else's.
    """
    with open_session() as session:
        waiting = sweeps.searching(session)
    queued = 0
    for sweep_id in waiting:
        for _ in range(MOST_REUSED):
            begun, done_before = _look_after(sweep_id)
            queued += begun
            if begun or not done_before:
                break
    return queued


def _look_after(sweep_id: str) -> tuple[int, int]:
    """One round of a search, committed: how many trainings it queued, and how many it found done."""
    try:
        with open_session() as session:
            sweep = sweeps.held(session, sweep_id)
            if sweep is None or sweep.search is None or sweep.search["ended"] is not None:
                return 0, 0
            with callers.on_behalf_of(sweep.owner, sweep.key_id):
                found = _Round(session, sweep).run()
            session.commit()
            return found
    except SQLAlchemyError as error:
        log.warning("a search was not looked after", sweep=sweep_id, error=str(error).splitlines()[0])
        return 0, 0
    except Exception as error:  # one search that cannot go on must not keep a worker from all other work
        known = isinstance(error, Invalid | SpecError | ValidationError)
        log.error("a search cannot go on", sweep=sweep_id, exc_info=None if known else error, error=str(error))
        _give_up(sweep_id, _in_words(error))
        return 0, 0


def _give_up(sweep_id: str, words: str) -> None:
    with open_session() as session:
        sweep = sweeps.held(session, sweep_id)
        if sweep is not None and sweep.search is not None:
            sweep.search = {**sweep.search, "ended": "failed", "error": words}
        session.commit()


def _in_words(error: Exception) -> str:
    if isinstance(error, Invalid | SpecError):
        return why(error)["message"]
    return str(error.errors()[0]["msg"]) if isinstance(error, ValidationError) else "an error of the service; its log has more"


class _Round:
    """One look at a held sweep: what is known, and what follows from it."""

    def __init__(self, session: Session, sweep: Sweep):
        self._session = session
        self._sweep = sweep
        self._state: dict[str, Any] = dict(sweep.search or {})
        self._named = Named(session)

    def run(self) -> tuple[int, int]:
        """How many trainings were queued, and how many were done before. Raises Invalid, SpecError, ValidationError."""
        counts = sweeps.counts(self._session, [self._sweep.id])[self._sweep.id]
        active = sum(counts[state] for state in ACTIVE)
        free = min(_free(self._session, active), MOST_AT_ONCE)
        if active and not free:
            return 0, 0
        spec = SweepSpec.model_validate(self._sweep.spec)
        if self._named.awaited(spec.base):
            return 0, 0
        spec = self._with_task(spec)
        searched = spec.axis.search
        assert searched is not None, "as `searching` finds them"
        members = sweeps.members(self._session, self._sweep)
        trials = list(_trials(self._state["places"], searched, members))
        asked = search.ask(searched, trials, search.independent(searched, trials) or free)
        self._note(searched, trials, members)
        if asked:
            return self._begin(spec, searched, asked, members)
        if not active:
            reason = search.ended(searched, trials)
            error = None if reason else "too many of its trainings failed to tell where to go on"
            self._write(ended=reason or "failed", error=error)
        return 0, 0

    def _write(self, **values: Any) -> None:
        self._state |= values
        self._sweep.search = dict(self._state)

    def _with_task(self, spec: SweepSpec) -> SweepSpec:
        """The task is named once the dataset is known: of an upload that was not decoded when the sweep was submitted, now."""
        searched = spec.axis.search
        assert searched is not None
        if searched.task is not None and self._state["told"]:
            return spec
        names = [task.name for task in _training(spec, Trial(searched.low), 0, self._named).tasks]
        if not names:
            raise Invalid.field("/base/tasks", "a search needs a task whose peak it seeks, and the dataset has none to offer")
        if searched.task not in (None, *names):
            raise Invalid.field("/axis/search/task", f"{' or '.join(map(str, names))}, not {searched.task!r}")
        axis = spec.axis.model_copy(update={"search": searched.model_copy(update={"task": searched.task or names[0]})})
        named = spec.model_copy(update={"axis": axis})
        self._sweep.spec = named.model_dump(mode="json", exclude_unset=True) | {"axis": axis.model_dump(mode="json")}
        return named

    def _note(self, searched: Search, trials: Sequence[Trial], members: Sequence[Member]) -> None:
        """Write the peak down where more was told since."""
        told, spent = sum(trial.score is not None for trial in trials), round(search.spent(searched, trials), 6)
        if (told, spent) == (self._state["told"], self._state["spent"]):
            return
        found, peak = search.peak(searched, trials), None
        if found is not None:
            results = [(member.experiment.results or {}).get("tasks", {}).get(searched.task) for member in members]
            errs = next(task["metric"] for task in results if task) in ERRORS
            peak = {
                "value": found.value,
                "value_ci": list(found.value_ci),
                "level": search.LEVEL,
                "accuracy": -found.score if errs else found.score,
                "task": searched.task,
            }
        self._write(told=told, spent=spent, peak=peak)

    def _begin(self, spec: SweepSpec, searched: Search, asked: Sequence[Trial], members: Sequence[Member]) -> tuple[int, int]:
        """Queue the trainings. A value that stands there already is repeated with its next seed."""
        places = [dict(place) for place in self._state["places"]]
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
            trainings.append((index, _training(spec, trial, seeds[index], self._named)))
        spent = round(self._state["spent"] + search.spent(searched, asked), 6)
        self._write(places=places, spent=spent)
        reused = sweeps.add(self._session, self._sweep, trainings)
        return len(trainings) - reused, reused


def _trials(places: Sequence[dict[str, Any]], searched: Search, members: Sequence[Member]) -> Iterator[Trial]:
    """In the order in which they finished: what was told last stands last."""
    done = [member for member in members if member.experiment.finished_at is not None]
    under_way = [member for member in members if member.experiment.finished_at is None]
    for member in [*sorted(done, key=lambda member: (member.experiment.finished_at, member.experiment.id)), *under_way]:
        place, score = places[member.index], _score(searched, member)
        failed = score is None and member.experiment.state in TERMINAL
        yield Trial(place["value"], score, place["short"], failed, repeat=member.seed)


def _score(searched: Search, member: Member) -> float | None:
    """How well the task was done: more is better, so the sign of an error is turned; None without a result."""
    found = (member.experiment.results or {}).get("tasks", {}).get(searched.task)
    if member.experiment.state != "succeeded" or found is None:
        return None
    return -float(found["value"]) if found["metric"] in ERRORS else float(found["value"])


def _training(spec: SweepSpec, trial: Trial, repeat: int, named: Named) -> ExperimentSpec:
    searched = spec.axis.search
    ((_, asked),) = expand(tried(spec, trial.value))
    training = resolve(asked.model_copy(update={"seed": asked.seed + repeat}), named.facts)
    if not trial.short or searched is None:
        return training
    steps = training.pretrain.total_steps(named.facts(training.dataset, "/dataset").train)
    fewer = max(1, round(steps * (searched.short or 1)))
    pretrain = training.pretrain.model_copy(update={"steps": fewer, "epochs": None})
    return resolve(training.model_copy(update={"pretrain": pretrain}), named.facts)


def _free(session: Session, active: int) -> int:
    """Workers without work; one at least where nothing of the search is being done, so that it stands in the queue."""
    alive = len(workers.alive(session))
    return max(alive - experiments.at_work(session, "default"), 0 if active else 1)
