"""`make bench`: figures worth knowing, measured side by side in one run, as a table and as a dated file beside this one."""

import json
import os
import platform
import sys
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path

from rich.console import Console
from rich.table import Table

from workers.process import ALLOCATOR


@dataclass(frozen=True)
class Figure:
    """A measured value beside what it is compared with. `ratio` is ours over the other's."""

    what: str
    ours: str
    other: str
    ratio: float
    target: str
    met: bool | None


def main() -> None:
    """Measure everything; takes some minutes. Single-threaded, and with the allocator's settings, as runners are."""
    as_runners_are("benchmarks.run")
    from benchmarks import service, step  # noqa: PLC0415 - torch takes a while to import

    figures = [*step.measure(), *service.measure()]
    table = Table("what", "ours", "peer or limit", "ratio", "target", "met")
    for figure in figures:
        met = {True: "yes", False: "NO", None: "–"}[figure.met]
        table.add_row(figure.what, figure.ours, figure.other, f"{figure.ratio:.2f}", figure.target, met)
    Console().print(table)
    day = datetime.now(UTC).date().isoformat()
    content = {"date": day, "hardware": hardware(), "figures": [asdict(figure) for figure in figures]}
    path = Path(__file__).with_name(f"{day}.json")
    path.write_text(json.dumps(content, indent=1, ensure_ascii=False) + "\n")
    print(f"written to {path}")


def as_runners_are(module: str) -> None:
    """Start this module anew unless it has the environment of runners: glibc reads its settings when a process starts."""
    wanted = ALLOCATOR | {"OMP_NUM_THREADS": "1", "MKL_NUM_THREADS": "1"}
    if not wanted.items() <= os.environ.items():
        os.execve(sys.executable, [sys.executable, "-m", module, *sys.argv[1:]], os.environ | wanted)


def hardware() -> str:
    """This machine's cores and system, in words."""
    lines = Path("/proc/cpuinfo").read_text().splitlines()
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return f"{len(names)} cores of {names[0] if names else platform.processor()}, {platform.system()}"


if __name__ == "__main__":
    main()
