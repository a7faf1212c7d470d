"""How a runner's want of memory is told from its other ends."""

from contextlib import suppress
from pathlib import Path

from app.persistence import hardware
from app.settings import settings

SHARE = 0.9  # of the machine's memory: beyond it the kernel would kill, and not always whoever ate it
EVENTS = Path("/sys/fs/cgroup/memory.events")


def eaten(pid: int) -> str | None:
    """That a process holds more than a runner may, in words; what it maps from files does not count."""
    limit = settings().runner_memory or (hardware.describe().get("memory_bytes") or 0) * SHARE
    held = _anonymous(pid)
    if not limit or held <= limit:
        return None
    return f"it held {held / 2**30:.3g} GiB of memory, and may hold {limit / 2**30:.3g} GiB"


def kernel_kills() -> int:
    """How often the kernel killed for want of memory in this container; 0 where there is no telling."""
    with suppress(OSError, ValueError):
        for line in EVENTS.read_text().splitlines():
            if line.startswith("oom_kill "):
                return int(line.split()[1])
    return 0


def _anonymous(pid: int) -> int:
    with suppress(OSError, ValueError):
        for line in Path(f"/proc/{pid}/status").read_text().splitlines():
            if line.startswith("RssAnon:"):
                return int(line.split()[1]) * 1024
    return 0
