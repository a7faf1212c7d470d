"""The process that trains: `python -m workers.runner --parent PID`, started by a supervisor.

It imports its trade beforehand (`workers.training`, and with it torch), waits for work on its standard input, and carries it out,
writing into the database for itself under the fence of its claim. It says `alive` on its standard output as it goes and `idle`
when it has let go of its work; after any error it ends. It ends at once if its supervisor does, or if its lease is not renewed in
time.
"""

import argparse
import io
import os
import signal
import sys
import traceback
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from importlib import import_module
from pathlib import Path
from typing import Any, NoReturn, Protocol

from app.persistence import files, leases
from app.persistence.leases import Claim, LeaseLost
from app.settings import settings
from workers.line import EXIT_LEASE_LOST, AttemptLost, Line, Stop
from workers.parent import die_with
from workers.process import EXIT_OUT_OF_MEMORY
from workers.report import persist

EXIT_ATTEMPT_LOST = 11


class Trade(Protocol):
    """What a runner can do: the module that `SWEETSPOT_TRADE` names."""

    WORK: Mapping[str, Callable[[Claim, Line], None]]
    """By kind of claim. What it raises ends the attempt."""

    @staticmethod
    def prepare() -> None:
        """Called once, before there is work."""

    @staticmethod
    def is_out_of_memory(error: Exception) -> bool:
        """Whether an attempt broke off for want of memory."""

    @staticmethod
    def describe(error: Exception) -> dict[str, Any]:
        """Any other error as an experiment's record has it: {code, message}."""


def main() -> None:
    """Work until told to end."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--parent", type=int, required=True, help="process id of the supervisor")
    parent = parser.parse_args().parent
    die_with(parent)
    line = Line()
    signal.signal(signal.SIGTERM, line.stop)
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    sys.stdout = sys.stderr = io.TextIOWrapper(_Forgiving(), line_buffering=True, errors="replace")
    trade: Trade = import_module(settings().trade)  # type: ignore[assignment]
    trade.prepare()
    for claim in line.work():
        with _output_to(files.attempt_folder(claim.id, claim.attempt) / "log.txt", claim.kind == "experiment"):
            carry_out(trade, claim, line)
        line.let_go()
    _leave(0)


def carry_out(trade: Trade, claim: Claim, line: Line) -> None:
    """Do the work of a claim, and say in the database how it ended. Ends the process after any error."""
    try:
        trade.WORK[claim.kind](claim, line)
    except Stop:
        _leave(0)
    except LeaseLost:
        _leave(EXIT_LEASE_LOST)
    except AttemptLost:
        traceback.print_exc()
        _leave(EXIT_ATTEMPT_LOST)
    except Exception as error:  # whatever went wrong belongs into the experiment's record
        traceback.print_exc()
        if trade.is_out_of_memory(error):
            _leave(EXIT_OUT_OF_MEMORY)
        described = {name: _keepable(words) for name, words in trade.describe(error).items()}
        try:
            persist(lambda session: leases.fail(session, claim, described))
        except LeaseLost:
            _leave(EXIT_LEASE_LOST)
        files.remove_folder(files.checkpoints_folder(claim.id))
        _leave(1)


def _keepable(words: str) -> str:
    """As a database keeps it: without NUL and halves of surrogate pairs, or the reason of a failure would be lost with it."""
    return words.replace("\0", "\\0").encode(errors="backslashreplace").decode()


def _leave(status: int) -> NoReturn:
    """End without tidying up: the thread that reads standard input cannot be made to let go of it."""
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(status)


class _Forgiving(io.RawIOBase):
    """What is printed goes into the attempt's log; a disk that does not take it must not end a training."""

    def writable(self) -> bool:
        return True

    def write(self, words: Any) -> int:
        with suppress(OSError):
            os.write(2, words)
        return len(words)


@contextmanager
def _output_to(path: Path, wanted: bool) -> Iterator[None]:
    """Send what this process and its libraries print into an attempt's log meanwhile, if the disk lets us."""
    before = os.dup(2)
    with suppress(OSError):
        if wanted:
            path.parent.mkdir(parents=True, exist_ok=True)
            with path.open("ab") as log:
                _print_into(log.fileno())
    try:
        yield
    finally:
        _print_into(before)
        os.close(before)


def _print_into(descriptor: int) -> None:
    for standard in (1, 2):
        os.dup2(descriptor, standard)


if __name__ == "__main__":
    main()
