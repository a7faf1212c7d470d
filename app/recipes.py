"""The winning recipe of a sweep to take away: as code for torchvision or for lightly, or as a spec that can be posted again.

The code needs nothing of ours. It draws its chances as the workers' own views do, though not the same ones for the same seed.
"""

import json
import math
import re
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from enum import StrEnum
from textwrap import dedent, fill
from typing import Any

from pydantic import BaseModel, Field, JsonValue

from app.errors import Invalid, StateConflict
from ml import spec
from ml.curve import ERRORS, Curve, Interval, Point
from ml.spec import ExperimentSpec

WIDTH = 100  # of a line of code
STANDARD = ("collections", "math")  # what is imported of the standard library
WEIGHTS, LOADER = "view_generator.safetensors", "view_generator.py"  # what an experiment with learned views leaves


class RecipeFormat(StrEnum):
    """Ways of taking a recipe away."""

    TORCHVISION = "torchvision"
    LIGHTLY = "lightly"
    JSON = "json"


class Provenance(BaseModel):
    """Where a recipe comes from, and what speaks for it."""

    sweep: str
    name: str = Field(description="The sweep's title.")
    experiment: str = Field(description="The first of the trainings at this value, whose spec this is.")
    path: str = Field(description="The node of the spec along which the sweep ran.")
    value: JsonValue = Field(description="Its value here.")
    label: str = Field(description="The value's name in figures.")
    task: str = Field(description="The task that chose.")
    sweet_spot: bool = Field(description="Whether there is a sweet spot, and this is it; else it is the best measured so far.")
    words: str = Field(description="The curve's verdict on the task.")
    i_nce: float | None = Field(description="In nats, mean over the seeds.")
    i_nce_ci: Interval | None
    saturated: bool = Field(description="Read I_NCE as `at least`.")
    metric: str = Field(description="`accuracy`, of which more is better, or `pixels`, of which less is.")
    score: float = Field(description="How well the task is done, mean over the seeds.")
    score_ci: Interval | None
    seeds: int = Field(description="Trainings in the mean.")


class Recipe(BaseModel):
    """The winning recipe of a sweep."""

    spec: ExperimentSpec = Field(description="The resolved spec of the winning experiment, to be posted as it is.")
    provenance: Provenance


def winner(curve: Curve, state: str, task: str | None = None) -> tuple[str, Point]:
    """The task that chooses, the curve's first by default, and the point at its sweet spot, or else with its best mean result.

    Raises StateConflict where nothing is finished, in `state`, and Invalid where no task can choose, or none of this name.
    """
    if not any(point.i_nce is not None or point.tasks for point in curve.points):
        raise StateConflict(f"none of its experiments has finished yet, so no recipe has won: the sweep is {state}", state)
    if not curve.verdicts:
        raise Invalid("this sweep has no task by which a recipe could win; one with `tasks` in its base has")
    if task is not None and task not in curve.verdicts:
        raise Invalid.field("query/task", f"{' or '.join(curve.verdicts)}, not {task!r}")
    name = task or next(iter(curve.verdicts))
    spot = curve.verdicts[name].sweet_spot
    measured = [point for point in curve.points if name in point.tasks]
    if spot is not None:
        return name, next(point for point in measured if point.value == spot.value)
    sign = -1 if curve.verdicts[name].metric in ERRORS else 1
    return name, max(measured, key=lambda point: sign * point.tasks[name].value)


def provenance(curve: Curve, task: str, point: Point, sweep: str, name: str) -> Provenance:
    """What the curve says of the point that won."""
    verdict, result = curve.verdicts[task], point.tasks[task]
    return Provenance(
        sweep=sweep,
        name=name,
        experiment=point.experiments[0],
        path=curve.axis.path,
        value=point.value,
        label=point.label,
        task=task,
        sweet_spot=verdict.sweet_spot is not None,
        words=verdict.words,
        i_nce=point.i_nce,
        i_nce_ci=point.i_nce_ci,
        saturated=point.saturated,
        metric=result.metric,
        score=result.value,
        score_ci=result.ci,
        seeds=result.seeds,
    )


def code(
    recipe: Recipe, form: RecipeFormat, facts: spec.DatasetFacts | None = None, generator: str | None = None, url: str = ""
) -> str:
    """A Python file that makes both views of an image, by torchvision alone or as a `MultiViewTransform` of lightly.

    `facts` are those of the dataset, as far as they are known. Views that are learned need the text of the experiment's
    `view_generator.py`, and `url` is where the service is, for the weights. Raises Invalid where the format has no way to say it.
    """
    views = recipe.spec.views
    if isinstance(views, spec.Factors):
        raise _refused(
            "factors redraws what a scene of moving_mnist is made of, which no transform of a picture can; choose json"
        )
    if isinstance(views, spec.Learned) and generator is None:
        raise _refused(f"the experiment's {LOADER} is not in the artifacts folder any more; choose json")
    lightly = form is RecipeFormat.LIGHTLY
    made = _made(recipe.spec, facts, generator)
    if lightly and made.pair is not None:
        raise _refused(
            f"lightly's MultiViewTransform makes every view on its own, and {views.kind} draws both together; choose torchvision "
            "or json"
        )
    needs = ["torch", "torchvision", *(["lightly"] if lightly else []), *(["safetensors"] if generator is not None else [])]
    parts = [
        f'"""{_words(recipe, lightly, made, url)}\n\nNeeds {", ".join(needs[:-1])} and {needs[-1]}.\n"""\n',
        _imports(made, lightly),
        *(f"{name} = {value}\n" for name, value in made.constants),
        *([_assigned("load", made.loading)] if made.loading else []),
        *(f"\n\n{block}" for block in made.blocks),
        *(["\n\n"] if made.blocks else []),
    ]
    if made.pair is None:
        parts += [
            _assigned("view1", made.view1),
            "view2 = view1\n" if made.view2 == made.view1 else _assigned("view2", made.view2),
        ]
        parts.append(_LIGHTLY if lightly else _TWO_VIEWS)
        parts.append(_DEMO.format(image=made.demo, call="transform(image)" if lightly else "two_views(image)"))
        return _tidy(parts)
    parts += [_assigned("augment", made.view1)] if made.view1 else []
    parts += [f"\n\n{made.pair}"]
    return _tidy([*parts, _DEMO.format(image=made.demo, call="two_views(image)") if made.demo else ""])


# What is made of a family ---------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class _Group:
    """A call or a list: on one line where there is room, unless it is `tall`."""

    opening: str
    items: tuple["str | _Group", ...]
    closing: str
    tall: bool = False


_Node = str | _Group


@dataclass(frozen=True)
class _Made:
    """The code of a family: what both views begin with, what is done for each; or `pair`, a function that makes both at once."""

    loading: Sequence[_Node] = ()
    view1: Sequence[_Node] = ()
    view2: Sequence[_Node] = ()
    constants: Sequence[tuple[str, Any]] = ()
    blocks: Sequence[str] = ()
    pair: str | None = None
    imports: str = ""
    """Beside torch and torchvision: those of the standard library, and those of packages."""
    takes: str = "a PIL image, or a uint8 tensor [C, H, W]"
    gives: str = "Both are float32, pixels scaled to [0, 1]."
    demo: str = ""


@dataclass(frozen=True)
class _Images:
    """What is known of the images: channels are None where nothing is."""

    side: int
    channels: int | None
    native: bool
    """Whether patches are cut from photographs as they are."""

    @property
    def demo(self) -> str:
        return f"torch.randint(256, ({self.channels or 3}, SIDE, SIDE), dtype=torch.uint8)"


def _made(of: ExperimentSpec, facts: spec.DatasetFacts | None, generator: str | None) -> _Made:
    side = of.dataset.image_size or (facts.image_size if facts else 32)
    images = _Images(side, facts.channels if facts else None, native=facts is None or facts.layout == "photos")
    usual = _Made(_loading(images.channels), constants=[("SIDE", f"{side}  # pixels")], demo=images.demo)
    if of.views.kind == "learned":
        return _learned(of.views, images, usual, generator or "")
    families: dict[str, Callable[[Any, _Images, _Made], _Made]] = {
        "noise": _noise,
        "crop": _crop,
        "augment": _augment,
        "color_split": _color_split,
        "frequency": _frequency,
        "patches": _patches,
        "patch_grid": _patch_grid,
        "temporal": _temporal,
        "paired": _paired,
    }
    return families[of.views.kind](of.views, images, usual)


def _noise(views: spec.Noise, images: _Images, usual: _Made) -> _Made:
    steps = [_call("v2.GaussianNoise", f"sigma={views.sigma}", "clip=False")]
    gives = "Both are float32; pixels were scaled to [0, 1] before the noise, and are not clipped."
    return replace(usual, view1=steps, view2=steps, gives=gives)


def _crop(views: spec.Crop, images: _Images, usual: _Made) -> _Made:
    steps = [_call("RandomPlace", f"area={views.area}")]
    imports = "import math\nimport torch.nn.functional as F\n"
    return replace(usual, view1=steps, view2=steps, blocks=[_RANDOM_PLACE], imports=imports)


def _augment(views: spec.Augment, images: _Images, usual: _Made) -> _Made:
    view1, view2, blocks = _both(views, images)
    return replace(usual, view1=view1, view2=view2, blocks=blocks)


def _color_split(views: spec.ColorSplit, images: _Images, usual: _Made) -> _Made:
    view1, view2, blocks = _both(views.before, images)
    others = [channel for channel in range(3) if channel != views.first]
    converted = "image" if views.space == "rgb" else f"to_{views.space}(image)"
    blocks += [] if views.space == "rgb" else [_SPACES[views.space]]
    blocks.append(_PICKS.format(image=converted, first=[views.first], others=others))
    gives = f"The first is channel {views.first} of {views.space}, in scikit-image's units, the second the other two."
    if views.whiten:
        gives += " The sweep decorrelated the channels of each view in front of its encoder; that is not done here."
    return replace(
        usual,
        view1=[*view1, "first_channel"],
        view2=[*view2, "other_channels"],
        blocks=blocks,
        imports="import math\n" if views.space == "hed" else "",
        gives=gives,
    )


def _frequency(views: spec.Frequency, images: _Images, usual: _Made) -> _Made:
    view1, view2, blocks = _both(views.before, images)
    radius = min(math.ceil(4 * views.sigma), images.side - 1)
    blur = _flat(_call("v2.GaussianBlur", f"kernel_size={2 * radius + 1}", f"sigma={views.sigma}"))
    gives = "Both are float32: of pixels in [0, 1] the first is what a blur leaves, the second what it takes away."
    return replace(usual, view1=[*view1, "low"], view2=[*view2, "rest"], blocks=[*blocks, _REST.format(blur=blur)], gives=gives)


def _learned(views: spec.Learned, images: _Images, usual: _Made, generator: str) -> _Made:
    view1, view2, blocks = _both(views.before, images)
    loader, imports = _as_part(generator)
    return replace(
        usual,
        view1=[*view1, "first_channel"],
        view2=[*view2, "other_channels"],
        blocks=[*blocks, loader, _LEARNED],
        imports=imports,
        gives="The first is channel 0 of the learned colours, the second the other two.",
    )


def _patches(views: spec.Patches, images: _Images, usual: _Made) -> _Made:
    constants = [("SIZE", f"{views.size}  # pixels of a patch"), ("DISTANCE", f"{views.distance}  # pixels right and down")]
    if not images.native:
        return replace(usual, pair=_PATCHES, constants=[*usual.constants, *constants])
    demo = usual.demo.replace("SIDE, SIDE", "2 * SIZE + DISTANCE, 2 * SIZE + DISTANCE")
    loading = _loading(images.channels, resized=False)
    return replace(usual, loading=loading, pair=_PATCHES, constants=constants, demo=demo)


def _patch_grid(views: spec.PatchGrid, images: _Images, usual: _Made) -> _Made:
    augmented, _, blocks = _both(views.before, images)
    pair = _PATCH_GRID.format(image="augment(load(image))" if augmented else "load(image)")
    constants = [*usual.constants, ("SIZE", f"{views.size}  # pixels of a patch"), ("STRIDE", str(views.stride))]
    return replace(usual, view1=augmented, blocks=blocks, pair=pair, constants=constants)


def _temporal(views: spec.Temporal, images: _Images, usual: _Made) -> _Made:
    return replace(
        usual,
        loading=_loading(None)[1:],  # a clip is a tensor already
        pair=_TEMPORAL,
        constants=[*usual.constants, ("GAP", f"{views.gap}  # frames")],
        takes="a clip, a uint8 tensor [T, C, H, W]",
        demo=usual.demo.replace(", (", ", (GAP + 4, "),
    )


def _paired(views: spec.Paired, images: _Images, usual: _Made) -> _Made:
    loading = _loading(None, resized=False)
    return _Made(loading, pair=_PAIRED, takes="both pictures of an item, PIL images or uint8 tensors", gives=usual.gives)


def _loading(channels: int | None, resized: bool = True) -> list[_Node]:
    """From what a dataset hands out to pixels in [0, 1], as the service prepares its images: the central square."""
    colours = {1: ["v2.Grayscale()"], 3: ["v2.RGB()"]}.get(channels or 0, [])
    square = ["v2.Resize(SIDE)", "v2.CenterCrop(SIDE)"] if resized else []
    return ["v2.ToImage()", *colours, *square, "v2.ToDtype(torch.float32, scale=True)", "v2.ToPureTensor()"]


def _both(recipe: spec.Augment | None, images: _Images) -> tuple[list[_Node], list[_Node], list[str]]:
    """What is done for each of the views, and the classes that it needs."""
    if recipe is None:
        return [], [], []
    one, other = (_operations(operations, images) for operations in (recipe, recipe.of_v2))
    return one, other, [_CUTOUT] if recipe.cutout_p > 0 or recipe.of_v2.cutout_p > 0 else []


def _operations(recipe: spec.Operations, images: _Images) -> list[_Node]:
    """Transforms of torchvision in our order. Its `ColorJitter` shuffles what it changes, so each change has one of its own."""
    channels = images.channels
    bilinear = "interpolation=v2.InterpolationMode.BILINEAR"
    brightness, contrast, saturation, hue = (recipe.jitter * strength for strength in recipe.jitter_strengths)
    changes = [("brightness", brightness), ("contrast", contrast)]
    changes += [("saturation", saturation), ("hue", min(hue, 0.5))] if channels != 1 else []
    jitter = [_call("v2.ColorJitter", f"{name}={most}") for name, most in changes if most > 0]
    radius = min(math.ceil(3 * recipe.blur_sigma[1]), images.side - 1)
    ratio = [] if recipe.crop_ratio == (3 / 4, 4 / 3) else [f"ratio={recipe.crop_ratio}"]
    operations = (
        (recipe.crop_p, [_call("v2.RandomResizedCrop", "SIDE", f"scale=({recipe.crop_scale_min}, 1.0)", *ratio)]),
        (recipe.flip_p, [_call("v2.RandomHorizontalFlip", "p=1")]),
        (recipe.rotate_p, [_call("v2.RandomRotation", str(recipe.rotate_degrees), bilinear)]),
        (recipe.jitter_p, jitter),
        (recipe.blur_p, [_call("v2.GaussianBlur", f"kernel_size={2 * radius + 1}", f"sigma={recipe.blur_sigma}")]),
        (
            recipe.randaugment_p if recipe.randaugment_n else 0,
            [_call("v2.RandAugment", f"num_ops={recipe.randaugment_n}", f"magnitude={recipe.randaugment_m}", bilinear)],
        ),
        (recipe.grayscale_p if channels != 1 else 0, [_call("v2.RandomGrayscale", "p=1")]),
        (recipe.solarize_p, [_call("v2.RandomSolarize", f"threshold={recipe.solarize_threshold}", "p=1")]),
        (recipe.cutout_p, [_call("Cutout", f"share={recipe.cutout_share}")]),
    )
    colours = any(chance > 0 and done for chance, done in (operations[3], operations[5]))
    if channels not in (None, 1, 3) and colours:
        raise _refused(f"torchvision changes the colours of 1 or 3 channels, and these images have {channels}; choose json")
    return [step for chance, done in operations for step in _with_chance(chance, done)]


def _with_chance(chance: float, done: Sequence[_Node]) -> list[_Node]:
    """Steps that happen together with this chance; one that takes its chance itself ends in `p=1`."""
    if chance == 0 or not done:
        return []
    (*_, last) = done
    if isinstance(last, _Group) and last.items[-1] == "p=1":
        return [replace(last, items=(*last.items[:-1], f"p={chance}"))]
    if chance == 1:
        return list(done)
    listed = _Group("[", tuple(done), "]", tall=len(done) > 1)
    return [_Group("v2.RandomApply(", (listed, f"p={chance}"), ")", tall=len(done) > 1)]


def _as_part(loader: str) -> tuple[str, str]:
    """The code of `view_generator.py` without its docstring and its own use, and its imports."""
    _, _, body = loader.partition('"""\n\n')
    body, _, _ = body.partition('\n\nif __name__ == "__main__":')
    last = "from torch import Tensor, nn\n"
    imports, _, rest = body.partition(last)
    return f"# The experiment's own {LOADER}\n# fmt: off\n{rest.strip(chr(10))}\n\n\n# fmt: on\n", imports + last


def _refused(why: str) -> Invalid:
    return Invalid.field("query/format", why)


# How it is written ----------------------------------------------------------------------------------------------------


def _call(name: str, *arguments: str) -> _Group:
    return _Group(f"{name}(", arguments, ")")


def _flat(node: _Node) -> str:
    return node if isinstance(node, str) else node.opening + ", ".join(map(_flat, node.items)) + node.closing


def _is_tall(node: _Node) -> bool:
    return isinstance(node, _Group) and (node.tall or any(map(_is_tall, node.items)))


def _written(node: _Node, depth: int, before: str = "", after: str = "") -> str:
    """On a line of its own, or on several where it is tall or too long, each item then ending in a comma."""
    lead = 4 * depth * " " + before
    if isinstance(node, str) or (not _is_tall(node) and len(lead + _flat(node) + after) <= WIDTH):
        return f"{lead}{_flat(node)}{after}\n"
    items = "".join(_written(item, depth + 1, after=",") for item in node.items)
    return f"{lead}{node.opening}\n{items}{4 * depth * ' '}{node.closing}{after}\n"


def _assigned(name: str, steps: Sequence[_Node]) -> str:
    if len(steps) < 2:
        return _written(steps[0] if steps else "v2.Identity()", 0, f"{name} = ")
    listed = _Group("[", tuple(steps), "]", tall=True)
    return _written(_Group("v2.Compose(", (listed,), ")", tall=True), 0, f"{name} = ")


def _imports(made: _Made, lightly: bool) -> str:
    given = {*made.imports.splitlines(), "import torch", "from torchvision.transforms import v2"}
    given |= {"from torch import Tensor"} if made.pair or made.blocks or not lightly else set()
    given |= {"from lightly.transforms.multi_view_transform import MultiViewTransform"} if lightly else set()
    if "from torch import Tensor, nn" in given:
        given.discard("from torch import Tensor")
    ours = sorted(line for line in given if line and line.split()[1] not in STANDARD)
    standard = sorted(given - {*ours, ""}, key=lambda line: (line.startswith("from"), line))
    packages = sorted(ours, key=lambda line: (line.startswith("from"), line))
    return "\n" + "\n".join([*standard, *([""] if standard else []), *packages]) + "\n\n"


def _tidy(parts: Iterable[str]) -> str:
    """In one piece, with two blank lines between blocks."""
    return re.sub(r"\n{4,}", "\n\n\n", "".join(parts))


def _words(recipe: Recipe, lightly: bool, made: _Made, url: str) -> str:
    """What the file is, from which sweep, what speaks for it, and how to use it."""
    found, views = recipe.provenance, recipe.spec.views
    at = "the sweet spot of" if found.sweet_spot else "the best measured so far for"
    verdict = found.words if found.sweet_spot else f"{found.words}. No sweet spot is established: this is the best so far"
    title = f" ({_plain(found.name)})" if found.name else ""
    score = f"the mean distance {_short(found.score, found.score_ci)} px" if found.metric in ERRORS else (
        f"the accuracy {_short(found.score, found.score_ci)}"
    )  # fmt: skip
    least = "at least " if found.saturated else ""
    nats = "not known" if found.i_nce is None else f"{least}{_short(found.i_nce, found.i_nce_ci)} nats"
    node = json.dumps({"kind": views.kind, **views.model_dump(mode="json", exclude_none=True)})
    paragraphs = [
        f"Two views of an image, as a sweep of Sweetspot found them best: {views.kind}, {at} {_plain(found.task)}.",
        f"The verdict: {_plain(verdict)}.",
        f"Here I_NCE is {nats} and {score}, over {found.seeds} seed{'s' * (found.seeds != 1)}; intervals are 95 %.",
        f"Sweep {found.sweep}{title}: {found.path} = {_plain(found.label)}; experiment {found.experiment}.",
        f"The recipe: {node}",
    ]
    if isinstance(views, spec.Learned):
        paragraphs.append(f"Its weights, {WEIGHTS}, must lie beside this file:")
        paragraphs.append(f"    curl -O {url}/v1/experiments/{found.experiment}/artifacts/{WEIGHTS}")
    notes = []
    if isinstance(recipe.spec.method, spec.PIRL | spec.InfoMin):
        notes = [f"The method {recipe.spec.method.kind} cuts its 3x3 jigsaw itself: it is no part of the views."]
    use = "    first, second = two_views(image)" if made.pair != _PAIRED else "    first, second = two_views(*images)"
    use = f"{use}  # {made.takes}"
    if lightly:
        use = '    dataset = LightlyDataset("images", transform=transform)  # each item: [first, second]'
    paragraphs += [use, " ".join([made.gives, "Standardise them in front of the encoder.", *notes])]
    return "\n\n".join(text if text.startswith("    ") else fill(text, WIDTH - 3) for text in paragraphs)


def _short(value: float, interval: Interval | None) -> str:
    return f"{value:.3g}" + (f" ({interval[0]:.3g} to {interval[1]:.3g})" if interval else "")


def _plain(text: str) -> str:
    """Text from outside as it may stand in a docstring."""
    printable = "".join(letter if letter.isprintable() else " " for letter in text)
    return " ".join(printable.replace("\\", "/").replace('"', "'").split())


def _block(text: str) -> str:
    return dedent(text).strip("\n") + "\n"


_TWO_VIEWS = '''

def two_views(image) -> tuple[Tensor, Tensor]:
    """Both views of a PIL image or of a uint8 tensor [C, H, W]."""
    image = load(image)
    return view1(image), view2(image)
'''

_LIGHTLY = "\ntransform = MultiViewTransform([v2.Compose([load, view1]), v2.Compose([load, view2])])\n"

_DEMO = """

if __name__ == "__main__":
    image = {image}
    first, second = {call}
    print(first.shape, second.shape)
"""

_RANDOM_PLACE = _block('''
    class RandomPlace(torch.nn.Module):
        """A box with this share of the image's area and the image's proportions, anywhere, resized back."""

        def __init__(self, area: float) -> None:
            super().__init__()
            self.share = math.sqrt(area)

        def forward(self, image: Tensor) -> Tensor:
            y, x = (self.places(size) for size in image.shape[-2:])
            grid = torch.stack(torch.meshgrid(x, y, indexing="xy"), dim=-1)
            return F.grid_sample(image[None], grid[None], padding_mode="border", align_corners=True)[0]

        def places(self, size: int) -> Tensor:
            """Where each pixel comes from, from -1 to 1; what lies outside the box is not looked at."""
            start = torch.rand(()) * (1 - self.share) * size
            last = torch.maximum(start + self.share * size - 1, start)
            pixels = start + (torch.arange(size) + 0.5) * self.share - 0.5
            return 2 * pixels.clamp(start, last).clamp(max=size - 1) / (size - 1) - 1
''')

_CUTOUT = _block('''
    class Cutout(torch.nn.Module):
        """A square about a uniform pixel turns black; what sticks out of the image is left out."""

        def __init__(self, share: float) -> None:
            super().__init__()
            self.share = share

        def forward(self, image: Tensor) -> Tensor:
            rows, columns = (self.covered(size) for size in image.shape[-2:])
            return image * ~(rows[:, None] & columns)

        def covered(self, size: int) -> Tensor:
            side = max(round(self.share * size), 1)
            below = torch.arange(size) - (torch.randint(size, ()) - side // 2)
            return (below >= 0) & (below < side)
''')

_PICKS = _block("""
    def first_channel(image: Tensor) -> Tensor:
        return {image}[{first}]


    def other_channels(image: Tensor) -> Tensor:
        return {image}[{others}]
""")

_REST = _block('''
    low = {blur}  # sigma in pixels


    def rest(image: Tensor) -> Tensor:
        """What the blur takes away."""
        return image - low(image)
''')

_LEARNED = _block(f'''
    generator = load_view_generator("{WEIGHTS}")


    def first_channel(image: Tensor) -> Tensor:
        return generator(image[None])[0, :1]


    def other_channels(image: Tensor) -> Tensor:
        return generator(image[None])[0, 1:]
''')

_PATCHES = _block('''
    def two_views(image) -> tuple[Tensor, Tensor]:
        """A patch at a uniform place, and the one DISTANCE pixels to the right of it and below."""
        image = load(image)
        height, width = image.shape[-2:]
        reach = SIZE + DISTANCE
        if min(height, width) < reach:
            raise ValueError(f"both patches need {reach} pixels, and the image has {height} x {width}")
        top, left = (int(torch.randint(side - reach + 1, ())) for side in (height, width))
        first = image[:, top : top + SIZE, left : left + SIZE]
        top, left = top + DISTANCE, left + DISTANCE
        return first, image[:, top : top + SIZE, left : left + SIZE]
''')

_PATCH_GRID = _block('''
    def two_views(image) -> tuple[Tensor, Tensor]:
        """Of overlapping patches one that has others below it, and one of those in its column."""
        image = {image}
        rows, columns = ((side - SIZE) // STRIDE + 1 for side in image.shape[-2:])
        column = int(torch.randint(columns, ()))
        upper = int(torch.randint(rows - 1, ()))
        lower = upper + 1 + int(torch.randint(rows - 1 - upper, ()))
        return patch(image, upper, column), patch(image, lower, column)


    def patch(image: Tensor, row: int, column: int) -> Tensor:
        top, left = STRIDE * row, STRIDE * column
        return image[:, top : top + SIZE, left : left + SIZE]
''')

_TEMPORAL = _block('''
    def two_views(clip: Tensor) -> tuple[Tensor, Tensor]:
        """A frame at a uniform time, and the one GAP frames later."""
        time = int(torch.randint(len(clip) - GAP, ()))
        first, second = load(clip[[time, time + GAP]])
        return first, second
''')

_PAIRED = _block('''
    def two_views(first, second) -> tuple[Tensor, Tensor]:
        """The two pictures of an item as they are: nothing is done to them."""
        return load(first), load(second)
''')


# Colour spaces, as scikit-image converts to them ----------------------------------------------------------------------


def _linear(space: str, matrix: Iterable[Sequence[float]], plus: str = "") -> str:
    rows = "".join(f"        [{', '.join(map(str, row))}],\n" for row in matrix)
    name = f"RGB_TO_{space.upper()}"
    function = f"def to_{space}(image: Tensor) -> Tensor:\n"
    mixed = f'torch.einsum("dc,chw->dhw", {name}, image)\n'
    mixed = f"    mixed = {mixed}    return mixed{plus}\n" if plus else f"    return {mixed}"
    return f"{name} = torch.tensor(\n    [\n{rows}    ]\n)\n\n\n{function}{mixed}"


_Y = (0.299, 0.587, 0.114)
_XYZ = ((0.412453, 0.35758, 0.180423), (0.212671, 0.71516, 0.072169), (0.019334, 0.119193, 0.950227))  # of linear light
_LIGHT = _linear("xyz", _XYZ).replace(", image)", ", linear_light(image))") + _block('''


    def linear_light(image: Tensor) -> Tensor:
        """The transfer function of sRGB undone."""
        return torch.where(image > 0.04045, ((image + 0.055) / 1.055) ** 2.4, image / 12.92)
''').replace("def linear_light", "\n\ndef linear_light", 1)  # fmt: skip

_SPACES: dict[str, str] = {
    "yuv": _linear("yuv", (_Y, (-0.14714119, -0.28886916, 0.43601035), (0.61497538, -0.51496512, -0.10001026))),
    "yiq": _linear("yiq", (_Y, (0.59590059, -0.27455667, -0.32134392), (0.21153661, -0.52273617, 0.31119955))),
    "ypbpr": _linear("ypbpr", (_Y, (-0.168736, -0.331264, 0.5), (0.5, -0.418688, -0.081312))),
    "ydbdr": _linear("ydbdr", (_Y, (-0.45, -0.883, 1.333), (-1.333, 1.116, 0.217))),
    "ycbcr": _linear(
        "ycbcr",
        ((65.481, 128.553, 24.966), (-37.797, -74.203, 112.0), (112.0, -93.786, -18.214)),
        " + torch.tensor([16, 128, 128])[:, None, None]",
    ),
    "xyz": _LIGHT,
    "lab": _LIGHT
    + "\n\n"
    + _block('''
        def to_lab(image: Tensor) -> Tensor:
            """CIE 1976, under the white D65: L from 0 to 100."""
            relative = to_xyz(image) / torch.tensor([0.95047, 1.0, 1.08883])[:, None, None]
            roots = relative.clamp(min=0) ** (1 / 3)
            x, y, z = torch.where(relative > 0.008856, roots, 7.787 * relative + 16 / 116)
            return torch.stack((116 * y - 16, 500 * (x - y), 200 * (y - z)))
    '''),
    "luv": _LIGHT
    + "\n\n"
    + _block('''
        def to_luv(image: Tensor) -> Tensor:
            """CIE 1976, under the white D65: L from 0 to 100; black has no chroma."""
            x, y, z = to_xyz(image)
            light = torch.where(y > 0.008856, 116 * y.clamp(min=0) ** (1 / 3) - 16, 903.3 * y)
            total = (x + 15 * y + 3 * z).clamp(min=1e-12)
            white_x, white_y, white_z = 0.95047, 1.0, 1.08883
            white = white_x + 15 * white_y + 3 * white_z
            u, v = 4 * x / total - 4 * white_x / white, 9 * y / total - 9 * white_y / white
            return torch.stack((light, 13 * light * u, 13 * light * v))
    '''),
    "hsv": _block('''
        def to_hsv(image: Tensor) -> Tensor:
            """Hue in turns, 0 for greys."""
            red, green, blue = image
            value, least = image.amax(dim=0), image.amin(dim=0)
            chroma = value - least
            sixths = torch.where(value == green, blue - red + 2 * chroma, green - blue)
            sixths = torch.where(value == blue, red - green + 4 * chroma, sixths)
            hue = (sixths / (6 * chroma.clamp(min=1e-12))) % 1
            return torch.stack((hue * (chroma > 0), chroma / value.clamp(min=1e-12), value))
    '''),
    "hed": _block('''
        # red, green and blue absorbed by haematoxylin, eosin and DAB: Ruifrok and Johnston 2001
        STAINS = torch.tensor([[0.65, 0.7, 0.29], [0.07, 0.99, 0.11], [0.27, 0.57, 0.78]])


        def to_hed(image: Tensor) -> Tensor:
            """Stains as absorbances over that of a pixel of 1e-6."""
            absorbed = image.clamp(min=1e-6).log() / math.log(1e-6)
            return torch.einsum("cd,chw->dhw", STAINS.inverse(), absorbed).clamp(min=0)
    '''),
}
"""Code for each space but RGB itself."""
