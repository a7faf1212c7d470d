import pickle
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from sklearn.datasets import load_digits

from ml import datasets, spec
from ml.datasets import Data, DatasetInvalid, DatasetMissing, load, to_pixels
from ml.datasets.cifar10 import RECORD
from ml.datasets.download import main as download

CPU = torch.device("cpu")


def images_of(n: int, *shape: int) -> Any:
    return np.random.default_rng(0).integers(0, 256, (n, *shape), dtype=np.uint8)


def load_npz(root: Path, image_size: int | None = None, **arrays: Any) -> Data:
    np.savez(root / "mine.npz", **arrays)
    return load("mine", image_size, root, CPU)


def test_digits_are_scikit_learns_split_40_to_60(tmp_path: Path) -> None:
    data = load("digits", None, tmp_path, CPU)
    assert data.facts == spec.DatasetFacts(name="digits", train=1078, test=719, channels=1, image_size=16, classes=10)
    assert data.train_images.shape == (1078, 1, 16, 16) and data.test_images.shape == (719, 1, 16, 16)
    assert data.train_labels is not None and data.test_labels is not None
    together = torch.cat((data.train_labels, data.test_labels)).bincount()
    assert together.tolist() == np.bincount(load_digits().target).tolist()


def test_digits_at_their_own_size_are_the_originals(tmp_path: Path) -> None:
    data = load("digits", 8, tmp_path, CPU)
    originals = {image.tobytes() for image in np.rint(load_digits().images / 16 * 255).astype(np.uint8)}
    split = [{image.numpy().tobytes() for image in images} for images in (data.train_images, data.test_images)]
    assert split[0] | split[1] == originals
    assert not split[0] & split[1]


def test_the_digest_tells_data_apart_and_does_not_depend_on_the_size(tmp_path: Path) -> None:
    assert load("digits", 8, tmp_path, CPU).digest == load("digits", 16, tmp_path, CPU).digest
    x = images_of(40, 8, 8)
    before = load_npz(tmp_path, x=x).digest
    x[0, 0, 0] ^= 1
    assert load_npz(tmp_path, x=x).digest != before


def test_a_dataset_is_read_once(tmp_path: Path) -> None:
    assert load("digits", 16, tmp_path, CPU) is load("digits", 16, tmp_path, CPU)


def test_mnist_has_the_published_counts_and_mean(datasets_folder: Path) -> None:
    data = load("mnist", None, datasets_folder, CPU)
    assert data.facts == spec.DatasetFacts(name="mnist", train=60_000, test=10_000, channels=1, image_size=28, classes=10)
    assert data.train_labels is not None and data.train_labels[:5].tolist() == [5, 0, 4, 1, 9]
    assert data.mean.item() == pytest.approx(0.1307, abs=5e-5)  # as in torchvision's reference training
    assert data.std.item() == pytest.approx(0.3081, abs=5e-5)


def test_an_npz_in_a_folder_under_the_root_is_found(datasets_folder: Path) -> None:
    data = load("cifar10_lossless_subset", None, datasets_folder, CPU)
    assert (data.facts.train, data.facts.test, data.facts.channels, data.facts.classes) == (4000, 1000, 3, 10)
    assert data.mean.numpy() == pytest.approx([0.4914, 0.4822, 0.4465], abs=0.01)  # the published means of all 50 000
    assert data.train_labels is not None and data.train_labels[:5].tolist() == [6, 9, 9, 4, 1]


def test_cifar10_is_read_from_the_binary_distribution(tmp_path: Path) -> None:
    folder = tmp_path / "cifar10" / "cifar-10-batches-bin"
    folder.mkdir(parents=True)
    records = images_of(60, RECORD)
    records[:, 0] = np.arange(60) % 10
    for batch, name in enumerate(("data_batch_1", "data_batch_2", "data_batch_3", "data_batch_4", "data_batch_5", "test_batch")):
        records[10 * batch : 10 * batch + 10].tofile(folder / f"{name}.bin")
    data = load("cifar10", None, tmp_path, CPU)
    assert (data.facts.train, data.facts.test, data.facts.image_size) == (50, 10, 32)
    assert data.train_labels is not None and data.train_labels.tolist() == [*range(10)] * 5
    assert data.train_images[12, 1, 0, 3] == records[12, 1 + 1024 + 3]  # green plane, first row, fourth column
    assert torch.equal(data.test_images[9].flatten(), torch.from_numpy(records[59, 1:]))
    datasets._load.cache_clear()
    (folder / "test_batch.bin").write_bytes(b"\0" * 100)
    with pytest.raises(DatasetInvalid, match="100 bytes, which is no multiple of the 3073"):
        load("cifar10", None, tmp_path, CPU)


def test_cifar10_may_be_an_npz(tmp_path: Path) -> None:
    (tmp_path / "cifar10").mkdir()
    labels = np.arange(20) % 10
    np.savez(
        tmp_path / "cifar10" / "cifar10.npz",
        train_images=images_of(20, 32, 32, 3),
        train_labels=labels,
        test_images=images_of(20, 32, 32, 3),
        test_labels=labels,
    )
    assert load("cifar10", None, tmp_path, CPU).facts.train == 20


class TestNpz:
    def test_x_alone_is_split_without_labels(self, tmp_path: Path) -> None:
        data = load_npz(tmp_path, x=images_of(50, 9, 9))
        assert (data.facts.train, data.facts.test) == (30, 20) == (50 - spec.held_out(50), spec.held_out(50))
        assert data.facts.classes is None and data.train_labels is None and data.test_labels is None
        assert data.facts.image_size == 9

    @pytest.mark.parametrize("names", [("train", "test"), (0, 1)])
    def test_a_split_of_its_own_is_kept_in_order(self, tmp_path: Path, names: tuple[Any, Any]) -> None:
        x, y = images_of(30, 8, 8, 3), np.arange(30) % 3
        data = load_npz(tmp_path, x=x, y=y, split=np.array([names[i % 3 == 0] for i in range(30)]))
        assert data.test_images.shape == (10, 3, 8, 8)
        assert torch.equal(data.test_images, torch.from_numpy(x[::3].transpose(0, 3, 1, 2).copy()))
        assert data.test_labels is not None and data.test_labels.tolist() == [0] * 10

    def test_medmnist_has_labels_in_a_column(self, tmp_path: Path) -> None:
        labels = (np.arange(12) % 2)[:, None].astype(np.uint8)
        x = images_of(12, 28, 28)
        data = load_npz(tmp_path, train_images=x, train_labels=labels, test_images=x, test_labels=labels, val_images=x)
        assert data.train_labels is not None and data.train_labels.tolist() == [0, 1] * 6

    def test_labels_are_counted_from_zero(self, tmp_path: Path) -> None:
        data = load_npz(tmp_path, x=images_of(40, 8, 8), y=np.array([7, 30] * 20))
        assert data.facts.classes == 2
        assert data.train_labels is not None and data.train_labels.unique().tolist() == [0, 1]

    def test_oblong_images_are_resized_and_cut_to_their_central_square(self, tmp_path: Path) -> None:
        x = np.zeros((40, 20, 60), dtype=np.uint8)
        x[:, :, 20:40] = 200
        data = load_npz(tmp_path, image_size=10, x=x)
        assert data.train_images.shape == (24, 1, 10, 10)
        assert (data.train_images[..., 1:-1] == 200).all()

    def test_mean_and_deviation_are_of_the_training_pixels(self, tmp_path: Path) -> None:
        data = load_npz(tmp_path, x=images_of(40, 8, 8, 3))
        pixels = to_pixels(data.train_images).double()
        torch.testing.assert_close(data.mean.double(), pixels.mean(dim=(0, 2, 3)), rtol=1e-6, atol=1e-6)
        torch.testing.assert_close(data.std.double(), pixels.std(dim=(0, 2, 3), correction=0), rtol=1e-6, atol=1e-6)

    @pytest.mark.parametrize(
        ("arrays", "message"),
        [
            ({"x": np.zeros((40, 8, 8), dtype=np.float32)}, "x is float32; images must be uint8"),
            ({"x": np.zeros((40, 64), dtype=np.uint8)}, r"shape \(40, 64\)"),
            ({"x": np.zeros((40, 8, 8), dtype=np.uint8), "y": np.zeros(39, dtype=int)}, "must be 40 integers"),
            ({"x": np.zeros((40, 8, 8), dtype=np.uint8), "y": np.zeros((40, 14), dtype=int)}, "must be 40 integers"),
            ({"x": np.zeros((40, 8, 8), dtype=np.uint8), "y": np.zeros(40)}, "float64"),
            ({"x": np.zeros((40, 8, 8), dtype=np.uint8), "split": np.full(40, "val")}, "'val'"),
            ({"x": np.zeros((40, 8, 8), dtype=np.uint8), "split": np.zeros(40, dtype=int)}, "40 training and 0 test items"),
            ({"pictures": np.zeros((40, 8, 8), dtype=np.uint8)}, "none of the layouts"),
            ({"x": np.array([{"any": "object"}] * 9)}, "pickle"),
        ],
    )
    def test_what_is_wrong_is_said(self, tmp_path: Path, arrays: dict[str, Any], message: str) -> None:
        with pytest.raises(DatasetInvalid, match=message):
            load_npz(tmp_path, **arrays)

    @pytest.mark.parametrize("content", [b"", b"not a zip", pickle.dumps({"x": 1})])
    def test_other_files_are_refused_and_never_unpickled(self, tmp_path: Path, content: bytes) -> None:
        (tmp_path / "mine.npz").write_bytes(content)
        with pytest.raises(DatasetInvalid, match="cannot be read"):
            load("mine", None, tmp_path, CPU)


@pytest.mark.parametrize(
    ("name", "where", "how"),
    [
        ("mnist", "mnist/MNIST/raw/train-images-idx3-ubyte", "python -m ml.datasets.download mnist --root"),
        ("cifar10", "cifar10/cifar-10-batches-bin/data_batch_1.bin", "python -m ml.datasets.download cifar10 --root"),
        ("flowers", "flowers.npz", "put it there"),
    ],
)
def test_a_missing_dataset_says_where_to_put_it_and_how_to_get_it(tmp_path: Path, name: str, where: str, how: str) -> None:
    with pytest.raises(DatasetMissing) as missing:
        load(name, None, tmp_path, CPU)
    assert str(tmp_path / where) in str(missing.value)
    assert how in str(missing.value)


@pytest.mark.parametrize("content", [b"\0\0\x0d\x03", b"\0\0\x08\x03" + (2).to_bytes(4, "big") * 3 + b"1234567"])
def test_a_damaged_idx_file_is_invalid(tmp_path: Path, content: bytes) -> None:
    folder = tmp_path / "mnist" / "MNIST" / "raw"
    folder.mkdir(parents=True)
    (folder / "train-images-idx3-ubyte").write_bytes(content)
    with pytest.raises(DatasetInvalid, match="train-images-idx3-ubyte"):
        load("mnist", None, tmp_path, CPU)


def test_only_known_datasets_can_be_downloaded(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        download(["imagenet", "--root", "anywhere"])
    assert "'mnist', 'cifar10'" in capsys.readouterr().err.replace("mnist, cifar10", "'mnist', 'cifar10'")
