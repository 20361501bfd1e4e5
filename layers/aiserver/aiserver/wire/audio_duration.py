"""Reads the duration of an untrusted audio file, within limits."""

import io
import math

from tinytag import TinyTag

# The time that tinytag takes grows with the square of the number of a file's parts.
MAX_READS = 4_000
RIFF_HEADER_BYTES = 44


class _LimitedFile(io.BytesIO):
    """A file that fails after MAX_READS reads and seeks."""

    def __init__(self, content: bytes) -> None:
        super().__init__(content)
        self._remaining = MAX_READS

    def _count(self) -> None:
        self._remaining -= 1
        if self._remaining < 0:
            raise ValueError("the file has too many parts")

    def read(self, size: int | None = -1, /) -> bytes:
        self._count()
        return super().read(size)

    def seek(self, offset: int, whence: int = 0, /) -> int:
        self._count()
        return super().seek(offset, whence)


def read_duration_s(content: bytes, file_name: str | None) -> float | None:
    """The duration in seconds; None where the format is not known, or the file is not valid or has too many parts."""
    is_riff = content[:4] == b"RIFF"  # whose type tinytag would otherwise take from the name
    try:
        tag = TinyTag.get(filename="a.wav" if is_riff else file_name, file_obj=_LimitedFile(content), tags=False)
    except Exception:  # of many types, for a file that is not valid
        return None
    duration_s = tag.duration or 0
    if is_riff and tag.samplerate and tag.channels and tag.bitdepth:
        # A streamed WAV has no length in its header, or the largest possible one.
        contained_s = (len(content) - RIFF_HEADER_BYTES) * 8 / (tag.samplerate * tag.channels * tag.bitdepth)
        duration_s = min(duration_s or contained_s, contained_s)
    return duration_s if duration_s > 0 and math.isfinite(duration_s) else None
