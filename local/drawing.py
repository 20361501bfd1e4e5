"""Draws the images of the scripted provider: a plain background with the prompt written on it.

A real provider draws what the prompt describes. Here the text shows that prompt, size, number and seed have arrived.
"""

import io
from collections.abc import Iterator

from PIL import Image, ImageDraw, ImageFont

DEFAULT_SIZE = (1024, 1024)
MAX_SIDE = 4096
MARGIN_SHARE, FONT_SHARE = 16, 18  # of the width
FORMATS = {"png": "PNG", "jpeg": "JPEG", "jpg": "JPEG", "webp": "WEBP"}


def draw_prompt(prompt: str, size: tuple[int, int], seed: int) -> Image.Image:
    """An image of that size, whose background depends on the seed, with the prompt in black."""
    image = Image.new("RGB", size, _background(seed))
    _write(image, prompt)
    return image


def edit_image(source: bytes, mask: bytes | None, prompt: str, size: tuple[int, int] | None) -> Image.Image:
    """The source image with the prompt on a white area: everywhere, or where the mask is transparent.

    Raises: OSError, when a file is no image.
    """
    original = Image.open(io.BytesIO(source)).convert("RGB")
    original = original.resize(size) if size else original  # pyright: ignore[reportUnknownMemberType]
    edited = Image.new("RGB", original.size, "white")
    _write(edited, prompt)
    if mask is None:
        return Image.blend(original, edited, 0.8)
    opacity = Image.open(io.BytesIO(mask)).convert("RGBA").resize(original.size).getchannel("A")  # pyright: ignore[reportUnknownMemberType]
    return Image.composite(original, edited, opacity)


def encode_image(image: Image.Image, output_format: str) -> bytes:
    """The file. Raises: KeyError, for an unknown format."""
    target = io.BytesIO()
    image.save(target, FORMATS[output_format])
    return target.getvalue()


def parse_size(text: str | None) -> tuple[int, int] | None:
    """The width and height of `1024x768`; None for `auto`, or when it is absent. Raises: ValueError."""
    if not text or text == "auto":
        return None
    width, _, height = text.partition("x")
    size = int(width), int(height)
    if not all(0 < side <= MAX_SIDE for side in size):
        raise ValueError("size out of range")
    return size


def _background(seed: int) -> tuple[int, int, int]:
    """A light color, so that the text is readable."""
    return 200 + seed * 37 % 56, 200 + seed * 59 % 56, 200 + seed * 83 % 56


def _write(image: Image.Image, text: str) -> None:
    margin = max(1, image.width // MARGIN_SHARE)
    size = max(8, image.width // FONT_SHARE)
    font = ImageFont.load_default(size)
    lines = "\n".join(_wrap(text, font, image.width - 2 * margin))
    ImageDraw.Draw(image).multiline_text((margin, margin), lines, fill="black", font=font, spacing=size // 2)


def _wrap(text: str, font: ImageFont.FreeTypeFont | ImageFont.ImageFont, width: int) -> Iterator[str]:
    line = ""
    for word in text.split():
        longer = f"{line} {word}".strip()
        if line and font.getlength(longer) > width:
            yield line
            line = word
        else:
            line = longer
    yield line
