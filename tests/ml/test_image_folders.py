import io
import zlib
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image, ImageOps
from torch import Tensor
from torchvision.transforms.v2.functional import center_crop, resize

from ml import datasets, spec
from ml.datasets import Data, DatasetInvalid, Library, Photographs, load, pictures, prepare
from ml.datasets.photographs import PhotographSplit

CPU = torch.device("cpu")


def colour(*rgb: int, height: int = 40, width: int = 60) -> Image.Image:
    """An image of one colour, which JPEG leaves almost as it is."""
    return Image.new("RGB", (width, height), rgb)


def noise(seed: int, height: int = 40, width: int = 60) -> Image.Image:
    pixels = np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)
    return Image.fromarray(pixels)


def save(image: Image.Image, path: Path, **options: Any) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    image.save(path, **options)


def write(root: Path, *names: str) -> None:
    """An image for each name, each of a grey of its own: the first is black."""
    for index, name in enumerate(names):
        save(colour(*[3 * index] * 3), root / name)


def read(root: Path, name: str, image_size: int | None = None, as_photographs: bool = False) -> Data:
    library = Library(root, root / ".uploads", root / ".prepared")
    return load(spec.Dataset(name=name, image_size=image_size), library, CPU, as_photographs)


def items(split: Any) -> Tensor:
    images = split.take(torch.arange(len(split)))
    assert isinstance(images, Tensor)
    return images


def greys(split: Any) -> list[int]:
    """Numbers of the images, by their grey."""
    return [round(grey) for grey in (items(split).mean(dim=(1, 2, 3)) * 255 / 3).tolist()]


def whole(data: Data) -> list[Tensor]:
    """All photographs of both splits, in pixels from 0 to 1."""
    images = []
    for split in (data.train, data.test):
        assert isinstance(split, PhotographSplit)
        batch = split.take(torch.arange(len(split)))
        for index, (height, width) in enumerate(zip(batch.heights.tolist(), batch.widths.tolist(), strict=True)):
            rows = [pixels_at(split, index, row, column) for row in range(height) for column in range(width)]
            images.append(torch.stack(rows).view(height, width, 3))
    return images


def pixels_at(split: PhotographSplit, index: int, row: int, column: int) -> Tensor:
    batch = split.take(torch.tensor([index]))
    assert isinstance(batch, Photographs)
    return batch.patches(torch.tensor([row]), torch.tensor([column]), 1).flatten()


# Classes or photographs, by the folders alone -----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("names", "places"),
    [
        (["cat/1.jpg", "dog/2.jpg"], [("", "cat"), ("", "dog")]),
        (["pets/cat/1.jpg", "pets/dog/2.jpg"], [("", "cat"), ("", "dog")]),
        (["train/cat/1.jpg", "test/cat/2.jpg"], [("train", "cat"), ("test", "cat")]),
        (["a/train/cat/1.jpg", "a/val/dog/2.jpg"], [("train", "cat"), ("val", "dog")]),
        (["train/cat/1.jpg", "train/dog/2.jpg"], [("", "cat"), ("", "dog")]),
        (["train/1.jpg", "test/2.jpg"], None),
        (["DIV2K_train_HR/1.png", "DIV2K_valid_HR/2.png"], None),
        (["images/train/1.jpg", "images/test/2.jpg", "images/val/3.jpg"], None),
        (["1.jpg", "2.jpg"], None),
        (["holiday/1.jpg", "holiday/2.jpg"], None),
        (["holiday/1.jpg", "2.jpg"], None),
        (["cat/1.jpg", "dog/small/2.jpg"], None),
        (["val/cat/1.jpg", "test/cat/2.jpg"], None),
    ],
)
def test_folders_say_classes_or_none(names: list[str], places: list[tuple[str, str]] | None) -> None:
    assert spec.class_folders(names) == places


def test_a_listing_has_images_alone_and_follows_links_but_not_round(tmp_path: Path) -> None:
    write(tmp_path / "elsewhere", "3.jpeg")
    write(tmp_path / "mine", "b/1.jpg", "a/2.PNG", ".hidden/4.png", "a/.5.png")
    (tmp_path / "mine" / "notes.txt").write_text("")
    (tmp_path / "mine" / "c").symlink_to(tmp_path / "elsewhere")
    (tmp_path / "mine" / "a" / "up").symlink_to(tmp_path / "mine")
    files, folders = spec.image_files(tmp_path / "mine")
    assert [name for name, _ in files] == ["a/2.PNG", "b/1.jpg", "c/3.jpeg"]
    assert files[0][1] == (tmp_path / "mine" / "a" / "2.PNG").stat().st_size
    assert set(folders) == {".", "a", "b", "c"}


def test_the_version_is_of_names_and_sizes_in_any_order() -> None:
    version = spec.folder_version([("a", 1), ("b", 2)])
    assert version == spec.folder_version([("b", 2), ("a", 1)])
    assert len({version, spec.folder_version([("a", 1), ("b", 3)]), spec.folder_version([("a", 1), ("c", 2)])}) == 3


# Class folders ------------------------------------------------------------------------------------------------------------


def test_class_folders_are_split_as_everything_is(tmp_path: Path) -> None:
    write(tmp_path / "pets", *(f"{kind}/{index}.png" for kind in ("cat", "dog", "emu") for index in range(10)))
    data = read(tmp_path, "pets")
    assert data.facts.model_dump(exclude_defaults=True) == {
        "name": "pets",
        "train": 18,
        "test": 12,
        "channels": 3,
        "image_size": 64,
        "classes": 3,
        "version": spec.folder_version(spec.image_files(tmp_path / "pets")[0]),
    }
    assert data.class_names == ("cat", "dog", "emu")
    assert sorted(greys(data.train) + greys(data.test)) == [*range(30)]
    for split in (data.train, data.test):
        assert [grey // 10 for grey in greys(split)] == split.targets["label"].tolist()


def test_folders_named_for_splits_are_the_splits_and_test_goes_before_val(tmp_path: Path) -> None:
    train = [f"train/{kind}/{index}.jpg" for kind in ("cat", "dog") for index in range(5)]
    val = [f"val/{kind}/{index}.jpg" for kind in ("cat", "dog") for index in range(4)]
    test = [f"test/{kind}/{index}.jpg" for kind in ("cat", "dog") for index in range(4)]
    write(tmp_path / "with_val", *train, *val)
    write(tmp_path / "with_both", *train, *val, *test)
    data = read(tmp_path, "with_val")
    assert (greys(data.train), greys(data.test)) == ([*range(10)], [*range(10, 18)])
    assert data.test.targets["label"].tolist() == [0] * 4 + [1] * 4
    data = read(tmp_path, "with_both")
    assert (greys(data.train), greys(data.test)) == ([*range(10)], [*range(18, 26)])


def test_images_become_squares_as_torchvisions_resize_and_centre_crop(tmp_path: Path) -> None:
    shapes = [(40, 60), (60, 40), (33, 33), (20, 25), (96, 64)] * 4
    for index, (height, width) in enumerate(shapes):
        save(noise(index, height, width), tmp_path / "mine" / "ab"[index % 2] / f"{index:02}.png")
    data = read(tmp_path, "mine", image_size=32)
    seen = torch.cat((items(data.train), items(data.test))) * 255
    for index, (height, width) in enumerate(shapes):
        image = torch.from_numpy(np.array(noise(index, height, width))).permute(2, 0, 1)
        expected = center_crop(resize(image, [32], antialias=True), [32, 32]).float()
        assert min((seen - expected).abs().amax(dim=(1, 2, 3)).tolist()) <= 1.001


@pytest.mark.parametrize("orientation", range(1, 9))
def test_images_are_turned_upright(tmp_path: Path, orientation: int) -> None:
    image = colour(10, 20, 30, height=30, width=50)
    image.paste((200, 20, 30), (0, 0, 25, 15))  # a corner
    exif = Image.Exif()
    exif[0x0112] = orientation
    for index in range(20):
        save(image, tmp_path / "mine" / f"{index}.jpg", exif=exif, quality=95, subsampling=0)
    upright = ImageOps.exif_transpose(Image.open(tmp_path / "mine" / "0.jpg"))
    expected = torch.from_numpy(np.array(upright)).float() / 255
    data = read(tmp_path, "mine", as_photographs=True)
    assert data.facts.smallest_side == 30
    photographs = data.test.take(torch.tensor([0]))
    assert (photographs.heights.item(), photographs.widths.item()) == expected.shape[:2]
    for row, column in ((5, 5), (5, -5), (-5, 5), (-5, -5)):
        seen = pixels_at(data.test, 0, row % expected.shape[0], column % expected.shape[1])
        torch.testing.assert_close(seen, expected[row, column], atol=6 / 255, rtol=0)


@pytest.mark.parametrize(
    ("mode", "expected"),
    [
        ("L", (100, 100, 100)),
        ("RGBA", (100, 150, 200)),
        ("P", (100, 150, 200)),
        ("I;16", (100, 100, 100)),
        ("1", (255, 255, 255)),
    ],
)
def test_png_of_any_kind_becomes_rgb(tmp_path: Path, mode: str, expected: tuple[int, ...]) -> None:
    if mode == "I;16":
        image = Image.fromarray(np.full((20, 20), 100 * 257, dtype=np.uint16))
    elif mode in ("L", "1"):
        image = Image.new(mode, (20, 20), 100 if mode == "L" else 1)
    else:
        image = Image.new("RGB", (20, 20), expected)
        image = image.quantize(2) if mode == "P" else image.convert(mode)
    file = io.BytesIO()
    image.save(file, "PNG")
    pixels = pictures.rgb(file.getvalue(), "mine")
    assert pixels.shape == (3, 20, 20) and pixels[:, 3, 7].tolist() == [*expected]


def test_a_jpeg_for_print_becomes_rgb() -> None:
    file = io.BytesIO()
    Image.new("CMYK", (20, 20), (255, 0, 0, 0)).save(file, "JPEG", quality=95)
    red, green, blue = pictures.rgb(file.getvalue(), "mine")[:, 5, 5].tolist()
    assert red < 40 and green > 150 and blue > 150  # cyan


# Published folders --------------------------------------------------------------------------------------------------------


def test_imagenet_is_read_with_its_validation_held_out(tmp_path: Path) -> None:
    train = [f"train/n0{kind}/n0{kind}_{index}.JPEG" for kind in range(3) for index in range(4)]
    val = [f"val/n0{kind}/ILSVRC2012_val_{index}.JPEG" for kind in range(3) for index in range(3)]
    write(tmp_path / "imagenet", *train, *val, "test/ILSVRC2012_test_1.JPEG")
    data = read(tmp_path, "imagenet")
    assert (data.facts.train, data.facts.test, data.facts.classes, data.facts.image_size) == (12, 9, 3, 224)
    assert greys(data.train) == [*range(12)] and greys(data.test) == [*range(12, 21)]
    assert data.class_names == ("n00", "n01", "n02")


def test_imagenet_without_folders_of_validation_is_refused(tmp_path: Path) -> None:
    write(tmp_path / "imagenet", *(f"train/n0{index % 2}/{index}.JPEG" for index in range(10)), "val/ILSVRC2012_val_1.JPEG")
    with pytest.raises(DatasetInvalid, match=r"val/CLASS/\*\.JPEG"):
        read(tmp_path, "imagenet")


def tiny_imagenet(root: Path) -> Path:
    folder = root / "tiny-imagenet-200"
    train = [f"train/n0{kind}/images/n0{kind}_{index}.JPEG" for kind in range(2) for index in range(5)]
    write(folder, *train, *(f"val/images/val_{index}.JPEG" for index in range(10)), "test/images/test_0.JPEG")
    lines = [f"val_{index}.JPEG\tn0{index % 2}\t0\t0\t62\t62\n" for index in range(10)]
    (folder / "val" / "val_annotations.txt").write_text("".join(lines))
    return folder


def test_tiny_imagenet_has_the_classes_of_its_annotations(tmp_path: Path) -> None:
    tiny_imagenet(tmp_path)
    data = read(tmp_path, "tiny-imagenet-200")
    assert (data.facts.train, data.facts.test, data.facts.classes, data.facts.image_size) == (10, 10, 2, 64)
    assert data.train.targets["label"].tolist() == [0] * 5 + [1] * 5
    assert [(grey - 10) % 2 for grey in greys(data.test)] == data.test.targets["label"].tolist()


def test_tiny_imagenet_without_annotations_is_refused(tmp_path: Path) -> None:
    (tiny_imagenet(tmp_path) / "val" / "val_annotations.txt").write_text("val_0.JPEG n00\n")
    with pytest.raises(DatasetInvalid, match="must name a file and its class in each line"):
        read(tmp_path, "tiny-imagenet-200")


# Photographs --------------------------------------------------------------------------------------------------------------


def test_photographs_of_any_sizes_are_cut_as_they_are(tmp_path: Path) -> None:
    originals = [noise(index, 9 + index % 3, 12 - index % 4) for index in range(20)]
    for index, image in enumerate(originals):
        save(image, tmp_path / "mine" / ("deep" if index % 2 else "") / f"{index}.png")
    data = read(tmp_path, "mine", as_photographs=True)
    assert (data.facts.layout, data.facts.train, data.facts.test, data.facts.smallest_side) == ("photos", 12, 8, 9)
    expected = {np.array(image).tobytes() for image in originals}
    seen = {(photograph * 255).round().to(torch.uint8).numpy().tobytes() for photograph in whole(data)}
    assert seen == expected


@pytest.mark.parametrize("place", ["albums", "photos/albums", "some/photos"])
def test_what_lies_in_photos_has_no_classes(tmp_path: Path, place: str) -> None:
    write(tmp_path / place, *(f"{kind}/{index}.jpg" for kind in ("garden", "sea") for index in range(10)))
    facts = read(tmp_path, place.rpartition("/")[2]).facts
    assert (facts.layout, facts.classes) == (("images", 2) if place == "albums" else ("photos", None))


@pytest.mark.parametrize(("name", "count", "smallest"), [("sunhays80", 80, 424), ("bsds500", 200, 321)])
def test_real_photographs_are_found(tmp_path: Path, datasets_folder: Path, name: str, count: int, smallest: int) -> None:
    if not (datasets_folder / "photos" / name).is_dir():
        pytest.skip(f"no {name} under SWEETSPOT_DATASETS")
    library = Library(datasets_folder, tmp_path, tmp_path)
    data = load(spec.Dataset(name=name), library, CPU, as_photographs=True)
    assert (data.facts.layout, data.facts.train + data.facts.test, data.facts.smallest_side) == ("photos", count, smallest)
    photographs = data.train.take(torch.arange(8))
    corner = torch.zeros(8, dtype=torch.long)
    first = photographs.patches(corner, corner, smallest)
    assert first.std() > 0.1, "there is something to see"
    assert torch.equal(photographs.patches(corner + 5, corner + 9, 32), first[:, :, 5:37, 9:41])


def test_all_of_cifar10_in_jpeg_is_almost_cifar10(tmp_path: Path, datasets_folder: Path) -> None:
    if not (datasets_folder / "cifar10" / "cifar10_jpeg.npz").is_file():
        pytest.skip("no cifar10_jpeg under SWEETSPOT_DATASETS")
    with np.load(datasets_folder / "cifar10" / "cifar10_jpeg.npz") as archive:
        arrays = {}
        for split, count in (("train", 40), ("test", 20)):
            offsets = archive[f"{split}_offsets"][: count + 1]
            arrays[f"{split}_bytes"] = archive[f"{split}_bytes"][: offsets[-1]]
            arrays |= {f"{split}_offsets": offsets, f"{split}_labels": archive[f"{split}_labels"][:count]}
        np.savez(tmp_path / "some.npz", classes=archive["classes"], **arrays)
    data = read(tmp_path, "some")
    assert (data.facts.train, data.facts.test, data.facts.channels, data.facts.image_size) == (40, 20, 3, 32)
    assert data.class_names == ("airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck")
    lossless = load(spec.Dataset(name="cifar10_lossless_subset"), Library(datasets_folder, tmp_path, tmp_path), CPU)
    assert torch.equal(data.train.targets["label"], lossless.train.targets["label"][:40])
    error = (items(data.train) - lossless.train.take(torch.arange(40))).abs().mean().item()
    assert 0 < error * 255 < 8


# Decoded once -------------------------------------------------------------------------------------------------------------


def test_a_folder_is_decoded_once_for_each_size_and_anew_when_it_changes(tmp_path: Path) -> None:
    write(tmp_path / "mine", *(f"{index}.jpg" for index in range(20)))
    library = Library(tmp_path, tmp_path, tmp_path / "prepared")

    def told(size: int | None = None, as_photographs: bool = False) -> list[tuple[int, int]]:
        datasets._read_ahead.clear()
        return list(prepare(spec.Dataset(name="mine", image_size=size), library, as_photographs))

    assert told()[-1] == (20, 20) and not told() and not told(64)
    assert told(32)[-1] == (20, 20) and not told(32)
    assert told(None, as_photographs=True)[-1] == (20, 20) and not told(48, as_photographs=True)
    save(noise(0), tmp_path / "mine" / "0.jpg")
    assert told()[-1] == (20, 20)


def jpeg(image: Image.Image) -> bytes:
    file = io.BytesIO()
    image.save(file, "JPEG")
    return file.getvalue()


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "is no JPEG or PNG"),
        (b"not an image at all", "is no JPEG or PNG"),
        (jpeg(noise(0, 300, 300))[:9000], "cannot be decoded"),
        (b"GIF89a" + b"\0" * 20, "is no JPEG or PNG"),
    ],
)
@pytest.mark.parametrize("as_photographs", [False, True])
def test_a_broken_image_is_named(tmp_path: Path, content: bytes, message: str, as_photographs: bool) -> None:
    write(tmp_path / "mine", *(f"{index}.jpg" for index in range(20)))
    (tmp_path / "mine" / "13.jpg").write_bytes(content)
    with pytest.raises(DatasetInvalid, match=f"13.jpg {message}"):
        read(tmp_path, "mine", as_photographs=as_photographs)
    assert not [path for path in (tmp_path / ".prepared").iterdir() if path.suffix != ".lock"]


@pytest.mark.parametrize("side", [8001, 20_000])
def test_an_image_that_would_unpack_to_too_much_is_refused_before_it_does(tmp_path: Path, side: int) -> None:
    write(tmp_path / "mine", *(f"{index}.png" for index in range(20)))
    path = tmp_path / "mine" / "7.png"
    content = bytearray(path.read_bytes())
    content[16:24] = side.to_bytes(4, "big") * 2  # width and height
    content[29:33] = zlib.crc32(content[12:29]).to_bytes(4, "big")
    path.write_bytes(content)
    with pytest.raises(DatasetInvalid, match=r"7\.png has \d+ million pixels; up to 64 million are accepted"):
        read(tmp_path, "mine")


def test_a_strip_needs_no_more_memory_than_its_middle(tmp_path: Path) -> None:
    strip = Image.new("RGB", (1_000_000, 8), (255, 0, 0))
    strip.paste((0, 255, 0), (499_990, 0, 500_010, 8))
    write(tmp_path / "mine", *(f"{index}.png" for index in range(20)))
    for turned, name in ((strip, "0.png"), (strip.rotate(90, expand=True), "1.png")):
        save(turned, tmp_path / "mine" / name)
    data = read(tmp_path, "mine", image_size=100)
    seen = torch.cat((items(data.train), items(data.test)))
    assert (seen == torch.tensor([0.0, 1.0, 0.0]).view(3, 1, 1)).flatten(1).all(dim=1).sum() == 2


def test_too_few_images_are_refused(tmp_path: Path) -> None:
    write(tmp_path / "mine", *(f"{index}.jpg" for index in range(12)))
    with pytest.raises(DatasetInvalid, match="7 training and 5 test items; at least 8"):
        read(tmp_path, "mine")
    (tmp_path / "empty").mkdir()
    with pytest.raises(DatasetInvalid, match="holds no JPEG or PNG"):
        read(tmp_path, "empty")
