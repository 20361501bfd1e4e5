"""The audio servers, called directly by OpenAI's SDK: a sentence is spoken, transcribed, and comes back the same."""

import base64
import json
import re
import socket
import wave
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from io import BytesIO
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import httpx
import openai
import pytest

from local.http_body import stream_body
from tests import sse_reader
from tests.audio import speech_server, transcription_server
from tests.audio.speech_server import SpeechServer
from tests.audio.transcription_server import TranscriptionServer, form_parts

FIXTURE = Path(__file__).parent / "fixtures" / "hello.wav"
HELLO = "hello how are you"
FOX = "the quick brown fox jumps over the lazy dog"
NUMBERS = "one two three four five"

needs_flite = pytest.mark.skipif(not speech_server.IS_INSTALLED, reason="flite is not installed: apt-get install flite")
needs_pocketsphinx = pytest.mark.skipif(
    not transcription_server.IS_INSTALLED, reason="pocketsphinx cannot be imported: pip install pocketsphinx==5.1.1"
)


@pytest.fixture(scope="module")
def speech() -> Iterator[SpeechServer]:
    with SpeechServer() as server:
        yield server


@pytest.fixture(scope="module")
def transcription() -> Iterator[TranscriptionServer]:
    with TranscriptionServer() as server:
        yield server


@pytest.fixture(scope="module")
def speaker(speech: SpeechServer) -> Iterator[openai.OpenAI]:
    with openai.OpenAI(base_url=speech.base_url, api_key="speech-key", max_retries=0) as sdk:
        yield sdk


@pytest.fixture(scope="module")
def listener(transcription: TranscriptionServer) -> Iterator[openai.OpenAI]:
    with openai.OpenAI(base_url=transcription.base_url, api_key="transcription-key", max_retries=0) as sdk:
        yield sdk


@pytest.fixture(scope="module")
def hello(speaker: openai.OpenAI) -> bytes:
    """The spoken sentence HELLO; without flite, the stored one."""
    return speak(speaker, HELLO) if speech_server.IS_INSTALLED else FIXTURE.read_bytes()


def speak(speaker: openai.OpenAI, sentence: str, **options: Any) -> bytes:
    return speaker.audio.speech.create(
        model="flite", voice="slt", input=sentence, response_format="wav", **options
    ).content


def transcribe(listener: openai.OpenAI, wav: bytes, name: str = "speech.wav", **options: Any) -> Any:
    return listener.audio.transcriptions.create(model="pocketsphinx", file=(name, wav), **options)


def wav_of(samples: bytes, *, rate: int = 16_000, channels: int = 1) -> bytes:
    buffer = BytesIO()
    with wave.open(buffer, "wb") as writer:
        writer.setnchannels(channels)
        writer.setsampwidth(2)
        writer.setframerate(rate)
        writer.writeframes(samples)
    return buffer.getvalue()


def samples_of(wav: bytes) -> bytes:
    with wave.open(BytesIO(wav)) as reader:
        assert (reader.getframerate(), reader.getnchannels(), reader.getsampwidth()) == (16_000, 1, 2)
        return reader.readframes(reader.getnframes())


@needs_flite
@needs_pocketsphinx
@pytest.mark.parametrize("sentence", [HELLO, FOX, NUMBERS])
def test_sentence_comes_back_as_spoken(speaker: openai.OpenAI, listener: openai.OpenAI, sentence: str) -> None:
    assert transcribe(listener, speak(speaker, sentence)).text == sentence


@needs_pocketsphinx
def test_stored_speech_is_transcribed(listener: openai.OpenAI) -> None:
    with FIXTURE.open("rb") as file:
        assert listener.audio.transcriptions.create(model="pocketsphinx", file=file).text == HELLO


@needs_pocketsphinx
def test_json_counts_seconds(listener: openai.OpenAI, hello: bytes) -> None:
    transcript = transcribe(listener, hello, response_format="json")
    assert transcript.text == HELLO
    assert transcript.usage.model_dump() == {"type": "duration", "seconds": 2}


@needs_pocketsphinx
def test_text_is_plain_text(listener: openai.OpenAI, hello: bytes) -> None:
    response = listener.audio.transcriptions.with_raw_response.create(
        model="pocketsphinx", file=("a.wav", hello), response_format="text"
    )
    assert response.headers["content-type"] == "text/plain; charset=utf-8"
    assert response.text == response.parse() == f"{HELLO}\n"


@needs_pocketsphinx
def test_subtitles_contain_the_sentence_and_its_time(listener: openai.OpenAI, hello: bytes) -> None:
    srt = transcribe(listener, hello, response_format="srt")
    vtt = transcribe(listener, hello, response_format="vtt")
    assert re.fullmatch(rf"1\n00:00:00,[12]\d0 --> 00:00:01,[12]\d0\n{HELLO}\n\n", srt)
    assert vtt == "WEBVTT\n\n" + srt.removeprefix("1\n").replace(",", ".")


@needs_pocketsphinx
def test_verbose_json_has_times_of_words(listener: openai.OpenAI, hello: bytes) -> None:
    verbose = transcribe(listener, hello, response_format="verbose_json", timestamp_granularities=["word", "segment"])
    assert (verbose.task, verbose.language, verbose.text) == ("transcribe", "english", HELLO)
    assert verbose.duration == len(samples_of(hello)) / 32_000
    assert [word.word for word in verbose.words] == HELLO.split()
    times = [time for word in verbose.words for time in (word.start, word.end)]
    assert times == sorted(times)
    (segment,) = verbose.segments
    assert (segment.id, segment.text) == (0, HELLO)
    assert 0 < segment.start == times[0] < times[-1] == segment.end < verbose.duration
    assert verbose.usage.model_dump() == {"type": "duration", "seconds": 2}


@needs_pocketsphinx
def test_words_are_absent_unless_requested(listener: openai.OpenAI, hello: bytes) -> None:
    assert transcribe(listener, hello, response_format="verbose_json").words is None


@needs_flite
@needs_pocketsphinx
def test_pause_starts_a_new_segment(speaker: openai.OpenAI, listener: openai.OpenAI, hello: bytes) -> None:
    samples = samples_of(hello) + bytes(32_000) + samples_of(speak(speaker, NUMBERS))
    verbose = transcribe(listener, wav_of(samples), response_format="verbose_json")
    assert [(segment.id, segment.text) for segment in verbose.segments] == [(0, HELLO), (1, NUMBERS)]
    assert verbose.segments[1].start - verbose.segments[0].end > 1


@needs_pocketsphinx
def test_stream_has_one_event_per_word(listener: openai.OpenAI, hello: bytes) -> None:
    *deltas, done = list(transcribe(listener, hello, stream=True))
    assert [event.type for event in deltas] == ["transcript.text.delta"] * 4
    assert "".join(event.delta for event in deltas) == HELLO
    assert (done.type, done.text) == ("transcript.text.done", HELLO)
    assert done.usage.to_dict() == {"type": "duration", "seconds": 2}


@needs_pocketsphinx
def test_translation_of_english_is_the_same_sentence(listener: openai.OpenAI, hello: bytes) -> None:
    translations: Any = listener.audio.translations
    file = ("speech.wav", hello)
    with pytest.warns(DeprecationWarning, match="deprecated"):
        translation = translations.create(model="pocketsphinx", file=file)
    with pytest.warns(DeprecationWarning, match="deprecated"):
        verbose = translations.create(model="pocketsphinx", file=file, response_format="verbose_json")
    assert translation.to_dict() == {"text": HELLO}
    assert (verbose.task, verbose.text, verbose.segments[0].text) == ("translate", HELLO, HELLO)


@needs_pocketsphinx
def test_concurrent_requests_share_the_decoder(listener: openai.OpenAI, hello: bytes) -> None:
    with ThreadPoolExecutor(2) as pool:
        transcripts = list(pool.map(lambda wav: transcribe(listener, wav), [hello] * 2))
    assert [transcript.text for transcript in transcripts] == [HELLO] * 2


@needs_pocketsphinx
def test_audio_without_samples_has_no_words(listener: openai.OpenAI) -> None:
    empty = wav_of(b"")
    assert transcribe(listener, empty).text == ""
    assert transcribe(listener, empty, response_format="vtt") == "WEBVTT\n\n"
    assert [event.type for event in transcribe(listener, empty, stream=True)] == ["transcript.text.done"]


def test_form_is_recorded(transcription: TranscriptionServer, listener: openai.OpenAI) -> None:
    transcribe(listener, wav_of(b""), language="en", timestamp_granularities=["word", "segment"])
    request = transcription.requests[-1]
    assert (request.method, request.path) == ("POST", "/v1/audio/transcriptions")
    assert request.headers["authorization"] == "Bearer transcription-key"
    fields = [(part.name, part.filename or part.value) for part in form_parts(request)]
    assert sorted(fields) == [
        ("file", "speech.wav"),
        ("language", "en"),
        ("model", "pocketsphinx"),
        ("timestamp_granularities[]", "segment"),
        ("timestamp_granularities[]", "word"),
    ]


@pytest.mark.parametrize("name", ["upload", "speech.mp3", "speech.wav.ogg"])
def test_format_is_identified_by_the_file_name(listener: openai.OpenAI, name: str) -> None:
    with pytest.raises(openai.BadRequestError, match="Unrecognized file format") as caught:
        transcribe(listener, wav_of(b""), name)
    assert caught.value.param == "file"
    assert caught.value.type == "invalid_request_error"


@pytest.mark.parametrize(
    "wav",
    [b"", b"no audio", wav_of(b"")[:20], wav_of(bytes(4), rate=8_000), wav_of(bytes(4), channels=2)],
    ids=["empty", "text", "truncated", "8 kHz", "stereo"],
)
def test_unsupported_audio_is_rejected(listener: openai.OpenAI, wav: bytes) -> None:
    with pytest.raises(openai.BadRequestError, match=r"Audio file .* unsupported"):
        transcribe(listener, wav)


@pytest.mark.parametrize(
    ("fields", "files", "param"),
    [
        ({}, {"file": ("a.wav", wav_of(b""))}, "model"),
        ({"model": "pocketsphinx", "file": "a.wav"}, {"image": ("a.wav", wav_of(b""))}, "file"),
        ({"model": "pocketsphinx", "response_format": "xml"}, {"file": ("a.wav", wav_of(b""))}, "response_format"),
        ({"model": "pocketsphinx"}, None, None),
    ],
    ids=["no model", "no file", "unknown response format", "no form"],
)
def test_invalid_forms_are_rejected(
    transcription: TranscriptionServer, fields: dict[str, str], files: Any, param: str | None
) -> None:
    response = httpx.post(f"{transcription.base_url}/audio/transcriptions", data=fields, files=files)
    assert (response.status_code, response.json()["error"]["param"]) == (400, param)


def test_servers_list_their_model_and_reject_other_paths(speaker: openai.OpenAI, listener: openai.OpenAI) -> None:
    assert [[model.id for model in sdk.models.list()] for sdk in (speaker, listener)] == [["flite"], ["pocketsphinx"]]
    for sdk in (speaker, listener):
        with pytest.raises(openai.NotFoundError, match="Invalid URL"):
            sdk.embeddings.create(model="flite", input="hello")


@needs_flite
def test_speech_is_wav(speech: SpeechServer, speaker: openai.OpenAI) -> None:
    response = speaker.audio.speech.with_raw_response.create(model="flite", voice="alloy", input=HELLO)
    assert response.headers["content-type"] == "audio/wav"
    assert len(samples_of(response.content)) > 32_000
    request = speech.requests[-1]
    assert request.headers["authorization"] == "Bearer speech-key"
    assert json.loads(request.body) == {"model": "flite", "voice": "alloy", "input": HELLO}


@needs_flite
def test_speech_is_sent_in_chunks(speech: SpeechServer) -> None:
    body = json.dumps({"model": "flite", "voice": "slt", "input": HELLO}).encode()
    url = urlsplit(speech.base_url)
    with (
        socket.create_connection((url.hostname, url.port), timeout=30) as connection,
        connection.makefile("rb") as file,
    ):
        head = f"POST {url.path}/audio/speech HTTP/1.1\r\nhost: {url.netloc}\r\ncontent-length: {len(body)}\r\n\r\n"
        connection.sendall(head.encode() + body)
        response_head = b"".join(iter(file.readline, b"\r\n")).lower()
        assert b"transfer-encoding: chunked" in response_head
        chunks = list(stream_body(file, {"transfer-encoding": "chunked"}))
    assert len(chunks) > 4
    assert samples_of(b"".join(chunks))


@needs_flite
def test_speech_as_events_is_the_same_audio(speaker: openai.OpenAI) -> None:
    response = speaker.audio.speech.with_raw_response.create(
        model="flite", voice="slt", input=HELLO, stream_format="sse"
    )
    assert response.headers["content-type"] == "text/event-stream"
    *deltas, done = [event.document for event in sse_reader.read(response.content)]
    assert {event["type"] for event in deltas} == {"speech.audio.delta"}
    assert b"".join(base64.b64decode(event["audio"]) for event in deltas) == speak(speaker, HELLO)
    assert done["type"] == "speech.audio.done"
    assert done["usage"] == {
        "input_tokens": 4,
        "output_tokens": len(deltas),
        "total_tokens": 4 + len(deltas),
    }


@needs_flite
def test_speed_shortens_the_audio(speaker: openai.OpenAI) -> None:
    normal, fast = (len(speak(speaker, HELLO, speed=speed)) for speed in (1, 2))
    assert fast == pytest.approx(normal / 2, rel=0.05)


@needs_flite
@pytest.mark.parametrize("text", ["-o speech.wav", "\0 \ud800", "$(ls); 'x'"])
def test_text_is_never_an_option_or_a_command(text: str) -> None:
    assert samples_of(speech_server.synthesize(text))


@pytest.mark.parametrize(
    ("fields", "param"),
    [
        ({"input": ""}, "input"),
        ({"input": "a" * 4097}, "input"),
        ({"model": None}, "model"),
        ({"voice": {"name": "slt"}}, "voice"),
        ({"response_format": "mp3"}, "response_format"),
        ({"speed": 5}, "speed"),
        ({"stream_format": "websocket"}, "stream_format"),
    ],
    ids=lambda value: value if isinstance(value, str) else json.dumps(value)[:40],
)
def test_invalid_speech_requests_are_rejected(speaker: openai.OpenAI, fields: dict[str, Any], param: str) -> None:
    valid = {"model": "flite", "voice": "slt", "input": HELLO}
    with pytest.raises(openai.BadRequestError) as caught:
        speaker.audio.speech.create(**valid, extra_body=fields)
    assert caught.value.param == param


def test_error_of_a_format_names_the_supported_one(speaker: openai.OpenAI) -> None:
    with pytest.raises(openai.BadRequestError, match=r"Supported formats: \['wav'\]"):
        speaker.audio.speech.create(model="flite", voice="slt", input=HELLO, response_format="mp3")


def test_speech_without_json_is_rejected(speech: SpeechServer) -> None:
    response = httpx.post(f"{speech.base_url}/audio/speech", content=b"hello")
    assert (response.status_code, response.json()["error"]["type"]) == (400, "invalid_request_error")


def test_server_ends_with_its_block() -> None:
    with SpeechServer() as server:
        url = f"{server.base_url}/models"
        assert httpx.get(url).status_code == 200
    with pytest.raises(httpx.ConnectError):
        httpx.get(url)
