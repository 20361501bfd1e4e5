"""Requests for images in the dialect of each preset, and complete responses as real servers send them."""

import json
from collections.abc import Iterator
from typing import Any
from urllib.parse import urlsplit

import httpx
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from aiserver.errors import ProviderError, ProviderRejected
from aiserver.providers.adapters.openai.images import image_usage
from aiserver.providers.call import ProviderCall, Upstream
from aiserver.providers.catalogue import CATALOGUE
from aiserver.providers.http import create_client
from aiserver.providers.provider import Provider
from aiserver.wire import errors as wire_errors
from aiserver.wire import forms
from aiserver.wire.forms import Part
from local.scripted import ScriptedProvider
from tests.examples import examples
from tests.memory import peak_bytes
from tests.providers.audio_calls import (
    BOUNDARY,
    FORM,
    audio_call,
    boundary_of,
    fail_over_audio,
    form_body,
    form_field,
    send_audio,
    usage_of,
)
from tests.providers.calls import dispatcher
from tests.providers.fake_provider import FakeResponse, run_fake_provider
from tests.providers.image_calls import (
    EDIT_SUBJECTS,
    EDITS,
    GENERIC,
    IMAGE_PRESETS,
    IMAGES,
    JPEG,
    KONTEXT,
    PNG,
    SCHNELL,
    SUBJECTS,
    TOKENS,
    TRANSPARENT_PNG,
    VARIATIONS,
    Subject,
    edit_call,
    generation_call,
    image_file,
    image_provider,
    json_edit_call,
    operation_path,
    prepare,
)

UPSTREAM_MODEL = "org/a model"
IMAGE = b'{"created":1,"data":[{"b64_json":"iVBORw0KGgo="}]}'
ODD_BODY = (
    b'\n{ "prompt":"\\u00eb \xe8\xaa\x9e", "model" : "m",  "n": 1, "quality":2.50,"x_new":{"model":"m","size":1E400}}'
)
HINTS: dict[str, Any] = {"negative_prompt": "dark", "seed": 5, "strength": 0.5}
each_subject = pytest.mark.parametrize("subject", SUBJECTS, ids=str)
each_edit_subject = pytest.mark.parametrize("subject", EDIT_SUBJECTS, ids=str)


@pytest.fixture(scope="module")
def http() -> Iterator[httpx.Client]:
    with create_client() as client:
        yield client


@pytest.fixture
def target(upstream: ScriptedProvider) -> Provider:
    """The scripted provider, without a preset."""
    return image_provider(base_url=upstream.base_url)


# --- requests that differ in the model only ---


@pytest.mark.parametrize("preset", [*IMAGE_PRESETS, GENERIC])
def test_preset_request_has_its_path_key_and_unchanged_body(preset: str, http: httpx.Client) -> None:
    catalogue_preset = CATALOGUE[preset] if preset else None
    root = urlsplit(catalogue_preset.base_url.replace("{port}", "1")).path if catalogue_preset else "/v1"
    header = catalogue_preset.auth_header if catalogue_preset else "authorization"
    operations = [name for name in (IMAGES, EDITS, VARIATIONS) if name in image_provider(preset).operations]
    paths = {root + operation_path(Subject(preset), name) for name in operations}
    credential = header, "k" if header == "api-key" else "Bearer k"
    with run_fake_provider(paths, credential, FakeResponse(401, b"{}")) as server:
        upstream = Upstream(image_provider(preset, server.origin + root), UPSTREAM_MODEL, True, "k")
        for operation in operations:
            server.responses.append(FakeResponse(200, IMAGE))
            parts = [form_field("prompt", "A fox"), form_field("model", "m"), form_field("x_new", "1")]
            is_form = operation != IMAGES
            body, content_type = (form_body(*parts), FORM) if is_form else (ODD_BODY, "application/json")
            response = dispatcher(http).send(upstream, audio_call(operation, body, content_type, idempotency_key="i"))
            assert response.body == IMAGE
            request = server.requests[-1]
            assert (request.method, request.path) == ("POST", root + operation_path(Subject(preset), operation))
            assert request.headers["idempotency-key"] == "i"
            if is_form:
                parts[1] = form_field("model", UPSTREAM_MODEL)
                boundary = boundary_of(request.headers["content-type"])
                assert boundary != BOUNDARY
                assert request.body == form_body(*parts, boundary=boundary)
            else:
                assert request.headers["content-type"] == "application/json"
                assert request.body == ODD_BODY.replace(b'"m"', json.dumps(UPSTREAM_MODEL).encode(), 1)


@each_subject
@given(members=st.dictionaries(st.text('abn_é"\\', max_size=5), st.integers() | st.text(max_size=4), max_size=4))
@settings(max_examples=examples(50))
def test_unknown_members_of_json_arrive_byte_for_byte(subject: Subject, members: dict[str, Any]) -> None:
    texts = [f"{json.dumps(name)} :\t{json.dumps(value, ensure_ascii=False)}" for name, value in members.items()]
    body = ("{ " + " , ".join(['"prompt":"A fox"', '"model":"caller"', *texts]) + "\n}").encode()
    expected = body.replace(b'"caller"', json.dumps(subject.model).encode(), 1)
    assert prepare(subject, generation_call(body)).request.body == expected


PARTS = st.builds(
    Part,
    st.sampled_from(["image", "image[]", "image[0]", "mask", "prompt", "model", "background", "n", "x", 'a"b']),
    st.sampled_from([b"", b"1", b"\r\n--", PNG]) | st.text(max_size=5).map(str.encode),
    st.none() | st.sampled_from(["a.png", "blob", "Việt.jpg"]),
    st.none() | st.sampled_from(["image/png", "text/plain"]),
)
IMAGE_PARTS = {"deepinfra": "image", "localai": "image", "stable-diffusion-cpp": "image[]"}
MASK_PARTS = {"vllm-omni": "mask_image"}


@each_edit_subject
@given(st.lists(PARTS.filter(lambda part: part.is_file or part.content != PNG), max_size=6))
@settings(max_examples=examples(60))
def test_form_parts_arrive_equal_and_in_order_except_for_names(subject: Subject, parts: list[Part]) -> None:
    """Files have the provider's names, and those of a list none with an index; text fields keep their names."""

    def expected_part(part: Part) -> Part:
        is_model = part.name == "model" and not part.is_file
        name = part.name.replace("[0]", "[]")
        name = IMAGE_PARTS.get(subject.preset, name) if name.startswith("image") else name
        name = MASK_PARTS.get(subject.preset, name) if name == "mask" else name
        content = subject.model.encode() if is_model else part.content
        return Part(name if part.is_file else part.name, content, part.file_name, part.content_type)

    body, content_type = forms.encode_form(parts)
    request = prepare(subject, audio_call(EDITS, body, content_type)).request
    has_model = any(part.name == "model" and not part.is_file for part in parts)
    expected = [expected_part(part) for part in parts] + ([] if has_model else [Part("model", subject.model.encode())])
    assert forms.parse_form(request.body or b"", request.headers["content-type"]) == expected


# --- size and response_format ---


def converted_size(subject: Subject) -> dict[str, object]:
    """The members that have the size of 1024x768."""
    if subject.preset == "xai" or subject.model in (SCHNELL, KONTEXT):
        return {"aspect_ratio": "4:3"}
    return {"width": 1024, "height": 768} if subject.preset == "together" else {"size": "1024x768"}


@each_subject
@pytest.mark.parametrize("is_aiserver", [False, True])
def test_size_is_sent_in_the_members_of_the_provider(subject: Subject, is_aiserver: bool) -> None:
    expected = {"model": subject.model, "prompt": "A fox"}
    call = generation_call(size="1024x768", is_aiserver=is_aiserver)
    assert prepare(subject, call).members == expected | converted_size(subject)
    for size in ("auto", "", None):
        members = prepare(subject, generation_call(size=size, is_aiserver=is_aiserver)).members
        assert members == expected | ({"size": size} if "size" in converted_size(subject) else {})


@each_subject
@pytest.mark.parametrize("explicit", [{"width": 640}, {"height": 640}, {"aspect_ratio": "1:1"}])
def test_members_of_the_caller_replace_its_size(subject: Subject, explicit: dict[str, Any]) -> None:
    members = prepare(subject, generation_call(size="1024x768", **explicit)).members
    size = {"size": "1024x768"} if "size" in converted_size(subject) else {}
    assert members == {"model": subject.model, "prompt": "A fox"} | explicit | size


@pytest.mark.parametrize(("size", "ratio"), [("1024x1024", "1:1"), ("1920x1080", "16:9"), ("7x5", "7:5")])
def test_aspect_ratio_is_the_reduced_size(size: str, ratio: str) -> None:
    assert prepare(Subject("xai"), generation_call(size=size)).members["aspect_ratio"] == ratio


@each_subject
@pytest.mark.parametrize("response_format", ["b64_json", "url", "base64", None])
def test_response_format_is_the_one_that_the_provider_knows(subject: Subject, response_format: str | None) -> None:
    members = prepare(subject, generation_call(response_format=response_format)).members
    names = {"openai": (), "azure": (), "together": ("base64",)}.get(subject.preset, ("b64_json",))
    expected = names if response_format == "b64_json" else (response_format,)
    assert [members[name] for name in members if name == "response_format"] == [*expected]
    assert "response_format" not in prepare(subject, generation_call()).members
    if expected == (response_format,):
        body = b'{"response_format": "%b","model" :"m"}' % str(response_format).encode()
        model = json.dumps(subject.model).encode()
        assert prepare(subject, generation_call(body)).request.body == body.replace(b'"m"', model)


@each_edit_subject
@pytest.mark.parametrize("response_format", ["b64_json", "url"])
def test_response_format_of_a_form_is_the_one_the_provider_knows(subject: Subject, response_format: str) -> None:
    request = prepare(subject, edit_call(response_format=response_format)).request
    sent = forms.text_value(forms.parse_form(request.body or b"", request.headers["content-type"]), "response_format")
    is_removed = subject.preset in ("openai", "azure") and response_format == "b64_json"
    assert sent == (None if is_removed else response_format)


# --- optional members of AI Server's requests ---

EXPECTED_HINTS: dict[str, tuple[tuple[str, ...], tuple[str, ...]]] = {
    "openai": ((), ("negativePrompt", "seed", "denoise")),
    "azure": ((), ("negativePrompt", "seed", "denoise")),
    "xai": ((), ("negativePrompt", "seed", "denoise")),
    "deepinfra": (("negative_prompt", "strength"), ("seed",)),
    "together": (("negative_prompt", "seed"), ("denoise",)),
    "vllm-omni": (("negative_prompt", "seed"), ("denoise",)),
    "localai": (("seed",), ("denoise",)),
    "stable-diffusion-cpp": ((), ()),
    GENERIC: (("negative_prompt", "seed", "strength"), ()),
}


def split_prompt(prompt: str) -> tuple[str, object]:
    """The text of a prompt, and the arguments in its element as JSON."""
    text, _, element = prompt.partition("<sd_cpp_extra_args>")
    return text, json.loads(element.removesuffix("</sd_cpp_extra_args>")) if element else None


@each_subject
def test_optional_members_are_sent_as_the_provider_reads_them(subject: Subject) -> None:
    sent, ignored = EXPECTED_HINTS[subject.preset]
    prepared = prepare(subject, generation_call(is_aiserver=True, n=2, **HINTS))
    prompt = prepared.members["prompt"]
    others = {"model": subject.model, "n": 2, "prompt": prompt}
    assert (prepared.members, prepared.ignored) == (others | {name: HINTS[name] for name in sent}, ignored)
    expected_text = "A fox|dark" if subject.preset == "localai" else "A fox"
    assert split_prompt(prompt) == (expected_text, HINTS if subject.preset == "stable-diffusion-cpp" else None)


@each_edit_subject
def test_optional_fields_of_a_form_precede_its_files(subject: Subject) -> None:
    sent, ignored = EXPECTED_HINTS[subject.preset]
    call = edit_call(image_file("image"), image_file("mask"), is_aiserver=True, **HINTS)
    prepared = prepare(subject, call)
    parts = forms.parse_form(prepared.request.body or b"", prepared.request.headers["content-type"])
    fields = {part.name: part.text for part in parts if not part.is_file}
    assert [part.is_file for part in parts] == [False] * len(fields) + [True, True]
    prompt = fields.pop("prompt")
    assert fields == {"model": subject.model} | {name: str(HINTS[name]) for name in sent}
    assert prepared.ignored == ignored
    text, arguments = split_prompt(prompt)
    assert text == ("A fox|dark" if subject.preset == "localai" else "A fox")
    assert (arguments is not None) == (subject.preset == "stable-diffusion-cpp")


def test_numbers_of_a_form_are_numbers_in_the_element_of_a_prompt() -> None:
    prepared = prepare(Subject("stable-diffusion-cpp"), edit_call(is_aiserver=True, **HINTS))
    parts = forms.parse_form(prepared.request.body or b"", prepared.request.headers["content-type"])
    assert split_prompt(forms.text_value(parts, "prompt") or "") == ("A fox", HINTS)


def test_negative_prompt_cannot_end_the_element_of_a_prompt() -> None:
    call = generation_call(is_aiserver=True, negative_prompt="a</sd_cpp_extra_args>b")
    prompt = prepare(Subject("stable-diffusion-cpp"), call).members["prompt"]
    assert prompt.count("</sd_cpp_extra_args>") == 1


@each_subject
def test_optional_members_of_other_callers_are_unchanged(subject: Subject) -> None:
    for absent in (HINTS, {}):
        prepared = prepare(subject, generation_call(is_aiserver=not absent, **absent))
        assert (prepared.members, prepared.ignored) == ({"model": subject.model, "prompt": "A fox"} | absent, ())


# --- settings of a model ---

SETTINGS = {"quality": "low", "size": "1024x768", "response_format": "b64_json", "n": 2}


@each_subject
def test_settings_of_a_model_are_defaults_in_json(subject: Subject) -> None:
    prepared = prepare(subject, generation_call(quality="high", n=1), **SETTINGS)
    given_members = prepare(subject, generation_call(quality="high", n=1, size="1024x768", response_format="b64_json"))
    assert prepared.members == given_members.members
    assert prepared.members["quality"] == "high"


@each_edit_subject
def test_settings_of_a_model_are_defaults_in_forms(subject: Subject) -> None:
    prepared = prepare(subject, edit_call(quality="high"), quality="low", background="auto", x=[1, 2], y=None)
    parts = forms.parse_form(prepared.request.body or b"", prepared.request.headers["content-type"])
    fields = [(part.name, part.text) for part in parts if not part.is_file]
    expected = {"model": subject.model, "prompt": "A fox", "quality": "high", "background": "auto"}
    assert fields == [*expected.items(), ("x", "1"), ("x", "2")]


def test_size_of_the_caller_replaces_the_width_of_the_settings() -> None:
    members = prepare(Subject("together"), generation_call(size="1024x768"), width=512, height=512).members
    assert (members["width"], members["height"]) == (1024, 768)


def test_settings_of_a_model_are_not_reported_as_ignored() -> None:
    assert prepare(Subject("openai"), generation_call(is_aiserver=True), seed=5).ignored == ()


# --- usage ---

BASE64 = {"b64_json": "iVBORw0KGgo="}
NULLS = {"b64_json": "iVBORw0KGgo=", "url": None, "revised_prompt": None}
ZEROS = {"input_tokens": 0, "output_tokens": 0, "total_tokens": 0}
ANSWERS: dict[str, tuple[dict[str, object], dict[str, Any]]] = {
    "OpenAI": ({"created": 1, "data": [BASE64], "usage": TOKENS}, {"images": 1} | TOKENS),
    "without usage": ({"created": 1, "data": [BASE64] * 3}, {"images": 3}),
    "usage of null": ({"created": 1, "data": [BASE64], "usage": None}, {"images": 1}),
    "usage that is no object": ({"data": [BASE64], "usage": [1]}, {"images": 1}),
    "fewer images than n": ({"data": [BASE64] * 2}, {"images": 2}),
    "vLLM-Omni": ({"created": 1, "data": [NULLS, NULLS]}, {"images": 2}),
    "Together": ({"id": "o", "created": None, "data": [{"index": 0, "url": "https://x/1"}]}, {"images": 1}),
    "LocalAI": ({"data": [{"embedding": None, "url": "http://g/1.png"}], "usage": ZEROS}, {"images": 1} | ZEROS),
    "empty base64 beside a URL": ({"data": [{"b64_json": "", "url": "https://x/1"}]}, {"images": 1}),
    "null beside an image": ({"data": [BASE64, None]}, {"images": 1}),
    "data URL as base64": ({"data": [{"b64_json": "data:image/jpeg;base64,/9j/"}]}, {"images": 1}),
    "its own count": ({"data": [BASE64], "usage": {"image_count": 4}}, {"images": 1, "image_count": 4}),
}


@pytest.mark.parametrize(("members", "usage"), ANSWERS.values(), ids=ANSWERS.keys())
@pytest.mark.parametrize("call", [generation_call(n=3), edit_call(n=3), json_edit_call()], ids=["text", "form", "JSON"])
def test_images_have_the_body_of_the_provider_and_their_usage(
    call: ProviderCall,
    members: dict[str, object],
    usage: dict[str, Any],
    upstream: ScriptedProvider,
    target: Provider,
    http: httpx.Client,
) -> None:
    body = json.dumps(members, indent=1).encode()
    headers = {"content-type": "application/json; charset=utf-8", "x-request-id": "r"}
    upstream.respond_with(200, body, headers)
    response = send_audio(http, target, call)
    assert (response.status, response.headers, response.body) == (200, headers, body)
    assert usage_of(response.usage) == usage


@given(st.lists(st.fixed_dictionaries({"b64_json": st.none() | st.text(max_size=5)}), min_size=1, max_size=12))
@settings(max_examples=examples(100))
def test_usage_counts_the_images_whatever_is_in_them(images: list[dict[str, str | None]]) -> None:
    for separators in ((",", ":"), (" , ", "\t:\n")):
        body = json.dumps({"data": images, "usage": TOKENS}, ensure_ascii=False, separators=separators).encode()
        assert usage_of(image_usage(body, 0)) == {"images": len(images)} | TOKENS


def test_usage_of_large_images_is_found_without_copies() -> None:
    images = b'{"b64_json":"%b"}' % (b"A" * 8_000_000)
    body = b'{"data":[%b,%b,{"url":null}],"usage":{"total_tokens":1}}' % (images, images)
    assert usage_of(image_usage(body, 0)) == {"images": 3, "total_tokens": 1}
    assert peak_bytes(lambda: image_usage(body, 0)) < 4_000_000


def test_usage_with_a_number_beyond_floats_is_valid_json() -> None:
    assert usage_of(image_usage(b'{"data":[{}],"usage":{"cost":1e999}}', 0))


@pytest.mark.parametrize("body", [b'\xef\xbb\xbf{"data":[{}]}', b'{"data":[{"revised_prompt":"a\\ud83d"}]}'])
def test_images_are_counted_in_every_response_that_is_accepted(
    body: bytes, upstream: ScriptedProvider, target: Provider, http: httpx.Client
) -> None:
    upstream.respond_with(200, body)
    assert usage_of(send_audio(http, target, generation_call()).usage) == {"images": 1}


# --- errors ---

CALLS = [generation_call(), edit_call(), generation_call(stream=True)]
each_call = pytest.mark.parametrize("call", CALLS, ids=["text", "form", "stream"])

MODERATION = {
    "message": "Your request was rejected by the safety system.",
    "type": "image_generation_user_error",
    "param": None,
    "code": "moderation_blocked",
    "moderation_details": {"moderation_stage": "output", "categories": ["violence"]},
}
UNKNOWN_PARAMETER = {"message": "Unknown parameter: 'x'.", "param": "x", "code": "unknown_parameter"}
REJECTIONS: dict[str, tuple[int, object, str, str]] = {
    "moderation": (400, {"error": MODERATION}, str(MODERATION["message"]), "moderation_blocked"),
    "unknown parameter": (400, {"error": UNKNOWN_PARAMETER}, "Unknown parameter: 'x'.", "unknown_parameter"),
    "stable-diffusion.cpp": (400, {"error": "prompt required"}, "prompt required", ""),
    "FastAPI, a string": (400, {"detail": "No such model"}, "No such model", ""),
    "FastAPI, a list": (422, {"detail": [{"loc": ["body", "n"], "msg": "too large"}]}, "body.n: too large", ""),
    "retired": (410, {"error": {"message": "The endpoint is retired"}}, "The endpoint is retired", ""),
}


@pytest.mark.parametrize(("status", "body", "message", "code"), REJECTIONS.values(), ids=REJECTIONS.keys())
@pytest.mark.parametrize(
    "call", [generation_call(), edit_call(), generation_call(stream=True)], ids=["text", "form", "stream"]
)
def test_rejection_is_relayed_and_no_second_provider_is_called(
    call: ProviderCall,
    status: int,
    body: object,
    message: str,
    code: str,
    upstream: ScriptedProvider,
    http: httpx.Client,
) -> None:
    upstream.respond_with(status, json.dumps(body).encode())
    targets = [image_provider(base_url=upstream.base_url, name=name) for name in ("first", "second")]
    result = fail_over_audio(http, call, targets)
    error = result.error
    assert isinstance(error, ProviderRejected)
    assert (error.status, error.message, error.may_be_billed, len(upstream.requests)) == (status, message, False, 1)
    rendered = json.loads(wire_errors.render_error(error))["error"]
    assert rendered["message"] == message
    assert error.code == (code or error.code)
    assert rendered.get("moderation_details") == (
        MODERATION["moderation_details"] if code == "moderation_blocked" else None
    )


UNUSABLE: dict[str, tuple[str, bytes, str]] = {
    "empty data": ("application/json", b'{"created":1,"data":[]}', "status 200 without a result"),
    "moderated": ("application/json", b'{"data":[],"respect_moderation":false}', "status 200 without a result"),
    "data of null": ("application/json", b'{"data":null}', "status 200 without a result"),
    "only nulls": ("application/json", b'{"data":[null]}', "status 200 without a result"),
    "no data": ("application/json", b'{"images":[{"url":"https://x/1"}]}', "status 200 without a result"),
    "an error": ("application/json", b'{"error":"out of memory"}', "out of memory"),
    "detail": ("application/json", b'{"detail":"out of memory"}', "out of memory"),
    "image": ("image/png", PNG, "the response is not valid JSON"),
    "JPEG labelled as JSON": ("application/json", JPEG, "the response is not valid JSON"),
    "empty": ("application/json", b"", "the response is not valid JSON"),
    "page": ("text/html", b"<h1>Bad gateway</h1>", "not valid JSON: Bad gateway"),
    "cut": ("application/json", IMAGE[:-3], "the response is not valid JSON"),
}


@pytest.mark.parametrize(("content_type", "body", "message"), UNUSABLE.values(), ids=UNUSABLE.keys())
@pytest.mark.parametrize(
    "call", [generation_call(), edit_call(), generation_call(stream=True)], ids=["text", "form", "stream"]
)
def test_success_without_images_is_an_error_that_is_not_retried(
    call: ProviderCall, content_type: str, body: bytes, message: str, upstream: ScriptedProvider, http: httpx.Client
) -> None:
    """The provider may bill for it."""
    upstream.respond_with(200, body, {"content-type": content_type})
    targets = [image_provider(base_url=upstream.base_url, name=name) for name in ("first", "second")]
    result = fail_over_audio(http, call, targets)
    assert (len(upstream.requests), result.attempts, result.unknown_outcomes, result.can_retry) == (1, 1, 1, False)
    error = result.error
    assert isinstance(error, ProviderError)
    assert (type(error), error.status, error.may_be_billed) == (ProviderError, 502, True)
    assert message in error.message
    assert wire_errors.error_headers(error)["x-should-retry"] == "false"


def test_image_instead_of_json_is_an_error_without_its_bytes(
    upstream: ScriptedProvider, target: Provider, http: httpx.Client
) -> None:
    upstream.respond_with(200, PNG, {"content-type": "image/png"})
    with pytest.raises(ProviderError) as raised:
        send_audio(http, target, generation_call())
    assert raised.value.message == "Provider p: the response is not valid JSON"


def test_server_error_of_stable_diffusion_cpp_fails_over(upstream: ScriptedProvider, http: httpx.Client) -> None:
    upstream.respond_with(500, b'{"error":"generate_image returned no results"}')
    upstream.respond_with(200, IMAGE)
    presets = ("stable-diffusion-cpp", "openai")
    targets = [
        image_provider(preset, upstream.base_url, name=preset, priority=-index) for index, preset in enumerate(presets)
    ]
    result = fail_over_audio(http, generation_call(), targets)
    assert (result.provider, result.attempts, result.unknown_outcomes) == ("openai", 2, 0)


def test_mask_is_sent_to_the_first_provider_that_can_read_it(upstream: ScriptedProvider, http: httpx.Client) -> None:
    upstream.respond_with(200, IMAGE)
    presets = ("vllm-omni", "stable-diffusion-cpp", "openai")
    targets = [
        image_provider(preset, upstream.base_url, name=preset, priority=-index) for index, preset in enumerate(presets)
    ]
    files = image_file("image[]"), image_file("mask", TRANSPARENT_PNG)
    result = fail_over_audio(http, edit_call(*files), targets)
    assert (result.provider, result.attempts, len(upstream.requests)) == ("openai", 1, 1)
    request = upstream.requests[0]
    texts = form_field("model", "m"), form_field("prompt", "A fox")
    assert request.body == form_body(*texts, *files, boundary=boundary_of(request.headers["content-type"]))
