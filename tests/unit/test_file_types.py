"""The type of a file is that of its first bytes; only types that are safe in a browser are shown inline."""

import base64
import io
import struct
import wave
import zlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from aiserver.wire import media_types
from aiserver.wire.file_types import FILE_TYPES, PCM, UNKNOWN, detect_file_type

HTML = b"<!DOCTYPE html><html><script>alert(1)</script></html>"
SVG = b'<?xml version="1.0"?><svg xmlns="http://www.w3.org/2000/svg"><script>alert(1)</script></svg>'
LABELS = ("", "audio/mpeg", "image/png", "image/svg+xml", "text/html", "application/octet-stream", "x;y", "é")
INLINE = {
    *("wav", "mp3", "flac", "ogg", "aac", "m4a"),
    *("webm", "mp4", "png", "jpg", "gif", "webp", "avif"),
}


def wav_file() -> bytes:
    """Return 10 ms of silence, by the standard library."""
    buffer = io.BytesIO()
    with wave.open(buffer, "wb") as file:
        file.setnchannels(1)
        file.setsampwidth(2)
        file.setframerate(16_000)
        file.writeframes(bytes(320))
    return buffer.getvalue()


def png_chunk(kind: bytes, content: bytes = b"") -> bytes:
    return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))


def png_file() -> bytes:
    """Return one black pixel."""
    header = png_chunk(b"IHDR", struct.pack(">IIBBBBB", 1, 1, 8, 0, 0, 0, 0))
    return b"\x89PNG\r\n\x1a\n" + header + png_chunk(b"IDAT", zlib.compress(b"\0\0")) + png_chunk(b"IEND")


def riff_file(kind: bytes, content: bytes = bytes(16), *, magic: bytes = b"RIFF") -> bytes:
    return magic + struct.pack("<I", len(content) + 4) + kind + content


def iso_file(brand: bytes, *compatible: bytes) -> bytes:
    """Return the first box of an ISO media file."""
    content = b"ftyp" + brand + bytes(4) + b"".join(compatible)
    return struct.pack(">I", len(content) + 4) + content + struct.pack(">I", 8) + b"mdat"


def mp3_frame(*, version: int = 3, layer: int = 1, bit_rate: int = 9, sample_rate: int = 0) -> bytes:
    """Return a frame of MPEG audio: version 3 is MPEG-1, layer 1 is layer III, as their header encodes them."""
    header = 0xFFE00000 | version << 19 | layer << 17 | 1 << 16 | bit_rate << 12 | sample_rate << 10
    return struct.pack(">I", header) + bytes(413)


def adts_frame(*, version: int = 0, has_crc: bool = False) -> bytes:
    """Return a frame of AAC: version 0 is MPEG-4."""
    return bytes([0xFF, 0xF0 | version << 3 | (not has_crc), 0x50, 0x80, 0x01, 0x7F, 0xFC]) + bytes(9)


FILES = [
    ("wav", wav_file()),
    ("wav", riff_file(b"WAVE")),
    ("wav", riff_file(b"WAVE", magic=b"RF64")),
    ("wav", b"RIFF\xff\xff\xff\xffWAVEfmt "),  # of a stream, whose length is not known
    ("mp3", b"ID3\x04\x00\x00\x00\x00\x00\x00" + mp3_frame()),
    ("mp3", mp3_frame()),
    ("mp3", mp3_frame(version=2, sample_rate=1)),
    ("mp3", mp3_frame(version=0, bit_rate=8, sample_rate=2)),
    ("flac", b"fLaC\x00\x00\x00\x22" + bytes(34)),
    ("ogg", b"OggS\x00\x02" + bytes(21) + b"\x01\x13OpusHead"),
    ("ogg", b"OggS\x00\x02" + bytes(21) + b"\x01\x1e\x01vorbis"),
    ("aac", adts_frame()),
    ("aac", adts_frame(version=1, has_crc=True)),
    ("m4a", iso_file(b"M4A ", b"M4A ", b"mp42")),
    ("m4a", iso_file(b"M4B ")),
    ("mp4", iso_file(b"isom", b"isom", b"iso2", b"avc1", b"mp41")),
    ("mp4", iso_file(b"mp42")),
    ("mp4", iso_file(b"qt  ")),
    ("avif", iso_file(b"avif", b"avif", b"mif1")),
    ("heic", b"\x00\x00\x00\x18ftypheic"),
    ("heic", b"\x00\x00\x00\x18ftypmif1"),
    ("avif", iso_file(b"avis")),
    ("webm", b"\x1aE\xdf\xa3\x9fB\x86\x81\x01B\xf7\x81\x01B\xf2\x81\x04B\xf3\x81\x08B\x82\x84webm"),
    ("png", png_file()),
    ("jpg", b"\xff\xd8\xff\xe0\x00\x10JFIF\x00\x01\x01\x00\x00\x01\x00\x01\x00\x00\xff\xd9"),
    ("jpg", b"\xff\xd8\xff\xe1\x00\x10Exif\x00\x00MM\x00*"),
    ("jpg", b"\xff\xd8\xff\xdb"),
    ("gif", base64.b64decode("R0lGODlhAQABAIAAAAAAAP///yH5BAEAAAAALAAAAAABAAEAAAIBRAA7")),
    ("gif", b"GIF87a\x01\x00\x01\x00"),
    ("webp", base64.b64decode("UklGRhoAAABXRUJQVlA4TA0AAAAvAAAAEAcQERGIiP4HAA==")),
    ("bmp", b"BM\x3a\x00\x00\x00\x00\x00\x00\x00\x36\x00\x00\x00\x28\x00\x00\x00"),
    ("tiff", b"II*\x00\x08\x00\x00\x00\x00\x00"),
    ("tiff", b"MM\x00*\x00\x00\x00\x08\x00\x00"),
    ("pdf", b"%PDF-1.7\n%\xe2\xe3\xcf\xd3\n"),
]
OTHER_FILES = [
    b"",
    b"\x00",
    HTML,
    b"\xef\xbb\xbf" + HTML,
    b"\n" + HTML,
    SVG,
    SVG[21:],
    b"<svg onload='alert(1)'/>",
    b"hello",
    b'{"text":"hi"}',
    b"WEBVTT\n\n00:00.000 --> 00:01.000\nhi",
    b"PK\x03\x04" + bytes(20),
    b"MZ\x90\x00",
    b"\x7fELF\x02\x01\x01",
    b"#!/bin/sh\n",
    b"%!PS-Adobe-3.0",
    b"\x1f\x8b\x08\x00",
    riff_file(b"AVI "),
    b"RIFF",
    b"RIFF\x00\x00\x00\x00",
    b"RIFXWAVE",
    b"OggS",
    b"\x89PNG\n\x1a\n",
    b"GIF88a",
    b"\xff",
    b"\xff\xd8",
    b"\xff\xfb",
    b"\xff\xff\xff\xff" + bytes(10),
    b"\x00\x00\x00\x18ftyq",
    bytes(100),
    bytes(range(256)),
]


@pytest.mark.parametrize(("extension", "content"), FILES, ids=lambda value: repr(value[:12]))
def test_type_is_detected_by_content_whatever_the_label(extension: str, content: bytes) -> None:
    """Issue: speech is labelled audio/mpeg whatever it is (LiteLLM #4332)."""
    for label in (*LABELS, "audio/pcm"):
        file_type = detect_file_type(content, label)
        assert (file_type.extension, file_type) == (extension, FILE_TYPES[extension])


def test_every_type_except_raw_samples_and_unknown_has_a_sample() -> None:
    assert {extension for extension, _ in FILES} | {"pcm", "bin"} == set(FILE_TYPES)


@pytest.mark.parametrize("content", OTHER_FILES, ids=lambda content: repr(content[:12]))
def test_other_content_is_a_download_of_unknown_type(content: bytes) -> None:
    for label in LABELS:
        assert detect_file_type(content, label) is UNKNOWN
    assert (UNKNOWN.extension, UNKNOWN.media_type, UNKNOWN.is_inline) == ("bin", "application/octet-stream", False)


@pytest.mark.parametrize(
    "label", ["audio/pcm", "AUDIO/PCM", "audio/pcm;rate=22050", "audio/L16", "audio/L16;codec=pcm;rate=24000"]
)
@pytest.mark.parametrize("content", [bytes(100), b"\x01\x00\xfe\xff" * 9, b"", HTML], ids=lambda c: repr(c[:12]))
def test_raw_samples_have_the_type_of_their_label_and_are_downloads(label: str, content: bytes) -> None:
    assert detect_file_type(content, label) is PCM
    assert (PCM.extension, PCM.media_type, PCM.is_inline) == ("pcm", "audio/pcm", False)


@pytest.mark.parametrize(
    "frame",
    [
        mp3_frame(version=1),  # reserved
        mp3_frame(layer=2),
        mp3_frame(layer=3),
        mp3_frame(bit_rate=15),
        mp3_frame(sample_rate=3),
        mp3_frame(layer=0, version=0),
        b"\xfe" + mp3_frame()[1:],
        b"\xff\xdb" + mp3_frame()[2:],
    ],
    ids=lambda frame: frame[:4].hex(),
)
def test_invalid_frame_header_is_not_mp3(frame: bytes) -> None:
    assert detect_file_type(frame) is UNKNOWN


def test_inline_types_are_media_that_browsers_do_not_run() -> None:
    assert {extension for extension, file_type in FILE_TYPES.items() if file_type.is_inline} == INLINE
    for file_type in FILE_TYPES.values():
        kind = file_type.media_type.partition("/")[0]
        assert kind in ("audio", "video", "image") or not file_type.is_inline
        assert "svg" not in file_type.media_type


@pytest.mark.parametrize("script", [HTML, SVG], ids=["html", "svg"])
@pytest.mark.parametrize(("extension", "content"), FILES, ids=lambda value: repr(value[:12]))
def test_polyglot_has_the_type_of_its_first_bytes(extension: str, content: bytes, script: bytes) -> None:
    """A script behind a picture is sent as that picture, and a picture behind a script is only downloaded."""
    assert detect_file_type(content + script, "text/html") is FILE_TYPES[extension]
    assert detect_file_type(content[:12] + script, "image/svg+xml").extension in (extension, "bin")
    assert detect_file_type(script + content, FILE_TYPES[extension].media_type) is UNKNOWN


@given(st.binary(max_size=40), st.text(max_size=20) | st.sampled_from(LABELS))
def test_any_content_has_a_type(content: bytes, label: str) -> None:
    assert detect_file_type(content, label) in FILE_TYPES.values()


@given(st.sampled_from([content[:16] for _, content in FILES]), st.data())
def test_any_start_of_a_file_has_its_type_or_none(start: bytes, data: st.DataObject) -> None:
    complete_type = detect_file_type(start)
    cut = start[: data.draw(st.integers(0, len(start)))]
    assert detect_file_type(cut) in {
        UNKNOWN,
        complete_type,
        FILE_TYPES["mp4"],
    }  # the brand of an ISO file may be missing
    assert detect_file_type(start + data.draw(st.binary(max_size=40))) is complete_type


@given(st.text(max_size=40))
def test_text_that_starts_with_markup_is_never_inline(text: str) -> None:
    for prefix in ("<", " <", "\n\n<", "\ufeff<"):
        assert not detect_file_type((prefix + text).encode("utf-8", "replace"), "image/png").is_inline


@pytest.mark.parametrize(
    ("content_type", "is_file"),
    [
        (None, False),
        ("application/json", False),
        ("application/json; charset=utf-8", False),
        ("text/plain", False),
        ("text/vtt", False),
        ("audio/mpeg", True),
        ("application/octet-stream", True),
        ("image/svg+xml", True),
    ],
)
def test_results_except_json_and_text_are_files(content_type: str | None, is_file: bool) -> None:
    assert media_types.is_file(content_type) is is_file
