"""Requests for audio: parts of forms are sent to providers as clients sent them, without the gateway's options."""

import base64
import hashlib
import json
import shutil
import subprocess
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import httpx
import openai
import pytest
from hypothesis import given
from hypothesis import strategies as st

from aiserver import operations
from aiserver.errors import InvalidRequest
from aiserver.limits import MAX_FIELD_ERRORS, MAX_NAME_CHARS
from aiserver.wire.audio_requests import bind_speech, bind_transcription, bind_translation
from aiserver.wire.forms import Part, encode_form, parse_form
from aiserver.wire.requests import ModelRequest, Options

AUDIO = b"RIFF\x08\x00\x00\x00WAVE\r\n--\x00\xff"
MODEL, FILE = Part("model", b"whisper-1"), Part("file", AUDIO, "hello.wav", "audio/wav")
SPEECH = b'{"model":"tts-1","input":"hi","voice":"alloy"%b}'
NODE = Path(__file__).parents[1] / "flow" / "node"

OPTION_NAMES = ("refId", "tag", "replyTo", "deadline", "provider")
OPTION_SPELLINGS = {
    "refId": ("refId", "RefId", "ref_id", "ref-id", "REFID"),
    "tag": ("tag", "Tag"),
    "replyTo": ("replyTo", "ReplyTo", "reply_to"),
    "deadline": ("deadline", "Deadline"),
    "provider": ("provider", "PROVIDER"),
}
OTHER_NAMES = (
    *("language", "prompt", "temperature", "timestamp_granularities[]", "include[]", "languages[]", "keywords"),
    *("chunking_strategy[type]", "chunking_strategy[threshold]", "known_speaker_names[]", "vad_filter", "Model"),
    *("MODEL", "File", "Stream", "responseFormat", "stream_options", "", "語", 'a"b', "a\r\nb", "state"),
)
VALUES = st.sampled_from(["word", "0", "0.5", "true", "", "語😀", "a\r\nb", " x ", "[1]"]).map(str.encode)
OTHER_PARTS = st.builds(
    Part, st.sampled_from(OTHER_NAMES), VALUES | st.binary(max_size=5), content_type=st.none() | st.just("text/plain")
) | st.builds(Part, st.sampled_from([*OTHER_NAMES, *OPTION_NAMES]), st.binary(max_size=5), st.just("other.bin"))


def bind(parts: Sequence[Part], *, is_queued: bool = False) -> ModelRequest:
    """Bind a form for transcriptions; a form for translations must give the same request."""
    request = bind_transcription(*encode_form(parts), is_queued=is_queued)
    translation = bind_translation(*encode_form(parts), is_queued=is_queued)
    assert (request.operation, translation.operation) == (operations.TRANSCRIPTIONS, operations.TRANSLATIONS)
    assert replace(translation, operation=operations.TRANSCRIPTIONS) == request
    return request


def field(name: str, value: str) -> Part:
    return Part(name, value.encode())


def error_of(parts: Sequence[Part], *, is_queued: bool = False) -> InvalidRequest:
    with pytest.raises(InvalidRequest) as raised:
        bind(parts, is_queued=is_queued)
    assert raised.value.status == 400
    return raised.value


@st.composite
def forms_with_options(draw: st.DrawFn) -> tuple[list[Part], dict[str, str], list[Part]]:
    """Draw a form, its options, and its parts for the provider."""
    chosen = draw(st.lists(st.sampled_from(OPTION_NAMES), unique=True))
    options = {name: draw(st.sampled_from(["r", "語 1", "3600", "a/b?c=d"])) for name in chosen}
    fields = [field(draw(st.sampled_from(OPTION_SPELLINGS[name])), value) for name, value in options.items()]
    empty = [field(draw(st.sampled_from(OPTION_SPELLINGS[name])), "") for name in OPTION_NAMES if name not in options]
    removed = fields + draw(st.lists(st.sampled_from(empty), unique=True) if empty else st.just([]))
    upstream_parts = [MODEL, FILE, *draw(st.lists(OTHER_PARTS, max_size=4))]
    parts = draw(st.permutations([*removed, *upstream_parts]))
    return parts, options, [part for part in parts if part not in removed]


# --- forms ---


@given(forms_with_options())
def test_options_are_taken_out_and_other_parts_are_sent_in_their_order(
    form: tuple[list[Part], dict[str, str], list[Part]],
) -> None:
    """Issues: fields are dropped (9router #2154), renamed (speaches #58) or added (LiteLLM #10584)."""
    parts, options, upstream_parts = form
    request = bind(parts)
    assert parse_form(request.body, request.content_type) == upstream_parts
    assert (request.body, request.content_type) == encode_form(upstream_parts)
    expected = [options.get(name) for name in OPTION_NAMES]
    assert request.options == Options(*expected)
    assert (request.model, request.stream, request.name, request.ignored) == ("whisper-1", False, "", ())


@given(forms_with_options(), st.lists(st.sampled_from(["stream", "stream_format"]), max_size=3))
def test_queued_form_is_sent_without_stream_fields(
    form: tuple[list[Part], dict[str, str], list[Part]], names: list[str]
) -> None:
    parts, _, upstream_parts = form
    request = bind([*[field(name, "true") for name in names], *parts], is_queued=True)
    assert parse_form(request.body, request.content_type) == upstream_parts
    assert not request.stream


@pytest.mark.parametrize("value", ["true", "True", "TRUE", "1"])
def test_stream_field_makes_the_request_a_stream(value: str) -> None:
    """Issues: a gateway ignores the text of the form (LiteLLM #21310, Portkey #1376)."""
    for parts in ([field("stream", value), MODEL, FILE], [FILE, MODEL, field("stream", value)]):
        request = bind(parts)
        assert request.stream
        assert parse_form(request.body, request.content_type) == parts
        assert not bind(parts, is_queued=True).stream


@pytest.mark.parametrize("value", ["false", "False", "0", "", "no", "null", "11", " true"])
def test_other_values_of_stream_are_sent_without_streaming(value: str) -> None:
    parts = [MODEL, FILE, field("stream", value)]
    request = bind(parts)
    assert not request.stream
    assert parse_form(request.body, request.content_type) == parts


@pytest.mark.parametrize("part", [Part("stream", b"true", "stream.txt"), field("Stream", "true"), field("x", "true")])
def test_only_the_text_field_stream_makes_the_request_a_stream(part: Part) -> None:
    assert not bind([MODEL, FILE, part]).stream


@pytest.mark.parametrize("position", [0, 1, 2])
def test_model_is_read_before_and_after_the_file(position: int) -> None:
    """Issue: the model of a form is ignored (Portkey #1217); npm's client sends it after the file."""
    parts = [FILE, field("language", "en")]
    parts.insert(position, MODEL)
    assert bind(parts).model == "whisper-1"


@pytest.mark.parametrize("name", ["url", "file_url", "file_id"])
def test_reference_to_a_file_is_accepted_instead_of_the_file(name: str) -> None:
    parts = [MODEL, field(name, "https://example.com/a.wav")]
    request = bind(parts)
    assert parse_form(request.body, request.content_type) == parts


@pytest.mark.parametrize(
    "file",
    [
        replace(FILE, file_name="Recording-06.09.2026 23:21.webm", content_type="audio/webm;codecs=opus"),
        replace(FILE, file_name='Việt "x".flac', content_type="application/octet-stream"),
        replace(FILE, file_name="", content_type=None),
        replace(FILE, file_name="../../a b.ogg", content_type="audio/opus"),
        replace(FILE, content=bytes(range(256)) * 200),
    ],
    ids=lambda file: repr(file.file_name),
)
def test_form_preserves_name_type_and_bytes_of_the_file(file: Part) -> None:
    """Issues: audio.cpp #313, DeepTutor #948, CodexPlusPlus #1496."""
    request = bind([MODEL, file])
    assert parse_form(request.body, request.content_type) == [MODEL, file]


@pytest.mark.parametrize("name", OPTION_NAMES)
def test_file_with_the_name_of_an_option_is_sent(name: str) -> None:
    parts = [MODEL, FILE, Part(name, b"x", "x.txt")]
    request = bind(parts)
    assert parse_form(request.body, request.content_type) == parts
    assert request.options == Options()


def test_response_format_is_forwarded_unchanged() -> None:
    for value in ("srt", "text", "verbose_json", "diarized_json", "lrc", ""):
        parts = [MODEL, field("response_format", value), FILE]
        request = bind(parts)
        assert parse_form(request.body, request.content_type) == parts


# --- invalid forms ---


@pytest.mark.parametrize(
    ("parts", "error_code", "param", "field_name"),
    [
        ([FILE], "NotEmpty", "model", "Model"),
        ([FILE, field("model", "")], "NotEmpty", "model", "Model"),
        ([FILE, field("Model", "whisper-1")], "NotEmpty", "model", "Model"),
        ([FILE, Part("model", b"whisper-1", "model.txt")], "NotEmpty", "model", "Model"),
        ([FILE, MODEL, MODEL], "Duplicate", "model", "Model"),
        ([FILE, MODEL, Part("model", b"other", "model.txt")], "Duplicate", "model", "Model"),
        ([FILE, field("model", "m" * (MAX_NAME_CHARS + 1))], "InvalidType", "model", "Model"),
        ([FILE, Part("model", b"\xff")], "InvalidForm", "model", "Model"),
        ([MODEL, FILE, *[field("stream", "true")] * 2], "Duplicate", "stream", "Stream"),
        ([MODEL, FILE, Part("stream", b"\xff")], "InvalidForm", "stream", "Stream"),
        ([MODEL, FILE, *[field("response_format", "srt")] * 2], "Duplicate", "response_format", "ResponseFormat"),
        ([MODEL], "NotEmpty", "file", "File"),
        ([MODEL, replace(FILE, name="audio")], "NotEmpty", "file", "File"),
        ([MODEL, replace(FILE, name="File")], "NotEmpty", "file", "File"),
        ([MODEL, replace(FILE, content=b"")], "NotEmpty", "file", "File"),
        ([MODEL, FILE, FILE], "Duplicate", "file", "File"),
        ([MODEL, FILE, field("file", "x")], "Duplicate", "file", "File"),
        ([MODEL, Part("file", AUDIO)], "InvalidForm", "file", "File"),
        ([MODEL, field("file", "https://example.com/a.wav")], "InvalidForm", "file", "File"),
        ([MODEL, FILE, field("refId", "a"), field("ref_id", "b")], "Duplicate", "refId", "RefId"),
        ([MODEL, FILE, field("refId", "x" * (MAX_NAME_CHARS + 1))], "InvalidLength", "refId", "RefId"),
        ([MODEL, FILE, field("tag", "a\nb")], "InvalidLength", "tag", "Tag"),
        ([MODEL, FILE, Part("tag", b"\xff")], "InvalidForm", "tag", "Tag"),
    ],
)
def test_invalid_form_is_a_400_naming_the_field(
    parts: list[Part], error_code: str, param: str, field_name: str
) -> None:
    for order in (parts, parts[::-1]):
        error = error_of(order)
        assert error.param == param
        assert [(error.error_code, error.field_name) for error in error.fields] == [(error_code, field_name)]


def test_missing_file_is_a_400_listing_the_parts_of_the_form() -> None:
    """Issue: a file under another name is an opaque 400 (AionUi #3074)."""
    message = error_of([MODEL, replace(FILE, name="audio"), field("language", "en"), field("language", "de")]).message
    assert message == "'file' is required: the audio file (parts of the form: model, audio, language)"


def test_longest_model_is_accepted() -> None:
    model = "語" * MAX_NAME_CHARS
    assert bind([field("model", model), FILE]).model == model


@pytest.mark.parametrize("bind_form", [bind_transcription, bind_translation])
@pytest.mark.parametrize("is_queued", [False, True])
@pytest.mark.parametrize(
    ("body", "content_type"),
    [
        (AUDIO, "audio/wav"),
        (AUDIO, "application/octet-stream"),
        (b'{"model":"m","file":"x"}', "application/json"),
        (b"", ""),
        (encode_form([MODEL, FILE])[0], "multipart/form-data"),
        (encode_form([MODEL, FILE])[0], "multipart/mixed; boundary=b"),
    ],
    ids=lambda value: repr(value)[:30],
)
def test_request_that_is_not_a_form_is_an_invalid_form(
    bind_form: Callable[..., ModelRequest], is_queued: bool, body: bytes, content_type: str
) -> None:
    with pytest.raises(InvalidRequest) as raised:
        bind_form(body, content_type, is_queued=is_queued)
    assert [(error.error_code, error.field_name) for error in raised.value.fields] == [("InvalidForm", "")]


# --- requests of real clients ---

# Sent by curl 7.88: `-F model=whisper-1 -F "file=@hello.wav;type=audio/wav"`.
CURL = (
    "------------------------57d488277139dec9",
    b'Content-Disposition: form-data; name="model"\r\n\r\nwhisper-1',
    b'Content-Disposition: form-data; name="file"; filename="hello.wav"\r\nContent-Type: audio/wav\r\n\r\n' + AUDIO,
)
# Sent by npm's openai 6.49.0 for a File; undici writes the form.
NODE_FILE = (
    "----formdata-undici-059618048380",
    b'Content-Disposition: form-data; name="model"\r\n\r\nwhisper-1',
    b'Content-Disposition: form-data; name="file"; filename="hello.wav"\r\nContent-Type: audio/wav\r\n\r\n' + AUDIO,
)
# Sent by npm's openai 6.49.0 for a stream, with Transfer-Encoding: chunked: members in the order of the program.
NODE_STREAM = (
    "openai-8gapjdzwj1h",
    b'Content-Disposition: form-data; name="file"; filename="hello.wav"\r\nContent-Type: application/octet-stream'
    b"\r\n\r\n" + AUDIO,
    b'Content-Disposition: form-data; name="model"\r\n\r\nwhisper-1',
    b'Content-Disposition: form-data; name="timestamp_granularities[]"\r\n\r\nword',
    b'Content-Disposition: form-data; name="timestamp_granularities[]"\r\n\r\nsegment',
)
# As .NET's MultipartFormDataContent writes a form, after its source: types on fields, names without quotes.
DOTNET = (
    '"5b6a1f0e-6f3a-4f5e-9c55-8d1d5f0c7b11"',
    b"Content-Type: text/plain; charset=utf-8\r\nContent-Disposition: form-data; name=model\r\n\r\nwhisper-1",
    b"Content-Type: audio/wav\r\nContent-Disposition: form-data; name=file; filename=hello.wav; "
    b"filename*=utf-8''hello.wav\r\n\r\n" + AUDIO,
)


def client_request(boundary: str, *parts: bytes) -> tuple[bytes, str]:
    """Return the body and the content type of a request that a client sent."""
    delimiter = b"--" + boundary.strip('"').encode()
    body = b"".join(b"%b\r\n%b\r\n" % (delimiter, part) for part in parts) + delimiter + b"--\r\n"
    return body, f"multipart/form-data; boundary={boundary}"


def python_request(**members: Any) -> tuple[bytes, str]:
    """Return what the openai package sends for a transcription."""
    requests: list[httpx.Request] = []

    def respond(request: httpx.Request) -> httpx.Response:
        requests.append(request)
        return httpx.Response(200, json={"text": ""})

    http_client = httpx.Client(transport=httpx.MockTransport(respond))
    with openai.OpenAI(api_key="key", base_url="http://127.0.0.1:1/v1", http_client=http_client) as client:
        client.audio.transcriptions.create(**members)
    (request,) = requests
    return request.content, request.headers["content-type"]


def digest(request: ModelRequest) -> str:
    return hashlib.sha256(request.body).hexdigest()


def test_clients_that_send_equal_parts_bind_to_the_same_request() -> None:
    """The hash of the body is that of the RefId: the client, its boundary and its attempt do not matter."""
    file = ("hello.wav", AUDIO, "audio/wav")
    bodies = [python_request(model="whisper-1", file=file) for _ in range(2)]
    assert bodies[0] != bodies[1]
    bodies += [client_request(*CURL), client_request(*NODE_FILE)]
    requests = [bind_transcription(*body) for body in bodies]
    assert {digest(request) for request in requests} == {digest(bind([MODEL, FILE]))}
    assert {request.content_type for request in requests} == {bind([MODEL, FILE]).content_type}


def test_python_client_binds_with_arrays_objects_options_and_a_stream(tmp_path: Path) -> None:
    path = tmp_path / "hello.wav"
    path.write_bytes(AUDIO)
    with path.open("rb") as file:
        body, content_type = python_request(
            file=file,
            model="whisper-1",
            timestamp_granularities=["word", "segment"],
            temperature=0,
            chunking_strategy={"type": "server_vad", "threshold": 0.5},
            extra_body={"refId": "r", "vad_filter": True},
            stream=True,
        )
    request = bind_transcription(body, content_type)
    assert (request.model, request.stream, request.options) == ("whisper-1", True, Options(ref_id="r"))
    upstream_parts = parse_form(request.body, request.content_type)
    assert [part for part in parse_form(body, content_type) if part.name != "refId"] == upstream_parts
    assert sorted((part.name, part.content.decode()) for part in upstream_parts if not part.is_file) == [
        ("chunking_strategy[threshold]", "0.5"),
        ("chunking_strategy[type]", "server_vad"),
        ("model", "whisper-1"),
        ("stream", "true"),
        ("temperature", "0"),
        ("timestamp_granularities[]", "segment"),
        ("timestamp_granularities[]", "word"),
        ("vad_filter", "true"),
    ]
    (file_part,) = [part for part in upstream_parts if part.is_file]
    assert (file_part.name, file_part.file_name, file_part.content) == ("file", "hello.wav", AUDIO)


def test_python_client_binds_with_a_file_without_a_name() -> None:
    request = bind_transcription(*python_request(model="whisper-1", file=AUDIO))
    file = Part("file", AUDIO, "upload", "application/octet-stream")
    assert parse_form(request.body, request.content_type) == [MODEL, file]


def test_npm_client_binds_with_the_model_after_the_file() -> None:
    request = bind_transcription(*client_request(*NODE_STREAM))
    assert request.model == "whisper-1"
    assert parse_form(request.body, request.content_type) == [
        replace(FILE, content_type="application/octet-stream"),
        MODEL,
        field("timestamp_granularities[]", "word"),
        field("timestamp_granularities[]", "segment"),
    ]


def test_dotnet_client_binds_with_types_on_its_fields() -> None:
    request = bind_transcription(*client_request(*DOTNET))
    assert request.model == "whisper-1"
    model = replace(MODEL, content_type="text/plain; charset=utf-8")
    assert parse_form(request.body, request.content_type) == [model, FILE]


NODE_SCRIPT = """
import { createReadStream } from "node:fs"
import OpenAI from "openai"
const requests = []
const fetch = async (url, init) => {
  if (url === "data:,") return new Response("")  // how the client detects the platform
  const request = new Request(url, init)
  const body = Buffer.from(await request.arrayBuffer()).toString("base64")
  requests.push([body, request.headers.get("content-type")])
  return new Response('{"text":""}', { headers: { "content-type": "application/json" } })
}
const client = new OpenAI({ apiKey: "key", baseURL: "http://127.0.0.1:1/v1", fetch })
const audio = Buffer.from(process.argv[1], "base64")
const granularities = { timestamp_granularities: ["word", "segment"] }
const file = new File([audio], "hello.wav", { type: "audio/wav" })
await client.audio.transcriptions.create({ model: "whisper-1", file })
const stream = createReadStream(process.argv[2])
await client.audio.transcriptions.create({ file: stream, model: "whisper-1", ...granularities })
console.log(JSON.stringify(requests))
"""


@pytest.mark.skipif(
    shutil.which("node") is None or not (NODE / "node_modules").is_dir(),
    reason="the npm client needs Node 18 or newer; its captured requests are tested without it",
)
def test_npm_client_sends_the_captured_requests(tmp_path: Path) -> None:
    path = tmp_path / "hello.wav"
    path.write_bytes(AUDIO)
    arguments = [base64.b64encode(AUDIO).decode(), str(path)]
    command = ["node", "--input-type=module", "-e", NODE_SCRIPT, *arguments]
    completed = subprocess.run(command, cwd=NODE, capture_output=True, text=True, timeout=60, check=False)
    assert completed.returncode == 0, completed.stderr
    requests = [(base64.b64decode(body), content_type) for body, content_type in json.loads(completed.stdout)]
    captured = [client_request(*NODE_FILE), client_request(*NODE_STREAM)]
    assert [parse_form(*request) for request in requests] == [parse_form(*request) for request in captured]
    assert [digest(bind_transcription(*request)) for request in requests] == [
        digest(bind_transcription(*request)) for request in captured
    ]


# --- speech ---


def test_speech_is_sent_byte_for_byte_and_streams() -> None:
    body = (
        b' {"model" : "tts-1",\n "input":"h\\u00e9 \xf0\x9f\x98\x80", "voice":{"id":"v"}, "speed":1.50,"x":[1E400] } '
    )
    request = bind_speech(body, "application/json")
    assert (request.body, request.content_type, request.operation) == (body, "application/json", operations.SPEECH)
    assert (request.model, request.stream, request.options) == ("tts-1", True, Options())


def test_speech_options_are_removed_and_members_are_renamed() -> None:
    body = (
        b'{"refId":"r","Model":"tts-1","Input":"hi","voice":"a","responseFormat":"mp3","tag":"t","streamFormat":"sse"}'
    )
    request = bind_speech(body, "application/json; charset=utf-8")
    expected = b'{"model":"tts-1","input":"hi","voice":"a","response_format":"mp3","stream_format":"sse"}'
    assert request.body == expected
    assert request.options == Options(ref_id="r", tag="t")


@pytest.mark.parametrize("members", [b',"stream":true', b',"stream_format":"sse"', b',"stream":0,"streamFormat":null'])
def test_queued_speech_is_sent_without_stream_members(members: bytes) -> None:
    request = bind_speech(SPEECH % members, "application/json", is_queued=True)
    assert (request.body, request.stream) == (SPEECH % b"", False)
    assert bind_speech(SPEECH % members, "application/json").stream


@pytest.mark.parametrize(
    ("body", "param", "error_code"),
    [
        (b'{"input":"hi"}', "model", "NotEmpty"),
        (b'{"model":"","input":"hi"}', "model", "NotEmpty"),
        (b'{"model":"m"}', "input", "NotEmpty"),
        (b'{"model":"m","input":""}', "input", "NotEmpty"),
        (b'{"model":"m","input":null}', "input", "InvalidType"),
        (b'{"model":"m","input":["a"]}', "input", "InvalidType"),
        (b'{"model":"m","input":"a","voice":1}', "voice", "InvalidType"),
        (b'{"model":"m","input":"a","speed":"fast"}', "speed", "InvalidType"),
        (b'{"model":"m","input":"a","responseFormat":{}}', "response_format", "InvalidType"),
        (b'{"model":"m","input":"a","Input":"b"}', "input", "Duplicate"),
        (b'{"model":"m","input":"a","refId":1}', "refId", "InvalidType"),
    ],
)
def test_invalid_speech_is_a_400_naming_the_member(body: bytes, param: str, error_code: str) -> None:
    for is_queued in (False, True):
        with pytest.raises(InvalidRequest) as raised:
            bind_speech(body, "application/json", is_queued=is_queued)
        assert (raised.value.param, raised.value.fields[0].error_code) == (param, error_code)


def test_speech_lists_every_invalid_member() -> None:
    with pytest.raises(InvalidRequest) as raised:
        bind_speech(b'{"model":1,"input":2,"voice":3,"speed":"4"}', "application/json")
    fields = [error.field_name for error in raised.value.fields]
    assert sorted(fields) == ["Input", "Model", "Speed", "Voice"]
    assert len(fields) <= MAX_FIELD_ERRORS


def test_speech_in_a_form_is_an_invalid_form() -> None:
    with pytest.raises(InvalidRequest) as raised:
        bind_speech(*encode_form([MODEL, field("input", "hi")]))
    assert raised.value.fields[0].error_code == "InvalidForm"
