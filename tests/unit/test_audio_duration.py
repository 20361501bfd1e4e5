"""The duration of an audio file: exact for WAV, also without a length, and a limited number of reads for any file."""

import io
import math
import struct
import wave
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tinytag import TinyTag

from aiserver.wire import audio_duration
from aiserver.wire.audio_duration import MAX_READS, read_duration_s
from tests.examples import examples

RIFF_SIZE_AT, DATA_SIZE_AT = 4, 40  # in a header of 44 bytes
STREAMED_SIZES = (0xFFFFFFFF, 0x7FFFFFFF, 0)
NAMES = ("a.wav", "a.mp3", "a.m4a", "a.mp4", "a.ogg", "a.opus", "a.flac", "a.webm", "a.wma", "a.aiff", "a.bin", "a", "")


def wav(seconds: float, *, rate: int = 16_000, channels: int = 1, sample_bytes: int = 2) -> bytes:
    target = io.BytesIO()
    with wave.open(target, "wb") as file:
        file.setnchannels(channels)
        file.setsampwidth(sample_bytes)
        file.setframerate(rate)
        file.writeframes(b"\x11" * (round(seconds * rate) * channels * sample_bytes))
    return target.getvalue()


def with_size(content: bytes, size: int, at: int = DATA_SIZE_AT) -> bytes:
    return content[:at] + struct.pack("<I", size) + content[at + 4 :]


# --- WAV ---


@pytest.mark.parametrize("seconds", [0.5, 1, 1.504, 90])
@pytest.mark.parametrize("rate", [8_000, 16_000, 44_100])
@pytest.mark.parametrize(("channels", "sample_bytes"), [(1, 1), (1, 2), (2, 2), (2, 3)])
def test_duration_of_a_wav_file_is_exact(seconds: float, rate: int, channels: int, sample_bytes: int) -> None:
    content = wav(seconds, rate=rate, channels=channels, sample_bytes=sample_bytes)
    assert read_duration_s(content, "a.wav") == pytest.approx(round(seconds * rate) / rate, abs=1e-9)


@pytest.mark.parametrize("file_name", [None, "", "a", "a.mp3", "a.bin", "blob"])
def test_type_of_a_wav_file_is_known_without_its_extension(file_name: str | None) -> None:
    assert read_duration_s(wav(2), file_name) == pytest.approx(2)


@pytest.mark.parametrize("size", STREAMED_SIZES, ids=hex)
@pytest.mark.parametrize("seconds", [0.5, 3])
def test_wav_without_a_length_lasts_as_long_as_its_samples(seconds: float, size: int) -> None:
    """Issue: a streamed WAV has the largest length, or none, in its header."""
    content = with_size(wav(seconds), size)
    assert read_duration_s(content, "a.wav") == pytest.approx(seconds, abs=1e-9)
    assert read_duration_s(with_size(content, size, RIFF_SIZE_AT), "a.wav") == pytest.approx(seconds, abs=1e-9)


@pytest.mark.parametrize("header_seconds", [10, 3_600, 60_000])
def test_truncated_wav_lasts_as_long_as_its_samples(header_seconds: int) -> None:
    content = with_size(wav(2), header_seconds * 32_000)
    assert read_duration_s(content, "a.wav") == pytest.approx(2, abs=1e-9)
    assert read_duration_s(content[:-32_000], "a.wav") == pytest.approx(1, abs=1e-9)


def test_bytes_after_the_samples_of_a_wav_file_do_not_count() -> None:
    content = wav(2) + b"LIST" + struct.pack("<I", 32_000) + bytes(32_000)
    assert read_duration_s(content, "a.wav") == pytest.approx(2, abs=1e-9)


@pytest.mark.parametrize("size", [0, 4, 12, 20, 36, 43, 44])
def test_wav_that_ends_within_its_header_has_no_duration(size: int) -> None:
    assert read_duration_s(wav(2)[:size], "a.wav") is None


@pytest.mark.parametrize(("at", "width"), [(22, 2), (24, 4), (34, 2)], ids=["channels", "sample rate", "bits"])
@pytest.mark.parametrize("byte", [b"\x00", b"\xff"])
def test_wav_with_an_invalid_format_has_no_infinite_duration(at: int, width: int, byte: bytes) -> None:
    content = wav(2)
    duration_s = read_duration_s(content[:at] + byte * width + content[at + width :], "a.wav")
    assert duration_s is None or 0 < duration_s <= len(content)


# --- hostile files ---


class CountedReads:
    """A file that counts the calls of its methods that return, and stops a reader that has no limit."""

    def __init__(self, file: Any) -> None:
        self._file = file
        self.count = 0

    def __getattr__(self, name: str) -> Any:
        method = getattr(self._file, name)

        def call(*arguments: Any) -> Any:
            returned = method(*arguments)
            self.count += name != "tell"
            if self.count > 2 * MAX_READS:
                raise ValueError("no limit")
            return returned

        return call


@pytest.fixture
def files(monkeypatch: pytest.MonkeyPatch) -> list[CountedReads]:
    """The files that are read, in order."""
    files: list[CountedReads] = []

    class CountingTinyTag:
        @staticmethod
        def get(*, file_obj: Any, **options: Any) -> Any:
            files.append(CountedReads(file_obj))
            return TinyTag.get(file_obj=files[-1], **options)  # type: ignore[arg-type]

    monkeypatch.setattr(audio_duration, "TinyTag", CountingTinyTag)
    return files


def atom(name: bytes, content: bytes) -> bytes:
    return struct.pack(">I4s", 8 + len(content), name) + content


def ogg_page(number: int, packet: bytes = b"", *, granule: int = 0, is_last: bool = False) -> bytes:
    lengths = bytes([255] * (len(packet) // 255) + [len(packet) % 255])
    return b"OggS" + struct.pack("<BBqIIIB", 0, 4 * is_last, granule, 1, number, 0, len(lengths)) + lengths + packet


MVHD = atom(b"mvhd", bytes(4) + struct.pack(">4I", 0, 0, 1000, 5000) + bytes(80))
FTYP = atom(b"ftyp", b"isom\x00\x00\x02\x00isom")
OPUS = b"OpusHead" + struct.pack("<BBHIHB", 1, 1, 0, 48_000, 0, 0)
VORBIS = b"\x01vorbis" + struct.pack("<IBIIIIBB", 0, 1, 8000, 0, 64_000, 0, 0xB8, 1)
HOSTILE_FILES = {
    "MP4 of atoms": ("a.mp4", FTYP + atom(b"moov", MVHD * 100_000)),
    "M4A of small atoms": ("a.m4a", FTYP + atom(b"moov", atom(b"mvhd", bytes(20)) * 100_000)),
    "MP4 of atoms at its root": ("a.mp4", FTYP + atom(b"free", b"") * 100_000),
    "Vorbis of pages": ("a.ogg", b"".join(ogg_page(n, b"x") for n in range(100_000))),
    "Opus of empty pages": ("a.opus", ogg_page(0, OPUS) + b"".join(ogg_page(n) for n in range(1, 100_000))),
    "MP3 of set bits": ("a.mp3", b"\xff" * 4_400_000),
    "FLAC of blocks": ("a.flac", b"fLaC" + b"\x01\x00\x00\x00" * 100_000),
    "AIFF of chunks": ("a.aiff", b"FORM\x00\x00\x00\x00AIFF" + b"ABCD\x00\x00\x00\x00" * 100_000),
}


@pytest.mark.parametrize("kind", HOSTILE_FILES)
def test_hostile_file_has_no_duration_after_a_limited_number_of_reads(kind: str, files: list[CountedReads]) -> None:
    file_name, content = HOSTILE_FILES[kind]
    assert read_duration_s(content, file_name) is None
    (file,) = files
    assert 1000 < file.count <= MAX_READS


@pytest.mark.parametrize("kind", HOSTILE_FILES)
@pytest.mark.parametrize("file_name", [None, "", "a.bin", "a.wav"])
def test_hostile_file_with_another_name_is_read_as_often_at_most(
    kind: str, file_name: str | None, files: list[CountedReads]
) -> None:
    read_duration_s(HOSTILE_FILES[kind][1], file_name)
    assert sum(file.count for file in files) <= MAX_READS


def test_files_share_no_limit() -> None:
    content = wav(1)
    assert [read_duration_s(content, "a.wav") for _ in range(MAX_READS // 4)] == [1] * (MAX_READS // 4)


@pytest.mark.parametrize(("head", "rate"), [(OPUS, 48_000), (VORBIS, 8000)], ids=["Opus", "Vorbis"])
def test_ogg_file_of_twenty_minutes_has_its_duration(head: bytes, rate: int) -> None:
    """One page per second, as FFmpeg writes Opus."""
    pages = [ogg_page(0, head), ogg_page(1, b"OpusTags" + bytes(8))]
    pages += [ogg_page(s + 1, bytes(2000), granule=rate * s, is_last=s == 1200) for s in range(1, 1201)]
    assert read_duration_s(b"".join(pages), "a.ogg") == pytest.approx(1200)


def test_mp4_and_mp3_files_have_their_duration() -> None:
    assert read_duration_s(FTYP + atom(b"moov", MVHD), "a.mp4") == pytest.approx(5)
    frame = b"\xff\xfb\x90\x00" + bytes(413)  # 1152 samples at 44,100 Hz, of 128 kbit/s
    assert read_duration_s(frame * 400, "a.mp3") == pytest.approx(400 * 1152 / 44_100, rel=0.02)


# --- unknown files ---


@pytest.mark.parametrize("file_name", [None, "", "a.webm", "a.mkv", "blob"])
def test_webm_has_no_duration(file_name: str | None) -> None:
    content = b"\x1aE\xdf\xa3\x9fB\x86\x81\x01B\xf7\x81\x01B\xf2\x81\x04B\xf3\x81\x08B\x82\x84webmB\x87\x81\x04" * 100
    assert read_duration_s(content, file_name) is None


SIGNATURES = (b"", b"RIFF", b"ID3", b"\xff\xfb", b"\xff\xf1", b"fLaC", b"OggS\x00", FTYP, b"FORM", b"\x30\x26\xb2\x75")
VALID_FILES = (wav(0.01), FTYP + atom(b"moov", MVHD), ogg_page(0, OPUS) + ogg_page(2, b"x", granule=48_000))


@settings(max_examples=examples(500))
@given(st.sampled_from(SIGNATURES), st.binary(max_size=300), st.none() | st.sampled_from(NAMES) | st.text(max_size=5))
def test_any_file_has_a_finite_duration_or_none(signature: bytes, content: bytes, file_name: str | None) -> None:
    duration_s = read_duration_s(signature + content, file_name)
    assert duration_s is None or (duration_s > 0 and math.isfinite(duration_s))


@settings(max_examples=examples(500))
@given(st.data(), st.sampled_from(VALID_FILES), st.sampled_from(NAMES))
def test_damaged_file_has_a_finite_duration_or_none(data: st.DataObject, content: bytes, file_name: str) -> None:
    at = data.draw(st.integers(0, len(content)))
    damage = data.draw(st.binary(max_size=8))
    changed = content[:at] + damage + content[at + data.draw(st.integers(0, 8)) :]
    duration_s = read_duration_s(changed, file_name)
    assert duration_s is None or (duration_s > 0 and math.isfinite(duration_s))


def test_wav_file_of_many_chunks_has_no_duration() -> None:
    chunks = b"LIST" + bytes(4)
    content = wav(1)
    for count, expected in ((audio_duration.MAX_CHUNKS - 2, 1), (audio_duration.MAX_CHUNKS - 1, None)):
        assert read_duration_s(content[:12] + chunks * count + content[12:], "a.wav") == expected


@pytest.mark.parametrize("size", [*STREAMED_SIZES, 5])
def test_wav_file_that_begins_with_silence_has_its_duration(size: int) -> None:
    """5 is less than the file contains, which then has other chunks behind its samples."""
    content = wav(1)[:DATA_SIZE_AT] + size.to_bytes(4, "little") + bytes(32_000) + wav(1)[44:]
    assert read_duration_s(content, "a.wav") == pytest.approx(5 / 32_000 if size == 5 else 2)


def test_ogg_file_of_two_hours_has_its_duration() -> None:
    pages = [ogg_page(0, OPUS), ogg_page(1, b"OpusTags" + bytes(8))]
    pages += [ogg_page(s + 1, bytes(500), granule=48_000 * s, is_last=s == 7200) for s in range(1, 7201)]
    assert read_duration_s(b"".join(pages), "a.ogg") == pytest.approx(7200)


def test_file_that_takes_too_much_cpu_time_has_no_duration(monkeypatch: pytest.MonkeyPatch) -> None:
    content = FTYP + atom(b"moov", MVHD)
    assert read_duration_s(content, "a.mp4") == pytest.approx(5)
    monkeypatch.setattr(audio_duration, "MAX_CPU_S", -1)
    assert read_duration_s(content, "a.mp4") is None
