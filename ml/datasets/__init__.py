"""Whole datasets as uint8 tensors on the device. One file a layout; nothing pickled is ever read."""

import hashlib
from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from jaxtyping import Float, Int64, UInt8
from torch import Tensor

from ml import spec
from ml.datasets import cifar10, digits, mnist, npz
from ml.datasets.raw import DatasetInvalid, DatasetMissing, Raw

__all__ = ["Data", "DatasetInvalid", "DatasetMissing", "load"]

_READERS: dict[str, Callable[[Path], Raw]] = {"digits": digits.read, "mnist": mnist.read, "cifar10": cifar10.read}


@dataclass(frozen=True, eq=False)
class Data:
    """A dataset on its device: square images in [0, 255], labels from 0 to classes - 1 or none."""

    facts: spec.DatasetFacts
    train_images: UInt8[Tensor, "N C H H"]
    train_labels: Int64[Tensor, " N"] | None
    test_images: UInt8[Tensor, "M C H H"]
    test_labels: Int64[Tensor, " M"] | None
    mean: Float[Tensor, " C"]
    """Of each channel over the training images, in pixels scaled to [0, 1]."""
    std: Float[Tensor, " C"]
    digest: str
    """SHA-256 of the arrays as they were read, before any resizing."""


def load(name: str, image_size: int | None, root: Path, device: torch.device) -> Data:
    """Read a dataset by its name from `root`, at its own image size or another (bilinear, then the central square).

    Keeps the last few, so that a process that trains again does not read again, unless the file holds other data by then.
    Raises DatasetMissing or DatasetInvalid.
    """
    return _load(name, image_size, root, device, None if name in _READERS else npz.version(root, name))


def to_pixels(images: UInt8[Tensor, "B C H W"]) -> Float[Tensor, "B C H W"]:
    """Pixels scaled to [0, 1], the unit in which views are made."""
    return images.to(torch.float32).div_(255)


@lru_cache(maxsize=4)
def _load(name: str, image_size: int | None, root: Path, device: torch.device, version: str | None) -> Data:
    raw = _READERS[name](root) if name in _READERS else npz.read(root, name)
    size = image_size or raw.default_size or min(raw.train_images.shape[-2:])
    train, test = (_resized(torch.from_numpy(images), size).to(device) for images in (raw.train_images, raw.test_images))
    labels, classes = _class_indices(raw)
    mean, std = _statistics(train)
    return Data(
        facts=spec.DatasetFacts(
            name=name,
            train=len(train),
            test=len(test),
            channels=train.shape[1],
            image_size=size,
            classes=classes,
            version=version,
        ),
        train_images=train,
        train_labels=None if labels is None else labels[0].to(device),
        test_images=test,
        test_labels=None if labels is None else labels[1].to(device),
        mean=mean,
        std=std,
        digest=_digest(raw),
    )


def _resized(images: UInt8[Tensor, "N C H W"], size: int) -> UInt8[Tensor, "N C size size"]:
    H, W = images.shape[-2:]
    if size == H == W:
        return images.contiguous()
    height, width = round(H * size / min(H, W)), round(W * size / min(H, W))
    top, left = (height - size) // 2, (width - size) // 2
    chunks = [
        F.interpolate(chunk.float(), (height, width), mode="bilinear", antialias=True)[:, :, top : top + size, left : left + size]
        .round_()
        .to(torch.uint8)
        for chunk in images.split(1024)
    ]
    return torch.cat(chunks)


def _statistics(images: UInt8[Tensor, "N C H W"]) -> tuple[Float[Tensor, " C"], Float[Tensor, " C"]]:
    """Mean and standard deviation of each channel; exact, because they come from counts of the 256 values."""
    values = torch.arange(256, dtype=torch.float64) / 255
    counts = torch.stack([torch.bincount(channel.flatten(), minlength=256) for channel in images.unbind(1)]).cpu().double()
    shares = counts / counts.sum(dim=1, keepdim=True)
    mean = shares @ values
    variance = shares @ values**2 - mean**2
    std = variance.clamp(min=0).sqrt()
    std[std < 1e-6] = 1  # a channel without contrast stays as it is
    return mean.float().to(images.device), std.float().to(images.device)


def _class_indices(raw: Raw) -> tuple[tuple[Int64[Tensor, " N"], Int64[Tensor, " M"]] | None, int | None]:
    if raw.train_labels is None or raw.test_labels is None:
        return None, None
    kinds, indices = np.unique(np.concatenate((raw.train_labels, raw.test_labels)), return_inverse=True)
    labels = torch.from_numpy(indices.astype(np.int64))
    return (labels[: len(raw.train_labels)], labels[len(raw.train_labels) :]), len(kinds)


def _digest(raw: Raw) -> str:
    digest = hashlib.sha256()
    for array in (raw.train_images, raw.train_labels, raw.test_images, raw.test_labels):
        if array is not None:
            digest.update(f"{array.dtype.str}{array.shape}".encode())
            digest.update(np.ascontiguousarray(array).data)
    return digest.hexdigest()
