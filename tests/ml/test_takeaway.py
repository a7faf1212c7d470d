"""The code that is taken away gives what the encoder, or the learned map, gives here, and needs nothing of ours."""

import ast
from pathlib import Path
from typing import Any

import pytest
import safetensors.torch
import torch
from torch import Generator, Tensor, nn

from ml import encoders, spec, takeaway, views
from ml.encoders import PixelEncoder, Standardise, Whiten
from ml.learned_views import Found
from ml.learned_views.flow import Flow

ENCODERS: dict[str, dict[str, Any]] = {
    "small_conv": {"kind": "small_conv", "width": 8},
    "small_alexnet": {"kind": "small_alexnet", "width": 8},
    "resnet18": {"kind": "resnet18"},
    "resnet18 for ImageNet": {"kind": "resnet18", "stem": "imagenet"},
    "resnet34": {"kind": "resnet34", "stem": "imagenet"},
    "resnet50": {"kind": "resnet50"},
    "conv_lstm": {"kind": "conv_lstm", "width": 4, "lstm": 8},
    "conv_lstm that keeps places": {"kind": "conv_lstm", "width": 4, "lstm": 8, "pooling": "flatten"},
}
CPC = {"views": {"kind": "patch_grid", "size": 16, "stride": 8}, "method": {"kind": "cpc"}}


def experiment(encoder: Any, **parts: Any) -> spec.ExperimentSpec:
    asked = {"dataset": {"name": "mine"}, "views": {"kind": "noise"}, "encoder": encoder, "pretrain": {"steps": 5}, "tasks": []}
    known = spec.DatasetFacts(name="mine", train=600, test=400, channels=3, image_size=32, classes=10)
    return spec.resolve(spec.ExperimentSpec.model_validate(asked | parts), lambda *_: known)


def encoder(of: spec.ExperimentSpec, channels: int) -> PixelEncoder:
    """Untrained, but with statistics that are not those of the start."""
    whiten = isinstance(of.views, spec.ColorSplit) and of.views.whiten
    mixed = torch.eye(channels) + torch.rand(channels, 1) @ torch.ones(1, channels)
    before = Whiten(torch.rand(channels), mixed @ mixed.T) if whiten else Standardise(torch.rand(channels), mixed.diagonal())
    network = encoders.build(of.encoder, channels, of.method.norm)
    for module in network.modules():
        if isinstance(module, nn.BatchNorm2d):
            nn.init.normal_(module.running_mean, std=0.1)  # type: ignore[arg-type]
            nn.init.uniform_(module.running_var, 0.5, 1.5)  # type: ignore[arg-type]
    return PixelEncoder(network, before).eval()


def imported(text: str) -> dict[str, Any]:
    """What the file defines where it is imported."""
    statements = [node for node in ast.walk(ast.parse(text)) if isinstance(node, ast.Import | ast.ImportFrom)]
    modules = {getattr(node, "module", None) or node.names[0].name for node in statements}
    anyones = {"torch", "torchvision", "safetensors", "collections", "functools", "math"}
    assert {module.partition(".")[0] for module in modules} <= anyones
    assert max(map(len, text.splitlines())) <= 130 and text.endswith(".shape)\n")
    namespace: dict[str, Any] = {"__name__": "taken_away"}
    exec(compile(text, "taken_away.py", "exec"), namespace)
    return namespace


def compared(of: spec.ExperimentSpec, channels: int, path: Path, *shape: int) -> tuple[Tensor, Tensor]:
    """Features here and there."""
    ours, pixels = encoder(of, channels), torch.rand(*shape)
    safetensors.torch.save_file({name: tensor.contiguous() for name, tensor in ours.state_dict().items()}, path)
    theirs = imported(takeaway.load_encoder(of))["load_encoder"](str(path))
    with torch.no_grad():
        return ours(pixels), theirs(pixels)


@pytest.mark.parametrize("parts", [{}, CPC], ids=["batch norm", "layer norm"])
@pytest.mark.parametrize("name", ENCODERS)
def test_every_encoder_gives_the_same_features_elsewhere(name: str, parts: dict[str, Any], tmp_path: Path) -> None:
    ours, theirs = compared(experiment(ENCODERS[name], **parts), 3, tmp_path / "weights", 4, 3, 32, 32)
    torch.testing.assert_close(theirs, ours, rtol=1e-5, atol=1e-5 * float(ours.abs().max().clamp(min=1)))
    assert ours.std() > 0.01


def test_clips_are_read_too(tmp_path: Path) -> None:
    ours, theirs = compared(experiment(ENCODERS["conv_lstm"]), 3, tmp_path / "weights", 4, 5, 3, 32, 32)
    assert ours.shape == (4, 8)
    torch.testing.assert_close(theirs, ours, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("whiten", [False, True])
def test_one_file_is_for_both_of_two_encoders(whiten: bool, tmp_path: Path) -> None:
    of = experiment(ENCODERS["small_conv"], views={"kind": "color_split", "whiten": whiten})
    for channels in (1, 2):
        torch.testing.assert_close(*compared(of, channels, tmp_path / "weights", 4, channels, 32, 32), rtol=1e-5, atol=1e-5)
    text = takeaway.load_encoder(of)
    assert 'load_encoder(path: str = "encoder_v1.safetensors")' in text
    assert "encoder_v1.safetensors takes channel 0 of lab, as scikit-image converts to it, and" in text


def test_a_file_says_how_its_encoder_was_trained_and_shows_its_use(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    of = experiment(ENCODERS["small_conv"], pretrain={"steps": 5, "precision": "bfloat16"}, views={"kind": "noise", "sigma": 0.7})
    text = takeaway.load_encoder(of)
    words = " ".join(str(ast.get_docstring(ast.parse(text))).split())
    assert "small_conv, trained by simclr for 5 steps of 256 pairs on mine at 32 px, seed 0." in words
    assert 'The views: {"kind": "noise", "sigma": 0.7} It takes pixels' in words
    assert "It takes pixels scaled to [0, 1], as float32. It was trained in bfloat16" in words
    weights = {name: tensor.contiguous() for name, tensor in encoder(of, 3).state_dict().items()}
    safetensors.torch.save_file(weights, tmp_path / "encoder.safetensors")
    monkeypatch.chdir(tmp_path)
    exec(compile(text, "load_encoder.py", "exec"), {"__name__": "__main__"})
    assert capsys.readouterr().out == "torch.Size([8, 32])\n"


def test_an_encoder_that_was_not_trained_here_says_where_it_is_from() -> None:
    weights = f"ckp_{'0f' * 32}"
    words = takeaway.load_encoder(experiment(ENCODERS["resnet18"] | {"weights": weights}, method={"kind": "frozen"}))
    assert f"taken as it was, from {weights}, and measured on" in " ".join(words.split())


def learned(path: Path, **parts: Any) -> tuple[spec.ExperimentSpec, Found]:
    """Views as they might be when they are learned; the map's weights are at `path`."""
    of = experiment(ENCODERS["small_conv"], views={"kind": "learned", **parts})
    assert isinstance(of.views, spec.Learned)
    torch.manual_seed(0)
    flow = Flow(of.views)
    for weights in flow.parameters():
        nn.init.normal_(weights, std=0.5)
    safetensors.torch.save_file(flow.state_dict(), path)
    return of, Found.of(of.views, flow)


@pytest.mark.parametrize("base_space", ["rgb", "ydbdr"])
@pytest.mark.parametrize("flow", ["volume_preserving", "non_volume_preserving"])
def test_a_learned_map_its_inverse_and_its_views_are_the_same_elsewhere(flow: str, base_space: str, tmp_path: Path) -> None:
    of, found = learned(tmp_path / "weights", flow=flow, base_space=base_space, blocks=3, hidden=8)
    theirs = imported(takeaway.view_generator(of))["load_view_generator"](str(tmp_path / "weights"))
    images, others = torch.rand(2, 4, 3, 6, 5, generator=Generator().manual_seed(1))
    channels = found.channels(images)
    assert (channels - found.channels.based(images)).abs().mean() > 0.1
    torch.testing.assert_close(theirs(images), channels, rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(theirs.inverse(channels), images, rtol=0, atol=1e-5)
    v1, _ = views.make(found, images, Generator())
    _, v2 = views.make(found, others, Generator())
    torch.testing.assert_close(theirs.views(images, others), (v1, v2), rtol=1e-5, atol=1e-5)


def test_a_view_generator_says_what_was_learned_and_shows_its_use(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    of, _ = learned(tmp_path / "view_generator.safetensors", mode="supervised", before={"kind": "augment", "jitter": 0.5})
    text = takeaway.view_generator(of)
    words = " ".join(str(ast.get_docstring(ast.parse(text))).split())
    assert "learned on mine at 32 px, seed 0. The views: " in words
    assert '"mode": "supervised"' in words and '"jitter": 0.5' in words
    monkeypatch.chdir(tmp_path)
    exec(compile(text, "view_generator.py", "exec"), {"__name__": "__main__"})
    assert capsys.readouterr().out == "torch.Size([8, 1, 32, 32]) torch.Size([8, 2, 32, 32])\n"


def test_encoders_of_learned_views_take_what_the_view_generator_makes() -> None:
    of = experiment(ENCODERS["small_conv"], views={"kind": "learned"})
    words = " ".join(str(ast.get_docstring(ast.parse(takeaway.load_encoder(of)))).split())
    assert "encoder_v1.safetensors takes channel 0 of what view_generator.py makes of RGB images in [0, 1], and" in words
    assert "encoder_v2.safetensors the other two, as float32." in words
