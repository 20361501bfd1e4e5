"""Detects the type of a file by its first bytes, never by a name or a header that someone chose.

Source: https://mimesniff.spec.whatwg.org/#matching-an-image-type-pattern and the two sections after it; AAC and AVIF:
https://www.iana.org/assignments/media-types
"""

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType

from aiserver.wire.media_types import media_type


@dataclass(frozen=True)
class FileType:
    """A type of file. `is_inline`: browsers may show or play it; any other file is only offered as a download."""

    extension: str
    media_type: str
    is_inline: bool = True


UNKNOWN = FileType("bin", "application/octet-stream", is_inline=False)
PCM = FileType("pcm", "audio/pcm", is_inline=False)
LAYER_3 = 1
PCM_TYPES = ("audio/pcm", "audio/l16")  # raw samples have no signature
_WAV, _MP3, _FLAC = FileType("wav", "audio/wav"), FileType("mp3", "audio/mpeg"), FileType("flac", "audio/flac")
_OGG, _AAC, _M4A = FileType("ogg", "audio/ogg"), FileType("aac", "audio/aac"), FileType("m4a", "audio/mp4")
_WEBM, _MP4 = FileType("webm", "video/webm"), FileType("mp4", "video/mp4")
_PNG, _JPEG, _GIF = FileType("png", "image/png"), FileType("jpg", "image/jpeg"), FileType("gif", "image/gif")
_WEBP, _AVIF = FileType("webp", "image/webp"), FileType("avif", "image/avif")
_HEIC = FileType("heic", "image/heic", is_inline=False)
_BMP = FileType("bmp", "image/bmp", is_inline=False)
_TIFF = FileType("tiff", "image/tiff", is_inline=False)
_PDF = FileType("pdf", "application/pdf", is_inline=False)

_ALL = (
    _WAV,
    _MP3,
    _FLAC,
    _OGG,
    _AAC,
    _M4A,
    _WEBM,
    _MP4,
    _PNG,
    _JPEG,
    _GIF,
    _WEBP,
    _AVIF,
    _HEIC,
    _BMP,
    _TIFF,
    _PDF,
    PCM,
    UNKNOWN,
)
FILE_TYPES: Mapping[str, FileType] = MappingProxyType({file_type.extension: file_type for file_type in _ALL})

_SIGNATURES = (
    (b"ID3", _MP3),
    (b"fLaC", _FLAC),
    (b"OggS\x00", _OGG),
    (b"\x1aE\xdf\xa3", _WEBM),
    (b"\x89PNG\r\n\x1a\n", _PNG),
    (b"\xff\xd8\xff", _JPEG),
    (b"GIF87a", _GIF),
    (b"GIF89a", _GIF),
    (b"BM", _BMP),
    (b"II*\x00", _TIFF),
    (b"MM\x00*", _TIFF),
    (b"%PDF-", _PDF),
)
_RIFF_TYPES = {b"WAVE": _WAV, b"WEBP": _WEBP}
# Brands of ISO media files; any other is MP4.
_BRANDS = (
    *((b"M4A", _M4A), (b"M4B", _M4A), (b"avif", _AVIF), (b"avis", _AVIF)),
    *((b"hei", _HEIC), (b"hev", _HEIC), (b"mif1", _HEIC), (b"msf1", _HEIC)),
)


def detect_file_type(content: bytes, content_type: str = "") -> FileType:
    """The type of a file. `content_type` is its label, which is used only for raw audio samples."""
    head = content[:12]
    for signature, file_type in _SIGNATURES:
        if head.startswith(signature):
            return file_type
    if head.startswith((b"RIFF", b"RF64")) and head[8:12] in _RIFF_TYPES:
        return _RIFF_TYPES[head[8:12]]
    if head[4:8] == b"ftyp":
        return next((file_type for brand, file_type in _BRANDS if head[8:12].startswith(brand)), _MP4)
    return _detect_frames(head) or (PCM if media_type(content_type) in PCM_TYPES else UNKNOWN)


def _detect_frames(head: bytes) -> FileType | None:
    """MP3 or AAC without a container: the first 11 or 12 bits of a frame are set; the two bits of the layer differ."""
    if len(head) < 4 or head[0] != 0xFF or head[1] & 0xE0 != 0xE0:
        return None
    layer, version = head[1] >> 1 & 3, head[1] >> 3 & 3
    if layer == 0:
        return _AAC if head[1] & 0xF0 == 0xF0 else None
    bit_rate, sample_rate = head[2] >> 4, head[2] >> 2 & 3
    return _MP3 if layer == LAYER_3 and version != 1 and bit_rate != 15 and sample_rate != 3 else None
