import io
import json
import math
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import pytest
import safetensors.torch
import torch
from PIL import Image
from torch import Generator, Tensor

from ml import encoders, information, live, quality, spec, views
from ml import experiment as ml_experiment
from ml.datasets import Library, load
from ml.encoders import PixelEncoder, Standardise
from ml.events import Artifact, Checkpoint, Event, Metric, Progress, Result, Stage
from ml.experiment import run
from ml.optimiser import Diverged, learning_rate
from ml.views import Views
from ml.weights import CheckpointInvalid

CPU = torch.device("cpu")
LIBRARY = Library(*(Path("no-datasets"),) * 3)  # digits need none
DIGITS = spec.Dataset(name="digits")


class Shuffled(spec.Noise):
    """Noisy views whose partners are another item's."""


class Watched(spec.Noise):
    """The images themselves, which the test looks at."""

    seen: ClassVar[list[Tensor]] = []


class Undefined(spec.Noise):
    """Not a number."""


@views.implements(Shuffled)
def shuffled(recipe: Shuffled, images: Tensor, generator: Generator) -> Views:
    v1, v2 = views.make(spec.Noise(kind="noise", sigma=0.3), images, generator)
    return v1, v2[torch.randperm(len(v2), generator=generator)]


@views.implements(Watched)
def watched(recipe: Watched, images: Tensor, generator: Generator) -> Views:
    recipe.seen.append(images)
    return images, images


@views.implements(Undefined)
def undefined(recipe: Undefined, images: Tensor, generator: Generator) -> Views:
    return images * math.nan, images


def experiment(steps: int = 7, width: int = 8, recipe: Any = None, **parts: Any) -> spec.ExperimentSpec:
    asked = {
        "dataset": {"name": "digits"},
        "views": {"kind": "noise", "sigma": 0.5},
        "encoder": {"kind": "small_conv", "width": width},
        "pretrain": {"steps": steps},
        "mi": {"k": 128},
        "tasks": [{"kind": "classification", "labels": 50}, {"kind": "knn"}],
    }
    document = spec.ExperimentSpec.model_validate(asked | parts)
    resolved = spec.resolve(document, lambda dataset, _: load(dataset, LIBRARY, CPU).facts)
    return resolved if recipe is None else resolved.model_copy(update={"views": recipe})


def events_of(asked: spec.ExperimentSpec, resume: Checkpoint | None = None) -> list[Event]:
    return list(run(asked, LIBRARY, CPU, resume))


def results_of(events: list[Event]) -> dict[str, Any]:
    assert isinstance(events[-1], Result)
    return events[-1].results


def numbers_of(events: list[Event]) -> Any:
    """All that must not depend on when and how often it was run."""
    results = {name: part for name, part in results_of(events).items() if name != "timing"}
    return results, [event for event in events if isinstance(event, Metric)], artifacts_of(events)


def artifacts_of(events: list[Event]) -> dict[str, bytes]:
    return {event.name: event.content for event in events if isinstance(event, Artifact)}


def stored(checkpoint: Checkpoint) -> Checkpoint:
    """Once to disk and back, as bytes."""
    tensors = safetensors.torch.load(safetensors.torch.save(dict(checkpoint.tensors)))
    return Checkpoint(checkpoint.step, tensors, json.loads(json.dumps(dict(checkpoint.scalars))))


@pytest.fixture(scope="module")
def undisturbed() -> list[Event]:
    return events_of(experiment())


def test_the_events_tell_the_story_in_order(undisturbed: list[Event]) -> None:
    stages = [event.name for event in undisturbed if isinstance(event, Stage)]
    assert stages == ["data", "pretrain", "information", "quality", "tasks"]
    artifacts = ["preview.png", "encoder.safetensors", "load_encoder.py", "predictions.npz", "embeddings.npz"]
    assert list(artifacts_of(undisturbed)) == artifacts
    for stage in ("pretrain", "information", "quality", "tasks"):
        progress = [(event.step, event.total) for event in undisturbed if isinstance(event, Progress) and event.stage == stage]
        assert progress == [(step, len(progress)) for step in range(1, len(progress) + 1)]
    assert sum(isinstance(event, Progress) and event.stage == "pretrain" for event in undisturbed) == 7


def test_the_results_are_the_contracts_and_fit_in_json(undisturbed: list[Event]) -> None:
    results = json.loads(json.dumps(results_of(undisturbed), allow_nan=False))
    assert set(results) == {"mi", "information", "tasks", "quality", "timing", "hardware", "data", "views"}
    assert {"value", "stderr", "log_k", "saturated", "kind"} <= set(results["mi"]["infonce"])
    assert set(results["tasks"]) == {"classification", "knn"}
    assert set(results["tasks"]["knn"]) == {"metric", "value", "ci", "chance", "per_class", "supervised", "fitted"}
    assert set(results["timing"]) == {"data", "pretrain", "information", "quality", "tasks", "pairs_per_second"}
    assert set(results["quality"]) == {"lidar", "rankme", "alignment", "uniformity", "alpha_req", "items", "views"}
    assert 1 < results["quality"]["lidar"] <= 64 and 1 < results["quality"]["rankme"] <= 64
    assert results["data"] == {"digest": load(DIGITS, LIBRARY, CPU).digest, "train": 1078, "test": 719, "transfer": {}}
    assert 0 < results["mi"]["infonce"]["value"] <= results["mi"]["infonce"]["log_k"] == math.log(128)


def test_the_same_seed_gives_the_same_numbers_bit_for_bit(undisturbed: list[Event]) -> None:
    assert numbers_of(events_of(experiment())) == numbers_of(undisturbed)
    assert numbers_of(events_of(experiment(seed=1))) != numbers_of(undisturbed)


@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
@pytest.mark.parametrize("stopped_at", [1, 6, 7])
def test_a_resumed_run_ends_as_one_never_disturbed(stopped_at: int, precision: str) -> None:
    asked = experiment(pretrain={"steps": 7, "precision": precision})
    disturbed = run(asked, LIBRARY, CPU)
    checkpoint = next(
        stored(event.snapshot())
        for event in disturbed
        if isinstance(event, Progress) and event.snapshot and event.step == stopped_at
    )
    disturbed.close()
    assert checkpoint.step == stopped_at
    resumed, whole = numbers_of(events_of(asked, checkpoint)), numbers_of(events_of(asked))
    assert resumed[0] == whole[0]
    assert resumed[1] == [metric for metric in whole[1] if metric.step > stopped_at]
    assert resumed[2] == whole[2]


def test_a_checkpoint_of_a_later_stage_does_not_train_again(undisturbed: list[Event]) -> None:
    events = run(experiment(), LIBRARY, CPU)
    checkpoint = next(
        event.snapshot() for event in events if isinstance(event, Progress) and event.snapshot and event.stage == "tasks"
    )
    resumed = events_of(experiment(), checkpoint)
    assert not any(isinstance(event, Progress) and event.stage == "pretrain" for event in resumed)
    assert results_of(resumed)["tasks"] == results_of(undisturbed)["tasks"]


def test_metrics_are_thinned_and_end_with_the_last_step() -> None:
    events = run(experiment(steps=120, width=4, pretrain={"steps": 120, "batch_size": 8}), LIBRARY, CPU)
    metrics = [event for event in events if isinstance(event, Metric)]
    accuracies = [metric for metric in metrics if metric.name in ("probe_accuracy", "knn_accuracy")]
    assert {metric.name for metric in metrics if metric not in accuracies} == {"loss", "learning_rate"}
    assert len(metrics) - len(accuracies) <= 100
    assert [metric.step for metric in accuracies] == [120, 120]  # few steps of few pairs cost too little to be read more often
    assert metrics[-1].step == 120


def test_training_starts_at_the_log_of_the_candidates_and_learns() -> None:
    events = events_of(experiment(steps=60, method={"kind": "simclr", "temperature": 1.0}, seed=3))
    losses = [event.value for event in events if isinstance(event, Metric) and event.name == "loss"]
    assert losses[0] == pytest.approx(math.log(511), rel=0.05)
    assert losses[-1] < losses[0] - 0.2
    for score in results_of(events)["tasks"].values():
        assert score["value"] > 0.5 > 4 * score["chance"]


def test_an_encoder_trained_on_shuffled_pairs_reads_no_information() -> None:
    estimate = results_of(events_of(experiment(steps=60, recipe=Shuffled(kind="noise"))))["mi"]["infonce"]
    assert abs(estimate["value"]) <= 3 * estimate["stderr"]


def test_what_is_trained_on_calibrated_on_and_measured_on_are_different_items() -> None:
    recipe = Watched(kind="noise")
    recipe.seen.clear()
    bounds: dict[str, int] = {}
    for event in run(experiment(recipe=recipe), LIBRARY, CPU):
        if isinstance(event, Stage):
            bounds[event.name] = len(recipe.seen)
        if isinstance(event, Progress) and event.stage == "information":
            bounds.setdefault("calibrated", len(recipe.seen) - 1)
    phases = (slice(bounds["pretrain"], bounds["information"]), slice(bounds["information"], bounds["calibrated"]))
    trained, calibrated, measured = (
        {image.numpy().tobytes() for batch in recipe.seen[phase] for image in batch}
        for phase in (*phases, slice(bounds["calibrated"], bounds["calibrated"] + 8 * 4))  # rounds of batches; then come probes
    )
    assert len(trained) > 1000 and len(calibrated) <= 179 and len(measured) > 500
    assert not trained & calibrated and not trained & measured and not calibrated & measured
    assert all(len(batch.flatten(1).unique(dim=0)) == 128 for batch in recipe.seen[bounds["calibrated"] :][: 8 * 4])


def test_an_epoch_sees_each_item_at_most_once() -> None:
    recipe = Watched(kind="noise")
    recipe.seen.clear()
    for event in run(experiment(recipe=recipe), LIBRARY, CPU):
        if isinstance(event, Stage) and event.name == "information":
            break
    epochs = [torch.cat(recipe.seen[3:7]), torch.cat(recipe.seen[7:10])]  # the first are the preview's and twice two examples
    assert [len(epoch.flatten(1).unique(dim=0)) for epoch in epochs] == [4 * 256, 3 * 256]


def test_a_loss_that_is_no_number_ends_the_training() -> None:
    with pytest.raises(Diverged, match="nan after 1 steps"):
        events_of(experiment(recipe=Undefined(kind="noise")))


def test_the_learning_rate_warms_up_and_decays_to_zero() -> None:
    pretrain = spec.Pretrain(learning_rate=2.0, warmup=0.1)
    rates = [learning_rate(pretrain, step, 100) for step in range(100)]
    assert rates[:10] == pytest.approx([0.2 * step for step in range(1, 11)])
    assert rates[10] == 2.0 and rates[55] == pytest.approx(1.0)
    assert 0 < rates[99] < 0.001
    assert learning_rate(spec.Pretrain(learning_rate=2.0, warmup=1), 4, 5) == 2.0
    assert learning_rate(spec.Pretrain(learning_rate=2.0, warmup=0), 0, 5) == 2.0


def test_the_saved_encoder_is_the_one_that_was_measured(undisturbed: list[Event]) -> None:
    weights = safetensors.torch.load(artifacts_of(undisturbed)["encoder.safetensors"])
    encoder = PixelEncoder(encoders.build(spec.SmallConv(width=8), 1), Standardise(torch.zeros(1), torch.ones(1)))
    encoder.load_state_dict(weights)
    pixels = load(DIGITS, LIBRARY, CPU).train.take(torch.arange(1078)).double()
    torch.testing.assert_close(weights["standardise.mean"], pixels.mean(dim=(0, 2, 3)).float())
    torch.testing.assert_close(weights["standardise.std"], pixels.std(dim=(0, 2, 3), correction=0).float())


def arrays_of(events: list[Event], name: str) -> dict[str, Any]:
    with np.load(io.BytesIO(artifacts_of(events)[name]), allow_pickle=False) as archive:
        return dict(archive)


def embeddings_of(events: list[Event]) -> dict[str, Any]:
    return arrays_of(events, "embeddings.npz")


def test_what_each_held_out_item_scored_averages_to_the_score(undisturbed: list[Event]) -> None:
    found, scores = arrays_of(undisturbed, "predictions.npz"), results_of(undisturbed)["tasks"]
    assert set(found) == {"classification.merits", "classification.items", "knn.merits", "knn.items"}
    for task, score in scores.items():
        assert found[f"{task}.merits"].dtype == np.float32
        assert found[f"{task}.merits"].mean() == pytest.approx(score["value"], abs=1e-6)
        assert found[f"{task}.items"].tolist() == list(range(719))
    tenths = 10 * found["classification.merits"]  # of ten draws of labels
    assert len(np.unique(tenths.round())) > 2 and np.abs(tenths - tenths.round()).max() < 1e-5


def test_tasks_say_what_the_supervised_reference_reaches(undisturbed: list[Event]) -> None:
    results = results_of(undisturbed)
    assert results["tasks"]["knn"]["supervised"] == results["information"]["missing"]["accuracy"]


def test_what_is_taken_away_gives_the_embeddings_of_clean_items(undisturbed: list[Event], tmp_path: Path) -> None:
    data, found, taken = load(DIGITS, LIBRARY, CPU), embeddings_of(undisturbed), artifacts_of(undisturbed)
    assert set(found) == {"train", "train_label", "test", "test_label"}
    (tmp_path / "encoder.safetensors").write_bytes(taken["encoder.safetensors"])
    code: dict[str, Any] = {"__name__": "load_encoder"}
    exec(taken["load_encoder.py"], code)
    encoder = code["load_encoder"](str(tmp_path / "encoder.safetensors"))
    for name, split in (("train", data.train), ("test", data.test)):
        assert found[name].dtype == np.float32 and found[name].shape == (len(split), 32)
        assert np.array_equal(found[f"{name}_label"], split.targets["label"])
        with torch.no_grad():
            np.testing.assert_allclose(found[name], encoder(split.take(torch.arange(len(split)))), rtol=1e-5, atol=1e-5)


@pytest.mark.usefixtures("few_readings")
def test_of_many_or_unread_items_the_held_out_embeddings_are_kept(arrays: Library, monkeypatch: pytest.MonkeyPatch) -> None:
    unread = embeddings_of(list(run(of_kind("augment", arrays).model_copy(update={"tasks": ()}), arrays, CPU)))
    assert set(unread) == {"test", "test_label"}
    without_labels = {"dataset": {"name": "plain"}, "views": {"kind": "crop"}, "pretrain": {"steps": 1}, "mi": {"k": 8}}
    document = spec.ExperimentSpec.model_validate(without_labels)
    asked = spec.resolve(document, lambda dataset, _: load(dataset, arrays, CPU).facts)
    assert {name: len(array) for name, array in embeddings_of(list(run(asked, arrays, CPU))).items()} == {"test": 24}
    monkeypatch.setattr(ml_experiment, "MOST_EMBEDDED", 60 * 64 * 4 - 1)
    assert set(embeddings_of(list(run(of_kind("augment", arrays), arrays, CPU)))) == {"test", "test_label"}


def test_weights_that_were_trained_before_are_measured_as_they_are(undisturbed: list[Event], tmp_path: Path) -> None:
    library, weights = Library(tmp_path, tmp_path, tmp_path), f"ckp_{'0f' * 32}"
    encoder = {"kind": "small_conv", "width": 8, "weights": weights}
    frozen = experiment(encoder=encoder, method={"kind": "frozen"})
    with pytest.raises(CheckpointInvalid, match="there is no checkpoint"):
        list(run(frozen, library, CPU))
    (tmp_path / "checkpoints").mkdir()
    library.checkpoint(weights).write_bytes(artifacts_of(undisturbed)["encoder.safetensors"])
    events = list(run(frozen, library, CPU))
    kept = artifacts_of(undisturbed)
    assert artifacts_of(events)["encoder.safetensors"] == kept["encoder.safetensors"]
    assert artifacts_of(events)["embeddings.npz"] == kept["embeddings.npz"]
    assert results_of(events)["tasks"] == results_of(undisturbed)["tasks"]
    trained_on = artifacts_of(list(run(experiment(encoder=encoder, steps=2), library, CPU)))
    assert trained_on["encoder.safetensors"] not in (kept["encoder.safetensors"], b"")


def test_the_reference_of_untrained_encoders_has_random_weights() -> None:
    data, asked = load(DIGITS, LIBRARY, CPU), {"kind": "small_conv", "width": 8, "weights": f"ckp_{'0f' * 32}"}
    (untrained,) = ml_experiment._untrained(experiment(encoder=asked), data, CPU)
    (alike,) = ml_experiment._untrained(experiment(), data, CPU)
    assert all(map(torch.equal, untrained.state_dict().values(), alike.state_dict().values()))


@pytest.fixture(scope="module")
def arrays(tmp_path_factory: pytest.TempPathFactory) -> Library:
    """Random images of every layout: `colourful` with classes, `plain` without, `walks` of several frames, `sensors` in pairs."""
    folder = tmp_path_factory.mktemp("arrays")
    chances = np.random.default_rng(0)

    def pixels(*shape: int) -> Any:
        return chances.integers(0, 256, (60, *shape), dtype=np.uint8)

    np.savez(folder / "colourful.npz", x=pixels(16, 16, 3), y=np.arange(60) % 2)
    np.savez(folder / "plain.npz", x=pixels(24, 24, 3))
    np.savez(folder / "walks.npz", clips=pixels(6, 16, 16), y=np.arange(60) % 2)
    np.savez(folder / "sensors.npz", v1=pixels(16, 16, 3), v2=pixels(12, 12), y=np.arange(60) % 2)
    return Library(folder, folder, folder)


TRANSFER = [{"kind": "knn", "dataset": {"name": "colourful"}}]
OTHER_KINDS: dict[str, dict[str, Any]] = {
    "augment": {"dataset": {"name": "colourful"}, "views": {"kind": "augment", "recipe": "infomin"}},
    "patches": {"dataset": {"name": "plain"}, "views": {"kind": "patches", "size": 8, "distance": 4}, "tasks": TRANSFER},
    "patch_grid": {"dataset": {"name": "plain"}, "views": {"kind": "patch_grid", "size": 12, "stride": 6}, "tasks": TRANSFER},
    "color_split": {"dataset": {"name": "colourful"}, "views": {"kind": "color_split", "before": {"kind": "augment"}}},
    "frequency": {"dataset": {"name": "colourful"}, "views": {"kind": "frequency"}},
    "learned": {"dataset": {"name": "colourful"}, "views": {"kind": "learned", "batch_size": 8, "before": {"kind": "augment"}}},
    "temporal": {"dataset": {"name": "walks"}, "views": {"kind": "temporal", "gap": 2}},
    "paired": {"dataset": {"name": "sensors"}, "views": {"kind": "paired"}},
    "factors": {
        "dataset": {"name": "moving_mnist", "digits": "digits", "backgrounds": "textures"},
        "views": {"kind": "factors", "frames": 2, "shared": ["position"]},
        "tasks": [{"kind": "localization", "labels": 50}, {"kind": "knn", "target": "background"}],
        "mi": {"k": 512},
    },
}


def of_kind(kind: str, library: Library) -> spec.ExperimentSpec:
    small = {"pretrain": {"steps": 3, "batch_size": 16}, "mi": {"k": 8}}
    document = spec.ExperimentSpec.model_validate(small | OTHER_KINDS[kind])
    return spec.resolve(document, lambda dataset, _: load(dataset, library, CPU).facts)


@pytest.fixture
def few_readings(monkeypatch: pytest.MonkeyPatch) -> None:
    """Of untrained encoders little is to be read."""
    monkeypatch.setattr(information, "PAIRS_MEASURED", 512)
    monkeypatch.setattr(information, "PROBE_ITEMS", 200)
    monkeypatch.setattr(live, "FITTED", 100)
    monkeypatch.setattr(live, "SCORED", 50)
    monkeypatch.setattr(quality, "MOST_ITEMS", 100)
    monkeypatch.setattr(quality, "PAIRS", 200)
    monkeypatch.setattr(quality, "ROUNDS", (2, 2))


@pytest.mark.usefixtures("few_readings")
@pytest.mark.parametrize("kind", OTHER_KINDS)
def test_every_family_trains_is_measured_and_resumes_to_the_same_numbers(kind: str, arrays: Library) -> None:
    asked = of_kind(kind, arrays)
    whole = list(run(asked, arrays, CPU))
    events = run(asked, arrays, CPU)
    checkpoint = next(
        stored(event.snapshot()) for event in events if isinstance(event, Progress) and event.snapshot and event.step == 2
    )
    events.close()
    resumed = list(run(asked, arrays, CPU, checkpoint))
    assert numbers_of(resumed)[0] == numbers_of(whole)[0]
    assert artifacts_of(resumed) == artifacts_of(whole)
    encoders_kept = {"encoder_v1.safetensors", "encoder_v2.safetensors"} if asked.views.two_kinds else {"encoder.safetensors"}
    found = {"learned_channels.png", "learned_colours.png", "view_generator.safetensors", "view_generator.py"}
    everywhere = {"preview.png", "load_encoder.py", "predictions.npz", "embeddings.npz"}
    assert set(artifacts_of(whole)) == everywhere | encoders_kept | (found if kind == "learned" else set())
    assert set(results_of(whole)["tasks"]) == {task.name for task in asked.tasks} != set()
    assert all(math.isfinite(number) for number in results_of(whole)["quality"].values())


@pytest.mark.usefixtures("few_readings")
def test_what_was_learned_of_views_is_told(arrays: Library) -> None:
    events = list(run(of_kind("learned", arrays), arrays, CPU))
    assert [event.name for event in events if isinstance(event, Stage)][:3] == ["data", "views", "pretrain"]
    told = results_of(events)["views"]
    assert told["steps"] == 3 and told["inverse_error"] < 1e-4
    assert told["log_abs_det"] == {"mean": 0, "min": 0, "max": 0}  # of additive couplings
    readings = [event.value for event in events if isinstance(event, Metric) and event.name == "views_i_nce"]
    assert told["i_nce"] == readings[-1] <= math.log(8)
    assert results_of(list(run(of_kind("color_split", arrays), arrays, CPU)))["views"] is None


@pytest.mark.usefixtures("few_readings")
def test_a_transferred_task_is_learned_and_scored_on_its_own_dataset(arrays: Library) -> None:
    results = results_of(list(run(of_kind("patches", arrays), arrays, CPU)))
    assert results["data"]["transfer"] == {"colourful": load(spec.Dataset(name="colourful"), arrays, CPU).digest}
    assert results["tasks"]["knn"]["chance"] == pytest.approx(0.5, abs=0.2)
    assert results["tasks"]["knn"]["supervised"] is None  # the reference learned none of its classes
    assert len(results["tasks"]["knn"]["per_class"]) == 2


@pytest.mark.usefixtures("few_readings")
def test_places_are_scored_in_pixels(arrays: Library) -> None:
    score = results_of(list(run(of_kind("factors", arrays), arrays, CPU)))["tasks"]["localization"]
    assert score["metric"] == "pixels"
    assert score["ci"][0] < score["value"] < score["ci"][1]
    assert score["supervised"] is None
    assert score["chance"] == pytest.approx(13.8, abs=1)  # mean distance of a uniform place from the middle of 36x36 pixels


def test_photographs_are_decoded_once_and_say_how_far_that_is(tmp_path: Path) -> None:
    (tmp_path / "holiday").mkdir()
    for number in range(20):
        Image.new("RGB", (40 + number, 30), (10 * number, 100, 200)).save(tmp_path / "holiday" / f"{number}.jpg")
    library = Library(tmp_path, tmp_path, tmp_path / "prepared")
    document = spec.ExperimentSpec.model_validate(
        {
            "dataset": {"name": "holiday", "image_size": 16},
            "views": {"kind": "crop"},
            "pretrain": {"steps": 1, "batch_size": 8},
            "mi": {"k": 2},
        }
    )
    asked = document.model_copy(update={"tasks": ()})
    first, again = (list(run(asked, library, CPU)) for _ in range(2))
    told = [event for event in first if isinstance(event, Progress) and event.stage == "data"]
    assert [(event.step, event.total) for event in told][-1] == (20, 20)
    assert all(event.snapshot is None for event in told)  # there is nothing yet that a checkpoint could keep
    assert not any(isinstance(event, Progress) and event.stage == "data" for event in again)
    assert list(tmp_path.glob("prepared/holiday-*/train_0.npy"))


SEEN_AT = {"name": "colourful", "image_size": 24}
METHODS: dict[str, dict[str, Any]] = {
    "moco": {"method": {"kind": "moco"}, "views": {"kind": "augment"}},
    "inst_dis": {"method": {"kind": "inst_dis"}, "views": {"kind": "augment"}},
    "cmc": {"method": {"kind": "cmc"}, "views": {"kind": "color_split"}},
    "pirl": {"method": {"kind": "pirl"}, "views": {"kind": "augment"}},
    "cpc": {"method": {"kind": "cpc"}, "views": {"kind": "patch_grid", "size": 12, "stride": 6}},
    "infomin": {"method": {"kind": "infomin"}, "views": {"kind": "augment", "recipe": "infomin"}},
    "supervised": {"method": {"kind": "supervised"}, "views": {"kind": "augment"}},
    "frozen": {"method": {"kind": "frozen"}, "views": {"kind": "augment"}},
}


@pytest.mark.usefixtures("few_readings")
@pytest.mark.parametrize("name", METHODS)
def test_every_method_is_trained_measured_and_probed(name: str, arrays: Library) -> None:
    small = {"dataset": SEEN_AT, "pretrain": {"steps": 3, "batch_size": 16}, "mi": {"k": 8}, "tasks": [{"kind": "knn"}]}
    document = spec.ExperimentSpec.model_validate(small | METHODS[name])
    asked = spec.resolve(document, lambda dataset, _: load(dataset, arrays, CPU).facts)
    events = list(run(asked, arrays, CPU))
    trained = [event.step for event in events if isinstance(event, Progress) and event.stage == "pretrain"]
    assert trained == ([] if name == "frozen" else [1, 2, 3])
    results = json.loads(json.dumps(results_of(events), allow_nan=False))
    assert results["mi"]["infonce"]["value"] <= math.log(8)
    assert 0 <= results["tasks"]["knn"]["value"] <= 1
    assert results["timing"]["pairs_per_second"] > 0 or name == "frozen"
