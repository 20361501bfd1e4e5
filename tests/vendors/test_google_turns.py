"""Conversion of chat messages to Gemini's contents."""

from typing import Any

import pytest

from aiserver.providers.adapters.google import GOOGLE
from tests.vendors.conversations import CALLS, PIXEL, image, text, user
from tests.vendors.google_calls import OLDER_MODEL, assistant, chat, rejected_field, request_body, tool_result

ROME, NOW = CALLS
SIGNATURE = {"google": {"thoughtSignature": "c2lnbmVk"}}


def parts(*content: dict[str, Any]) -> list[dict[str, Any]]:
    return request_body(user(list(content)))["contents"][0]["parts"]


def test_tool_results_form_one_turn_apart_from_user_text() -> None:
    results = [tool_result("call_rome", "sunny"), tool_result("call_now", '{"hour": 12}')]
    contents = request_body(user(), assistant(ROME, NOW), *results, user("Thanks"), user("And now?"))["contents"]
    assert [turn["role"] for turn in contents] == ["user", "model", "user", "user"]
    function_responses = [part["functionResponse"] for part in contents[2]["parts"]]
    assert [(function_response["name"], function_response["response"]) for function_response in function_responses] == [
        ("get_weather", {"output": "sunny"}),
        ("get_time", {"hour": 12}),
    ]
    assert contents[3]["parts"] == [{"text": "Thanks"}, {"text": "And now?"}]


@pytest.mark.parametrize("content", ["", "[1]", "null", "12", "{", '{"a": 1} x', "[" * 5000])
def test_tool_result_that_is_not_an_object_is_wrapped_in_output(content: str) -> None:
    part = request_body(user(), assistant(ROME), tool_result("call_rome", content))["contents"][2]["parts"][0]
    assert part["functionResponse"]["response"] == {"output": content}


def test_tool_result_object_keeps_its_numbers() -> None:
    request = GOOGLE.build_request(chat(user(), assistant(ROME), tool_result("call_rome", '{"x": 1.50e400}')))
    assert request.body is not None
    assert b'"response":{"x": 1.50e400}' in request.body


def test_tool_result_name_comes_from_its_call_or_itself() -> None:
    orphan = request_body(user(), tool_result("call_7", "x", name="get_time"), model=OLDER_MODEL)["contents"][1][
        "parts"
    ][0]
    assert orphan["functionResponse"]["name"] == "get_time"
    assert rejected_field(user(), tool_result("call_7", "x")) == "messages[1].tool_call_id"


def test_tool_result_may_contain_images() -> None:
    tool_output = tool_result("call_rome", [text("look"), image(PIXEL)], google={"scheduling": "SILENT"})
    function_response = request_body(user(), assistant(ROME), tool_output)["contents"][2]["parts"][0][
        "functionResponse"
    ]
    assert (function_response["response"], function_response["scheduling"]) == ({"output": "look"}, "SILENT")
    assert function_response["parts"][0]["inlineData"]["mimeType"] == "image/gif"


def test_function_call_signature_is_sent_or_skipped_since_gemini_3() -> None:
    def signatures(model: str, *calls: dict[str, Any]) -> list[Any]:
        return [p.get("thoughtSignature") for p in request_body(assistant(*calls), model=model)["contents"][0]["parts"]]

    assert signatures("gemini-3.8-pro", ROME | SIGNATURE, NOW) == ["c2lnbmVk", None]
    assert signatures("models/gemini-4-flash", ROME, NOW) == ["skip_thought_signature_validator", None]
    assert signatures(OLDER_MODEL, ROME, NOW) == [None, None]
    assert signatures("gemma-4-27b-it", ROME) == [None]


def test_gemini_parts_are_sent_back_unchanged() -> None:
    parts = [{"executableCode": {"language": "PYTHON", "code": "1"}}, {"text": "", "thoughtSignature": "c2ln"}]
    body = request_body(user(), assistant(content="1", google={"parts": parts}), user("More"))
    assert body["contents"][1] == {"role": "model", "parts": parts}
    call = {"functionCall": {"id": "c", "name": "f", "args": {}}}
    call_parts = request_body(user(), assistant(google={"parts": [call]}))["contents"][1]["parts"]
    assert call_parts == [call | {"thoughtSignature": "skip_thought_signature_validator"}]


def test_empty_turns_are_dropped() -> None:
    empty_turns = [assistant(content=""), assistant(content=[text("")]), user([text("")])]
    assert request_body(user("a"), *empty_turns, user("b"))["contents"] == [
        {"role": "user", "parts": [{"text": "a"}, {"text": "b"}]}
    ]


def test_media_are_sent_as_inline_data_or_file_uri() -> None:
    https = image("https://example.com/a/cat.JPG?sig=x.png")
    assert parts(https)[0]["fileData"] == {
        "mimeType": "image/jpeg",
        "fileUri": "https://example.com/a/cat.JPG?sig=x.png",
    }
    bucket = {"type": "file", "file": {"file_data": "gs://bucket/paper.pdf", "filename": "x"}}
    assert parts(bucket)[0]["fileData"] == {"mimeType": "application/pdf", "fileUri": "gs://bucket/paper.pdf"}
    uploaded = "https://generativelanguage.googleapis.com/v1beta/files/abc"
    assert parts(image(uploaded))[0]["fileData"] == {"fileUri": uploaded}
    typed_image = image(uploaded) | {"google": {"fileData": {"mimeType": "image/png"}}}
    assert parts(typed_image)[0]["fileData"] == {"fileUri": uploaded, "mimeType": "image/png"}
    sound = {"type": "input_audio", "input_audio": {"data": "UklGRg==", "format": "mp3"}}
    assert parts(sound)[0]["inlineData"] == {"mimeType": "audio/mp3", "data": "UklGRg=="}


def test_unsupported_media_are_rejected_with_their_path() -> None:
    assert rejected_field(user([image("http://example.com/a.png")])) == "messages[0].content[0].image_url.url"
    raw_file = {"type": "file", "file": {"file_data": "JVBERi0=", "filename": "a.pdf"}}
    assert rejected_field(user([text("x"), raw_file])) == "messages[0].content[1].file.file_data"
    sound = {"type": "input_audio", "input_audio": {"data": "", "format": "midi"}}
    assert rejected_field(user([sound])) == "messages[0].content[0].input_audio.format"


def test_image_detail_is_sent_as_media_resolution_since_gemini_3() -> None:
    def image_part(detail: str) -> dict[str, Any]:
        return {"type": "image_url", "image_url": {"url": PIXEL, "detail": detail}}

    assert parts(image_part("high"))[0]["mediaResolution"] == {"level": "MEDIA_RESOLUTION_HIGH"}
    assert "mediaResolution" not in parts(image_part("auto"))[0]
    detail_path = "messages[0].content[0].image_url.detail"
    assert rejected_field(user([image_part("low")]), model=OLDER_MODEL) == detail_path
    assert rejected_field(user([image_part("original")])) == detail_path
