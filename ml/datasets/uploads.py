"""Uploaded datasets, as `ml.datasets.ingest` stored them."""

from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path

import numpy as np
import torch

from ml import spec
from ml.datasets import stored
from ml.datasets.raw import Array, DatasetInvalid, Library, Opening, Part, Raw, Source
from ml.datasets.squares import square

FACTS = "facts.json"


@dataclass(frozen=True)
class Upload(Source):
    """A folder below the uploads, named by the dataset's id."""

    folder: Path

    @property
    def version(self) -> str | None:
        """Of the file that was uploaded."""
        return self.facts.version

    @cached_property
    def facts(self) -> spec.DatasetFacts:
        """As they were found when it was uploaded."""
        try:
            return spec.DatasetFacts.model_validate_json((self.folder / FACTS).read_bytes())
        except (OSError, ValueError) as error:
            raise DatasetInvalid(f"{self.folder / FACTS} does not say what was uploaded: {error}") from None

    def open(self, library: Library, size: int | None, as_photographs: bool) -> Opening:
        """The arrays, memory-mapped; of photographs, squares are made once."""
        raw = stored.read(self.folder)
        if raw.layout != "photos" or as_photographs:
            yield from ()
            return raw
        side = size or self.facts.image_size
        folder = library.prepared / f"{self.folder.name}-{self.version}-{side}"
        return (yield from stored.once(folder, lambda draft: _squares(raw, side, draft)))


def _squares(raw: Raw, size: int, draft: stored.Draft) -> Opening:
    parts, done = [], 0
    for name, part in zip(("train", "test"), raw.parts, strict=True):
        array = draft.allocate(f"{name}_0", (len(part), 3, size, size), np.uint8)
        for index, image in enumerate(_photographs(part)):
            array[index] = square(torch.from_numpy(np.array(image.transpose(2, 0, 1)))[None], size)[0].numpy()
            done += 1
            yield done, len(raw.train) + len(raw.test)
        parts.append(Part((array,)))
    return replace(raw, train=parts[0], test=parts[1])


def _photographs(part: Part) -> Iterator[Array]:
    """Each as [h, w, 3]."""
    pixels, shapes = part.arrays
    for offset, height, width in shapes.tolist():
        yield pixels[offset : offset + height * width * 3].reshape(height, width, 3)
