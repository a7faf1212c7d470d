"""Images as JPEG or PNG in an npz: image i of a split is `train_bytes[train_offsets[i] : train_offsets[i + 1]]`."""

from io import BytesIO
from itertools import pairwise

import numpy as np

from ml.datasets.archive import Archive
from ml.datasets.pictures import Pictures, sides
from ml.datasets.raw import DatasetInvalid


def pictures(archive: Archive) -> Pictures:
    """The arrays `{train,test}_{bytes,offsets,labels}`, and the names of `classes` if there are any. Raises DatasetInvalid."""
    files, labels, counts = [], [], []
    for split in ("train", "test"):
        lacking = [key for key in (f"{split}_bytes", f"{split}_offsets", f"{split}_labels") if key not in archive.headers]
        if lacking:
            raise DatasetInvalid(f"{archive.what} has encoded images, but lacks {', '.join(lacking)}")
        content, offsets = archive.whole(f"{split}_bytes"), archive.whole(f"{split}_offsets").astype(np.int64)
        if content.dtype != np.uint8 or content.ndim != 1 or offsets.ndim != 1 or len(offsets) < 2:
            raise DatasetInvalid(f"{archive.what}: {split}_bytes must be uint8 [bytes], and {split}_offsets integers [N + 1]")
        if offsets[0] != 0 or offsets[-1] != len(content) or (np.diff(offsets) < 0).any():
            raise DatasetInvalid(f"{archive.what}: {split}_offsets must rise from 0 to the {len(content)} bytes of {split}_bytes")
        files += [content[start:end] for start, end in pairwise(offsets)]
        counts.append(len(offsets) - 1)
        labels.append(archive.labels(f"{split}_labels", counts[-1]))
    train, test = np.split(np.arange(len(files)), [counts[0]])
    names = [
        f"{archive.what}: image {index} of {split}"
        for split, count in zip(("train", "test"), counts, strict=True)
        for index in range(count)
    ]
    return Pictures(
        what=archive.what,
        names=names,
        read=lambda index: files[index].tobytes(),
        train=train,
        test=test,
        default_size=min(sides(BytesIO(files[0].tobytes()), names[0])),
        classes=np.concatenate(labels),
        class_names=tuple(map(str, archive.whole("classes"))) if "classes" in archive.headers else None,
    )
