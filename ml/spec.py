"""The vocabulary: everything that can be asked of Sweetspot, on one page.

pydantic only, so that the API and the workers share it without torch in the API. Unknown fields are refused, numbers are finite,
and every part but `dataset` and `views` has a default. `resolve` turns what was asked into what will be run.
"""

import json
import math
import os
import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from hashlib import sha256
from io import FileIO
from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal
from zipfile import BadZipFile, ZipFile

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, JsonValue, create_model, field_validator, model_validator
from pydantic.fields import FieldInfo


class Part(BaseModel):
    """A piece of a spec: immutable, finite, and with no unknown fields."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)


class SpecError(ValueError):
    """A spec that is well-formed and still cannot be run; `pointer` is the JSON pointer of the field at fault."""

    def __init__(self, pointer: str, message: str) -> None:
        super().__init__(message)
        self.pointer = pointer
        self.message = message


Probability = Annotated[float, Field(ge=0, le=1)]
Temperature = Annotated[float, Field(ge=0.005, le=10)]


# Datasets ------------------------------------------------------------------------------------------------------------


Layout = Literal["images", "photos", "clips", "paired", "scenes"]


DATASET_NAME = r"^[A-Za-z0-9][A-Za-z0-9_.-]*$"


class Dataset(Part):
    """Where the items come from, and the size at which they are seen."""

    name: str = Field(
        min_length=1,
        max_length=100,
        pattern=DATASET_NAME,
        examples=["digits", "mnist", "cifar10"],
        description="A name of `GET /v1/catalog/datasets`, the `ds_…` id of an upload, or the name of an npz or of a folder of "
        "images in the datasets folder.",
    )
    image_size: int | None = Field(
        None, ge=8, le=512, description="Side of the square images in pixels; the dataset's own by default."
    )
    version: str | None = Field(
        None,
        max_length=64,
        description="Digest of what a file of one's own holds: filled in by the service, refused where it holds other data.",
    )
    digits: str | None = Field(
        None,
        max_length=100,
        pattern=DATASET_NAME,
        description="`moving_mnist` alone: `mnist` or `digits`; MNIST where it is there by default.",
    )
    backgrounds: str | None = Field(
        None,
        max_length=100,
        pattern=DATASET_NAME,
        description="`moving_mnist` alone: a dataset of RGB images, or `textures`; by default the first of STL-10, CIFAR-10 and "
        "ten procedural textures that is there. Of more than 20000 for training and 5000 held out an even choice serves.",
    )


class DatasetFacts(Part):
    """What must be known of a dataset to resolve a spec: counts of items, and the shape and classes of an item."""

    name: str
    layout: Layout = Field(
        "images",
        description="`photos` are images of any sizes, `clips` have several frames, `paired` items come as v1 and v2, `scenes` "
        "are clips made on the device.",
    )
    train: int = Field(ge=1, description="Items for pretraining and for the probes' labels.")
    test: int = Field(ge=0, description="Held-out items: mutual information and the tasks are measured on them.")
    labelled: int | None = Field(None, description="Training items that have a label; null: all of them.")
    channels: int = Field(ge=1)
    channels2: int | None = Field(None, description="Of v2, where items are paired.")
    image_size: int = Field(ge=1, description="The default side of an image in pixels.")
    smallest_side: int | None = Field(None, description="Of all photographs, in pixels; null where all images are alike.")
    frames: int | None = Field(None, description="Frames of a clip; null for still images.")
    dtype: Literal["uint8", "uint16", "float32"] = Field("uint8", description="Numbers in which the pixels are stored.")
    classes: int | None = Field(
        None, description="Number of classes; null unless both splits have labels, of two classes at least."
    )
    factors: dict[str, int | None] = Field({}, description="Other targets with their number of classes; null for a position.")
    digits: str | None = Field(None, description="What the digits of scenes are taken from.")
    backgrounds: str | None = Field(None, description="What the backgrounds of scenes are taken from.")
    version: str | None = Field(None, description="Digest of what the file holds; null for the published datasets.")

    @property
    def calibration(self) -> int:
        """Held-out items kept apart to refit the temperature of I_NCE."""
        return min(self.test // 4, 1024)

    @property
    def candidates(self) -> int:
        """The largest K: held-out items from which I_NCE draws its candidates."""
        return self.test - self.calibration

    def targets(self) -> dict[str, int | None]:
        """What can be predicted, with the number of classes, or None where it is a position in pixels."""
        return ({} if self.classes is None else {"label": self.classes}) | self.factors


def held_out(items: int) -> int:
    """Items held out of a dataset that comes without a split of its own: 40 %, to the nearest whole item."""
    return round(0.4 * items)


def npz_version(path: Path) -> str:
    """What an npz holds, as a digest of its directory, in which the checksum of each array stands: quick for any size.

    Raises OSError or zipfile.BadZipFile.
    """
    with ZipFile(path) as archive:
        content = sorted((member.filename, member.file_size, member.CRC) for member in archive.infolist())
    return sha256(repr(content).encode()).hexdigest()[:16]


class SparingFile(FileIO):
    """A zip's file for whoever looks at its directory, which is read at once: it gives no more than `most` bytes at a time."""

    def __init__(self, path: Path, most: int) -> None:
        super().__init__(path)
        self.most = most

    def read(self, size: int | None = -1, /) -> bytes:
        """Raises BadZipFile where that is more than anybody needs, whatever the zip says of itself."""
        left = os.fstat(self.fileno()).st_size - self.tell()
        wanted = left if size is None or size < 0 else min(size, left)
        if wanted > self.most:
            raise BadZipFile(f"its directory has {wanted} bytes, and at most {self.most} are read")
        return super().read(wanted) or b""


def image_files(folder: Path) -> tuple[tuple[tuple[str, int], ...], tuple[str, ...]]:
    """JPEG and PNG files below a folder, with their sizes in bytes, and all folders in it, the folder itself being `.`.

    Names are relative to it and in order; links are followed, and what is hidden is passed over. Raises OSError.
    """
    files, folders, visited = [], [], set()
    for path, subfolders, names in os.walk(folder, followlinks=True):
        if (real := os.path.realpath(path)) in visited:  # a link to where we come from
            subfolders.clear()
            continue
        visited.add(real)
        subfolders[:] = [name for name in subfolders if not name.startswith(".")]
        here = Path(path).relative_to(folder)
        folders.append(here.as_posix())
        files += [((here / name).as_posix(), (Path(path) / name).stat().st_size) for name in names if is_image(name)]
    return tuple(sorted(files)), tuple(folders)


def is_image(name: str) -> bool:
    """Whether a file's name says that it is a JPEG or a PNG; hidden files are none."""
    return name.lower().endswith((".jpg", ".jpeg", ".png")) and not name.rpartition("/")[2].startswith(".")


def folder_version(files: Iterable[tuple[str, int]]) -> str:
    """What a folder holds, as a digest of its files' names and sizes: quick for any size, and the same after a copy."""
    return sha256(repr(sorted(files)).encode()).hexdigest()[:16]


def class_folders(names: Sequence[str]) -> list[tuple[str, str]] | None:
    """The split and the class that each image's folders say, or None where they say none and the images are photographs.

    Outer folders that all images share do not count. Classes are said by `train/CLASS/` and `test/CLASS/` (or `val`), or, with an
    empty split, by `CLASS/`, if there are two at least and none is named for a split as in DIV2K_train_HR. Images lie directly in
    the folders of the classes, or there are none.
    """
    places = [name.split("/")[:-1] for name in names]
    while places and places[0] and all(place[:1] == places[0][:1] for place in places):
        places = [place[1:] for place in places]
    if all(len(place) == 2 for place in places):
        splits = {split for split, _ in places}
        if "train" in splits and splits <= {"train", "test", "val"}:
            return [(split, kind) for split, kind in places]
    if all(len(place) == 1 for place in places):
        kinds = {kind for (kind,) in places}
        if len(kinds) > 1 and not any(set(re.split("[^a-z]+", kind.lower())) & _SPLITS for kind in kinds):
            return [("", kind) for (kind,) in places]
    return None


_SPLITS = {"train", "training", "val", "valid", "validation", "test", "testing"}
MOST_PIXELS = 64_000_000  # of one image: a small file may unpack to more than any memory holds


def image_sides(file: Any) -> tuple[int, int]:
    """Height and width as they are stored, from the header of an open JPEG or PNG alone.

    Raises ValueError, also for more than `MOST_PIXELS`, with what the file is.
    """
    start = file.read(24)
    if start.startswith(b"\x89PNG\r\n\x1a\n") and start[12:16] == b"IHDR" and len(start) == 24:
        width, height = int.from_bytes(start[16:20], "big"), int.from_bytes(start[20:], "big")
    elif start.startswith(b"\xff\xd8\xff"):
        height, width = _jpeg_sides(file)
    else:
        raise ValueError("is no JPEG or PNG, whatever its name says")
    if not 0 < height * width <= MOST_PIXELS:
        raise ValueError(f"has {height * width / 1e6:.0f} million pixels; up to {MOST_PIXELS // 1_000_000} million are accepted")
    return height, width


def _jpeg_sides(file: Any) -> tuple[int, int]:
    file.seek(2)
    for _ in range(10_000):
        segment = file.read(4)
        if len(segment) < 4 or segment[0] != 0xFF:
            break
        if segment[1] == 0xFF:  # a byte that fills up
            file.seek(file.tell() - 3)
        elif 0xC0 <= segment[1] <= 0xCF and segment[1] not in (0xC4, 0xC8, 0xCC):  # the header of a frame, not a table
            sides = file.read(5)[1:]
            return int.from_bytes(sides[:2], "big"), int.from_bytes(sides[2:], "big")
        else:
            file.seek(file.tell() + int.from_bytes(segment[2:], "big") - 2)
    raise ValueError("is a JPEG without an image in it")


# Views: one model a family --------------------------------------------------------------------------------------------


class Family(Part):
    """What all view recipes say of themselves."""

    takes: ClassVar[tuple[Layout, ...]] = ("images", "photos")
    """Layouts of datasets on which the family works; photographs are seen as square images unless it asks for more."""
    two_kinds: ClassVar[bool] = False
    """Whether v1 and v2 are of different kinds, so that each has an encoder of its own."""
    rgb: ClassVar[bool] = False
    """Whether it needs images of three channels, red, green and blue."""

    @property
    def exchangeable(self) -> bool:
        """Whether v1 and v2 are made alike, so that a past v1 is as good a partner of v1 as v2 is."""
        return False


class Noise(Family):
    """v_i = x + sigma * n_i with standard Gaussian n_i, drawn anew for each view and not clipped."""

    kind: Literal["noise"]
    sigma: float = Field(
        0.5, ge=0, le=100, description="Standard deviation, in units of pixels scaled to [0, 1], before standardisation."
    )

    @property
    def exchangeable(self) -> bool:
        """They are made alike."""
        return True


class Crop(Family):
    """A square crop of exactly this fraction of the image at a uniform place, resized back; no flip."""

    kind: Literal["crop"]
    area: float = Field(0.5, gt=0, le=1, description="Fraction of the image's area that each view sees.")

    @property
    def exchangeable(self) -> bool:
        """They are made alike."""
        return True


def _rising(bounds: tuple[float, float]) -> tuple[float, float]:
    low, high = bounds
    if not 0 < low <= high:
        raise ValueError(f"must be (low, high) with 0 < low <= high, not ({low}, {high})")
    return bounds


Range = Annotated[tuple[float, float], AfterValidator(_rising)]
Strength = Annotated[float, Field(ge=0, le=1)]


class Operations(Part):
    """What is done to an image to make a view of it, in the order of the fields."""

    crop_scale_min: float = Field(
        0.2, gt=0, le=1, description="c: a random resized crop takes a share of the area uniform in (c, 1)."
    )
    crop_ratio: Range = Field((3 / 4, 4 / 3), description="Aspect ratios of the crop, log-uniform.")
    crop_p: Probability = Field(1.0, description="Chance of the crop.")
    flip_p: Probability = Field(0.5, description="Chance of a horizontal flip.")
    rotate_degrees: float = Field(
        30.0, ge=0, le=180, description="A rotation turns by up to so many degrees either way, uniform; corners turn black."
    )
    rotate_p: Probability = Field(0.0, description="Chance of the rotation.")
    jitter: float = Field(1.0, ge=0, le=2.5, description="x: how much the colours change, in multiples of `jitter_strengths`.")
    jitter_strengths: tuple[Strength, Strength, Strength, Strength] = Field(
        (0.8, 0.8, 0.8, 0.2),
        description="At x = 1 brightness, contrast and saturation change by up to these factors either way, and hue by up to "
        "this share of the circle (at most 0.5).",
    )
    jitter_p: Probability = Field(0.8, description="Chance of the colour jitter.")
    blur_sigma: Range = Field((0.1, 2.0), description="Standard deviations of the blur in pixels, uniform.")
    blur_p: Probability = Field(0.0, description="Chance of the Gaussian blur.")
    randaugment_n: int = Field(0, ge=0, le=10, description="Operations of RandAugment, one after the other; 0: none.")
    randaugment_m: int = Field(9, ge=0, le=30, description="Magnitude of each, where 30 is the strongest.")
    randaugment_p: Probability = Field(1.0, description="Chance of RandAugment.")
    grayscale_p: Probability = Field(0.2, description="Chance of grayscale.")
    solarize_threshold: Strength = Field(0.5, description="Solarizing inverts pixels from here upwards, scaled to [0, 1].")
    solarize_p: Probability = Field(0.0, description="Chance of solarizing.")
    cutout_share: float = Field(
        0.5, gt=0, le=1, description="Side of the square that is cut out, as a share of the image's side; it turns black."
    )
    cutout_p: Probability = Field(0.0, description="Chance of cutout.")


def _optional(field: FieldInfo) -> tuple[Any, Any]:
    constrained: Any = Annotated[(field.annotation, *field.metadata)] if field.metadata else field.annotation
    return constrained | None, Field(None, description=field.description)


Overrides = create_model(
    "Overrides",
    __base__=Part,
    __doc__="How v2 is made differently: any of the operations' fields, null where it is made as v1.",
    **{name: _optional(field) for name, field in Operations.model_fields.items()},  # type: ignore[call-overload]
)

AUGMENT_RECIPES: dict[str, dict[str, Any]] = {
    # Chen et al. 2020, appendix A, for ImageNet. Its blur's kernel covers a tenth of the side; here sigma alone decides.
    "simclr": {"crop_scale_min": 0.08, "jitter": 1.0, "blur_sigma": (0.1, 2.0), "blur_p": 0.5},
    # Chen, Fan, Girshick, He 2020, in the authors' code.
    "moco_v2": {"crop_scale_min": 0.2, "jitter_strengths": (0.4, 0.4, 0.4, 0.1), "blur_sigma": (0.1, 2.0), "blur_p": 0.5},
    # Tian et al. 2020. The authors' RandAugment has other operations, does each with chance 1/2, and calls its strongest 10.
    "infomin": {
        "crop_scale_min": 0.2,
        "jitter": 1.0,
        "blur_sigma": (0.1, 2.0),
        "blur_p": 0.5,
        "randaugment_n": 2,
        "randaugment_m": 10,
    },
    # Grill et al. 2020, table 6.
    "byol": {
        "crop_scale_min": 0.08,
        "jitter_strengths": (0.4, 0.4, 0.2, 0.1),
        "blur_sigma": (0.1, 2.0),
        "blur_p": 1.0,
        "solarize_threshold": 0.5,
        "v2": {"blur_p": 0.1, "solarize_p": 0.2},
    },
    # SimCLR at strength 0.5 and without blur, as in the CIFAR-10 benchmark of lightly.
    "lightly_cifar10": {"crop_scale_min": 0.08, "jitter": 0.5},
}


class Augment(Operations, Family):
    """Random crops, flips, colours and more, each with its strength and its chance, drawn per sample and per view.

    Applied in the order crop, flip, rotation, jitter, blur, RandAugment, grayscale, solarizing, cutout. On images that are not
    RGB, jitter changes brightness and contrast alone, and grayscale does nothing.
    """

    kind: Literal["augment"]
    recipe: Literal["simclr", "moco_v2", "infomin", "byol", "lightly_cifar10"] | None = Field(
        None, description="A published recipe, whose values fill the fields that are not given."
    )
    v2: Overrides | None = Field(None, description="Where v2 differs from v1; null: alike.")

    @model_validator(mode="before")
    @classmethod
    def _recipe_fills_in(cls, given: Any) -> Any:
        if not isinstance(given, dict) or not isinstance(given.get("recipe"), str):
            return given
        recipe = AUGMENT_RECIPES.get(given["recipe"], {})
        filled = recipe | given
        if isinstance(given.get("v2"), dict):
            filled["v2"] = recipe.get("v2", {}) | given["v2"]
        return filled

    @property
    def exchangeable(self) -> bool:
        """Unless v2 is made in a way of its own."""
        return self.v2 is None

    @property
    def of_v2(self) -> Operations:
        """What is done to make v2."""
        if self.v2 is None:
            return self
        return Operations(**self.model_dump(include=set(Operations.model_fields)) | self.v2.model_dump(exclude_none=True))


class Patches(Family):
    """Two patches of a photograph at a distance: the farther apart, the less they share. Tian et al. 2020, section 4.1.

    Pairs are drawn again and again from the photographs of a split, so a batch and K count pairs. Images of one size serve too.
    """

    kind: Literal["patches"]
    size: int = Field(64, ge=4, le=512, description="Side of a patch in pixels.")
    distance: int = Field(64, ge=0, le=4096, description="Pixels by which v2 lies to the right of v1 and below it.")


class PatchGrid(Family):
    """Overlapping patches of an image, in rows, as CPC takes them: v1 is a patch, v2 one below it. Henaff et al. 2020."""

    kind: Literal["patch_grid"]
    size: int = Field(16, ge=4, le=512, description="Side of a patch in pixels.")
    stride: int = Field(8, ge=1, le=512, description="Pixels from one patch to the next.")
    before: "Augment | None" = Field(None, description="Augmentations of the image before it is cut.")


ColorSpace = Literal["rgb", "hsv", "hed", "lab", "luv", "yuv", "xyz", "ycbcr", "ydbdr", "ypbpr", "yiq"]


class ColorSplit(Family):
    """One channel of a colour space against the other two. Tian et al. 2020, section 4.2; CMC, Tian et al. 2019."""

    two_kinds: ClassVar[bool] = True
    rgb: ClassVar[bool] = True
    kind: Literal["color_split"]
    space: ColorSpace = Field("lab", description="Colour space, as scikit-image converts to it.")
    first: Literal[0, 1, 2] = Field(0, description="The channel that is v1; v2 is the other two in their order.")
    whiten: bool = Field(
        False,
        description="Decorrelate the channels of each view, so that nothing but the plane they span matters; otherwise each "
        "channel is standardised for itself.",
    )
    before: "Augment | None" = Field(None, description="Augmentations for the two crops that are split; null: the image itself.")


class Frequency(Family):
    """Low frequencies against the rest: v1 = blur(x, sigma), v2 = x - v1. Tian et al. 2020, appendix."""

    two_kinds: ClassVar[bool] = True
    kind: Literal["frequency"]
    sigma: float = Field(0.7, gt=0, le=100, description="Standard deviation of the Gaussian blur in pixels.")
    before: "Augment | None" = Field(None, description="Augmentations for the two crops that are split; null: the image itself.")


class Temporal(Family):
    """Two frames of a clip, `gap` frames apart."""

    takes: ClassVar[tuple[Layout, ...]] = ("clips", "scenes")
    kind: Literal["temporal"]
    gap: int = Field(4, ge=0, le=1000, description="Frames from v1 to v2.")


class Factors(Family):
    """Past frames of a scene against one later image with which they share these factors and no others.

    Colorful Moving-MNIST, Tian et al. 2020, section 4.4: what the views share is what the representation keeps.
    """

    takes: ClassVar[tuple[Layout, ...]] = ("scenes",)
    kind: Literal["factors"]
    shared: tuple[Literal["digit", "background", "position"], ...] = Field(
        ("digit",), min_length=1, max_length=3, description="Factors that v2 has in common with v1; the others are drawn anew."
    )
    digit_by: Literal["instance", "class"] = Field(
        "instance", description="A shared digit is the same handwriting, or another one of the same class."
    )
    frames: int = Field(10, ge=1, le=10, description="Past frames that v1 shows: the last ones of ten.")

    @field_validator("shared")
    @classmethod
    def _each_once(cls, shared: tuple[str, ...]) -> tuple[str, ...]:
        if len(set(shared)) != len(shared):
            raise ValueError(f"each factor once, not {list(shared)}")
        return shared


class Learned(Family):
    """One channel of a colour space that is learned, against the other two. Tian et al. 2020, section 4.3.

    An invertible pixel-wise map g is learned first: encoders maximise I_NCE between the views and g minimises it, and with labels
    g keeps what tells the classes apart in both views. Then g is frozen, and the experiment goes on as with any colour space.
    """

    two_kinds: ClassVar[bool] = True
    rgb: ClassVar[bool] = True
    kind: Literal["learned"]
    mode: Literal["unsupervised", "semi_supervised", "supervised"] = Field(
        "semi_supervised",
        description="What g minimises: I_NCE; I_NCE and the cross-entropy of a classifier on each view; or the latter alone.",
    )
    flow: Literal["volume_preserving", "non_volume_preserving"] = Field(
        "volume_preserving", description="Additive couplings (NICE), or affine ones (RealNVP)."
    )
    base_space: Literal["rgb", "ydbdr"] = Field("ydbdr", description="Colour space that g starts from.")
    labels: int | None = Field(
        None,
        ge=2,
        le=1_000_000_000,
        description="Training items whose labels g may see, drawn evenly over the classes; all by default, none if unsupervised. "
        "A task's own budget of labels does not count them.",
    )
    blocks: int = Field(4, ge=1, le=8, description="Reversible blocks of g: each moves the first channel, then the other two.")
    hidden: int = Field(16, ge=1, le=1024, description="Width between the two 1x1 convolutions of a coupling.")
    steps: int | None = Field(None, ge=1, le=10_000_000, description="Steps of g; by default as many as pretraining has.")
    batch_size: int | None = Field(None, ge=2, le=65_536, description="Pairs a step; 128 by default, or all items if fewer.")
    labelled_batch_size: int | None = Field(
        None, ge=2, le=65_536, description="Labelled items a step; 64 by default, or all of them if fewer."
    )
    learning_rate: float = Field(
        1e-3,
        gt=0,
        le=1,
        description="Of g and the classifiers, by Adam; at 60 % and 80 % of the steps it falls to a fifth, as all rates.",
    )
    critic_learning_rate: float = Field(
        1e-3, gt=0, le=1, description="Of the encoders that g plays against; long trainings have had 2e-4."
    )
    critic_steps: int = Field(1, ge=1, le=100, description="Steps of those encoders for each step of g.")
    gradient_penalty: float = Field(
        0.0,
        ge=0,
        le=1000,
        description="On half the squared gradient of a batch's true scores in its views, after Mescheder et al. 2018; batch norm "
        "gives items a part in each other's.",
    )
    spectral_norm: bool = Field(False, description="Whether those encoders have it in place of batch norm. Miyato et al. 2018.")
    temperature: Temperature = Field(0.07, description="Of the game's InfoNCE.")
    label_weight: float = Field(1.0, gt=0, le=1000, description="Of each cross-entropy beside I_NCE.")
    floor_nats: float | None = Field(
        None, ge=0, le=20, description="I_NCE of the game that g shall not go below: the same as a target a quarter nat above it."
    )
    target_nats: float | None = Field(
        None, ge=0, le=20, description="I_NCE of the game to which a controller steers g from either side, in place of the least."
    )
    before: "Augment | None" = Field(None, description="Augmentations for the two crops that g maps; null: the image itself.")

    @property
    def labelled(self) -> bool:
        """Whether g sees labels."""
        return self.mode != "unsupervised"

    @model_validator(mode="after")
    def _fits_the_mode(self) -> "Learned":
        against = ("floor_nats", "target_nats", "critic_steps", "gradient_penalty", "spectral_norm")
        idle = [name for name in against if getattr(self, name) != type(self).model_fields[name].default]
        if self.mode == "supervised" and idle:
            raise ValueError(f"nobody plays against supervised views: leave {', '.join(idle)} out")
        if self.floor_nats is not None and self.target_nats is not None:
            raise ValueError("floor_nats or target_nats, not both")
        return self


class Paired(Family):
    """The user's own v1 and v2 of each item, two sensors or two modalities, each with an encoder of its own."""

    takes: ClassVar[tuple[Layout, ...]] = ("paired",)
    two_kinds: ClassVar[bool] = True
    kind: Literal["paired"]


Views = Annotated[
    Noise | Crop | Augment | Patches | PatchGrid | ColorSplit | Frequency | Temporal | Factors | Learned | Paired,
    Field(discriminator="kind"),
]


# Methods: one model each ----------------------------------------------------------------------------------------------


Norm = Literal["batch", "layer"]
HEAD = "The projection: one layer, or two with a ReLU between them."
WIDTH = "Width of the projection in which the views are compared."
TEMPERATURE = "Temperature of the softmax over cosine similarities."
BANK_MOMENTUM = "Share of the old feature in an item's place of the memory bank; the rest is the new one's."
EMA_MOMENTUM = "Share of its old weights that the key encoder keeps at each step."


class Trained(Part):
    """What all methods share, also those that train nothing."""

    @property
    def norm(self) -> Norm:
        """Which norm the encoder has."""
        return "batch"


class Projected(Trained):
    """A method that compares views as projections of the encoder's features on the unit sphere."""

    projection: int = Field(128, ge=2, le=4096, description=WIDTH)
    head: Literal["linear", "mlp"] = Field("mlp", description=HEAD)
    hidden: int | None = Field(
        None,
        ge=2,
        le=16_384,
        description="Width of an MLP projection's hidden layer; as wide as the encoder's features by default.",
    )


class SimCLR(Projected):
    """NT-Xent over the 2N views of a batch; InfoNCE both ways between views of two kinds. Chen et al. 2020."""

    kind: Literal["simclr"] = "simclr"
    temperature: Temperature = Field(0.2, description=TEMPERATURE)
    projection: int = Field(64, ge=2, le=4096, description=WIDTH)


class MoCo(Projected):
    """v1 against v2 as a slowly moving key encoder sees it, among a queue of past keys. He et al. 2020; Chen et al. 2020b (v2).

    Between views of two kinds both ways, with a key encoder and a queue each. A key of the same item never counts as a stranger.
    """

    kind: Literal["moco"]
    version: Literal["v1", "v2"] = Field("v2", description="v1: linear projection, temperature 0.07. v2: MLP, 0.2.")
    temperature: Temperature | None = Field(None, description=f"{TEMPERATURE} The version's by default.")
    head: Literal["linear", "mlp"] | None = Field(None, description="The projection; the version's by default.")  # type: ignore[assignment]
    momentum: float = Field(0.999, ge=0, lt=1, description=EMA_MOMENTUM)
    queue: int | None = Field(
        None, ge=2, le=1_048_576, description="Past keys; 65536 by default, or half of the training items where that is less."
    )


class InfoMin(Projected):
    """MoCo with a second branch, in which v1 is cut into a 3x3 jigsaw before it is compared with v2's key. Tian et al. 2020.

    `views` are the augmentations alone; the method cuts the jigsaw itself.
    """

    kind: Literal["infomin"]
    temperature: Temperature = Field(0.15, description=TEMPERATURE)
    momentum: float = Field(0.999, ge=0, lt=1, description=EMA_MOMENTUM)
    queue: int | None = Field(
        None, ge=2, le=1_048_576, description="Past keys; 65536 by default, or half of the training items where that is less."
    )
    jigsaw_weight: Probability = Field(0.5, description="Weight of the jigsaw's loss; the image's has the rest.")


class InstDis(Projected):
    """An image against its own past feature among those of other images, in a memory bank. Wu et al. 2018.

    Where v1 and v2 are made in different ways, each against the other's past.
    """

    kind: Literal["inst_dis"]
    objective: Literal["nce", "softmax"] = Field(
        "nce", description="Noise-contrastive estimation with `negatives` drawn from the bank, or the softmax over all of it."
    )
    temperature: Temperature = Field(0.07, description=TEMPERATURE)
    head: Literal["linear", "mlp"] = Field("linear", description=HEAD)
    bank_momentum: float = Field(0.5, ge=0, lt=1, description=BANK_MOMENTUM)
    negatives: int | None = Field(
        None, ge=1, le=1_048_576, description="Drawn anew for each image; 4096 by default, or all others where there are fewer."
    )


class CMC(Projected):
    """Views of two kinds, an encoder each; InfoNCE from each to the other. Tian et al. 2019."""

    kind: Literal["cmc"]
    strangers: Literal["bank", "batch"] = Field(
        "bank", description="Where negatives come from: a memory bank for each view, as in the paper, or the batch."
    )
    temperature: Temperature = Field(0.07, description=TEMPERATURE)
    head: Literal["linear", "mlp"] = Field("linear", description=HEAD)
    bank_momentum: float = Field(0.5, ge=0, lt=1, description=BANK_MOMENTUM)
    negatives: int | None = Field(
        None, ge=1, le=1_048_576, description="Drawn from the bank; 4096 by default, or all others where there are fewer."
    )


class PIRL(Projected):
    """An image and its 3x3 jigsaw, both against the image's past feature in a memory bank. Misra, van der Maaten 2020.

    `views` are the augmentations alone; the method cuts the jigsaw itself, of v2.
    """

    kind: Literal["pirl"]
    temperature: Temperature = Field(0.07, description=TEMPERATURE)
    head: Literal["linear", "mlp"] = Field("linear", description=HEAD)
    bank_momentum: float = Field(0.5, ge=0, lt=1, description=BANK_MOMENTUM)
    negatives: int | None = Field(
        None, ge=1, le=1_048_576, description="Drawn from the bank; 32000 by default, or all others where there are fewer."
    )
    jigsaw_weight: Probability = Field(0.5, description="Weight of the jigsaw's loss; the image's has the rest.")


class CPC(Projected):
    """Rows of a grid of patches foretell the rows below them. van den Oord, Li, Vinyals 2018; Henaff et al. 2020.

    A recurrent network reads the rows from the top; a bilinear form for each step compares what it says of a patch with that
    patch and with all others of the batch. Layer norm in place of batch norm, through which patches would know each other.
    """

    kind: Literal["cpc"]
    temperature: Temperature = Field(0.1, description="Temperature of the softmax over the bilinear forms of unit vectors.")
    head: Literal["linear", "mlp"] = Field("linear", description=HEAD)
    projection: int = Field(64, ge=2, le=4096, description="Width in which patches are compared, and of the recurrent network.")
    steps: int = Field(5, ge=1, le=100, description="Rows below that are foretold; as many as there are, where there are fewer.")

    @property
    def norm(self) -> Norm:
        """No batch norm."""
        return "layer"


class Supervised(Trained):
    """The encoder trained with labels, by cross-entropy on v1 and v2: what to hold the others against."""

    kind: Literal["supervised"]
    target: Literal["label", "digit", "background"] = Field("label", description="What is predicted.")
    temperature: Temperature = Field(0.2, description="Where the search for that of I_NCE begins, on the features themselves.")


class Frozen(Trained):
    """No training: the encoder as it was initialised, or as `encoder.weights` gives it. Features are compared as they are."""

    kind: Literal["frozen"]
    layer_norm: bool = Field(False, description="Whether the encoder has layer norm in place of batch norm, as CPC's have.")
    temperature: Temperature = Field(0.2, description="Where the search for that of I_NCE begins, on the features themselves.")

    @property
    def norm(self) -> Norm:
        """As the checkpoint has it."""
        return "layer" if self.layer_norm else "batch"


Method = Annotated[
    SimCLR | MoCo | InfoMin | InstDis | CMC | PIRL | CPC | Supervised | Frozen,
    Field(discriminator="kind"),
]


# Encoders: one model each ---------------------------------------------------------------------------------------------


CHECKPOINT_ID = r"^ckp_[0-9a-f]{64}$"


class Architecture(Part):
    """What all encoders share."""

    weights: str | None = Field(
        None,
        pattern=CHECKPOINT_ID,
        description="A checkpoint of `POST /v1/checkpoints` to begin from, `ckp_…`; random weights by default.",
    )


class SmallConv(Architecture):
    """Three strided 3x3 convolutions with batch norm, then the mean over positions."""

    kind: Literal["small_conv"] = "small_conv"
    width: int = Field(16, ge=4, le=512, description="Channels of the first layer; each later layer doubles them.")

    @property
    def features(self) -> int:
        """Of an image."""
        return 4 * self.width


class SmallAlexNet(Architecture):
    """Five 3x3 convolutions with batch norm and three max poolings. The fully connected layers are the projection's.

    As on STL-10 in Tian et al. 2019 and 2020. The tasks read the last map, seen at 3x3.
    """

    kind: Literal["small_alexnet"]
    width: int | None = Field(
        None,
        ge=4,
        le=512,
        description="Channels of the first layer; the others have 2, 4, 4 and 2 times as many. 96 by default, and half of that "
        "in each of CMC's two encoders.",
    )

    @property
    def features(self) -> int:
        """Of an image."""
        return 18 * (self.width or 96)


Stem = Annotated[
    Literal["small", "imagenet"] | None,
    Field(
        description="`small`: a 3x3 convolution of stride 1 and no max pooling (Chen et al. 2020, B.9); `imagenet`: 7x7 of "
        "stride 2 and max pooling. By default the first for inputs of up to 96 pixels."
    ),
]


class ResNet18(Architecture):
    """ResNet-18. He et al. 2016."""

    kind: Literal["resnet18"]
    stem: Stem = None

    @property
    def features(self) -> int:
        """Of an image."""
        return 512


class ResNet34(Architecture):
    """ResNet-34. He et al. 2016."""

    kind: Literal["resnet34"]
    stem: Stem = None

    @property
    def features(self) -> int:
        """Of an image."""
        return 512


class ResNet50(Architecture):
    """ResNet-50. He et al. 2016."""

    kind: Literal["resnet50"]
    stem: Stem = None

    @property
    def features(self) -> int:
        """Of an image."""
        return 2048


class ConvLSTM(Architecture):
    """Four strided 3x3 convolutions of 8, 16, 32 and 64 channels; over the frames of a clip, an LSTM. Tian et al. 2020.

    A still image is encoded by the convolutions alone: they are what the tasks read.
    """

    kind: Literal["conv_lstm"]
    width: int = Field(8, ge=4, le=256, description="Channels of the first layer; each later layer doubles them.")
    lstm: int = Field(64, ge=4, le=4096, description="Width of the LSTM's state.")
    pooling: Literal["average", "flatten"] = Field(
        "average", description="Mean over positions, as in the paper, or the whole last map, which keeps where things are."
    )

    @property
    def features(self) -> int:
        """Of an image."""
        return 8 * self.width * (16 if self.pooling == "flatten" else 1)


Encoder = Annotated[
    SmallConv | SmallAlexNet | ResNet18 | ResNet34 | ResNet50 | ConvLSTM,
    Field(discriminator="kind"),
]


# Pretraining, information, tasks --------------------------------------------------------------------------------------


class Pretrain(Part):
    """An optimiser with linear warm-up and cosine decay, for a number of `steps` or of `epochs`."""

    steps: int | None = Field(None, ge=1, le=10_000_000, description="Optimiser steps; give these or `epochs`.")
    epochs: int | None = Field(
        None,
        ge=1,
        le=100_000,
        description="Passes over the training items; 100 where neither is given, and 10 for the method frozen, of which only the "
        "supervised reference is trained.",
    )
    batch_size: int | None = Field(
        None, ge=2, le=65_536, description="Pairs a step; 256 by default, or all training items where there are fewer."
    )
    optimiser: Literal["adamw", "sgd", "lars"] = Field(
        "adamw",
        description="AdamW (Loshchilov, Hutter 2019), SGD with momentum, or LARS (You et al. 2017) for very large batches.",
    )
    learning_rate: float | None = Field(
        None,
        gt=0,
        le=100,
        description="Peak learning rate. With AdamW 0.01 for small_conv and 0.001 for deeper encoders by default; else "
        "`base_learning_rate` times the batch size over 256.",
    )
    base_learning_rate: float | None = Field(
        None,
        gt=0,
        le=100,
        description="Peak learning rate for 256 pairs a step, scaled linearly with the batch size (Goyal et al. 2017). With SGD "
        "0.06 and with LARS 0.3 by default, unless `learning_rate` is given.",
    )
    momentum: float = Field(0.9, ge=0, lt=1, description="Of SGD and LARS.")
    weight_decay: float = Field(1e-4, ge=0, le=10, description="Not on norms and biases; decoupled in AdamW.")
    warmup: Probability = Field(0.1, description="Share of the steps in which the learning rate rises.")
    gradient_clip: float | None = Field(None, gt=0, description="Largest norm of the whole gradient; null: not clipped.")
    ema: float | None = Field(
        None,
        gt=0,
        lt=1,
        description="Measure the exponential moving average of the weights, which keeps this share of its old value at each "
        "step; null: the weights themselves.",
    )
    precision: Literal["auto", "float32", "bfloat16"] = Field(
        "auto", description="Arithmetic of the encoder. `auto` is frozen to one of the others when the spec is resolved."
    )
    processes: int = Field(
        1,
        ge=1,
        le=64,
        description="Processes that train together, each on a GPU of its own where there are GPUs, with a share of each batch.",
    )

    @model_validator(mode="after")
    def _one_length(self) -> "Pretrain":
        if self.steps is not None and self.epochs is not None:
            raise ValueError("give steps or epochs, not both")
        return self

    def total_steps(self, items: int) -> int:
        """Optimiser steps over a training split of so many items; the last short batch of an epoch is dropped."""
        return self.steps or (self.epochs or 100) * max(items // (self.batch_size or 256), 1)


class EstimatorFacts(Part):
    """What an estimator of mutual information claims: all of them answer in nats."""

    kind: Literal["lower", "upper", "neither"] = Field(description="Which side of the truth it bounds.")
    description: str
    validity: str = Field(description="When it may be believed.")
    source: str


ESTIMATORS: dict[str, EstimatorFacts] = {
    "infonce": EstimatorFacts(
        kind="lower",
        description="log K minus the cross-entropy of finding the partner among K candidates.",
        validity="Never above log K; within 5 % where log K is 3 nats above the truth, and saturated within 1 nat of log K.",
        source="van den Oord, Li, Vinyals 2018; as a bound Poole et al. 2019, section 2.3",
    ),
    "nwj": EstimatorFacts(
        kind="lower",
        description="The critic's mean over pairs, less the mean of its exponential over strangers, divided by e.",
        validity="No ceiling, but its variance grows exponentially with the information: a few nats at most.",
        source="Nguyen, Wainwright, Jordan 2010; Poole et al. 2019, eq. 8",
    ),
    "tuba": EstimatorFacts(
        kind="lower",
        description="As NWJ, with a learned baseline of each y in the place of the constant e.",
        validity="No ceiling; its variance grows exponentially with the information.",
        source="Barber, Agakov 2003; Poole et al. 2019, eq. 6",
    ),
    "interpolated": EstimatorFacts(
        kind="lower",
        description="I_alpha: between InfoNCE (alpha 1) and NWJ with a learned baseline (alpha 0); here alpha is 0.01.",
        validity="Never above about log K - log alpha; less bias than InfoNCE for more variance.",
        source="Poole et al. 2019, section 2.4",
    ),
    "dv": EstimatorFacts(
        kind="neither",
        description="Donsker-Varadhan: the critic's mean over pairs, less the log of its mean exponential over strangers; "
        "trained as MINE with the bias of its gradient corrected.",
        validity="A lower bound over infinitely many pairs only: the log of a sample's mean is low, so a sample may read high.",
        source="Donsker, Varadhan 1983; Belghazi et al. 2018 (MINE)",
    ),
    "js": EstimatorFacts(
        kind="lower",
        description="A critic trained on the Jensen-Shannon bound, which is stable, and read as NWJ.",
        validity="No ceiling; its variance grows exponentially with the information, but its training does not suffer.",
        source="Poole et al. 2019, section 2.3; Hjelm et al. 2019",
    ),
    "smile": EstimatorFacts(
        kind="neither",
        description="A critic trained on the Jensen-Shannon bound and read as Donsker-Varadhan with its ratio clipped at exp(5).",
        validity="Little variance, and too high above a few nats.",
        source="Song, Ermon 2020",
    ),
    "leave_one_out": EstimatorFacts(
        kind="upper",
        description="The log density of y given x, less that of the mixture of the other items' conditionals.",
        validity="An upper bound where the conditional density is the true one; here it is learned, and `neither` unless "
        "held-out residuals are what the learned one says. Half of what the pairs it learned from read more is then added.",
        source="Poole et al. 2019, eq. 13",
    ),
    "club": EstimatorFacts(
        kind="upper",
        description="The log density of y given x, less its mean over strangers.",
        validity="An upper bound where the conditional density is the true one, and a loose one: 4.9 nats where 2 are true. To "
        "be minimised, not to be reported.",
        source="Cheng et al. 2020",
    ),
    "doe": EstimatorFacts(
        kind="neither",
        description="Difference of entropies: held-out cross-entropy of y less that of y given x, under learned densities.",
        validity="As good as its two densities, whose errors may pull either way; no ceiling.",
        source="McAllester, Stratos 2020",
    ),
    "ksg": EstimatorFacts(
        kind="neither",
        description="Counts of neighbours in x and in y within the distance of the third-nearest neighbour in both.",
        validity="In few dimensions, together about 6; in more it reads low, as it does where x nearly decides y.",
        source="Kraskov, Stoegbauer, Grassberger 2004, first estimator",
    ),
    "cca": EstimatorFacts(
        kind="neither",
        description="-1/2 sum log(1 - rho^2) over the canonical correlations of ranks turned into normal scores, bias removed.",
        validity="Exact where the two are jointly Gaussian after a rising map of each column; blind to all else.",
        source="Hotelling 1936; Gaussian copula as in Ince et al. 2017",
    ),
}
Estimator = Literal["infonce", "nwj", "tuba", "interpolated", "dv", "js", "smile", "leave_one_out", "club", "doe", "ksg", "cca"]
Critic = Literal["separable", "bilinear", "concatenated"]
CRITIC = (
    "Of the estimators that train one: `separable` is g(x) h(y) with networks g and h, `bilinear` x W y, `concatenated` a "
    "network of (x, y)."
)


class MutualInformation(Part):
    """How I(v1; v2) is measured on held-out items after pretraining."""

    estimators: tuple[Estimator, ...] = Field(
        ("infonce",),
        min_length=1,
        max_length=len(ESTIMATORS),
        description="Estimators in nats, of `GET /v1/catalog/estimators`. `infonce` is always measured, by the trained critic; "
        "the others are trained on the embeddings of held-out views.",
    )
    k: int | None = Field(
        None,
        ge=2,
        le=65_536,
        description="Candidates, the positive included: the ceiling is log K. 512 by default, or as many as are held out.",
    )
    critic: Critic = Field("separable", description=CRITIC)


LEAST_PAIRS = 64  # of an estimate on arrays
MOST_PAIRS = 50_000  # of which an estimate is made; of more a random choice serves
MOST_CONCATENATED = 512  # candidates of the concatenated critic, which costs their square
MOST_COLUMNS = 8192  # of an array
MOST_NUMBERS = 150_000_000  # of an array, all of which are read at once: 1.2 GB


class MiEstimate(Part):
    """How I(x; y) of two arrays of one's own is measured."""

    estimators: tuple[Estimator, ...] = Field(
        ("infonce", "leave_one_out", "cca"),
        min_length=1,
        max_length=len(ESTIMATORS),
        description="Estimators in nats, of `GET /v1/catalog/estimators`.",
    )
    critic: Critic = Field("separable", description=CRITIC)
    k: int | None = Field(
        None,
        ge=2,
        le=8192,
        description="Candidates, the positive included: the ceiling of InfoNCE is log K. By default what is held out at a time "
        "in equal batches of 2048 at most, of 512 with the concatenated critic, whose most that is.",
    )
    repeats: int = Field(
        3,
        ge=2,
        le=10,
        description="Trainings, each of which holds out another part of the pairs: together they hold out all of them.",
    )
    seed: int = Field(0, ge=0, le=2**31 - 1, description="Seed of every chance.")

    @field_validator("estimators")
    @classmethod
    def _each_once(cls, estimators: tuple[str, ...]) -> tuple[str, ...]:
        return tuple(dict.fromkeys(estimators))


MOST_LABELS = 1_000_000_000  # of a budget: more than any dataset has


class OnFeatures(Part):
    """What all tasks share: they read the frozen encoder's features of clean images."""

    name: str | None = Field(None, min_length=1, max_length=60, description="Name in `results.tasks`; the kind by default.")
    dataset: Dataset | None = Field(
        None, description="Transfer: learn and score the task on this dataset instead of the one of pretraining."
    )
    labels: int | None = Field(
        None,
        ge=1,
        le=MOST_LABELS,
        description="Label budget in items of the training split, drawn evenly over the classes; null: all.",
    )
    labels_share: float | None = Field(
        None, gt=0, le=1, description="The same as a share of the labelled items, 0.01 for 1 %; resolved into `labels`."
    )

    @model_validator(mode="after")
    def _one_budget(self) -> "OnFeatures":
        given = [name for name in BUDGETS if getattr(self, name, None) is not None]
        if len(given) > 1:
            raise ValueError(f"one label budget, not {' and '.join(given)}")
        return self


BUDGETS = ("labels", "labels_share", "labels_per_class")
PER_CLASS = "The same as a number for each class; resolved into `labels`."


class Classification(OnFeatures):
    """Linear probe: multinomial logistic regression on the frozen encoder's features of clean images."""

    kind: Literal["classification"]
    target: Literal["label", "digit", "background"] = Field("label", description="What is predicted.")
    labels_per_class: int | None = Field(None, ge=1, le=MOST_LABELS, description=PER_CLASS)
    protocol: Literal["lbfgs", "sgd"] = Field(
        "lbfgs",
        description="How it is fitted: to the optimum by L-BFGS, or as is usual in the field by 100 epochs of SGD with cosine "
        "decay, at the one of seven learning rates that ends lowest. Both minimise the same loss, and the first is quicker.",
    )
    penalty: float | None = Field(
        None,
        ge=1e-6,
        le=10_000,
        description="On half the squared weights, beside the summed cross-entropy: 1 / C of scikit-learn. By default the one of "
        "1 to 10 000 that does best on held-out labelled items; 1 where fewer than 200 have labels.",
    )


class KNN(OnFeatures):
    """Weighted k-nearest-neighbour vote on cosine similarity of the frozen features. Wu et al. 2018 (InstDis)."""

    kind: Literal["knn"]
    target: Literal["label", "digit", "background"] = Field("label", description="What is predicted.")
    labels_per_class: int | None = Field(None, ge=1, le=MOST_LABELS, description=PER_CLASS)
    k: int = Field(200, ge=1, le=10_000, description="Neighbours that vote (all labelled items where there are fewer).")
    temperature: float = Field(0.1, ge=0.005, le=10, description="A neighbour's vote weighs exp(cosine / temperature).")


class Localization(OnFeatures):
    """Linear regression of a place in the image; the score is the mean distance from the truth in pixels, less is better."""

    kind: Literal["localization"]
    target: Literal["position"] = Field("position", description="What is predicted.")


Task = Annotated[Classification | KNN | Localization, Field(discriminator="kind")]


class Limits(Part):
    """When to give up."""

    seconds: float | None = Field(None, gt=0, description="Wall-clock limit of one attempt; null: none.")


# Experiment and sweep -------------------------------------------------------------------------------------------------


class ExperimentSpec(Part):
    """One pretraining on one view recipe, its mutual information and its task results."""

    model_config = ConfigDict(
        json_schema_extra={
            "examples": [
                {
                    "dataset": {"name": "digits"},
                    "views": {"kind": "noise", "sigma": 0.7},
                    "pretrain": {"steps": 300},
                    "tasks": [{"kind": "classification", "labels": 50}],
                }
            ]
        }
    )

    spec_version: Literal[1] = 1
    name: str = Field("", max_length=200, description="A title for people.")
    tags: tuple[Annotated[str, Field(min_length=1, max_length=60)], ...] = Field((), max_length=32)
    priority: int = Field(0, ge=-1000, le=1000, description="Higher runs first.")
    dataset: Dataset
    views: Views
    method: Method = SimCLR()
    encoder: Encoder = Field(SmallConv(), description="What is trained; conv_lstm by default where a view is a clip.")
    pretrain: Pretrain = Pretrain()
    mi: MutualInformation = MutualInformation()
    tasks: tuple[Task, ...] = Field(
        (Classification(kind="classification"),),
        max_length=16,
        description="What the representation is good for; by default all that the dataset has targets for, none without labels.",
    )
    limits: Limits = Limits()
    seed: int = Field(0, ge=0, le=2**31 - 1, description="Seed of every chance; the same seed gives the same numbers on the CPU.")


class Search(Part):
    """In place of values: the service chooses where to train next, and where again, until the peak is known well enough."""

    low: float = Field(allow_inf_nan=False, description="The lowest value.")
    high: float = Field(allow_inf_nan=False, description="The highest value.")
    scale: Literal["linear", "log"] = Field("linear", description="How values are spaced; `log` between numbers above 0.")
    trainings: int = Field(
        24, ge=10, le=200, description="The most trainings; short ones count by their share of the steps. A verdict takes 10."
    )
    tolerance: float | None = Field(
        None,
        gt=0,
        lt=1,
        description="End before that once the 90 % interval of the peak is no wider than this share of the range, on its scale.",
    )
    task: str | None = Field(None, max_length=60, description="The task whose peak is sought; the first of the base by default.")
    short: float | None = Field(
        None,
        gt=0,
        lt=1,
        description="Begin with runs of this share of the steps, to see where whole ones pay; they stand in no curve.",
    )
    step: float | None = Field(
        None, gt=0, description="Values are multiples of it; 1 where the node takes whole numbers, else unset."
    )

    @model_validator(mode="after")
    def _spans_a_range(self) -> "Search":
        if not self.low < self.high:
            raise ValueError(f"low must be below high, not {self.low:g} and {self.high:g}")
        if self.scale == "log" and self.low <= 0:
            raise ValueError(f"on a log scale low must be above 0, not {self.low:g}")
        if not math.isfinite(self.high - self.low) or (self.high - self.low) / (self.step or 1) > MOST_STEPS:
            raise ValueError(f"at most {MOST_STEPS:g} steps between low and high")
        if len(self.grid()) < LEAST_SEARCHED:
            raise ValueError(f"at least {LEAST_SEARCHED} values between low and high; step leaves {len(self.grid())}")
        return self

    @model_validator(mode="after")
    def _leaves_whole_trainings(self) -> "Search":
        shorts = 7 * (self.short or 0)  # the longest design
        if self.short is not None and self.trainings - shorts < 10:
            raise ValueError(f"short trainings take up to {shorts:g}, and 10 whole ones must be left for a verdict")
        return self

    def grid(self) -> tuple[float, ...]:
        """The values that may be tried, rising: at most 65, evenly spaced on the scale; multiples of `step` where it has one."""
        ends = (math.log(self.low), math.log(self.high)) if self.scale == "log" else (self.low, self.high)
        spacing = (ends[1] - ends[0]) / (SEARCHED - 1)
        spaced = [ends[0] + place * spacing for place in range(SEARCHED)]
        values = [math.exp(value) if self.scale == "log" else value for value in spaced]
        if self.step is not None:
            first, last = math.ceil(self.low / self.step - 1e-9), math.floor(self.high / self.step + 1e-9)
            if last - first < SEARCHED:
                multiples = set(range(first, last + 1))
            else:
                multiples = {min(max(round(value / self.step), first), last) for value in values}
            return tuple(float(f"{self.step * multiple:.12g}") for multiple in sorted(multiples))
        if self.scale == "log":
            digits = max(3, 1 + math.ceil(-math.log10(math.expm1(spacing))))
            inner = [float(f"{value:.{digits}g}") for value in values[1:-1]]
        else:
            inner = [round(value, 1 + math.ceil(-math.log10(spacing))) for value in values[1:-1]]
        return (self.low, *(value for value in sorted(set(inner)) if self.low < value < self.high), self.high)


MOST_STEPS = 1e9
SEARCHED = 65  # values that a search chooses among
LEAST_SEARCHED = 5


class Axis(Part):
    """One node of the spec and the values it takes: listed, searched for, or a recipe less one of its operations each time."""

    path: str = Field(
        min_length=1,
        max_length=200,
        pattern=r"^[a-z_0-9]+(\.[a-z_0-9]+)*$",
        examples=["views.sigma", "views"],
        description="Dotted path of any node of the spec, whole recipes included; `base` is the experiment itself, and a value "
        "then has several of its parts, such as `method` and `views`, in the place of the base's.",
    )
    values: tuple[JsonValue, ...] = Field((), max_length=200, description="The values, in the order of the axis.")
    labels: tuple[Annotated[str, Field(min_length=1, max_length=60)], ...] | None = Field(
        None, description="A name for each value, for figures."
    )
    search: Search | None = Field(None, description="In place of `values`: let the service choose them.")
    ablate: bool = Field(
        False,
        description="In place of `values`, at the path `views`: the base's recipe, and the same less each of its operations in "
        "turn, to rank what each is worth. At the path `base` the method's jigsaw is one of them. The resolved sweep has them as "
        "`values` and `labels`.",
    )

    @model_validator(mode="after")
    def _one_source_of_values(self) -> "Axis":
        if self.search is not None and (self.values or self.ablate):
            raise ValueError("either values, or search, or ablate: one of them says what the axis takes")
        if not (self.values or self.search or self.ablate):
            raise ValueError("an axis needs values, or search {low, high}, or ablate")
        if self.ablate and self.values and self.labels is None:
            raise ValueError("ablate finds the values itself: leave them out")
        return self

    @model_validator(mode="after")
    def _labels_match(self) -> "Axis":
        if self.labels is not None and len(self.labels) != len(self.values):
            raise ValueError(f"labels must name each of the {len(self.values)} values, not {len(self.labels)}")
        return self

    @model_validator(mode="after")
    def _values_differ(self) -> "Axis":
        for index, value in enumerate(self.values):
            if value in self.values[:index]:  # equal trainings would count as independent ones
                raise ValueError(f"each value once; {value!r} stands there twice, and for repeats there are `seeds`")
        return self

    @property
    def ordered(self) -> bool:
        """Whether the values are numbers, which have an order for the two-lines test to run over."""
        return self.search is not None or all(_is_number(value) for value in self.values)


class SweepSpec(Part):
    """Experiments along one axis of a base spec, times seeds."""

    model_config = ConfigDict(
        json_schema_extra={
            "examples": [
                {
                    "name": "noise on digits",
                    "seeds": 3,
                    "axis": {"path": "views.sigma", "values": [0, 0.1, 0.4, 0.7, 1, 2.5]},
                    "base": {
                        "dataset": {"name": "digits"},
                        "views": {"kind": "noise"},
                        "pretrain": {"steps": 300},
                        "tasks": [{"kind": "classification", "labels": 50}],
                    },
                }
            ]
        }
    )

    name: str = Field("", max_length=200, description="A title for people.")
    base: ExperimentSpec
    axis: Axis
    seeds: int = Field(
        3,
        ge=1,
        le=100,
        description="Trainings at each value, with seeds counted up from the base's; a search repeats where that pays instead.",
    )
    preset: str | None = Field(
        None,
        max_length=100,
        pattern=r"^[a-z0-9-]+/(quick|standard|full)$",
        examples=["fig5-crop/quick"],
        description="The preset it came from, and the size of it; filled in by the service, and of no weight for the numbers.",
    )

    @model_validator(mode="after")
    def _not_too_many(self) -> "SweepSpec":
        if len(self.axis.values) * self.seeds > MOST_TRAININGS:
            raise ValueError(
                f"{len(self.axis.values)} values times {self.seeds} seeds; at most {MOST_TRAININGS} trainings a sweep"
            )
        return self


MOST_TRAININGS = 1000  # of a sweep


# From what was asked to what is run -----------------------------------------------------------------------------------


Facts = Callable[[Dataset, str], DatasetFacts]


def resolve(spec: ExperimentSpec, facts: Facts, precision: Literal["float32", "bfloat16"] = "float32") -> ExperimentSpec:
    """Fill in what depends on the dataset and the hardware, and refuse what cannot be run.

    `facts` says what is known of a dataset; its second argument is the dataset's JSON pointer in the spec, for errors of its own.
    Resolving is idempotent. Raises SpecError with the pointer of the first field at fault.
    """
    known = facts(spec.dataset, "/dataset")
    _refuse_unfit_views(spec.views, known, spec.dataset.image_size or known.image_size)
    side = getattr(spec.views, "size", None) or spec.dataset.image_size or known.image_size  # of what the encoder is shown
    encoder = _resolve_encoder(spec, side)
    _refuse_unfit_method(spec, known, side)
    pretrain = _resolve_pretrain(spec, known, encoder, precision)
    parts: dict[str, Any] = {
        "dataset": _resolve_dataset(spec.dataset, known, "/dataset", patches=isinstance(spec.views, Patches)),
        "views": _resolve_views(spec.views, known, pretrain),
        "method": _resolve_method(spec, known, encoder),
        "encoder": encoder,
        "pretrain": pretrain,
        "mi": spec.mi.model_copy(update={"k": _resolve_candidates(spec, known)}),
        "tasks": tuple(_resolve_tasks(spec, known, facts)),
    }
    return spec.model_copy(update=parts)


def expand(sweep: SweepSpec) -> Iterator[tuple[int, ExperimentSpec]]:
    """The sweep's experiments as (index of the axis value, spec), values in order and seeds within a value.

    Raises SpecError at `/axis/path` for a path that is no node of the spec, and as `ablated` does; pydantic's ValidationError for
    a value that the spec refuses.
    """
    if (root := sweep.axis.path.split(".")[0]) in ("seed", *NOT_DECISIVE, "spec_version"):
        raise SpecError("/axis/path", f"{root!r} is no axis, since it decides no numbers; repeats come by `seeds`")
    sweep = ablated(sweep)
    for index in range(len(sweep.axis.values)):
        at_value = ExperimentSpec.model_validate(_with_node(sweep.base, sweep.axis, index))
        for seed in range(sweep.seeds):
            yield index, at_value.model_copy(update={"seed": sweep.base.seed + seed})


def tried(sweep: SweepSpec, *values: float) -> SweepSpec:
    """A searching sweep with these values in place of its search, one training each."""
    axis = Axis(path=sweep.axis.path, values=values)
    return sweep.model_copy(update={"axis": axis, "seeds": 1})


WHOLE = "base"  # the path of an axis along which several parts change together
NOT_DECISIVE = ("name", "tags", "priority", "limits")


def identity(spec: ExperimentSpec) -> dict[str, Any]:
    """The part of a resolved spec that decides its numbers: all but its title, tags, priority and limits."""
    return spec.model_dump(mode="json", exclude=set(NOT_DECISIVE))


# What a recipe is made of, and where it is: the chance of each operation of `Operations`, in the order of its fields.
OPERATIONS = {
    "crop": "crop_p",
    "flip": "flip_p",
    "rotation": "rotate_p",
    "jitter": "jitter_p",
    "blur": "blur_p",
    "RandAugment": "randaugment_p",
    "grayscale": "grayscale_p",
    "solarizing": "solarize_p",
    "cutout": "cutout_p",
}
WHOLE_RECIPE = "all of it"
LESS = "no "  # and the operation: the label of a recipe without it


def ablated(sweep: SweepSpec, channels: int | None = None) -> SweepSpec:
    """A sweep that ablates, with the whole recipe and the same less each of its operations as the values of its axis.

    Of images whose number of `channels` is known and not three, grayscale is none. A sweep that has its values already is left as
    it is, and so is one that does not ablate. Raises SpecError at `/axis/path`, `/axis/ablate`, `/axis/values` or `/seeds`.
    """
    axis = sweep.axis
    if not axis.ablate:
        return sweep
    found = _recipes_to_compare(sweep.base, axis.path, None if axis.values else channels)
    if axis.values:
        given = list(zip(axis.labels or (), axis.values, strict=True))
        if given[0][0] != WHOLE_RECIPE or any(found.get(label) != value for label, value in given):
            raise SpecError("/axis/values", "these are not the base's recipe less its operations; with ablate leave values out")
        return sweep
    if len(found) * sweep.seeds > MOST_TRAININGS:
        raise SpecError("/seeds", f"{len(found)} recipes times {sweep.seeds} seeds; at most {MOST_TRAININGS} trainings a sweep")
    return sweep.model_copy(update={"axis": axis.model_copy(update={"values": tuple(found.values()), "labels": tuple(found)})})


def _recipes_to_compare(base: ExperimentSpec, path: str, channels: int | None) -> dict[str, JsonValue]:
    """By label, the whole recipe first; whole experiments where the path is the base's."""
    if path not in ("views", WHOLE):
        raise SpecError(
            "/axis/path", f"what is left out are operations of views: ablate takes the path 'views' or 'base', not {path!r}"
        )
    views = base.views.model_dump(mode="json")
    recipes: dict[str, JsonValue] = {WHOLE_RECIPE: views, **dict(_recipes_less_one(base.views, views, channels))}
    if path == WHOLE:
        recipes = {label: {"views": recipe} for label, recipe in recipes.items()}
        if isinstance(base.method, InfoMin | PIRL) and base.method.jigsaw_weight > 0:
            method = base.method.model_dump(mode="json")
            recipes = {label: {**parts, "method": method} for label, parts in recipes.items() if isinstance(parts, dict)}
            recipes[f"{LESS}jigsaw"] = {"views": views, "method": method | {"jigsaw_weight": 0.0}}
    if len(recipes) == 1:
        raise SpecError("/axis/ablate", f"the views {in_words(views)} have no operation that could be left out")
    return recipes


def _recipes_less_one(views: Views, recipe: dict[str, Any], channels: int | None) -> Iterator[tuple[str, JsonValue]]:
    """With the label of each; `recipe` is `views` as JSON."""
    if isinstance(views, Noise) and views.sigma > 0:
        yield f"{LESS}noise", recipe | {"sigma": 0.0}
    if isinstance(views, Crop) and views.area < 1:
        yield f"{LESS}crop", recipe | {"area": 1.0}
    for name in _operations(views, channels) if isinstance(views, Augment) else ():
        yield LESS + name, _less(recipe, OPERATIONS[name])
    before = getattr(views, "before", None)
    for name in _operations(before, channels) if before is not None else ():
        yield LESS + name, recipe | {"before": _less(recipe["before"], OPERATIONS[name])}


def _less(recipe: dict[str, Any], chance: str) -> dict[str, Any]:
    """The augmentations without the operation that has this chance, in either view."""
    v2 = recipe["v2"]
    return recipe | {chance: 0.0, "v2": v2 and v2 | {chance: None}}


def _operations(recipe: Augment, channels: int | None) -> list[str]:
    """Names of those that change any view."""

    def changes(view: Operations, name: str) -> bool:
        strength = {
            "crop": view.crop_scale_min < 1,
            "rotation": view.rotate_degrees > 0,
            "jitter": view.jitter > 0 and any(view.jitter_strengths),
            "RandAugment": view.randaugment_n > 0,
            "grayscale": channels in (None, 3),
        }
        return getattr(view, OPERATIONS[name]) > 0 and strength.get(name, True)

    return [name for name in OPERATIONS if changes(recipe, name) or changes(recipe.of_v2, name)]


def in_words(value: JsonValue) -> str:
    """A value of an axis for figures and tables: a recipe by its kind and parameters, names with plus signs between them."""
    if isinstance(value, str):
        return value
    if isinstance(value, dict):
        return ", ".join(in_words(part) if key in ("kind", "name") else f"{key} {_inside(part)}" for key, part in value.items())
    if isinstance(value, list):
        return (" + " if all(isinstance(part, str) for part in value) else ", ").join(map(_inside, value))
    return f"{value:.4g}" if _is_number(value) else json.dumps(value)


def _inside(part: JsonValue) -> str:
    return f"({in_words(part)})" if isinstance(part, dict) else in_words(part)


LAYOUTS: dict[Layout, str] = {
    "images": "images",
    "photos": "photos",
    "clips": "clips (an npz with `clips`)",
    "paired": "paired arrays (an npz with `v1` and `v2`)",
    "scenes": "scenes (the dataset moving_mnist)",
}  # as refusals name what would fit
MOST_DRAWN = 8192  # pairs in a batch, or candidates, where they do not run out: their similarities must fit the memory


def _refuse_unfit_views(views: Views, facts: DatasetFacts, side: int) -> None:
    if facts.layout not in views.takes:
        wanted = " or ".join(LAYOUTS[layout] for layout in views.takes)
        raise SpecError("/views/kind", f"{views.kind} works on {wanted}, but {facts.name} holds {facts.layout}")
    if views.rgb and facts.channels != 3:
        raise SpecError(
            "/views/kind",
            f"{views.kind} needs red, green and blue, but {facts.name} has {facts.channels} channel(s); noise, crop, augment, "
            "frequency, patches and patch_grid work with any number",
        )
    smallest = facts.smallest_side or side
    if isinstance(views, Patches) and views.size > smallest:
        raise SpecError("/views/size", f"patches of {views.size} px, but the smallest image of {facts.name} has {smallest}")
    if isinstance(views, Patches) and views.size + views.distance > smallest:
        raise SpecError(
            "/views/distance",
            f"patches of {views.size} px at a distance of {views.distance} px need {views.size + views.distance} px, but the "
            f"smallest image of {facts.name} has {smallest}; at most {smallest - views.size}",
        )
    if isinstance(views, PatchGrid) and views.before is not None and views.before.v2 is not None:
        raise SpecError(
            "/views/before/v2", "both patches are cut from one augmented image, so there is no second way; leave v2 out"
        )
    if isinstance(views, PatchGrid) and views.size + views.stride > side:
        raise SpecError(
            "/views/stride",
            f"a second row of patches needs {views.size + views.stride} px, but images of {facts.name} have {side}; choose a "
            "smaller size or stride, or a larger /dataset/image_size",
        )
    frames = facts.frames or 1
    if isinstance(views, Temporal) and views.gap >= frames:
        raise SpecError("/views/gap", f"{views.gap} frames, but clips of {facts.name} have {frames}; at most {frames - 1}")


def _resolve_views(views: Views, facts: DatasetFacts, pretrain: Pretrain) -> Views:
    """Views that are learned, with the numbers that go by the dataset; others as they are."""
    if not isinstance(views, Learned):
        return views
    batch_size = views.batch_size or min(128, facts.train)
    if batch_size > facts.train:
        raise SpecError("/views/batch_size", f"{batch_size} pairs a step, but {facts.name} has {facts.train} training items")
    found: dict[str, Any] = {"batch_size": batch_size, "steps": views.steps or pretrain.total_steps(facts.train)}
    most = math.log(batch_size) - 1
    for field in ("floor_nats", "target_nats"):
        nats = getattr(views, field)
        if nats is not None and nats > most:
            raise SpecError(
                f"/views/{field}",
                f"{nats:g} nats, but {batch_size} pairs a step tell at most {most:.2f}, a nat below their ceiling; choose less, "
                "or a larger /views/batch_size",
            )
    found |= _label_budget_of_views(views, facts) if views.labelled else {"labels": None, "labelled_batch_size": None}
    return views.model_copy(update=found)


def _label_budget_of_views(views: Learned, facts: DatasetFacts) -> dict[str, int]:
    labelled = facts.labelled or facts.train
    if facts.classes is None or labelled < facts.classes:
        raise SpecError("/views/mode", f"{facts.name} has too few labels for {views.mode} views; choose unsupervised")
    labels = views.labels or labelled
    if not facts.classes <= labels <= labelled:
        raise SpecError(
            "/views/labels",
            f"a budget of {labels} labels; {facts.name} accepts {facts.classes} (one a class) to {labelled} (all)",
        )
    batch = views.labelled_batch_size or min(64, labels)
    if batch > labels:
        raise SpecError("/views/labelled_batch_size", f"{batch} labelled items a step, but there are {labels}")
    return {"labels": labels, "labelled_batch_size": batch}


def _resolve_dataset(dataset: Dataset, facts: DatasetFacts, pointer: str, patches: bool = False) -> Dataset:
    if dataset.version not in (None, facts.version):
        raise SpecError(f"{pointer}/version", f"{facts.name} holds version {facts.version} now, not {dataset.version}")
    for choice in ("digits", "backgrounds"):
        if getattr(dataset, choice) is not None and facts.layout != "scenes":
            raise SpecError(f"{pointer}/{choice}", f"only moving_mnist is made of {choice}; leave it out for {facts.name}")
    fixed = {"paired": "paired arrays keep the size they have", "scenes": "scenes are made at 64 pixels"}.get(facts.layout)
    if patches and facts.layout == "photos":
        fixed = "patches are cut from photographs as they are"
    if fixed and dataset.image_size not in (None, facts.image_size):
        raise SpecError(f"{pointer}/image_size", f"{fixed}; leave it out")
    found = {
        "image_size": dataset.image_size or facts.image_size,
        "version": facts.version,
        "digits": facts.digits,
        "backgrounds": facts.backgrounds,
    }
    return dataset.model_copy(update=found)


def _refuse_unfit_method(spec: ExperimentSpec, facts: DatasetFacts, side: int) -> None:
    method, views = spec.method, spec.views
    if isinstance(method, CMC) and not views.two_kinds:
        wanted = "color_split, frequency, learned, paired"
        raise SpecError(
            "/method/kind", f"cmc has an encoder for each of two kinds of views, and {views.kind} makes one; {wanted}"
        )
    if isinstance(method, CPC) and not isinstance(views, PatchGrid):
        raise SpecError("/method/kind", f"cpc foretells the rows of a patch_grid, which {views.kind} does not cut")
    if isinstance(method, PIRL | InfoMin) and not isinstance(views, Augment):
        raise SpecError(
            "/method/kind", f"{method.kind} takes augment and cuts the jigsaw itself; pieces of what {views.kind} makes are none"
        )
    if isinstance(method, PIRL | InfoMin) and side < LEAST_JIGSAW:
        raise SpecError(
            "/method/kind",
            f"the nine pieces of a jigsaw need images of {LEAST_JIGSAW} px at least, and {facts.name} is seen at {side}; choose "
            "a larger /dataset/image_size",
        )
    if isinstance(method, Frozen | Supervised) and isinstance(views, Factors):
        raise SpecError("/method/kind", f"{method.kind} compares features, which of a clip and of a still image are not alike")
    if isinstance(method, Supervised) and facts.targets().get(method.target) is None:
        has = [name for name, classes in facts.targets().items() if classes]
        raise SpecError(
            "/method/target", f"{facts.name} has no classes {method.target!r}" + (f"; choose {' or '.join(has)}" if has else "")
        )
    if isinstance(method, Frozen) and spec.pretrain.processes > 1:
        raise SpecError("/pretrain/processes", "frozen trains nothing; leave it out")


LEAST_JIGSAW = 24  # pixels of an image, of which a piece has a quarter
MOST_STRANGERS = {"moco": 65_536, "infomin": 65_536, "inst_dis": 4096, "cmc": 4096, "pirl": 32_000}  # as in the papers


def _resolve_method(spec: ExperimentSpec, facts: DatasetFacts, encoder: Encoder) -> Method:
    method = spec.method
    found: dict[str, Any] = {}
    if isinstance(method, MoCo):
        of_version: dict[str, Any] = {"v1": ("linear", 0.07), "v2": ("mlp", 0.2)}
        head, temperature = of_version[method.version]
        found |= {"head": method.head or head, "temperature": method.temperature or temperature}
    if isinstance(method, Projected) and found.get("head", method.head) == "mlp":
        found["hidden"] = method.hidden or encoder.features
    elif isinstance(method, Projected) and method.hidden is not None:
        raise SpecError("/method/hidden", "a linear head has no hidden layer; leave it out, or choose the head mlp")
    most = MOST_DRAWN if isinstance(spec.views, Patches) else facts.train
    batch_size = spec.pretrain.batch_size or min(256, most)
    if isinstance(method, MoCo | InfoMin):
        queue = method.queue or max(min(MOST_STRANGERS[method.kind], facts.train // 2), batch_size)
        if queue < batch_size:
            raise SpecError("/method/queue", f"{queue} past keys, but each step brings {batch_size}; at least as many")
        found["queue"] = queue
    if isinstance(method, CPC) and isinstance(spec.views, PatchGrid):
        rows = ((spec.dataset.image_size or facts.image_size) - spec.views.size) // spec.views.stride + 1
        found["steps"] = min(method.steps, rows - 1)
    alone = getattr(method, "objective", None) == "softmax" or getattr(method, "strangers", None) == "batch"
    if isinstance(method, InstDis | CMC | PIRL) and alone:
        if method.negatives is not None:
            raise SpecError("/method/negatives", "none are drawn from the bank here; leave it out")
    elif isinstance(method, InstDis | CMC | PIRL):
        others = facts.train - 1
        negatives = method.negatives or min(MOST_STRANGERS[method.kind], others)
        if not 1 <= negatives <= others:
            raise SpecError(
                "/method/negatives", f"{negatives} strangers, but {facts.name} has {others} other items; at most {others}"
            )
        found["negatives"] = negatives
    return method.model_copy(update=found)


def _resolve_encoder(spec: ExperimentSpec, side: int) -> Encoder:
    encoder: Encoder = spec.encoder
    if isinstance(spec.views, Factors):
        if "encoder" not in spec.model_fields_set:
            return ConvLSTM(kind="conv_lstm")
        if not isinstance(encoder, ConvLSTM):
            raise SpecError("/encoder/kind", f"factors shows clips, which conv_lstm takes and {encoder.kind} does not")
    if isinstance(encoder, SmallAlexNet) and encoder.width is None:
        return encoder.model_copy(update={"width": 48 if isinstance(spec.method, CMC) else 96})
    if isinstance(encoder, ResNet18 | ResNet34 | ResNet50) and encoder.stem is None:
        return encoder.model_copy(update={"stem": "small" if side <= MOST_SMALL else "imagenet"})
    return encoder


MOST_SMALL = 96  # pixels of an image for which ResNets have the small stem


def _resolve_pretrain(
    spec: ExperimentSpec, facts: DatasetFacts, encoder: Encoder, precision: Literal["float32", "bfloat16"]
) -> Pretrain:
    asked = spec.pretrain
    drawn = isinstance(spec.views, Patches)  # again and again from the same photographs
    most = MOST_DRAWN if drawn else facts.train
    batch_size = asked.batch_size or min(256, most)
    if batch_size > most:
        has = "pairs of patches are drawn" if drawn else f"{facts.name} has {facts.train} training items"
        raise SpecError("/pretrain/batch_size", f"{batch_size} pairs a step, but {has}; at most {most}")
    if batch_size % asked.processes:
        raise SpecError("/pretrain/processes", f"{asked.processes} processes cannot share {batch_size} pairs a step evenly")
    found: dict[str, Any] = {"batch_size": batch_size, **_learning_rates(asked, encoder, batch_size)}
    if asked.steps is None and asked.epochs is None:
        epochs = 10 if isinstance(spec.method, Frozen) else 100  # of the supervised reference alone, where nothing else trains
        found |= {"steps": 2000} if drawn else {"epochs": epochs}
    if asked.precision == "auto":
        found["precision"] = precision
    return asked.model_copy(update=found)


def _learning_rates(asked: Pretrain, encoder: Encoder, batch_size: int) -> dict[str, float | None]:
    """The peak learning rate, and what it was scaled up from."""
    base = asked.base_learning_rate
    if base is None and asked.learning_rate is None and asked.optimiser != "adamw":
        base = {"sgd": 0.06, "lars": 0.3}[asked.optimiser]
    if base is not None:
        scaled = base * batch_size / 256
        if asked.learning_rate is not None and abs(asked.learning_rate - scaled) > 1e-9 * scaled:
            raise SpecError(
                "/pretrain/learning_rate",
                f"{asked.learning_rate:g} is not base_learning_rate {base:g} times {batch_size} / 256, which is {scaled:g}; give "
                "one of the two",
            )
        return {"learning_rate": scaled, "base_learning_rate": base}
    return {"learning_rate": asked.learning_rate or (1e-2 if isinstance(encoder, SmallConv) else 1e-3)}


def _resolve_candidates(spec: ExperimentSpec, facts: DatasetFacts) -> int:
    others = [name for name in spec.mi.estimators if name != "infonce"]
    if others and not isinstance(spec.views, Patches) and facts.test < LEAST_PAIRS:
        raise SpecError(
            "/mi/estimators",
            f"{', '.join(others)} need at least {LEAST_PAIRS} held-out items, and {facts.name} has {facts.test}; infonce alone "
            "is accepted",
        )
    if isinstance(spec.views, Patches) and spec.mi.k is not None and spec.mi.k > MOST_DRAWN:
        raise SpecError("/mi/k", f"K = {spec.mi.k} candidates, but at most {MOST_DRAWN} pairs of patches are drawn at a time")
    if isinstance(spec.views, Patches):
        return spec.mi.k or 512
    k = spec.mi.k or min(512, facts.candidates)
    if not 2 <= k <= facts.candidates:
        raise SpecError(
            "/mi/k", f"K = {k} candidates, but {facts.name} has {facts.candidates} held-out items; 2 to {facts.candidates}"
        )
    return k


def _default_tasks(facts: DatasetFacts) -> tuple[Task, ...]:
    """Every target there is: none without labels."""
    if facts.classes is not None:
        return (Classification(kind="classification"),)
    return tuple(
        Localization(kind="localization", name=target)
        if classes is None
        else Classification(kind="classification", name=target, target=target)
        for target, classes in facts.factors.items()
    )


def _resolve_tasks(spec: ExperimentSpec, pretrained_on: DatasetFacts, facts: Facts) -> Iterator[Task]:
    tasks = spec.tasks if "tasks" in spec.model_fields_set else _default_tasks(pretrained_on)
    names: set[str] = set()
    for index, task in enumerate(tasks):
        pointer = f"/tasks/{index}"
        name = task.name or task.kind
        if name in names:
            raise SpecError(f"{pointer}/name", f"two tasks are called {name!r}; give each a name of its own")
        names.add(name)
        found: dict[str, Any] = {"name": name}
        known = pretrained_on
        if task.dataset is not None:
            known = facts(task.dataset, f"{pointer}/dataset")
            if task.dataset.name != spec.dataset.name:
                _refuse_unfit_transfer(spec, pretrained_on, known, f"{pointer}/dataset/name")
            found["dataset"] = _resolve_dataset(task.dataset, known, f"{pointer}/dataset")
        _refuse_unfit_target(task, known, pointer)
        yield task.model_copy(update=found | _label_budget(task, known, pointer))


def _refuse_unfit_transfer(spec: ExperimentSpec, pretrained_on: DatasetFacts, facts: DatasetFacts, pointer: str) -> None:
    if facts.layout not in ("images", "scenes") or (facts.layout == "scenes" and not isinstance(spec.views, Factors)):
        raise SpecError(pointer, f"a task on another dataset needs images, but {facts.name} holds {facts.layout}")
    if pretrained_on.layout == "paired" or facts.channels != pretrained_on.channels:
        raise SpecError(
            pointer,
            f"the encoder takes {pretrained_on.layout} of {pretrained_on.channels} channel(s), as {pretrained_on.name} has, but "
            f"{facts.name} has {facts.channels}",
        )


def _refuse_unfit_target(task: Task, facts: DatasetFacts, pointer: str) -> None:
    localizes = isinstance(task, Localization)
    fitting = [name for name, classes in facts.targets().items() if (classes is None) == localizes]
    missing = "places, as moving_mnist" if localizes else "labels"
    if task.target not in fitting:
        raise SpecError(
            f"{pointer}/target",
            f"{facts.name} has no {'labels' if task.target == 'label' else task.target} for {task.kind}; "
            + (f"choose {' or '.join(fitting)}" if fitting else f"leave the task out, or choose a dataset with {missing}"),
        )


def _label_budget(task: Task, facts: DatasetFacts, pointer: str) -> dict[str, Any]:
    """The budget in items, whichever way it was asked for."""
    given = next((name for name in BUDGETS if getattr(task, name, None) is not None), None)
    if given is None:
        return {}
    classes = facts.targets()[task.target] or 2
    labelled = facts.labelled or facts.train
    asked = getattr(task, given)
    labels = {"labels": asked, "labels_share": round(asked * labelled), "labels_per_class": asked * classes}[given]
    if not classes <= labels <= labelled:
        least = "a straight line through them" if isinstance(task, Localization) else "one a class"
        raise SpecError(
            f"{pointer}/{given}",
            f"a budget of {labels} labels; {facts.name} accepts {classes} ({least}) to {labelled} (all)",
        )
    return {given: None, "labels": labels}


def _with_node(base: ExperimentSpec, axis: Axis, index: int) -> dict[str, Any]:
    """The base with one value in place; what it left to defaults stays so, since defaults may depend on that value."""
    root = base.model_dump(mode="json", exclude_unset=True)
    if axis.path == WHOLE:
        return _with_parts(root, axis.values[index], index)
    node: Any = root
    default: Any = base.model_dump(mode="json")
    value = axis.values[index]
    *parents, last = (int(key) if key.isdigit() else key for key in axis.path.split("."))
    try:
        for key in parents:
            default = default[key]
            if default is None:
                raise SpecError("/axis/path", f"{key!r} of {axis.path!r} is null in the base; give it there first")
            node = node.setdefault(key, _as_begun(default)) if isinstance(node, dict) else node[key]
        was, node[last] = default[last], value  # a node that is there: a typo must not become a new field
    except (KeyError, IndexError, TypeError):
        raise SpecError("/axis/path", f"{axis.path!r} is no node of the spec; for example 'views.sigma' or 'views'") from None
    if last == "recipe":  # the base's values stand there already, and what is given wins over the recipe
        whole = axis.path.removesuffix(".recipe")
        raise SpecError(
            "/axis/path", f'sweep over {whole!r} with whole recipes instead, as {{"kind": "augment", "recipe": "simclr"}}'
        )
    if _is_number(was) and isinstance(value, str | bool):  # pydantic would read "0.5" and true as numbers; the axis would not
        raise SpecError(f"/axis/values/{index}", f"{axis.path} takes numbers, not {value!r}")
    return root


def _as_begun(default: Any) -> Any:
    """A node that the base left to its default: of one with a kind no more than that, for another kind has other defaults."""
    return {"kind": default["kind"]} if isinstance(default, dict) and "kind" in default else default


def _with_parts(root: dict[str, Any], parts: JsonValue, index: int) -> dict[str, Any]:
    fixed = ("seed", *NOT_DECISIVE, "spec_version")
    fitting = [name for name in ExperimentSpec.model_fields if name not in fixed]
    if not isinstance(parts, dict) or not parts or not parts.keys() <= set(fitting):
        raise SpecError(f"/axis/values/{index}", f"at least one of {', '.join(fitting)}, and nothing else")
    return root | parts


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)
