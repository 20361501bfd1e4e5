"""OpenAI's requests for images: sent to providers as clients sent them, without the gateway's options."""

import io
import json
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import httpx
import openai
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from aiserver import operations
from aiserver.errors import InvalidRequest
from aiserver.wire.forms import Part, encode_form, parse_form
from aiserver.wire.image_requests import bind_edit, bind_generation, bind_variation, is_image_part
from aiserver.wire.requests import ModelRequest, Options

JSON = "application/json"
OPTIONS = {"refId": "r", "Tag": "t", "reply_to": "https://x.io", "Deadline": "60", "PROVIDER": "p"}
REQUEST_OPTIONS = Options("r", "t", "https://x.io", "60", "p")


def picture(image_format: str, color: str = "red") -> bytes:
    file = io.BytesIO()
    Image.new("RGB", (2, 2), color).save(file, image_format)
    return file.getvalue()


PNG, JPEG, WEBP = picture("PNG"), picture("JPEG"), picture("WEBP")
MODEL, PROMPT = Part("model", b"gpt-image-2"), Part("prompt", "a hat 😀".encode())
IMAGE = Part("image", PNG, "llama.png", "image/png")
MASK = Part("mask", picture("PNG", "white"), "mask.png", "image/png")


def generation(members: str, *, is_queued: bool = False) -> ModelRequest:
    body = '{"model":"gpt-image-2","prompt":"hi"%s}' % members
    return bind_generation(body.encode(), JSON, is_queued=is_queued)


def json_edit(members: str, *, is_queued: bool = False) -> ModelRequest:
    return bind_edit(b'{"model":"gpt-image-2","prompt":"hi"%b}' % members.encode(), JSON, is_queued=is_queued)


def edit(*parts: Part, is_queued: bool = False) -> ModelRequest:
    return bind_edit(*encode_form([MODEL, PROMPT, *parts]), is_queued=is_queued)


def sent(request: ModelRequest) -> list[Part]:
    return parse_form(request.body, request.content_type)


def field(name: str, value: str = "") -> Part:
    return Part(name, value.encode())


def check_error(raised: pytest.ExceptionInfo[InvalidRequest], error_code: str, param: str) -> None:
    assert (raised.value.status, raised.value.param or "") == (400, param)
    assert [error.error_code for error in raised.value.fields] == [error_code]


# --- generations, and edits as JSON ---

KNOWN = {
    "n": "2",
    "size": '"auto"',
    "response_format": '"b64_json"',
    "output_format": '"webp"',
    "output_compression": "80",
    "partial_images": "1",
    "background": '"transparent"',
    "moderation": '"low"',
    "safety_identifier": '"u"',
    "quality": '"hd"',
    "style": '"vivid"',
    "user": "null",
}
UNKNOWN = ',"steps": 2.50,"negative_prompt":"\\u00e9","x":{"OutputFormat":[1E400,"\\/"]},"negativePrompt" : null'


@pytest.mark.parametrize("name", KNOWN)
def test_members_in_any_naming_style_get_their_names(name: str) -> None:
    pascal = "".join(word.capitalize() for word in name.split("_"))
    for spelled in (name, pascal, pascal[0].lower() + pascal[1:]):
        request = generation(f',"{spelled}": {KNOWN[name]}')
        assert request.body == b'{"model":"gpt-image-2","prompt":"hi","%b": %b}' % (name.encode(), KNOWN[name].encode())


def test_unknown_members_pass_byte_for_byte() -> None:
    request = generation(UNKNOWN)
    assert request.body == b'{"model":"gpt-image-2","prompt":"hi"%b}' % UNKNOWN.encode()
    assert (request.operation, request.model, request.stream) == (operations.IMAGES, "gpt-image-2", False)
    assert (request.options, request.content_type, request.name, request.ignored) == (Options(), JSON, "", ())
    members = UNKNOWN + ',"images":[{"image_url":"https://x.io/a.png","X":1.0}],"input_fidelity":"high"'
    assert json_edit(members).body == b'{"model":"gpt-image-2","prompt":"hi"%b}' % members.encode()
    assert json_edit(members).operation is operations.IMAGE_EDITS


def test_options_are_removed_from_json() -> None:
    options = "".join(f',"{name}":"{value}"' for name, value in OPTIONS.items())
    request = generation(f'{options},"n":1')
    assert (request.body, request.options) == (generation(',"n":1').body, REQUEST_OPTIONS)
    images = ',"images":[{"file_id":"f"}]'
    request = json_edit(images + options)
    assert (request.body, request.options) == (json_edit(images).body, REQUEST_OPTIONS)
    assert generation(',"provider":{"order":["a"]}').body.endswith(b',"provider":{"order":["a"]}}')


@pytest.mark.parametrize(("value", "is_stream"), [("true", True), ("false", False), ("null", False)])
def test_stream_is_read_and_queued_requests_do_not_stream(value: str, is_stream: bool) -> None:
    members = f',"Stream":{value},"partialImages":2,"stream_format":"sse"'
    request = generation(members)
    assert request.stream is is_stream
    assert json.loads(request.body) | {"stream": json.loads(value), "partial_images": 2} == json.loads(request.body)
    queued = generation(members, is_queued=True)
    assert (queued.stream, queued.body) == (False, generation("").body)
    images = ',"images":[{"image_url":"data:image/png;base64,AA=="}]'
    queued = json_edit(members + images, is_queued=True)
    assert (queued.stream, queued.body) == (False, json_edit(images).body)


@pytest.mark.parametrize(
    ("body", "error_code", "param"),
    [
        ('{"model":"m"}', "NotEmpty", "prompt"),
        ('{"model":"m","prompt":""}', "NotEmpty", "prompt"),
        ('{"model":"m","prompt":null}', "InvalidType", "prompt"),
        ('{"model":"m","prompt":["a"]}', "InvalidType", "prompt"),
        ('{"prompt":"p"}', "NotEmpty", "model"),
        ('{"prompt":"p","model":""}', "NotEmpty", "model"),
        ('{"prompt":"p","model":1}', "InvalidType", "model"),
        ('{"prompt":"p","model":"%s"}' % ("m" * 257), "InvalidType", "model"),
        ('{"prompt":"p","model":"m","n":"2"}', "InvalidType", "n"),
        ('{"prompt":"p","model":"m","n":1.5}', "InvalidType", "n"),
        ('{"prompt":"p","model":"m","N":true}', "InvalidType", "n"),
        ('{"prompt":"p","model":"m","size":1024}', "InvalidType", "size"),
        ('{"prompt":"p","model":"m","stream":"true"}', "InvalidType", "stream"),
        ('{"prompt":"p","model":"m","partialImages":"1"}', "InvalidType", "partial_images"),
        ('{"prompt":"p","model":"m","n":1,"N":2}', "Duplicate", "n"),
        ('{"prompt":"p","Prompt":"q","model":"m"}', "Duplicate", "prompt"),
        ('{"prompt":"p","model":"m","refId":5}', "InvalidType", "refId"),
        ("[]", "InvalidType", ""),
    ],
)
def test_invalid_json_member_is_a_400_naming_it(body: str, error_code: str, param: str) -> None:
    with pytest.raises(InvalidRequest) as raised:
        bind_generation(body.encode(), JSON)
    check_error(raised, error_code, param)
    if body.startswith("{"):
        body = body[:-1] + ',"images":[{"file_id":"f"}]}'
    with pytest.raises(InvalidRequest) as raised:
        bind_edit(body.encode(), JSON)
    check_error(raised, error_code, param)


def test_generation_as_a_form_and_variation_as_json_are_400s() -> None:
    with pytest.raises(InvalidRequest) as raised:
        bind_generation(*encode_form([MODEL, PROMPT]))
    check_error(raised, "InvalidForm", "")
    with pytest.raises(InvalidRequest) as raised:
        bind_variation(b'{"model":"m","image":"https://x.io"}', JSON)
    check_error(raised, "InvalidForm", "")


URLS = ("https://x.io/a.png", "http://x.io/a.png", "data:image/png;base64,AA==")
PATHS = (
    "/etc/passwd",
    "file:///etc/passwd",
    "../a.png",
    "C:\\\\a.png",
    "ftp://x.io/a",
    "",
    "a.png",
    " https://x.io",
    "s3://b",
)
REFERENCES = {
    "images[0].image_url": ',"images":[{"image_url":"%s"}]',
    "images[0].image_url.url": ',"Images":[{"image_url":{"url":"%s"}}]',
    "images[1].image_url": ',"images":[{"file_id":"f"},{"x":1,"image_url":"%s"}]',
    "image": ',"image":"%s"',
    "image.url": ',"image":{"type":"image_url","url":"%s"}',
    "image[1]": ',"image":["https://x.io","%s"]',
    "image[]": ',"image[]":"%s"',
    "image_url": ',"image_url":"%s"',
    "mask": ',"images":[{"file_id":"f"}],"mask":"%s"',
    "mask.image_url": ',"images":[{"file_id":"f"}],"Mask":{"image_url":"%s"}',
    "mask_image": ',"image":"https://x.io","mask_image":"%s"',
}


@pytest.mark.parametrize("param", REFERENCES)
def test_reference_to_an_image_must_be_a_url(param: str) -> None:
    """Issues: a server reads a path as a local file (LiteLLM #26293); `images` is dropped (axonhub #2496)."""
    for url in URLS:
        assert url.encode() in json_edit(REFERENCES[param] % url).body
    for path in PATHS:
        with pytest.raises(InvalidRequest) as raised:
            json_edit(REFERENCES[param] % path)
        check_error(raised, "InvalidImage", param)


@pytest.mark.parametrize(
    "members",
    [
        ',"images":[{"imageUrl":"/etc/passwd"}]',
        ',"images":[{"ImageUrl":"/etc/passwd"}]',
        ',"images":[{"file_id":"f"}],"Image":"/etc/passwd"',
        ',"images":["/etc/passwd"]',
        ',"image":[["/etc/passwd"]]',
        ',"im\\u0061ge":"/etc/passwd"',
    ],
)
def test_path_of_a_file_is_refused_in_any_spelling(members: str) -> None:
    with pytest.raises(InvalidRequest):
        json_edit(members)


@pytest.mark.parametrize(
    "members",
    [
        "",
        ',"mask":{"file_id":"f"}',
        ',"file_id":"f"',
        ',"images":[]',
        ',"images":null',
        ',"image_size":512',
    ],
)
def test_json_edit_without_an_image_is_a_400(members: str) -> None:
    with pytest.raises(InvalidRequest) as raised:
        json_edit(members)
    check_error(raised, "NotEmpty", "images")


@pytest.mark.parametrize("member", ['"image_size":"1024x1024"', '"mask_mode":"alpha"', '"imageFormat":"png"'])
def test_member_that_only_begins_like_an_image_passes(member: str) -> None:
    assert member.encode() in json_edit(f',"images":[{{"file_id":"f"}}],{member}').body


# --- edits and variations as forms ---

OTHERS = st.sampled_from(
    ["n", "size", "background", "output_format", "input_fidelity", "x_new", "Prompt", "tag[]", "語"]
)
VALUES = st.sampled_from(["1", "auto", "1024x1536", "", "a\r\nb", "😀"]).map(str.encode)
FILES = st.sampled_from(
    [
        IMAGE,
        replace(IMAGE, name="image[]"),
        replace(IMAGE, name="image[0]", content=JPEG, content_type="image/jpeg"),
        Part("x", b"?", "x", None),
    ]
)


@given(
    st.lists(st.builds(Part, OTHERS, VALUES), max_size=4, unique_by=lambda part: part.name) | st.just([field("x")] * 2),
    st.lists(FILES, max_size=3),
    st.sampled_from([[], [MASK], [field(name, value) for name, value in OPTIONS.items()]]),
    st.booleans(),
    st.randoms(use_true_random=False),
)
def test_edit_keeps_parts_in_order(fields: Any, files: Any, more: list[Part], is_queued: bool, random: Any) -> None:
    """Issues: fields are dropped (aisix #1015), `image[]` goes on as text (LiteLLM #39512), order (openapi #59)."""
    parts = [MODEL, PROMPT, IMAGE, *fields, *files, *more]
    random.shuffle(parts)
    request = bind_edit(*encode_form(parts), is_queued=is_queued)
    kept = [part for part in parts if part.name not in OPTIONS]
    assert sent(request) == kept
    assert (request.body, request.content_type) == encode_form(kept)
    assert request.options == (REQUEST_OPTIONS if len(more) > 1 else Options())
    assert (request.operation, request.model, request.stream) == (operations.IMAGE_EDITS, "gpt-image-2", False)


@pytest.mark.parametrize("names", [["image"], ["image[]"], ["image[]"] * 3, ["image[0]", "image[1]"], ["image"] * 2])
def test_images_keep_their_names(names: Sequence[str]) -> None:
    files = [Part(name, PNG, f"{index}.png", "image/png") for index, name in enumerate(names)]
    assert sent(edit(*files, MASK)) == [MODEL, PROMPT, *files, MASK]
    assert all(is_image_part(file) for file in files)
    assert sent(bind_variation(*encode_form([MODEL, *files]))) == [MODEL, *files]


@pytest.mark.parametrize("name", ["mask[]", "mask[0]", "mask"])
def test_mask_is_sent_as_one_file_named_mask(name: str) -> None:
    """Issue: the mask is dropped or damaged (LiteLLM #13528)."""
    assert sent(edit(IMAGE, replace(MASK, name=name))) == [MODEL, PROMPT, IMAGE, MASK]


@pytest.mark.parametrize("label", [None, "application/octet-stream"])
@pytest.mark.parametrize(
    ("content", "content_type"),
    [(PNG, "image/png"), (JPEG, "image/jpeg"), (WEBP, "image/webp")],
    ids=["png", "jpeg", "webp"],
)
def test_files_get_the_type_of_their_bytes(label: str | None, content: bytes, content_type: str) -> None:
    file, mask = Part("image[]", content, "blob", label), Part("mask", content, "", label)
    extension = content_type.removeprefix("image/").replace("jpeg", "jpg")
    expected = [
        Part("image[]", content, f"blob.{extension}", content_type),
        Part("mask", content, f"mask.{extension}", content_type),
    ]
    assert sent(edit(file, mask))[2:] == expected


@pytest.mark.parametrize(("value", "is_stream"), [("true", True), ("1", True), ("True", True), ("false", False)])
def test_stream_of_a_form_is_read_and_dropped_when_queued(value: str, is_stream: bool) -> None:
    parts = [field("stream", value), field("partial_images", "2"), IMAGE, field("n", "1")]
    assert (edit(*parts).stream, sent(edit(*parts))[2:]) == (is_stream, parts)
    queued = edit(*parts, is_queued=True)
    assert (queued.stream, sent(queued)[2:]) == (False, [IMAGE, field("n", "1")])


@pytest.mark.parametrize(
    ("parts", "error_code", "param"),
    [
        ([MODEL, PROMPT], "NotEmpty", "image"),
        ([MODEL, PROMPT, MASK], "NotEmpty", "image"),
        ([MODEL, PROMPT, replace(IMAGE, name="Image")], "NotEmpty", "image"),
        ([MODEL, PROMPT, replace(IMAGE, name="images")], "NotEmpty", "image"),
        ([MODEL, PROMPT, replace(IMAGE, name="image[a]")], "NotEmpty", "image"),
        ([MODEL, PROMPT, replace(IMAGE, content=b"")], "NotEmpty", "image"),
        ([MODEL, PROMPT, IMAGE, replace(IMAGE, name="image[]", content=b"")], "NotEmpty", "image[]"),
        ([MODEL, PROMPT, IMAGE, replace(MASK, content=b"")], "NotEmpty", "mask"),
        ([MODEL, PROMPT, Part("image", PNG)], "InvalidForm", "image"),
        ([MODEL, PROMPT, field("image[]", "https://x.io/a.png")], "InvalidForm", "image[]"),
        ([MODEL, PROMPT, IMAGE, field("image[]", "/etc/passwd")], "InvalidForm", "image[]"),
        ([MODEL, PROMPT, IMAGE, field("mask")], "InvalidForm", "mask"),
        ([MODEL, PROMPT, IMAGE, field("mask[]", "x")], "InvalidForm", "mask"),
        ([MODEL, PROMPT, IMAGE, MASK, MASK], "Duplicate", "mask"),
        ([MODEL, PROMPT, IMAGE, MASK, replace(MASK, name="mask[]")], "Duplicate", "mask"),
        ([MODEL, IMAGE], "NotEmpty", "prompt"),
        ([MODEL, field("prompt"), IMAGE], "NotEmpty", "prompt"),
        ([MODEL, Part("prompt", b"hi", "prompt.txt"), IMAGE], "NotEmpty", "prompt"),
        ([MODEL, Part("prompt", b"\xff"), IMAGE], "InvalidForm", "prompt"),
        ([PROMPT, IMAGE], "NotEmpty", "model"),
        *(([MODEL, PROMPT, IMAGE, *[field(name, "1")] * 2], "Duplicate", name) for name in ("n", "size", "stream")),
        ([MODEL, PROMPT, PROMPT, IMAGE], "Duplicate", "prompt"),
        ([MODEL, PROMPT, IMAGE, field("refId", "a"), field("RefId", "b")], "Duplicate", "refId"),
    ],
)
def test_invalid_form_is_a_400_naming_the_field(parts: list[Part], error_code: str, param: str) -> None:
    for order in (parts, parts[::-1]):
        for is_queued in (False, True):
            if is_queued and param == "stream":
                continue
            with pytest.raises(InvalidRequest) as raised:
                bind_edit(*encode_form(order), is_queued=is_queued)
            check_error(raised, error_code, param)


@pytest.mark.parametrize("content", [b"<html>", b"<svg/>", b"%PDF-1.7", b"ID3\x04", b"RIFF\x08\x00\x00\x00WAVE", b"{}"])
def test_file_that_is_not_an_image_is_a_400(content: bytes) -> None:
    for name in ("image", "image[]", "mask"):
        with pytest.raises(InvalidRequest) as raised:
            edit(IMAGE, Part(name, content, "a.png", "image/png"))
        check_error(raised, "InvalidImage", name)
    with pytest.raises(InvalidRequest) as raised:
        bind_variation(*encode_form([MODEL, replace(IMAGE, content=content)]))
    check_error(raised, "InvalidImage", "image")


def test_variation_needs_an_image_and_no_prompt() -> None:
    parts = [field("n", "2"), IMAGE, field("tag", "t"), MODEL, field("response_format", "url")]
    request = bind_variation(*encode_form(parts))
    assert sent(request) == [part for part in parts if part.name != "tag"]
    assert (request.operation, request.options) == (operations.IMAGE_VARIATIONS, Options(tag="t"))
    with pytest.raises(InvalidRequest) as raised:
        bind_variation(*encode_form([MODEL, PROMPT]))
    check_error(raised, "NotEmpty", "image")


# --- the openai package ---


@pytest.mark.parametrize("count", [1, 3])
def test_python_client_sends_an_edit_with_images_and_a_mask(count: int) -> None:
    captured: list[httpx.Request] = []

    def respond(request: httpx.Request) -> httpx.Response:
        captured.append(request)
        return httpx.Response(200, json={"created": 1, "data": []})

    http_client = httpx.Client(transport=httpx.MockTransport(respond))
    with openai.OpenAI(api_key="key", base_url="http://127.0.0.1:1/v1", http_client=http_client) as client:
        images: list[Any] = [io.BytesIO(content) for content in (PNG, JPEG, WEBP)[:count]]
        image: Any = images if count > 1 else images[0]
        client.images.edit(model="m", prompt="p", image=image, mask=MASK.content, n=2, extra_body={"tag": "t"})
        client.images.generate(model="m", prompt="p", n=2, extra_body={"tag": "t"})
    form, body = captured
    request = bind_edit(form.content, form.headers["content-type"])
    files = [part for part in sent(request) if part.is_file]
    assert [(part.name, part.content_type) for part in files] == [
        ("image" if count == 1 else "image[]", content_type)
        for content_type in ("image/png", "image/jpeg", "image/webp")[:count]
    ] + [("mask", "image/png")]
    assert [part.content for part in files] == [*(PNG, JPEG, WEBP)[:count], MASK.content]
    assert request.options == Options(tag="t")
    request = bind_generation(body.content, body.headers["content-type"])
    assert (json.loads(request.body), request.options) == ({"model": "m", "prompt": "p", "n": 2}, Options(tag="t"))
