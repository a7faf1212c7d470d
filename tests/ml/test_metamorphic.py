"""Views of which the information is known: what the recipes make, read by the optimal critic, is what the formula says."""

import math
from itertools import pairwise

import numpy as np
import pytest
import torch
from sklearn.datasets import load_sample_images
from torch import Generator, Tensor

from ml import experiment, spec, views
from ml.datasets import Library, load
from ml.datasets.clips import Clips
from ml.datasets.split import Pixels
from ml.events import Result
from ml.mi import Estimate
from ml.mi.infonce import info_nce


def read(v1: Tensor, v2: Tensor, rho: float, k: int) -> Estimate:
    """I_NCE of views [N, d] with the critic log p(v2 | v1) / p(v2) of unit Gaussians correlated by rho in each dimension."""
    items = torch.arange(len(v1)).split(k)
    variance = 1 - rho**2
    scores = []
    for batch in items:
        x, y = v1[batch].double(), v2[batch].double()
        squares = (y[None, :] - rho * x[:, None]).square().sum(dim=2)
        scores.append(-x.shape[1] / 2 * math.log(variance) - squares / (2 * variance) + y.square().sum(dim=1) / 2)
    return info_nce(scores, items)


def drifting_clips(items: int, frames: int, length: float) -> Clips:
    """One pixel that follows an Ornstein-Uhlenbeck process with unit variance, correlated by exp(-t / length) over t frames."""
    generator = Generator().manual_seed(0)
    kept = math.exp(-1 / length)
    fresh = torch.randn(frames, items, generator=generator) * math.sqrt(1 - kept**2)
    values = [torch.randn(items, generator=generator)]
    for chance in fresh[1:]:
        values.append(kept * values[-1] + chance)
    pixels = Pixels(torch.stack(values, dim=1)[:, :, None, None, None], (0.0, 1.0), torch.device("cpu"))
    return Clips(pixels, torch.arange(items))


def test_farther_frames_of_a_drift_share_strictly_less_and_as_much_as_is_known() -> None:
    """I = -1/2 log(1 - exp(-2 g / l)) at g / l = 0.1, 0.25, 0.5, 1 and 2; the readings within 0.03."""
    length, readings = 20, []
    clips = drifting_clips(items=512 * 24, frames=48, length=length)
    for gap, known in ((2, 0.854), (5, 0.466), (10, 0.229), (20, 0.0727), (40, 0.0092)):
        rho = math.exp(-gap / length)
        assert -0.5 * math.log(1 - rho**2) == pytest.approx(known, abs=5e-4)
        v1, v2 = views.make(spec.Temporal(kind="temporal", gap=gap), clips, Generator().manual_seed(1))
        estimate = read(v1.flatten(1), v2.flatten(1), rho, k=512)
        assert estimate.value == pytest.approx(known, abs=0.03)
        readings.append(estimate.value)
    assert all(nearer > farther for nearer, farther in pairwise(readings))


def test_noisier_views_share_strictly_less_and_as_much_as_is_known() -> None:
    """I = -d/2 log(1 - rho^2) with rho = 1 / (1 + s^2), d = 10; the readings within 6 % or 0.02 + 3 se from s = 1 on.

    At s = 0.5 log K is too near, and the reading is a lower bound and no more.
    """
    images = torch.randn(512 * 24, 10, 1, 1, generator=Generator().manual_seed(0))
    readings = []
    for sigma, known in ((0.5, 5.108), (1.0, 1.438), (2.0, 0.204)):
        rho = 1 / (1 + sigma**2)
        assert -5 * math.log(1 - rho**2) == pytest.approx(known, abs=5e-4)
        v1, v2 = views.make(spec.Noise(kind="noise", sigma=sigma), images, Generator().manual_seed(1))
        unit = math.sqrt(1 + sigma**2)
        estimate = read(v1.flatten(1) / unit, v2.flatten(1) / unit, rho, k=512)
        assert estimate.value <= known + 3 * estimate.stderr
        if sigma >= 1:
            assert estimate.value == pytest.approx(known, abs=max(0.06 * known, 0.02 + 3 * estimate.stderr))
        readings.append(estimate.value)
    assert all(quieter > noisier for quieter, noisier in pairwise(readings))


SAME_PLANE = ("yuv", "ycbcr", "ydbdr", "ypbpr", "yiq")


@pytest.fixture(scope="module")
def scenery(tmp_path_factory: pytest.TempPathFactory) -> Library:
    """Pieces of scikit-learn's two photographs, 16x16."""
    folder = tmp_path_factory.mktemp("scenery")
    corners = [(top, left) for top in range(0, 395, 16) for left in range(0, 608, 16)]
    photographs = load_sample_images().images
    x = np.stack([photograph[top : top + 32 : 2, left : left + 32 : 2] for photograph in photographs for top, left in corners])
    np.savez(folder / "scenery.npz", x=x)
    return Library(folder, folder, folder)


def trained_i_nce(library: Library, space: str, seed: int) -> float:
    """Of luma against chroma, each whitened, as a small encoder reads it after a short training."""
    asked = spec.ExperimentSpec.model_validate(
        {
            "dataset": {"name": "scenery"},
            "views": {"kind": "color_split", "space": space, "whiten": True},
            "encoder": {"kind": "small_conv", "width": 8},
            "pretrain": {"steps": 40, "batch_size": 256},
            "mi": {"k": 256},
            "seed": seed,
        }
    )
    device = torch.device("cpu")
    resolved = spec.resolve(asked, lambda dataset, _: load(dataset, library, device).facts)
    (results,) = (event.results for event in experiment.run(resolved, library, device) if isinstance(event, Result))
    return float(results["mi"]["infonce"]["value"])


def test_spaces_of_one_luma_axis_and_one_chroma_plane_tie_after_training(scenery: Library) -> None:
    nats = torch.tensor([[trained_i_nce(scenery, space, seed) for seed in range(3)] for space in SAME_PLANE])
    deviation = nats.var(dim=1).mean().sqrt()  # over seeds
    means = nats.mean(dim=1)
    assert ((means - means.mean()).abs() <= 2 * deviation).all()
    xyz = torch.tensor([trained_i_nce(scenery, "xyz", seed) for seed in range(2)]).mean()
    assert xyz > means.max() + 2 * deviation  # its channels overlap far more
