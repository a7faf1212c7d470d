"""Code to take away with weights: it builds the encoder, or the map of learned views, anew and needs nothing of ours."""

import json
from textwrap import fill

from ml.spec import ColorSplit, ConvLSTM, ExperimentSpec, Frequency, Frozen, Learned, SmallAlexNet, SmallConv, Views

WIDTH = 100  # of the text in the file


def load_encoder(spec: ExperimentSpec) -> str:
    """A Python file whose `load_encoder(path)` is the encoder of a resolved spec, from pixels to features.

    Where there are two encoders it is either, by the weights that it is given.
    """
    encoder = spec.encoder
    match encoder:
        case SmallConv(width=width):
            network = _SMALL_CONV.format(width, 2 * width, 4 * width)
        case SmallAlexNet(width=width):
            network = _SMALL_ALEXNET.format(*(factor * (width or 96) for factor in (1, 2, 4)))
        case ConvLSTM(width=width, lstm=lstm, pooling=pooling):
            widths = (width, 2 * width, 4 * width, 8 * width)
            network = _CONV_LSTM.format(widths, side=4 if pooling == "flatten" else 1, features=encoder.features, lstm=lstm)
        case _:
            network = (_RESNET_IMAGENET if encoder.stem == "imagenet" else _RESNET_SMALL).format(encoder.kind)
    torchvision = encoder.kind.startswith("resnet")
    layer_norm = spec.method.norm == "layer"
    before = _WHITEN if isinstance(spec.views, ColorSplit) and spec.views.whiten else _STANDARDISE
    lines = [
        f'"""{_words(spec)}',
        "",
        f'Needs torch{", torchvision" if torchvision else ""} and safetensors.\n"""',
        "",
        "from collections import OrderedDict",
        *(["from functools import partial"] if layer_norm else []),
        "",
        "import torch",
        "from safetensors.torch import load_file",
        "from torch import Tensor, nn",
        *([f"from torchvision.models import {encoder.kind}"] if torchvision else []),
        "",
        # Over channels and positions; a group norm of one group is a layer norm.
        f"norm = {'partial(nn.GroupNorm, 1)' if layer_norm else 'nn.BatchNorm2d'}",
        _LOAD.format(file=_files(spec)[0], features=encoder.features),
        before,
        network,
        _USE.format(side=getattr(spec.views, "size", None) or spec.dataset.image_size),
    ]
    return "\n".join(lines)


def view_generator(spec: ExperimentSpec) -> str:
    """A Python file whose `load_view_generator(path)` is the learned map of a resolved spec, with its inverse and its views."""
    recipe = spec.views
    assert isinstance(recipe, Learned), "as its map is what is taken away"
    affine, ydbdr = recipe.flow == "non_volume_preserving", recipe.base_space == "ydbdr"
    dataset = f"{spec.dataset.name} at {spec.dataset.image_size} px"
    paragraphs = [
        f"A view generator of Sweetspot: a map of colours that was learned on {dataset}, seed {spec.seed}.",
        f"The views: {_recipe(recipe)}",
        "It takes RGB images scaled to [0, 1], as float32.",
    ]
    pixels, colours = "images.movedim(1, -1)", "torch.cat((first, others), dim=-1)"
    generator = _VIEW_GENERATOR.format(
        first=2 if affine else 1,  # a shift for each channel that moves, and a scale
        others=4 if affine else 2,
        blocks=recipe.blocks,
        pixels=f"({pixels} @ YDBDR.T.to(images))" if ydbdr else pixels,
        colours=f"({colours} @ YDBDR.inverse().T.to(channels))" if ydbdr else colours,
        hidden=recipe.hidden,
    )
    lines = [
        '"""' + "\n\n".join(fill(paragraph, WIDTH) for paragraph in paragraphs),
        "",
        'Needs torch and safetensors.\n"""',
        "",
        *(["import math"] if affine else []),
        "from collections import OrderedDict",
        "",
        "import torch",
        "from safetensors.torch import load_file",
        "from torch import Tensor, nn",
        *([_YDBDR] if ydbdr else []),
        generator,
        _AFFINE if affine else _ADDITIVE,
        _USE_VIEWS.format(side=spec.dataset.image_size),
    ]
    return "\n".join(lines)


def _files(spec: ExperimentSpec) -> tuple[str, ...]:
    return ("encoder_v1.safetensors", "encoder_v2.safetensors") if spec.views.two_kinds else ("encoder.safetensors",)


def _words(spec: ExperimentSpec) -> str:
    """How the encoder was trained, and what it takes."""
    dataset = f"{spec.dataset.name} at {spec.dataset.image_size} px"
    pretrain = spec.pretrain
    length = f"{pretrain.steps} steps" if pretrain.steps else f"{pretrain.epochs} epochs"
    weights = f", from {spec.encoder.weights}" if spec.encoder.weights else ""
    if isinstance(spec.method, Frozen):
        trained = f"taken as it was{weights}, and measured on"
    else:
        trained = f"trained by {spec.method.kind}{weights} for {length} of {pretrain.batch_size} pairs on"
    first = f"An encoder of Sweetspot: {spec.encoder.kind}, {trained} {dataset}, seed {spec.seed}."
    arithmetic = " It was trained in bfloat16; here it is float32." if pretrain.precision == "bfloat16" else ""
    paragraphs = [first, f"The views: {_recipe(spec.views)}", _takes(spec) + arithmetic]
    return "\n\n".join(fill(paragraph, WIDTH) for paragraph in paragraphs)


def _recipe(views: Views) -> str:
    return json.dumps({"kind": views.kind, **views.model_dump(mode="json", exclude_none=True)})


def _takes(spec: ExperimentSpec) -> str:
    match spec.views:
        case ColorSplit(space=space, first=first):
            v1, v2 = f"channel {first} of {space}, as scikit-image converts to it", "the other two"
        case Frequency(sigma=sigma):
            v1, v2 = f"images in [0, 1] after a Gaussian blur of sigma {sigma:g} px", "what the blur took away"
        case Learned():
            v1, v2 = "channel 0 of what view_generator.py makes of RGB images in [0, 1]", "the other two"
        case views if views.two_kinds:
            v1, v2 = "v1 scaled to [0, 1]", "v2 likewise"
        case _:
            return "It takes pixels scaled to [0, 1], as float32."
    return "{} takes {}, and {} {}, as float32.".format(
        *(part for pair in zip(_files(spec), (v1, v2), strict=True) for part in pair)
    )


_LOAD = '''

def load_encoder(path: str = "{file}") -> nn.Module:
    """From pixels [B, C, H, W] to features [B, {features}], in evaluation mode."""
    weights = load_file(path)
    channels = len(weights["standardise.mean"])
    encoder = nn.Sequential(OrderedDict(standardise=Standardise(channels), encoder=network(channels)))
    encoder.load_state_dict(weights)
    return encoder.eval()
'''

_STANDARDISE = '''
class Standardise(nn.Module):
    """Each channel shifted and scaled to mean 0 and deviation 1, by statistics of the training images."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.register_buffer("mean", torch.zeros(channels))
        self.register_buffer("std", torch.ones(channels))

    def forward(self, pixels: Tensor) -> Tensor:
        return (pixels - self.mean[:, None, None]) / self.std[:, None, None]
'''

_WHITEN = '''
class Standardise(nn.Module):
    """Channels shifted and mixed until they are uncorrelated and of variance 1, by statistics of the training images."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.register_buffer("mean", torch.zeros(channels))
        self.register_buffer("mixing", torch.eye(channels))

    def forward(self, pixels: Tensor) -> Tensor:
        return torch.einsum("dc,...chw->...dhw", self.mixing, pixels - self.mean[:, None, None])
'''

_HALVED = """

def halved(in_channels: int, channels: int) -> nn.Sequential:
    return nn.Sequential(
        nn.Conv2d(in_channels, channels, kernel_size=3, stride=2, padding=1, bias=False),
        norm(channels),
        nn.ReLU(),
    )
"""

_SMALL_CONV = (
    '''
def network(channels: int) -> nn.Module:
    """Three 3x3 convolutions of stride 2, then the mean over positions."""
    layers = nn.Sequential(halved(channels, {0}), halved({0}, {1}), halved({1}, {2}))
    return nn.Sequential(OrderedDict(layers=layers, pool=nn.AdaptiveAvgPool2d(1), flat=nn.Flatten()))
'''
    + _HALVED
)

_SMALL_ALEXNET = '''
def network(channels: int) -> nn.Module:
    """Five 3x3 convolutions and three max poolings, then the map seen at 3x3."""
    layers = nn.Sequential(
        *convolved(channels, {0}),
        nn.MaxPool2d(kernel_size=3, stride=2, padding=1),
        *convolved({0}, {1}),
        nn.MaxPool2d(kernel_size=3, stride=2, padding=1),
        *convolved({1}, {2}),
        *convolved({2}, {2}),
        *convolved({2}, {1}),
        nn.MaxPool2d(kernel_size=3, stride=2, padding=1),
    )
    return nn.Sequential(OrderedDict(layers=layers, pool=nn.AdaptiveAvgPool2d(3), flat=nn.Flatten()))


def convolved(in_channels: int, channels: int) -> tuple[nn.Module, ...]:
    return nn.Conv2d(in_channels, channels, kernel_size=3, padding=1, bias=False), norm(channels), nn.ReLU()
'''

_CONV_LSTM = (
    '''
def network(channels: int) -> nn.Module:
    return ConvLSTM(channels)


class ConvLSTM(nn.Module):
    """Four 3x3 convolutions of stride 2, whose pooled map is what stills [B, C, H, W] become.

    Clips [B, T, C, H, W] become the state of an LSTM that has read their frames' features: {lstm} numbers.
    """

    def __init__(self, channels: int) -> None:
        super().__init__()
        widths = (channels, *{0})
        self.layers = nn.Sequential(*(halved(*pair) for pair in zip(widths[:-1], widths[1:])))
        self.pool = nn.Sequential(nn.AdaptiveAvgPool2d({side}), nn.Flatten())
        self.lstm = nn.LSTM({features}, {lstm}, batch_first=True)

    def forward(self, items: Tensor) -> Tensor:
        if items.ndim == 4:
            return self.pool(self.layers(items))
        features = self.pool(self.layers(items.flatten(0, 1))).unflatten(0, items.shape[:2])
        return self.lstm(features)[1][0][0]
'''
    + _HALVED
)

_RESNET_SMALL = '''
def network(channels: int) -> nn.Module:
    """With a 3x3 convolution of stride 1 at its beginning and without max pooling, for small images."""
    made = {0}(norm_layer=norm)
    made.conv1 = nn.Conv2d(channels, 64, kernel_size=3, stride=1, padding=1, bias=False)
    made.maxpool = nn.Identity()
    made.fc = nn.Identity()
    return nn.Sequential(OrderedDict(network=made))
'''

_RESNET_IMAGENET = '''
def network(channels: int) -> nn.Module:
    """As it is for ImageNet, but for the number of channels and without the classes."""
    made = {0}(norm_layer=norm)
    made.conv1 = nn.Conv2d(channels, 64, kernel_size=7, stride=2, padding=3, bias=False)
    made.fc = nn.Identity()
    return nn.Sequential(OrderedDict(network=made))
'''

_USE = """
if __name__ == "__main__":
    encoder = load_encoder()
    pixels = torch.rand(8, len(encoder.standardise.mean), {side}, {side})
    print(encoder(pixels).shape)
"""

_YDBDR = """
YDBDR = torch.tensor([[0.299, 0.587, 0.114], [-0.45, -0.883, 1.333], [-1.333, 1.116, 0.217]])  # rows Y, Db, Dr of RGB"""

_VIEW_GENERATOR = '''

def load_view_generator(path: str = "view_generator.safetensors") -> "ViewGenerator":
    """Frozen, as it was learned."""
    generator = ViewGenerator()
    generator.load_state_dict(load_file(path))
    return generator.eval().requires_grad_(False)


class ViewGenerator(nn.Module):
    """An invertible map of each pixel to three channels, of which the first is v1 and the others are v2."""

    def __init__(self) -> None:
        super().__init__()
        blocks = [{{"of_first": network(2, {first}), "of_others": network(1, {others})}} for _ in range({blocks})]
        self.blocks = nn.ModuleList(map(nn.ModuleDict, blocks))

    def forward(self, images: Tensor) -> Tensor:
        """From RGB images [B, 3, H, W] to their channels [B, 3, H, W]."""
        first, others = {pixels}.split((1, 2), dim=-1)
        for block in self.blocks:
            first = moved(first, block["of_first"](others))
            others = moved(others, block["of_others"](first))
        return torch.cat((first, others), dim=-1).movedim(-1, 1)

    def inverse(self, channels: Tensor) -> Tensor:
        """From channels back to RGB images."""
        first, others = channels.movedim(1, -1).split((1, 2), dim=-1)
        for block in reversed(self.blocks):
            others = moved_back(others, block["of_others"](first))
            first = moved_back(first, block["of_first"](others))
        return {colours}.movedim(-1, 1)

    def views(self, images1: Tensor, images2: Tensor) -> tuple[Tensor, Tensor]:
        """v1 and v2 of two crops of the same images, or of the same images twice."""
        return self(images1)[:, :1], self(images2)[:, 1:]


def network(channels: int, told: int) -> nn.Sequential:
    """From the channels that stay to how the others are moved."""
    return nn.Sequential(OrderedDict(read=nn.Linear(channels, {hidden}), relu=nn.ReLU(), write=nn.Linear({hidden}, told)))
'''

_ADDITIVE = """
def moved(channels: Tensor, shift: Tensor) -> Tensor:
    return channels + shift


def moved_back(channels: Tensor, shift: Tensor) -> Tensor:
    return channels - shift
"""

_AFFINE = '''
def moved(channels: Tensor, told: Tensor) -> Tensor:
    shift, scale = told.chunk(2, dim=-1)
    return channels * bounded(scale) + shift


def moved_back(channels: Tensor, told: Tensor) -> Tensor:
    shift, scale = told.chunk(2, dim=-1)
    return (channels - shift) / bounded(scale)


def bounded(scale: Tensor) -> Tensor:
    """A factor between 1/3 and 3."""
    return (scale / (1 + scale.abs() / math.log(3))).exp()
'''

_USE_VIEWS = """
if __name__ == "__main__":
    generator = load_view_generator()
    images = torch.rand(8, 3, {side}, {side})
    v1, v2 = generator.views(images, images)
    print(v1.shape, v2.shape)
"""
