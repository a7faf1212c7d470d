"""Holds leases and watches over runners; never imports torch.

A supervisor claims work in the database, hands it to a runner (a process of its own, with torch imported beforehand), renews the
lease, and ends the runner where it is cancelled, stalls, runs out of time or can no longer be vouched for. What it says of an
experiment's end it says after the runner is gone, or after the runner confirmed that it let go.
"""

import math
import os
import select
import threading
import time
from collections.abc import Callable
from multiprocessing.synchronize import Event
from typing import Any

import structlog
from sqlalchemy.exc import SQLAlchemyError
from sqlalchemy.orm import Session
from structlog.contextvars import bound_contextvars

from app.persistence import bell, files, hardware, leases, workers
from app.persistence.database import open_session
from app.persistence.leases import Claim, LeaseLost
from app.settings import Timers, settings
from workers import memory, owners, reconciler, searching
from workers.process import RunnerProcess

TICK = 0.1  # seconds between looks at the runners
LOOK = 0.5  # seconds between looks at the database: for a cancel, and for what is done beside a training
MOST_IDLE = 2  # runners that wait: the one that trains and the one that draws previews, when neither does
WORK = {"experiment": "training", "preview": "drawing", "dataset": "decoding", "mi_estimate": "estimating"}
BESIDE = {"preview": leases.claim_preview, "dataset": leases.claim_dataset, "mi_estimate": leases.claim_mi_estimate}

log = structlog.get_logger()


class Supervisor:
    """One device's worker. `work` may be called from several threads; one works, the others wait for their turn."""

    def __init__(self, draining: Event) -> None:
        self.draining = draining
        self.name = os.environ.get("SWEETSPOT_WORKER", "worker")
        self.owner = owners.own(self.name)
        self.timers = settings().timers
        self._at_work = threading.Lock()
        self._closed = threading.Event()
        self._idle: list[RunnerProcess] = []
        self._posts: list[Post] = []
        self._in_doubt = False  # whether a claim was made in a commit of unknown outcome

    def start(self) -> None:
        """Warm up a runner, look for work that waits already, and go on looking in case a bell is lost."""
        self._warm_up()
        for duty in (self._look, self._pulse, self._fence):
            threading.Thread(target=duty, name=duty.__name__, daemon=True).start()

    def work(self) -> None:
        """Take what is queued until nothing is left, or until the worker drains."""
        with self._at_work:
            posts = self._posts = []
            looked = 0.0
            while True:
                now = time.monotonic()
                if now - looked >= LOOK or not posts:
                    looked = now
                    posts += self._claim_more(posts)
                if not posts:
                    return
                select.select(
                    [post.runner for post in posts if post.runner.speaks], [], [], TICK
                )  # who lets go is noticed at once
                for post in posts:
                    self._look_after(post)
                for post in [post for post in posts if post.finished]:
                    posts.remove(post)
                    looked = 0.0
                    self._take_back(post.runner)

    def _look_after(self, post: "Post") -> None:
        """What goes wrong with one must not end the watch over the others."""
        try:
            post.tick(self.draining.is_set())
        except Exception:
            log.exception("the watch over a runner failed: it is ended, and its lease left to run out")
            post.runner.stop(0)
            post.finished = True

    def close(self) -> None:
        """Let go of everything: what still runs goes back to the queue."""
        self.draining.set()
        self._closed.set()
        with self._at_work:
            for runner in self._idle:
                runner.kill()
        _try(lambda session: workers.goodbye(session, self.name))

    def _claim_more(self, posts: list["Post"]) -> list["Post"]:
        if self.draining.is_set():
            return []
        busy = {post.claim.kind for post in posts}
        found = []
        try:
            if "experiment" not in busy:
                bell.ring("default", searching.advance())
            claimed = time.monotonic()  # before the database's clock: we must never believe in a lease for longer than it does
            with open_session() as session:
                self._give_back_unheard_of(session, posts)
                if "experiment" not in busy:
                    found.append(leases.claim_experiment(session, self.owner, "default", self.timers.lease))
                found += [claim(session, self.owner, self.timers.lease) for kind, claim in BESIDE.items() if kind not in busy]
                session.commit()
            self._in_doubt = False
        except SQLAlchemyError as error:
            self._in_doubt = True
            log.warning("cannot look for work", error=str(error).splitlines()[0])
            return []
        return [Post(claim, self._take_runner(), self.timers, claimed) for claim in found if claim is not None]

    def _give_back_unheard_of(self, session: Session, posts: list["Post"]) -> None:
        """Queue again what the database says that we hold, and what no answer ever told us of."""
        if self._in_doubt:
            known = {(post.claim.id, post.claim.attempt) for post in posts}
            for claim in leases.held_by(session, self.owner):
                if (claim.id, claim.attempt) not in known:
                    log.warning("a claim of unknown outcome goes back", **{claim.kind: claim.id}, attempt=claim.attempt)
                    leases.release(session, claim)

    def _take_runner(self) -> RunnerProcess:
        self._warm_up()
        runner = self._idle.pop()  # the one that worked last has its caches and its pools
        self._warm_up()
        return runner

    def _take_back(self, runner: RunnerProcess) -> None:
        """Keep a runner that ended cleanly."""
        if runner.idle and runner.alive and not runner.ending and len(self._idle) < MOST_IDLE:
            self._idle.append(runner)
        else:
            runner.kill()

    def _warm_up(self) -> None:
        self._idle = [runner for runner in self._idle if runner.alive] or [RunnerProcess()]

    def _look(self) -> None:
        while not self._closed.is_set():
            if not self._at_work.locked():
                try:
                    self.work()
                except Exception:  # this thread must outlive whatever goes wrong in one look
                    log.exception("a look for work failed")
            self._closed.wait(self.timers.idle_look)

    def _fence(self) -> None:
        """Kill what cannot be vouched for any more, even while the thread that watches waits for a silent database."""
        while not self._closed.wait(TICK):
            for post in list(self._posts):
                try:
                    post.fence()
                except Exception:  # the others must be fenced, too
                    log.exception("a runner could not be fenced")

    def _pulse(self) -> None:
        description = hardware.describe()
        reconciled = -math.inf  # at once: whoever was here before may have been killed
        while not self._closed.is_set():
            _try(lambda session: workers.hello(session, self.name, description))
            if time.monotonic() - reconciled >= self.timers.reconcile:
                reconciled = time.monotonic()
                reconciler.reconcile()
            self._closed.wait(min(self.timers.heartbeat, self.timers.reconcile))


class Post:
    """A runner at work on a claim, and the watch over it."""

    def __init__(self, claim: Claim, runner: RunnerProcess, timers: Timers, claimed: float) -> None:
        self.claim = claim
        self.runner = runner
        self.timers = timers
        self.finished = False
        self._started = claimed
        self._renewed = claimed
        self._looked = claimed
        self._lease_was_gone = False
        self._kills = memory.kernel_kills()
        self._ending: Callable[[Session], Any] | None = None
        log.info("started", runner=runner.pid, **{claim.kind: claim.id}, attempt=claim.attempt)
        runner.assign(claim, self.timers.self_fence - (time.monotonic() - claimed))

    def tick(self, draining: bool) -> None:
        """Look after the runner once; `finished` says when there is nothing more to look after."""
        with bound_contextvars(**{self.claim.kind: self.claim.id, "attempt": self.claim.attempt}):
            self.runner.listen()
            if self.runner.idle and self._ending is None:
                log.info("finished")
                self.finished = True
            elif not self.runner.alive:
                self._bury()
            elif self._ending is None:
                self._keep_watch(draining)

    def fence(self) -> None:
        """Kill the runner where the lease could not be renewed in time; may be called from another thread."""
        if time.monotonic() - self._renewed >= self.timers.self_fence + TICK and not self.finished:
            self.runner.stop(0)

    def _keep_watch(self, draining: bool) -> None:
        now = time.monotonic()
        limit = (self.claim.spec.get("limits") or {}).get("seconds")
        try:
            if now - self._looked >= LOOK:
                self._looked = now
                self._look(now)
        except LeaseLost:
            if not self._lease_was_gone:  # a runner that has just finished says so in an instant
                self._lease_was_gone = True
                return
            log.warning("the lease is lost")
            self._end(_say_nothing, 0)
        except SQLAlchemyError as error:
            log.warning("the database does not answer", error=str(error).splitlines()[0])
        if self._ending is not None:
            return
        if time.monotonic() - self._renewed >= self.timers.self_fence:
            log.error("the lease could not be renewed: giving up")
            self._end(_say_nothing, 0)
        elif (eaten := memory.eaten(self.runner.pid)) is not None:
            self._end(self._losing("oom", eaten), 0)
        elif now - self.runner.heard_of >= self.timers.stall:
            self._end(self._losing("stalled", f"no step was taken for {self.timers.stall:g} s"), 0)
        elif limit is not None and now - self._started >= limit:
            self._end(self._failing("timeout", f"the limit of {limit:g} s was reached"), self.timers.cancel_grace)
        elif draining:
            self._end(self._giving_back, self.timers.kill_grace)

    def _look(self, now: float) -> None:
        if now - self._renewed >= self.timers.heartbeat:
            return self._renew(now)
        with open_session() as session:
            return self._heed(leases.state_of(session, self.claim))

    def _renew(self, asked: float) -> None:
        """The lease counts from before it was asked for, so that we never believe in it longer than the database does."""
        with open_session() as session:
            state = leases.renew(session, self.claim, self.timers.lease)
            session.commit()
        self._renewed = asked
        self.runner.reassure(self.timers.self_fence - (time.monotonic() - asked))
        self._heed(state)

    def _heed(self, state: str) -> None:
        if state == "cancelling":
            self._end(self._confirming, self.timers.cancel_grace)

    def _end(self, words: Callable[[Session], Any], grace: float) -> None:
        """Stop the runner; once it is gone, `words` are written into the database."""
        self._ending = words
        self.runner.stop(grace)

    def _bury(self) -> None:
        if self._ending is None:
            how = self.runner.how_it_ended()
            if self.runner.was_killed and memory.kernel_kills() > self._kills:
                how = "killed by the kernel for want of memory"
            log.warning("the runner ended by itself", how=how)
            code = "oom" if "memory" in how else "lost"
            self._ending = self._losing(code, f"the {WORK[self.claim.kind]} process ended early: {how}")
        if self.claim.kind == "experiment":
            files.remove_unfinished(files.attempt_folder(self.claim.id, self.claim.attempt))
        if self.claim.kind == "dataset":
            files.remove_folder(files.decoding_folder(self.claim.id, self.claim.attempt).parent)
        try:
            if _persist(self._ending, self.timers.self_fence):
                files.remove_folder(files.checkpoints_folder(self.claim.id))
        except LeaseLost:
            self._confirm_late_cancel()
        self.finished = True
        bell.ring("default", 1)

    def _confirm_late_cancel(self) -> None:
        """A cancel may have come between our last look and the runner's end."""
        try:
            _persist(self._confirming, self.timers.self_fence)
        except LeaseLost:
            log.info("the experiment is another's, or finished")

    def _confirming(self, session: Session) -> None:
        leases.confirm_cancelled(session, self.claim)
        files.remove_unfinished(files.checkpoints_folder(self.claim.id))  # the others stay, for a retry

    def _giving_back(self, session: Session) -> None:
        leases.give_back(session, self.claim)

    def _losing(self, code: str, message: str) -> Callable[[Session], bool]:
        return lambda session: leases.lose(session, self.claim, {"code": code, "message": message})

    def _failing(self, code: str, message: str) -> Callable[[Session], bool]:
        def failing(session: Session) -> bool:
            leases.fail(session, self.claim, {"code": code, "message": message})
            return True

        return failing


def _say_nothing(_: Session) -> None:
    """The lease is not ours any more, or cannot be known to be."""


def _persist(words: Callable[[Session], Any], patience: float) -> Any:
    """Write, trying again while the database is away, and answer what `words` did; after `patience` seconds the reconciler will
    have to do it. Raises LeaseLost.
    """
    deadline = time.monotonic() + patience
    while True:
        try:
            with open_session() as session:
                said = words(session)
                session.commit()
                return said
        except SQLAlchemyError as error:  # the server may be away, going, or read-only for the length of a failover
            if time.monotonic() > deadline:
                return log.error("the database was away for too long", error=str(error).splitlines()[0])
            time.sleep(0.5)


def _try(words: Callable[[Session], Any]) -> None:
    try:
        with open_session() as session:
            words(session)
            session.commit()
    except SQLAlchemyError as error:
        log.warning("the database does not answer", error=str(error).splitlines()[0])
