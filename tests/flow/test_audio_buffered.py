"""Audio of a deployment without streaming: a file is a redirect to a link, a transcript is text."""

from collections.abc import Iterator

import httpx
import openai
import pytest

from tests.audio.test_audio_servers import FIXTURE, HELLO, needs_flite, needs_pocketsphinx
from tests.flow.audio_cloud import (
    MP3,
    RECOGNIZER_MODEL,
    SCRIPTED_MODEL,
    SCRIPTED_UPSTREAM_MODEL,
    VOICE_MODEL,
    AudioProduct,
    Form,
    FormPart,
    parts_at_provider,
    running_audio_product,
)

FILE = FormPart("file", bytes(range(256)) * 4, "a b.webm", "audio/webm;codecs=opus")


@pytest.fixture(scope="module")
def buffered_audio() -> Iterator[AudioProduct]:
    with running_audio_product({"ResponseMode": "BUFFERED"}) as product:
        yield product


@pytest.fixture
def sdk(buffered_audio: AudioProduct) -> Iterator[openai.OpenAI]:
    with openai.OpenAI(base_url=f"{buffered_audio.url}/v1", api_key=buffered_audio.key, max_retries=0) as client:
        yield client


@pytest.mark.parametrize("upstream_headers", [MP3, {"x-request-id": "1"}], ids=["audio", "no content type"])
def test_speech_is_a_redirect_to_a_link_without_a_key(
    upstream_headers: dict[str, str], buffered_audio: AudioProduct
) -> None:
    content = b"ID3" + bytes(range(256))
    buffered_audio.upstream.respond_with(200, content, upstream_headers)
    response = buffered_audio.http.post("/v1/audio/speech", json={"model": SCRIPTED_MODEL, "input": "Hello"})
    assert (response.status_code, response.content) == (302, b"")
    file = httpx.get(response.headers["location"], trust_env=False)
    assert (file.status_code, file.headers["content-type"], file.content) == (200, "audio/mpeg", content)


@needs_flite
@needs_pocketsphinx
def test_sdk_follows_the_redirect_and_reads_the_transcript(sdk: openai.OpenAI) -> None:
    speech = sdk.audio.speech.create(model=VOICE_MODEL, voice="alloy", input=HELLO).content
    file = ("speech.wav", speech, "audio/wav")
    assert sdk.audio.transcriptions.create(model=RECOGNIZER_MODEL, file=file).text == HELLO


@needs_pocketsphinx
@pytest.mark.parametrize(
    ("response_format", "content_type"), [("text", "text/plain"), ("srt", "text/plain"), ("vtt", "text/vtt")]
)
def test_transcript_is_text_of_its_type(response_format: str, content_type: str, buffered_audio: AudioProduct) -> None:
    response = buffered_audio.http.post(
        "/v1/audio/transcriptions",
        data={"model": RECOGNIZER_MODEL, "response_format": response_format},
        files={"file": ("speech.wav", FIXTURE.read_bytes(), "audio/wav")},
    )
    assert response.headers["content-type"].startswith(content_type)
    assert HELLO in response.text


@needs_pocketsphinx
def test_sdk_reads_a_streamed_transcript_at_once(sdk: openai.OpenAI) -> None:
    file = ("speech.wav", FIXTURE.read_bytes(), "audio/wav")
    events = list(sdk.audio.transcriptions.create(model=RECOGNIZER_MODEL, file=file, stream=True))
    assert events[-1].type == "transcript.text.done"
    assert events[-1].text == HELLO


def test_form_reaches_the_provider_unchanged(buffered_audio: AudioProduct) -> None:
    buffered_audio.upstream.requests.clear()
    buffered_audio.upstream.respond_with(200, b'{"text":"recorded"}')
    form = Form((FILE, FormPart("model", SCRIPTED_MODEL.encode())))
    response = buffered_audio.http.post("/v1/audio/transcriptions", content=form.body, headers=form.headers)
    assert response.json() == {"text": "recorded"}
    (request,) = buffered_audio.upstream.requests
    assert parts_at_provider(request) == [FILE, FormPart("model", SCRIPTED_UPSTREAM_MODEL.encode())]
