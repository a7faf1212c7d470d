"""How much main memory a training needs, from its resolved spec alone, and which field to change where that is too much.

The estimate adds up what is alive at the same time: the process itself, the dataset, the weights with all that follows them, and
the largest of three moments: a step of pretraining, the information, the tasks. Maps that a step keeps for its gradients are
counted convolution by convolution, in floats for each pixel of the input. It is meant to be high rather than low.

Measured on a CPU (peak resident memory in MiB of a step of pretraining, the information of 512 views and a step of the supervised
reference, in float32 with AdamW, of 2000 RGB images), beside what is said here:

    encoder, views, method            side  batch  measured  estimate
    small_conv                          32     64       890      1181
    small_alexnet                       32     64      1504      2059
    resnet18                            32     64      1813      2745
    small_conv                          32    256       890      1181
    small_alexnet                       32    256      1991      2766
    resnet18                            32    256      3283      4056
    small_conv                          64     64      1169      1388
    small_alexnet                       64     64      2628      3480
    resnet18                            64     64      3315      4207
    resnet50                            32     64      4288      5820
    small_conv                          64   1024      1726      1940
    small_conv, width 64                64    256      1503      1711
    small_conv                         224    256      3358      4489
    small_conv, augment                224    256      3418      4489
    small_conv, augment                 64   1024      1658      1940
    small_conv, color_split, cmc        64    256      1341      1391
    resnet18                           224     32      5799      9438
    small_alexnet, color_split, cmc     64    256      3239      3609
    small_conv, inst_dis                32   1024       966      1435
    small_conv, augment, pirl           64    256      1169      1390
    small_conv, patch_grid, cpc         64    256      1504      1509
    small_conv, augment, infomin        64    256      1125      1504
    resnet18, moco                      64     64      3459      4257

Not measured: GPUs, bfloat16 (taken as half), the game in which views are learned, several processes, datasets beyond main memory.
"""

import math
from collections.abc import Callable, Iterator
from typing import NamedTuple

from ml.spec import (
    CMC,
    CPC,
    PIRL,
    ConvLSTM,
    Dataset,
    DatasetFacts,
    Encoder,
    ExperimentSpec,
    Factors,
    Frozen,
    InfoMin,
    InstDis,
    Learned,
    MoCo,
    Patches,
    PatchGrid,
    ResNet18,
    ResNet34,
    ResNet50,
    SimCLR,
    SmallAlexNet,
    SmallConv,
    SpecError,
)

FLOAT, LONG = 4, 8  # bytes
PROCESS = 1100 * 2**20  # bytes of a runner before it has any data: torch and what it brings with it, and room to begin in
WORKSPACE = 300 * 2**20  # bytes that convolutions of wide networks take besides
SLACK = 1.1  # of what allocators and copies add
VIEWS = 4  # images' worth of floats while the views of an image are made
ENCODED = 512  # items of which clean features are taken at a time; of views up to 1024
EMBEDDED = 1024
REFERENCE_BATCH = 128  # at most, of each of the supervised reference's three networks
STATES = {"adamw": 2, "sgd": 1, "lars": 1}  # of the optimisers, as large as the weights
MAPPED = 1 / 8  # of a worker's memory: larger datasets stay in their files


class Network(NamedTuple):
    """An encoder in floats: of its weights, and for a pixel of the input of all maps and of those that are alive at once."""

    weights: float
    maps: float
    widest: float


Facts = Callable[[Dataset], DatasetFacts]


def needed(spec: ExperimentSpec, facts: Facts) -> int:
    """Bytes of main memory, about; `facts` says what is known of a dataset."""
    known = facts(spec.dataset)
    network = _network(spec.encoder)
    head = _head(spec)
    encoders = 2 if spec.views.two_kinds else 1
    weights = encoders * (network.weights + head) * FLOAT
    states = STATES[spec.pretrain.optimiser]
    followers = 2 * (1 + states) + 1  # weights and moments, the same in a snapshot, and the gradient
    followers += (spec.pretrain.ema is not None) + isinstance(spec.method, MoCo | InfoMin)
    standing = weights * followers + _remembered(spec, known)
    moments = (_step(spec, known, network), _game(spec, known, network), _information(spec, known, network), _tasks(spec, facts))
    processes = spec.pretrain.processes
    wide = WORKSPACE if network.weights > 10**6 else 0
    return int(processes * (PROCESS + wide) + _data(spec, facts) + SLACK * (processes * standing + max(moments)))


def require(spec: ExperimentSpec, facts: Facts, available: int) -> None:
    """Raise SpecError, with the field to change, for a resolved spec that needs more than there is."""
    total = needed(spec, facts)
    if total <= available:
        return
    words = f"needs about {_gigabytes(total)} of memory, the largest worker has {_gigabytes(available)}"
    fitting = (lever for lever in _levers(spec) if needed(_with(spec, *lever[:2]), facts) <= available)
    pointer, low, high = next(fitting, ("", 0, 0))
    if not pointer:
        raise SpecError("/encoder", f"{words}; choose a smaller encoder together with a smaller batch and smaller images")
    name = pointer.strip("/").replace("/", ".")
    while high - low > max(1, low // 20):  # about
        middle = (low + high) // 2
        low, high = (middle, high) if needed(_with(spec, pointer, middle), facts) <= available else (low, middle)
    raise SpecError(pointer, f"{words}; {name} up to about {low} fits")


def _levers(spec: ExperimentSpec) -> Iterator[tuple[str, int, int]]:
    """Pointers of the numbers on which it depends most, with the least that is accepted and what it is now."""
    assert spec.pretrain.batch_size and spec.mi.k and spec.dataset.image_size, "a resolved spec has them"
    yield "/pretrain/batch_size", 2, spec.pretrain.batch_size
    yield "/mi/k", 2, spec.mi.k
    if not isinstance(spec.views, Patches | PatchGrid):
        yield "/dataset/image_size", 8, spec.dataset.image_size
    if isinstance(spec.views, Learned):
        yield "/views/batch_size", 2, spec.views.batch_size or 2


def _with(spec: ExperimentSpec, pointer: str, number: int) -> ExperimentSpec:
    part, field = pointer.strip("/").split("/")
    return spec.model_copy(update={part: getattr(spec, part).model_copy(update={field: number})})


# What there is all the time ----------------------------------------------------------------------------------------------


def _network(encoder: Encoder) -> Network:
    match encoder:
        case SmallConv(width=w):  # a convolution and its norm at 1/4, 1/16 and 1/64 of the pixels
            return Network(90 * w**2, 0.875 * w, w / 2)
        case SmallAlexNet(width=width):  # and three poolings, which keep where the largest was
            w = width or 96
            return Network(306 * w**2, 5.5 * w, 2 * w)
        case ConvLSTM(width=w, lstm=lstm, features=features):
            return Network(378 * w**2 + 4 * lstm * (features + lstm), 0.94 * w, w / 2)
        case ResNet18(stem=stem):
            return Network(11.2e6, *((1040, 256) if stem != "imagenet" else (97, 48)))
        case ResNet34(stem=stem):
            return Network(21.3e6, *((1740, 256) if stem != "imagenet" else (140, 48)))
        case ResNet50(stem=stem):
            return Network(23.5e6, *((5830, 850) if stem != "imagenet" else (396, 100)))


def _head(spec: ExperimentSpec) -> float:
    """Weights of the projection."""
    features, width = spec.encoder.features, getattr(spec.method, "projection", 0)
    hidden = getattr(spec.method, "hidden", None)
    return features * hidden + hidden * width if hidden else features * width


def _remembered(spec: ExperimentSpec, known: DatasetFacts) -> float:
    """Queues and banks."""
    width = getattr(spec.method, "projection", 0) * FLOAT
    match spec.method:
        case MoCo(queue=queue) | InfoMin(queue=queue):
            return 2 * 2 * (queue or 0) * width
        case InstDis() | CMC() | PIRL():
            return 2 * 2 * known.train * width
    return 0


def _data(spec: ExperimentSpec, facts: Facts) -> float:
    """All datasets, twice while they are read."""
    sizes = {task.dataset for task in spec.tasks if task.dataset is not None} | {spec.dataset}
    return sum(2 * _bytes(dataset, facts(dataset)) for dataset in sizes)


def _bytes(dataset: Dataset, known: DatasetFacts) -> float:
    side = dataset.image_size or known.image_size
    channels = known.channels + (known.channels2 or 0)
    frames = 1 if known.layout == "scenes" else known.frames or 1  # scenes are made when they are asked for
    size = {"uint8": 1, "uint16": 2, "float32": 4}[known.dtype]
    return (known.train + known.test) * frames * channels * side**2 * size


# What there is at one moment ---------------------------------------------------------------------------------------------


def _pixels(spec: ExperimentSpec, known: DatasetFacts) -> tuple[float, float]:
    """Of the two views of an item, as encoders see them; and of what is held while they are made, in floats."""
    side = getattr(spec.views, "size", None) or spec.dataset.image_size or known.image_size
    channels = max(known.channels, known.channels2 or 0)
    views = 2.0
    if isinstance(spec.views, Factors):
        views = spec.views.frames + 1
    if isinstance(spec.method, CPC) and isinstance(spec.views, PatchGrid):
        rows = ((spec.dataset.image_size or known.image_size) - spec.views.size) // spec.views.stride + 1
        views = rows**2
    if isinstance(spec.method, InfoMin):
        views = 3
    return views * side**2, VIEWS * channels * views * side**2 / 2


def _step(spec: ExperimentSpec, known: DatasetFacts, network: Network) -> float:
    """A step of pretraining."""
    pixels, drawing = _pixels(spec, known)
    batch = spec.pretrain.batch_size or 256
    if isinstance(spec.method, Frozen):
        return 0
    return batch * FLOAT * (pixels * network.maps * _narrower(spec) + drawing) + _losses(spec, known, batch)


def _narrower(spec: ExperimentSpec) -> float:
    """Maps in bfloat16 have half the bytes."""
    return 0.5 if spec.pretrain.precision == "bfloat16" else 1.0


def _losses(spec: ExperimentSpec, known: DatasetFacts, batch: int) -> float:
    """Scores of a batch, with what their gradients keep: five of each."""
    match spec.method:
        case SimCLR():
            return 5 * FLOAT * (2 * batch) ** 2
        case MoCo(queue=queue) | InfoMin(queue=queue):
            return 2 * 5 * FLOAT * batch * (batch + (queue or 0))
        case InstDis(negatives=negatives) | CMC(negatives=negatives) | PIRL(negatives=negatives):
            return 2 * batch * (3 * FLOAT * known.train + (5 * FLOAT + 3 * LONG) * (negatives or batch))
        case CPC():
            pixels, _ = _pixels(spec, known)
            patches = pixels / getattr(spec.views, "size", 1) ** 2
            return 5 * FLOAT * (batch * math.sqrt(patches)) ** 2
    return 0


def _game(spec: ExperimentSpec, known: DatasetFacts, network: Network) -> float:
    """A step in which views are learned: encoders, and two convolutions of each coupling of g."""
    views = spec.views
    if not isinstance(views, Learned):
        return 0
    side = spec.dataset.image_size or known.image_size
    couplings = 2 * views.blocks * (2 * views.hidden + 8)
    items = (views.batch_size or 0) + (views.labelled_batch_size or 0)
    return items * FLOAT * side**2 * (2 * network.maps + couplings + 3 * VIEWS) + 5 * FLOAT * (views.batch_size or 0) ** 2


def _information(spec: ExperimentSpec, known: DatasetFacts, network: Network) -> float:
    """Views of K items and their scores, in single and in double; or a step of the supervised reference."""
    pixels, drawing = _pixels(spec, known)
    k = spec.mi.k or 2
    encoded = min(max(k, ENCODED), EMBEDDED) * (pixels / 2 * network.widest + drawing / 2)
    scores = k * drawing * FLOAT + encoded * FLOAT + 5 * LONG * k**2
    if not any(known.targets().values()):
        return scores
    weights = 3 * (2 + STATES[spec.pretrain.optimiser]) * network.weights * (2 if spec.views.two_kinds else 1)
    batch = 3 * min((spec.pretrain.batch_size or 256) // 2, REFERENCE_BATCH)
    return max(scores, FLOAT * (weights + batch * (pixels / 2 * network.maps * _narrower(spec) + drawing / 2)))


def _tasks(spec: ExperimentSpec, facts: Facts) -> float:
    """Features of all datasets, and two copies of one for the probe that reads them; clean items on their way through."""
    of_item = spec.encoder.features * (2 if spec.views.two_kinds else 1) * FLOAT
    datasets = [facts(task.dataset or spec.dataset) for task in spec.tasks]
    items = [known.train + known.test for known in datasets]
    return of_item * (sum(items) + 2 * max(items)) if items else 0


def _gigabytes(size: float) -> str:
    return f"{size / 2**30:.2g} GiB" if size < 10 * 2**30 else f"{size / 2**30:.0f} GiB"
