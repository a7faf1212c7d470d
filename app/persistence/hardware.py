"""What a machine computes with, found out without torch."""

import os
import socket
from collections.abc import Iterator
from contextlib import suppress
from functools import cache
from pathlib import Path, PurePosixPath
from typing import Any


@cache
def describe() -> dict[str, Any]:
    """Host, processor, memory, GPUs, and whether bfloat16 is multiplied in hardware."""
    cpu = Path("/proc/cpuinfo").read_text() if Path("/proc/cpuinfo").is_file() else ""
    names = [line.split(":", 1)[1].strip() for line in cpu.splitlines() if line.startswith("model name")]
    flags = next((line.split() for line in cpu.splitlines() if line.startswith("flags")), [])
    gpus = _gpus()
    return {
        "host": socket.gethostname(),
        "pid": os.getpid(),
        "cpu": names[0] if names else "unknown",
        "memory_bytes": memory(),
        "gpus": gpus,
        "gpu_memory_bytes": None,  # which /proc does not say
        "fast_bfloat16": bool(gpus) or bool({"avx512_bf16", "amx_bf16"} & set(flags)),
    }


def memory(root: Path = Path("/")) -> int | None:
    """Bytes that this process may fill: the machine's, or less where a cgroup of it or above it has a limit. None: unknown."""
    with suppress(OSError, ValueError):
        lines = (root / "proc/meminfo").read_text().splitlines()
        (physical,) = (int(line.split()[1]) for line in lines if line.startswith("MemTotal:"))
        return min(1024 * physical, *_limits(root))
    return None


def _limits(root: Path) -> Iterator[int]:
    """Of the memory of this process's cgroups, in either version; none is `max`, or in the first a number beyond all."""
    cgroups = root / "sys/fs/cgroup"
    yield 2**63
    for line in (root / "proc/self/cgroup").read_text().splitlines():
        _, controllers, path = line.split(":", 2)
        if controllers not in ("", "memory"):
            continue
        own = PurePosixPath(path.lstrip("/"))
        hierarchy, name = (cgroups, "memory.max") if not controllers else (cgroups / "memory", "memory.limit_in_bytes")
        for folder in (own, *own.parents):
            with suppress(OSError, ValueError):
                yield int((hierarchy / folder / name).read_text())


def _gpus() -> list[str]:
    if os.environ.get("CUDA_VISIBLE_DEVICES") == "":
        return []
    files = sorted(Path("/proc/driver/nvidia/gpus").glob("*/information"))
    models = (line for file in files for line in file.read_text().splitlines() if line.startswith("Model:"))
    return [model.split(":", 1)[1].strip() for model in models]
