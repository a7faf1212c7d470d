"""What a machine computes with, found out without torch."""

import os
import socket
from functools import cache
from pathlib import Path
from typing import Any


@cache
def describe() -> dict[str, Any]:
    """Host, processor, GPUs, and whether bfloat16 is multiplied in hardware."""
    cpu = Path("/proc/cpuinfo").read_text() if Path("/proc/cpuinfo").is_file() else ""
    names = [line.split(":", 1)[1].strip() for line in cpu.splitlines() if line.startswith("model name")]
    flags = next((line.split() for line in cpu.splitlines() if line.startswith("flags")), [])
    gpus = _gpus()
    return {
        "host": socket.gethostname(),
        "pid": os.getpid(),
        "cpu": names[0] if names else "unknown",
        "gpus": gpus,
        "fast_bfloat16": bool(gpus) or bool({"avx512_bf16", "amx_bf16"} & set(flags)),
    }


def _gpus() -> list[str]:
    if os.environ.get("CUDA_VISIBLE_DEVICES") == "":
        return []
    files = sorted(Path("/proc/driver/nvidia/gpus").glob("*/information"))
    models = (line for file in files for line in file.read_text().splitlines() if line.startswith("Model:"))
    return [model.split(":", 1)[1].strip() for model in models]
