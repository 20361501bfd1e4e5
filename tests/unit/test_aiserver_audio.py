"""AI Server's SpeechToText and TextToSpeech, as its clients send them: in forms, query strings and JSON."""

import io
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import pytest
import requests
from dataclasses_json import LetterCase, Undefined, dataclass_json
from hypothesis import given
from hypothesis import strategies as st
from requests.adapters import BaseAdapter
from servicestack import IPost, IReturn, JsonServiceClient, UploadFile

from aiserver import operations
from aiserver.errors import InvalidRequest
from aiserver.limits import MAX_NAME_CHARS, MAX_REPLY_TO_CHARS
from aiserver.wire.aiserver_audio import bind_speech_to_text, bind_text_to_speech
from aiserver.wire.audio_requests import bind_transcription
from aiserver.wire.forms import Part, encode_form, parse_form
from aiserver.wire.requests import ModelRequest, Options

AUDIO = b"RIFF\x08\x00\x00\x00WAVE\r\n--\x00\xff"
FILE = Part("audio", AUDIO, "hello.wav", "audio/wav")
OPTIONS = {
    "refId": "r 1",
    "tag": "é",
    "replyTo": "https://x.io/a?b=c",
    "deadline": "3600",
    "provider": "p",
    "state": "{1}",
}
REQUEST_OPTIONS = Options("r 1", "é", "https://x.io/a?b=c", "3600", "p", "{1}")
SPELLINGS = (
    lambda name: name,
    lambda name: name[:1].upper() + name[1:],
    str.upper,
    str.lower,
    lambda name: "".join(f"_{letter.lower()}" if letter.isupper() else letter for letter in name),
)
STYLES = st.sampled_from(SPELLINGS)


def speech_to_text(
    parts: Sequence[Part], query: Mapping[str, str] | None = None, *, name: str = "SpeechToText"
) -> ModelRequest:
    return bind_speech_to_text(*encode_form(parts), query or {}, name=name)


def text_to_speech(
    members: Mapping[str, Any], query: Mapping[str, str] | None = None, *, name: str = "TextToSpeech"
) -> ModelRequest:
    return bind_text_to_speech(json.dumps(members).encode(), "application/json", query or {}, name=name)


def fields(members: Mapping[str, str]) -> list[Part]:
    return [Part(name, value.encode()) for name, value in members.items()]


def transcription(model: str = "speech-to-text", file: Part = FILE) -> ModelRequest:
    """Bind OpenAI's request with the same file."""
    return bind_transcription(*encode_form([*fields({"model": model}), replace(file, name="file")]))


def check_error(raised: pytest.ExceptionInfo[InvalidRequest], error_code: str, field_name: str) -> None:
    assert raised.value.status == 400
    assert [(error.error_code, error.field_name) for error in raised.value.fields] == [(error_code, field_name)]


# --- SpeechToText ---


@pytest.mark.parametrize("name", ["SpeechToText", "QueueSpeechToText"])
def test_file_is_sent_as_openai_clients_send_it(name: str) -> None:
    request = speech_to_text([FILE], name=name)
    assert request == replace(transcription(), name=name)
    assert (request.operation, request.stream, request.ignored) == (operations.TRANSCRIPTIONS, False, ())


@pytest.mark.parametrize(
    "name",
    ["audio", "Audio", "AUDIO", "file", "upload", "upload0", "speech.wav", "hello.wav", "image", "", "語", "a b"],
)
def test_only_file_is_taken_whatever_its_name(name: str) -> None:
    assert speech_to_text([replace(FILE, name=name)]).body == transcription().body


@pytest.mark.parametrize("names", [("audio", "image"), ("image", "Audio"), ("AUDIO", "file")])
def test_file_of_the_right_name_is_taken_among_several(names: Sequence[str]) -> None:
    parts = [
        replace(FILE, name=name) if name.lower() == "audio" else Part(name, b"other", "other.png") for name in names
    ]
    assert speech_to_text(parts).body == transcription().body


@pytest.mark.parametrize("file_name", ["hello", "a.opus", "../a.wav", 'Việt "x".flac', ""])
@pytest.mark.parametrize("content_type", [None, "application/octet-stream", "audio/webm;codecs=opus"])
def test_file_keeps_its_name_and_type(file_name: str, content_type: str | None) -> None:
    file = replace(FILE, file_name=file_name, content_type=content_type)
    request = speech_to_text([file])
    assert parse_form(request.body, request.content_type)[1] == replace(file, name="file")


@given(st.data())
def test_members_are_read_from_the_form_and_the_query_in_any_case(data: st.DataObject) -> None:
    members = OPTIONS | {"model": "whisper"}
    spelled = {data.draw(STYLES)(name): value for name, value in members.items()}
    in_form = data.draw(st.sets(st.sampled_from(sorted(spelled))))
    form_members = {name: value for name, value in spelled.items() if name in in_form}
    query = {name: value for name, value in spelled.items() if name not in in_form}
    parts = data.draw(st.permutations([*fields(form_members), FILE, *fields({"unknown": "x", "Duration": ""})]))
    expected = replace(transcription("whisper"), name="SpeechToText", options=REQUEST_OPTIONS)
    assert speech_to_text(parts, query | {"jsconfig": "eccn"}) == expected


def test_members_of_the_body_override_those_of_the_query() -> None:
    request = speech_to_text([FILE, *fields({"Tag": "body", "refId": ""})], {"tag": "query", "RefId": "query"})
    assert (request.options.tag, request.options.ref_id) == ("body", "query")
    assert text_to_speech({"input": "body"}, {"Input": "query"}).body == text_to_speech({"input": "body"}).body


def test_empty_members_are_absent() -> None:
    request = speech_to_text([FILE, *fields(dict.fromkeys([*OPTIONS, "model"], ""))], dict.fromkeys(OPTIONS, ""))
    assert request == replace(transcription(), name="SpeechToText")


@pytest.mark.parametrize(
    ("parts", "error_code"),
    [
        ([], "NotEmpty"),
        ([Part("audio", b"a text field")], "NotEmpty"),
        ([replace(FILE, content=b"")], "NotEmpty"),
        ([replace(FILE, content=b""), replace(FILE, name="image")], "NotEmpty"),
        ([FILE, FILE], "InvalidForm"),
        ([FILE, replace(FILE, name="Audio")], "InvalidForm"),
        ([replace(FILE, name="a"), replace(FILE, name="b")], "InvalidForm"),
        ([replace(FILE, name="a")] * 3, "InvalidForm"),
    ],
)
def test_request_without_exactly_one_file_is_a_400(parts: list[Part], error_code: str) -> None:
    for name in ("SpeechToText", "QueueSpeechToText"):
        with pytest.raises(InvalidRequest) as raised:
            speech_to_text([*parts, *fields({"tag": "t"})], name=name)
        check_error(raised, error_code, "Audio")


@pytest.mark.parametrize(
    ("body", "content_type"),
    [(b"", ""), (b" ", "application/json"), (b"{}", "application/json"), (b'{"audio":"YQ=="}', "application/json")],
)
def test_request_without_a_form_has_no_file(body: bytes, content_type: str) -> None:
    with pytest.raises(InvalidRequest) as raised:
        bind_speech_to_text(body, content_type, {}, name="SpeechToText")
    check_error(raised, "NotEmpty", "Audio")


def test_damaged_form_is_a_400() -> None:
    body, content_type = encode_form([FILE])
    for bind in (bind_speech_to_text, bind_text_to_speech):
        with pytest.raises(InvalidRequest) as raised:
            bind(body[:-10], content_type, {}, name="x")
        check_error(raised, "InvalidForm", "")


@pytest.mark.parametrize(
    ("name", "value", "error_code", "field_name"),
    [
        ("state", "x" * (MAX_NAME_CHARS + 1), "InvalidLength", "State"),
        ("state", "a\nb", "InvalidLength", "State"),
        ("refId", "x" * (MAX_NAME_CHARS + 1), "InvalidLength", "RefId"),
        ("tag", "\x7f", "InvalidLength", "Tag"),
        ("replyTo", "x" * (MAX_REPLY_TO_CHARS + 1), "InvalidLength", "ReplyTo"),
        ("model", "x" * (MAX_NAME_CHARS + 1), "InvalidType", "Model"),
    ],
)
def test_invalid_member_is_a_400_naming_it(name: str, value: str, error_code: str, field_name: str) -> None:
    for members, query in (({name: value}, {}), ({}, {name: value})):
        with pytest.raises(InvalidRequest) as raised:
            speech_to_text([FILE, *fields(members)], query)
        check_error(raised, error_code, field_name)
        with pytest.raises(InvalidRequest) as raised:
            text_to_speech({"input": "hi", **members}, query)
        check_error(raised, error_code, field_name)


def test_member_that_is_not_utf_8_is_an_invalid_form() -> None:
    with pytest.raises(InvalidRequest) as raised:
        speech_to_text([FILE, Part("Tag", b"\xff")])
    check_error(raised, "InvalidForm", "Tag")


# --- TextToSpeech ---


@pytest.mark.parametrize(
    ("model", "expected"),
    [
        (None, {"model": "text-to-speech"}),
        ("", {"model": "text-to-speech"}),
        ("tts-1", {"model": "tts-1"}),
        ("tts-1:alloy", {"model": "tts-1", "voice": "alloy"}),
        ("high:en_US-lessac", {"model": "high", "voice": "en_US-lessac"}),
        ("tts-1:", {"model": "tts-1"}),
        (":alloy", {"model": "text-to-speech", "voice": "alloy"}),
        (":", {"model": "text-to-speech"}),
        ("a:b:c", {"model": "a", "voice": "b:c"}),
        ("語:聲", {"model": "語", "voice": "聲"}),
    ],
)
@pytest.mark.parametrize("name", ["TextToSpeech", "QueueTextToSpeech"])
def test_model_and_voice_of_speech_are_split(model: str | None, expected: dict[str, str], name: str) -> None:
    request = text_to_speech({"input": "hi"} | ({} if model is None else {"model": model}), name=name)
    assert json.loads(request.body) == expected | {"input": "hi"}
    assert (request.model, request.content_type, request.name) == (expected["model"], "application/json", name)
    assert (request.operation, request.stream, request.ignored) == (operations.SPEECH, False, ())


@given(st.text(min_size=1).filter(lambda text: text.encode("utf-8", "replace").decode() == text))
def test_any_text_is_spoken_unchanged(text: str) -> None:
    for member in ("input", "text", "Input", "TEXT"):
        for name in ("TextToSpeech", "QueueTextToSpeech"):
            assert json.loads(text_to_speech({member: text}, name=name).body)["input"] == text


@given(st.data(), st.sampled_from(["form", "query", "json"]))
def test_members_of_speech_are_read_from_form_query_and_json(data: st.DataObject, source: str) -> None:
    members = OPTIONS | {"model": "tts-1:alloy", "text": "hi", "seed": "7"}
    spelled = {data.draw(STYLES)(name): value for name, value in members.items()}
    if source == "form":
        bound = bind_text_to_speech(*encode_form(fields(spelled)), {}, name="QueueTextToSpeech")
    elif source == "query":
        bound = bind_text_to_speech(b"", "", spelled, name="QueueTextToSpeech")
    else:
        bound = text_to_speech(spelled | {"unknown": {"input": 1}}, name="QueueTextToSpeech")
    expected = text_to_speech({"text": "hi", "model": "tts-1:alloy"}, name="QueueTextToSpeech")
    assert bound == replace(expected, options=REQUEST_OPTIONS, ignored=("seed",))


@pytest.mark.parametrize(("seed", "ignored"), [(0, ("seed",)), (7, ("seed",)), ("7", ("seed",)), (None, ())])
def test_seed_of_speech_is_reported_as_ignored(seed: int | str | None, ignored: tuple[str, ...]) -> None:
    for name in ("seed", "Seed"):
        request = text_to_speech({"input": "hi", name: seed})
        assert request.ignored == ignored
        assert request.body == text_to_speech({"input": "hi"}).body


def test_file_of_a_speech_request_is_ignored() -> None:
    """A sample of AI Server's documentation sends one."""
    body, content_type = encode_form([*fields({"Input": "hi"}), FILE])
    assert bind_text_to_speech(body, content_type, {}, name="TextToSpeech") == text_to_speech({"input": "hi"})


@pytest.mark.parametrize("members", [{}, {"input": ""}, {"text": ""}, {"input": None, "text": ""}, {"prompt": "hi"}])
@pytest.mark.parametrize(("name", "field_name"), [("TextToSpeech", "Input"), ("QueueTextToSpeech", "Text")])
def test_speech_without_a_text_is_a_400(members: dict[str, Any], name: str, field_name: str) -> None:
    with pytest.raises(InvalidRequest) as raised:
        text_to_speech(members, name=name)
    check_error(raised, "NotEmpty", field_name)
    with pytest.raises(InvalidRequest) as raised:
        bind_text_to_speech(b"", "", {name: value or "" for name, value in members.items()}, name=name)
    check_error(raised, "NotEmpty", field_name)


@pytest.mark.parametrize("name", ["input", "text", "model"])
@pytest.mark.parametrize("value", [1, True, ["hi"], {"text": "hi"}])
def test_member_of_another_type_is_a_400(name: str, value: object) -> None:
    with pytest.raises(InvalidRequest) as raised:
        text_to_speech({"input": "", "text": "hi"} | {name: value})
    check_error(raised, "InvalidType", name.capitalize())


@pytest.mark.parametrize("body", [b"[]", b'"hi"', b"{", b"input=hi", b'{"input":"\xff"}', b"1", b'{"input":NaN}'])
def test_body_that_is_not_a_json_object_is_a_400(body: bytes) -> None:
    with pytest.raises(InvalidRequest):
        bind_text_to_speech(body, "application/json", {"input": "hi"}, name="TextToSpeech")


# --- requests of real clients ---


@dataclass_json(letter_case=LetterCase.CAMEL, undefined=Undefined.EXCLUDE)
@dataclass
class SpeechResponse:
    duration: str = ""


@dataclass_json(letter_case=LetterCase.CAMEL, undefined=Undefined.EXCLUDE)
@dataclass
class QueueSpeechToText(IReturn[SpeechResponse], IPost):
    ref_id: str = ""
    tag: str = ""
    state: str = ""


class RecordedRequests(BaseAdapter):
    """Records requests of a session, without sending them."""

    def __init__(self) -> None:
        super().__init__()
        self.requests: list[requests.PreparedRequest] = []

    def send(self, request: requests.PreparedRequest, **_: object) -> requests.Response:
        self.requests.append(request)
        response = requests.Response()
        response.status_code, response.request, response.raw = 200, request, io.BytesIO(b"{}")
        return response

    def close(self) -> None:
        """Do nothing: no connection is open."""


def test_python_client_of_ai_server_uploads_a_file() -> None:
    recorder = RecordedRequests()
    client = JsonServiceClient("http://127.0.0.1:1")
    client._session.mount("http://", recorder)
    upload = UploadFile("audio", "hello.wav", "audio/wav", io.BytesIO(AUDIO))
    client.post_file_with_request(QueueSpeechToText(ref_id="r", tag="t", state="s"), upload)
    client._session.close()
    (http_request,) = recorder.requests
    assert http_request.url == "http://127.0.0.1:1/api/QueueSpeechToText"
    assert isinstance(http_request.body, bytes)
    request = bind_speech_to_text(http_request.body, http_request.headers["content-type"], {}, name="QueueSpeechToText")
    assert request.body == transcription().body
    assert request.options == Options(ref_id="r", tag="t", state="s")


# As ServiceStack's C# clients write a form, after their source: PascalCase names, types on fields, few quotes.
DOTNET_BOUNDARY = "5b6a1f0e-6f3a-4f5e-9c55-8d1d5f0c7b11"
DOTNET_FIELD = "Content-Type: text/plain; charset=utf-8\r\nContent-Disposition: form-data; name=%s\r\n\r\n%s"


@pytest.mark.parametrize(
    "disposition",
    [
        "name=audio; filename=hello.wav",
        "name=upload0; filename=hello.wav",
        "name=hello.wav; filename=hello.wav",  # PostFileWithRequest passes the file's name as the field's name
        "name=audio; filename=hello.wav; filename*=utf-8''hello.wav",
        'name="audio"; filename="=?utf-8?B?aGVsbG8ud2F2?="',
    ],
)
def test_dotnet_client_of_ai_server_uploads_a_file(disposition: str) -> None:
    file = f"Content-Type: audio/wav\r\nContent-Disposition: form-data; {disposition}\r\n\r\n".encode() + AUDIO
    parts = [(DOTNET_FIELD % field).encode() for field in (('"RefId"', "r"), ("Tag", "é"), ("State", "s"))]
    delimiter = f"--{DOTNET_BOUNDARY}".encode()
    body = b"".join(b"%b\r\n%b\r\n" % (delimiter, part) for part in [*parts, file]) + delimiter + b"--\r\n"
    content_type = f'multipart/form-data; boundary="{DOTNET_BOUNDARY}"'
    request = bind_speech_to_text(body, content_type, {}, name="SpeechToText")
    assert request.body == transcription().body
    assert request.options == Options(ref_id="r", tag="é", state="s")


def test_npm_client_of_ai_server_sends_members_in_the_query() -> None:
    request = speech_to_text([FILE], {"refId": "r", "tag": "t", "audio": "undefined"})
    assert request.body == transcription().body
    assert request.options == Options(ref_id="r", tag="t")
