import os
import pickle
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from sklearn.datasets import load_digits
from torch import Tensor
from torchvision.datasets import STL10, FashionMNIST

from ml import datasets, spec
from ml.datasets import Clips, Data, DatasetInvalid, DatasetMissing, Library, Split, load, moving_mnist, npz, prepare, stored
from ml.datasets.download import main as download
from ml.datasets.raw import Opening, Part, Raw, finished
from ml.datasets.scenes import SceneSplit

CPU = torch.device("cpu")


def images_of(n: int, *shape: int) -> Any:
    return np.random.default_rng(0).integers(0, 256, (n, *shape), dtype=np.uint8)


def load_from(root: Path, name: str, image_size: int | None = None, **chosen: Any) -> Data:
    library = Library(root, root / ".uploads", root / ".prepared")
    return load(spec.Dataset(name=name, image_size=image_size, **chosen), library, CPU)


def load_npz(root: Path, image_size: int | None = None, **arrays: Any) -> Data:
    np.savez(root / "mine.npz", **arrays)
    return load_from(root, "mine", image_size)


def items(split: Split) -> Any:
    return split.take(torch.arange(len(split)))


def bytes_of(split: Split) -> Tensor:
    """All images as they are stored."""
    return (items(split) * 255).round().to(torch.uint8)


def labels_of(data: Data) -> tuple[list[int], list[int]]:
    return data.train.targets["label"].tolist(), data.test.targets["label"].tolist()


def test_digits_are_scikit_learns_split_40_to_60(tmp_path: Path) -> None:
    data = load_from(tmp_path, "digits")
    assert data.facts == spec.DatasetFacts(name="digits", train=1078, test=719, channels=1, image_size=16, classes=10)
    assert items(data.train).shape == (1078, 1, 16, 16) and items(data.test).shape == (719, 1, 16, 16)
    assert np.bincount(np.concatenate(labels_of(data))).tolist() == np.bincount(load_digits().target).tolist()


def test_digits_at_their_own_size_are_the_originals(tmp_path: Path) -> None:
    data = load_from(tmp_path, "digits", 8)
    originals = {image.tobytes() for image in np.rint(load_digits().images / 16 * 255).astype(np.uint8)}
    split = [{image.numpy().tobytes() for image in bytes_of(part)} for part in (data.train, data.test)]
    assert split[0] | split[1] == originals
    assert not split[0] & split[1]


def test_the_digest_tells_data_apart_and_does_not_depend_on_the_size(tmp_path: Path) -> None:
    assert load_from(tmp_path, "digits", 8).digest == load_from(tmp_path, "digits", 16).digest
    x = images_of(40, 8, 8)
    before = load_npz(tmp_path, x=x).digest
    x[0, 0, 0] ^= 1
    assert load_npz(tmp_path, x=x).digest != before


def test_the_facts_say_the_default_size_whatever_was_asked(tmp_path: Path) -> None:
    x = images_of(40, 20, 30)
    assert load_npz(tmp_path, x=x).facts == load_npz(tmp_path, image_size=11, x=x).facts
    assert load_npz(tmp_path, x=images_of(20, 600, 513)).facts.image_size == 512  # the largest that a spec accepts


def test_a_dataset_is_read_once(tmp_path: Path) -> None:
    assert load_from(tmp_path, "digits", 16) is load_from(tmp_path, "digits", 16)


def test_a_dataset_whose_files_were_touched_is_read_again(tmp_path: Path) -> None:
    stl10(tmp_path, unlabelled=None)
    before = load_from(tmp_path, "stl10")
    assert load_from(tmp_path, "stl10") is before
    path = tmp_path / "stl10" / "stl10_binary" / "test_X.bin"
    path.write_bytes(bytes(path.stat().st_size))
    os.utime(path, ns=(0, 0))
    after = load_from(tmp_path, "stl10")
    assert after.digest != before.digest and not items(after.test).any()


def test_mnist_has_the_published_counts_and_mean(datasets_folder: Path) -> None:
    data = load_from(datasets_folder, "mnist")
    assert data.facts == spec.DatasetFacts(name="mnist", train=60_000, test=10_000, channels=1, image_size=28, classes=10)
    assert labels_of(data)[0][:5] == [5, 0, 4, 1, 9]
    pixels = items(data.train).double()
    assert pixels.mean().item() == pytest.approx(0.1307, abs=5e-5)  # as in torchvision's reference training
    assert pixels.std().item() == pytest.approx(0.3081, abs=5e-5)


def test_an_npz_in_a_folder_under_the_root_is_found(datasets_folder: Path) -> None:
    data = load_from(datasets_folder, "cifar10_lossless_subset")
    assert (data.facts.train, data.facts.test, data.facts.channels, data.facts.classes) == (4000, 1000, 3, 10)
    means = items(data.train).mean(dim=(0, 2, 3)).numpy()
    assert means == pytest.approx([0.4914, 0.4822, 0.4465], abs=0.01)  # the published means of all 50 000
    assert labels_of(data)[0][:5] == [6, 9, 9, 4, 1]


# Published datasets, in the folders in which they are unpacked ------------------------------------------------------------


def test_fashion_mnist_is_read_as_torchvision_reads_it(tmp_path: Path) -> None:
    folder = tmp_path / "fashion_mnist" / "FashionMNIST" / "raw"
    folder.mkdir(parents=True)
    for part, count in (("train", 30), ("t10k", 20)):
        header = b"".join(number.to_bytes(4, "big") for number in (0x803, count, 28, 28))
        (folder / f"{part}-images-idx3-ubyte").write_bytes(header + images_of(count, 28, 28).tobytes())
        labels = (np.arange(count) % 10).astype(np.uint8).tobytes()
        (folder / f"{part}-labels-idx1-ubyte").write_bytes(bytes((0, 0, 8, 1)) + count.to_bytes(4, "big") + labels)
    data = load_from(tmp_path, "fashion_mnist")
    for split, train in ((data.train, True), (data.test, False)):
        reference = FashionMNIST(tmp_path / "fashion_mnist", train=train)
        assert torch.equal(bytes_of(split)[:, 0], reference.data)
        assert torch.equal(split.targets["label"], reference.targets)


@pytest.mark.parametrize(("name", "labels"), [("cifar10", 1), ("cifar100", 2)])
def test_cifar_is_read_from_the_binary_distribution(tmp_path: Path, name: str, labels: int) -> None:
    classes, record = 10**labels, labels + 3072
    batches = {
        "cifar10": [f"cifar-10-batches-bin/{name}.bin" for name in (*(f"data_batch_{i}" for i in range(1, 6)), "test_batch")],
        "cifar100": ["cifar-100-binary/train.bin", "cifar-100-binary/test.bin"],
    }[name]
    each = 2 * classes
    records = images_of(each * len(batches), record)
    records[:, labels - 1] = np.arange(len(records)) % classes  # the fine label stands last
    for index, batch in enumerate(batches):
        (tmp_path / name / batch).parent.mkdir(parents=True, exist_ok=True)
        records[index * each : (index + 1) * each].tofile(tmp_path / name / batch)
    data = load_from(tmp_path, name)
    assert (data.facts.train, data.facts.test, data.facts.image_size) == (each * (len(batches) - 1), each, 32)
    assert labels_of(data)[1] == [*range(classes)] * 2
    assert bytes_of(data.train)[12, 1, 0, 3] == records[12, labels + 1024 + 3]  # green plane, first row, fourth column
    assert torch.equal(bytes_of(data.test)[9].flatten(), torch.from_numpy(records[9 - each, labels:]))
    (tmp_path / name / batches[-1]).write_bytes(b"\0" * 100)
    with pytest.raises(DatasetInvalid, match=f"100 bytes, which is no multiple of the {record}"):
        load_from(tmp_path, name)


def stl10(root: Path, unlabelled: int | None) -> Any:
    """A small STL-10; returns the images of its three files as they are stored, columns first."""
    folder = root / "stl10" / "stl10_binary"
    folder.mkdir(parents=True)
    columns = {"train": images_of(20, 3, 96, 96), "test": images_of(10, 3, 96, 96)[::-1]}
    columns |= {} if unlabelled is None else {"unlabeled": 255 - images_of(unlabelled, 3, 96, 96)}
    for part, images in columns.items():
        np.ascontiguousarray(images).tofile(folder / f"{part}_X.bin")
        if part != "unlabeled":
            (np.arange(len(images)) % 10 + 1).astype(np.uint8).tofile(folder / f"{part}_y.bin")
    return columns


class TestSTL10:
    def test_unlabelled_images_follow_the_labelled_ones(self, tmp_path: Path) -> None:
        columns = stl10(tmp_path, unlabelled=30)
        data = load_from(tmp_path, "stl10")
        assert (data.facts.train, data.facts.labelled, data.facts.test, data.facts.classes) == (50, 20, 10, 10)
        assert labels_of(data) == ([*range(10)] * 2 + [-1] * 30, [*range(10)])
        together = np.concatenate((columns["train"], columns["unlabeled"]))
        assert np.array_equal(bytes_of(data.train), together.transpose(0, 1, 3, 2))
        assert np.array_equal(bytes_of(data.test), columns["test"].transpose(0, 1, 3, 2))

    def test_without_them_it_is_labelled_throughout(self, tmp_path: Path) -> None:
        stl10(tmp_path, unlabelled=None)
        facts = load_from(tmp_path, "stl10").facts
        assert (facts.train, facts.labelled, facts.test) == (20, None, 10)
        assert not (tmp_path / ".prepared").exists()

    def test_images_are_upright_as_torchvision_has_them(self, tmp_path: Path) -> None:
        class Small(STL10):
            def _check_integrity(self) -> bool:
                return True

        stl10(tmp_path, unlabelled=30)
        (tmp_path / "stl10" / "stl10_binary" / "class_names.txt").write_text("\n".join("abcdefghij"))
        reference = Small(tmp_path / "stl10", split="train+unlabeled")
        data = load_from(tmp_path, "stl10")
        assert np.array_equal(bytes_of(data.train), reference.data)
        assert labels_of(data)[0] == reference.labels.tolist()


@pytest.mark.parametrize("name", ["cifar10", "mnist", "stl10"])
def test_a_published_dataset_may_be_an_npz_in_its_folder(tmp_path: Path, name: str) -> None:
    (tmp_path / name).mkdir()
    labels = np.arange(20) % 10
    arrays = {"train_images": images_of(20, 32, 32, 3), "test_images": images_of(20, 32, 32, 3)}
    np.savez(tmp_path / name / f"{name}.npz", train_labels=labels, test_labels=labels, **arrays)
    data = load_from(tmp_path, name)
    assert data.facts.train == 20
    assert data.facts.version == spec.npz_version(tmp_path / name / f"{name}.npz")


# npz ----------------------------------------------------------------------------------------------------------------------


class TestNpz:
    def test_x_alone_is_split_without_labels(self, tmp_path: Path) -> None:
        data = load_npz(tmp_path, x=images_of(50, 9, 9))
        assert (data.facts.train, data.facts.test) == (30, 20) == (50 - spec.held_out(50), spec.held_out(50))
        assert data.facts.classes is None and not data.train.targets and not data.test.targets
        assert data.facts.image_size == 9

    @pytest.mark.parametrize("names", [("train", "test"), (0, 1)])
    def test_a_split_of_its_own_is_kept_in_order(self, tmp_path: Path, names: tuple[Any, Any]) -> None:
        x, y = images_of(30, 8, 8, 3), np.arange(30) % 3
        data = load_npz(tmp_path, x=x, y=y, split=np.array([names[i % 3 == 0] for i in range(30)]))
        assert torch.equal(bytes_of(data.test), torch.from_numpy(x[::3].transpose(0, 3, 1, 2).copy()))
        assert labels_of(data)[1] == [0] * 10

    def test_medmnist_has_labels_in_a_column(self, tmp_path: Path) -> None:
        labels = (np.arange(12) % 2)[:, None].astype(np.uint8)
        x = images_of(12, 28, 28)
        data = load_npz(tmp_path, train_images=x, train_labels=labels, test_images=x, test_labels=labels, val_images=x)
        assert labels_of(data)[0] == [0, 1] * 6

    def test_labels_are_counted_from_zero(self, tmp_path: Path) -> None:
        data = load_npz(tmp_path, x=images_of(40, 8, 8), y=np.array([7, 30] * 20))
        assert data.facts.classes == 2
        assert sorted({*labels_of(data)[0]}) == [0, 1]

    def test_a_negative_label_is_none(self, tmp_path: Path) -> None:
        y, split = np.array([-5, 7, 9, -1] * 10), np.arange(40) % 5 == 4
        data = load_npz(tmp_path, x=images_of(40, 8, 8), y=y, split=split.astype(int))
        assert (data.facts.classes, data.facts.labelled) == (2, (y[~split] >= 0).sum())
        assert labels_of(data)[0] == [{7: 0, 9: 1}.get(label, -1) for label in y[~split]]

    def test_labels_that_are_all_negative_are_no_labels(self, tmp_path: Path) -> None:
        data = load_npz(tmp_path, x=images_of(40, 8, 8), y=np.full(40, -1))
        assert (data.facts.classes, data.facts.labelled, data.train.targets) == (None, None, {})

    @pytest.mark.parametrize(
        "y",
        [
            np.where(np.arange(40) < 20, np.arange(40) % 4, -1),
            np.where(np.arange(40) < 20, -1, np.arange(40) % 4),
            np.zeros(40, dtype=int),
            np.arange(40) % 2 - 1,
        ],
        ids=["none held out", "none for training", "one class", "one class and none"],
    )
    def test_labels_that_cannot_be_learned_or_measured_are_no_labels(self, tmp_path: Path, y: Any) -> None:
        data = load_npz(tmp_path, x=images_of(40, 8, 8), y=y, split=np.arange(40) // 20)
        assert (data.facts.classes, data.facts.labelled, data.class_names) == (None, None, None)
        assert data.train.targets == data.test.targets == {}

    def test_oblong_images_are_resized_and_cut_to_their_central_square(self, tmp_path: Path) -> None:
        x = np.zeros((40, 20, 60), dtype=np.uint8)
        x[:, :, 20:40] = 200
        data = load_npz(tmp_path, image_size=10, x=x)
        assert bytes_of(data.train).shape == (24, 1, 10, 10)
        assert (bytes_of(data.train)[..., 1:-1] == 200).all()

    @pytest.mark.parametrize("dtype", [np.uint8, np.uint16, np.float32])
    def test_resizing_is_torchs_with_antialiasing_in_any_type(self, tmp_path: Path, dtype: Any) -> None:
        x = (images_of(30, 24, 24, 13) * (257.0 if dtype == np.uint16 else 1.0)).astype(dtype)
        data = load_npz(tmp_path, image_size=9, x=x, split=np.repeat([0, 1], 15))
        expected = F.interpolate(
            torch.from_numpy(x.astype(np.float32)).permute(0, 3, 1, 2), (9, 9), mode="bilinear", antialias=True
        )
        top = float(x[:15].max())
        rounding = 0 if dtype == np.float32 else 0.5
        torch.testing.assert_close(items(data.train) * top, expected[:15], rtol=1e-5, atol=rounding + 0.02)

    def test_arrays_in_fortran_order_are_the_same_images(self, tmp_path: Path) -> None:
        x = images_of(30, 9, 10, 3)
        before = load_npz(tmp_path, x=x)
        assert torch.equal(items(load_npz(tmp_path, x=np.asfortranarray(x)).test), items(before.test))

    def test_compressed_or_not_it_is_the_same_data(self, tmp_path: Path) -> None:
        plain = load_npz(tmp_path, x=images_of(30, 9, 9))
        np.savez_compressed(tmp_path / "mine.npz", x=images_of(30, 9, 9))
        assert load_from(tmp_path, "mine").digest == plain.digest

    @pytest.mark.parametrize(
        ("arrays", "message"),
        [
            ({"x": np.zeros((40, 9, 9))}, "x is float64; images must be uint8, uint16 or float32"),
            ({"x": np.zeros((40, 64), dtype=np.uint8)}, r"shape \(40, 64\)"),
            ({"x": images_of(40, 3, 32, 32)}, "3x32 pixels with 32 channel.*channels come last"),
            ({"x": images_of(40, 8, 8), "y": np.zeros(39, dtype=int)}, "must be 40 integers"),
            ({"x": images_of(40, 8, 8), "y": np.zeros((40, 14), dtype=int)}, "must be 40 integers"),
            ({"x": images_of(40, 8, 8), "y": np.zeros(40)}, "float64"),
            ({"x": images_of(40, 8, 8), "split": np.full(40, "val")}, "'val'"),
            ({"x": images_of(40, 8, 8), "split": np.zeros(39, dtype=int)}, r"\(39,\), but there are 40"),
            ({"x": images_of(40, 8, 8), "split": np.zeros(40, dtype=int)}, "40 training and 0 test items"),
            ({"x": images_of(12, 8, 8)}, "7 training and 5 test items; at least 8"),
            ({"pictures": images_of(40, 8, 8)}, "none of the layouts"),
            ({"x": images_of(40, 8, 8), "clips": images_of(40, 2, 8, 8)}, "several of the layouts"),
            ({"clips": images_of(40, 8, 8)}, r"it must be \[N, T, H, W\]"),
            ({"clips": images_of(40, 1, 8, 8)}, "clips of one frame"),
            ({"v1": images_of(40, 8, 8)}, "none of the layouts"),
            ({"v1": images_of(40, 8, 8), "v2": images_of(39, 8, 8)}, "40 and 39 items"),
            ({"train_images": images_of(20, 8, 8), "test_images": images_of(20, 9, 9)}, "must be alike"),
            (
                {"train_images": images_of(20, 8, 8), "test_images": images_of(20, 8, 8), "train_labels": np.arange(20)},
                "train_labels and test_labels belong together",
            ),
            ({"x": np.array([{"any": "object"}] * 9)}, "pickle"),
            ({"x": images_of(40, 8, 8), "y": np.array([{"any": "object"}] * 40)}, "pickle"),
        ],
    )
    def test_what_is_wrong_is_said(self, tmp_path: Path, arrays: dict[str, Any], message: str) -> None:
        with pytest.raises(DatasetInvalid, match=message):
            load_npz(tmp_path, **arrays)

    @pytest.mark.parametrize("content", [b"", b"not a zip", pickle.dumps({"x": 1})])
    def test_other_files_are_refused_and_never_unpickled(self, tmp_path: Path, content: bytes) -> None:
        (tmp_path / "mine.npz").write_bytes(content)
        with pytest.raises(DatasetInvalid, match="cannot be read"):
            load_from(tmp_path, "mine")

    def test_an_array_that_ends_too_early_is_refused(self, tmp_path: Path) -> None:
        np.save(tmp_path / "x.npy", images_of(40, 8, 8))
        with zipfile.ZipFile(tmp_path / "mine.npz", "w") as archive:
            archive.writestr("x.npy", (tmp_path / "x.npy").read_bytes()[:-1])
        with pytest.raises(DatasetInvalid, match=r"x has the shape .40, 8, 8., but breaks off after 2559 of 2560 bytes"):
            load_from(tmp_path, "mine")


class TestRange:
    """What becomes 0 and 1, and what else of the stored numbers."""

    def seen(self, root: Path, x: Any) -> tuple[Tensor, Tensor]:
        """Training and held-out items of which the first half is for training."""
        half = len(x) // 2
        data = load_npz(root, x=x, split=np.repeat([0, 1], half))
        assert data.facts.dtype == x.dtype
        return items(data.train)[:, 0], items(data.test)[:, 0]

    def test_of_bytes_it_is_0_to_255(self, tmp_path: Path) -> None:
        x = images_of(20, 8, 8) // 2
        train, test = self.seen(tmp_path, x)
        torch.testing.assert_close(torch.cat((train, test)), torch.from_numpy(x / 255).float())

    def test_of_uint16_it_is_0_to_the_largest_training_value(self, tmp_path: Path) -> None:
        x = np.full((20, 8, 8), 1000, dtype=np.uint16)
        x[3, 0, 0], x[15, 0, 0] = 4000, 65535
        train, test = self.seen(tmp_path, x)
        torch.testing.assert_close(train, torch.from_numpy(x[:10] / 4000).float())
        torch.testing.assert_close(test, torch.from_numpy(x[10:] / 4000).float())

    def test_of_floats_between_0_and_1_it_is_that(self, tmp_path: Path) -> None:
        x = (images_of(20, 8, 8) / 300).astype(np.float32)
        train, test = self.seen(tmp_path, x)
        assert torch.equal(torch.cat((train, test)), torch.from_numpy(x))

    def test_of_other_floats_it_is_their_training_range(self, tmp_path: Path) -> None:
        x = (images_of(20, 8, 8) * 10.0 - 1024).astype(np.float32)  # as Hounsfield units are
        x[0, 0, :2], x[10:] = (-1024, 3071), 5000
        train, test = self.seen(tmp_path, x)
        torch.testing.assert_close(train, torch.from_numpy((x[:10] + 1024) / 4095))
        torch.testing.assert_close(test, torch.full_like(test, 6024 / 4095))

    @pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
    def test_a_number_that_is_not_finite_is_refused_with_its_place(self, tmp_path: Path, value: float) -> None:
        x = np.zeros((20, 8, 9, 2), dtype=np.float32)
        x[17, 2, 5, 1] = value
        with pytest.raises(DatasetInvalid, match=rf"x\[17, 2, 5, 1\] is {value}; all numbers must be finite"):
            self.seen(tmp_path, x)

    def test_values_that_are_all_alike_have_none(self, tmp_path: Path) -> None:
        with pytest.raises(DatasetInvalid, match=r"is 7\.0 in all training items"):
            self.seen(tmp_path, np.full((20, 8, 8), 7, dtype=np.float32))


def test_clips_keep_their_frames(tmp_path: Path) -> None:
    clips = images_of(30, 5, 10, 12, 3)
    data = load_npz(tmp_path, clips=clips, split=np.repeat([0, 1], 15))
    assert (data.facts.layout, data.facts.frames, data.facts.channels, data.facts.image_size) == ("clips", 5, 3, 10)
    batch = items(data.test)
    assert isinstance(batch, Clips) and batch.length == 5
    data = load_npz(tmp_path, clips=clips[..., :10, 0], split=np.repeat([0, 1], 15))  # without channels
    frames = items(data.test).frames(torch.tensor([[4, 0]]).expand(15, -1))
    assert frames.shape == (15, 2, 1, 10, 10)


def test_clips_are_resized_frame_by_frame(tmp_path: Path) -> None:
    clips, times = images_of(30, 3, 20, 20), torch.arange(3).expand(15, -1)
    split = np.repeat([0, 1], 15)
    frames = items(load_npz(tmp_path, image_size=8, clips=clips, split=split).train).frames(times)
    stills = items(load_npz(tmp_path, image_size=8, x=clips.reshape(90, 20, 20), split=split.repeat(3)).train)
    assert torch.equal(frames.flatten(0, 1), stills)


def test_pairs_have_each_their_size_channels_and_range(tmp_path: Path) -> None:
    v1, v2 = images_of(30, 8, 12, 3), (images_of(30, 16, 16) * 4.0).astype(np.float32)
    v2[0, 0, :2] = 0, 1020
    data = load_npz(tmp_path, v1=v1, v2=v2, y=np.arange(30) % 3, split=np.repeat([0, 1], 15))
    assert (data.facts.layout, data.facts.channels, data.facts.channels2, data.facts.classes) == ("paired", 3, 1, 3)
    first, second = items(data.train)
    torch.testing.assert_close(first, torch.from_numpy(v1[:15] / 255).float().permute(0, 3, 1, 2))
    torch.testing.assert_close(second[:, 0], torch.from_numpy(v2[:15] / 1020))


def test_arrays_of_many_channels_are_read(tmp_path: Path) -> None:
    x = images_of(30, 9, 9, 13)
    data = load_npz(tmp_path, x=x, split=np.repeat([0, 1], 15))
    assert data.facts.channels == 13
    assert np.array_equal(bytes_of(data.train), x[:15].transpose(0, 3, 1, 2))


# What does not fit into memory --------------------------------------------------------------------------------------------


class TestLarge:
    @pytest.fixture
    def small(self, tmp_path: Path) -> Data:
        """The same dataset, where it fits."""
        return load_npz(tmp_path, x=images_of(40, 12, 12, 3), y=np.arange(40) % 4)

    @pytest.fixture
    def library(self, tmp_path: Path, small: Data, monkeypatch: pytest.MonkeyPatch) -> Library:
        """Where it does not fit."""
        for module in (npz, datasets):
            monkeypatch.setattr(module, "MEMORY_SHARE", 1e-9)
        monkeypatch.setattr(datasets, "RESIZED_ONCE", 0)
        return Library(tmp_path, tmp_path, tmp_path / "prepared")

    def test_an_npz_is_unpacked_once_and_read_from_its_file(self, library: Library, small: Data) -> None:
        dataset = spec.Dataset(name="mine")
        assert list(prepare(dataset, library))[-1] == (40, 40)
        large = load(dataset, library, CPU)
        assert (large.facts, large.digest, labels_of(large)) == (small.facts, small.digest, labels_of(small))
        for ours, other in zip((large.train, large.test), (small.train, small.test), strict=True):
            assert torch.equal(items(ours), items(other))
        (folder,) = library.prepared.iterdir()
        np.load(folder / "train_0.npy", mmap_mode="r+")[:] = 0
        assert not items(large.train).any()
        datasets._loaded.clear()
        assert not list(prepare(dataset, library))

    def test_it_is_resized_once_into_a_file(self, library: Library, tmp_path: Path) -> None:
        dataset = spec.Dataset(name="mine", image_size=8)
        assert list(prepare(dataset, library))[-1] == (40, 40)
        assert {folder.name.removeprefix(f"mine-{npz_version(tmp_path)}") for folder in library.prepared.iterdir()} == {"", "-8"}
        large = items(load(dataset, library, CPU).train)
        assert torch.equal(large, items(load_from(tmp_path, "mine", 8).train))
        datasets._loaded.clear()
        assert not list(prepare(dataset, library))

    def test_an_array_in_fortran_order_is_unpacked_too(self, library: Library, small: Data) -> None:
        np.savez(library.root / "other.npz", x=np.asfortranarray(images_of(40, 12, 12, 3)))
        assert torch.equal(items(load(spec.Dataset(name="other"), library, CPU).test), items(small.test))


def npz_version(root: Path) -> str:
    return spec.npz_version(root / "mine.npz")


class TestOnce:
    """What is made once, by however many processes."""

    def make(self, draft: stored.Draft) -> Opening:
        arrays = [draft.allocate(f"{part}_0", (8, 1, 8, 8), np.uint8) for part in ("train", "test")]
        for done in range(1, 4):
            for array in arrays:
                array[:] = done
            yield done, 3
        return Raw(Part((arrays[0],)), Part((arrays[1],), np.arange(8)), ranges=((0.0, 1.5),), class_names=("a",), digest="d")

    def test_it_comes_back_as_it_was_written(self, tmp_path: Path) -> None:
        raw = finished(stored.once(tmp_path / "made", self.make))
        assert (raw.ranges, raw.class_names, raw.digest, raw.layout) == (((0.0, 1.5),), ("a",), "d", "images")
        assert raw.train.labels is None and raw.test.labels is not None and raw.test.labels.tolist() == [*range(8)]
        assert isinstance(raw.train.arrays[0], np.memmap) and (raw.train.arrays[0] == 3).all()
        assert [path.name for path in tmp_path.iterdir()] == ["made"]
        assert not list(stored.once(tmp_path / "made", self.make))

    @pytest.mark.skipif(not hasattr(os, "posix_fallocate"), reason="this system cannot reserve room on a disk")
    def test_room_on_the_disk_is_taken_before_anything_is_written(self, tmp_path: Path) -> None:
        draft = stored.Draft(tmp_path / "made")
        draft.allocate("train_0", (1000, 3, 32, 32), np.uint8)
        found = (draft.partial / "train_0.npy").stat()
        assert 512 * found.st_blocks >= found.st_size > 1000 * 3 * 32 * 32

    def test_one_makes_it_while_the_others_tell_its_progress(self, tmp_path: Path) -> None:
        one, other = (stored.once(tmp_path / "made", self.make) for _ in range(2))
        assert [next(one), next(one)] == [(1, 3), (2, 3)]
        assert next(other) == (2, 3)
        assert next(one) == (3, 3)
        assert next(other) == (3, 3)
        assert not (tmp_path / "made").exists()
        assert (finished(one).train.arrays[0] == 3).all()
        assert list(other) == []

    def test_whoever_gives_up_leaves_nothing_and_the_next_one_makes_it(self, tmp_path: Path) -> None:
        one = stored.once(tmp_path / "made", self.make)
        next(one)
        one.close()
        assert not (tmp_path / "made").exists() and not list(tmp_path.glob("*.partial"))
        (tmp_path / ".made.partial").mkdir()
        (tmp_path / ".made.partial" / "train_0.npy").write_bytes(b"of one who was killed")
        assert (finished(stored.once(tmp_path / "made", self.make)).train.arrays[0] == 3).all()

    def test_what_was_damaged_is_said(self, tmp_path: Path) -> None:
        finished(stored.once(tmp_path / "made", self.make))
        (tmp_path / "made" / "test_0.npy").write_bytes(b"")
        with pytest.raises(DatasetInvalid, match="made is no dataset that was written here"):
            finished(stored.once(tmp_path / "made", self.make))


# Colorful Moving-MNIST ----------------------------------------------------------------------------------------------------


class TestMovingMNIST:
    def test_it_is_made_of_what_is_there(self, tmp_path: Path) -> None:
        facts = load_from(tmp_path, "moving_mnist").facts
        assert (facts.layout, facts.digits, facts.backgrounds) == ("scenes", "digits", "textures")
        assert (facts.train, facts.test) == (1078, 719)
        assert facts.targets() == {"digit": 10, "background": 10, "position": None}
        np.savez(tmp_path / "cifar10_lossless_subset.npz", x=images_of(40, 32, 32, 3), y=np.arange(40) % 4)
        facts = load_from(tmp_path, "moving_mnist").facts
        assert (facts.backgrounds, facts.factors["background"]) == ("cifar10_lossless_subset", 4)
        assert facts.version == spec.npz_version(tmp_path / "cifar10_lossless_subset.npz")
        stl10(tmp_path, unlabelled=30)
        assert load_from(tmp_path, "moving_mnist").facts.backgrounds == "stl10"

    def test_scenes_show_digits_of_their_split_before_labelled_backgrounds_of_it(self, tmp_path: Path) -> None:
        columns = stl10(tmp_path, unlabelled=30)
        data, digits = load_from(tmp_path, "moving_mnist"), load_from(tmp_path, "digits", 28)
        for ours, theirs, part in ((data.train, digits.train, "train"), (data.test, digits.test, "test")):
            assert isinstance(ours, SceneSplit)
            assert torch.equal(ours.digits, bytes_of(theirs)[:, 0])
            assert torch.equal(ours.targets["digit"], theirs.targets["label"])
            assert np.array_equal(ours.backgrounds, columns[part].transpose(0, 1, 3, 2))
            assert ours.targets["background"].min() >= 0

    def test_of_many_backgrounds_an_even_choice_of_those_with_a_class_serves(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(moving_mnist, "MOST_BACKGROUNDS", (5, 3))
        x, split = images_of(40, 20, 20, 3), np.repeat([0, 1], 20)
        for y, train, test in (
            (np.arange(40) % 3 - 1, [1, 5, 10, 14, 19], [20, 29, 38]),
            (np.full(40, -1), [0, 5, 10, 14, 19], [20, 30, 39]),
        ):
            np.savez(tmp_path / "clouds.npz", x=x, y=y, split=split)
            data = load_from(tmp_path, "moving_mnist", backgrounds="clouds")
            for part, chosen in ((data.train, train), (data.test, test)):
                assert isinstance(part, SceneSplit)
                assert np.array_equal(part.backgrounds, x[list(chosen)].transpose(0, 3, 1, 2))

    def test_its_version_is_of_digits_and_backgrounds(self, tmp_path: Path) -> None:
        (tmp_path / "mnist").mkdir()
        np.savez(tmp_path / "mnist" / "mnist.npz", x=images_of(40, 28, 28), y=np.arange(40) % 10)
        np.savez(tmp_path / "clouds.npz", x=images_of(40, 20, 20, 3))
        digits, backgrounds = (spec.npz_version(tmp_path / path) for path in ("mnist/mnist.npz", "clouds.npz"))
        assert load_from(tmp_path, "moving_mnist", backgrounds="clouds").facts.version == f"{digits}-{backgrounds}"
        assert load_from(tmp_path, "moving_mnist", backgrounds="textures").facts.version == digits

    @pytest.mark.parametrize(
        ("arrays", "message"),
        [
            ({"x": images_of(40, 28, 28)}, "must all have labels"),
            ({"x": images_of(40, 28, 28), "y": np.arange(40) % 4 - 1}, "must all have labels"),
            ({"x": images_of(40, 28, 28, 3), "y": np.arange(40) % 4}, "must be grey images in uint8, not images of 3 channel"),
        ],
    )
    def test_digits_of_another_kind_are_refused(self, tmp_path: Path, arrays: dict[str, Any], message: str) -> None:
        (tmp_path / "mnist").mkdir()
        np.savez(tmp_path / "mnist" / "mnist.npz", **arrays)
        with pytest.raises(DatasetInvalid, match=message):
            load_from(tmp_path, "moving_mnist")

    def test_backgrounds_without_classes_are_no_target(self, tmp_path: Path) -> None:
        np.savez(tmp_path / "clouds.npz", x=images_of(40, 20, 20, 3))
        data = load_from(tmp_path, "moving_mnist", backgrounds="clouds")
        assert data.facts.targets() == {"digit": 10, "position": None}
        assert data.train.targets.keys() == {"digit", "position"}

    @pytest.mark.parametrize(
        ("chosen", "message"),
        [
            ({"digits": "clouds"}, "they are mnist or digits"),
            ({"backgrounds": "moving_mnist"}, "a dataset of RGB images, or 'textures'"),
            ({"backgrounds": "digits"}, "must be RGB images in uint8, not images of 1 channel"),
            ({"image_size": 32}, "made at 64 pixels, not 32"),
        ],
    )
    def test_what_cannot_be_chosen_is_said(self, tmp_path: Path, chosen: dict[str, Any], message: str) -> None:
        with pytest.raises(DatasetInvalid, match=message):
            load_from(tmp_path, "moving_mnist", **chosen)


# What is missing or damaged -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "where", "how"),
    [
        ("mnist", "mnist/MNIST/raw", "python -m ml.datasets.download mnist --root"),
        ("cifar100", "cifar100/cifar-100-binary", "python -m ml.datasets.download cifar100 --root"),
        ("tiny-imagenet-200", "tiny-imagenet-200", "python -m ml.datasets.download tiny-imagenet-200 --root"),
        ("imagenet", "imagenet", "put the folders train and val"),
        ("flowers", "flowers.npz", "put it there"),
        ("ds_1", ".uploads/ds_1", "no upload"),
    ],
)
def test_a_missing_dataset_says_where_to_put_it_and_how_to_get_it(tmp_path: Path, name: str, where: str, how: str) -> None:
    with pytest.raises(DatasetMissing) as missing:
        load_from(tmp_path, name)
    assert str(tmp_path / where) in str(missing.value)
    assert how in str(missing.value)


@pytest.mark.parametrize("name", ["mnist", "cifar10", "stl10"])
def test_a_file_that_is_missing_is_named(tmp_path: Path, name: str) -> None:
    where = {"mnist": "MNIST/raw", "cifar10": "cifar-10-batches-bin", "stl10": "stl10_binary"}[name]
    (tmp_path / name / where).mkdir(parents=True)
    file = {"mnist": "train-images-idx3-ubyte", "cifar10": "data_batch_1.bin", "stl10": "train_X.bin"}[name]
    with pytest.raises(DatasetMissing, match=file):
        load_from(tmp_path, name)


@pytest.mark.parametrize("content", [b"\0\0\x0d\x03", b"\0\0\x08\x03" + (2).to_bytes(4, "big") * 3 + b"1234567"])
def test_a_damaged_idx_file_is_invalid(tmp_path: Path, content: bytes) -> None:
    folder = tmp_path / "mnist" / "MNIST" / "raw"
    folder.mkdir(parents=True)
    (folder / "train-images-idx3-ubyte").write_bytes(content)
    with pytest.raises(DatasetInvalid, match="train-images-idx3-ubyte"):
        load_from(tmp_path, "mnist")


def test_only_known_datasets_can_be_downloaded(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        download(["imagenet", "--root", "anywhere"])
    said = capsys.readouterr().err.replace("'", "")
    assert "mnist, fashion_mnist, cifar10, cifar100, stl10, tiny-imagenet-200" in said
