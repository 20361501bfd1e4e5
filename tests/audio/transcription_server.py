"""A transcription server on loopback with OpenAI's protocol: a real English recognizer, by PyPI's `pocketsphinx`.

It serves `POST /v1/audio/transcriptions` and `POST /v1/audio/translations`.
Sources: https://platform.openai.com/docs/api-reference/audio/createTranscription, https://pocketsphinx.readthedocs.io
"""

import math
import threading
import wave
from dataclasses import dataclass
from functools import cached_property
from io import BytesIO
from typing import Any

from multipart import MultipartError, MultipartParser, MultipartPart, parse_options_header

from local.scripted import RecordedRequest
from tests.audio.speech_server import (
    MAX_BODY_BYTES,
    ApiError,
    AudioResponse,
    AudioServer,
    json_response,
    sse_response,
)

try:
    from pocketsphinx import Decoder
except ImportError:
    Decoder = None

IS_INSTALLED = Decoder is not None
RESPONSE_FORMATS = ("json", "text", "srt", "verbose_json", "vtt")
PLAIN_TEXT, VTT = "text/plain; charset=utf-8", "text/vtt; charset=utf-8"
SAMPLE_RATE = 16_000
PAUSE_S = 0.5  # a pause of this length starts a new segment


@dataclass(frozen=True)
class Word:
    """One recognized word and its time in the audio."""

    text: str
    start_s: float
    end_s: float


@dataclass(frozen=True)
class Transcript:
    """The recognized words and the duration of the audio."""

    words: list[Word]
    duration_s: float

    @property
    def text(self) -> str:
        return _join(self.words)

    @property
    def usage(self) -> dict[str, Any]:
        """The usage as OpenAI counts it: in seconds, rounded up."""
        return {"type": "duration", "seconds": math.ceil(self.duration_s)}

    @cached_property
    def segments(self) -> list[list[Word]]:
        """The words, split at pauses."""
        segments: list[list[Word]] = []
        for word in self.words:
            if segments and word.start_s - segments[-1][-1].end_s < PAUSE_S:
                segments[-1].append(word)
            else:
                segments.append([word])
        return segments


class Recognizer:
    """One decoder for all threads. It is created at the first use, which takes half a second."""

    def __init__(self) -> None:
        self._lock = threading.Lock()

    @cached_property
    def _decoder(self) -> Any:
        if Decoder is None:
            raise ApiError("pocketsphinx is not installed", status=500)
        return Decoder(loglevel="FATAL")

    def transcribe(self, samples: bytes) -> Transcript:
        """Recognize 16-bit samples. The decoder holds the GIL: all threads wait for about 0.3 s per second of audio."""
        duration_s = len(samples) / 2 / SAMPLE_RATE
        if not samples:  # the decoder rejects an empty utterance
            return Transcript([], duration_s)
        with self._lock:
            self._decoder.start_utt()
            try:
                self._decoder.process_raw(samples, full_utt=True)
            finally:
                self._decoder.end_utt()
            frames_per_s = self._decoder.config["frate"]
            words = [
                Word(
                    _spelling(segment.word), segment.start_frame / frames_per_s, (segment.end_frame + 1) / frames_per_s
                )
                for segment in self._decoder.seg() or ()
                if not segment.word.startswith(("<", "[", "+"))  # silence and noise
            ]
        return Transcript(words, duration_s)


RECOGNIZER = Recognizer()


def _spelling(word: str) -> str:
    """The word without the number of its pronunciation: `hello(2)`."""
    return word.partition("(")[0]


class TranscriptionServer(AudioServer):
    """Transcribes English WAV files: 16 kHz, mono, 16 bits. Any model is accepted."""

    model = "pocketsphinx"
    paths = ("/v1/audio/transcriptions", "/v1/audio/translations")

    def respond(self, request: RecordedRequest) -> AudioResponse:
        is_translation = request.path.partition("?")[0].endswith("/translations")
        form = parse_transcription_form(request)
        transcript = RECOGNIZER.transcribe(form.samples)
        if form.is_stream and not is_translation:
            return sse_response(_transcript_events(transcript))
        match form.response_format:
            case "text":
                return AudioResponse(PLAIN_TEXT, f"{transcript.text}\n".encode())
            case "srt":
                return AudioResponse(PLAIN_TEXT, _srt(transcript).encode())
            case "vtt":
                return AudioResponse(VTT, _vtt(transcript).encode())
            case "verbose_json":
                document = _verbose_document(transcript, with_words=form.has_word_times)
                document["task"] = "translate" if is_translation else "transcribe"
            case _:
                document = {"text": transcript.text}
        return json_response(document if is_translation else document | {"usage": transcript.usage})


@dataclass(frozen=True)
class TranscriptionForm:
    """The fields of a transcription form that change its response."""

    samples: bytes
    response_format: str
    has_word_times: bool
    is_stream: bool


def form_parts(request: RecordedRequest) -> list[MultipartPart]:
    """The parts of a form, in order, in memory. Raises: ApiError."""
    media_type, options = parse_options_header(request.headers.get("content-type", ""))
    if media_type != "multipart/form-data" or not options.get("boundary"):
        raise ApiError("The content type must be multipart/form-data with a boundary")
    limits = {"spool_limit": MAX_BODY_BYTES, "memory_limit": MAX_BODY_BYTES}
    try:
        return MultipartParser(BytesIO(request.body), options["boundary"], **limits).parts()
    except MultipartError as error:
        raise ApiError(f"The form cannot be parsed: {error}") from error


def parse_transcription_form(request: RecordedRequest) -> TranscriptionForm:
    """Parse and check the form and its WAV file. Raises: ApiError."""
    parts = form_parts(request)
    file = next((part for part in parts if part.name == "file" and part.filename is not None), None)
    fields: dict[str, list[str]] = {}
    for part in parts:
        if part.filename is None:
            fields.setdefault(part.name, []).append(part.raw.decode(errors="replace"))
    if not fields.get("model", [""])[-1]:
        raise ApiError("you must provide a model parameter", "model")
    if file is None:
        raise ApiError("you must provide a file", "file")
    response_format = fields.get("response_format", ["json"])[-1]
    if response_format not in RESPONSE_FORMATS:
        message = f"Unsupported response_format {response_format!r}. Supported formats: {list(RESPONSE_FORMATS)}"
        raise ApiError(message, "response_format")
    if not file.filename.lower().endswith(".wav"):
        raise ApiError("Unrecognized file format. Supported formats: ['wav']", "file")
    return TranscriptionForm(
        _read_samples(file.raw),
        response_format,
        "word" in fields.get("timestamp_granularities[]", []),
        fields.get("stream", [""])[-1].lower() == "true",
    )


def _read_samples(wav: bytes) -> bytes:
    try:
        with wave.open(BytesIO(wav)) as reader:
            if (reader.getnchannels(), reader.getsampwidth(), reader.getframerate()) == (1, 2, SAMPLE_RATE):
                samples = reader.readframes(reader.getnframes())
                return samples[: len(samples) // 2 * 2]
    except (wave.Error, EOFError) as error:
        raise ApiError("Audio file might be corrupted or unsupported", "file") from error
    raise ApiError("Audio file is unsupported: it must be WAV with 16 kHz, one channel and 16 bits", "file")


def _verbose_document(transcript: Transcript, *, with_words: bool) -> dict[str, Any]:
    segments = [
        {"id": number, "start": words[0].start_s, "end": words[-1].end_s, "text": _join(words)}
        for number, words in enumerate(transcript.segments)
    ]
    document = {
        "language": "english",
        "duration": transcript.duration_s,
        "text": transcript.text,
        "segments": segments,
    }
    if with_words:
        document["words"] = [{"word": word.text, "start": word.start_s, "end": word.end_s} for word in transcript.words]
    return document


def _srt(transcript: Transcript) -> str:
    return "".join(
        f"{number}\n{_time_range(words).replace('.', ',')}\n{_join(words)}\n\n"
        for number, words in enumerate(transcript.segments, 1)
    )


def _vtt(transcript: Transcript) -> str:
    return "WEBVTT\n\n" + "".join(f"{_time_range(words)}\n{_join(words)}\n\n" for words in transcript.segments)


def _time_range(words: list[Word]) -> str:
    return f"{_timestamp(words[0].start_s)} --> {_timestamp(words[-1].end_s)}"


def _timestamp(seconds: float) -> str:
    minutes, milliseconds = divmod(round(seconds * 1000), 60_000)
    return f"{minutes // 60:02}:{minutes % 60:02}:{milliseconds // 1000:02}.{milliseconds % 1000:03}"


def _join(words: list[Word]) -> str:
    return " ".join(word.text for word in words)


def _transcript_events(transcript: Transcript) -> list[dict[str, Any]]:
    """One event per word, then the complete text."""
    texts = [f" {word.text}" if number else word.text for number, word in enumerate(transcript.words)]
    deltas = [{"type": "transcript.text.delta", "delta": text} for text in texts]
    return [*deltas, {"type": "transcript.text.done", "text": transcript.text, "usage": transcript.usage}]
