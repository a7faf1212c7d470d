"""Download a dataset to where it is looked for: `python -m ml.datasets.download NAME --root DIR`. ImageNet must be asked for."""

import argparse
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path

from torchvision.datasets import MNIST, STL10, FashionMNIST
from torchvision.datasets.utils import download_and_extract_archive

_CIFAR = "https://www.cs.toronto.edu/~kriz/"


def _archive(url: str, md5: str, folder: Path) -> None:
    download_and_extract_archive(url, folder, md5=md5)


_FETCH: dict[str, tuple[str, Callable[[Path], object]]] = {  # with the checksums that are published beside the archives
    "mnist": ("mnist", partial(MNIST, download=True)),
    "fashion_mnist": ("fashion_mnist", partial(FashionMNIST, download=True)),
    "cifar10": ("cifar10", partial(_archive, f"{_CIFAR}cifar-10-binary.tar.gz", "c32a1d4ab5d03f1284b67883e8d87530")),
    "cifar100": ("cifar100", partial(_archive, f"{_CIFAR}cifar-100-binary.tar.gz", "03b5dce01913d631647c71ecec9e9cb8")),
    "stl10": ("stl10", partial(_archive, STL10.url, STL10.tgz_md5)),
    # Published without a checksum; this is the one that everybody's copy has.
    "tiny-imagenet-200": (
        ".",
        partial(_archive, "http://cs231n.stanford.edu/tiny-imagenet-200.zip", "90528d7ca1a48142e341f4ef8d21d0de"),
    ),
}


def main(arguments: Sequence[str] | None = None) -> None:
    """Fetch one dataset, check it and unpack it under `--root`."""
    parser = argparse.ArgumentParser(prog="python -m ml.datasets.download", description=__doc__)
    parser.add_argument("name", choices=tuple(_FETCH))
    parser.add_argument("--root", type=Path, required=True, help="the datasets folder, SWEETSPOT_DATASETS")
    chosen = parser.parse_args(arguments)
    folder, fetch = _FETCH[chosen.name]
    fetch(chosen.root / folder)


if __name__ == "__main__":
    main()
