"""scikit-learn's digits: 1797 handwritten digits of 8x8 pixels, inside the package."""

from pathlib import Path

import numpy as np
import sklearn.datasets
from sklearn.datasets import load_digits

from ml.datasets.raw import Part, Raw, held_out

FOLDER = Path(sklearn.datasets.__file__).parent / "data"


def read(folder: Path) -> Raw:
    """The digits, their 17 grey levels stretched over [0, 255]; seen at 16x16 unless asked otherwise."""
    images, labels = load_digits(return_X_y=True)
    pixels = np.rint(images * (255 / 16)).astype(np.uint8).reshape(-1, 1, 8, 8)
    train, test = (Part((pixels[items],), labels[items]) for items in held_out(len(pixels)))
    return Raw(train, test, default_size=16)
