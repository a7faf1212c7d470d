"""Download MNIST or CIFAR-10 to where they are looked for: `python -m ml.datasets.download NAME --root DIR`."""

import argparse
from collections.abc import Sequence
from pathlib import Path

from torchvision.datasets import MNIST
from torchvision.datasets.utils import download_and_extract_archive

CIFAR10_URL = "https://www.cs.toronto.edu/~kriz/cifar-10-binary.tar.gz"
CIFAR10_MD5 = "c32a1d4ab5d03f1284b67883e8d87530"  # as published beside the archive


def main(arguments: Sequence[str] | None = None) -> None:
    """Fetch one dataset, check it and unpack it under `--root`."""
    parser = argparse.ArgumentParser(prog="python -m ml.datasets.download", description=__doc__)
    parser.add_argument("name", choices=("mnist", "cifar10"))
    parser.add_argument("--root", type=Path, required=True, help="the datasets folder, SWEETSPOT_DATASETS")
    chosen = parser.parse_args(arguments)
    folder = chosen.root / chosen.name
    if chosen.name == "mnist":
        MNIST(folder, download=True)
    else:
        download_and_extract_archive(CIFAR10_URL, folder, md5=CIFAR10_MD5)


if __name__ == "__main__":
    main()
