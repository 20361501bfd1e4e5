"""A text-to-speech server on loopback with OpenAI's `POST /v1/audio/speech`: a real voice, by Debian's `flite`.

`AudioServer` is the base of this server and of the transcription server.
Sources: https://platform.openai.com/docs/api-reference/audio/createSpeech, https://github.com/festvox/flite
"""

import base64
import contextlib
import json
import shutil
import subprocess
import threading
import time
from dataclasses import dataclass, field
from http.server import ThreadingHTTPServer
from types import TracebackType
from typing import Any, ClassVar, Self

from local.http_head import StrictHandler
from local.scripted import RecordedRequest

IS_INSTALLED = shutil.which("flite") is not None
VOICE = "slt"
CHUNK_BYTES = 8192
MAX_BODY_BYTES = 64 * 1024 * 1024
MAX_INPUT_CHARS = 4096
SYNTHESIS_TIMEOUT_S = 60  # the longest input takes 6 s
JSON, EVENT_STREAM, WAV = "application/json", "text/event-stream", "audio/wav"


@dataclass(frozen=True)
class AudioResponse:
    """One response. A list of chunks is sent with chunked transfer encoding, bytes with a length."""

    content_type: str
    body: bytes | list[bytes]
    status: int = 200


class ApiError(Exception):
    """An error response in OpenAI's form."""

    def __init__(self, message: str, param: str | None = None, status: int = 400) -> None:
        super().__init__(message)
        self.param, self.status = param, status

    def response(self) -> AudioResponse:
        kind = "invalid_request_error" if self.status < 500 else "server_error"
        error = {"message": str(self), "type": kind, "param": self.param, "code": None}
        return json_response({"error": error}, self.status)


def json_response(document: dict[str, Any], status: int = 200) -> AudioResponse:
    return AudioResponse(JSON, json.dumps(document).encode(), status)


def sse_response(events: list[dict[str, Any]]) -> AudioResponse:
    """The events as server-sent events, each in a chunk of its own."""
    return AudioResponse(EVENT_STREAM, [b"data: %b\n\n" % json.dumps(event).encode() for event in events])


@dataclass
class AudioServer:
    """Serves until its block ends, and records all requests. `chunk_delay_s` is the time before each chunk."""

    model: ClassVar[str]
    paths: ClassVar[tuple[str, ...]]

    port: int = 0
    chunk_delay_s: float = 0
    requests: list[RecordedRequest] = field(default_factory=list[RecordedRequest])

    @property
    def base_url(self) -> str:
        return f"http://127.0.0.1:{self._server.server_port}/v1"

    def respond(self, request: RecordedRequest) -> AudioResponse:
        """The response to a POST to one of `paths`. Raises: ApiError."""
        raise NotImplementedError

    def _route(self, request: RecordedRequest) -> AudioResponse:
        path = request.path.partition("?")[0]
        try:
            if (request.method, path) == ("GET", "/v1/models"):
                model = {"id": self.model, "object": "model", "created": 0, "owned_by": "tests"}
                return json_response({"object": "list", "data": [model]})
            if request.method == "POST" and path in self.paths:
                return self.respond(request)
            raise ApiError(f"Invalid URL ({request.method} {path})", status=404)
        except ApiError as error:
            return error.response()

    def __enter__(self) -> Self:
        server = self

        class Handler(StrictHandler):
            def do_GET(self) -> None:
                self._respond()

            def do_POST(self) -> None:
                self._respond()

            def _respond(self) -> None:
                if (body := self.read_limited_body(MAX_BODY_BYTES)) is None:
                    return
                headers = {name.lower(): text for name, text in self.headers.items()}
                request = RecordedRequest(self.command, self.path, headers, body, self.client_address[1])
                server.requests.append(request)
                self._send(server._route(request))

            def _send(self, response: AudioResponse) -> None:
                self.send_response(response.status)
                self.send_header("content-type", response.content_type)
                if isinstance(response.body, bytes):
                    self.send_header("content-length", str(len(response.body)))
                    self.end_headers()
                    self.wfile.write(response.body)
                else:
                    self.send_header("transfer-encoding", "chunked")
                    self.end_headers()
                    self._send_chunks(response.body)

            def _send_chunks(self, chunks: list[bytes]) -> None:
                for chunk in chunks:
                    time.sleep(server.chunk_delay_s)
                    self.wfile.write(b"%x\r\n%b\r\n" % (len(chunk), chunk))
                self.wfile.write(b"0\r\n\r\n")

            def handle(self) -> None:
                with contextlib.suppress(ConnectionError):  # the caller closed the connection
                    super().handle()

        self._server = ThreadingHTTPServer(("127.0.0.1", self.port), Handler)
        self._server.daemon_threads = True
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.05,), daemon=True)
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()


class SpeechServer(AudioServer):
    """Speaks English with one voice, as 16 kHz WAV. Any model and any voice are accepted."""

    model = "flite"
    paths = ("/v1/audio/speech",)

    def respond(self, request: RecordedRequest) -> AudioResponse:
        speech = parse_speech_request(request.body)
        wav = synthesize(speech.text, speech.speed)
        chunks = [wav[start : start + CHUNK_BYTES] for start in range(0, len(wav), CHUNK_BYTES)]
        return sse_response(_speech_events(speech.text, chunks)) if speech.is_sse else AudioResponse(WAV, chunks)


@dataclass(frozen=True)
class SpeechRequest:
    """The fields of a speech request that change the audio or its transfer."""

    text: str
    speed: float
    is_sse: bool


def parse_speech_request(body: bytes) -> SpeechRequest:
    """Parse the JSON body. Raises: ApiError."""
    try:
        fields = json.loads(body)
    except ValueError:
        fields = None
    if not isinstance(fields, dict):
        raise ApiError("The request body must be a JSON object")
    text, model, voice = (fields.get(name) for name in ("input", "model", "voice"))
    if not isinstance(text, str) or not 0 < len(text) <= MAX_INPUT_CHARS:
        raise ApiError(f"'input' must be a string of 1 to {MAX_INPUT_CHARS} characters", "input")
    if not isinstance(model, str) or not model:
        raise ApiError("'model' must be a string", "model")
    voice_id = voice.get("id") if isinstance(voice, dict) else voice
    if not isinstance(voice_id, str) or not voice_id:
        raise ApiError("'voice' must be a string or an object with an 'id'", "voice")
    return SpeechRequest(text, *_parse_options(fields))


def _parse_options(fields: dict[str, Any]) -> tuple[float, bool]:
    """The speed, and whether the response is an event stream. Raises: ApiError."""
    response_format, speed, stream_format = (fields.get(name) for name in ("response_format", "speed", "stream_format"))
    if response_format not in (None, "wav"):
        raise ApiError(
            f"Unsupported response_format {response_format!r}. Supported formats: ['wav']", "response_format"
        )
    speed = 1 if speed is None else speed
    if isinstance(speed, bool) or not isinstance(speed, int | float) or not 0.25 <= speed <= 4:
        raise ApiError("'speed' must be a number from 0.25 to 4", "speed")
    if stream_format not in (None, "audio", "sse"):
        raise ApiError("'stream_format' must be 'audio' or 'sse'", "stream_format")
    return speed, stream_format == "sse"


def synthesize(text: str, speed: float = 1) -> bytes:
    """The spoken text as WAV: 16 kHz, mono, 16 bits. Raises: ApiError, with status 500 if `flite` fails."""
    spoken_text = text.encode(errors="replace").replace(b"\0", b" ")
    options = ["-voice", VOICE, "--setf", f"duration_stretch={1 / speed:.4f}"]
    try:
        process = subprocess.run(
            ["flite", *options, "-t", spoken_text, "-o", "/dev/stdout"],
            stdin=subprocess.DEVNULL,
            capture_output=True,
            check=True,
            timeout=SYNTHESIS_TIMEOUT_S,
        )
    except (OSError, subprocess.SubprocessError) as error:
        raise ApiError(f"The speech synthesis failed: {error}", status=500) from error
    return process.stdout


def _speech_events(text: str, chunks: list[bytes]) -> list[dict[str, Any]]:
    """The chunks as OpenAI's events. The usage counts words and chunks as tokens: the voice has no tokens."""
    deltas = [{"type": "speech.audio.delta", "audio": base64.b64encode(chunk).decode()} for chunk in chunks]
    words = len(text.split())
    usage = {"input_tokens": words, "output_tokens": len(chunks), "total_tokens": words + len(chunks)}
    return [*deltas, {"type": "speech.audio.done", "usage": usage}]
