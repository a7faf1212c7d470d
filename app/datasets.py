"""Which datasets there are, and their facts, read from headers alone: no torch, no pixels."""

import struct
import zipfile
from functools import lru_cache
from pathlib import Path
from typing import IO, Any

import numpy as np

from app.errors import Invalid
from app.settings import settings
from ml.spec import DatasetFacts, held_out

DIGITS = DatasetFacts(name="digits", train=1797 - held_out(1797), test=held_out(1797), channels=1, image_size=16, classes=10)
NAMED = {
    "digits": "1797 handwritten digits of scikit-learn, inside the package",
    "mnist": "70000 handwritten digits, 28x28",
    "cifar10": "60000 colour photographs of ten classes, 32x32",
}


def facts(name: str) -> DatasetFacts:
    """What is known of a dataset. Raises Invalid at `/dataset/name` where it is absent or cannot be used."""
    if name == "digits":
        return DIGITS
    root = settings().datasets_dir
    if name == "mnist":
        return _mnist(root / "mnist" / "MNIST" / "raw")
    if name == "cifar10" and (root / "cifar10" / "cifar-10-batches-bin").is_dir():
        return DatasetFacts(name=name, train=50_000, test=10_000, channels=3, image_size=32, classes=10)
    path = _npz(name)
    if path is None:
        raise Invalid.field("/dataset/name", _absent(name))
    status = path.stat()
    return _npz_facts(name, path, status.st_mtime_ns, status.st_size)


def present() -> list[str]:
    """Names of the datasets that can be used now."""
    root = settings().datasets_dir
    found = {path.stem for pattern in ("*.npz", "*/*.npz") for path in root.glob(pattern)} | set(NAMED)
    return sorted(name for name in found if _usable(name))


def _usable(name: str) -> bool:
    try:
        facts(name)
    except Invalid:
        return False
    return True


def _absent(name: str) -> str:
    root = settings().datasets_dir
    where = f"{name!r} is not under {root}"
    if name in NAMED:
        return f"{where}; download it with `python -m ml.datasets.download {name} --root {root}`"
    return f"{where}; put it there as {name}.npz, or choose one of {', '.join(present())}"


def _mnist(raw: Path) -> DatasetFacts:
    counts = {}
    for part in ("train", "t10k"):
        path = raw / f"{part}-images-idx3-ubyte"
        if not path.is_file() or not (raw / f"{part}-labels-idx1-ubyte").is_file():
            raise Invalid.field("/dataset/name", _absent("mnist"))
        with path.open("rb") as file:
            _, counts[part], _, _ = struct.unpack(">4i", file.read(16))
    return DatasetFacts(name="mnist", train=counts["train"], test=counts["t10k"], channels=1, image_size=28, classes=10)


def _npz(name: str) -> Path | None:
    root = settings().datasets_dir
    return next((path for pattern in (f"{name}.npz", f"*/{name}.npz") for path in sorted(root.glob(pattern))), None)


@lru_cache(maxsize=256)
def _npz_facts(name: str, path: Path, _mtime: int, _size: int) -> DatasetFacts:
    """Layouts: `x` with optional `y` and `split`, or MedMNIST's `train_images` … `test_labels`."""
    try:
        with zipfile.ZipFile(path) as archive:
            shapes = {member.removesuffix(".npy"): _header(archive.open(member)) for member in archive.namelist()}
        arrays = np.load(path, allow_pickle=False)
        if "train_images" in shapes:
            (train, *shape), dtype = shapes["train_images"]
            test = shapes["test_images"][0][0]
            labels = arrays["train_labels"] if "train_labels" in shapes else None
        else:
            (items, *shape), dtype = shapes["x"]
            test = int(np.isin(arrays["split"].astype(str), ("test", "1")).sum()) if "split" in shapes else held_out(items)
            train = items - test
            labels = arrays["y"] if "y" in shapes else None
        height, width, channels = (*shape, 1) if len(shape) == 2 else shape
    except (KeyError, ValueError, OSError, zipfile.BadZipFile) as error:
        message = f"{path.name} is no dataset: it needs x [N,H,W] or [N,H,W,C], and may have y [N] and split [N] ({error})"
        raise Invalid.field("/dataset/name", message) from None
    if dtype != np.uint8:
        raise Invalid.field("/dataset/name", f"{path.name} holds {dtype}; images must be uint8")
    classes = None if labels is None else len(np.unique(labels))
    return DatasetFacts(name=name, train=train, test=test, channels=channels, image_size=max(height, width), classes=classes)


def _header(file: IO[bytes]) -> tuple[tuple[int, ...], Any]:
    read = {(1, 0): np.lib.format.read_array_header_1_0, (2, 0): np.lib.format.read_array_header_2_0}
    shape, _, dtype = read[np.lib.format.read_magic(file)](file)
    return shape, dtype
