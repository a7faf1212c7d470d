"""What a training step costs, and which part of it the views take; one thread, repeats interleaved, medians."""

import statistics
import time
from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch import Generator, Tensor

from benchmarks.run import Figure
from ml import encoders, methods, spec, views
from ml.encoders import PixelEncoder, Standardise

PAIRS = 256
WIDTH = 64  # of the encoder
REPEATS = 7
STEPS = 4  # a repeat


def measure() -> Iterator[Figure]:
    """The small encoder at 32x32 with SimCLR's augmentations against the encoder alone; InfoMin's have RandAugment besides."""
    torch.set_num_threads(1)
    images = torch.rand(PAIRS, 3, 32, 32, generator=Generator().manual_seed(0))
    recipe, infomin = (spec.Augment(kind="augment", recipe=name) for name in ("simclr", "infomin"))
    times = _interleaved(
        {
            "float32": _step(images, recipe, bfloat16=False),
            "bfloat16": _step(images, recipe, bfloat16=True),
            "bfloat16, no views": _step(images, None, bfloat16=True),
            "views": _views(images, recipe),
            "views of infomin": _views(images, infomin),
        }
    )
    rate = {name: PAIRS / seconds for name, seconds in times.items()}
    share = times["views"] / times["bfloat16"]
    step = f"{rate['bfloat16']:.0f} pairs/s a step"
    each = {name: f"{1e6 * times[name] / (2 * PAIRS):.0f} µs a view" for name in ("views", "views of infomin")}
    yield Figure(
        "views' share of a step (simclr, small_conv, 32x32, bfloat16)", each["views"], step, share, "<= 0.08", share <= 0.08
    )
    with_views = times["bfloat16, no views"] + times["views of infomin"]
    yield Figure("the same of infomin", each["views of infomin"], step, times["views of infomin"] / with_views, "–", None)
    ratio = rate["bfloat16"] / rate["bfloat16, no views"]
    limit = f"{rate['bfloat16, no views']:.0f} pairs/s encoder alone"
    yield Figure("a step against the encoder alone", f"{rate['bfloat16']:.0f} pairs/s", limit, ratio, ">= 0.90", ratio >= 0.9)
    gain = rate["bfloat16"] / rate["float32"]
    yield Figure("bfloat16 against float32", f"{rate['bfloat16']:.0f} pairs/s", f"{rate['float32']:.0f} pairs/s", gain, "–", None)


def _step(images: Tensor, recipe: spec.Augment | None, *, bfloat16: bool) -> Callable[[], Any]:
    standardise = Standardise(torch.zeros(3), torch.ones(3))
    encoder = PixelEncoder(encoders.build(spec.SmallConv(width=WIDTH), 3), standardise, autocast=bfloat16)
    method = methods.build(spec.SimCLR(), methods.Setting([encoder], [encoder.features], len(images), spec.Noise(kind="noise")))
    method = method.to(memory_format=torch.channels_last).train()
    optimiser = torch.optim.AdamW(method.parameters(), fused=True)
    generator = Generator().manual_seed(0)
    items = torch.arange(len(images))

    def step() -> None:
        drawn = (images, images) if recipe is None else views.make(recipe, images, generator)
        optimiser.zero_grad()
        method.loss(drawn, items, generator).backward()
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
