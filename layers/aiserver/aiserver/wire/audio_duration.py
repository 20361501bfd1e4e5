"""Reads the duration of an untrusted audio file, within limits."""

import io
import math
import struct
import time

from tinytag import TinyTag

# The CPU time that tinytag takes grows with the square of the number of a file's parts.
MAX_READS = 40_000  # an Ogg file needs three for each page; a page holds about a second
MAX_CPU_S = 0.5
MAX_CHUNKS = 100  # of a WAV file, which has a handful


class _LimitedFile(io.BytesIO):
    """A file that fails after MAX_READS reads and seeks, or after MAX_CPU_S of this thread's CPU time."""

    def __init__(self, content: bytes) -> None:
        super().__init__(content)
        self._remaining = MAX_READS
        self._end_s = time.thread_time() + MAX_CPU_S

    def _check_limits(self) -> None:
        self._remaining -= 1
        if self._remaining < 0 or time.thread_time() > self._end_s:
            raise ValueError("the file has too many parts")

    def read(self, size: int | None = -1, /) -> bytes:
        self._check_limits()
        return super().read(size)

    def seek(self, offset: int, whence: int = 0, /) -> int:
        self._check_limits()
        return super().seek(offset, whence)


def read_duration_s(content: bytes, file_name: str | None) -> float | None:
    """The duration in seconds; None where the format is not known, or the file is not valid or has too many parts."""
    if content[:4] == b"RIFF":
        return _wav_duration_s(content)
    try:
        duration_s = TinyTag.get(filename=file_name, file_obj=_LimitedFile(content), tags=False).duration or 0
    except Exception:  # of many types, for a file that is not valid
        return None
    return duration_s if duration_s > 0 and math.isfinite(duration_s) else None


def _wav_duration_s(content: bytes) -> float | None:
    """The duration of the samples that a WAV file contains, whatever its header says: a streamed one has no length.

    Source: https://www.mmsp.ece.mcgill.ca/Documents/AudioFormats/WAVE/WAVE.html
    """
    position, byte_rate = 12, 0
    for _ in range(MAX_CHUNKS):
        name, header = content[position : position + 4], content[position + 4 : position + 8]
        if len(header) < 4:
            return None
        size, start = struct.unpack("<I", header)[0], position + 8
        if name == b"fmt " and len(content) >= start + 12:
            byte_rate = struct.unpack_from("<I", content, start + 8)[0]
        if name == b"data":
            stored = len(content) - start
            samples = min(size, stored) or stored  # a size of 0 also means that the length was not known
            return samples / byte_rate if byte_rate and samples else None
        position = start + size + size % 2  # chunks begin at even positions
    return None
