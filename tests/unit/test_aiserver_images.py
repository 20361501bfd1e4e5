"""AI Server's requests for images, as its clients send them: bound as OpenAI's generations, edits and chats."""

import base64
import io
import json
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import pytest
import requests
from dataclasses_json import LetterCase, Undefined, dataclass_json
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image
from requests.adapters import BaseAdapter
from servicestack import IPost, IReturn, JsonServiceClient, UploadFile

from aiserver import operations
from aiserver.errors import InvalidRequest
from aiserver.wire.aiserver_images import (
    bind_image_to_image,
    bind_image_to_text,
    bind_image_with_mask,
    bind_text_to_image,
)
from aiserver.wire.forms import Part, encode_form, parse_form
from aiserver.wire.requests import ModelRequest, Options

JSON = "application/json"
BINDERS = {
    "TextToImage": bind_text_to_image,
    "ImageToImage": bind_image_to_image,
    "ImageWithMask": bind_image_with_mask,
    "ImageToText": bind_image_to_text,
}
EDITS = {"ImageToImage": "image-to-image", "ImageWithMask": "image-with-mask"}
PROMPTED = ("TextToImage", *EDITS)
OPTIONS = {
    "refId": "r 1",
    "tag": "é",
    "replyTo": "https://x.io/a?b=c",
    "deadline": "3600",
    "provider": "p",
    "state": "{1}",
}
REQUEST_OPTIONS = Options("r 1", "é", "https://x.io/a?b=c", "3600", "p", "{1}")
SPELLINGS: st.SearchStrategy[Callable[[str], str]] = st.sampled_from(
    [
        lambda name: name,
        lambda name: name[:1].upper() + name[1:],
        str.upper,
        str.lower,
        lambda name: "".join(f"_{letter.lower()}" if letter.isupper() else letter for letter in name),
    ]
)


def picture(image_format: str, color: str = "red") -> bytes:
    file = io.BytesIO()
    Image.new("RGB", (2, 2), color).save(file, image_format)
    return file.getvalue()


PNG = picture("PNG")
IMAGE = Part("image", PNG, "llama.png", "image/png")
MASK = Part("mask", picture("PNG", "white"), "mask.png", "image/png")
FILES = {"TextToImage": [], "ImageToImage": [IMAGE], "ImageWithMask": [IMAGE, MASK], "ImageToText": [IMAGE]}


def fields(members: Mapping[str, object]) -> list[Part]:
    return [Part(name, str(value).encode()) for name, value in members.items()]


def bind(
    name: str,
    members: Mapping[str, object],
    files: Sequence[Part] | None = None,
    query: Mapping[str, str] | None = None,
) -> ModelRequest:
    """Bind a form with the files that the request needs, unless others are given."""
    parts = [*fields(members), *(FILES[name] if files is None else files)]
    return BINDERS[name](*encode_form(parts), query or {}, name=name)


def text_to_image(members: Mapping[str, Any], *, name: str = "TextToImage") -> ModelRequest:
    body = json.dumps({"positivePrompt": "hi", "model": "m"} | dict(members)).encode()
    return bind_text_to_image(body, JSON, {}, name=name)


def sent(request: ModelRequest) -> list[Part]:
    return parse_form(request.body, request.content_type)


def check_error(call: Callable[[], object], error_code: str, field_name: str) -> None:
    with pytest.raises(InvalidRequest) as raised:
        call()
    assert raised.value.status == 400
    assert [(error.error_code, error.field_name) for error in raised.value.fields] == [(error_code, field_name)]


# --- members ---


def test_text_to_image_is_sent_as_a_generation() -> None:
    members = {
        "batchSize": 3,
        "negativePrompt": "blurry",
        "seed": 2**60,
        "denoise": 0.5,
        "width": 768,
        "height": 64,
        "positivePrompt": 'é😀"\n',
        "model": "gpt-image-2",
        "other": [1],
        "steps": 5,
    }
    for name in ("TextToImage", "QueueTextToImage"):
        request = text_to_image(members, name=name)
        assert json.loads(request.body) == {
            "model": "gpt-image-2",
            "prompt": 'é😀"\n',
            "n": 3,
            "size": "768x64",
            "negative_prompt": "blurry",
            "seed": 2**60,
            "strength": 0.5,
        }
        assert (request.operation, request.model, request.name) == (operations.IMAGES, "gpt-image-2", name)
        assert (request.content_type, request.stream, request.ignored) == (JSON, False, ())
        assert request.options == Options()


@pytest.mark.parametrize("name", EDITS)
def test_edit_is_sent_as_a_form_with_its_files(name: str) -> None:
    members = {"positivePrompt": "é\r\n😀", "batchSize": "2", "negativePrompt": "x", "seed": "07", "denoise": ".5"}
    for request_name in (name, f"Queue{name}"):
        parts = [*fields(members), *reversed(FILES[name])]
        request = BINDERS[name](*encode_form(parts), {}, name=request_name)
        expected = {
            "model": EDITS[name],
            "prompt": "é\r\n😀",
            "n": 2,
            "negative_prompt": "x",
            "seed": 7,
            "strength": 0.5,
        }
        assert sent(request) == [*fields(expected), *FILES[name]]
        assert (request.operation, request.model) == (operations.IMAGE_EDITS, EDITS[name])
        assert (request.name, request.stream, request.ignored) == (request_name, False, ())


@pytest.mark.parametrize("name", ["ImageToText", "QueueImageToText"])
@pytest.mark.parametrize(
    ("members", "model", "prompt"),
    [
        ({}, "image-to-text", "Describe this image."),
        ({"prompt": "", "model": ""}, "image-to-text", "Describe this image."),
        ({"Prompt": "Which é?", "Model": "gpt-5"}, "gpt-5", "Which é?"),
        ({"positivePrompt": "other"}, "image-to-text", "Describe this image."),
    ],
)
def test_image_to_text_is_sent_as_a_chat(name: str, members: Mapping[str, str], model: str, prompt: str) -> None:
    request = bind_image_to_text(*encode_form([*fields(members), IMAGE]), {}, name=name)
    url = f"data:image/png;base64,{base64.b64encode(PNG).decode()}"
    content = [{"type": "text", "text": prompt}, {"type": "image_url", "image_url": {"url": url}}]
    assert json.loads(request.body) == {"model": model, "messages": [{"role": "user", "content": content}]}
    assert (request.operation, request.model, request.name) == (operations.CHAT, model, name)
    assert (request.content_type, request.stream, request.ignored) == (JSON, False, ())


@pytest.mark.parametrize(
    "label",
    [
        *(None, "", "application/octet-stream", "image/jpeg"),
        *(label for label in ("image/jpg", "image/png", "text/plain; charset=utf-8", "image/png,x")),
    ],
)
def test_data_url_has_the_type_of_the_bytes(label: str | None) -> None:
    content = picture("JPEG")
    request = bind("ImageToText", {}, [Part("image", content, "a", label)])
    (message,) = json.loads(request.body)["messages"]
    expected = f"data:image/jpeg;base64,{base64.b64encode(content).decode()}"
    assert message["content"][1]["image_url"]["url"] == expected


@given(st.data(), st.sampled_from(sorted(BINDERS)))
def test_members_are_read_from_the_form_and_the_query_in_any_case(data: st.DataObject, name: str) -> None:
    members: dict[str, object] = {"positivePrompt": "hi", "model": "m", "seed": "7", "negativePrompt": "x"}
    expected = replace(bind(name, members), options=REQUEST_OPTIONS)
    spelled = {data.draw(SPELLINGS)(key): value for key, value in (members | OPTIONS).items()}
    in_form = data.draw(st.sets(st.sampled_from(sorted(spelled))))
    form = {key: value for key, value in spelled.items() if key in in_form} | {"unknown": "x", "duration": ""}
    query = {key: str(value) for key, value in spelled.items() if key not in in_form} | {"jsconfig": "eccn"}
    assert bind(name, form, query=query) == expected


@given(st.data())
def test_text_to_image_is_the_same_from_json_form_and_query(data: st.DataObject) -> None:
    members = OPTIONS | {"positivePrompt": "hi", "model": "m", "width": "512", "height": "512.0", "denoise": "1"}
    spelled = {data.draw(SPELLINGS)(key): value for key, value in members.items()}
    request = bind("TextToImage", spelled)
    assert json.loads(request.body) == {"model": "m", "prompt": "hi", "size": "512x512", "strength": 1.0}
    assert request.options == REQUEST_OPTIONS
    assert bind_text_to_image(b"", "", spelled, name="TextToImage") == request
    assert bind_text_to_image(json.dumps(spelled).encode(), JSON, {}, name="TextToImage") == request


@pytest.mark.parametrize(
    ("value", "ignored"), [({}, True), ({"a": 1}, True), ("x", True), ([], True), (None, False), (0, True)]
)
def test_arguments_are_ignored_and_named(value: object, ignored: bool) -> None:
    for name in ("arguments", "Arguments"):
        request = text_to_image({name: value})
        assert request.ignored == (("arguments",) if ignored else ())
        assert request.body == text_to_image({}).body
    assert bind("TextToImage", {"positivePrompt": "hi", "model": "m", "Arguments": "{}"}).ignored == ("arguments",)


def test_absent_members_are_not_sent() -> None:
    absent = dict.fromkeys(["negativePrompt", "seed", "batchSize", "width", "height", "denoise", "refId", "state"])
    assert json.loads(text_to_image(absent).body) == {"model": "m", "prompt": "hi"}
    empty = {"positivePrompt": "hi", **dict.fromkeys(absent, "")}
    request = bind("ImageToImage", empty, query=dict.fromkeys(absent, ""))
    assert sent(request) == [*fields({"model": "image-to-image", "prompt": "hi"}), IMAGE]
    assert request.options == Options()


# --- invalid members ---


@pytest.mark.parametrize("name", PROMPTED)
@pytest.mark.parametrize("members", [{}, {"positivePrompt": ""}, {"prompt": "hi"}])
def test_missing_prompt_is_a_400(name: str, members: Mapping[str, str]) -> None:
    check_error(lambda: bind(name, {"model": "m", **members}), "NotEmpty", "PositivePrompt")


def test_only_text_to_image_requires_a_model() -> None:
    for model in ({}, {"model": ""}, {"model": None}):
        body = json.dumps({"positivePrompt": "hi", **model}).encode()
        for name in ("TextToImage", "QueueTextToImage"):
            check_error(lambda body=body, name=name: bind_text_to_image(body, JSON, {}, name=name), "NotEmpty", "Model")
    for name in FILES:
        assert bind(name, {"positivePrompt": "hi", "model": "m"}).model == "m"


@pytest.mark.parametrize(
    ("name", "field", "values"),
    [
        ("batchSize", "n", [1, 10, "10", 2.0]),
        ("seed", "seed", [0, 1, "7", 2**64, "1e3", -0.0]),
        ("denoise", "strength", [0, 1, 0.5, "0.5", "1"]),
    ],
)
def test_number_in_range_is_sent(name: str, field: str, values: Sequence[float | str]) -> None:
    for value in values:
        assert json.loads(text_to_image({name: value}).body)[field] == float(value)


def test_size_in_range_is_sent() -> None:
    for width, height, size in ((64, 2048, "64x2048"), ("2048", 64.0, "2048x64"), ("512.0", "0100", "512x100")):
        assert json.loads(text_to_image({"width": width, "height": height}).body)["size"] == size


SIDES = ([63, 2049, "63", 0, -64, 1e30, "9" * 500], [64.5, "64px", True, "nan"])


@pytest.mark.parametrize(
    ("name", "rejected", "invalid"),
    [
        ("batchSize", [0, 11, -1, "11", 10.5, "inf", 10**400, math.inf], [1.5, "x", True, "NaN", []]),
        ("seed", [-1, "-1", -0.5, "-inf"], [0.5, "x", False, "nan", "inf", 10**400, [1]]),
        ("denoise", [-0.1, 1.1, 2, "1.01", "inf", 10**400], ["half", True, "nan", [], ""]),
        ("width", *SIDES),
        ("height", *SIDES),
    ],
)
def test_number_out_of_range_is_a_400(name: str, rejected: Sequence[object], invalid: Sequence[object]) -> None:
    members = {"positivePrompt": "hi", "model": "m", "width": 64, "height": 64}
    for error_code, values in (("InvalidRange", rejected), ("InvalidType", invalid)):
        for value in values:
            text = json.dumps(members | {name: value}).replace("Infinity", "1e400")
            field_name = name[0].upper() + name[1:]
            check_error(lambda text=text: bind_text_to_image(text.encode(), JSON, {}, name="x"), error_code, field_name)
            if isinstance(value, str) and value:
                changed = members | {name: value}
                check_error(lambda changed=changed: bind("TextToImage", changed), error_code, field_name)
                if name not in ("width", "height"):
                    check_error(lambda changed=changed: bind("ImageWithMask", changed), error_code, field_name)


@pytest.mark.parametrize(("given_side", "missing"), [("width", "Height"), ("height", "Width")])
def test_size_needs_both_sides(given_side: str, missing: str) -> None:
    check_error(lambda: text_to_image({given_side: 512}), "NotEmpty", missing)


@pytest.mark.parametrize("name", ["positivePrompt", "negativePrompt", "model"])
def test_member_of_another_type_is_a_400(name: str) -> None:
    check_error(lambda: text_to_image({name: 1}), "InvalidType", name[0].upper() + name[1:])


@pytest.mark.parametrize(("name", "value"), [("refId", "x" * 257), ("tag", "a\nb"), ("state", "\x7f")])
def test_invalid_option_is_a_400(name: str, value: str) -> None:
    for request_name in BINDERS:
        members = {"positivePrompt": "hi", "model": "m", name: value}
        check_error(lambda r=request_name, m=members: bind(r, m), "InvalidLength", name[0].upper() + name[1:])


# --- files ---


@pytest.mark.parametrize("name", ["image", "Image", "IMAGE", "upload0", "llama.png", "mask", "", "file"])
def test_only_file_is_the_image_whatever_its_name(name: str) -> None:
    for request_name in ("ImageToImage", "ImageToText"):
        members = {"positivePrompt": "hi"}
        assert bind(request_name, members, [replace(IMAGE, name=name)]) == bind(request_name, members)


@pytest.mark.parametrize(
    "names", [("image", "upload1"), ("Image", "mask.png"), ("llama.png", "MASK"), ("image", ""), ("upload0", "mask")]
)
def test_mask_and_image_are_found_by_one_name(names: tuple[str, str]) -> None:
    files = [replace(IMAGE, name=names[0]), replace(MASK, name=names[1])]
    for order in (files, files[::-1]):
        assert bind("ImageWithMask", {"positivePrompt": "hi"}, order) == bind("ImageWithMask", {"positivePrompt": "hi"})


@pytest.mark.parametrize("label", [None, "application/octet-stream"])
def test_untyped_files_get_types_and_names_with_an_extension(label: str | None) -> None:
    files = [Part("image", picture("WEBP"), "image", label), Part("mask", MASK.content, "", label)]
    assert sent(bind("ImageWithMask", {"positivePrompt": "hi"}, files))[2:] == [
        Part("image", files[0].content, "image.webp", "image/webp"),
        Part("mask", MASK.content, "mask.png", "image/png"),
    ]


@pytest.mark.parametrize(
    ("name", "files", "error_code", "field_name"),
    [
        ("ImageToImage", [], "NotEmpty", "Image"),
        ("ImageToText", [Part("image", b"text")], "NotEmpty", "Image"),
        ("ImageToImage", [replace(IMAGE, content=b"")], "NotEmpty", "Image"),
        ("ImageToImage", [IMAGE, IMAGE], "InvalidForm", "Image"),
        ("ImageToText", [replace(IMAGE, name="a"), replace(IMAGE, name="b")], "InvalidForm", "Image"),
        ("ImageWithMask", [IMAGE], "NotEmpty", "Mask"),
        ("ImageWithMask", [MASK], "NotEmpty", "Image"),
        ("ImageWithMask", [IMAGE, replace(MASK, content=b"")], "NotEmpty", "Mask"),
        ("ImageWithMask", [replace(IMAGE, name="upload0"), replace(MASK, name="upload1")], "InvalidForm", "Image"),
        ("ImageToImage", [replace(IMAGE, content=b"<svg/>")], "InvalidImage", "Image"),
        ("ImageToText", [replace(IMAGE, content=b"%PDF-1.7")], "InvalidImage", "Image"),
        ("ImageWithMask", [IMAGE, replace(MASK, content=b"ID3\x04")], "InvalidImage", "Mask"),
    ],
)
def test_invalid_files_are_a_400(name: str, files: Sequence[Part], error_code: str, field_name: str) -> None:
    check_error(lambda: bind(name, {"positivePrompt": "hi"}, files), error_code, field_name)


@pytest.mark.parametrize("name", ["ImageToImage", "ImageWithMask", "ImageToText"])
@pytest.mark.parametrize("body", [b"", b"{}", b'{"image":"iVBORw0KGgo=","positivePrompt":"hi"}'])
def test_request_without_a_form_has_no_image(name: str, body: bytes) -> None:
    check_error(lambda: BINDERS[name](body, JSON, {}, name=name), "NotEmpty", "Image")


# --- requests of real clients ---


@dataclass_json(letter_case=LetterCase.CAMEL, undefined=Undefined.EXCLUDE)
@dataclass
class ImageResponse:
    duration: str = ""


@dataclass_json(letter_case=LetterCase.CAMEL, undefined=Undefined.EXCLUDE)
@dataclass
class QueueImageWithMask(IReturn[ImageResponse], IPost):
    positive_prompt: str = ""
    denoise: float | None = None
    tag: str = ""


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


def test_python_client_of_ai_server_uploads_an_image_and_a_mask() -> None:
    recorder = RecordedRequests()
    client = JsonServiceClient("http://127.0.0.1:1")
    client._session.mount("http://", recorder)
    uploads = [UploadFile(part.name, part.file_name, "image/png", io.BytesIO(part.content)) for part in (IMAGE, MASK)]
    client.post_files_with_request(QueueImageWithMask("a hat", 0.25, "t"), uploads)
    client._session.close()
    (http_request,) = recorder.requests
    assert isinstance(http_request.body, bytes)
    request = bind_image_with_mask(http_request.body, str(http_request.headers["content-type"]), {}, name="x")
    expected = {"model": "image-with-mask", "prompt": "a hat", "strength": 0.25}
    assert sent(request) == [*fields(expected), IMAGE, MASK]
    assert request.options == Options(tag="t")


@pytest.mark.parametrize(
    "disposition",
    [
        "name=image; filename=llama.png",
        "name=upload0; filename=llama.png",
        "name=llama.png; filename=llama.png",  # PostFileWithRequest passes the file's name as the field's name
        'name="Image"; filename="=?utf-8?B?bGxhbWEucG5n?="',
    ],
)
def test_dotnet_client_of_ai_server_uploads_an_image(disposition: str) -> None:
    """ServiceStack's C# clients write PascalCase names, types on fields, few quotes (after their source)."""
    text = "Content-Type: text/plain; charset=utf-8\r\nContent-Disposition: form-data; name=%s\r\n\r\n%s"
    parts = [(text % member).encode() for member in (("PositivePrompt", "é"), ('"Denoise"', "0.5"), ("Tag", "t"))]
    parts.append(f"Content-Type: image/png\r\nContent-Disposition: form-data; {disposition}\r\n\r\n".encode() + PNG)
    body = b"".join(b"--b-1\r\n%b\r\n" % part for part in parts) + b"--b-1--\r\n"
    request = bind_image_to_image(body, 'multipart/form-data; boundary="b-1"', {}, name="ImageToImage")
    assert sent(request) == [*fields({"model": "image-to-image", "prompt": "é", "strength": 0.5}), IMAGE]
    assert request.options == Options(tag="t")
