"""From a file that a user uploaded to a folder that `ml.datasets` reads: checked, decoded, and there as a whole or not at all.

Nothing is unpacked under its own name, and nothing is unpickled. A file is refused with what was found and what is accepted.
"""

import re
import stat
import statistics
import threading
import zipfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path, PurePosixPath

from ml import spec
from ml.datasets import npz, stored
from ml.datasets.archive import UNREADABLE, Archive
from ml.datasets.facts import facts_of
from ml.datasets.folders import DEFAULT_SIZE
from ml.datasets.pictures import decode, divide, sides
from ml.datasets.raw import DatasetInvalid, Opening, finished
from ml.datasets.uploads import FACTS

MOST_BYTES = 256 * 2**30  # unpacked and decoded
MOST_MEMBERS = 2_000_000
LARGEST_DIRECTORY = 256 * 2**20  # bytes, in which so many files are named
LOCAL_HEADER = 30  # bytes before a file's name and its content, at least
MOST_TIMES = 100  # that a member of more than `SMALL` bytes may be larger than it was packed
SMALL = 2**20
LARGEST_DEFAULT = 224  # pixels, of images in class folders
LAYOUTS: dict[str, spec.Layout] = {
    "class_folders": "images",
    "photos": "photos",
    "array": "images",
    "clips": "clips",
    "paired": "paired",
}
ACCEPTED = (
    "a zip of JPEG or PNG files, in a folder for each class or as photographs in any folders, or an npz with " + npz.LAYOUTS
)
_BESIDE = re.compile(r"thumbs\.db|desktop\.ini|readme.*|licen[cs]e.*|.*\.(txt|md)", re.IGNORECASE)
_ARCHIVES = (".zip", ".tar", ".gz", ".tgz", ".bz2", ".xz", ".7z", ".rar", ".npz")


def ingest(
    file: Path, layout: str | None, folder: Path, progress: Callable[[int, int], None], most_bytes: int = MOST_BYTES
) -> spec.DatasetFacts:
    """Decode an upload into `folder`, which is named by the dataset's id, and say what it holds.

    Without a layout it is guessed. `progress` is told how many of how many images are done. A folder that is there was finished
    before. Raises DatasetInvalid with a reason that is fit for the user.
    """
    if (folder / FACTS).is_file():
        return spec.DatasetFacts.model_validate_json((folder / FACTS).read_bytes())
    if layout not in (None, *LAYOUTS):
        raise DatasetInvalid(f"there is no layout {layout!r}; there are {', '.join(LAYOUTS)}")
    members = _members(file, most_bytes)
    draft = stored.Draft(folder)
    try:
        if any(name.endswith(".npy") for name in members):
            opening = _open_npz(file, layout, draft)
        else:
            opening = _open_images(file, _images(members), layout, draft, most_bytes)
        raw = finished(opening, progress)
        facts = facts_of(folder.name, spec.npz_version(file), raw)
        draft.finish(raw, **{FACTS: facts.model_dump_json()})
    finally:
        draft.discard()
    return facts


def _members(file: Path, most_bytes: int) -> dict[str, zipfile.ZipInfo]:
    """The zip's files by name, none of which does any harm when it is read."""
    try:
        with spec.SparingFile(file, LARGEST_DIRECTORY) as sparing, zipfile.ZipFile(sparing) as archive:
            listed = archive.infolist()
    except UNREADABLE as error:
        with file.open("rb") as start:
            begins = start.read(6)
        if begins == b"\x93NUMPY":
            raise DatasetInvalid(
                "the file is a single array; save it as an npz, with np.savez(file, x=images, y=labels)"
            ) from None
        raise DatasetInvalid(f"the file is no zip ({error}); accepted is {ACCEPTED}") from None
    if len(listed) > MOST_MEMBERS:
        raise DatasetInvalid(f"the zip has {len(listed)} files; at most {MOST_MEMBERS} are accepted")
    members: dict[str, zipfile.ZipInfo] = {}
    for info in listed:
        name = info.filename.replace("\\", "/")
        if name in members:
            raise DatasetInvalid(f"the zip has two files of the name {name}; names must differ")
        if not info.is_dir():
            members[name] = info
    if (unpacked := sum(info.file_size for info in members.values())) > most_bytes:
        raise DatasetInvalid(f"the zip unpacks to {_gigabytes(unpacked)}; at most {_gigabytes(most_bytes)} are accepted")
    for name, info in members.items():
        _require_harmless(name, info)
    _require_apart(members, file.stat().st_size)
    return members


def _require_harmless(name: str, info: zipfile.ZipInfo) -> None:
    path = PurePosixPath(name)
    if path.is_absolute() or ".." in path.parts or re.match("[A-Za-z]:", name):
        raise DatasetInvalid(f"the zip has a file {name!r} that would lie outside of it; names must be relative and without '..'")
    if stat.S_ISLNK(info.external_attr >> 16):
        raise DatasetInvalid(f"{name} in the zip is a link; only files are accepted, so pack what it points to")
    if stat.S_IFMT(info.external_attr >> 16) not in (0, stat.S_IFREG):
        raise DatasetInvalid(f"{name} in the zip is a device, a pipe or a folder; only files are accepted")
    if info.flag_bits & 1:
        raise DatasetInvalid(f"{name} in the zip is encrypted; pack it without a password")
    if info.file_size > max(SMALL, MOST_TIMES * info.compress_size):
        raise DatasetInvalid(
            f"{name} in the zip unpacks to {info.file_size} bytes from {info.compress_size}; more than {MOST_TIMES} times looks "
            "like a zip bomb, so if it is none, pack it without compression"
        )


def _require_apart(members: dict[str, zipfile.ZipInfo], size: int) -> None:
    """Files that share bytes of the zip unpack to the square of it, each within its ratio. Fifield 2019, A better zip bomb."""
    ordered = sorted(members.items(), key=lambda member: member[1].header_offset)
    ends = [info.header_offset + LOCAL_HEADER + len(info.orig_filename) + info.compress_size for _, info in ordered]
    begins = [info.header_offset for _, info in ordered[1:]]
    for (name, _), end, following in zip(ordered, ends, [*begins, size], strict=True):
        if end > following:
            raise DatasetInvalid(
                f"{name} in the zip reaches into the next file or beyond the end, as in a zip bomb; pack it anew"
            )


def _images(members: dict[str, zipfile.ZipInfo]) -> dict[str, zipfile.ZipInfo]:
    """The members that are images, in the order of their names; what systems and people put beside them is passed over."""
    images = {}
    for name, info in sorted(members.items()):
        *folders, last = name.split("/")
        if "__MACOSX" in folders or any(part.startswith(".") for part in (*folders, last)) or _BESIDE.fullmatch(last):
            continue
        if last.lower().endswith(_ARCHIVES):
            raise DatasetInvalid(f"the zip has another archive in it, {name}; unpack it first, then pack the images alone")
        if not spec.is_image(name):
            raise DatasetInvalid(f"{name} in the zip is neither a JPEG nor a PNG; accepted is {ACCEPTED}")
        images[name] = info
    if not images:
        raise DatasetInvalid(f"the zip has no images in it; accepted is {ACCEPTED}")
    return images


def _open_npz(file: Path, layout: str | None, draft: stored.Draft) -> Opening:
    with Archive(file, "the npz") as archive:
        found = npz.layout_of(archive)
        if layout is not None and (layout in ("class_folders", "photos") or LAYOUTS[layout] != found):
            raise DatasetInvalid(
                f"the file was said to be {layout}, but is an npz with {', '.join(archive.headers)}; accepted is {ACCEPTED}"
            )
        return (yield from npz.read(archive, draft.allocate))


def _open_images(
    file: Path, members: dict[str, zipfile.ZipInfo], layout: str | None, draft: stored.Draft, most_bytes: int
) -> Opening:
    names, infos = list(members), list(members.values())
    if layout not in (None, "class_folders", "photos"):
        raise DatasetInvalid(f"the file was said to be {layout}, but is a zip of {len(names)} images; accepted is {ACCEPTED}")
    places = None if layout == "photos" else spec.class_folders(names)
    if layout == "class_folders" and places is None:
        raise DatasetInvalid(
            f"the folders of the zip say no classes: its first image is {names[0]}; wanted are at least two folders CLASS/ with "
            "images directly in them, or train/CLASS/ and test/CLASS/"
        )
    with zipfile.ZipFile(file) as archive:
        lock = threading.Lock()  # a zip counts its readers without one

        def read(index: int) -> bytes:
            with lock, _readable(names[index]), archive.open(infos[index]) as member:
                return member.read(infos[index].file_size)  # no more, whatever it would unpack to

        found = []
        for index, (name, info) in enumerate(members.items()):
            with _readable(name), archive.open(info) as member:
                height, width = sides(member, name)
            if min(height, width) < npz.LEAST_SIDE:
                raise DatasetInvalid(
                    f"{name} in the zip has {height}x{width} pixels; sides of at least {npz.LEAST_SIDE} are needed"
                )
            found.append((height, width))
            if index % 1000 == 0:
                yield 0, len(names)
        size = DEFAULT_SIZE if places is None else min(LARGEST_DEFAULT, int(statistics.median(map(min, found))))
        bytes_decoded = sum(3 * (height * width if places is None else size * size) for height, width in found)
        if bytes_decoded > most_bytes:
            raise DatasetInvalid(
                f"the images decode to {_gigabytes(bytes_decoded)}; at most {_gigabytes(most_bytes)} are accepted"
            )
        pictures = divide("the zip", names, places, size, read)
        return (yield from decode(pictures, None if places is None else size, draft.allocate))


@contextmanager
def _readable(name: str) -> Iterator[None]:
    try:
        yield
    except UNREADABLE as error:
        raise DatasetInvalid(f"{name} in the zip cannot be read: {error}") from None


def _gigabytes(size: int) -> str:
    return f"{size / 2**30:.3g} GiB"
