"""Which datasets there are, and their facts, read from headers alone: no torch, no pixels."""

import struct
import zipfile
from functools import lru_cache
from pathlib import Path
from typing import IO, Any

import numpy as np

from app.errors import Invalid
from app.settings import settings
from ml.spec import DatasetFacts, held_out, npz_version

LEAST_ITEMS = 8  # in each split
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
    if name in NAMED:
        path = root / name / f"{name}.npz"
        return path if path.is_file() else None
    return next((path for path in (root / f"{name}.npz", *sorted(root.glob(f"*/{name}.npz"))) if path.is_file()), None)


@lru_cache(maxsize=256)
def _npz_facts(name: str, path: Path, _mtime: int, _size: int) -> DatasetFacts:
    """As `ml.datasets.npz` reads it: `x` with optional `y` and `split`, or MedMNIST's `train_images` … `test_labels`."""
    headers, arrays = _read_npz(path)
    if "x" in headers:
        (items, *shape), dtype = headers["x"]
        test = int(np.isin(arrays["split"].astype(str), ("test", "1")).sum()) if "split" in arrays else held_out(items)
        train, labels = items - test, [arrays[key] for key in ("y",) if key in arrays]
    elif {"train_images", "test_images"} <= headers.keys():
        (train, *shape), dtype = headers["train_images"]
        test = headers["test_images"][0][0]
        labels = [arrays[key] for key in ("train_labels", "test_labels") if key in arrays]
    else:
        raise _refused(path, "it has neither x nor train_images and test_images")
    if dtype != np.uint8 or len(shape) not in (2, 3) or 0 in shape:
        raise _refused(path, f"its images are {dtype} of shape {tuple(shape)}")
    if min(train, test) < LEAST_ITEMS:
        raise _refused(path, f"it has {train} training and {test} test items; at least {LEAST_ITEMS} of each are needed")
    return DatasetFacts(
        name=name,
        train=train,
        test=test,
        channels=shape[2] if len(shape) == 3 else 1,
        image_size=min(shape[:2]),
        classes=len(np.unique(np.concatenate([array.ravel() for array in labels]))) if labels else None,
        version=None if name in NAMED else npz_version(path),
    )


def _read_npz(path: Path) -> tuple[dict[str, tuple[tuple[int, ...], Any]], dict[str, Any]]:
    """(Shape, type) of the images, and the small arrays themselves. Raises Invalid."""
    try:
        with zipfile.ZipFile(path) as archive:
            members = set(archive.namelist())
            images = [key for key in ("x", "train_images", "test_images") if f"{key}.npy" in members]
            headers = {key: _header(archive.open(f"{key}.npy")) for key in images}
        with np.load(path, allow_pickle=False) as archive:
            small = [key for key in ("y", "split", "train_labels", "test_labels") if key in archive.files]
            return headers, {key: archive[key] for key in small}
    except (KeyError, ValueError, OSError, EOFError, zipfile.BadZipFile) as error:
        raise _refused(path, str(error)) from None


def _header(file: IO[bytes]) -> tuple[tuple[int, ...], Any]:
    read = {(1, 0): np.lib.format.read_array_header_1_0, (2, 0): np.lib.format.read_array_header_2_0}
    shape, _, dtype = read[np.lib.format.read_magic(file)](file)
    return shape, dtype


def _refused(path: Path, reason: str) -> Invalid:
    wanted = "it needs x [N,H,W] or [N,H,W,C] of uint8, and may have y [N] and split [N]"
    return Invalid.field("/dataset/name", f"{path.name} is no dataset: {reason}; {wanted}")
