"""Audio calls to one provider, as the gateway makes them, with the forms that clients send."""

import io
import json
import wave
from collections.abc import Generator, Iterable
from contextlib import contextmanager
from typing import Any

import httpx

from aiserver.clock import Clock, Deadline
from aiserver.errors import ProviderError
from aiserver.operations import OPERATIONS
from aiserver.providers.call import ProviderCall, Upstream
from aiserver.providers.provider import Provider
from aiserver.providers.response import ProviderResponse
from aiserver.providers.stream import ProviderStream
from aiserver.routing.admission import AdmissionControl
from aiserver.routing.failover import Failover, FailoverResult
from aiserver.routing.selection import select_candidates
from tests.fakes import FakeClock
from tests.providers.calls import dispatcher, upstream_of
from tests.providers.streaming import read_stream

TRANSCRIPTIONS, TRANSLATIONS, SPEECH = "audio.transcriptions", "audio.translations", "audio.speech"
BOUNDARY = "--------------------------d74496d66958873e"
FORM = f"multipart/form-data; boundary={BOUNDARY}"
FILE_SECONDS = 1.504  # of 12,032 samples: both numbers are ASCII in the header of the file
TIMEOUT_S = 20
SPEECH_BODY = b'{"model":"m", "input":"Hello", "voice":"a"}'


def silence(seconds: float) -> bytes:
    """A WAV file whose bytes are all ASCII, so that hostile_servers can record a form with it as text."""
    target = io.BytesIO()
    with wave.open(target, "wb") as file:
        file.setnchannels(1)
        file.setsampwidth(1)
        file.setframerate(8000)
        file.writeframes(bytes(int(8000 * seconds)))
    return target.getvalue()


def form_field(name: str, text: str) -> bytes:
    """The bytes of a text field, as curl sends it."""
    return f'Content-Disposition: form-data; name="{name}"\r\n\r\n{text}'.encode()


def form_file(content: bytes, name: str = "speech.wav", content_type: str = "audio/wav") -> bytes:
    disposition = f'Content-Disposition: form-data; name="file"; filename="{name}"'
    return f"{disposition}\r\nContent-Type: {content_type}\r\n\r\n".encode() + content


FILE = form_file(silence(FILE_SECONDS))


def form_body(*parts: bytes, boundary: str = BOUNDARY) -> bytes:
    """The body with these parts, written without the code under test."""
    delimiter = b"--" + boundary.encode()
    return b"".join(b"%b\r\n%b\r\n" % (delimiter, part) for part in parts) + delimiter + b"--\r\n"


def boundary_of(content_type: str) -> str:
    return content_type.removeprefix("multipart/form-data; boundary=")


def audio_call(
    operation: str,
    body: bytes,
    content_type: str,
    *,
    stream: bool = False,
    timeout_s: float = TIMEOUT_S,
    begin_timeout_s: float = TIMEOUT_S,
    clock: Clock | None = None,
    idempotency_key: str | None = None,
    is_aiserver: bool = False,
) -> ProviderCall:
    clock = clock or FakeClock()
    return ProviderCall(
        OPERATIONS[operation],
        body,
        Deadline.after(timeout_s, clock),
        Deadline.after(begin_timeout_s, clock),
        idempotency_key=idempotency_key,
        stream=stream,
        content_type=content_type,
        is_aiserver=is_aiserver,
    )


def transcription_call(response_format: str | None = None, *, file: bytes = FILE, **options: Any) -> ProviderCall:
    """A call with a form; with `stream`, its field `stream` is true."""
    parts = [form_field("model", "m"), file]
    parts += [form_field("response_format", response_format)] if response_format else []
    parts += [form_field("stream", "true")] if options.get("stream") else []
    return audio_call(options.pop("operation", TRANSCRIPTIONS), form_body(*parts), FORM, **options)


def speech_call(body: bytes = SPEECH_BODY, **options: Any) -> ProviderCall:
    return audio_call(SPEECH, body, "application/json", **options)


def send_audio(
    http: httpx.Client, target: Provider, call: ProviderCall, upstream: Upstream | None = None
) -> ProviderResponse:
    return dispatcher(http).send(upstream or upstream_of(target), call)


@contextmanager
def open_audio_stream(
    http: httpx.Client, target: Provider, call: ProviderCall, clock: Clock | None = None
) -> Generator[ProviderStream]:
    """The stream of a call; the response may not be complete at once."""
    with dispatcher(http, clock).open_stream(upstream_of(target), call) as stream:
        assert isinstance(stream, ProviderStream)
        yield stream


def read_audio(
    http: httpx.Client, target: Provider, call: ProviderCall
) -> tuple[bytes, ProviderError | None, dict[str, Any] | None]:
    """Bytes, error and usage of a streamed call. The call itself may fail instead."""
    try:
        with open_audio_stream(http, target, call) as stream:
            received, error = read_stream(stream.events)
            return received, error, usage_of(stream.mapper.usage)
    except ProviderError as error:
        return b"", error, None


def fail_over_audio(
    http: httpx.Client, call: ProviderCall, providers: Iterable[Provider], clock: Clock | None = None
) -> FailoverResult:
    """One failover pass over the providers of model `m`, as a request makes it."""
    clock = clock or FakeClock()
    failover = Failover(dispatcher(http, clock), AdmissionControl(clock), None, clock)
    return failover.try_candidates(call, select_candidates(providers, "m"))


def usage_of(text: str | None) -> dict[str, Any] | None:
    """A usage as an object, which is valid JSON."""

    def reject(constant: str) -> None:
        raise AssertionError(f"{constant} is not JSON")

    return None if text is None else json.loads(text, parse_constant=reject)
