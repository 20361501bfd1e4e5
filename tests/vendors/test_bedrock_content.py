"""Message parts for Bedrock: images, files, audio, tool results and cache points."""

from typing import Any

import pytest

from tests.vendors.bedrock_events import RESULTS, TOOL_TURNS, refusal, request_body
from tests.vendors.conversations import PDF, PIXEL, TIME, WEATHER, image, text, user


def content(*parts: Any, **members: Any) -> Any:
    """The Bedrock content blocks of a user message with these parts."""
    return request_body(messages=[user(list(parts))], **members)["messages"][0]["content"]


def test_images_are_sent_as_data_or_s3_location() -> None:
    location = {"s3Location": {"uri": "s3://bucket/a.JPG"}}
    assert content(image("s3://bucket/a.JPG")) == [{"image": {"format": "jpeg", "source": location}}]
    part = {**image("s3://bucket/a.png"), "bedrock": {"source": {"s3Location": {"bucketOwner": "1" * 12}}}}
    source = {"s3Location": {"uri": "s3://bucket/a.png", "bucketOwner": "1" * 12}}
    assert content(part) == [{"image": {"format": "png", "source": source}}]
    part["bedrock"] = {"format": "gif"}
    assert refusal(messages=[user([part])]).param == "messages[0].content[0].bedrock.format"
    for url in ("https://example.com/a.png", "data:image/bmp;base64,Qk0=", "s3://bucket/a", "data:image/png,x"):
        assert refusal(messages=[user([image(url)])]).param == "messages[0].content[0].image_url.url"


@pytest.mark.parametrize(
    ("filename", "data", "format", "document_name"),
    [
        ("Q3 report (final).pdf", PDF, "pdf", "Q3 report (final)"),
        ("über_all.v2.pdf", PDF, "pdf", "-ber-all-v2"),
        ("a" * 250 + ".pdf", PDF, "pdf", "a" * 200),
        (None, PDF, "pdf", "document 0-0"),
        ("...", PDF, "pdf", "--"),
        ("notes.md", "data:application/octet-stream;base64,aGk=", "md", "notes"),
        ("n", "data:text/plain;charset=utf-8;base64,aGk=", "txt", "n"),
        (None, "s3://bucket/table.xlsx", "xlsx", "document 0-0"),
    ],
)
def test_file_becomes_a_document_with_a_valid_name(
    filename: str | None, data: str, format: str, document_name: str
) -> None:
    file = {"file_data": data} | ({"filename": filename} if filename else {})
    (block,) = content({"type": "file", "file": file, "bedrock": {"citations": {"enabled": True}}})
    document = block["document"]
    assert (document["format"], document["name"]) == (format, document_name)
    assert document["citations"] == {"enabled": True}


@pytest.mark.parametrize("data", ["https://example.com/a.pdf", "data:image/png;base64,aGk=", "aGk=", "s3://b/a"])
def test_file_of_an_unsupported_kind_is_rejected(data: str) -> None:
    error = refusal(messages=[user([{"type": "file", "file": {"file_data": data}}])])
    assert error.param == "messages[0].content[0].file.file_data"


def test_audio_input_is_sent_as_audio_block() -> None:
    sound = {"type": "input_audio", "input_audio": {"data": "UklGRg==", "format": "wav"}}
    assert content(sound) == [{"audio": {"format": "wav", "source": {"bytes": "UklGRg=="}}}]
    sound["input_audio"]["format"] = "midi"
    assert refusal(messages=[user([sound])]).param == "messages[0].content[0].input_audio.format"


def test_cache_control_becomes_a_cache_point_after_its_block() -> None:
    one_hour = {"cache_control": {"type": "ephemeral", "ttl": "1h"}}
    point = {"cachePoint": {"type": "default", "ttl": "1h"}}
    assert content({**text("long"), **one_hour}, text("short")) == [{"text": "long"}, point, {"text": "short"}]
    system = {"role": "system", "content": [{**text("rules"), "cache_control": {"type": "ephemeral"}}]}
    assert request_body(messages=[system, user()])["system"][1] == {"cachePoint": {"type": "default"}}
    assert request_body(tools=[{**TIME, **one_hour}, WEATHER])["toolConfig"]["tools"][1] == point
    result = {**RESULTS[0], "content": [{**text("done"), **one_hour}]}
    tool_content = request_body(messages=[*TOOL_TURNS[:2], result, RESULTS[1]], tools=[TIME])["messages"][2]["content"]
    assert [next(iter(block)) for block in tool_content] == ["toolResult", "cachePoint", "toolResult"]
    invalid_message = user([{**text("x"), "cache_control": {"type": "forever"}}])
    assert refusal(messages=[invalid_message]).param == "messages[0].content[0].cache_control"


def test_text_part_is_replaced_by_its_vendor_specific_block() -> None:
    guard_block = {"guardContent": {"text": {"text": "Is it?", "qualifiers": ["query"]}}}
    assert content({**text("Is it?"), "bedrock": guard_block}) == [guard_block]
    system = {"role": "system", "content": "x", "bedrock": {"content": [{"text": "y"}]}}
    assert request_body(messages=[system, user()])["system"] == [{"text": "y"}]


def test_tool_result_may_contain_images_or_be_empty() -> None:
    result = {**RESULTS[0], "content": [text("Look"), text(""), image(PIXEL)], "bedrock": {"status": "error"}}
    message = request_body(messages=[*TOOL_TURNS[:2], result, {**RESULTS[1], "content": ""}], tools=[TIME])["messages"][
        2
    ]
    first, second = (block["toolResult"] for block in message["content"])
    assert [list(block) for block in first["content"]] == [["text"], ["image"]]
    assert (first["status"], second["content"]) == ("error", [])


def document_names(*messages: Any) -> list[str]:
    """The names of all documents of a request, in order."""
    request_messages = request_body(messages=list(messages), tools=[TIME])["messages"]
    blocks = [block for turn in request_messages for block in turn["content"]]
    nested_blocks = [block for outer in blocks for block in outer.get("toolResult", {}).get("content", ())]
    return [block["document"]["name"] for block in [*blocks, *nested_blocks] if "document" in block]


def paper(filename: str | None) -> dict[str, Any]:
    return {"type": "file", "file": {"file_data": PDF} | ({"filename": filename} if filename else {})}


def test_document_names_are_unique_over_all_turns_and_results() -> None:
    turn = user([paper("report.pdf"), text("x")])
    assistant_turn = {"role": "assistant", "content": "Yes"}
    tool_output = {**RESULTS[0], "content": [paper("report.pdf")]}
    all_names = document_names(
        turn,
        assistant_turn,
        user([paper("REPORT.docx.pdf"), paper("Report.pdf")]),
        *TOOL_TURNS[1:2],
        tool_output,
        RESULTS[1],
    )
    assert len({document_name.casefold() for document_name in all_names}) == len(all_names) == 4
    assert all_names[0] == "report"
    assert document_names(turn, assistant_turn, turn) == ["report", "report 2"]


def test_document_names_are_unique_after_sanitizing() -> None:
    assert document_names(user([paper("a/b.pdf"), paper("a_b.pdf"), paper("a-b 2.pdf"), paper("a.b.pdf")])) == [
        "a-b",
        "a-b 2",
        "a-b 2 2",
        "a-b 3",
    ]
    long_names = document_names(user([paper("x" * 250 + ".pdf"), paper("x" * 240 + ".pdf")]))
    assert [len(document_name) for document_name in long_names] == [200, 200]
    assert len(set(long_names)) == 2
    vendor_block = {"document": {"format": "pdf", "name": "Report", "source": {"bytes": "aGk="}}}
    vendor_turn = user("x", bedrock={"content": [vendor_block]})
    assert document_names(user([paper("report.pdf"), text("x")]), vendor_turn) == ["report 2", "Report"]
    default_names = document_names(user([paper(None), paper("document 0-0.pdf"), text("x")]))
    assert default_names == ["document 0-0", "document 0-0 2"]
