"""The turns of a chat, as Gemini reads them."""

from typing import Any

import pytest

from aiserver.providers.google import GOOGLE
from tests.vendors.conversations import CALLS, PIXEL, image, text, user
from tests.vendors.google_calls import OLDER, assistant, chat, refused, result, sent

ROME, NOW = CALLS
SIGNED = {"google": {"thoughtSignature": "c2lnbmVk"}}


def parts(*content: dict[str, Any]) -> list[dict[str, Any]]:
    return sent(user(list(content)))["contents"][0]["parts"]


def test_what_tools_answered_stands_together_and_apart_from_what_the_user_says() -> None:
    results = [result("call_rome", "sunny"), result("call_now", '{"hour": 12}')]
    contents = sent(user(), assistant(ROME, NOW), *results, user("Thanks"), user("And now?"))["contents"]
    assert [turn["role"] for turn in contents] == ["user", "model", "user", "user"]
    told = [part["functionResponse"] for part in contents[2]["parts"]]
    assert [(one["name"], one["response"]) for one in told] == [
        ("get_weather", {"output": "sunny"}),
        ("get_time", {"hour": 12}),
    ]
    assert contents[3]["parts"] == [{"text": "Thanks"}, {"text": "And now?"}]


@pytest.mark.parametrize("content", ["", "[1]", "null", "12", "{", '{"a": 1} x', "[" * 5000])
def test_what_a_tool_says_is_its_output_unless_it_is_an_object(content: str) -> None:
    told = sent(user(), assistant(ROME), result("call_rome", content))["contents"][2]["parts"][0]
    assert told["functionResponse"]["response"] == {"output": content}


def test_an_object_that_a_tool_brings_keeps_its_numbers() -> None:
    asked = GOOGLE.build_request(chat(user(), assistant(ROME), result("call_rome", '{"x": 1.50e400}')))
    assert asked.body is not None
    assert b'"response":{"x": 1.50e400}' in asked.body


def test_a_result_takes_its_tool_s_name_from_the_call_or_brings_it() -> None:
    orphan = sent(user(), result("call_7", "x", name="get_time"), model=OLDER)["contents"][1]["parts"][0]
    assert orphan["functionResponse"]["name"] == "get_time"
    assert refused(user(), result("call_7", "x")) == "messages[1].tool_call_id"


def test_a_tool_may_show_images() -> None:
    seen = result("call_rome", [text("look"), image(PIXEL)], google={"scheduling": "SILENT"})
    told = sent(user(), assistant(ROME), seen)["contents"][2]["parts"][0]["functionResponse"]
    assert (told["response"], told["scheduling"]) == ({"output": "look"}, "SILENT")
    assert told["parts"][0]["inlineData"]["mimeType"] == "image/gif"


def test_a_call_shows_its_signature_and_the_first_without_one_says_so_since_gemini_3() -> None:
    def signatures(model: str, *calls: dict[str, Any]) -> list[Any]:
        return [p.get("thoughtSignature") for p in sent(assistant(*calls), model=model)["contents"][0]["parts"]]

    assert signatures("gemini-3.8-pro", ROME | SIGNED, NOW) == ["c2lnbmVk", None]
    assert signatures("models/gemini-4-flash", ROME, NOW) == ["skip_thought_signature_validator", None]
    assert signatures(OLDER, ROME, NOW) == [None, None]
    assert signatures("gemma-4-27b-it", ROME) == [None]


def test_parts_that_gemini_said_are_sent_back_as_they_were() -> None:
    said = [{"executableCode": {"language": "PYTHON", "code": "1"}}, {"text": "", "thoughtSignature": "c2ln"}]
    asked = sent(user(), assistant(content="1", google={"parts": said}), user("More"))
    assert asked["contents"][1] == {"role": "model", "parts": said}
    call = {"functionCall": {"id": "c", "name": "f", "args": {}}}
    bare = sent(user(), assistant(google={"parts": [call]}))["contents"][1]["parts"]
    assert bare == [call | {"thoughtSignature": "skip_thought_signature_validator"}]


def test_a_turn_that_says_nothing_is_left_out() -> None:
    silent = [assistant(content=""), assistant(content=[text("")]), user([text("")])]
    assert sent(user("a"), *silent, user("b"))["contents"] == [
        {"role": "user", "parts": [{"text": "a"}, {"text": "b"}]}
    ]


def test_media_are_read_from_data_or_fetched() -> None:
    https = image("https://example.com/a/cat.JPG?sig=x.png")
    assert parts(https)[0]["fileData"] == {
        "mimeType": "image/jpeg",
        "fileUri": "https://example.com/a/cat.JPG?sig=x.png",
    }
    bucket = {"type": "file", "file": {"file_data": "gs://bucket/paper.pdf", "filename": "x"}}
    assert parts(bucket)[0]["fileData"] == {"mimeType": "application/pdf", "fileUri": "gs://bucket/paper.pdf"}
    uploaded = "https://generativelanguage.googleapis.com/v1beta/files/abc"
    assert parts(image(uploaded))[0]["fileData"] == {"fileUri": uploaded}
    named = image(uploaded) | {"google": {"fileData": {"mimeType": "image/png"}}}
    assert parts(named)[0]["fileData"] == {"fileUri": uploaded, "mimeType": "image/png"}
    sound = {"type": "input_audio", "input_audio": {"data": "UklGRg==", "format": "mp3"}}
    assert parts(sound)[0]["inlineData"] == {"mimeType": "audio/mp3", "data": "UklGRg=="}


def test_media_that_it_cannot_read_are_refused_by_their_place() -> None:
    assert refused(user([image("http://example.com/a.png")])) == "messages[0].content[0].image_url.url"
    raw = {"type": "file", "file": {"file_data": "JVBERi0=", "filename": "a.pdf"}}
    assert refused(user([text("x"), raw])) == "messages[0].content[1].file.file_data"
    sound = {"type": "input_audio", "input_audio": {"data": "", "format": "midi"}}
    assert refused(user([sound])) == "messages[0].content[0].input_audio.format"


def test_an_image_is_looked_at_as_closely_as_asked_since_gemini_3() -> None:
    def looked(detail: str) -> dict[str, Any]:
        return {"type": "image_url", "image_url": {"url": PIXEL, "detail": detail}}

    assert parts(looked("high"))[0]["mediaResolution"] == {"level": "MEDIA_RESOLUTION_HIGH"}
    assert "mediaResolution" not in parts(looked("auto"))[0]
    where = "messages[0].content[0].image_url.detail"
    assert refused(user([looked("low")]), model=OLDER) == where
    assert refused(user([looked("original")])) == where
