"""What a training step costs, and which part of it the views take; one thread, repeats interleaved, medians."""

import statistics
import time
from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch import Generator, Tensor

from benchmarks.run import Figure
from ml import encoders, methods, spec, views
from ml.encoders import PixelEncoder

PAIRS = 256
REPEATS = 7
STEPS = 4  # a repeat


def measure() -> Iterator[Figure]:
    """The small encoder at 32x32 with SimCLR's augmentations, blur included, against the encoder alone."""
    torch.set_num_threads(1)
    images = torch.rand(PAIRS, 3, 32, 32, generator=Generator().manual_seed(0))
    recipe = spec.Augment(kind="augment", blur_p=0.5)
    times = _interleaved(
        {
            "float32": _step(images, recipe, bfloat16=False),
            "bfloat16": _step(images, recipe, bfloat16=True),
            "bfloat16, no views": _step(images, None, bfloat16=True),
            "views": _views(images, recipe),
        }
    )
    rate = {name: PAIRS / seconds for name, seconds in times.items()}
    share = times["views"] / times["bfloat16"]
    microseconds = 1e6 * times["views"] / (2 * PAIRS)
    yield Figure(
        "views' share of a step (small_conv, 32x32, bfloat16)",
        f"{microseconds:.0f} µs a view",
        f"{rate['bfloat16']:.0f} pairs/s a step",
        share,
        "<= 0.08",
        share <= 0.08,
    )
    ratio = rate["bfloat16"] / rate["bfloat16, no views"]
    limit = f"{rate['bfloat16, no views']:.0f} pairs/s encoder alone"
    yield Figure("a step against the encoder alone", f"{rate['bfloat16']:.0f} pairs/s", limit, ratio, ">= 0.90", ratio >= 0.9)
    gain = rate["bfloat16"] / rate["float32"]
    yield Figure("bfloat16 against float32", f"{rate['bfloat16']:.0f} pairs/s", f"{rate['float32']:.0f} pairs/s", gain, "–", None)


def _step(images: Tensor, recipe: spec.Augment | None, *, bfloat16: bool) -> Callable[[], Any]:
    encoder = PixelEncoder(encoders.build(spec.SmallConv(width=64), 3), torch.zeros(3), torch.ones(3), autocast=bfloat16)
    method = methods.build(spec.SimCLR(), encoder).to(memory_format=torch.channels_last).train()
    optimiser = torch.optim.AdamW(method.parameters(), fused=True)
    generator = Generator().manual_seed(0)

    def step() -> None:
        v1, v2 = (images, images) if recipe is None else views.make(recipe, images, generator)
        optimiser.zero_grad()
        method.loss(v1, v2).backward()
        optimiser.step()

    return step


def _views(images: Tensor, recipe: spec.Augment) -> Callable[[], Any]:
    generator = Generator().manual_seed(0)
    return lambda: views.make(recipe, images, generator)


def _interleaved(work: dict[str, Callable[[], Any]]) -> dict[str, float]:
    """Median seconds of each, taken in turns so that a noisy machine is as noisy for all."""
    times: dict[str, list[float]] = {name: [] for name in work}
    for repeat in range(REPEATS + 1):
        for name, once in work.items():
            start = time.perf_counter()
            for _ in range(STEPS):
                once()
            if repeat:  # the first warms up
                times[name].append((time.perf_counter() - start) / STEPS)
    return {name: statistics.median(seconds) for name, seconds in times.items()}
