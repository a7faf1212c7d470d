"""Pages of pictures and words: what previews and other pictures are laid out with."""

import io
import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from fractions import Fraction

from jaxtyping import UInt8
from PIL import Image, ImageDraw, ImageFont, ImageOps
from torch import Tensor

WIDEST = 1400  # of a picture, in pixels
NARROWEST = 560  # so that there is room for words
TILE = 128  # side that an image is enlarged to, about
SEAM = 3  # between the images of a strip
GAP = 10  # between strips
GUTTER = 32  # between what does not belong together
MARGIN = 20
INK, QUIET = "#222222", "#666666"


@dataclass(frozen=True)
class Letters:
    """Letters of a size and a colour; the font that Pillow brings along has no Greek, and no dash but the hyphen."""

    size: int
    colour: str

    def written(self, texts: Iterable[str], width: int) -> Image.Image:
        """Each text on lines of its own, no longer than `width` pixels if its words allow that."""
        font = ImageFont.load_default(self.size)
        assert isinstance(font, ImageFont.FreeTypeFont)  # as long as Pillow is built with FreeType, as its wheels are
        lines = [line for text in texts for line in _wrapped(text, width, font)]
        leading = self.size + 5
        block = Image.new("RGB", (math.ceil(max(map(font.getlength, lines), default=0)), leading * len(lines)), "white")
        pen = ImageDraw.Draw(block)
        for number, line in enumerate(lines):
            pen.text((0, number * leading), line, fill=self.colour, font=font)
        return block


TITLE, TEXT = Letters(18, INK), Letters(13, QUIET)
HEAD, NAME, CAPTION = Letters(14, INK), Letters(12, INK), Letters(12, QUIET)


def finished(title: str, text: Sequence[str], parts: Sequence[Image.Image]) -> bytes:
    """The PNG of a page: words over its parts, which stand under each other, and a margin around all."""
    width = max(NARROWEST, *(part.width for part in parts))
    over = stacked([TITLE.written([title], width), TEXT.written(text, width)])
    file = io.BytesIO()
    ImageOps.expand(padded(stacked([over, *parts], GUTTER // 2), width), MARGIN, "white").save(file, "PNG")
    return file.getvalue()


def scales(strips: Sequence[Sequence[int]]) -> list[Fraction]:
    """By how much the images of strips side by side are enlarged, of which each is told by its shape [T ... H W].

    Whole numbers, or one over a whole number where even 1 is too wide.
    """

    def width(scales: Sequence[int]) -> int:
        wide = sum(strip[0] * (scale * strip[-1] + SEAM) for strip, scale in zip(strips, scales, strict=True))
        return wide + GAP * (len(strips) - 1)

    for side in range(TILE, 0, -1):
        enlarged = [max(1, side // max(strip[-2:])) for strip in strips]
        if width(enlarged) <= WIDEST:
            return [Fraction(scale) for scale in enlarged]
    return [Fraction(1, math.ceil(width([1] * len(strips)) / WIDEST))] * len(strips)


def strip(images: UInt8[Tensor, "T 3 H W"], names: Sequence[str], scale: Fraction) -> Image.Image:
    """Images side by side, each over its name if they have names."""
    scaled = [_scaled(picture(image), scale) for image in images]
    named = [[image, NAME.written([name], image.width)] for image, name in zip(scaled, names or [""] * len(scaled), strict=True)]
    return beside([stacked(part, 2) for part in named], SEAM)


def picture(image: UInt8[Tensor, "3 H W"]) -> Image.Image:
    """A tensor as an image of Pillow's."""
    return Image.fromarray(image.permute(1, 2, 0).contiguous().numpy())


def stacked(parts: Sequence[Image.Image], gap: int = 0) -> Image.Image:
    """Under each other; what is empty takes no room."""
    parts = [part for part in parts if part.height]
    whole = Image.new("RGB", (max(part.width for part in parts), sum(part.height + gap for part in parts) - gap), "white")
    top = 0
    for part in parts:
        whole.paste(part, (0, top))
        top += part.height + gap
    return whole


def beside(parts: Sequence[Image.Image], gap: int) -> Image.Image:
    """Next to each other, from the top."""
    whole = Image.new("RGB", (sum(part.width + gap for part in parts) - gap, max(part.height for part in parts)), "white")
    left = 0
    for part in parts:
        whole.paste(part, (left, 0))
        left += part.width + gap
    return whole


def table(rows: Sequence[Sequence[Image.Image]], across: int, down: int) -> Image.Image:
    """Cells in rows and in columns that are as wide as their widest cell, with gaps of so many pixels."""
    wide = [max(cell.width for cell in column) for column in zip(*rows, strict=True)]
    padded_rows = [[padded(cell, width) for cell, width in zip(row, wide, strict=True)] for row in rows]
    return stacked([beside(row, across) for row in padded_rows], down)


def padded(part: Image.Image, width: int) -> Image.Image:
    """At least so wide, with white to the right."""
    whole = Image.new("RGB", (max(width, part.width), part.height), "white")
    whole.paste(part)
    return whole


def _scaled(image: Image.Image, scale: Fraction) -> Image.Image:
    if scale < 1:
        return image.reduce(scale.denominator)
    return ImageOps.scale(image, scale.numerator, Image.Resampling.NEAREST)


def _wrapped(text: str, width: int, font: ImageFont.FreeTypeFont) -> list[str]:
    lines: list[str] = []
    for word in text.split():
        longer = f"{lines[-1]} {word}" if lines else word
        if lines and font.getlength(longer) <= width:
            lines[-1] = longer
        else:
            lines.append(word)
    return lines
