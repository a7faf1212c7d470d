import typing

import pytest
import torch
import torchvision.transforms.v2.functional as V
from jaxtyping import TypeCheckError
from torch import Generator

from ml import encoders, methods, spec, views
from ml.datasets.clips import ClipSplit
from ml.datasets.photographs import of_images
from ml.datasets.raw import BYTES
from ml.datasets.scenes import SceneSplit
from ml.datasets.split import ImageSplit, PairSplit, Pixels, Split
from ml.encoders import PixelEncoder, Standardise
from ml.learned_views import Found
from ml.learned_views.flow import Flow
from ml.views import adjust, drawn, resample

CPU = torch.device("cpu")
DEVICES = [CPU, torch.device("cuda")] if torch.cuda.is_available() else [CPU]
FAMILIES = (*typing.get_args(typing.get_args(spec.Views)[0]), Found)
SMALL: dict[type[spec.Family], dict[str, object]] = {
    spec.Patches: {"size": 8, "distance": 4},
    spec.PatchGrid: {"size": 8, "stride": 4},
    spec.Temporal: {"gap": 2},
}  # where the defaults are too large for small items


def recipe_of(family: type[spec.Part], **parameters: object) -> spec.Views:
    return family.model_validate({"kind": typing.get_args(family.model_fields["kind"].annotation)[0], **parameters})


def found(device: torch.device) -> Found:
    """Views that were learned, as it were: by a map that is not the identity."""
    asked = spec.Learned(kind="learned")
    torch.manual_seed(0)
    flow = Flow(asked)
    for weights in flow.parameters():
        torch.nn.init.normal_(weights, std=0.5)
    return Found.of(asked, flow.to(device))


def photographs(B: int = 6, C: int = 3, size: int = 16) -> torch.Tensor:
    return torch.rand(B, C, size, size, generator=Generator().manual_seed(1))


def stored(device: torch.device, *shape: int) -> Pixels:
    numbers = torch.randint(0, 256, shape, dtype=torch.uint8, generator=Generator().manual_seed(1))
    return Pixels(numbers.to(device), BYTES, device)


def needs_colours(family: type[spec.Family]) -> bool:
    return family.rgb or family.takes == ("scenes",)


def split_for(family: type[spec.Family], device: torch.device, channels: int = 3, items: int = 12) -> Split:
    """A small split of the layout that the family takes."""
    images = stored(device, items, channels, 16, 16)
    if family is spec.Patches:
        return of_images(images.stored, BYTES, device)
    match family.takes[0]:
        case "clips":
            return ClipSplit(stored(device, items, 6, channels, 16, 16), {})
        case "paired":
            return PairSplit(images, stored(device, items, channels + 1, 12, 12), {})
        case "scenes":
            digits, backgrounds = (stored(device, items, *shape).stored for shape in ((28, 28), (3, 32, 32)))
            labels = torch.arange(items, device=device) % 3
            return SceneSplit(digits, labels, backgrounds, labels, seed=0)
    return ImageSplit(images, {})


@pytest.mark.parametrize("device", DEVICES, ids=str)
@pytest.mark.parametrize(
    ("family", "channels"),
    [(family, channels) for family in FAMILIES for channels in ([3] if needs_colours(family) else [1, 3, 13])],
    ids=lambda value: value if isinstance(value, int) else value.__name__,
)
class TestEveryFamily:
    @pytest.fixture(autouse=True)
    def _prepare(self, family: type[spec.Family], channels: int, device: torch.device) -> None:
        self.recipe = found(device) if family is Found else recipe_of(family, **SMALL.get(family, {}))
        self.split = split_for(family, device, channels)
        self.items = torch.arange(len(self.split), device=device)
        self.device = device

    def made(self, seed: int, items: torch.Tensor | None = None) -> tuple[torch.Tensor, torch.Tensor]:
        chosen = self.split.take(self.items if items is None else items)
        return views.make(self.recipe, chosen, Generator(self.device).manual_seed(seed))

    def test_gives_two_finite_float_batches_on_the_items_device_and_leaves_the_items_alone(self) -> None:
        before = self.made(seed=0)
        images = self.split.take(self.items)
        kept = images.clone() if isinstance(images, torch.Tensor) else None
        v1, v2 = views.make(self.recipe, images, Generator(self.device).manual_seed(0))
        assert v1.dtype == v2.dtype == torch.float32
        assert v1.device.type == v2.device.type == self.device.type
        assert len(v1) == len(v2) == len(self.split)
        assert v1.isfinite().all() and v2.isfinite().all()
        assert torch.equal(v1, before[0])
        assert kept is None or torch.equal(images, kept)

    def test_channels_are_those_of_the_items_or_their_split(self, family: type[spec.Family], channels: int) -> None:
        v1, v2 = self.made(seed=0)
        promised = dict.fromkeys((spec.ColorSplit, spec.Learned, Found), (1, 2)) | {spec.Paired: (channels, channels + 1)}
        assert (v1.shape[-3], v2.shape[-3]) == promised.get(family, (channels, channels))

    def test_views_of_one_kind_have_one_shape(self, family: type[spec.Family]) -> None:
        v1, v2 = self.made(seed=0)
        if not family.two_kinds and family is not spec.Factors:
            assert v1.shape == v2.shape

    def test_the_same_seed_gives_the_same_pixels(self) -> None:
        assert all(torch.equal(first, second) for first, second in zip(self.made(seed=3), self.made(seed=3), strict=True))

    def test_where_there_is_chance_each_sample_has_its_own(self) -> None:
        same = torch.zeros(8, dtype=torch.long, device=self.device)
        v1, v2 = self.made(seed=0, items=same)
        other, _ = self.made(seed=1, items=same)
        if not torch.equal(v1, other):
            assert all(len(view.unique(dim=0)) > 2 for view in (v1, v2))
            assert v1.shape != v2.shape or not torch.equal(v1, v2)

    def test_clean_inputs_have_the_channels_and_encoders_of_the_views(self, family: type[spec.Family], channels: int) -> None:
        if family is spec.Patches:  # its tasks are on whole images
            inputs: tuple[torch.Tensor, ...] = views.clean(self.recipe, photographs(C=channels).to(self.device))
        else:
            inputs = views.clean(self.recipe, self.split.take(self.items))
        assert len(inputs) == (2 if family.two_kinds else 1)
        assert all(clean.ndim == 4 for clean in inputs)
        assert [clean.shape[1] for clean in inputs] == [view.shape[-3] for view in self.made(seed=0)[: len(inputs)]]

    @pytest.mark.parametrize("autocast", [False, True], ids=["float32", "bfloat16"])
    def test_a_step_of_training_moves_every_weight(self, family: type[spec.Family], autocast: bool) -> None:
        torch.manual_seed(0)
        v1, v2 = self.made(seed=0)
        architecture = spec.ConvLSTM(kind="conv_lstm") if family is spec.Factors else spec.SmallConv(width=4)
        built = [encoders.build(architecture, view.shape[-3]) for view in ((v1, v2) if family.two_kinds else (v1,))]
        widths = (64, 64) if family is spec.Factors else (16,) * len(built)
        standard = [Standardise(torch.zeros(view.shape[-3]), torch.ones(view.shape[-3])) for view in (v1, v2)]
        pixel = [PixelEncoder(encoder, before, autocast) for encoder, before in zip(built, standard, strict=False)]
        setting = methods.Setting(pixel, widths, items=len(v1), recipe=self.recipe)
        method = methods.build(spec.SimCLR(), setting).to(self.device)
        loss = method.loss((v1, v2), self.items, Generator(self.device))
        loss.backward()
        assert loss.isfinite()
        assert all(parameter.grad is not None and parameter.grad.isfinite().all() for parameter in method.parameters())

    def test_captions_are_kept_only_while_somebody_records(self) -> None:
        with drawn.recording() as record:
            recorded = self.made(seed=0)
        silent = self.made(seed=0)
        assert all(torch.equal(first, second) for first, second in zip(recorded, silent, strict=True))
        assert all(len(words) == len(self.split) for *_, words in record.notes)


def test_noise_has_the_standard_deviation_asked_for_and_is_not_clipped() -> None:
    images = torch.full((64, 1, 32, 32), 0.5)
    v1, v2 = views.make(recipe_of(spec.Noise, sigma=1.6), images, Generator().manual_seed(0))
    assert v1.std().item() == pytest.approx(1.6, rel=4 / (2 * v1.numel()) ** 0.5)
    assert torch.corrcoef(torch.stack((v1.flatten(), v2.flatten())))[0, 1].abs() < 4 / v1.numel() ** 0.5
    assert v1.min() < 0 and v1.max() > 1


def test_no_noise_is_the_identity() -> None:
    v1, v2 = views.make(recipe_of(spec.Noise, sigma=0), photographs(), Generator().manual_seed(0))
    assert torch.equal(v1, photographs()) and torch.equal(v2, photographs())


def test_a_crop_of_everything_is_the_identity() -> None:
    v1, v2 = views.make(recipe_of(spec.Crop, area=1), photographs(), Generator().manual_seed(0))
    assert torch.equal(v1, photographs()) and torch.equal(v2, photographs())


@pytest.mark.parametrize("area", [0.01, 0.25, 0.81])
def test_a_crop_of_a_ramp_is_a_ramp_with_the_square_root_of_the_area_as_slope(area: float) -> None:
    ramp = torch.linspace(0, 1, 32).expand(4, 1, 32, 32)
    v1, _ = views.make(recipe_of(spec.Crop, area=area), ramp, Generator().manual_seed(0))
    slopes = v1[:, 0, 0, 16] - v1[:, 0, 0, 15]
    torch.testing.assert_close(slopes, torch.full((4,), area**0.5 / 31), rtol=1e-3, atol=1e-6)


@pytest.mark.parametrize("flip", [False, True])
@pytest.mark.parametrize("box", [(0, 0, 16, 16), (3, 5, 7, 9), (15, 0, 1, 16), (2, 2, 14, 3)])
def test_resized_boxes_are_torchvisions_resized_crop(box: tuple[int, int, int, int], flip: bool) -> None:
    images = photographs()
    expected = V.resized_crop(images, *box, size=[16, 16], antialias=True)
    expected = V.horizontal_flip(expected) if flip else expected
    corners = [torch.full((len(images),), float(side)) for side in box]
    actual = resample.resized_boxes(images, *corners, flip=torch.full((len(images),), flip))
    torch.testing.assert_close(actual, expected, rtol=0, atol=1e-5)


def test_shapes_in_signatures_are_checked_here() -> None:
    with pytest.raises(TypeCheckError):
        adjust.hue_(photographs(C=1), torch.zeros(6))
    with pytest.raises(TypeCheckError):
        views.make(recipe_of(spec.Noise), photographs()[0], Generator())
