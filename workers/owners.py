"""Who holds leases: names that say on which machine to look whether their process still lives."""

import hashlib
import os
from functools import cache
from pathlib import Path


def own(worker: str) -> str:
    """This process as the owner of leases: `WORKER/PID-MACHINE`, where MACHINE is one boot and one space of process ids."""
    return f"{worker}/{os.getpid()}-{machine()}"


@cache
def machine() -> str:
    """Where process ids mean what they mean here; empty where that cannot be known."""
    try:
        boot = Path("/proc/sys/kernel/random/boot_id").read_text().strip()
        space = Path("/proc/self/ns/pid").readlink()
    except OSError:
        return ""
    return hashlib.sha256(f"{boot} {space}".encode()).hexdigest()[:12]


def is_gone(owner: str) -> bool:
    """Whether it was a process of this machine that does not live any more. Its runners ended with it.

    False of other machines' owners, and of an id that belongs to another process by now: their leases end in time.
    """
    pid, _, where = owner.rpartition("/")[2].partition("-")
    if not machine() or where != machine() or not pid.isdigit():
        return False
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] in ("Z", "X")
    except (FileNotFoundError, ProcessLookupError):
        return _is_nobody(int(pid))
    except OSError:  # we may not look, or have too many files open: that says nothing of it
        return False


def _is_nobody(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return True
    except OSError:
        return False
    return False
