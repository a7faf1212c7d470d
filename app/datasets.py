"""Which datasets there are, and their facts, read from headers alone: no torch, no pixels."""

import re
import struct
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from pathlib import Path

from app import dataset_headers
from app.errors import Invalid
from app.settings import settings
from ml.spec import Dataset, DatasetFacts, held_out

NAMED = {
    "digits": "scikit-learn's handwritten digits, inside the package: 1078 for training and 719 held out, 8x8",
    "mnist": "MNIST, handwritten digits: 60 000 for training and 10 000 held out, 28x28",
    "fashion_mnist": "Fashion-MNIST, ten kinds of clothing: 60 000 for training and 10 000 held out, 28x28",
    "cifar10": "CIFAR-10, colour photographs of ten classes: 50 000 for training and 10 000 held out, 32x32",
    "cifar100": "CIFAR-100, colour photographs of a hundred classes: 50 000 for training and 10 000 held out, 32x32",
    "stl10": "STL-10, ten classes: 5000 labelled and 100 000 unlabelled images for pretraining, 8000 held out, 96x96",
    "imagenet": "ImageNet (ILSVRC 2012), a thousand classes: 1 281 167 for training and the 50 000 of validation held out",
    "tiny-imagenet-200": "Tiny-ImageNet, two hundred classes: 100 000 for training and the 10 000 of validation held out, 64x64",
    "moving_mnist": "Colorful Moving-MNIST, made as it is needed, 64x64: a scene for each digit, at most 20000 for "
    "training and 5000 held out, and neither digits nor backgrounds in both",
}
DIGITS = DatasetFacts(name="digits", train=1797 - held_out(1797), test=held_out(1797), channels=1, image_size=16, classes=10)
SCENE_DIGITS = ("mnist", "digits")
SCENE_BACKGROUNDS = ("stl10", "cifar10", "cifar10_lossless_subset", "cifar10_jpeg")
MOST_SCENES = (20_000, 5_000)  # for training and held out
TEXTURES = "textures"
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]{,99}")  # that a spec accepts
_PUBLISHED: dict[str, tuple[str, Callable[[str, Path], DatasetFacts]]] = {
    "mnist": ("mnist/MNIST/raw", dataset_headers.mnist),
    "fashion_mnist": ("fashion_mnist/FashionMNIST/raw", dataset_headers.mnist),
    "cifar10": ("cifar10/cifar-10-batches-bin", dataset_headers.cifar10),
    "cifar100": ("cifar100/cifar-100-binary", dataset_headers.cifar100),
    "stl10": ("stl10/stl10_binary", dataset_headers.stl10),
}
_LOOKED_UP: ContextVar[dict[str, DatasetFacts | None] | None] = ContextVar("looked_up", default=None)
_UNUSABLE = (ValueError, OSError, struct.error)


def facts(dataset: Dataset) -> DatasetFacts:
    """What is known of a dataset. Raises Invalid at the field of `/dataset` for what is absent or cannot be used."""
    return _scenes(dataset) if dataset.name == "moving_mnist" else _facts(dataset.name)


def present() -> list[str]:
    """Names of the datasets that can be used now; uploads are listed elsewhere."""
    root = settings().datasets_dir
    archives = [path.stem for pattern in ("*.npz", "*/*.npz") for path in root.glob(pattern)]
    names = {*NAMED, *archives, *_image_folders(root)}
    return sorted(name for name in names if _NAME.fullmatch(name) and not name.lower().startswith("ds_") and _usable(name))


def first_present(names: Sequence[str]) -> str:
    """The first of these that can be used now, else the first of all, whose absence the error will tell."""
    return next((name for name in names if _usable(name)), names[0])


def description(name: str) -> str:
    """A sentence on a dataset that can be used, its splits included."""
    if name in NAMED:
        return NAMED[name]
    found = _facts(name)
    kind = {"photos": "photographs", "clips": "clips", "paired": "pairs of images"}.get(found.layout, "images")
    return f"{kind} of the datasets folder: {found.train} for training and {found.test} held out"


def _usable(name: str) -> bool:
    try:
        return name == "moving_mnist" or _found(name) is not None
    except _UNUSABLE:
        return False


def _facts(name: str, offered: Callable[[], list[str]] = present) -> DatasetFacts:
    try:
        found = _scenes(Dataset(name=name)) if name == "moving_mnist" else _found(name)
    except _UNUSABLE as error:
        raise Invalid.field("/dataset/name", f"{name!r} cannot be used as a dataset: {error}") from None
    if found is None:
        raise Invalid.field("/dataset/name", _absent(name, offered()))
    return found


@contextmanager
def looked_up_once() -> Iterator[None]:
    """In this block a dataset is looked for once, and then taken to be as it was: for answers that name the same ones often."""
    token = _LOOKED_UP.set({})
    try:
        yield
    finally:
        _LOOKED_UP.reset(token)


def _found(name: str) -> DatasetFacts | None:
    """As `ml.datasets` finds it: the originals of a published dataset, else an npz, else a folder of images."""
    known = _LOOKED_UP.get()
    if known is None:
        return _look_up(name)
    if name not in known:
        known[name] = _look_up(name)
    return known[name]


def _look_up(name: str) -> DatasetFacts | None:
    root = settings().datasets_dir
    if name == "digits":
        return DIGITS
    if name.startswith("ds_"):
        path = settings().uploads_dir / name / "facts.json"
        return DatasetFacts.model_validate_json(path.read_bytes()) if path.is_file() else None
    where, read = _PUBLISHED.get(name, ("", None))
    if read is not None and (root / where).is_dir():
        return read(name, root / where)
    archives = [root / name / f"{name}.npz"] if read is not None else [root / f"{name}.npz", *sorted(root.glob(f"*/{name}.npz"))]
    for archive in archives:
        if archive.is_file():
            return dataset_headers.npz(name, archive, archive.stat().st_mtime_ns, archive.stat().st_size)
    folders = (path for path in (root / name, *sorted(root.glob(f"*/{name}"))) if path.is_dir())
    path = None if read is not None else next(folders, None)
    return None if path is None else dataset_headers.folder(name, path)


def _image_folders(root: Path) -> list[str]:
    """Names of folders that may be datasets: those in the root, and those in `photos`, which itself is none."""
    taken = {*_PUBLISHED, dataset_headers.PHOTOS}
    return [
        path.name
        for pattern in ("*", f"{dataset_headers.PHOTOS}/*")
        for path in root.glob(pattern)
        if path.is_dir() and not path.name.startswith(".") and path.name not in taken
    ]


def _absent(name: str, offered: Sequence[str]) -> str:
    root = settings().datasets_dir
    if name.startswith("ds_"):
        return f"there is no upload {name!r} that can be used"
    if name == "imagenet":
        return f"{name!r} is not under {root}; put the folders train and val of ILSVRC 2012 into {root / name}"
    if name in NAMED:
        return f"{name!r} is not under {root}; download it with `python -m ml.datasets.download {name} --root {root}`"
    return (
        f"{name!r} is not under {root}; put it there as {name}.npz or as a folder {name} of JPEG or PNG files, or choose one of "
        f"{', '.join(offered)}"
    )


def _scenes(dataset: Dataset) -> DatasetFacts:
    """Colorful Moving-MNIST, out of the digits and the backgrounds that were chosen or are there."""
    digits = dataset.digits or first_present(SCENE_DIGITS)
    backgrounds = dataset.backgrounds or next((name for name in SCENE_BACKGROUNDS if _usable(name)), TEXTURES)
    if digits not in SCENE_DIGITS:
        raise Invalid.field("/dataset/digits", f"digits are {' or '.join(SCENE_DIGITS)}, not {digits!r}")
    of_digits = _component(digits, "/dataset/digits", present)
    if (of_digits.layout, of_digits.channels, of_digits.dtype) != ("images", 1, "uint8"):
        raise Invalid.field("/dataset/digits", f"digits must be grey images in uint8, not {_pixels(of_digits)}")
    if of_digits.classes is None or of_digits.labelled is not None:
        raise Invalid.field("/dataset/digits", f"digits must all have labels, but those of {digits!r} have not")
    factors: dict[str, int | None] = {"digit": of_digits.classes, "position": None}
    versions = [of_digits.version]
    if backgrounds == TEXTURES:
        factors["background"] = 10
    else:
        behind = _component(backgrounds, "/dataset/backgrounds", _backgrounds)
        if not _can_be_background(behind):
            raise Invalid.field(
                "/dataset/backgrounds",
                f"backgrounds must be RGB images in uint8, not {_pixels(behind)}; choose one of {', '.join(_backgrounds())}",
            )
        factors |= {} if behind.classes is None else {"background": behind.classes}
        versions.append(behind.version)
    return DatasetFacts(
        name=dataset.name,
        layout="scenes",
        train=min(of_digits.train, MOST_SCENES[0]),
        test=min(of_digits.test, MOST_SCENES[1]),
        channels=3,
        image_size=64,
        frames=20,
        factors=factors,
        digits=digits,
        backgrounds=backgrounds,
        version="-".join(version for version in versions if version is not None) or None,
    )


def _backgrounds() -> list[str]:
    """What can be chosen as backgrounds now."""
    images = [name for name in present() if name != "moving_mnist" and _can_be_background(_facts(name))]
    return [*images, TEXTURES]


def _can_be_background(found: DatasetFacts) -> bool:
    return found.layout in ("images", "photos") and found.channels == 3 and found.dtype == "uint8"


def _pixels(found: DatasetFacts) -> str:
    return f"{found.layout} of {found.channels} channel(s) in {found.dtype}"


def _component(name: str, pointer: str, offered: Callable[[], list[str]]) -> DatasetFacts:
    try:
        return _facts(name, offered)
    except Invalid as error:
        raise Invalid.field(pointer, error.detail) from None
