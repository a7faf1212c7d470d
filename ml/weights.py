"""Weights that somebody trained, here or elsewhere, read into our encoders. Nothing pickled is executed."""

import pickle
import re
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file
from torch import Tensor

from ml.encoders import PixelEncoder
from ml.encoders.resnet import ResNet

Weights = dict[str, Tensor]


class CheckpointInvalid(ValueError):
    """A checkpoint that the encoder cannot begin from; says what was found in it and what would be accepted."""


def load(path: Path, encoders: Sequence[PixelEncoder]) -> None:
    """Fill the encoder, or those of v1 and v2, from a file: all weights and statistics of the norms must be there, and no others.

    Sweetspot's own files bring their standardisation with them. ResNets may be named as by torchvision, lightly, solo-learn,
    PyContrast or MoCo; what stands around the encoder there is left out. Raises CheckpointInvalid.
    """
    found = _read(path)
    pair = [_within(found, f"encoder{which}.") for which in (1, 2)]
    if all(pair) != (len(encoders) == 2):
        need, has = ("one encoder", "two") if all(pair) else ("two encoders", "one")
        raise CheckpointInvalid(
            f"these views need {need}, and the checkpoint has {has}: names of v1's begin with encoder1. and of v2's with "
            f"encoder2. in one file, as in PyContrast's CMC, and this one has {_some(found)}"
        )
    for encoder, weights in zip(encoders, pair if len(encoders) == 2 else [found], strict=True):
        _fill(encoder, weights)


def _read(path: Path) -> Weights:
    """The tensors of a file by their names, without what parallel training puts before them."""
    try:
        with path.open("rb") as file:
            zipped = file.read(2) == b"PK"
        # The unpickler of weights_only knows tensors and plain containers, and refuses whatever else a pickle calls for.
        content: Any = torch.load(path, map_location="cpu", weights_only=True) if zipped else load_file(path)
    except FileNotFoundError:
        raise CheckpointInvalid(f"there is no checkpoint ckp_{path.name}; POST /v1/checkpoints takes one") from None
    except pickle.UnpicklingError as error:
        called = re.search(r"GLOBAL (\S+)", str(error))
        raise CheckpointInvalid(
            f"the checkpoint holds more than tensors and plain values{f', {called[1]}' if called else ''}, and is not unpickled; "
            "save its state dict alone, where you trust it, with torch.save(state_dict, file)"
        ) from None
    except MemoryError:
        raise
    except Exception as error:  # of a broken file the readers may raise anything
        raise CheckpointInvalid(f"the checkpoint can be read neither as safetensors nor by torch.load: {error}") from None
    content = next((content[name] for name in ("state_dict", "model") if _is_mapping(content, name)), content)
    tensors = {str(name): value for name, value in content.items() if _is_plain(value)} if _is_mapping(content) else {}
    if not tensors:
        raise CheckpointInvalid("the checkpoint names no tensors; a state dict is accepted, also as `state_dict` or as `model`")
    # Of DistributedDataParallel, in the files of MoCo and PyContrast.
    return {name.removeprefix("module."): tensor for name, tensor in tensors.items()}


def _is_mapping(content: Any, name: str | None = None) -> bool:
    return isinstance(content, Mapping) and (name is None or isinstance(content.get(name), Mapping))


def _is_plain(value: Any) -> bool:
    if not isinstance(value, Tensor) or value.is_nested or value.device.type != "cpu":
        return False
    return value.layout == torch.strided and not value.is_quantized and not value.is_complex()


def _fill(encoder: PixelEncoder, found: Weights) -> None:
    named = found
    if "standardise.mean" not in found:
        named = _of_others(encoder, found)
    wanted = encoder.state_dict()
    counters = {name: tensor for name, tensor in wanted.items() if name.endswith("num_batches_tracked")}  # decide nothing
    given = counters | named
    if missing := wanted.keys() - given.keys():
        raise CheckpointInvalid(f"the checkpoint lacks {_some(missing)}, which the encoder has; it names {_some(found)}")
    if foreign := {name for name in given.keys() - wanted.keys() if not name.endswith("num_batches_tracked")}:
        raise CheckpointInvalid(f"the checkpoint has {_some(foreign)}, which this encoder lacks; another `encoder` may fit it")
    for name, tensor in wanted.items():
        if given[name].shape != tensor.shape:
            stem = "; the stem `imagenet` is 7x7 and `small` 3x3" if name.endswith("network.conv1.weight") else ""
            raise CheckpointInvalid(
                f"{name} has the shape {list(given[name].shape)} in the checkpoint, and {list(tensor.shape)} in the encoder{stem}"
            )
        if not given[name].float().isfinite().all():
            raise CheckpointInvalid(f"{name} holds what is no finite number")
        if name.endswith((".running_var", "standardise.std")) and not (given[name] >= 0).all():
            raise CheckpointInvalid(f"{name} holds negative numbers, and is a variance or a deviation")
    encoder.load_state_dict({name: given[name] for name in wanted})


# How others name the parts of a ResNet ----------------------------------------------------------------------------------


def _of_others(encoder: PixelEncoder, found: Weights) -> Weights:
    if not isinstance(encoder.encoder, ResNet):
        raise CheckpointInvalid(
            f"{type(encoder.encoder).__name__} begins from an encoder.safetensors of Sweetspot, and this checkpoint names "
            f"{_some(found)}; ResNets may be others' too"
        )
    for prefix in _PREFIXES:
        within = _within(found, prefix)
        for stem, rename in _NAMINGS.items():
            if stem in within:
                renamed = {rename(name): tensor for name, tensor in within.items()}
                network = {name: tensor for name, tensor in renamed.items() if name and name.split(".")[0] in _PARTS}
                own = {f"standardise.{name}": tensor for name, tensor in encoder.standardise.state_dict().items()}
                return own | {f"encoder.network.{name}": tensor for name, tensor in network.items()}
    raise CheckpointInvalid(
        f"no ResNet is recognised in the names {_some(found)}; accepted are those of torchvision (conv1.weight, "
        "layer1.0.conv1.weight ...), also behind backbone., encoder. or encoder_q., lightly's (backbone.0.weight ...), and those "
        "of an encoder.safetensors of Sweetspot"
    )


def _torchvision(name: str) -> str | None:
    return name


def _lightly(name: str) -> str | None:
    """From lightly's own ResNet (lightly/models/resnet.py) in an `nn.Sequential` without its last layer."""
    return _numbered(name.replace(".shortcut.", ".downsample."), ("conv1", "bn1", "layer1", "layer2", "layer3", "layer4"))


def _sequential(name: str) -> str | None:
    """From `nn.Sequential(*list(torchvision.models.resnet18().children())[:-1])`, as lightly's examples build it."""
    return _numbered(name, ("conv1", "bn1", "relu", "maxpool", "layer1", "layer2", "layer3", "layer4"))


def _numbered(name: str, parts: Sequence[str]) -> str | None:
    number, _, rest = name.partition(".")
    return f"{parts[int(number)]}.{rest}" if number.isdecimal() and int(number) < len(parts) else None


_PARTS = ("conv1", "bn1", "layer1", "layer2", "layer3", "layer4")
# Before an encoder's names: MoCo's queries (facebookresearch/moco, moco/builder.py); solo-learn (solo/methods/base.py) and
# lightly's examples; PyContrast (networks/build_backbone.py) and older solo-learn; nothing in torchvision's files. Momentum
# encoders, heads and classifiers have other prefixes, or are no parts of a ResNet.
_PREFIXES = ("encoder_q.", "backbone.", "encoder.", "")
# By a tensor that only such names have, in the order in which they are looked for.
_NAMINGS: dict[str, Callable[[str], str | None]] = {
    "conv1.weight": _torchvision,
    "7.0.conv1.weight": _sequential,
    "5.0.conv1.weight": _lightly,
}


def _within(found: Weights, prefix: str) -> Weights:
    return {name.removeprefix(prefix): tensor for name, tensor in found.items() if name.startswith(prefix)}


def _some(names: Any) -> str:
    few = sorted(names)[:3]
    more = len(names) - len(few)
    return ", ".join(name[:80] for name in few) + (f" and {more} more" if more else "")
