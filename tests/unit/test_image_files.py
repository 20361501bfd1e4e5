"""Image files of requests: their types by their bytes, their names, and whether they have transparent pixels."""

import io
import struct
from collections.abc import Sequence
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from aiserver.errors import InvalidRequest
from aiserver.wire.forms import Part
from aiserver.wire.image_files import MAX_PNG_CHUNKS, check_image, has_transparency

SIGNATURE = b"\x89PNG\r\n\x1a\n"
VP8, VP8L, VP8X = b"VP8 ", b"VP8L", b"VP8X"
HALF = 128  # alpha of a pixel


def encode(image: Image.Image, image_format: str, **options: object) -> bytes:
    file = io.BytesIO()
    image.save(file, image_format, **options)
    return file.getvalue()


def drawing(mode: str) -> Image.Image:
    """Draw a small image; with an alpha channel, one pixel is half transparent."""
    image = Image.new("RGBA", (8, 6), (200, 30, 30, 255))
    image.putpixel((3, 3), (10, 20, 30, HALF))
    return image.convert("RGB").convert("P") if mode == "P" else image.convert(mode)


PNG, JPEG = encode(drawing("RGB"), "PNG"), encode(drawing("RGB"), "JPEG")
FILES = {
    "png": (PNG, "image/png"),
    "jpg": (JPEG, "image/jpeg"),
    "webp": (encode(drawing("RGB"), "WEBP"), "image/webp"),
    "gif": (encode(drawing("P"), "GIF"), "image/gif"),
    "bmp": (encode(drawing("RGB"), "BMP"), "image/bmp"),
    "tiff": (encode(drawing("RGB"), "TIFF"), "image/tiff"),
    "avif": (encode(drawing("RGB"), "AVIF"), "image/avif"),
}
EXIF = Image.Exif()
EXIF[0x0112] = 1


def chunk(chunk_type: bytes, data: bytes = b"", size: int | None = None) -> bytes:
    """Build a chunk of a PNG file; `size` is what it claims."""
    return struct.pack(">I", len(data) if size is None else size) + chunk_type + data + bytes(4)


def png(color_type: int, *chunks: bytes) -> bytes:
    return b"".join((SIGNATURE, chunk(b"IHDR", struct.pack(">IIBB3x", 8, 6, 8, color_type)), *chunks))


# --- transparency ---


@pytest.mark.parametrize(
    ("mode", "options", "color_type", "expected"),
    [
        ("1", {}, 0, False),
        ("L", {}, 0, False),
        ("L", {"transparency": 0}, 0, True),
        ("RGB", {}, 2, False),
        ("RGB", {"transparency": (1, 2, 3)}, 2, True),
        ("P", {}, 3, False),
        ("P", {"transparency": 0}, 3, True),
        ("LA", {}, 4, True),
        ("RGBA", {}, 6, True),
    ],
)
def test_transparency_of_png_is_that_of_its_color_type_or_chunk(
    mode: str, options: dict[str, object], color_type: int, expected: bool
) -> None:
    content = encode(drawing(mode), "PNG", **options)
    assert content[25] == color_type
    assert has_transparency(content) is expected
    assert Image.open(io.BytesIO(content)).has_transparency_data is expected


@pytest.mark.parametrize(
    ("mode", "options", "chunk_type", "expected"),
    [
        ("RGB", {"quality": 80}, VP8, False),
        ("RGB", {"lossless": True}, VP8L, False),
        ("RGBA", {"lossless": True}, VP8L, True),
        ("RGBA", {"quality": 80}, VP8X, True),
        ("RGB", {"quality": 80, "exif": EXIF}, VP8X, False),
        ("RGB", {"lossless": True, "exif": EXIF}, VP8X, False),
        ("RGBA", {"lossless": True, "exif": EXIF}, VP8X, True),
    ],
)
def test_transparency_of_webp_is_that_of_its_header(
    mode: str, options: dict[str, object], chunk_type: bytes, expected: bool
) -> None:
    content = encode(drawing(mode), "WEBP", **options)
    assert content[12:16] == chunk_type
    assert has_transparency(content) is expected
    assert Image.open(io.BytesIO(content)).has_transparency_data is expected


@pytest.mark.parametrize(
    ("extension", "expected"),
    [("jpg", False), ("bmp", False), ("gif", True), ("tiff", True), ("avif", True)],
)
def test_transparency_of_other_formats_is_that_of_the_format(extension: str, expected: bool) -> None:
    assert has_transparency(FILES[extension][0]) is expected


@pytest.mark.parametrize("content", [b"", b"hello", b"<svg/>", SIGNATURE[:7], b"RIFF\x08\x00\x00\x00WAVE"])
def test_unknown_format_may_be_transparent(content: bytes) -> None:
    assert has_transparency(content) is True


@pytest.mark.parametrize(
    ("chunks", "expected"),
    [
        ([chunk(b"PLTE", bytes(3)), chunk(b"tRNS", b"\x00"), chunk(b"IDAT")], True),
        ([chunk(b"tRNS"), chunk(b"PLTE")], True),
        ([chunk(b"IDAT", b"x"), chunk(b"tRNS", b"\x00")], False),
        ([chunk(b"tEXt", b"a\x00" + chunk(b"tRNS", b"\x00")), chunk(b"IDAT")], False),
        ([chunk(b"trns"), chunk(b"IDAT")], False),
        ([chunk(b"tEXt", size=0xFFFFFFFF), chunk(b"tRNS")], False),
        ([chunk(b"tEXt", size=0x7FFFFFFF)], False),
        ([chunk(b"tRNS", size=0xFFFFFFFF)], True),
        ([chunk(b"tEXt")] * (MAX_PNG_CHUNKS - 2) + [chunk(b"tRNS")], True),
        ([chunk(b"tEXt")] * (MAX_PNG_CHUNKS - 1) + [chunk(b"tRNS")], False),
        ([chunk(b"tEXt")] * 100_000 + [chunk(b"tRNS")], False),
    ],
    ids=range(11),
)
def test_transparency_chunk_counts_before_the_image_data(chunks: Sequence[bytes], expected: bool) -> None:
    for color_type in (0, 2, 3):
        assert has_transparency(png(color_type, *chunks)) is expected
    for color_type in (4, 6):
        assert has_transparency(png(color_type, *chunks)) is True


@pytest.mark.parametrize("length", range(8, 60))
def test_truncated_png_is_transparent_once_its_header_says_so(length: int) -> None:
    assert has_transparency(png(6, chunk(b"IDAT"))[:length]) is (length >= 26)
    assert has_transparency(png(2, chunk(b"IDAT"))[:length]) is False
    assert has_transparency(png(3, chunk(b"tRNS", b"\x00"))[:length]) is (length >= 41)


@pytest.mark.parametrize(("options", "needed"), [({"lossless": True}, 25), ({"quality": 80}, 21)])
def test_truncated_webp_is_transparent_once_its_header_says_so(options: dict[str, object], needed: int) -> None:
    content = encode(drawing("RGBA"), "WEBP", **options)
    found = [has_transparency(content[:length]) for length in range(12, len(content) + 1)]
    assert found == [length >= needed for length in range(12, len(content) + 1)]


CHUNK_TYPES = st.sampled_from([b"tEXt", b"PLTE", b"IDAT", b"tRNS", b"\x00\x00\x00\x00", b"IEND"])
SIZES = st.sampled_from([0, 1, 2**31 - 1, 2**31, 2**32 - 1]) | st.integers(0, 2**32 - 1)
CHUNKS = st.lists(st.builds(chunk, CHUNK_TYPES, st.binary(max_size=5), st.none() | SIZES), max_size=5)
PREFIXES = st.sampled_from(
    [b"", SIGNATURE, png(2), *(b"RIFF\xff\xff\xff\xffWEBP" + header for header in (b"", VP8, VP8L, VP8X))]
)


@given(PREFIXES, CHUNKS, st.binary(max_size=30), st.integers(0, 200))
def test_any_header_is_read_without_an_exception(prefix: bytes, chunks: list[bytes], tail: bytes, length: int) -> None:
    content = (prefix + b"".join(chunks) + tail)[:length]
    assert has_transparency(content) in (True, False)


@given(st.sampled_from(sorted(FILES)), st.integers(0, 100), st.binary(max_size=3), st.integers(0, 400))
def test_damaged_image_is_read_without_an_exception(extension: str, at: int, damage: bytes, length: int) -> None:
    content = FILES[extension][0]
    damaged = (content[:at] + damage + content[at + len(damage) :])[:length]
    assert has_transparency(damaged) in (True, False)


# --- types and names ---


@pytest.mark.parametrize("extension", FILES)
@pytest.mark.parametrize("label", [None, "", "application/octet-stream", "Application/Octet-Stream; charset=binary"])
def test_untyped_image_gets_the_type_of_its_bytes(extension: str, label: str | None) -> None:
    """Issues: uploads without a type are refused by OpenAI (async-openai #364, openai-node #1468)."""
    content, content_type = FILES[extension]
    part = Part("image", content, f"a.{extension}", label)
    assert check_image(part) == replace(part, content_type=content_type)


@pytest.mark.parametrize("label", ["image/webp", "image/jpg", "IMAGE/PNG; q=1", "text/html", "image/png;base64,AA"])
def test_image_with_another_label_gets_the_type_of_its_bytes(label: str) -> None:
    assert check_image(Part("image", PNG, "a.png", label)) == Part("image", PNG, "a.png", "image/png")


@pytest.mark.parametrize(
    ("name", "file_name", "expected"),
    [
        ("image", "blob", "blob.png"),
        ("image", "", "image.png"),
        ("image[]", "", "image.png"),
        ("mask", "", "mask.png"),
        ("image", "語", "語.png"),
        ("image", "a.png", "a.png"),
        ("image", "a.jpeg", "a.jpeg"),
        ("image", "../a b.PNG", "../a b.PNG"),
        ("image", ".hidden", ".hidden"),
        ("image[0]", "", "image.png"),
    ],
)
def test_image_gets_a_name_with_an_extension(name: str, file_name: str, expected: str) -> None:
    """Issue: a part without a name is taken as text (xum #3286); AI SDKs send `blob`."""
    assert check_image(Part(name, PNG, file_name, "image/png")) == Part(name, PNG, expected, "image/png")


def test_extension_is_that_of_the_bytes() -> None:
    for extension, (content, _) in FILES.items():
        assert check_image(Part("image", content, "blob", "image/png")).file_name == f"blob.{extension}"


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"<html><body>",
        b'<svg xmlns="http://www.w3.org/2000/svg"/>',
        b"%PDF-1.7\n",
        b"ID3\x04\x00",
        b"RIFF\x08\x00\x00\x00WAVEfmt ",
        b"\x00\x00\x00\x18ftypisom",
        b"\x1aE\xdf\xa3",
        b"{}",
        SIGNATURE[:-1],
        b" " + PNG,
        b"\xff\xd8",
    ],
    ids=lambda content: repr(content)[:16],
)
@pytest.mark.parametrize("name", ["image", "image[]", "mask"])
def test_file_that_is_not_an_image_is_a_400(content: bytes, name: str) -> None:
    with pytest.raises(InvalidRequest) as raised:
        check_image(Part(name, content, "a.png", "image/png"))
    assert (raised.value.status, raised.value.param) == (400, name)
    assert [error.error_code for error in raised.value.fields] == ["InvalidImage"]
