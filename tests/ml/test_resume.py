"""Training that was interrupted ends as training that was not: weights, moments, banks, queues and averages."""

from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from ml import experiment, spec
from ml.datasets import Library, load
from ml.events import Checkpoint, Progress

CPU = torch.device("cpu")
AUGMENT = {"kind": "augment"}
SPLIT = {"kind": "color_split", "space": "ydbdr"}
METHODS: dict[str, tuple[dict[str, Any], dict[str, Any]]] = {
    "moco": ({"kind": "moco", "queue": 20, "momentum": 0.9}, AUGMENT),
    "moco of two kinds": ({"kind": "moco", "queue": 20}, SPLIT),
    "infomin": ({"kind": "infomin", "queue": 20}, AUGMENT),
    "inst_dis": ({"kind": "inst_dis", "negatives": 7}, AUGMENT),
    "inst_dis of two kinds": ({"kind": "inst_dis", "negatives": 7}, SPLIT),
    "cmc": ({"kind": "cmc", "negatives": 7}, SPLIT),
    "pirl": ({"kind": "pirl", "negatives": 7}, AUGMENT),
    "cpc": ({"kind": "cpc"}, {"kind": "patch_grid", "size": 12, "stride": 6}),
    "supervised": ({"kind": "supervised"}, AUGMENT),
}
LEARNED: dict[str, dict[str, Any]] = {
    "unsupervised": {"mode": "unsupervised", "gradient_penalty": 0.1},
    "semi_supervised": {"mode": "semi_supervised", "spectral_norm": True, "flow": "non_volume_preserving", "critic_steps": 2},
    "supervised": {"mode": "supervised", "before": AUGMENT},
}
PRETRAIN: dict[str, dict[str, Any]] = {
    "sgd": {"optimiser": "sgd"},
    "lars": {"optimiser": "lars"},
    "average": {"ema": 0.9},
    "clipped": {"gradient_clip": 0.1},
}
STEPS, STOPPED_AT = 7, 4  # in the second epoch


@pytest.fixture(scope="module")
def library(tmp_path_factory: pytest.TempPathFactory) -> Library:
    """Forty random photographs of two classes."""
    folder = tmp_path_factory.mktemp("arrays")
    pixels = np.random.default_rng(0).integers(0, 256, (40, 24, 24, 3), dtype=np.uint8)
    np.savez(folder / "made.npz", x=pixels, y=np.arange(40) % 2)
    return Library(folder, folder, folder)


def trained(
    asked: spec.ExperimentSpec, library: Library, resume: Checkpoint | None = None, until: int = STEPS, stage: str = "pretrain"
) -> Checkpoint:
    """What a checkpoint holds after so many steps of a stage."""
    for event in experiment.pretrain(asked, library, CPU, resume):
        if isinstance(event, Progress) and event.stage == stage and event.step == until:
            assert event.snapshot is not None
            return event.snapshot()
    raise AssertionError("it ended early")


def resolved(library: Library, **parts: Any) -> spec.ExperimentSpec:
    asked = {"dataset": {"name": "made"}, "encoder": {"kind": "small_conv", "width": 4}, "views": AUGMENT, "mi": {"k": 8}}
    pretrain = {"steps": STEPS, "batch_size": 8} | parts.pop("pretrain", {})
    document = spec.ExperimentSpec.model_validate(asked | {"pretrain": pretrain} | parts)
    return spec.resolve(document, lambda dataset, _: load(dataset, library, CPU).facts)


def same(ours: Checkpoint, theirs: Checkpoint) -> None:
    assert ours.tensors.keys() == theirs.tensors.keys()
    for name, value in ours.tensors.items():
        other: Tensor = theirs.tensors[name]
        assert torch.equal(value.nan_to_num(), other.nan_to_num()), name


@pytest.mark.parametrize("name", METHODS)
def test_every_method_goes_on_from_a_checkpoint_as_if_never_disturbed(name: str, library: Library) -> None:
    method, views = METHODS[name]
    asked = resolved(library, method=method, views=views)
    same(trained(asked, library, resume=trained(asked, library, until=STOPPED_AT)), trained(asked, library))


@pytest.mark.parametrize("name", LEARNED)
def test_so_does_the_learning_of_views_and_what_comes_after_it(name: str, library: Library) -> None:
    views = {"kind": "learned", "batch_size": 8, "steps": 5, **LEARNED[name]}
    asked = resolved(library, views=views)
    whole = trained(asked, library)
    assert whole.step == 5 + STEPS
    for stage, until in (("views", 3), ("views", 5), ("pretrain", STOPPED_AT)):
        stopped = trained(asked, library, until=until, stage=stage)
        assert stopped.step == until + (5 if stage == "pretrain" else 0)
        same(trained(asked, library, resume=stopped), whole)
    begun = trained(asked, library, until=1, stage="views").tensors
    found = {name.removeprefix("views."): tensor for name, tensor in whole.tensors.items() if name.startswith("views.")}
    assert any((tensor != begun[f"game.flow.{name}"]).any() for name, tensor in found.items())


@pytest.mark.parametrize("name", PRETRAIN)
def test_so_does_every_optimiser(name: str, library: Library) -> None:
    asked = resolved(library, pretrain=PRETRAIN[name])
    whole = trained(asked, library)
    same(trained(asked, library, resume=trained(asked, library, until=STOPPED_AT)), whole)
    plain = trained(resolved(library), library)
    weights = "method.encoders.0.encoder.layers.0.0.weight"
    assert torch.equal(plain.tensors[weights], whole.tensors[weights]) == (name == "average")  # which is put in at the end


def test_the_average_is_put_in_at_the_end_of_training(library: Library) -> None:
    asked = resolved(library, pretrain={"ema": 0.9})
    last = trained(asked, library)
    events = list(experiment.pretrain(asked, library, CPU))
    assert isinstance(events[-1], Progress) and events[-1].snapshot is not None
    ended = events[-1].snapshot()  # of the method as it stands now
    averages = {name: value for name, value in last.tensors.items() if name.startswith("average.")}
    names = [name for name in last.tensors if name.startswith("method.")]
    averaged = [name for name in names if name.endswith(("weight", "bias"))]
    averaged += [name for name in names if name.endswith(("running_mean", "running_var"))]
    assert len(averages) == len(averaged)
    for name, average in zip(averaged, averages.values(), strict=True):
        torch.testing.assert_close(ended.tensors[name], average)
        assert not torch.equal(last.tensors[name], average)
