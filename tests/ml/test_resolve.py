"""What a spec becomes before it is run, and what is refused with which field."""

from typing import Any

import pytest
from pydantic import ValidationError

from ml import spec
from ml.spec import DatasetFacts, ExperimentSpec, SpecError

FACTS = {
    "digits": DatasetFacts(name="digits", train=1078, test=719, channels=1, image_size=16, classes=10),
    "cifar10": DatasetFacts(name="cifar10", train=50_000, test=10_000, channels=3, image_size=32, classes=10),
    "stl10": DatasetFacts(name="stl10", train=105_000, test=8_000, labelled=5_000, channels=3, image_size=96, classes=10),
    "bands": DatasetFacts(name="bands", train=500, test=300, channels=13, image_size=32, classes=4, dtype="uint16"),
    "bsds500": DatasetFacts(
        name="bsds500", layout="photos", train=120, test=80, channels=3, image_size=64, smallest_side=321, version="a"
    ),
    "walks": DatasetFacts(name="walks", layout="clips", train=90, test=60, channels=1, image_size=32, frames=16, classes=5),
    "sensors": DatasetFacts(
        name="sensors", layout="paired", train=90, test=60, channels=3, channels2=1, image_size=24, classes=2
    ),
    "moving_mnist": DatasetFacts(
        name="moving_mnist",
        layout="scenes",
        train=60_000,
        test=10_000,
        channels=3,
        image_size=64,
        frames=20,
        factors={"digit": 10, "background": 10, "position": None},
        digits="mnist",
        backgrounds="textures",
    ),
}


def resolved(name: str, views: Any, **parts: Any) -> ExperimentSpec:
    """Resolving twice, or after storing, changes nothing more."""
    asked = ExperimentSpec.model_validate({"dataset": {"name": name}, "views": views} | parts)
    once = spec.resolve(asked, lambda dataset, _: FACTS[dataset.name])
    stored = ExperimentSpec.model_validate(once.model_dump(mode="json"))
    assert spec.resolve(once, lambda dataset, _: FACTS[dataset.name]) == once
    assert spec.resolve(stored, lambda dataset, _: FACTS[dataset.name]) == once
    return once


@pytest.mark.parametrize(
    ("name", "views", "parts", "pointer", "words"),
    [
        ("digits", {"kind": "color_split"}, {}, "/views/kind", "needs red, green and blue, but digits has 1 channel"),
        (
            "bands",
            {"kind": "color_split"},
            {},
            "/views/kind",
            "noise, crop, augment, frequency, patches and patch_grid work with any number",
        ),
        (
            "digits",
            {"kind": "temporal"},
            {},
            "/views/kind",
            "works on clips .* or scenes .*moving_mnist.*, but digits holds images",
        ),
        ("walks", {"kind": "crop"}, {}, "/views/kind", "works on images or photos, but walks holds clips"),
        ("cifar10", {"kind": "factors"}, {}, "/views/kind", "works on scenes .*, but cifar10 holds images"),
        ("cifar10", {"kind": "paired"}, {}, "/views/kind", "works on paired arrays .*`v1` and `v2`.*, but cifar10 holds images"),
        (
            "bsds500",
            {"kind": "patches", "distance": 300},
            {},
            "/views/distance",
            "need 364 px, but the smallest image .* has 321",
        ),
        ("cifar10", {"kind": "patches", "size": 30, "distance": 3}, {}, "/views/distance", "need 33 px"),
        ("cifar10", {"kind": "patches", "size": 40}, {}, "/views/size", "patches of 40 px, but .* has 32"),
        (
            "cifar10",
            {"kind": "patch_grid", "before": {"kind": "augment", "recipe": "byol"}},
            {},
            "/views/before/v2",
            "one augmented image",
        ),
        ("bsds500", {"kind": "patches"}, {"pretrain": {"batch_size": 9000}}, "/pretrain/batch_size", "at most 8192"),
        ("bsds500", {"kind": "patches"}, {"mi": {"k": 9000}}, "/mi/k", "at most 8192"),
        ("digits", {"kind": "patch_grid", "size": 12, "stride": 5}, {}, "/views/stride", "needs 17 px, but .* have 16"),
        ("walks", {"kind": "temporal", "gap": 16}, {}, "/views/gap", "have 16; at most 15"),
        (
            "moving_mnist",
            {"kind": "factors"},
            {"encoder": {"kind": "small_conv"}},
            "/encoder/kind",
            "conv_lstm takes and small_conv does not",
        ),
        ("bsds500", {"kind": "patches"}, {"tasks": [{"kind": "knn"}]}, "/tasks/0/target", "has no labels"),
        ("cifar10", {"kind": "crop"}, {"tasks": [{"kind": "localization"}]}, "/tasks/0/target", "has no position"),
        (
            "moving_mnist",
            {"kind": "factors"},
            {"tasks": [{"kind": "classification"}]},
            "/tasks/0/target",
            "choose digit or background",
        ),
        ("stl10", {"kind": "crop"}, {"tasks": [{"kind": "knn", "labels": 5001}]}, "/tasks/0/labels", "10 .* to 5000"),
        (
            "bsds500",
            {"kind": "patches"},
            {"tasks": [{"kind": "knn", "dataset": {"name": "digits"}}]},
            "/tasks/0/dataset/name",
            "3 channel.*but digits has 1",
        ),
        (
            "cifar10",
            {"kind": "crop"},
            {"tasks": [{"kind": "knn", "dataset": {"name": "walks"}}]},
            "/tasks/0/dataset/name",
            "needs images, but walks holds clips",
        ),
        ("cifar10", {"kind": "crop"}, {"dataset": {"name": "cifar10", "digits": "mnist"}}, "/dataset/digits", "moving_mnist"),
        (
            "sensors",
            {"kind": "paired"},
            {"dataset": {"name": "sensors", "image_size": 32}},
            "/dataset/image_size",
            "leave it out",
        ),
        ("digits", {"kind": "noise"}, {"pretrain": {"batch_size": 2000}}, "/pretrain/batch_size", "at most 1078"),
        ("digits", {"kind": "noise"}, {"mi": {"k": 541}}, "/mi/k", "2 to 540"),
        (
            "cifar10",
            {"kind": "augment"},
            {"method": {"kind": "cmc"}},
            "/method/kind",
            "two kinds of views, and augment makes one",
        ),
        ("cifar10", {"kind": "augment"}, {"method": {"kind": "cpc"}}, "/method/kind", "rows of a patch_grid, which augment does"),
        ("cifar10", {"kind": "crop"}, {"method": {"kind": "pirl"}}, "/method/kind", "takes augment and cuts the jigsaw itself"),
        ("cifar10", {"kind": "patch_grid"}, {"method": {"kind": "infomin"}}, "/method/kind", "infomin takes augment"),
        ("digits", {"kind": "augment"}, {"method": {"kind": "pirl"}}, "/method/kind", "24 px at least, and digits is seen at 16"),
        (
            "cifar10",
            {"kind": "augment"},
            {"method": {"kind": "moco", "queue": 200}, "pretrain": {"batch_size": 256}},
            "/method/queue",
            "200 past keys, but each step brings 256",
        ),
        (
            "digits",
            {"kind": "noise"},
            {"method": {"kind": "inst_dis", "negatives": 1078}},
            "/method/negatives",
            "1078 strangers, but digits has 1077 other items",
        ),
        ("bsds500", {"kind": "patches"}, {"method": {"kind": "supervised"}}, "/method/target", "has no classes 'label'"),
        ("moving_mnist", {"kind": "factors"}, {"method": {"kind": "frozen"}}, "/method/kind", "a clip and of a still image"),
        ("moving_mnist", {"kind": "factors"}, {"method": {"kind": "supervised"}}, "/method/kind", "a clip and of a still"),
        ("digits", {"kind": "noise"}, {"method": {"kind": "inst_dis", "hidden": 32}}, "/method/hidden", "no hidden layer"),
        (
            "digits",
            {"kind": "noise"},
            {"method": {"kind": "inst_dis", "objective": "softmax", "negatives": 9}},
            "/method/negatives",
            "none are drawn",
        ),
        (
            "digits",
            {"kind": "noise"},
            {"method": {"kind": "frozen"}, "pretrain": {"processes": 2}},
            "/pretrain/processes",
            "trains",
        ),
        (
            "cifar10",
            {"kind": "crop"},
            {"pretrain": {"batch_size": 256, "processes": 3}},
            "/pretrain/processes",
            "3 processes cannot share 256 pairs",
        ),
        (
            "cifar10",
            {"kind": "crop"},
            {"pretrain": {"optimiser": "sgd", "learning_rate": 0.5, "base_learning_rate": 0.1}},
            "/pretrain/learning_rate",
            "0.5 is not base_learning_rate 0.1 times 256 / 256",
        ),
        (
            "cifar10",
            {"kind": "crop"},
            {"tasks": [{"kind": "knn", "labels_share": 1e-5}]},
            "/tasks/0/labels_share",
            "10 .* to 50000",
        ),
        (
            "cifar10",
            {"kind": "crop"},
            {"tasks": [{"kind": "knn", "labels_per_class": 5001}]},
            "/tasks/0/labels_per_class",
            "a budget of 50010 labels",
        ),
    ],
)
def test_what_does_not_fit_is_refused_at_its_field(
    name: str, views: Any, parts: dict[str, Any], pointer: str, words: str
) -> None:
    with pytest.raises(SpecError, match=words) as refusal:
        resolved(name, views, **parts)
    assert refusal.value.pointer == pointer


def test_patches_are_drawn_again_and_again_so_batch_and_candidates_count_pairs() -> None:
    found = resolved("bsds500", {"kind": "patches"}, pretrain={"batch_size": 4096}, mi={"k": 2048}, tasks=[])
    assert (found.pretrain.batch_size, found.mi.k) == (4096, 2048)
    assert resolved("bsds500", {"kind": "patches"}).mi.k == 512


def test_photographs_are_squares_for_other_families() -> None:
    found = resolved("bsds500", {"kind": "crop"}, mi={"k": 32})
    assert found.dataset.image_size == 64
    assert found.tasks == ()  # there are no labels


def test_scenes_are_read_by_conv_lstm_for_all_their_factors_unless_asked_otherwise() -> None:
    found = resolved("moving_mnist", {"kind": "factors", "shared": ["position", "digit"]})
    assert found.encoder.kind == "conv_lstm"
    assert [(task.name, task.kind, task.target) for task in found.tasks] == [
        ("digit", "classification", "digit"),
        ("background", "classification", "background"),
        ("position", "localization", "position"),
    ]
    assert (found.dataset.digits, found.dataset.backgrounds) == ("mnist", "textures")


def test_a_task_may_be_on_another_dataset_which_is_resolved_too() -> None:
    task = {"kind": "classification", "labels": 1000, "dataset": {"name": "cifar10"}}
    (found,) = resolved("bsds500", {"kind": "patches"}, tasks=[task]).tasks
    assert found.dataset is not None and found.dataset.image_size == 32


def test_defaults_that_depend_on_the_axis_are_chosen_at_each_of_its_values() -> None:
    sweep = spec.SweepSpec.model_validate(
        {
            "base": {"dataset": {"name": "moving_mnist"}, "views": {"kind": "factors"}},
            "axis": {"path": "views.shared", "values": [["digit"], ["position"]]},
            "seeds": 1,
        }
    )
    trained = [spec.resolve(training, lambda dataset, _: FACTS[dataset.name]) for _, training in spec.expand(sweep)]
    assert [training.encoder.kind for training in trained] == ["conv_lstm", "conv_lstm"]
    assert all(len(training.tasks) == 3 for training in trained)


@pytest.mark.parametrize("shared", [[], ["digit", "digit"], ["colour"]])
def test_shared_factors_are_known_and_named_once(shared: list[str]) -> None:
    with pytest.raises(ValidationError):
        resolved("moving_mnist", {"kind": "factors", "shared": shared})


@pytest.mark.parametrize(
    ("path", "words"),
    [
        ("views.before.jitter", "'before' of 'views.before.jitter' is null in the base; give it there first"),
        ("views.beside.jitter", "'views.beside.jitter' is no node of the spec"),
        ("views.recipe", "no node"),
    ],
)
def test_an_axis_must_be_a_node_that_is_there(path: str, words: str) -> None:
    base = {"dataset": {"name": "cifar10"}, "views": {"kind": "color_split"}}
    sweep = spec.SweepSpec.model_validate({"base": base, "axis": {"path": path, "values": [1]}, "seeds": 1})
    with pytest.raises(SpecError, match=words) as refusal:
        list(spec.expand(sweep))
    assert refusal.value.pointer == "/axis/path"


@pytest.mark.parametrize(
    ("asked", "rate", "base"),
    [
        ({"optimiser": "sgd", "batch_size": 128}, 0.03, 0.06),
        ({"optimiser": "lars", "batch_size": 4096}, 4.8, 0.3),
        ({"optimiser": "sgd", "learning_rate": 0.5}, 0.5, None),
        ({"optimiser": "adamw", "base_learning_rate": 0.002, "batch_size": 512}, 0.004, 0.002),
        ({"optimiser": "adamw"}, 0.01, None),
    ],
)
def test_learning_rates_scale_with_the_batch_and_the_resolved_spec_says_so(
    asked: dict[str, Any], rate: float, base: float | None
) -> None:
    found = resolved("cifar10", {"kind": "crop"}, pretrain=asked).pretrain
    assert found.learning_rate == pytest.approx(rate)
    assert found.base_learning_rate == base


@pytest.mark.parametrize(
    ("budget", "labels"),
    [({"labels_share": 0.01}, 500), ({"labels_share": 0.1}, 5000), ({"labels_per_class": 4}, 40), ({}, None)],
)
def test_label_budgets_are_resolved_into_items(budget: dict[str, Any], labels: int | None) -> None:
    (found,) = resolved("cifar10", {"kind": "crop"}, tasks=[{"kind": "knn", **budget}]).tasks
    assert (found.labels, found.labels_share, found.labels_per_class) == (labels, None, None)  # type: ignore[union-attr]


def test_a_label_budget_is_one() -> None:
    with pytest.raises(ValidationError, match="one label budget, not labels and labels_share"):
        resolved("cifar10", {"kind": "crop"}, tasks=[{"kind": "knn", "labels": 10, "labels_share": 0.1}])


@pytest.mark.parametrize(
    ("method", "found"),
    [
        ({"kind": "moco", "version": "v1"}, {"temperature": 0.07, "head": "linear", "hidden": None, "queue": 25_000}),
        ({"kind": "moco"}, {"temperature": 0.2, "head": "mlp", "hidden": 64, "queue": 25_000}),
        ({"kind": "moco", "temperature": 0.1, "head": "linear"}, {"temperature": 0.1, "head": "linear"}),
        ({"kind": "infomin"}, {"temperature": 0.15, "momentum": 0.999, "head": "mlp", "jigsaw_weight": 0.5}),
        ({"kind": "inst_dis"}, {"temperature": 0.07, "negatives": 4096, "bank_momentum": 0.5, "head": "linear"}),
        ({"kind": "pirl"}, {"temperature": 0.07, "negatives": 32_000, "jigsaw_weight": 0.5}),
        ({"kind": "simclr"}, {"hidden": 64, "projection": 64}),
    ],
)
def test_methods_are_filled_in_with_their_papers_numbers(method: dict[str, Any], found: dict[str, Any]) -> None:
    resolved_method = resolved("cifar10", {"kind": "augment"}, method=method).method.model_dump()
    assert {name: resolved_method[name] for name in found} == found


def test_each_of_cmc_s_encoders_is_half_as_wide() -> None:
    alexnet = {"kind": "small_alexnet"}
    assert resolved("cifar10", {"kind": "color_split"}, method={"kind": "cmc"}, encoder=alexnet).encoder.width == 48  # type: ignore[union-attr]
    assert resolved("cifar10", {"kind": "augment"}, encoder=alexnet).encoder.width == 96  # type: ignore[union-attr]


def test_cpc_foretells_as_many_rows_as_there_are() -> None:
    views = {"kind": "patch_grid", "size": 16, "stride": 8}
    assert resolved("cifar10", views, method={"kind": "cpc"}).method.steps == 2  # type: ignore[union-attr]
    assert resolved("stl10", views, method={"kind": "cpc"}).method.steps == 5  # type: ignore[union-attr]


@pytest.mark.parametrize(("name", "size", "stem"), [("cifar10", 32, "small"), ("stl10", 96, "small"), ("stl10", 224, "imagenet")])
def test_resnets_have_the_stem_of_the_image_s_size(name: str, size: int, stem: str) -> None:
    parts = {"dataset": {"name": name, "image_size": size}, "encoder": {"kind": "resnet50"}}
    assert resolved(name, {"kind": "crop"}, **parts).encoder.stem == stem  # type: ignore[union-attr]


def test_along_an_axis_of_methods_each_has_its_own_defaults() -> None:
    base = {"dataset": {"name": "cifar10"}, "views": {"kind": "augment"}}
    sweep = spec.SweepSpec.model_validate(
        {"base": base, "axis": {"path": "method.kind", "values": ["inst_dis", "moco"]}, "seeds": 1}
    )
    first, second = (spec.resolve(training, lambda *_: FACTS["cifar10"]).method for _, training in spec.expand(sweep))
    assert (first.temperature, first.projection, first.head) == (0.07, 128, "linear")  # type: ignore[union-attr]
    assert (second.temperature, second.projection, second.head) == (0.2, 128, "mlp")  # type: ignore[union-attr]


SEVERAL = {"method": {"kind": "cmc"}, "views": {"kind": "color_split"}}


def test_an_axis_may_change_several_parts_together() -> None:
    base = {"dataset": {"name": "cifar10"}, "views": {"kind": "augment"}, "method": {"kind": "simclr", "temperature": 0.5}}
    values = [SEVERAL, {"views": {"kind": "crop"}}]
    sweep = spec.SweepSpec.model_validate({"base": base, "axis": {"path": "base", "values": values}, "seeds": 2})
    trained = [(training.method.kind, training.views.kind, training.seed) for _, training in spec.expand(sweep)]
    assert trained == [("cmc", "color_split", 0), ("cmc", "color_split", 1), ("simclr", "crop", 0), ("simclr", "crop", 1)]


@pytest.mark.parametrize("value", [3, {}, {"seed": 1}, {"name": "other"}, {"surprise": 1}])
def test_what_changes_together_are_parts_of_an_experiment(value: Any) -> None:
    base = {"dataset": {"name": "cifar10"}, "views": {"kind": "augment"}}
    sweep = spec.SweepSpec.model_validate({"base": base, "axis": {"path": "base", "values": [SEVERAL, value]}, "seeds": 1})
    with pytest.raises(SpecError, match="at least one of dataset, views, method, encoder") as refusal:
        list(spec.expand(sweep))
    assert refusal.value.pointer == "/axis/values/1"


def test_a_task_may_name_the_dataset_of_pretraining() -> None:
    (found,) = resolved("walks", {"kind": "temporal"}, tasks=[{"kind": "knn", "dataset": {"name": "walks"}}]).tasks
    assert found.dataset is not None


LEARNED = {"kind": "learned"}


def test_views_that_are_learned_take_their_numbers_from_the_dataset() -> None:
    found = resolved("stl10", LEARNED, pretrain={"steps": 70}).views
    assert isinstance(found, spec.Learned)
    assert (found.steps, found.batch_size, found.labels, found.labelled_batch_size) == (70, 128, 5000, 64)
    few = resolved("cifar10", LEARNED | {"labels": 20}).views
    assert isinstance(few, spec.Learned)
    assert (few.steps, few.labels, few.labelled_batch_size) == (100 * (50_000 // 256), 20, 20)
    without = resolved("cifar10", LEARNED | {"mode": "unsupervised", "labels": 500, "batch_size": 2}).views
    assert isinstance(without, spec.Learned)
    assert (without.labels, without.labelled_batch_size, without.batch_size) == (None, None, 2)


@pytest.mark.parametrize(
    ("name", "views", "pointer", "words"),
    [
        ("digits", {}, "/views/kind", "needs red, green and blue"),
        ("cifar10", {"labels": 9}, "/views/labels", r"a budget of 9 labels; cifar10 accepts 10 \(one a class\) to 50000"),
        ("stl10", {"labels": 5001}, "/views/labels", "to 5000"),
        ("cifar10", {"labels": 50, "labelled_batch_size": 51}, "/views/labelled_batch_size", "51 labelled items a step"),
        ("cifar10", {"batch_size": 50_001}, "/views/batch_size", "cifar10 has 50000 training items"),
        ("cifar10", {"target_nats": 3.9}, "/views/target_nats", "128 pairs a step tell at most 3.85"),
        ("cifar10", {"floor_nats": 0.1, "batch_size": 2}, "/views/floor_nats", "0.1 nats, but 2 pairs"),
        ("bsds500", {}, "/views/mode", "too few labels for semi_supervised views; choose unsupervised"),
    ],
)
def test_what_learned_views_cannot_be_given_is_refused(name: str, views: dict[str, Any], pointer: str, words: str) -> None:
    with pytest.raises(SpecError, match=words) as refusal:
        resolved(name, LEARNED | views)
    assert refusal.value.pointer == pointer


@pytest.mark.parametrize(
    ("views", "words"),
    [
        ({"mode": "supervised", "target_nats": 1}, "nobody plays against supervised views: leave target_nats out"),
        ({"mode": "supervised", "critic_steps": 2, "spectral_norm": True}, "leave critic_steps, spectral_norm out"),
        ({"target_nats": 1, "floor_nats": 1}, "not both"),
        ({"label_weight": 0}, "greater than 0"),
        ({"blocks": 9}, "less than or equal to 8"),
        ({"base_space": "lab"}, "'rgb' or 'ydbdr'"),
    ],
)
def test_options_of_learned_views_that_would_do_nothing_are_refused(views: dict[str, Any], words: str) -> None:
    with pytest.raises(ValidationError, match=words):
        resolved("cifar10", LEARNED | views)


def test_modes_and_targets_of_learned_views_can_be_swept_over() -> None:
    base = {"dataset": {"name": "cifar10"}, "views": LEARNED | {"labels": 500}}
    for path, values in (
        ("views.mode", ["unsupervised", "semi_supervised", "supervised"]),
        ("views.target_nats", [None, 1, 2.5]),
    ):
        sweep = spec.SweepSpec.model_validate({"base": base, "axis": {"path": path, "values": values}, "seeds": 1})
        found = [getattr(asked.views, path.partition(".")[2]) for _, asked in spec.expand(sweep)]
        assert found == values


# Recipes less an operation --------------------------------------------------------------------------------------------


def ablating(views: dict[str, Any], path: str = "views", seeds: int = 1, **parts: Any) -> spec.SweepSpec:
    base = {"dataset": {"name": "cifar10"}, "views": views, **parts}
    return spec.SweepSpec.model_validate({"base": base, "axis": {"path": path, "ablate": True}, "seeds": seeds})


@pytest.mark.parametrize(
    ("views", "path", "method", "operations"),
    [
        (
            {"kind": "augment", "recipe": "infomin"},
            "base",
            {"kind": "infomin"},
            ["crop", "flip", "jitter", "blur", "RandAugment", "grayscale", "jigsaw"],
        ),
        ({"kind": "augment"}, "base", {"kind": "pirl", "jigsaw_weight": 0}, ["crop", "flip", "jitter", "grayscale"]),
        ({"kind": "augment"}, "views", {"kind": "infomin"}, ["crop", "flip", "jitter", "grayscale"]),
        (
            {"kind": "augment", "recipe": "byol"},
            "views",
            {"kind": "simclr"},
            ["crop", "flip", "jitter", "blur", "grayscale", "solarizing"],
        ),
        (
            {"kind": "augment", "rotate_p": 1, "cutout_p": 0.5, "crop_scale_min": 1},
            "views",
            {"kind": "simclr"},
            ["flip", "rotation", "jitter", "grayscale", "cutout"],
        ),
        (
            {"kind": "color_split", "before": {"kind": "augment", "jitter": 0}},
            "views",
            {"kind": "cmc"},
            ["crop", "flip", "grayscale"],
        ),
        ({"kind": "noise"}, "views", {"kind": "simclr"}, ["noise"]),
        ({"kind": "crop"}, "base", {"kind": "simclr"}, ["crop"]),
    ],
)
def test_a_recipe_is_compared_with_itself_less_each_operation_that_is_on(
    views: dict[str, Any], path: str, method: dict[str, Any], operations: list[str]
) -> None:
    sweep = spec.ablated(ablating(views, path, method=method))
    assert sweep.axis.labels == ("all of it", *(f"no {name}" for name in operations))
    trained = [spec.resolve(training, lambda dataset, _: FACTS[dataset.name]) for _, training in spec.expand(sweep)]
    assert len(trained) == len({training.model_dump_json() for training in trained}) == len(operations) + 1
    whole = ExperimentSpec.model_validate({"dataset": {"name": "cifar10"}, "views": views, "method": method})
    assert spec.identity(trained[0]) == spec.identity(spec.resolve(whole, lambda dataset, _: FACTS[dataset.name]))
    stored = spec.SweepSpec.model_validate_json(sweep.model_dump_json())
    assert spec.ablated(stored) == stored


def test_an_operation_is_left_out_of_both_views() -> None:
    sweep = spec.ablated(ablating({"kind": "augment", "recipe": "byol"}))
    for (_, training), label in zip(spec.expand(sweep), sweep.axis.labels or (), strict=True):
        views = training.views
        assert isinstance(views, spec.Augment)
        chances = [(getattr(views, field), getattr(views.of_v2, field)) for field in ("blur_p", "solarize_p")]
        assert chances == {
            "no blur": [(0, 0), (0, 0.2)],
            "no solarizing": [(1, 0.1), (0, 0)],
        }.get(label, [(1, 0.1), (0, 0.2)])


def test_grayscale_is_no_operation_on_images_that_are_grey() -> None:
    assert "no grayscale" not in (spec.ablated(ablating({"kind": "augment"}), channels=1).axis.labels or ())
    assert "no grayscale" in (spec.ablated(ablating({"kind": "augment"}), channels=3).axis.labels or ())


@pytest.mark.parametrize(
    "change",
    [
        lambda values, labels: (values[1:], labels[1:]),
        lambda values, labels: (values, [labels[0], labels[2], labels[1], *labels[3:]]),
        lambda values, labels: ([values[0], {"kind": "noise"}, values[1]], [*labels[:2], labels[1]]),
    ],
    ids=["the whole is missing", "other names", "another recipe"],
)
def test_values_that_are_not_the_base_s_recipes_are_refused(change: Any) -> None:
    sweep = spec.ablated(ablating({"kind": "augment"}))
    values, labels = change(list(sweep.axis.values), list(sweep.axis.labels or ()))
    axis = spec.Axis(path="views", ablate=True, values=values, labels=labels)
    with pytest.raises(SpecError, match="leave values out") as refusal:
        spec.ablated(sweep.model_copy(update={"axis": axis}))
    assert refusal.value.pointer == "/axis/values"


def test_an_ablation_has_at_most_so_many_trainings() -> None:
    everything = {f"{name}_p": 0.5 for name in ("rotate", "blur", "solarize", "cutout")} | {"randaugment_n": 2}
    with pytest.raises(SpecError, match="10 recipes times 101 seeds") as refusal:
        spec.ablated(ablating({"kind": "augment", **everything}).model_copy(update={"seeds": 101}))
    assert refusal.value.pointer == "/seeds"
