"""Images that are still JPEG or PNG files, and their decoding, which is done once."""

import hashlib
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from io import BytesIO

import numpy as np
import torch
from jaxtyping import UInt8
from torch import Tensor
from torchvision.io import ImageReadMode, decode_image

from ml import spec
from ml.datasets.raw import Allocate, Array, DatasetInvalid, File, Indices, Opening, Part, Raw, held_out, require_items
from ml.datasets.squares import square

A_TIME = 256  # images from one word of progress to the next


@dataclass(frozen=True, eq=False)
class Pictures:
    """Encoded images of a dataset, and how they are divided."""

    what: object
    """The dataset, for messages."""
    names: Sequence[str]
    read: Callable[[int], bytes]
    """The file with this index; called from several threads."""
    train: Indices
    test: Indices
    default_size: int
    classes: Indices | None = None
    """The class of each image; None: photographs that have none."""
    class_names: tuple[str, ...] | None = None


def divide(
    what: object, names: Sequence[str], places: Sequence[tuple[str, str]] | None, default_size: int, read: Callable[[int], bytes]
) -> Pictures:
    """Images by the (split, class) that their folders say; without a split `spec.held_out` of them are held out.

    Where there are `test` images, `val` images are not used. Without `places` they are photographs.
    """
    if places is None:
        return Pictures(what, names, read, *held_out(len(names)), default_size)
    class_names = sorted({kind for _, kind in places})
    numbers = {kind: number for number, kind in enumerate(class_names)}
    classes = np.array([numbers[kind] for _, kind in places], dtype=np.int64)
    splits = np.array([split for split, _ in places])
    if "train" in splits:
        test = "test" if "test" in splits else "val"
        train_items, test_items = np.flatnonzero(splits == "train"), np.flatnonzero(splits == test)
    else:
        train_items, test_items = held_out(len(names))
    return Pictures(what, names, read, train_items, test_items, default_size, classes, tuple(class_names))


def decode(pictures: Pictures, size: int | None, allocate: Allocate) -> Opening:
    """All of them as RGB, upright: squares of this size, or, with None, photographs as they are.

    Raises DatasetInvalid with the name of the first image that cannot be decoded or has too many pixels.
    """
    require_items(pictures.what, len(pictures.train), len(pictures.test))
    total = len(pictures.train) + len(pictures.test)
    photographs = pictures.classes is None
    digest, done, parts, smallest = hashlib.sha256(), 0, {}, []
    for split, chosen in (("train", pictures.train), ("test", pictures.test)):
        if size is None:
            sizes = [sides(BytesIO(pictures.read(index)), pictures.names[index]) for index in chosen.tolist()]
            place: _Squares | _Natively = _Natively(split, sizes, allocate)
        else:
            place = _Squares(split, len(chosen), size, allocate)
        for found in _in_parallel(pictures, chosen, place):
            for file, side in found:
                digest.update(file)
                smallest.append(side)
            done += len(found)
            yield done, total
        parts[split] = Part(place.arrays, None if pictures.classes is None else pictures.classes[chosen])
    return Raw(
        parts["train"],
        parts["test"],
        layout="photos" if photographs else "images",
        default_size=pictures.default_size,
        class_names=pictures.class_names,
        smallest_side=min(smallest) if photographs else None,
        digest=digest.hexdigest(),
    )


def sides(file: File, name: str) -> tuple[int, int]:
    """Height and width as they are stored, from the header alone. Raises DatasetInvalid, also for too many pixels."""
    try:
        return spec.image_sides(file)
    except ValueError as error:
        raise DatasetInvalid(f"{name} {error}") from None


def rgb(content: bytes, name: str) -> UInt8[Tensor, "3 H W"]:
    """Decode an image, turned upright as its EXIF orientation says. Raises DatasetInvalid."""
    sides(BytesIO(content), name)
    try:
        encoded = torch.frombuffer(bytearray(_without_texts(content)), dtype=torch.uint8)
        image: Tensor = decode_image(encoded, mode=ImageReadMode.RGB, apply_exif_orientation=True)
    except (RuntimeError, ValueError) as error:
        raise DatasetInvalid(f"{name} cannot be decoded: {str(error).splitlines()[0]}") from None
    return image if image.dtype == torch.uint8 else (image.to(torch.int32) >> 8).to(torch.uint8)  # of PNGs with 16 bits


TEXTS = {b"tEXt", b"zTXt", b"iTXt", b"iCCP"}  # which say nothing of pixels; libpng unpacks 8 MB of each few kilobytes


def _without_texts(content: bytes) -> bytes:
    """A PNG without them, anything else as it is."""
    if not content.startswith(b"\x89PNG"):
        return content
    kept, at = [content[:8]], 8
    while at + 8 <= len(content):
        end = at + 12 + int.from_bytes(content[at : at + 4], "big")
        if content[at + 4 : at + 8] not in TEXTS:
            kept.append(content[at:end])
        at = end
    return b"".join(kept)


def _in_parallel(pictures: Pictures, chosen: Indices, place: "_Squares | _Natively") -> Iterator[list[tuple[bytes, int]]]:
    """Decode images into their place, as many at a time as torch may use threads; yields each file's digest and shorter side."""

    def one(position: int) -> tuple[bytes, int]:
        index = int(chosen[position])
        content = pictures.read(index)
        image = rgb(content, pictures.names[index])
        place.put(position, image)
        return hashlib.sha256(content).digest(), min(image.shape[1:])

    with ThreadPoolExecutor(torch.get_num_threads()) as threads:
        for start in range(0, len(chosen), A_TIME):
            yield list(threads.map(one, range(start, min(start + A_TIME, len(chosen)))))


class _Squares:
    def __init__(self, split: str, images: int, size: int, allocate: Allocate) -> None:
        self.size = size
        self.arrays: tuple[Array, ...] = (allocate(f"{split}_0", (images, 3, size, size), np.uint8),)

    def put(self, position: int, image: UInt8[Tensor, "3 H W"]) -> None:
        self.arrays[0][position] = square(image[None], self.size)[0].numpy()


class _Natively:
    """Photographs one after another; their room is known from their headers, so that they can be decoded in any order."""

    def __init__(self, split: str, sizes: Sequence[tuple[int, int]], allocate: Allocate) -> None:
        room = [height * width * 3 for height, width in sizes]
        self.offsets = np.cumsum([0, *room])
        pixels = allocate(f"{split}_0", (int(self.offsets[-1]),), np.uint8)
        self.arrays = (pixels, allocate(f"{split}_1", (len(sizes), 3), np.int64))

    def put(self, position: int, image: UInt8[Tensor, "3 H W"]) -> None:
        pixels, shapes = self.arrays
        _, height, width = image.shape
        pixels[self.offsets[position] : self.offsets[position + 1]] = image.permute(1, 2, 0).flatten().numpy()
        shapes[position] = self.offsets[position], height, width
