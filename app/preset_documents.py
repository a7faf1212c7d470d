"""The presets as documents: what each sweep is, and how its other sizes differ from the standard one."""

from dataclasses import dataclass
from typing import Any, Literal

Size = Literal["quick", "standard", "full"]
Json = dict[str, Any]

# Where a preset names several datasets it takes the first that is there.
PHOTOGRAPHS = ("div2k", "sunhays80", "bsds500")
IMAGES = ("cifar10", "cifar10_lossless_subset", "cifar10_jpeg")
LOSSLESS = ("cifar10_lossless_subset", "cifar10", "cifar10_jpeg")  # the small part first: the game takes long
OR_DIGITS = (*LOSSLESS, "digits")  # where colours are not needed

CROPS = {"kind": "augment", "crop_scale_min": 0.2, "jitter": 0, "grayscale_p": 0}
HALF_JITTER = {"kind": "augment", "jitter": 0.5}
ALEXNET = {"kind": "small_alexnet", "width": 24}
HALF_ALEXNET = {"kind": "small_alexnet", "width": 12}  # for each of CMC's two views

# Where views are learned: steps of the game and labelled items in it, and steps of the pretraining afterwards
VIEW_STEPS, VIEW_LABELS, LEARNED_STEPS = 600, 1000, 300
STABILITY_STEPS, STABILITY_LEARNED_STEPS = 100, 150

GAME = {"kind": "learned", "before": CROPS, "batch_size": 64}
KEEPING_UP = {"critic_steps": 2, "critic_learning_rate": 1e-2, "temperature": 0.2}  # encoders that are not behind g
AS_PUBLISHED = {"critic_learning_rate": 2e-4, "temperature": 0.07}

# What the paper's experiments have at full size: a small AlexNet on STL-10 seen at 64 px, ResNet-50 on ImageNet
ON_STL10: Json = {
    "dataset": {"name": "stl10", "image_size": 64},
    "encoder": {"kind": "small_alexnet", "width": None},
    "pretrain": {"steps": None, "epochs": 200, "batch_size": 256},
    "mi": {"k": 4096},
}
CMC_ON_STL10 = ON_STL10 | {"method": {"kind": "cmc", "temperature": 0.1}}
ON_IMAGENET: Json = {
    "dataset": {"name": "imagenet", "image_size": 224},
    "encoder": {"kind": "resnet50", "width": None},
    "pretrain": {"steps": None, "epochs": 200, "batch_size": 256, "optimiser": "sgd", "weight_decay": 1e-4},
    "mi": {"k": 4096},
}
STL10_IS_OURS = (
    "which dataset and which method the paper has here we do not know: STL-10, a small AlexNet and SimCLR are our choice"
)
CUT = "4000 images of CIFAR-10, a small convolutional encoder"
CUT_OR_DIGITS = "4000 images of CIFAR-10, or handwritten digits where it is not there, a small convolutional encoder"


@dataclass(frozen=True)
class Variation:
    """Another size of a preset: the fields in which it is not as the standard one, null where one is left out (RFC 7396)."""

    change: Json
    differs: str
    """In what it is not as the paper's experiment."""


@dataclass(frozen=True)
class Document:
    """A preset's question, its sweep at standard size, and its other sizes."""

    description: str
    sweep: Json
    quick: Variation | None = None
    full: Variation | None = None
    differs: str | None = None
    """In what the standard size is not as the paper's experiment, where it is one of the paper's."""


def _on_images(views: Json, steps: int, batch_size: int = 256, dataset: tuple[str, ...] = IMAGES) -> Json:
    return {
        "dataset": {"name": dataset},
        "views": views,
        "pretrain": {"steps": steps, "batch_size": batch_size},
        "mi": {"k": 512},
        "tasks": [{"kind": "classification"}, {"kind": "classification", "name": "100 labels", "labels": 100}, {"kind": "knn"}],
    }


def _game(mode: str, space: str) -> Json:
    game = GAME | {"mode": mode, "base_space": space, "flow": "non_volume_preserving", "steps": VIEW_STEPS}
    against = {} if mode == "supervised" else KEEPING_UP
    return game | against | ({} if mode == "unsupervised" else {"labels": VIEW_LABELS, "labelled_batch_size": 32})


def _published_game(mode: str, space: str) -> Json:
    game = {"kind": "learned", "before": CROPS, "mode": mode, "base_space": space, "flow": "non_volume_preserving"}
    against = {} if mode == "supervised" else AS_PUBLISHED
    return game | against | {"batch_size": 128} | ({} if mode == "unsupervised" else {"labelled_batch_size": 64})


RAW = {"kind": "color_split", "before": CROPS}
MODES = {"unsupervised": "unsupervised", "supervised": "supervised", "semi_supervised": "semi-supervised"}


def _learned_from(space: str, name: str) -> Json:
    return {
        "name": f"Views learned from {name}",
        "base": _on_images(RAW, LEARNED_STEPS, dataset=LOSSLESS),
        "axis": {
            "path": "views",
            "values": [RAW | {"space": space}, *(_game(mode, space) for mode in MODES)],
            "labels": [f"{name} {words}" for words in ("raw", *MODES.values())],
        },
        "seeds": 3,
    }


def _learned_sizes(space: str) -> Json:
    games = [RAW | {"space": space}, *(_published_game(mode, space) for mode in MODES)]
    base = CMC_ON_STL10 | {"pretrain": {"steps": None, "epochs": 100, "batch_size": 128, "learning_rate": 2e-4}}
    return {
        "differs": "a game of 600 steps with encoders that keep up with g, on 4000 images of CIFAR-10 with 1000 labels, and "
        "small convolutional encoders afterwards",
        "quick": Variation({"seeds": 1}, "as the standard size, with a single seed: nothing is said of the scatter"),
        "full": Variation(
            {"base": base, "axis": {"values": games}},
            "the game is as published: 100 epochs, 128 unlabelled and 64 labelled items a step, rates of 2e-4 for encoders and "
            "1e-3 for g, temperature 0.07. CMC as the method afterwards with AdamW, its temperature on STL-10, affine "
            "couplings, all labels, K = 4096 and three seeds are our choice",
        ),
    }


SHARED = [
    ["digit"],
    ["background"],
    ["position"],
    ["digit", "background", "position"],
    ["digit", "position"],
    ["digit", "background"],
    ["background", "position"],
]


def _moving_mnist(pooling: str, steps: int) -> Json:
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
        "axis": {"path": "views.shared", "values": SHARED, "labels": [" + ".join(row) for row in SHARED]},
        "seeds": 1,
    }


STABILITY = GAME | {"mode": "unsupervised", "base_space": "rgb", "steps": STABILITY_STEPS}
DOCUMENTS: dict[str, Document] = {
    "digits-noise": Document(
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
    "fig3-patches": Document(
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
        quick=Variation(
            {"base": {"pretrain": {"steps": 400}}, "axis": {"values": [16, 32, 64, 128, 256]}},
            "photographs that are there, a small convolutional encoder, 400 steps, CIFAR-10 alone as the task",
        ),
        full=Variation(
            {
                "base": {
                    "dataset": {"name": "div2k"},
                    "encoder": {"kind": "small_alexnet"},
                    "pretrain": {"steps": 20_000, "batch_size": 256},
                    "mi": {"k": 4096},
                    "tasks": [
                        {"kind": "classification", "name": "STL-10", "dataset": {"name": "stl10", "image_size": 64}},
                        {"kind": "classification", "name": "CIFAR-10", "dataset": {"name": "cifar10", "image_size": 64}},
                    ],
                },
                "axis": {"values": [64, 96, 128, 160, 192, 256, 320, 384]},
                "seeds": 3,
            },
            "DIV2K, patches of 64 px at 64 to 384 px, STL-10 and CIFAR-10 as tasks, as in the paper. The distances between, "
            "SimCLR, a small AlexNet, 20 000 steps of 256 pairs, K = 4096 and three seeds are our choice",
        ),
        differs="photographs that are there, a small convolutional encoder, 1000 steps, distances of 16 to 256 px, CIFAR-10 "
        "alone as the task",
    ),
    "fig4-colour-spaces": Document(
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
        quick=Variation(
            {"base": {"dataset": {"name": LOSSLESS}, "pretrain": {"steps": 300}}, "seeds": 1},
            f"{CUT}, 300 steps of SimCLR, one seed",
        ),
        full=Variation(
            {"base": CMC_ON_STL10, "seeds": 3},
            "STL-10 at 64 px with a half-width AlexNet for each view and CMC's temperature on STL-10 (0.1), as CMC has it. 200 "
            "epochs of 256, AdamW, K = 4096 and three seeds are our choice",
        ),
        differs="CIFAR-10, a small convolutional encoder for each view, 600 steps of SimCLR across the views",
    ),
    "frequency": Document(
        "Where should low frequencies be parted from high ones?",
        {
            "name": "Frequency split",
            "base": _on_images({"kind": "frequency", "before": CROPS}, steps=600),
            "axis": {"path": "views.sigma", "values": [0.3, 0.5, 0.7, 1.0, 1.5, 2.5, 4.0]},
            "seeds": 2,
        },
        quick=Variation(
            {"base": {"dataset": {"name": OR_DIGITS}, "pretrain": {"steps": 300}}},
            f"{CUT_OR_DIGITS}, 300 steps of SimCLR, two seeds",
        ),
        full=Variation(
            {"base": CMC_ON_STL10, "seeds": 3},
            "STL-10 at 64 px. CMC with a half-width AlexNet for each view, 200 epochs of 256, AdamW, K = 4096, three seeds and "
            "the values of sigma are our choice",
        ),
        differs="CIFAR-10 at 32 px, a small convolutional encoder for each view, 600 steps of SimCLR across the views",
    ),
    "fig5-crop": Document(
        "How small may random crops be?",
        {
            "name": "Scale of crops",
            "base": _on_images({"kind": "augment"}, steps=600),
            "axis": {"path": "views.crop_scale_min", "values": [0.05, 0.1, 0.2, 0.35, 0.5, 0.75, 1.0]},
            "seeds": 2,
        },
        quick=Variation(
            {"base": {"dataset": {"name": OR_DIGITS}, "pretrain": {"steps": 300}}},
            f"{CUT_OR_DIGITS}, 300 steps of SimCLR, two seeds",
        ),
        full=Variation(
            {"base": ON_STL10, "seeds": 3},
            f"{STL10_IS_OURS}; so are 200 epochs of 256, AdamW, K = 4096, three seeds and the values of c",
        ),
        differs="CIFAR-10, a small convolutional encoder, 600 steps of SimCLR",
    ),
    "crop-area": Document(
        "How much of an image should each view see, where nothing else is done to it?",
        {
            "name": "Area of crops",
            "base": _on_images({"kind": "crop"}, steps=1000),
            "axis": {"path": "views.area", "values": [0.05, 0.1, 0.2, 0.35, 0.5, 0.75, 1.0]},
            "seeds": 2,
        },
    ),
    "patch-grid": Document(
        "How large should the patches of CPC's grid be?",
        {
            "name": "Patches of a grid",
            "base": _on_images({"kind": "patch_grid", "stride": 4}, steps=1000),
            "axis": {"path": "views.size", "values": [6, 8, 12, 16, 20, 24]},
            "seeds": 2,
        },
    ),
    "temporal-gap": Document(
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
    "paired": Document(
        "What do two sensors share, and at which temperature is it learned best? Needs a paired dataset of one's own: run it "
        'with {"dataset": "ds_…"}.',
        {
            "name": "Temperature on paired views",
            "base": {"dataset": {"name": "paired"}, "views": {"kind": "paired"}, "pretrain": {"steps": 500}},
            "axis": {"path": "method.temperature", "values": [0.05, 0.1, 0.2, 0.5, 1.0]},
            "seeds": 2,
        },
    ),
    "fig5-jitter": Document(
        "How strong should colour jitter be?",
        {
            "name": "Strength of colour jitter",
            "base": _on_images({"kind": "augment"}, steps=600),
            "axis": {"path": "views.jitter", "values": [0, 0.125, 0.25, 0.5, 1.0, 1.5, 2.5]},
            "seeds": 2,
        },
        quick=Variation(
            {"base": {"dataset": {"name": OR_DIGITS}, "pretrain": {"steps": 300}}},
            f"{CUT_OR_DIGITS}, 300 steps of SimCLR, two seeds",
        ),
        full=Variation(
            {"base": ON_STL10, "seeds": 3},
            f"{STL10_IS_OURS}; so are 200 epochs of 256, AdamW, K = 4096, three seeds and the values of x between",
        ),
        differs="CIFAR-10, a small convolutional encoder, 600 steps of SimCLR",
    ),
    "cmc-colour-spaces": Document(
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
    "fig7-learned-rgb": Document(
        "Can a colour space be learned whose channels are better views than those of RGB? Without labels, with labels alone, and "
        "with both.",
        _learned_from("rgb", "RGB"),
        **_learned_sizes("rgb"),
    ),
    "fig7-learned-ydbdr": Document(
        "Can one be learned from YDbDr that is better than YDbDr itself? Without labels, with labels alone, and with both.",
        _learned_from("ydbdr", "YDbDr"),
        **_learned_sizes("ydbdr"),
    ),
    "learned-target-nats": Document(
        "How much should learned views share? Steered to so many nats each time, with labels to say what to keep.",
        {
            "name": "Views learned to share so much",
            "base": _on_images(_game("semi_supervised", "rgb"), LEARNED_STEPS, dataset=LOSSLESS),
            "axis": {"path": "views.target_nats", "values": [0.25, 0.5, 0.75, 1, 1.5, 2, 2.5]},
            "seeds": 2,
        },
    ),
    "learned-stability": Document(
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
    "cpc-patches": Document(
        "How large should the patches be whose rows contrastive predictive coding foretells?",
        {
            "name": "CPC by the size of patches",
            "base": _on_images({"kind": "patch_grid", "stride": 8}, steps=300) | {"method": {"kind": "cpc"}, "encoder": ALEXNET},
            "axis": {"path": "views.size", "values": [8, 12, 16, 24]},
            "seeds": 2,
        },
    ),
    "pirl-jigsaw": Document(
        "How much should the jigsaw count beside the image?",
        {
            "name": "PIRL by the jigsaw's weight",
            "base": _on_images({"kind": "augment", "jitter": 0.5}, steps=300) | {"method": {"kind": "pirl"}, "encoder": ALEXNET},
            "axis": {"path": "method.jigsaw_weight", "values": [0, 0.25, 0.5, 0.75, 1]},
            "seeds": 2,
        },
    ),
    "six-methods": Document(
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
                        "views": {"kind": "patch_grid", "size": 16, "stride": 8, "before": HALF_JITTER},
                    },
                    {"method": {"kind": "infomin", "momentum": 0.99}, "views": {"kind": "augment", "recipe": "infomin"}},
                ],
                "labels": ["InstDis", "MoCo", "CMC", "PIRL", "SimCLR", "CPC", "InfoMin"],
            },
            "seeds": 3,
        },
        quick=Variation(
            {"base": {"dataset": {"name": LOSSLESS}, "pretrain": {"steps": 120}}, "seeds": 1},
            "4000 images of CIFAR-10, a narrow AlexNet, 120 steps, one seed: what a method is worth takes longer to show",
        ),
        full=Variation(
            {
                "base": ON_IMAGENET
                | {"tasks": [{"kind": "classification", "name": "linear", "protocol": "sgd"}, {"kind": "knn"}]},
                "axis": {
                    "values": [
                        {"method": {"kind": "inst_dis"}},
                        {"method": {"kind": "moco", "version": "v1"}},
                        {"method": {"kind": "cmc"}, "views": {"kind": "color_split", "space": "lab", "before": CROPS}},
                        {"method": {"kind": "pirl"}},
                        {"method": {"kind": "simclr", "temperature": 0.1, "projection": 128}},
                        {
                            "method": {"kind": "cpc"},
                            "views": {"kind": "patch_grid", "size": 64, "stride": 32, "before": HALF_JITTER},
                        },
                        {"method": {"kind": "infomin"}, "views": {"kind": "augment", "recipe": "infomin"}},
                    ]
                },
                "seeds": 1,
            },
            "ImageNet, ResNet-50, and each method's temperature, momentum and number of negatives as published. One budget for "
            "all, 200 epochs of 256 by SGD, the augmentations beside InfoMin's own, CPC's grid, whole networks for both of "
            "CMC's views, one seed and K = 4096 are our choice: published results have budgets of their own",
        ),
        differs="CIFAR-10, a narrow AlexNet, 240 steps; queues and banks as large as the dataset allows",
    ),
    "infomin-ablation": Document(
        "What is each operation of InfoMin's recipe worth? The recipe whole, and less each of its operations in turn, the "
        "method's jigsaw among them.",
        {
            "name": "InfoMin's recipe, less one operation each",
            "base": _on_images({"kind": "augment", "recipe": "infomin"}, steps=400)
            | {"method": {"kind": "infomin", "momentum": 0.99}},
            "axis": {"path": "base", "ablate": True},
            "seeds": 3,
        },
        quick=Variation(
            {"base": {"dataset": {"name": LOSSLESS}, "pretrain": {"steps": 150}}, "seeds": 2},
            f"{CUT}, 150 steps, two seeds: more is told of I_NCE than of accuracy",
        ),
        full=Variation(
            {
                "base": ON_IMAGENET
                | {
                    "method": {"momentum": 0.999, "queue": 65_536},
                    "tasks": [{"kind": "classification", "protocol": "sgd"}, {"kind": "knn"}],
                },
                "seeds": 1,
            },
            "ImageNet, ResNet-50 and InfoMin's setting (queue 65 536, temperature 0.15, momentum 0.999, the jigsaw's weight "
            "0.5) as in the paper, which has the whole recipe; RandAugment has torchvision's operations. That each operation "
            "is left out in turn, 200 epochs of 256 by SGD, one seed and K = 4096 are our choice",
        ),
        differs="CIFAR-10 at 32 px, a small convolutional encoder, 400 steps; the queue as large as the dataset allows. That "
        "each operation is left out in turn is our experiment: the paper has the whole recipe",
    ),
    "cifar10-anchors": Document(
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
    "table2-moving-mnist": Document(
        "Which factor do views of moving digits teach when they share it: digit, background or position?",
        _moving_mnist("average", steps=2000),
        quick=Variation(
            {
                "base": {"pretrain": {"steps": 800}},
                "axis": {"values": SHARED[:4], "labels": [" + ".join(row) for row in SHARED[:4]]},
            },
            "two past frames in place of ten, 800 steps, one factor alone or all three, one seed: some of "
            "the encoders may not have left chance by then",
        ),
        full=Variation(
            {
                "base": {
                    "dataset": {"digits": "mnist", "backgrounds": "stl10"},
                    "views": {"frames": 10},
                    "pretrain": {"steps": None, "epochs": 200},
                    "mi": {"k": 2048},
                },
                "seeds": 3,
            },
            "MNIST on crops of STL-10, ten past frames, the convolutions and the LSTM as in the paper. Scenes come from 20 000 "
            "of the digits; 200 epochs of 256, AdamW, SimCLR at temperature 0.1, K = 2048 and three seeds are our choice",
        ),
        differs="two past frames in place of ten, backgrounds that are there, 2000 steps, one seed",
    ),
    "moving-mnist-places": Document(
        "The same with an encoder that keeps where things are: its last map is flattened and not averaged.",
        _moving_mnist("flatten", steps=800),
    ),
}
