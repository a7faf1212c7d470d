"""Colorful Moving-MNIST: which digits wander over which backgrounds. The scenes themselves are made in `ml.datasets.scenes`."""

from collections.abc import Callable, Sequence

import numpy as np
import torch
from jaxtyping import Int64, UInt8
from numpy.typing import NDArray
from torch import Tensor

from ml import spec
from ml.datasets.facts import class_indices, class_numbers
from ml.datasets.raw import DatasetInvalid, Indices, Raw
from ml.datasets.scenes import CANVAS, DIGIT, LENGTH, SceneSplit
from ml.datasets.textures import PATTERNS, textures

NAME = "moving_mnist"
DIGITS = ("mnist", "digits")
BACKGROUNDS = ("stl10", "cifar10", "cifar10_lossless_subset", "cifar10_jpeg")
TEXTURES = "textures"
MOST_SCENES = (20_000, 5_000)  # for training and held out: of more digits the first ones, since tasks encode a scene for each
MOST_BACKGROUNDS = (20_000, 5_000)  # evenly spread, since files may lie in the order of their classes; these are in memory
TEXTURE_COUNTS = (2000, 500)  # for training and held out


def choose(dataset: spec.Dataset, is_there: Callable[[str], bool]) -> spec.Dataset:
    """With its digits and its backgrounds, the first of `DIGITS` and of `BACKGROUNDS` that are there unless they are chosen."""
    digits = dataset.digits or next(name for name in DIGITS if name == DIGITS[-1] or is_there(name))
    backgrounds = dataset.backgrounds or next((name for name in BACKGROUNDS if is_there(name)), TEXTURES)
    if digits not in DIGITS:
        raise DatasetInvalid(f"the digits of {NAME} cannot be {digits!r}; they are {' or '.join(DIGITS)}")
    if backgrounds == NAME:
        raise DatasetInvalid(f"the backgrounds of {NAME} are a dataset of RGB images, or {TEXTURES!r}")
    return dataset.model_copy(update={"digits": digits, "backgrounds": backgrounds})


def components(dataset: spec.Dataset) -> list[spec.Dataset]:
    """The datasets that must be read: the digits, and the backgrounds unless they are textures."""
    digits = spec.Dataset(name=str(dataset.digits), image_size=DIGIT)
    return [digits] if dataset.backgrounds == TEXTURES else [digits, spec.Dataset(name=str(dataset.backgrounds))]


def scenes(dataset: spec.Dataset, raws: Sequence[Raw], device: torch.device) -> tuple[spec.DatasetFacts, list[SceneSplit]]:
    """Facts and splits out of the components. Held-out scenes show held-out digits before held-out backgrounds.

    Of more than `MOST_SCENES` digits the first ones serve, of more than `MOST_BACKGROUNDS` an even choice. Raises DatasetInvalid.
    """
    if dataset.image_size not in (None, CANVAS):
        raise DatasetInvalid(f"the scenes of {NAME} are made at {CANVAS} pixels, not {dataset.image_size}")
    digits, *behind = raws
    labels = _digit_labels(digits)
    backgrounds = _images(behind[0]) if behind else [textures(count, CANVAS, seed) for seed, count in enumerate(TEXTURE_COUNTS)]
    classes = len(class_numbers(behind[0])) if behind else len(PATTERNS)
    splits = [
        SceneSplit(
            torch.from_numpy(np.array(part.arrays[0][:most, 0])).to(device),
            torch.from_numpy(of_part[:most]).to(device),
            images.to(device),
            None if kinds is None else kinds.to(device),
            seed,
        )
        for seed, (part, of_part, (images, kinds), most) in enumerate(
            zip(digits.parts, labels, backgrounds, MOST_SCENES, strict=True)
        )
    ]
    facts = spec.DatasetFacts(
        name=NAME,
        layout="scenes",
        train=len(splits[0]),
        test=len(splits[1]),
        channels=3,
        image_size=CANVAS,
        frames=LENGTH,
        factors={"digit": len(class_numbers(digits)), "position": None} | ({"background": classes} if classes else {}),
        digits=dataset.digits,
        backgrounds=dataset.backgrounds,
        version=dataset.version,
    )
    return facts, splits


def _digit_labels(raw: Raw) -> tuple[Indices, Indices]:
    first, labels = raw.train.arrays[0], class_indices(raw)
    if raw.layout != "images" or first.shape[1] != 1 or first.dtype != np.uint8:
        found = f"{raw.layout} of {first.shape[-3]} channel(s) in {first.dtype}"
        raise DatasetInvalid(f"the digits of {NAME} must be grey images in uint8, not {found}")
    if labels is None or min(map(np.min, labels)) < 0:
        raise DatasetInvalid(f"the digits of {NAME} must all have labels")
    return labels


def _images(raw: Raw) -> list[tuple[UInt8[Tensor, "M 3 h w"], Int64[Tensor, " M"] | None]]:
    """Of both splits the images that have a class, or any where there are no classes: at most `MOST_BACKGROUNDS`, evenly."""
    first = raw.train.arrays[0]
    if raw.layout not in ("images", "photos") or first.shape[1] != 3 or first.dtype != np.uint8:
        found = f"{raw.layout} of {first.shape[-3]} channel(s) in {first.dtype}"
        raise DatasetInvalid(f"the backgrounds of {NAME} must be RGB images in uint8, not {found}")
    labels = class_indices(raw)
    if labels is None:
        return [
            (torch.from_numpy(part.arrays[0][_evenly(np.arange(len(part)), most)]), None)
            for part, most in zip(raw.parts, MOST_BACKGROUNDS, strict=True)
        ]
    chosen = [_evenly(np.flatnonzero(of_part >= 0), most) for of_part, most in zip(labels, MOST_BACKGROUNDS, strict=True)]
    return [
        (torch.from_numpy(part.arrays[0][items]), torch.from_numpy(of_part[items]))
        for part, of_part, items in zip(raw.parts, labels, chosen, strict=True)
    ]


def _evenly(items: NDArray[np.intp], most: int) -> NDArray[np.intp]:
    """At most so many of them, from the first to the last."""
    return items[np.linspace(0, len(items) - 1, min(len(items), most)).round().astype(np.intp)]
