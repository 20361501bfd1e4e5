"""What the gateway checks in the image files of requests: whether they are images, their types, and transparency.

Only headers are read: nothing is decompressed.
Sources: https://www.w3.org/TR/png-3/#5DataRep, https://developers.google.com/speed/webp/docs/riff_container
"""

import struct
from collections.abc import Iterator
from dataclasses import replace

from aiserver.wire.file_types import FILE_TYPES, detect_file_type
from aiserver.wire.forms import Part
from aiserver.wire.validation import invalid_field

PNG, WEBP = FILE_TYPES["png"], FILE_TYPES["webp"]
MAX_PNG_CHUNKS = 64  # read before the image data
_PNG_HEAD_BYTES = 26  # up to the color type
_ALPHA_COLOR_TYPES = (4, 6)


def check_image(part: Part) -> Part:
    """The file with the content type of its bytes and a file name with an extension: servers judge by either.

    Raises: InvalidRequest, when the bytes are not an image.
    """
    file_type = detect_file_type(part.content)
    if not file_type.media_type.startswith("image/"):
        raise invalid_field("InvalidImage", part.name, f"'{part.name}' is not an image: its bytes are no known format")
    name = part.file_name or part.name.partition("[")[0]
    return replace(
        part,
        content_type=file_type.media_type,
        file_name=name if "." in name else f"{name}.{file_type.extension}",
    )


def has_transparency(content: bytes) -> bool:
    """Whether an image can have transparent pixels, by its header; True for formats that are not known here."""
    file_type = detect_file_type(content)
    if file_type is PNG:
        return _png_color_type(content) in _ALPHA_COLOR_TYPES or b"tRNS" in _png_chunk_types(content)
    if file_type is WEBP:
        return _webp_has_alpha(content)
    return file_type.extension not in ("jpg", "bmp")


def _png_color_type(content: bytes) -> int:
    return content[25] if len(content) >= _PNG_HEAD_BYTES else 0


def _png_chunk_types(content: bytes) -> Iterator[bytes]:
    """The types of the chunks before the image data."""
    at = 8
    for _ in range(MAX_PNG_CHUNKS):
        if at + 8 > len(content):
            return
        size, chunk_type = struct.unpack_from(">I4s", content, at)
        if chunk_type == b"IDAT":
            return
        yield chunk_type
        at += size + 12


def _webp_has_alpha(content: bytes) -> bool:
    chunk_type = content[12:16]
    if chunk_type == b"VP8X":
        return bool(content[20:21] and content[20] & 0x10)
    return chunk_type == b"VP8L" and bool(content[24:25] and content[24] & 0x10)
