"""scikit-learn's digits: 1797 handwritten digits of 8x8 pixels, inside the package."""

from pathlib import Path

import numpy as np
from sklearn.datasets import load_digits

from ml.datasets.raw import Raw, split


def read(root: Path) -> Raw:
    """The digits, their 17 grey levels stretched over [0, 255]; seen at 16x16 unless asked otherwise. `root` is not used."""
    images, labels = load_digits(return_X_y=True)
    pixels = np.rint(images * (255 / 16)).astype(np.uint8).reshape(-1, 1, 8, 8)
    return split(pixels, labels, default_size=16)
