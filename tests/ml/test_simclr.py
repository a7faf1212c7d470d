import math

import pytest
import torch
import torch.nn.functional as F
from torch import Generator, Tensor

from ml import encoders, methods, spec
from ml.encoders import PixelEncoder, Standardise
from ml.methods import Setting
from ml.methods.simclr import info_nce, nt_xent

NOISE = spec.Noise(kind="noise")


def features(B: int, D: int, seed: int, dtype: torch.dtype = torch.float32) -> Tensor:
    return torch.randn(B, D, generator=Generator().manual_seed(seed), dtype=dtype)


def pixel_encoder(channels: int) -> PixelEncoder:
    standardise = Standardise(torch.zeros(channels), torch.ones(channels))
    return PixelEncoder(encoders.build(spec.SmallConv(width=4), channels), standardise)


def slow_nt_xent(z1: Tensor, z2: Tensor, temperature: float) -> Tensor:
    """Equation 1 of Chen et al. 2020, pair by pair."""
    z = [vector / vector.norm() for vector in torch.cat((z1, z2))]
    B = len(z1)
    terms = []
    for i in range(2 * B):
        others = sum((z[i] @ z[k] / temperature).exp() for k in range(2 * B) if k != i)
        terms.append(-torch.log((z[i] @ z[(i + B) % (2 * B)] / temperature).exp() / others))
    return torch.stack(terms).mean()


def test_random_features_at_temperature_one_lose_the_log_of_the_candidates() -> None:
    loss = nt_xent(features(256, 64, seed=0), features(256, 64, seed=1), temperature=1.0)
    assert loss.item() == pytest.approx(math.log(2 * 256 - 1), rel=0.02)


@pytest.mark.parametrize("temperature", [0.1, 1.0])
def test_loss_and_gradient_agree_with_the_equation_term_by_term(temperature: float) -> None:
    z1, z2 = features(6, 5, seed=0).requires_grad_(), features(6, 5, seed=1).requires_grad_()
    slow1, slow2 = z1.detach().double().requires_grad_(), z2.detach().double().requires_grad_()
    loss, slow = nt_xent(z1, z2, temperature), slow_nt_xent(slow1, slow2, temperature)
    loss.backward()
    slow.backward()
    torch.testing.assert_close(loss.double(), slow, rtol=1e-5, atol=1e-5)
    for fast, exact in ((z1, slow1), (z2, slow2)):
        assert fast.grad is not None and exact.grad is not None
        torch.testing.assert_close(fast.grad.double(), exact.grad, rtol=1e-5, atol=1e-5)


def test_a_low_temperature_gives_no_nan() -> None:
    z1 = features(64, 16, seed=0).requires_grad_()
    loss = nt_xent(z1, features(64, 16, seed=1), temperature=0.01)
    loss.backward()
    assert loss.isfinite() and z1.grad is not None and z1.grad.isfinite().all()


def test_the_loss_does_not_depend_on_which_view_is_called_first() -> None:
    z1, z2 = features(8, 4, seed=0), features(8, 4, seed=1)
    torch.testing.assert_close(nt_xent(z1, z2, 0.2), nt_xent(z2, z1, 0.2))


def test_equal_views_apart_from_all_others_are_the_least_loss() -> None:
    z = torch.eye(8)
    assert nt_xent(z, z, temperature=0.05).item() == pytest.approx(math.log(1 + 14 * math.exp(-1 / 0.05)), abs=1e-6)


def test_similarities_are_cosines_of_v1_in_rows_with_v2_in_columns() -> None:
    encoder = pixel_encoder(channels=1)
    method = methods.build(spec.SimCLR(projection=8), Setting([encoder], [16], items=5, recipe=NOISE)).eval()
    v1, v2 = torch.rand(2, 5, 1, 16, 16, generator=Generator().manual_seed(0))
    with torch.no_grad():
        z1, z2 = (method.get_submodule("projections.0")(encoder(view)) for view in (v1, v2))
        expected = F.cosine_similarity(z1[:, None], z2[None, :], dim=2)
        torch.testing.assert_close(method.similarities(v1, v2), expected, rtol=1e-4, atol=1e-5)


def test_between_two_kinds_random_features_lose_the_log_of_the_batch() -> None:
    loss = info_nce(features(256, 64, seed=0), features(256, 64, seed=1), temperature=1.0)
    assert loss.item() == pytest.approx(math.log(256), rel=0.02)


def test_views_of_two_kinds_have_an_encoder_and_a_projection_each() -> None:
    first, second = pixel_encoder(channels=1), pixel_encoder(channels=2)
    method = methods.build(spec.SimCLR(projection=8), Setting([first, second], [16, 16], items=5, recipe=NOISE)).eval()
    v1, v2 = torch.rand(5, 1, 16, 16, generator=Generator().manual_seed(0)), torch.rand(5, 2, 16, 16)
    method.loss((v1, v2), torch.arange(5), Generator()).backward()
    assert all(parameter.grad is not None for parameter in method.parameters())
    with torch.no_grad():
        z1, z2 = method.get_submodule("projections.0")(first(v1)), method.get_submodule("projections.1")(second(v2))
        expected = F.cosine_similarity(z1[:, None], z2[None, :], dim=2)
        torch.testing.assert_close(method.similarities(v1, v2), expected, rtol=1e-4, atol=1e-5)
