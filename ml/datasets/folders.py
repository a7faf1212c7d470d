"""Folders of JPEG and PNG files: ImageNet and Tiny-ImageNet as they are published, folders of classes, and photographs."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from ml import spec
from ml.datasets import stored
from ml.datasets.pictures import Pictures, decode, divide
from ml.datasets.raw import DatasetInvalid, Library, Opening, Source

DEFAULT_SIZE = 64  # pixels
SHELF = "photos"  # whatever folders lie in it hold photographs, without classes


@dataclass(frozen=True)
class Folder(Source):
    """A folder of images. Classes are what `spec.class_folders` finds in it, unless it lies in the folder `photos`."""

    name: str
    path: Path

    @property
    def version(self) -> str:
        """Of its files' names and sizes."""
        return spec.folder_version(self._files)

    def open(self, library: Library, size: int | None, as_photographs: bool) -> Opening:
        """Squares of the size, or photographs as they are; decoded once."""
        pictures = self._pictures()
        side = size or pictures.default_size
        natively = as_photographs and pictures.classes is None
        folder = library.prepared / f"{self.name}-{self.version}-{'whole' if natively else side}"
        return (yield from stored.once(folder, lambda draft: decode(pictures, None if natively else side, draft.allocate)))

    @cached_property
    def _files(self) -> tuple[tuple[str, int], ...]:
        try:
            files, _ = spec.image_files(self.path)
        except OSError as error:
            raise DatasetInvalid(f"{self.path} cannot be listed: {error}") from None
        if self.name == "imagenet":  # its test images have no labels
            files = tuple(file for file in files if file[0].startswith(("train/", "val/")))
        if not files:
            raise DatasetInvalid(f"{self.path} holds no JPEG or PNG")
        return files

    def _pictures(self) -> Pictures:
        names = [name for name, _ in self._files]
        default_size = DEFAULT_SIZE
        if self.name == "tiny-imagenet-200":
            names, places = _tiny_imagenet(self.path, names)
        elif SHELF in (self.path.name, self.path.parent.name):
            places = None
        else:
            places = spec.class_folders(names)
        if self.name == "imagenet":
            default_size = 224
            if places is None or {split for split, _ in places} != {"train", "val"}:
                raise DatasetInvalid(f"{self.path} must hold train/CLASS/*.JPEG and val/CLASS/*.JPEG, and each class as a folder")
        return divide(self.path, names, places, default_size, lambda index: self._file(names[index]))

    def _file(self, name: str) -> bytes:
        try:
            return (self.path / name).read_bytes()
        except OSError as error:
            raise DatasetInvalid(f"{self.path / name} cannot be read: {error}") from None


def find(root: Path, name: str) -> Path | None:
    """`root/NAME`, or the same in any folder directly under `root`."""
    return next((path for path in (root / name, *sorted(root.glob(f"*/{name}"))) if path.is_dir()), None)


def _tiny_imagenet(path: Path, names: Sequence[str]) -> tuple[list[str], list[tuple[str, str]]]:
    """`train/CLASS/images/*.JPEG`, and `val/images/*.JPEG` with classes in `val/val_annotations.txt`; `test` has no labels."""
    annotations = path / "val" / "val_annotations.txt"
    try:
        lines = [line.split("\t") for line in annotations.read_text().splitlines()]
        classes = {f"val/images/{line[0]}": ("val", line[1]) for line in lines}
    except (OSError, IndexError, UnicodeDecodeError) as error:
        raise DatasetInvalid(f"{annotations} must name a file and its class in each line, apart by tabs: {error}") from None
    for name in names:
        match name.split("/"):
            case ["train", kind, "images", _]:
                classes[name] = ("train", kind)
    there = [name for name in names if name in classes]
    return there, [classes[name] for name in there]
