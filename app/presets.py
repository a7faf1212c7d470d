"""Sweeps worth running as they are: the paper's experiments, each in minutes on two cores."""

from dataclasses import dataclass
from typing import Any

from app import datasets
from app.errors import Invalid, NotFound
from ml.spec import ExperimentSpec, SpecError, SweepSpec, resolve

# Where a preset names several datasets it takes the first that is there.
PHOTOGRAPHS = ("div2k", "sunhays80", "bsds500")
IMAGES = ("cifar10", "cifar10_lossless_subset", "cifar10_jpeg")
LOSSLESS = ("cifar10_lossless_subset", "cifar10", "cifar10_jpeg")  # the small part first: the game takes long

CROPS = {"kind": "augment", "crop_scale_min": 0.2, "jitter": 0, "grayscale_p": 0}
ALEXNET = {"kind": "small_alexnet", "width": 24}
HALF_ALEXNET = {"kind": "small_alexnet", "width": 12}  # for each of CMC's two views

# Where views are learned: steps of the game and labelled items in it, and steps of the pretraining afterwards
VIEW_STEPS, VIEW_LABELS, LEARNED_STEPS = 600, 1000, 300
STABILITY_STEPS, STABILITY_LEARNED_STEPS = 100, 150

GAME = {"kind": "learned", "before": CROPS, "batch_size": 64}
KEEPING_UP = {"critic_steps": 2, "critic_learning_rate": 1e-2, "temperature": 0.2}  # encoders that are not behind g


@dataclass(frozen=True)
class Preset:
    """A named sweep, and what question it answers."""

    description: str
    document: dict[str, Any]

    @property
    def sweep(self) -> SweepSpec:
        """The sweep, on the datasets that are there; on the first of each choice where none is."""
        return SweepSpec.model_validate(_chosen(self.document))

    def on(self, dataset: str) -> SweepSpec:
        """The sweep, pretrained on another dataset at that one's own size, with those of its tasks that can be done there.

        Batch size and K go by that dataset. So do the tasks where none of the preset's can be done, and where nothing is known of
        the dataset yet, since it is an upload that is still decoded.
        """
        document = _chosen(self.document)
        base = document["base"] | {"dataset": {"name": dataset}}
        base["pretrain"].pop("batch_size", None)
        base.get("mi", {}).pop("k", None)
        tasks = [task for task in base.pop("tasks", []) if _can_be_done(task, base)]
        return SweepSpec.model_validate(document | {"base": base | ({"tasks": tasks} if tasks else {})})


def get(name: str) -> Preset:
    """Raises NotFound."""
    if name not in PRESETS:
        raise NotFound(f"there is no preset {name!r}; there are {', '.join(PRESETS)}")
    return PRESETS[name]


def _chosen(node: Any) -> Any:
    """The document with one dataset in the place of each choice."""
    if isinstance(node, dict):
        return {key: _chosen(value) for key, value in node.items()}
    if isinstance(node, list):
        return [_chosen(value) for value in node]
    return datasets.first_present(node) if isinstance(node, tuple) else node


def _can_be_done(task: dict[str, Any], base: dict[str, Any]) -> bool:
    try:
        resolve(ExperimentSpec.model_validate(base | {"tasks": [task]}), lambda dataset, _: datasets.facts(dataset))
    except (SpecError, Invalid):
        return False
    return True


def _on_images(views: dict[str, Any], steps: int, batch_size: int = 256, dataset: tuple[str, ...] = IMAGES) -> dict[str, Any]:
    return {
        "dataset": {"name": dataset},
        "views": views,
        "pretrain": {"steps": steps, "batch_size": batch_size},
        "mi": {"k": 512},
        "tasks": [{"kind": "classification"}, {"kind": "classification", "name": "100 labels", "labels": 100}, {"kind": "knn"}],
    }


def _game(mode: str, space: str) -> dict[str, Any]:
    game = GAME | {"mode": mode, "base_space": space, "flow": "non_volume_preserving", "steps": VIEW_STEPS}
    against = {} if mode == "supervised" else KEEPING_UP
    return game | against | ({} if mode == "unsupervised" else {"labels": VIEW_LABELS, "labelled_batch_size": 32})


def _learned_from(space: str, name: str) -> dict[str, Any]:
    raw = {"kind": "color_split", "before": CROPS}
    modes = {"unsupervised": "unsupervised", "supervised": "supervised", "semi_supervised": "semi-supervised"}
    return {
        "name": f"Views learned from {name}",
        "base": _on_images(raw, LEARNED_STEPS, dataset=LOSSLESS),
        "axis": {
            "path": "views",
            "values": [raw | {"space": space}, *(_game(mode, space) for mode in modes)],
            "labels": [f"{name} {words}" for words in ("raw", *modes.values())],
        },
        "seeds": 3,
    }


def _moving_mnist(pooling: str, steps: int) -> dict[str, Any]:
    shared = [
        ["digit"],
        ["background"],
        ["position"],
        ["digit", "background", "position"],
        ["digit", "position"],
        ["digit", "background"],
        ["background", "position"],
    ]
    return {
        "name": f"What views of moving digits share, {pooling} pooling",
        "base": {
            "dataset": {"name": "moving_mnist"},
            "views": {"kind": "factors", "frames": 2},
            "method": {"kind": "simclr", "temperature": 0.1},
            "encoder": {"kind": "conv_lstm", "pooling": pooling},
            "pretrain": {"steps": steps, "batch_size": 256, "learning_rate": 0.01},
            "mi": {"k": 512},
        },
        "axis": {"path": "views.shared", "values": shared, "labels": [" + ".join(row) for row in shared]},
        "seeds": 1,
    }


STABILITY = GAME | {"mode": "unsupervised", "base_space": "rgb", "steps": STABILITY_STEPS}
PRESETS = {
    "digits-noise": Preset(
        "How much noise should two views of a handwritten digit carry, if 50 labels are to do? "
        "Minutes on two cores, with scikit-learn's digits: nothing to download.",
        {
            "name": "Noise on handwritten digits",
            "base": {
                "name": "digits with noise",
                "dataset": {"name": "digits", "image_size": 16},
                "views": {"kind": "noise"},
                "pretrain": {"steps": 300, "batch_size": 256},
                "mi": {"k": 512},
                "tasks": [{"kind": "classification", "labels": 50}],
            },
            "axis": {"path": "views.sigma", "values": [0, 0.1, 0.2, 0.4, 0.7, 1.0, 1.6, 2.5]},
            "seeds": 3,
        },
    ),
    "fig3-patches": Preset(
        "How far apart should two patches of a photograph be? Pretrained on photographs, evaluated on CIFAR-10.",
        {
            "name": "Distance of patches",
            "base": {
                "dataset": {"name": PHOTOGRAPHS},
                "views": {"kind": "patches", "size": 64},
                "pretrain": {"steps": 1000, "batch_size": 128},
                "mi": {"k": 512},
                "tasks": [
                    {"kind": "classification", "dataset": {"name": IMAGES, "image_size": 64}},
                    {
                        "kind": "classification",
                        "name": "100 labels",
                        "labels": 100,
                        "dataset": {"name": IMAGES, "image_size": 64},
                    },
                ],
            },
            "axis": {"path": "views.distance", "values": [16, 32, 64, 128, 192, 256]},
            "seeds": 2,
        },
    ),
    "fig4-colour-spaces": Preset(
        "In which colour space should an image be split into two views?",
        {
            "name": "Colour spaces",
            "base": _on_images({"kind": "color_split"}, steps=600),
            "axis": {
                "path": "views.space",
                "values": ["rgb", "xyz", "hsv", "hed", "lab", "luv", "yuv", "ycbcr", "ydbdr", "ypbpr", "yiq"],
                "labels": ["RGB", "XYZ", "HSV", "HED", "Lab", "LUV", "YUV", "YCbCr", "YDbDr", "YPbPr", "YIQ"],
            },
            "seeds": 2,
        },
    ),
    "frequency": Preset(
        "Where should low frequencies be parted from high ones?",
        {
            "name": "Frequency split",
            "base": _on_images({"kind": "frequency", "before": CROPS}, steps=600),
            "axis": {"path": "views.sigma", "values": [0.3, 0.5, 0.7, 1.0, 1.5, 2.5, 4.0]},
            "seeds": 2,
        },
    ),
    "fig5-crop": Preset(
        "How small may random crops be?",
        {
            "name": "Scale of crops",
            "base": _on_images({"kind": "augment"}, steps=600),
            "axis": {"path": "views.crop_scale_min", "values": [0.05, 0.1, 0.2, 0.35, 0.5, 0.75, 1.0]},
            "seeds": 2,
        },
    ),
    "crop-area": Preset(
        "How much of an image should each view see, where nothing else is done to it?",
        {
            "name": "Area of crops",
            "base": _on_images({"kind": "crop"}, steps=1000),
            "axis": {"path": "views.area", "values": [0.05, 0.1, 0.2, 0.35, 0.5, 0.75, 1.0]},
            "seeds": 2,
        },
    ),
    "patch-grid": Preset(
        "How large should the patches of CPC's grid be?",
        {
            "name": "Patches of a grid",
            "base": _on_images({"kind": "patch_grid", "stride": 4}, steps=1000),
            "axis": {"path": "views.size", "values": [6, 8, 12, 16, 20, 24]},
            "seeds": 2,
        },
    ),
    "temporal-gap": Preset(
        "How far apart in time should two frames be? On clips of moving digits.",
        {
            "name": "Gap between frames",
            "base": {
                "dataset": {"name": "moving_mnist"},
                "views": {"kind": "temporal"},
                "encoder": {"kind": "conv_lstm"},
                "pretrain": {"steps": 1000, "batch_size": 128},
                "mi": {"k": 512},
            },
            "axis": {"path": "views.gap", "values": [0, 1, 2, 4, 8, 16]},
            "seeds": 2,
        },
    ),
    "paired": Preset(
        "What do two sensors share, and at which temperature is it learned best? Needs a paired dataset of one's own: run it "
        'with {"dataset": "ds_…"}.',
        {
            "name": "Temperature on paired views",
            "base": {"dataset": {"name": "paired"}, "views": {"kind": "paired"}, "pretrain": {"steps": 500}},
            "axis": {"path": "method.temperature", "values": [0.05, 0.1, 0.2, 0.5, 1.0]},
            "seeds": 2,
        },
    ),
    "fig5-jitter": Preset(
        "How strong should colour jitter be?",
        {
            "name": "Strength of colour jitter",
            "base": _on_images({"kind": "augment"}, steps=600),
            "axis": {"path": "views.jitter", "values": [0, 0.125, 0.25, 0.5, 1.0, 1.5, 2.5]},
            "seeds": 2,
        },
    ),
    "cmc-colour-spaces": Preset(
        "In which colour space should contrastive multiview coding split an image?",
        {
            "name": "CMC by colour space",
            "base": _on_images({"kind": "color_split", "before": CROPS}, steps=300)
            | {"method": {"kind": "cmc"}, "encoder": HALF_ALEXNET},
            "axis": {
                "path": "views.space",
                "values": ["rgb", "hsv", "lab", "ydbdr"],
                "labels": ["RGB", "HSV", "Lab", "YDbDr"],
            },
            "seeds": 2,
        },
    ),
    "fig7-learned-rgb": Preset(
        "Can a colour space be learned whose channels are better views than those of RGB? Without labels, with labels alone, and "
        "with both.",
        _learned_from("rgb", "RGB"),
    ),
    "fig7-learned-ydbdr": Preset(
        "Can one be learned from YDbDr that is better than YDbDr itself? Without labels, with labels alone, and with both.",
        _learned_from("ydbdr", "YDbDr"),
    ),
    "learned-target-nats": Preset(
        "How much should learned views share? Steered to so many nats each time, with labels to say what to keep.",
        {
            "name": "Views learned to share so much",
            "base": _on_images(_game("semi_supervised", "rgb"), LEARNED_STEPS, dataset=LOSSLESS),
            "axis": {"path": "views.target_nats", "values": [0.25, 0.5, 0.75, 1, 1.5, 2, 2.5]},
            "seeds": 2,
        },
    ),
    "learned-stability": Preset(
        "What keeps the game steady in which views are learned without labels?",
        {
            "name": "Steadiness of the game for views",
            "base": _on_images(STABILITY, STABILITY_LEARNED_STEPS, 128, LOSSLESS),
            "axis": {
                "path": "views",
                "values": [
                    STABILITY,
                    STABILITY | {"critic_steps": 5},
                    STABILITY | {"critic_learning_rate": 2e-4},
                    STABILITY | {"learning_rate": 2e-4},
                    STABILITY | {"gradient_penalty": 0.01},
                    STABILITY | {"spectral_norm": True},
                    STABILITY | {"floor_nats": 1},
                    STABILITY | {"flow": "non_volume_preserving"},
                ],
                "labels": [
                    "as it is",
                    "5 critic steps",
                    "critic rate 2e-4",
                    "g rate 2e-4",
                    "gradient penalty",
                    "spectral norm",
                    "floor at 1 nat",
                    "affine couplings",
                ],
            },
            "seeds": 3,
        },
    ),
    "cpc-patches": Preset(
        "How large should the patches be whose rows contrastive predictive coding foretells?",
        {
            "name": "CPC by the size of patches",
            "base": _on_images({"kind": "patch_grid", "stride": 8}, steps=300) | {"method": {"kind": "cpc"}, "encoder": ALEXNET},
            "axis": {"path": "views.size", "values": [8, 12, 16, 24]},
            "seeds": 2,
        },
    ),
    "pirl-jigsaw": Preset(
        "How much should the jigsaw count beside the image?",
        {
            "name": "PIRL by the jigsaw's weight",
            "base": _on_images({"kind": "augment", "jitter": 0.5}, steps=300) | {"method": {"kind": "pirl"}, "encoder": ALEXNET},
            "axis": {"path": "method.jigsaw_weight", "values": [0, 0.25, 0.5, 0.75, 1]},
            "seeds": 2,
        },
    ),
    "six-methods": Preset(
        "Which method makes the best views of an image? InstDis, MoCo, CMC, PIRL, SimCLR, CPC with one encoder and one budget, "
        "and InfoMin's own setting.",
        {
            "name": "The six methods",
            "base": {
                "dataset": {"name": IMAGES},
                "views": {"kind": "augment", "crop_scale_min": 0.2, "jitter": 0.5},
                "encoder": ALEXNET,
                "pretrain": {"steps": 240, "batch_size": 128},
                "mi": {"k": 512},
                "tasks": [
                    {"kind": "classification", "name": "linear"},
                    {"kind": "classification", "name": "linear, SGD", "protocol": "sgd"},
                    {"kind": "knn"},
                    {"kind": "classification", "name": "10 a class", "labels_per_class": 10},
                ],
            },
            "axis": {
                "path": "base",
                "values": [
                    {"method": {"kind": "inst_dis", "objective": "softmax", "temperature": 0.1}},
                    {"method": {"kind": "moco", "momentum": 0.99}},
                    {
                        "method": {"kind": "cmc"},
                        "views": {"kind": "color_split", "space": "lab", "before": CROPS},
                        "encoder": HALF_ALEXNET,
                    },
                    {"method": {"kind": "pirl"}},
                    {"method": {"kind": "simclr", "projection": 128}},
                    {
                        "method": {"kind": "cpc"},
                        "views": {"kind": "patch_grid", "size": 16, "stride": 8, "before": {"kind": "augment", "jitter": 0.5}},
                    },
                    {"method": {"kind": "infomin", "momentum": 0.99}, "views": {"kind": "augment", "recipe": "infomin"}},
                ],
                "labels": ["InstDis", "MoCo", "CMC", "PIRL", "SimCLR", "CPC", "InfoMin"],
            },
            "seeds": 3,
        },
    ),
    "cifar10-anchors": Preset(
        "Do SimCLR and MoCo come to what others publish? ResNet-18 for 200 epochs on CIFAR-10, as lightly does: for a GPU.",
        {
            "name": "SimCLR and MoCo on CIFAR-10",
            "base": {
                "dataset": {"name": ("cifar10", "cifar10_jpeg")},
                "views": {"kind": "augment", "recipe": "lightly_cifar10"},
                "encoder": {"kind": "resnet18"},
                "pretrain": {
                    "epochs": 200,
                    "batch_size": 128,
                    "optimiser": "sgd",
                    "base_learning_rate": 0.12,
                    "weight_decay": 5e-4,
                    "warmup": 0,
                },
                "mi": {"k": 4096},
                "tasks": [{"kind": "knn"}, {"kind": "classification", "name": "linear"}],
            },
            "axis": {
                "path": "method",
                "values": [
                    {"kind": "simclr", "temperature": 0.5, "projection": 128, "hidden": 512},
                    {"kind": "moco", "temperature": 0.1, "momentum": 0.99, "queue": 4096, "hidden": 512},
                ],
                "labels": ["SimCLR", "MoCo"],
            },
            "seeds": 1,
        },
    ),
    "table2-moving-mnist": Preset(
        "Which factor do views of moving digits teach when they share it: digit, background or position?",
        _moving_mnist("average", steps=2000),
    ),
    "moving-mnist-places": Preset(
        "The same with an encoder that keeps where things are: its last map is flattened and not averaged.",
        _moving_mnist("flatten", steps=800),
    ),
}
