"""The API reads headers alone, the workers read everything: both must come to the same facts."""

import io
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from fastapi.testclient import TestClient
from PIL import Image

from app import dataset_headers, datasets
from app.errors import Invalid
from app.settings import settings
from ml.datasets import DatasetInvalid, DatasetMissing, Library, load
from ml.datasets.ingest import ingest
from ml.spec import Dataset, DatasetFacts


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """The datasets folder."""
    monkeypatch.setenv("SWEETSPOT_DATASETS", str(tmp_path / "datasets"))
    monkeypatch.setenv("SWEETSPOT_DATA_DIR", str(tmp_path / "data"))
    monkeypatch.delenv("SWEETSPOT_ARTIFACTS", raising=False)
    settings.cache_clear()
    (tmp_path / "datasets").mkdir()
    yield tmp_path / "datasets"
    monkeypatch.undo()
    settings.cache_clear()


def facts(name: str, **chosen: Any) -> DatasetFacts:
    """As the API finds them."""
    return datasets.facts(Dataset(name=name, **chosen))


def read(name: str, as_photographs: bool = False, **chosen: Any) -> DatasetFacts:
    """As a worker finds them."""
    library = Library(settings().datasets_dir, settings().uploads_dir, settings().prepared_dir)
    return load(Dataset(name=name, **chosen), library, torch.device("cpu"), as_photographs).facts


def uint8(*shape: int) -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, shape, dtype=np.uint8)


def image(kind: str = "JPEG", height: int = 40, width: int = 60, **options: Any) -> bytes:
    file = io.BytesIO()
    Image.new("RGB", (width, height), (10, 100, 200)).save(file, kind, **options)
    return file.getvalue()


def write(folder: Path, *names: str, content: bytes | None = None) -> None:
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(content or image("PNG" if name.lower().endswith("png") else "JPEG"))


def idx(folder: Path, train: int = 30, test: int = 20) -> None:
    folder.mkdir(parents=True)
    for part, items in (("train", train), ("t10k", test)):
        header = b"".join(number.to_bytes(4, "big") for number in (0x803, items, 28, 28))
        (folder / f"{part}-images-idx3-ubyte").write_bytes(header + bytes(items * 784))
        labels = (np.arange(items) % 10).astype(np.uint8).tobytes()
        (folder / f"{part}-labels-idx1-ubyte").write_bytes(bytes((0, 0, 8, 1)) + items.to_bytes(4, "big") + labels)


def cifar(folder: Path, batches: list[str], labels: int) -> None:
    folder.mkdir(parents=True)
    for batch in batches:
        records = uint8(200, labels + 3072)
        records[:, labels - 1] = np.arange(200) % 10**labels
        records.tofile(folder / f"{batch}.bin")


def stl10(folder: Path, unlabelled: bool = True) -> None:
    folder.mkdir(parents=True)
    for part, items in (("train", 20), ("test", 10), *((("unlabeled", 30),) if unlabelled else ())):
        uint8(items, 3 * 96 * 96).tofile(folder / f"{part}_X.bin")
        if part != "unlabeled":
            (np.arange(items) % 10 + 1).astype(np.uint8).tofile(folder / f"{part}_y.bin")


def tiny_imagenet(folder: Path) -> None:
    write(folder, *(f"train/n{index % 3}/images/{index}.JPEG" for index in range(12)), "test/images/test_0.JPEG")
    write(folder, *(f"val/images/val_{index}.JPEG" for index in range(8)))
    (folder / "val" / "val_annotations.txt").write_text("".join(f"val_{index}.JPEG\tn{index % 3}\t0\n" for index in range(8)))


PUBLISHED = {
    "mnist": lambda root: idx(root / "mnist/MNIST/raw"),
    "fashion_mnist": lambda root: idx(root / "fashion_mnist/FashionMNIST/raw"),
    "cifar10": lambda root: cifar(
        root / "cifar10/cifar-10-batches-bin", [*(f"data_batch_{i}" for i in range(1, 6)), "test_batch"], 1
    ),
    "cifar100": lambda root: cifar(root / "cifar100/cifar-100-binary", ["train", "test"], 2),
    "stl10": lambda root: stl10(root / "stl10/stl10_binary"),
    "tiny-imagenet-200": lambda root: tiny_imagenet(root / "tiny-imagenet-200"),
    "imagenet": lambda root: write(
        root / "imagenet",
        *(f"{part}/n{index % 2}/{index}.JPEG" for part in ("train", "val") for index in range(9)),
        "test/1.JPEG",
    ),
    "digits": lambda root: None,
    "moving_mnist": lambda root: None,
}


@pytest.mark.parametrize("name", PUBLISHED)
def test_they_agree_on_every_dataset_of_the_catalogue(name: str, folder: Path) -> None:
    PUBLISHED[name](folder)
    found = facts(name)
    assert found == read(name) == read(name, image_size=None if name == "moving_mnist" else 40)
    assert name in datasets.present()
    assert set(PUBLISHED) == set(datasets.NAMED)


def test_they_agree_on_stl10_without_its_unlabelled_part(folder: Path) -> None:
    stl10(folder / "stl10/stl10_binary", unlabelled=False)
    assert facts("stl10") == read("stl10")
    assert facts("stl10").labelled is None


@pytest.mark.parametrize("name", ["digits", "mnist", "cifar10_lossless_subset", "sunhays80", "bsds500", "moving_mnist"])
def test_they_agree_on_the_real_ones(name: str, datasets_folder: Path, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SWEETSPOT_DATASETS", str(datasets_folder))
    settings.cache_clear()
    if name not in datasets.present():
        pytest.skip(f"no {name} under SWEETSPOT_DATASETS")
    assert facts(name) == read(name)


# npz ----------------------------------------------------------------------------------------------------------------------


def encoded_arrays(kind: str) -> dict[str, np.ndarray]:
    arrays: dict[str, np.ndarray] = {"classes": np.array(["a", "b", "c"])}
    for split, items in (("train", 20), ("test", 9)):
        files = [image(kind, 30, 50) for _ in range(items)]
        arrays |= {
            f"{split}_bytes": np.frombuffer(b"".join(files), dtype=np.uint8),
            f"{split}_offsets": np.cumsum([0, *map(len, files)]),
            f"{split}_labels": np.arange(items) % 3,
        }
    return arrays


GOOD = {
    "grey": {"x": uint8(40, 9, 9), "y": np.arange(40) % 4},
    "colour": {"x": uint8(40, 9, 9, 3), "y": np.arange(40) % 5},
    "unlabelled": {"x": uint8(40, 9, 9)},
    "wide": {"x": uint8(40, 9, 15, 3)},
    "huge": {"x": uint8(20, 513, 600)},
    "scenes_of_13_bands": {"x": uint8(40, 9, 9, 13).astype(np.uint16)},
    "radiographs": {"x": uint8(40, 9, 9).astype(np.float32)},
    "in_fortran_order": {"x": np.asfortranarray(uint8(40, 9, 12, 3))},
    "split_in_words": {"x": uint8(40, 9, 9), "split": np.array(["train"] * 29 + ["test"] * 11)},
    "split_in_numbers": {"x": uint8(40, 9, 9), "split": np.arange(40) % 2},
    "column_of_labels": {"x": uint8(40, 9, 9), "y": np.arange(40)[:, None] % 4},
    "partly_labelled": {"x": uint8(40, 9, 9), "y": np.arange(40) % 7 - 3},
    "partly_labelled_with_a_split": {"x": uint8(40, 9, 9), "y": np.arange(40) % 7 - 3, "split": np.arange(40) // 30},
    "not_labelled_at_all": {"x": uint8(40, 9, 9), "y": np.full(40, -1)},
    "no_label_held_out": {"x": uint8(40, 9, 9), "y": np.arange(40) % 4 - 4 * (np.arange(40) // 20), "split": np.arange(40) // 20},
    "no_label_for_training": {
        "x": uint8(40, 9, 9),
        "y": np.arange(40) % 4 - 4 * (np.arange(40) < 20),
        "split": np.arange(40) // 20,
    },
    "one_class": {"x": uint8(40, 9, 9), "y": np.zeros(40, dtype=int)},
    "one_class_and_none": {"x": uint8(40, 9, 9), "y": np.arange(40) % 2 - 1},
    "clips": {"clips": uint8(40, 5, 9, 12, 3)},
    "clips_without_channels": {"clips": uint8(40, 5, 9, 12), "y": np.arange(40) % 4},
    "pairs": {"v1": uint8(40, 9, 9, 3), "v2": uint8(40, 12, 16).astype(np.float32), "y": np.arange(40) % 3},
    "two_splits": {
        "train_images": uint8(30, 9, 9),
        "test_images": uint8(12, 9, 9),
        "train_labels": np.arange(30) % 3,
        "test_labels": np.arange(12) % 4,
    },
    "two_splits_partly_labelled": {
        "train_images": uint8(30, 9, 9),
        "test_images": uint8(12, 9, 9),
        "train_labels": np.arange(30) % 3 - 1,
        "test_labels": np.arange(12) % 4,
    },
    "something_besides": {"x": uint8(40, 9, 9), "notes": np.array(["taken by night"])},
    "jpegs": encoded_arrays("JPEG"),
    "pngs": encoded_arrays("PNG"),
    "jpegs_without_labels_held_out": encoded_arrays("JPEG") | {"test_labels": np.full(9, -1)},
}
BAD = {
    "doubles": {"x": np.zeros((40, 9, 9))},
    "flat": {"x": uint8(40, 81)},
    "channels_first": {"x": uint8(40, 3, 32, 32)},
    "too_few": {"x": uint8(12, 9, 9)},
    "nothing_held_out": {"x": uint8(40, 9, 9), "split": np.zeros(40, dtype=int)},
    "split_in_three": {"x": uint8(40, 9, 9), "split": np.arange(40) % 3},
    "short_split": {"x": uint8(40, 9, 9), "split": np.arange(39) % 2},
    "other_names": {"images": uint8(40, 9, 9)},
    "two_layouts": {"x": uint8(40, 9, 9), "clips": uint8(40, 2, 9, 9)},
    "still_clips": {"clips": uint8(40, 1, 9, 9)},
    "half_a_pair": {"v1": uint8(40, 9, 9)},
    "uneven_pairs": {"v1": uint8(40, 9, 9), "v2": uint8(39, 9, 9)},
    "uneven_splits": {"train_images": uint8(40, 9, 9), "test_images": uint8(40, 8, 9)},
    "labels_in_words": {"x": uint8(40, 9, 9), "y": np.array(["cat"] * 40)},
    "short_labels": {"x": uint8(40, 9, 9), "y": np.arange(39)},
    "pickled": {"x": uint8(40, 9, 9), "y": np.array([{"a": 1}] * 40, dtype=object)},
    "half_encoded": {key: array for key, array in encoded_arrays("JPEG").items() if key != "test_labels"},
}


@pytest.mark.parametrize("name", GOOD)
@pytest.mark.parametrize("place", ["", "of_mine/"])
def test_they_agree_on_an_npz(name: str, place: str, folder: Path) -> None:
    (folder / place).mkdir(exist_ok=True)
    np.savez(folder / f"{place}{name}.npz", **GOOD[name])
    assert facts(name) == read(name)
    assert name in datasets.present()


@pytest.mark.parametrize("name", BAD)
def test_they_agree_on_what_is_none(name: str, folder: Path) -> None:
    np.savez(folder / f"{name}.npz", **BAD[name])
    with pytest.raises(Invalid) as refused:
        facts(name)
    assert refused.value.errors[0].pointer == "/dataset/name"
    with pytest.raises(DatasetInvalid):
        read(name)
    assert name not in datasets.present()


@pytest.mark.parametrize("content", [b"", b"PK\x03\x04 but no zip", b"\x93NUMPY"])
def test_a_broken_file_is_no_dataset(content: bytes, folder: Path) -> None:
    (folder / "broken.npz").write_bytes(content)
    with pytest.raises(Invalid):
        facts("broken")


def test_cifar_may_come_as_an_npz_in_its_folder(folder: Path) -> None:
    arrays = {"train_images": uint8(30, 32, 32, 3), "test_images": uint8(12, 32, 32, 3)}
    np.savez(folder / "cifar10.npz", **arrays)
    with pytest.raises(Invalid):
        facts("cifar10")
    with pytest.raises(DatasetMissing):
        read("cifar10")
    (folder / "cifar10").mkdir()
    (folder / "cifar10.npz").rename(folder / "cifar10" / "cifar10.npz")
    assert facts("cifar10") == read("cifar10")


def test_a_dataset_that_changes_has_other_facts(folder: Path) -> None:
    np.savez(folder / "mine.npz", x=uint8(40, 9, 9))
    before = facts("mine")
    np.savez(folder / "mine.npz", x=uint8(50, 9, 9))
    assert (before.train, facts("mine").train) == (24, 30)


# Folders of images --------------------------------------------------------------------------------------------------------


FOLDERS = {
    "classes": [f"{kind}/{index}.jpg" for kind in "abc" for index in range(10)],
    "classes_in_splits": [f"{part}/{kind}/{index}.png" for part in ("train", "test") for kind in "ab" for index in range(5)],
    "classes_in_three_splits": [
        *(f"{part}/{kind}/{index}.jpg" for part in ("train", "test") for kind in "ab" for index in range(5)),
        "val/only_here/1.jpg",
    ],
    "classes_of_one_kind": [f"{part}/only/{index}.jpg" for part in ("train", "test") for index in range(10)],
    "one_class": [f"only/{index}.jpg" for index in range(20)],
    "deep": [f"{index % 2}/{index % 3}/{index}.JPEG" for index in range(20)],
    "DIV2K": [f"DIV2K_{part}_HR/{index}.png" for part in ("train", "valid") for index in range(10)],
}


@pytest.mark.parametrize("name", FOLDERS)
@pytest.mark.parametrize("place", ["", "photos/"])
def test_they_agree_on_a_folder_of_images(name: str, place: str, folder: Path) -> None:
    write(folder / place / name, *FOLDERS[name])
    found = facts(name)
    assert found == read(name) == read(name, as_photographs=True)
    assert found.layout == ("images" if name.startswith("classes") and not place else "photos")
    assert name in datasets.present()
    assert f"{found.train} for training and {found.test} held out" in datasets.description(name)


@pytest.mark.parametrize("kind", ["JPEG", "PNG"])
@pytest.mark.parametrize("options", [{}, {"icc_profile": bytes(70_000)}, {"progressive": True}])
def test_the_smallest_side_is_read_from_the_headers(kind: str, options: dict[str, Any], folder: Path) -> None:
    for index in range(20):
        write(folder / "mine", f"{index}.{kind.lower()}", content=image(kind, 40 + index, 100 - 3 * index, **options))
    assert facts("mine").smallest_side == read("mine").smallest_side == 40


@pytest.mark.parametrize("orientation", [1, 6])
def test_it_is_the_same_for_photographs_that_lie_on_their_side(orientation: int, folder: Path) -> None:
    exif = Image.Exif()
    exif[0x0112] = orientation
    write(folder / "mine", *(f"{index}.jpg" for index in range(20)), content=image(height=30, width=50, exif=exif))
    assert facts("mine") == read("mine", as_photographs=True)


@pytest.mark.parametrize("content", [b"GIF89a" + bytes(30), b"\xff\xd8\xff", b"\x89PNG\r\n\x1a\n"])
def test_they_agree_that_a_broken_photograph_spoils_its_folder(content: bytes, folder: Path) -> None:
    write(folder / "mine", *(f"{index}.jpg" for index in range(20)))
    write(folder / "mine", "13.jpg", content=content)
    with pytest.raises(Invalid, match=r"13\.jpg"):
        facts("mine")
    with pytest.raises(DatasetInvalid, match=r"13\.jpg"):
        read("mine")


@pytest.mark.parametrize("names", [["1.jpg"] * 1, ["notes.txt"], [f"{index}.jpg" for index in range(12)]])
def test_they_agree_on_a_folder_that_is_no_dataset(names: list[str], folder: Path) -> None:
    write(folder / "mine", *names)
    with pytest.raises(Invalid):
        facts("mine")
    with pytest.raises(DatasetInvalid):
        read("mine")
    assert "mine" not in datasets.present()


def test_a_folder_that_changes_has_other_facts(folder: Path) -> None:
    write(folder / "mine", *(f"{index}.jpg" for index in range(20)))
    before = facts("mine")
    assert facts("mine") == before
    write(folder / "mine", "deeper/20.jpg")
    assert facts("mine").train + facts("mine").test == 21
    write(folder / "mine", *(f"deeper/{index}.jpg" for index in range(21, 25)))
    assert facts("mine") == read("mine")
    (folder / "mine" / "0.jpg").unlink()
    assert facts("mine") == read("mine")


def test_a_listing_is_remembered(folder: Path) -> None:
    write(folder / "mine", *(f"{index}.jpg" for index in range(200)))
    facts("mine")
    listing = dataset_headers._listings["mine", folder / "mine"]
    assert listing.holds()
    facts("mine")
    assert dataset_headers._listings["mine", folder / "mine"] is listing


def test_what_is_shown_of_the_datasets_folder(folder: Path) -> None:
    write(folder / "flowers", *(f"{kind}/{index}.jpg" for kind in ("rose", "lily") for index in range(20)))
    write(folder / "photos" / "mine", *(f"{index}.jpg" for index in range(20)))
    write(folder / ".hidden", *(f"{index}.jpg" for index in range(20)))
    write(folder / "has a space", *(f"{index}.jpg" for index in range(20)))
    np.savez(folder / "ds_0.npz", x=uint8(40, 9, 9))
    assert datasets.present() == ["digits", "flowers", "mine", "moving_mnist"]
    assert facts("lily").layout == "photos"  # not shown, and found by its name


# Colorful Moving-MNIST ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "chosen",
    [
        {},
        {"digits": "digits"},
        {"backgrounds": "textures"},
        {"backgrounds": "stl10"},
        {"backgrounds": "mine"},
        {"backgrounds": "photographs"},
    ],
)
def test_they_agree_on_what_scenes_are_made_of(chosen: dict[str, str], folder: Path) -> None:
    idx(folder / "mnist/MNIST/raw")
    stl10(folder / "stl10/stl10_binary")
    np.savez(folder / "mine.npz", x=uint8(40, 20, 20, 3), y=np.arange(40) % 4)
    write(folder / "photographs", *(f"{index}.jpg" for index in range(20)))
    found = facts("moving_mnist", **chosen)
    assert found == read("moving_mnist", **chosen)
    assert found.digits == chosen.get("digits", "mnist")
    assert found.backgrounds == chosen.get("backgrounds", "stl10")


@pytest.mark.parametrize(
    ("chosen", "pointer"),
    [
        ({"digits": "cifar10"}, "/dataset/digits"),
        ({"digits": "mnist"}, "/dataset/digits"),
        ({"backgrounds": "digits"}, "/dataset/backgrounds"),
        ({"backgrounds": "moving_mnist"}, "/dataset/backgrounds"),
        ({"backgrounds": "absent"}, "/dataset/backgrounds"),
    ],
)
def test_they_agree_on_what_scenes_cannot_be_made_of(chosen: dict[str, str], pointer: str, folder: Path) -> None:
    with pytest.raises(Invalid) as refused:
        facts("moving_mnist", **chosen)
    assert refused.value.errors[0].pointer == pointer
    with pytest.raises((DatasetInvalid, DatasetMissing)):
        read("moving_mnist", **chosen)


@pytest.mark.parametrize("backgrounds", ["absent", "digits", "clips", "moving_mnist"])
def test_backgrounds_that_fit_are_offered(backgrounds: str, folder: Path) -> None:
    np.savez(folder / "clips.npz", clips=uint8(40, 2, 20, 20, 3))
    np.savez(folder / "mine.npz", x=uint8(40, 20, 20, 3))
    write(folder / "photographs", *(f"{index}.jpg" for index in range(20)))
    with pytest.raises(Invalid, match=r"choose one of mine, photographs, textures$"):
        facts("moving_mnist", backgrounds=backgrounds)


@pytest.mark.parametrize(
    ("arrays", "fit"),
    [
        ({"x": uint8(40, 28, 28), "y": np.arange(40) % 4}, True),
        ({"x": uint8(40, 28, 28)}, False),
        ({"x": uint8(40, 28, 28), "y": np.arange(40) % 4 - 1}, False),
        ({"x": uint8(40, 28, 28, 3), "y": np.arange(40) % 4}, False),
    ],
)
def test_they_agree_on_digits_of_ones_own(arrays: dict[str, np.ndarray], fit: bool, folder: Path) -> None:
    (folder / "mnist").mkdir()
    np.savez(folder / "mnist" / "mnist.npz", **arrays)
    np.savez(folder / "mine.npz", x=uint8(40, 20, 20, 3))
    if fit:
        for backgrounds in ("mine", "textures"):
            found = facts("moving_mnist", backgrounds=backgrounds)
            assert found == read("moving_mnist", backgrounds=backgrounds) and found.version
    else:
        with pytest.raises(Invalid, match="digits must"):
            facts("moving_mnist")
        with pytest.raises(DatasetInvalid, match="digits of moving_mnist must"):
            read("moving_mnist")


# Uploads ------------------------------------------------------------------------------------------------------------------


def test_they_agree_on_an_upload(folder: Path, tmp_path: Path) -> None:
    with pytest.raises(Invalid, match="no upload 'ds_7' that can be used"):
        facts("ds_7")
    with zipfile.ZipFile(tmp_path / "upload.zip", "w") as archive:
        for index in range(20):
            archive.writestr(f"{'ab'[index % 2]}/{index}.jpg", image(height=40 + index))
    told = ingest(tmp_path / "upload.zip", None, settings().uploads_dir / "ds_7", lambda done, total: None)
    assert facts("ds_7") == read("ds_7") == told


# What the API makes of it -------------------------------------------------------------------------------------------------


def test_other_data_under_the_same_name_is_another_experiment(folder: Path, api: TestClient) -> None:
    def resolved() -> dict[str, Any]:
        spec = {"dataset": {"name": "mine"}, "views": {"kind": "noise"}}
        answer = api.post("/v1/experiments?dry_run=true", json=spec)
        assert answer.status_code == 200, answer.text
        return dict(answer.json()["spec"])

    images = np.random.default_rng(0).integers(0, 256, (100, 8, 8), dtype=np.uint8)
    labels = np.arange(100) % 5
    np.savez(folder / "mine.npz", x=images, y=labels)
    before = resolved()
    np.savez(folder / "mine.npz", x=images, y=labels)
    assert resolved() == before
    np.savez(folder / "mine.npz", x=255 - images, y=labels)
    assert resolved()["dataset"]["version"] != before["dataset"]["version"]
    refused = api.post("/v1/experiments", json=before)
    assert refused.status_code == 422
    assert refused.json()["errors"][0]["pointer"] == "/dataset/version"
