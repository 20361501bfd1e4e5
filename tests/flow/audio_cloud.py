"""The gateway with real audio servers as providers, and a scripted one that records the forms it receives."""

import json
from collections.abc import Generator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import httpx

from local.choose_upstream import Upstream
from local.cloud import Cloud
from local.scripted import RecordedRequest, ScriptedProvider
from tests.audio.speech_server import SpeechServer
from tests.audio.transcription_server import TranscriptionServer, form_parts
from tests.flow.conftest import Product

TRANSCRIPTION, TRANSLATION, SPEECH, CHAT = (
    "audio.transcriptions",
    "audio.translations",
    "audio.speech",
    "chat.completions",
)
RECOGNIZER_MODEL, VOICE_MODEL = "whisper-1", "tts-1"  # of the real audio servers
SCRIPTED_MODEL, FAILOVER_MODEL = "scripted-audio", "failover-audio"
SCRIPTED_UPSTREAM_MODEL, BUSY_UPSTREAM_MODEL, BACKUP_UPSTREAM_MODEL = "upstream-audio", "busy-audio", "backup-audio"
WAV, MP3 = {"content-type": "audio/wav"}, {"content-type": "audio/mpeg"}


@dataclass
class AudioProduct(Product):
    """A running gateway, its two audio servers, and its scripted provider."""

    speech: SpeechServer
    transcription: TranscriptionServer

    def request_counts(self) -> tuple[int, int, int]:
        return len(self.speech.requests), len(self.transcription.requests), len(self.upstream.requests)


@contextmanager
def running_audio_product(parameters: Mapping[str, str] | None = None) -> Generator[AudioProduct]:
    """The gateway as users start it, until the block ends. `parameters` are those of the template."""
    with (
        SpeechServer() as speech,
        TranscriptionServer() as transcription,
        ScriptedProvider() as scripted,
        Cloud(Upstream(_providers(speech, transcription, scripted), {}, ""), parameters=parameters) as cloud,
        httpx.Client(
            base_url=cloud.base_url,
            headers={"authorization": f"Bearer {cloud.keys.api_key}"},
            timeout=60,
            trust_env=False,
        ) as http,
    ):
        yield AudioProduct(cloud, scripted, http, speech, transcription)


def _providers(speech: SpeechServer, transcription: TranscriptionServer, scripted: ScriptedProvider) -> str:
    voice = {"model": speech.model, "voice": "slt"}
    scripted_provider = {
        "base_url": scripted.base_url,
        "operations": [TRANSCRIPTION, TRANSLATION, SPEECH, CHAT],
    }
    providers: list[dict[str, Any]] = [
        {
            "name": "flite",
            "base_url": speech.base_url,
            "operations": [SPEECH],
            "models": {VOICE_MODEL: voice, "text-to-speech": voice},
        },
        {
            "name": "sphinx",
            "base_url": transcription.base_url,
            "operations": [TRANSCRIPTION, TRANSLATION],
            "models": dict.fromkeys((RECOGNIZER_MODEL, "speech-to-text"), transcription.model),
        },
        {**scripted_provider, "name": "scripted", "models": {SCRIPTED_MODEL: SCRIPTED_UPSTREAM_MODEL}},
        {**scripted_provider, "name": "busy", "models": {FAILOVER_MODEL: BUSY_UPSTREAM_MODEL}, "priority": 1},
        {**scripted_provider, "name": "backup", "models": {FAILOVER_MODEL: BACKUP_UPSTREAM_MODEL}},
    ]
    return json.dumps({"providers": providers})


@dataclass(frozen=True)
class FormPart:
    """One part of a form as it is on the wire; a text field has no file name."""

    name: str
    content: bytes
    file_name: str | None = None
    content_type: str | None = None


@dataclass(frozen=True)
class Form:
    """A multipart body, written part by part: no client library changes its order, names or types."""

    parts: tuple[FormPart, ...]
    boundary: str = "----client-boundary"

    @property
    def headers(self) -> dict[str, str]:
        return {"content-type": f"multipart/form-data; boundary={self.boundary}"}

    @property
    def body(self) -> bytes:
        lines = [line for part in self.parts for line in (f"--{self.boundary}".encode(), *_part_lines(part))]
        return b"\r\n".join([*lines, f"--{self.boundary}--".encode(), b""])


def _part_lines(part: FormPart) -> list[bytes]:
    file_name = "" if part.file_name is None else f'; filename="{part.file_name}"'
    lines = [f'Content-Disposition: form-data; name="{part.name}"{file_name}'.encode()]
    if part.content_type:
        lines.append(f"Content-Type: {part.content_type}".encode())
    return [*lines, b"", part.content]


def parts_at_provider(request: RecordedRequest) -> list[FormPart]:
    """The parts of a form that a provider received, in order, read by an independent parser."""
    return [
        FormPart(part.name, part.raw, part.filename, dict(part.headerlist).get("Content-Type"))
        for part in form_parts(request)
    ]
