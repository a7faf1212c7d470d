import pytest
import torch
from torch import Generator, Tensor

from ml import encoders, spec
from ml.encoders.conv_lstm import ConvLSTM


def encoder_of(channels: int = 3, **parameters: object) -> ConvLSTM:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        encoder = encoders.build(spec.ConvLSTM.model_validate({"kind": "conv_lstm", **parameters}), channels)
    assert isinstance(encoder, ConvLSTM)
    return encoder


def clips(B: int = 4, T: int = 3, C: int = 3, size: int = 64) -> Tensor:
    return torch.rand(B, T, C, size, size, generator=Generator().manual_seed(1))


@pytest.mark.parametrize("size", [16, 64, 96])
@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize(("pooling", "features"), [("average", 64), ("flatten", 1024)])
def test_stills_and_clips_have_as_many_features_as_promised(pooling: str, features: int, channels: int, size: int) -> None:
    encoder = encoder_of(channels, pooling=pooling, lstm=32)
    assert encoder.features == features and encoder.clip_features == 32
    assert encoder(clips(C=channels, size=size)[:, 0]).shape == (4, features)
    assert encoder(clips(C=channels, size=size)).shape == (4, 32)


def test_the_layers_are_the_papers() -> None:
    encoder = encoder_of()
    kernels = [layer.weight.shape for layer in encoder.modules() if isinstance(layer, torch.nn.Conv2d)]
    assert kernels == [(8, 3, 3, 3), (16, 8, 3, 3), (32, 16, 3, 3), (64, 32, 3, 3)]
    assert encoder.lstm.hidden_size == 64 and encoder.lstm.num_layers == 1
    assert encoder.layers(clips()[:, 0]).shape == (4, 64, 4, 4)


def test_pooling_is_the_mean_of_the_last_map_or_the_map_itself() -> None:
    average, flat = encoder_of(pooling="average").eval(), encoder_of(pooling="flatten").eval()
    flat.layers.load_state_dict(average.layers.state_dict())
    maps = average.layers(clips()[:, 0])
    torch.testing.assert_close(average(clips()[:, 0]), maps.mean(dim=(2, 3)))
    assert torch.equal(flat(clips()[:, 0]), maps.flatten(1))


def test_the_mean_does_not_see_where_things_are_but_the_map_does() -> None:
    still = torch.zeros(1, 3, 128, 128)
    still[:, :, 32:48, 32:48] = 1  # far from the borders, where the padding shows
    moved = still.roll((32, 16), dims=(2, 3))
    average, flat = encoder_of(pooling="average").eval(), encoder_of(pooling="flatten").eval()
    torch.testing.assert_close(average(still), average(moved), rtol=0, atol=1e-5)
    assert (flat(still) - flat(moved)).abs().max() > 1e-3


def test_a_clip_is_read_frame_by_frame() -> None:
    """The gates of Hochreiter and Schmidhuber 1997 with the forget gate of Gers et al. 2000, in torch's order."""
    encoder = encoder_of(lstm=16).eval()
    state, cell = torch.zeros(4, 16), torch.zeros(4, 16)
    weights = encoder.lstm
    for frame in clips().unbind(1):
        x = encoder(frame)
        gates = x @ weights.weight_ih_l0.T + weights.bias_ih_l0 + state @ weights.weight_hh_l0.T + weights.bias_hh_l0
        enter, forget, new, out = gates.chunk(4, dim=1)
        cell = forget.sigmoid() * cell + enter.sigmoid() * new.tanh()
        state = out.sigmoid() * cell.tanh()
    torch.testing.assert_close(encoder(clips()), state, rtol=1e-4, atol=1e-6)


def test_the_order_of_frames_matters() -> None:
    encoder = encoder_of().eval()
    assert not torch.allclose(encoder(clips()), encoder(clips().flip(1)), atol=1e-4)


def test_frames_of_a_clip_are_normalised_together() -> None:
    """Batch norm in training: the clips' statistics are over all frames, as if they were one batch of stills."""
    encoder, other = encoder_of(), encoder_of()
    encoder(clips())
    other(clips().flatten(0, 1))
    for name, buffer in encoder.layers.named_buffers():
        torch.testing.assert_close(buffer, other.layers.get_buffer(name), rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("pooling", ["average", "flatten"])
def test_every_weight_has_a_gradient_from_clips(pooling: str) -> None:
    encoder = encoder_of(pooling=pooling)
    encoder(clips()).square().sum().backward()
    assert all(parameter.grad is not None and parameter.grad.abs().sum() > 0 for parameter in encoder.parameters())


@pytest.mark.parametrize("pooling", ["average", "flatten"])
def test_bfloat16_and_channels_last_stay_near_float32(pooling: str) -> None:
    encoder = encoder_of(pooling=pooling).eval()
    exact = encoder(clips())
    encoder = encoder.to(memory_format=torch.channels_last)
    with torch.autocast("cpu", torch.bfloat16):
        rounded = encoder(clips())
    assert not torch.equal(rounded.float(), exact)
    torch.testing.assert_close(rounded.float(), exact, rtol=0, atol=0.02)  # states lie in (-1, 1)
