"""What Prometheus reads: how fast this process answers, and what the database says of the queue and of the workers."""

import re
import time
from collections.abc import Iterator

from prometheus_client import REGISTRY, Histogram
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector
from sqlalchemy import Float, func, select, text
from sqlalchemy.exc import SQLAlchemyError
from sqlalchemy.orm import Session
from starlette.datastructures import Headers
from starlette.types import Scope

from app.persistence import callers, queues, tallies, workers
from app.persistence.database import open_session
from app.persistence.models import ACTIVE, TERMINAL, Experiment

METHODS = {"GET", "HEAD", "POST", "DELETE", "PUT", "PATCH", "OPTIONS"}
PATIENCE = "5s"  # for one statement: a scrape gives up after ten seconds
MOST_RATES = 200  # experiments whose rate is told one by one
BUCKETS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0)

requests = Histogram(
    "sweetspot_request_seconds",
    "Time until an answer began; `waited` where the client preferred to wait for an end.",
    ["route", "method", "status", "waited"],
    buckets=BUCKETS,
)


def observe(scope: Scope, status: int, seconds: float) -> None:
    """A request was answered. What no route is for shares one label, as do methods that nobody has heard of."""
    route = getattr(scope.get("route"), "path", None) or "none"
    method = scope["method"] if scope["method"] in METHODS else "other"
    waited = bool(re.search(r"\bwait=", Headers(scope=scope).get("prefer", "")))
    requests.labels(route, method, f"{status // 100}xx", "yes" if waited else "no").observe(seconds)


class Service(Collector):
    """What the database says at the time it is asked; without it, that it is away."""

    def describe(self) -> list[Metric]:
        """Nothing beforehand, so that registering asks nobody."""
        return []

    def collect(self) -> Iterator[Metric]:
        """All that can be known now."""
        found: list[Metric] = []
        try:
            with callers.asked_by(None), open_session() as session:  # counts are of all owners
                session.execute(text(f"SET LOCAL statement_timeout = '{PATIENCE}'"))
                found.append(_answer_time(session))
                for facts in (_experiments, _queues, _attempts, _rates, _workers):
                    found += facts(session)
        except SQLAlchemyError:
            up = 0
        else:
            up = 1
        yield _gauge("sweetspot_database_up", "Whether the database answered all that is shown here.", up)
        yield from found


def _answer_time(session: Session) -> Metric:
    began = time.perf_counter()
    session.execute(select(1))
    return _gauge("sweetspot_database_seconds", "The database's answer to a question about nothing.", time.perf_counter() - began)


def _experiments(session: Session) -> Iterator[Metric]:
    """Counted on an index by state alone."""
    counts = dict(session.execute(select(Experiment.state, func.count()).group_by(Experiment.state)).all())
    by_state = GaugeMetricFamily("sweetspot_experiments", "Experiments by state.", labels=["state"])
    for state in ACTIVE + TERMINAL:
        by_state.add_metric([state], counts.get(state, 0))
    yield by_state


def _queues(session: Session) -> Iterator[Metric]:
    depth = GaugeMetricFamily(
        "sweetspot_queued", "What is queued: `claimable` now, or waiting for an upload.", labels=["kind", "claimable"]
    )
    for queue in queues.waiting(session):
        depth.add_metric([queue.kind, "yes" if queue.claimable else "no"], queue.count)
        if queue.kind == "experiment" and queue.claimable:
            yield _gauge("sweetspot_oldest_queued_seconds", "Age of the oldest experiment that could be claimed.", queue.seconds)
    yield depth


def _attempts(session: Session) -> Iterator[Metric]:
    names = ["kind", "outcome", "code"]
    ended = CounterMetricFamily("sweetspot_attempts", "Attempts that ended, by outcome and error code.", labels=names)
    for kind, outcome, code, count in tallies.totals(session):
        ended.add_metric([kind, outcome, code], float(count))
    yield ended
    losses = CounterMetricFamily("sweetspot_leases_lost", "Leases that ran out or whose worker was killed.", labels=["kind"])
    lost = tallies.totals(session, tallies.RECONCILER)
    for kind in queues.KINDS:
        losses.add_metric([kind], float(sum(row.count for row in lost if row.kind == kind)))
    yield losses


def _rates(session: Session) -> Iterator[Metric]:
    rate = Experiment.progress["rate"].astext.cast(Float)
    rows = session.execute(select(Experiment.id, rate).where(Experiment.lease_owner.is_not(None)).limit(MOST_RATES)).all()
    each = GaugeMetricFamily("sweetspot_experiment_steps_per_second", "Of an experiment that runs.", labels=["experiment"])
    for experiment_id, steps in rows:
        if steps is not None:
            each.add_metric([experiment_id], steps)
    yield each
    yield _gauge("sweetspot_steps_per_second", "Of all experiments that run.", sum(steps or 0 for _, steps in rows))


def _workers(session: Session) -> Iterator[Metric]:
    yield _gauge("sweetspot_workers", "Workers heard of in the last minute.", len(workers.alive(session)))


def _gauge(name: str, words: str, value: float) -> Metric:
    return GaugeMetricFamily(name, words, value)


REGISTRY.register(Service())
