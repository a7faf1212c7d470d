"""Encoders that others trained give the features here that they gave there; what does not fit is refused by name."""

import io
import os
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import safetensors.torch
import torch
import torchvision
from torch import Tensor, nn

from ml import encoders, spec
from ml.encoders import PixelEncoder, Standardise, Whiten
from ml.weights import CheckpointInvalid, load

Weights = dict[str, Tensor]
PARTS = ("conv1", "bn1", "layer1", "layer2", "layer3", "layer4")
PIXELS = torch.rand(2, 3, 64, 64, generator=torch.Generator().manual_seed(0))
ENCODERS = [
    spec.SmallConv(width=4),
    spec.SmallAlexNet(kind="small_alexnet", width=4),
    spec.ResNet18(kind="resnet18", stem="small"),
    spec.ResNet34(kind="resnet34", stem="imagenet"),
    spec.ResNet50(kind="resnet50", stem="imagenet"),
    spec.ConvLSTM(kind="conv_lstm", width=4, lstm=8),
]


def encoder(kind: str = "resnet18", stem: Any = "imagenet", channels: int = 3, norm: spec.Norm = "batch") -> PixelEncoder:
    chosen = {"resnet18": spec.ResNet18, "resnet34": spec.ResNet34, "resnet50": spec.ResNet50}[kind](kind=kind, stem=stem)
    return pixel_encoder(chosen, channels, norm)


def pixel_encoder(architecture: spec.Encoder, channels: int = 3, norm: spec.Norm = "batch") -> PixelEncoder:
    """Untrained, but with statistics that are not those of the start."""
    standardise = Standardise(torch.rand(channels), 1 + torch.rand(channels))
    return stirred(PixelEncoder(encoders.build(architecture, channels, norm), standardise)).eval()


def stirred(network: Any) -> Any:
    for module in network.modules():
        if isinstance(module, nn.BatchNorm2d):
            nn.init.normal_(module.running_mean, std=0.1)
            nn.init.uniform_(module.running_var, 0.5, 1.5)
            nn.init.uniform_(module.weight, 0.5, 1.5)
    return network


def theirs(kind: str = "resnet18", channels: int = 3) -> Any:
    network = stirred(torchvision.models.get_model(kind))
    if channels != 3:
        network.conv1 = nn.Conv2d(channels, 64, 7, 2, 3, bias=False)
    return network.eval()


def features(network: Any, pixels: Tensor) -> Tensor:
    """Of a torchvision network, without its classes."""
    network.fc = nn.Identity()
    with torch.no_grad():
        return network(pixels.contiguous(memory_format=torch.channels_last))  # as ours sees them, which decides the last digits


def numbered(weights: Weights, parts: tuple[str, ...]) -> Weights:
    """As an `nn.Sequential` of the parts would name them, without what is no part."""
    kept = {name: tensor for name, tensor in weights.items() if name.split(".")[0] in parts}
    return {re.sub("^[^.]+", lambda part: str(parts.index(part[0])), name): tensor for name, tensor in kept.items()}


def before(prefix: str, weights: Weights) -> Weights:
    return {prefix + name: tensor for name, tensor in weights.items()}


def heads(*names: str) -> Weights:
    return {f"{name}.0.weight": torch.rand(4, 512) for name in names}


def lightly_generator(weights: Weights) -> Weights:
    return {name.replace("downsample", "shortcut"): tensor for name, tensor in numbered(weights, PARTS).items()}


def lightly(weights: Weights) -> Weights:
    return numbered(weights, ("conv1", "bn1", "relu", "maxpool", *PARTS[2:]))


def other(weights: Weights) -> Weights:
    """A network beside the one that is meant."""
    return {name: torch.rand_like(tensor.float()) for name, tensor in weights.items()}


NAMINGS: dict[str, Callable[[Weights], Any]] = {
    "torchvision": lambda weights: weights,
    "torchvision without counters": lambda weights: {n: t for n, t in weights.items() if "num_batches" not in n},
    "lightly": lambda weights: {
        "state_dict": before("backbone.", lightly(weights))
        | before("backbone_momentum.", other(lightly(weights)))
        | heads("projection_head.layers", "prediction_head.layers")
    },
    "lightly's backbone alone": lightly,
    "lightly's ResNetGenerator": lambda weights: before("backbone.", lightly_generator(weights)) | heads("projection_head"),
    "solo-learn": lambda weights: {
        "epoch": 3,
        "state_dict": before("momentum_backbone.", other(weights))
        | before("backbone.", weights)
        | heads("projector", "predictor", "momentum_projector")
        | {"classifier.weight": torch.rand(10, 512)},
    },
    "older solo-learn": lambda weights: {"state_dict": before("encoder.", weights) | before("momentum_encoder.", other(weights))},
    "PyContrast": lambda weights: {
        "epoch": 3,
        "model": before("module.encoder.", weights) | heads("module.head", "module.head_jig"),
        "model_ema": before("encoder.", other(weights)),
        "contrast": {"memory": torch.rand(8, 4)},
        "optimizer": {"state": {0: {"momentum_buffer": torch.rand(3)}}, "param_groups": [{"lr": 0.03, "params": [0]}]},
    },
    "MoCo": lambda weights: {
        "arch": "resnet18",
        "state_dict": before("module.encoder_q.", weights)
        | before("module.encoder_k.", other(weights))
        | {"module.queue": torch.rand(4, 8)},
    },
}


@pytest.fixture
def kept(tmp_path: Path) -> Callable[..., Path]:
    """A file of this content."""

    def keep(content: Any, safe: bool = False) -> Path:
        path = tmp_path / "0f"
        if safe:
            safetensors.torch.save_file({name: tensor.contiguous() for name, tensor in content.items()}, path)
        else:
            torch.save(content, path)
        return path

    return keep


@pytest.mark.parametrize("naming", NAMINGS)
def test_a_network_of_each_naming_gives_the_features_that_it_gave_there(naming: str, kept: Any) -> None:
    source, ours = theirs(), encoder()
    own = {name: tensor.clone() for name, tensor in ours.standardise.state_dict().items()}
    load(kept(NAMINGS[naming](source.state_dict())), [ours])
    assert all(torch.equal(tensor, own[name]) for name, tensor in ours.standardise.state_dict().items())
    with torch.no_grad():
        assert torch.equal(ours(PIXELS), features(source, ours.standardise(PIXELS)))


@pytest.mark.parametrize("kind", ["resnet34", "resnet50"])
def test_deeper_networks_come_as_safetensors_too(kind: str, kept: Any) -> None:
    source, ours = theirs(kind), encoder(kind)
    load(kept(lightly_generator(source.state_dict()) if kind == "resnet50" else source.state_dict(), safe=True), [ours])
    with torch.no_grad():
        assert torch.equal(ours(PIXELS), features(source, ours.standardise(PIXELS)))


def test_a_checkpoint_of_two_encoders_fills_those_of_both_views(kept: Any) -> None:
    sources, ours = (theirs(channels=1), theirs(channels=2)), [encoder(channels=1), encoder(channels=2)]
    first, second = (source.state_dict() for source in sources)
    model = before("module.encoder1.", first) | before("module.encoder2.", second) | heads("module.head1", "module.head2")
    load(kept({"model": model}), ours)
    for source, filled, pixels in zip(sources, ours, (PIXELS[:, :1], PIXELS[:, 1:]), strict=True):
        with torch.no_grad():
            assert torch.equal(filled(pixels), features(source, filled.standardise(pixels)))
    with pytest.raises(CheckpointInvalid, match=r"need one encoder, and the checkpoint has two: .* has encoder1.bn1.bias, "):
        load(kept({"model": model}), [encoder()])
    with pytest.raises(CheckpointInvalid, match=r"need two encoders, and the checkpoint has one"):
        load(kept(first), ours)


@pytest.mark.parametrize("norm", ["batch", "layer"])
@pytest.mark.parametrize("architecture", ENCODERS, ids=lambda architecture: architecture.kind)
def test_our_own_encoders_come_back_as_they_were(architecture: Any, norm: spec.Norm, kept: Any) -> None:
    source, ours = pixel_encoder(architecture, norm=norm), pixel_encoder(architecture, norm=norm)
    path = kept(source.state_dict(), safe=True)
    with torch.no_grad():
        assert not torch.equal(ours(PIXELS), source(PIXELS))
        load(path, [ours])
        assert torch.equal(ours(PIXELS), source(PIXELS))


def test_what_comes_in_half_precision_is_read_as_it_is(kept: Any) -> None:
    source, ours = theirs(), encoder()
    load(kept({name: tensor.half() for name, tensor in source.state_dict().items()}), [ours])
    assert torch.equal(ours.encoder.network.conv1.weight, source.conv1.weight.half().float())  # type: ignore[union-attr]


# What is refused


class Harmful:
    """Runs a command when it is unpickled."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> Any:
        return os.system, (f"touch {self.path}",)


def test_nothing_pickled_is_executed(kept: Any, tmp_path: Path) -> None:
    weights = theirs().state_dict()
    for content in (Harmful(tmp_path / "harm"), {"state_dict": weights, "callbacks": [Harmful(tmp_path / "harm")]}):
        with pytest.raises(CheckpointInvalid, match=r"more than tensors and plain values, \S+system, and is not unpickled"):
            load(kept(content), [encoder()])
    assert not (tmp_path / "harm").exists()


def test_what_is_no_checkpoint_says_so(tmp_path: Path, kept: Any) -> None:
    path = tmp_path / "aa"
    with pytest.raises(CheckpointInvalid, match="there is no checkpoint ckp_aa; POST /v1/checkpoints takes one"):
        load(path, [encoder()])
    buffer = io.BytesIO()
    torch.save(theirs().state_dict(), buffer)
    for content in (b"", b"hello, how are you", b"PK\x03\x04 and no more", buffer.getvalue()[:-5000]):
        path.write_bytes(content)
        with pytest.raises(CheckpointInvalid, match=r"can be read neither as safetensors nor by torch.load"):
            load(path, [encoder()])
    for nothing in ({}, {"epoch": 3}, [torch.rand(2)], torch.rand(2), {"w": torch.eye(2).to_sparse(), "v": torch.rand(2) * 1j}):
        with pytest.raises(CheckpointInvalid, match="names no tensors; a state dict is accepted"):
            load(kept(nothing), [encoder()])


def without(name: str) -> Callable[[Weights], Weights]:
    return lambda weights: {other: tensor for other, tensor in weights.items() if other != name}


MISFITS: dict[str, tuple[Callable[[], PixelEncoder], Callable[[Weights], Any], str]] = {
    "another stem": (
        lambda: encoder(stem="small"),
        lambda weights: weights,
        r"conv1.weight has the shape \[64, 3, 7, 7\] in the checkpoint, and \[64, 3, 3, 3\] in the encoder; the stem `imag",
    ),
    "other channels": (
        lambda: encoder(channels=1),
        lambda weights: weights,
        r"\[64, 3, 7, 7\] in the checkpoint, and \[64, 1, 7",
    ),
    "too shallow": (
        lambda: encoder("resnet34"),
        lambda weights: weights,
        r"lacks encoder.network.layer1.2.bn1.bias.* and \d+ more",
    ),
    "too deep": (
        encoder,
        lambda _: theirs("resnet34").state_dict(),
        "has encoder.network.layer1.2.bn1.bias, .* this encoder lacks",
    ),
    "another block": (encoder, lambda _: theirs("resnet50").state_dict(), "has encoder.network.layer1.0.bn3.bias"),
    "a weight too few": (encoder, without("layer4.1.conv2.weight"), "lacks encoder.network.layer4.1.conv2.weight, which"),
    "a statistic too few": (encoder, without("layer3.0.bn1.running_var"), "lacks encoder.network.layer3.0.bn1.running_var"),
    "another norm": (lambda: encoder(norm="layer"), lambda weights: weights, "has encoder.network.bn1.running_mean, .* lacks"),
    "no number": (
        encoder,
        lambda weights: weights | {"bn1.bias": torch.full((64,), torch.nan)},
        "bn1.bias holds what is no finite",
    ),
    "other names": (encoder, lambda weights: before("net.", weights), "no ResNet is recognised in the names net.bn1.bias, net"),
    "no ResNet of ours": (
        lambda: pixel_encoder(spec.SmallConv()),
        lambda weights: weights,
        "SmallConv begins from an encoder.safetensors of Sweetspot, and this checkpoint names bn1.bias",
    ),
    "another of ours": (
        lambda: pixel_encoder(spec.SmallConv(width=4)),
        lambda _: pixel_encoder(spec.SmallConv(width=8)).state_dict(),
        r"encoder.layers.0.0.weight has the shape \[8, 3, 3, 3\] in the checkpoint, and \[4, 3, 3, 3\]",
    ),
    "whitened": (
        encoder,
        lambda _: PixelEncoder(encoder().encoder, Whiten(torch.rand(3), torch.eye(3))).state_dict(),  # type: ignore[arg-type]
        "lacks standardise.std",
    ),
}


@pytest.mark.parametrize("case", MISFITS)
def test_what_does_not_fit_is_named(case: str, kept: Any) -> None:
    ours, content, words = MISFITS[case]
    with pytest.raises(CheckpointInvalid, match=words):
        load(kept(content(theirs().state_dict())), [ours()])
