import io
import os
import resource
import struct
import zipfile
import zlib
from collections.abc import Callable
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor

from ml import spec
from ml.datasets import Clips, Data, DatasetInvalid, Library, Photographs, load, pictures, prepare
from ml.datasets.ingest import ingest

CPU = torch.device("cpu")
ID = "ds_019a"


def encoded(grey: int = 0, height: int = 40, width: int = 60, kind: str = "PNG") -> bytes:
    file = io.BytesIO()
    Image.new("RGB", (width, height), (grey, grey, grey)).save(file, kind)
    return file.getvalue()


def pack(folder: Path, members: dict[str, bytes], compression: int = zipfile.ZIP_DEFLATED) -> Path:
    with zipfile.ZipFile(folder / "upload", "w", compression) as archive:
        for name, content in members.items():
            archive.writestr(name, content)
    return folder / "upload"


def pack_arrays(folder: Path, **arrays: Any) -> Path:
    with (folder / "upload").open("wb") as file:
        np.savez(file, **arrays)
    return folder / "upload"


def take_in(
    file: Path, layout: str | None = None, told: Callable[[int, int], None] = lambda done, total: None
) -> spec.DatasetFacts:
    return ingest(file, layout, file.parent / "uploads" / ID, told)


def loaded(folder: Path, image_size: int | None = None, as_photographs: bool = False) -> Data:
    library = Library(folder / "datasets", folder / "uploads", folder / "prepared")
    dataset = spec.Dataset(name=ID, image_size=image_size)
    for _ in prepare(dataset, library, as_photographs):
        pass
    return load(dataset, library, CPU, as_photographs)


def items(split: Any) -> Any:
    return split.take(torch.arange(len(split)))


def bytes_of(images: Tensor) -> Tensor:
    return (images * 255).round().to(torch.uint8)


def images_of(n: int, *shape: int) -> Any:
    return np.random.default_rng(0).integers(0, 256, (n, *shape), dtype=np.uint8)


# What is accepted ---------------------------------------------------------------------------------------------------------


def test_class_folders_are_read_at_the_median_of_their_shorter_sides(tmp_path: Path) -> None:
    members = {
        f"pets/{kind}/{index}.jpg": encoded(8 * (10 * number + index), 50 + index, 90, "JPEG")
        for number, kind in enumerate(("cat", "dog", "emu"))
        for index in range(10)
    }
    file = pack(tmp_path, members)
    steps: list[tuple[int, int]] = []
    facts = take_in(file, told=lambda done, total: steps.append((done, total)))
    assert facts.model_dump(exclude_defaults=True) == {
        "name": ID,
        "train": 18,
        "test": 12,
        "channels": 3,
        "image_size": 54,
        "classes": 3,
        "version": spec.npz_version(file),
    }
    assert steps[-1] == (30, 30)
    data = loaded(tmp_path)
    assert (data.facts, data.class_names) == (facts, ("cat", "dog", "emu"))
    for split in (data.train, data.test):
        greys = (items(split).mean(dim=(1, 2, 3)) * 255 / 8).round().int()
        assert (greys // 10).tolist() == split.targets["label"].tolist()
    assert items(loaded(tmp_path, image_size=20).train).shape == (18, 3, 20, 20)


def test_large_images_in_class_folders_are_read_at_224_pixels(tmp_path: Path) -> None:
    members = {f"{'ab'[index % 2]}/{index}.jpg": encoded(index, 400, 300, "JPEG") for index in range(20)}
    assert take_in(pack(tmp_path, members)).image_size == 224


def test_a_split_of_class_folders_is_kept(tmp_path: Path) -> None:
    members = {f"train/{'ab'[index % 2]}/{index}.png": encoded(index) for index in range(12)}
    members |= {f"val/{'ab'[index % 2]}/{index}.png": encoded(100 + index) for index in range(8)}
    facts = take_in(pack(tmp_path, members), "class_folders")
    assert (facts.train, facts.test, facts.classes) == (12, 8, 2)
    assert sorted({round(255 * grey) for grey in items(loaded(tmp_path).test).mean(dim=(1, 2, 3)).tolist()}) == [*range(100, 108)]


def photographs(**more: bytes) -> dict[str, bytes]:
    sizes = {f"2024/{'summer' if index % 3 else 'a/winter'}/{index}.png": (30 + index, 70 - index) for index in range(20)}
    return {name: encoded(5 * index, *size) for index, (name, size) in enumerate(sizes.items())} | more


def test_photographs_are_kept_whole_and_seen_as_squares(tmp_path: Path) -> None:
    facts = take_in(pack(tmp_path, photographs()))
    assert (facts.layout, facts.train, facts.test, facts.image_size, facts.classes) == ("photos", 12, 8, 64, None)
    assert facts.smallest_side == 30
    squares, whole = loaded(tmp_path), loaded(tmp_path, as_photographs=True)
    assert squares.facts == whole.facts == facts
    assert squares.digest == whole.digest
    assert items(squares.train).shape == (12, 3, 64, 64)
    batch = items(whole.train)
    assert isinstance(batch, Photographs)
    corner = torch.zeros(12, dtype=torch.long)
    for patches in (batch.patches(corner, corner, 8), batch.patches(batch.heights - 8, batch.widths - 8, 8)):
        assert torch.equal(bytes_of(patches)[:, 0, 0, 0], bytes_of(items(squares.train))[:, 0, 32, 32])
        assert (patches == patches[:, :1, :1, :1]).all()


def test_folders_of_photographs_are_classes_unless_the_user_says_otherwise(tmp_path: Path) -> None:
    file = pack(tmp_path, {f"{'ab'[index % 2]}/{index}.jpg": encoded(index, kind="JPEG") for index in range(20)})
    assert take_in(file, "photos").layout == "photos"
    assert ingest(file, None, tmp_path / "other" / ID, lambda done, total: None).classes == 2


def test_what_systems_and_people_put_beside_images_is_passed_over(tmp_path: Path) -> None:
    beside = [
        "__MACOSX/2024/._1.png",
        "2024/.DS_Store",
        "2024/Thumbs.db",
        "README",
        "2024/notes.txt",
        "LICENSE.md",
        "2024/empty/",
    ]
    facts = take_in(pack(tmp_path, photographs(**dict.fromkeys(beside, b""))))
    assert facts.train + facts.test == 20


def test_arrays_are_what_they_are_in_the_datasets_folder(tmp_path: Path) -> None:
    arrays = {"x": images_of(40, 12, 16, 13).astype(np.uint16) * 5, "y": np.arange(40) % 5 - 1, "split": np.arange(40) % 2}
    file = pack_arrays(tmp_path, **arrays)
    facts = take_in(file)
    (tmp_path / "datasets").mkdir()
    np.savez(tmp_path / "datasets" / "mine.npz", **arrays)
    library = Library(tmp_path / "datasets", tmp_path, tmp_path)
    reference = load(spec.Dataset(name="mine"), library, CPU)
    data = loaded(tmp_path)
    assert data.facts == facts == reference.facts.model_copy(update={"name": ID})
    assert data.digest == reference.digest
    for ours, other in ((data.train, reference.train), (data.test, reference.test)):
        assert torch.equal(items(ours), items(other))
        assert torch.equal(ours.targets["label"], other.targets["label"])
    assert (facts.channels, facts.dtype, facts.labelled) == (13, "uint16", 16)


def test_clips_and_pairs_are_taken_in(tmp_path: Path) -> None:
    clips = images_of(20, 4, 10, 10)
    facts = take_in(pack_arrays(tmp_path, clips=clips), "clips")
    assert (facts.layout, facts.frames) == ("clips", 4)
    assert isinstance(items(loaded(tmp_path).train), Clips)
    pairs = tmp_path / "pairs"
    pairs.mkdir()
    facts = take_in(pack_arrays(pairs, v1=images_of(20, 8, 8, 3), v2=images_of(20, 9, 9)), "paired")
    assert (facts.layout, facts.channels, facts.channels2, facts.classes) == ("paired", 3, 1, None)
    first, second = items(loaded(pairs).test)
    assert (first.shape, second.shape) == ((8, 3, 8, 8), (8, 1, 9, 9))


def test_what_was_finished_before_is_not_done_again(tmp_path: Path) -> None:
    facts = take_in(pack_arrays(tmp_path, x=images_of(20, 8, 8)))
    (tmp_path / "upload").unlink()
    assert take_in(tmp_path / "upload") == facts


# What is refused, and leaves nothing behind -------------------------------------------------------------------------------


@pytest.fixture
def refused(tmp_path: Path) -> Callable[..., str]:
    def refused(file: Path, layout: str | None = None, **limits: int) -> str:
        with pytest.raises(DatasetInvalid) as error:
            ingest(file, layout, tmp_path / "uploads" / ID, lambda done, total: None, **limits)
        assert not [*tmp_path.glob("uploads/*")]
        assert str(tmp_path) not in str(error.value), "a user is not told where the server keeps it"
        return str(error.value)

    return refused


@pytest.mark.parametrize("content", [b"", b"text", b"PK\x03\x04 cut off", b"Rar!\x1a\x07"])
def test_what_is_no_zip_is_refused(tmp_path: Path, refused: Callable[..., str], content: bytes) -> None:
    (tmp_path / "upload").write_bytes(content)
    said = refused(tmp_path / "upload")
    assert "is no zip" in said and "accepted is a zip of JPEG or PNG files" in said and "npz" in said


def test_a_single_array_is_told_how_to_be_an_npz(tmp_path: Path, refused: Callable[..., str]) -> None:
    np.save(tmp_path / "upload.npy", images_of(20, 8, 8))
    assert "np.savez" in refused(tmp_path / "upload.npy")


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("../escaped.png", "would lie outside"),
        ("a/../../escaped.png", "would lie outside"),
        ("/etc/escaped.png", "would lie outside"),
        ("..\\escaped.png", "would lie outside"),
        ("C:\\escaped.png", "would lie outside"),
        ("2024/more.zip", "another archive in it, 2024/more.zip"),
        ("2024/more.tar.gz", "another archive"),
        ("2024/film.mp4", "2024/film.mp4 in the zip is neither a JPEG nor a PNG"),
        ("2024/labels.csv", "2024/labels.csv in the zip is neither"),
        ("2024/false.png", "2024/false.png is no JPEG or PNG, whatever its name says"),
    ],
)
def test_a_member_that_does_not_belong_there_is_named(
    tmp_path: Path, refused: Callable[..., str], name: str, message: str
) -> None:
    assert message in refused(pack(tmp_path, photographs(**{name: b"anything"})))


def test_a_link_is_refused(tmp_path: Path, refused: Callable[..., str]) -> None:
    file = pack(tmp_path, photographs())
    with zipfile.ZipFile(file, "a") as archive:
        link = zipfile.ZipInfo("passwords.png")
        link.external_attr = 0o120777 << 16
        archive.writestr(link, "/etc/passwd")
    assert "passwords.png in the zip is a link" in refused(file)


@pytest.mark.parametrize("mode", [0o020666, 0o060660, 0o010644, 0o140755, 0o040755])
def test_a_device_a_pipe_or_a_folder_under_a_file_s_name_is_refused(
    tmp_path: Path, refused: Callable[..., str], mode: int
) -> None:
    file = pack(tmp_path, photographs())
    with zipfile.ZipFile(file, "a") as archive:
        odd = zipfile.ZipInfo("null.png")
        odd.external_attr = mode << 16
        archive.writestr(odd, encoded())
    assert "null.png in the zip is a device, a pipe or a folder" in refused(file)


@pytest.mark.parametrize("again", ["2024/a/winter/0.png", "2024\\a\\winter\\0.png"])
def test_two_files_of_one_name_are_refused(tmp_path: Path, refused: Callable[..., str], again: str) -> None:
    file = pack(tmp_path, photographs())
    with zipfile.ZipFile(file, "a") as archive, pytest.warns(UserWarning) if "/" in again else nullcontext():
        archive.writestr(again, encoded())
    assert "two files of the name 2024/a/winter/0.png" in refused(file)


def test_an_encrypted_member_is_refused(tmp_path: Path, refused: Callable[..., str]) -> None:
    content = bytearray(pack(tmp_path, {"1.png": encoded()}).read_bytes())
    for signature, flags in ((b"PK\x03\x04", 6), (b"PK\x01\x02", 8)):
        content[content.index(signature) + flags] |= 1
    (tmp_path / "upload").write_bytes(content)
    assert "1.png in the zip is encrypted" in refused(tmp_path / "upload")


def test_a_bomb_is_refused_by_its_ratio_or_by_its_size(tmp_path: Path, refused: Callable[..., str]) -> None:
    assert "zip bomb" in refused(pack(tmp_path, photographs(**{"zeros.png": bytes(2**21)})))
    assert "zip bomb" in refused(pack(tmp_path, {"x.npy": bytes(2**21)}))
    assert "unpacks to" in refused(pack(tmp_path, photographs(), zipfile.ZIP_STORED), most_bytes=1000)
    assert "images decode to" in refused(pack(tmp_path, photographs()), most_bytes=20_000)


def overlapping(files: int, kernel: bytes) -> bytes:
    """A bomb whose files share one kernel: each stream quotes the next file's local header, and goes on as that file does."""
    compressor = zlib.compressobj(1, zlib.DEFLATED, -15)
    stream, content = compressor.compress(kernel) + compressor.flush(), kernel
    heads = []
    for index in reversed(range(files)):
        name = f"{index:03}.png".encode()
        sizes = (zlib.crc32(content), len(stream), len(content), len(name), 0)
        fields = struct.pack("<HHHHHIIIHH", 20, 0, 8, 0, 0x21, *sizes)
        local = b"PK\x03\x04" + fields + name
        heads.insert(0, (fields, name))
        whole = local + stream
        stream = struct.pack("<BHH", 0, len(local), len(local) ^ 0xFFFF) + whole
        content = local + content
    directory, at = b"", 0
    for fields, name in heads:
        directory += b"PK\x01\x02" + struct.pack("<H", 20) + fields + struct.pack("<HHHII", 0, 0, 0, 0, at) + name
        at += 30 + len(name) + 5
    end = struct.pack("<HHHHIIH", 0, 0, files, files, len(directory), len(whole), 0)
    return whole + directory + b"PK\x05\x06" + end


def test_files_that_overlap_are_refused(tmp_path: Path, refused: Callable[..., str]) -> None:
    (tmp_path / "upload").write_bytes(overlapping(20, bytes(500_000)))
    with zipfile.ZipFile(tmp_path / "upload") as archive:
        assert len(archive.infolist()) == 20 and all(info.file_size < 2**20 for info in archive.infolist())
    assert "000.png in the zip reaches into the next file" in refused(tmp_path / "upload")


@pytest.mark.parametrize(
    ("field", "size", "message"), [(8, 2**62, "unpacks to"), (8, 2**30, "zip bomb"), (16, 2**40, "beyond the end")]
)
def test_a_zip64_that_lies_is_refused(tmp_path: Path, refused: Callable[..., str], field: int, size: int, message: str) -> None:
    content = bytearray(pack(tmp_path, photographs()).read_bytes())
    at = content.rindex(b"PK\x01\x02")
    end = content.rindex(b"PK\x05\x06")
    length = int.from_bytes(content[at + 28 : at + 30], "little")
    sizes = struct.pack("<QQ", size if field == 8 else 100, size if field == 16 else 100)
    content[at + 20 : at + 28] = b"\xff" * 8
    content[at + 30 : at + 32] = (20).to_bytes(2, "little")
    extra = struct.pack("<HH", 1, 16) + sizes
    content[at + 46 + length : at + 46 + length] = extra
    end += len(extra)
    content[end + 12 : end + 16] = (int.from_bytes(content[end + 12 : end + 16], "little") + len(extra)).to_bytes(4, "little")
    (tmp_path / "upload").write_bytes(content)
    assert message in refused(tmp_path / "upload")


def test_a_directory_that_would_fill_the_memory_is_not_read(tmp_path: Path, refused: Callable[..., str]) -> None:
    with (tmp_path / "upload").open("wb") as file:
        file.write(b"PK\x03\x04")
        file.seek(2**31)  # a file with a hole: 2 GiB of directory, as its end has it
        file.write(b"PK\x05\x06" + struct.pack("<HHHHIIH", 0, 0, 9, 9, 2**31, 0, 0))
    assert "at most 268435456 are read" in refused(tmp_path / "upload")


def test_what_unpacks_to_more_than_it_says_is_not_unpacked_further(tmp_path: Path, refused: Callable[..., str]) -> None:
    content = bytearray(pack(tmp_path, photographs(**{"zeros.png": encoded() + bytes(2**28)})).read_bytes())
    for signature, field in ((b"PK\x03\x04", 22), (b"PK\x01\x02", 24)):
        at = content.rindex(signature)
        content[at + field : at + field + 4] = (500_000).to_bytes(4, "little")
    (tmp_path / "upload").write_bytes(content)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    assert "zeros.png in the zip cannot be read" in refused(tmp_path / "upload")
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 100_000  # kB


def test_a_member_that_lies_about_its_size_is_refused(tmp_path: Path, refused: Callable[..., str]) -> None:
    content = bytearray(pack(tmp_path, photographs(**{"last.png": os.urandom(3000)})).read_bytes())
    at = content.rindex(b"PK\x01\x02")  # in the directory, its size of 3000 bytes becomes 100
    content[at + 24 : at + 28] = (100).to_bytes(4, "little")
    (tmp_path / "upload").write_bytes(content)
    assert "last.png" in refused(tmp_path / "upload")


def test_a_damaged_member_is_named(tmp_path: Path, refused: Callable[..., str]) -> None:
    file = pack(tmp_path, photographs(), zipfile.ZIP_STORED)
    content = bytearray(file.read_bytes())
    content[content.rindex(b"IEND") - 20] ^= 0xFF  # in the pixels of the last image
    file.write_bytes(content)
    assert "2024/summer/19.png in the zip cannot be read: Bad CRC-32" in refused(file)


@pytest.mark.parametrize("layout", ["photos", "class_folders"])
def test_a_tiny_image_is_named(tmp_path: Path, refused: Callable[..., str], layout: str) -> None:
    members = {f"{'ab'[index % 2]}/{index}.png": encoded(index) for index in range(20)} | {"b/3.png": encoded(3, 60, 7)}
    assert "b/3.png in the zip has 60x7 pixels; sides of at least 8 are needed" in refused(pack(tmp_path, members), layout)


@pytest.mark.parametrize(
    ("layout", "names", "message"),
    [
        ("class_folders", ["1.png"], "the folders of the zip say no classes: its first image is 1.png"),
        ("class_folders", ["cat/1.png"], "at least two folders"),
        ("array", ["cat/1.png"], "said to be array, but is a zip of 1 images"),
        (None, ["1.png", "2.png"], "1 training and 1 test items; at least 8 of each"),
        (None, ["README.txt"], "no images in it"),
        ("pictures", ["1.png"], "there is no layout 'pictures'; there are class_folders, photos, array, clips, paired"),
    ],
)
def test_images_that_are_not_as_was_said_are_refused(
    tmp_path: Path, refused: Callable[..., str], layout: str | None, names: list[str], message: str
) -> None:
    assert message in refused(pack(tmp_path, dict.fromkeys(names, encoded())), layout)


@pytest.mark.parametrize(
    ("layout", "arrays", "message"),
    [
        (None, {"images": images_of(20, 8, 8)}, "has images, and none of the layouts understood"),
        (None, {"x": np.zeros((20, 8, 8))}, "x is float64; images must be"),
        (None, {"x": np.full((20, 8, 8), np.nan, dtype=np.float32)}, "x[0, 0, 0] is nan; all numbers must be finite"),
        (None, {"x": images_of(20, 8, 8), "y": np.array(["cat"] * 20)}, "labels must be 20 integers"),
        (None, {"x": images_of(20, 8, 8), "y": np.array([{}] * 20)}, "Python objects"),
        (None, {"x": images_of(20, 8, 8), "split": np.array(["val"] * 20)}, "split says"),
        (None, {"x": images_of(12, 8, 8)}, "at least 8 of each"),
        ("clips", {"x": images_of(20, 8, 8)}, "said to be clips, but is an npz with x"),
        ("photos", {"x": images_of(20, 8, 8)}, "said to be photos, but is an npz with x"),
        ("array", {"v1": images_of(20, 8, 8), "v2": images_of(20, 8, 8)}, "said to be array, but is an npz with v1, v2"),
    ],
)
def test_arrays_that_are_not_as_was_said_are_refused(
    tmp_path: Path, refused: Callable[..., str], layout: str | None, arrays: dict[str, Any], message: str
) -> None:
    assert message in refused(pack_arrays(tmp_path, **arrays), layout)


def png(width: int, height: int, *chunks: tuple[bytes, bytes], pixels: bytes | None = None) -> bytes:
    """A grey PNG with these chunks before its pixels."""
    header = struct.pack(">IIBBBBB", width, height, 8, 0, 0, 0, 0)
    shown = zlib.compress(bytes(height * (width + 1)) if pixels is None else pixels)
    parts = [(b"IHDR", header), *chunks, (b"IDAT", shown), (b"IEND", b"")]
    return b"\x89PNG\r\n\x1a\n" + b"".join(
        len(content).to_bytes(4, "big") + kind + content + zlib.crc32(kind + content).to_bytes(4, "big")
        for kind, content in parts
    )


SVG = b"<svg xmlns='http://www.w3.org/2000/svg'><script>alert(1)</script></svg>"
ODD_IMAGES = {
    "a bomb by its header": (png(60_000, 60_000, pixels=b""), "has 3600 million pixels; up to 64 million are accepted"),
    "a header that is not the first": (
        png(8, 8).replace(b"IHDR", b"tEXt", 1),
        "is no JPEG or PNG, whatever its name says",
    ),
    "a second header": (png(40, 60, (b"IHDR", struct.pack(">IIBBBBB", 60_000, 60_000, 8, 0, 0, 0, 0))), "cannot be decoded"),
    "cut short": (encoded()[:-30], "cannot be decoded"),
    "a JPEG cut short before its frame": (encoded(kind="JPEG")[:100], "is a JPEG without an image in it"),
    "a GIF": (encoded(kind="GIF"), "is no JPEG or PNG"),
    "an SVG": (SVG, "is no JPEG or PNG"),
    "HTML": (b"<html><script>alert(1)</script>", "is no JPEG or PNG"),
    "a zip": (b"PK\x03\x04" + bytes(100), "is no JPEG or PNG"),
    "a TIFF": (encoded(kind="TIFF"), "is no JPEG or PNG"),
    "nothing": (b"", "is no JPEG or PNG"),
}


@pytest.mark.parametrize("case", ODD_IMAGES)
def test_what_is_no_image_or_too_large_a_one_is_named(tmp_path: Path, refused: Callable[..., str], case: str) -> None:
    content, message = ODD_IMAGES[case]
    said = refused(pack(tmp_path, photographs(**{"2024/odd.png": content}), zipfile.ZIP_STORED))
    assert "2024/odd.png" in said and message in said


def test_texts_in_a_png_are_not_unpacked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    text = b"a\0\0" + zlib.compress(bytes(7_900_000), 9)
    members = photographs() | {"2024/long.png": png(40, 60, *[(b"zTXt", text), (b"iCCP", text), (b"iTXt", text)] * 100)}
    file = pack(tmp_path, members, zipfile.ZIP_STORED)
    decode, given = pictures.decode_image, []

    def noted(encoded: Any, **how: Any) -> Any:
        given.append(encoded.numpy().tobytes())
        return decode(encoded, **how)

    monkeypatch.setattr(pictures, "decode_image", noted)
    assert take_in(file).train == 13
    assert not any(kind in content for content in given for kind in (b"zTXt", b"iCCP", b"iTXt"))


def test_an_animated_png_is_its_first_image(tmp_path: Path) -> None:
    animated = io.BytesIO()
    frames = [Image.new("RGB", (60, 40), (grey,) * 3) for grey in (0, 100, 200)]
    frames[0].save(animated, "PNG", save_all=True, append_images=frames[1:])
    assert take_in(pack(tmp_path, dict.fromkeys(photographs(), animated.getvalue()))).train == 12
    assert not items(loaded(tmp_path).train).any()


def npy(shape: str, dtype: str = "|u1", header: bytes | None = None, length: int | None = None, content: bytes = b"") -> bytes:
    said = f"{{'descr': '{dtype}', 'fortran_order': False, 'shape': {shape}, }}\n".encode() if header is None else header
    return b"\x93NUMPY\x02\x00" + (len(said) if length is None else length).to_bytes(4, "little") + said + content


ODD_ARRAYS = {
    "a giant": (npy("(1000000000, 1000, 1000)"), "but breaks off after 0 of 1000000000000000 bytes"),
    "a giant of no height": (npy("(1000000000000, 0, 8)"), "has shape (1000000000000, 0, 8)"),
    "a negative": (npy("(-20, 8, -8)"), "has the shape (-20, 8, -8)"),
    "a number": (npy("()", content=b"1"), "has shape (); it must be"),
    "giant items": (npy("(20, 4096, 4096, 20)", content=bytes(2**24)), "breaks off"),
    "a header that is code": (npy("", header=b"__import__('os').system('true')"), "cannot be read as an npz of plain arrays"),
    "a header of gigabytes": (npy("", header=bytes(2**20), length=2**32 - 1), "an array's header of 4294967295 bytes"),
    "numbers of a gigabyte each": (npy("(20,)", f"|V{2**30}"), "breaks off"),
}


@pytest.mark.parametrize("case", ODD_ARRAYS)
def test_an_array_that_is_none_is_refused_before_there_is_room_made(
    tmp_path: Path, refused: Callable[..., str], case: str
) -> None:
    content, message = ODD_ARRAYS[case]
    assert message in refused(pack(tmp_path, {"x.npy": content}, zipfile.ZIP_STORED))


def test_items_that_would_fill_the_memory_one_by_one_are_refused(tmp_path: Path, refused: Callable[..., str]) -> None:
    with zipfile.ZipFile(tmp_path / "upload", "w") as archive, archive.open("x.npy", "w", force_zip64=True) as member:
        member.write(npy("(1, 20000, 20000)"))
        for _ in range(400):
            member.write(bytes(1_000_000))
    assert "items of 400000000 bytes; at most 268435456" in refused(tmp_path / "upload")


def test_an_upload_that_was_damaged_later_says_so(tmp_path: Path) -> None:
    take_in(pack_arrays(tmp_path, x=images_of(20, 8, 8)))
    (tmp_path / "uploads" / ID / "facts.json").write_text("{}")
    with pytest.raises(DatasetInvalid, match=r"facts\.json does not say what was uploaded"):
        loaded(tmp_path)
