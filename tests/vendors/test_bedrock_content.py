"""What Bedrock makes of the parts of a message: images, files, sound, results, and what is to be cached."""

from typing import Any

import pytest

from tests.vendors.bedrock_events import CALLED, RESULTS, refusal, sent
from tests.vendors.conversations import PDF, PIXEL, TIME, WEATHER, image, text, user


def content(*parts: Any, **more: Any) -> Any:
    """What a user's parts become."""
    return sent(messages=[user(list(parts))], **more)["messages"][0]["content"]


def test_images_come_as_data_or_from_s3() -> None:
    where = {"s3Location": {"uri": "s3://bucket/a.JPG"}}
    assert content(image("s3://bucket/a.JPG")) == [{"image": {"format": "jpeg", "source": where}}]
    part = {**image("s3://bucket/a.png"), "bedrock": {"source": {"s3Location": {"bucketOwner": "1" * 12}}}}
    owned = {"s3Location": {"uri": "s3://bucket/a.png", "bucketOwner": "1" * 12}}
    assert content(part) == [{"image": {"format": "png", "source": owned}}]
    part["bedrock"] = {"format": "gif"}
    assert refusal(messages=[user([part])]).param == "messages[0].content[0].bedrock.format"
    for url in ("https://example.com/a.png", "data:image/bmp;base64,Qk0=", "s3://bucket/a", "data:image/png,x"):
        assert refusal(messages=[user([image(url)])]).param == "messages[0].content[0].image_url.url"


@pytest.mark.parametrize(
    ("filename", "data", "format", "named"),
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
def test_a_file_is_a_document_by_a_name_that_may_be(filename: str | None, data: str, format: str, named: str) -> None:
    file = {"file_data": data} | ({"filename": filename} if filename else {})
    (block,) = content({"type": "file", "file": file, "bedrock": {"citations": {"enabled": True}}})
    document = block["document"]
    assert (document["format"], document["name"]) == (format, named)
    assert document["citations"] == {"enabled": True}


@pytest.mark.parametrize("data", ["https://example.com/a.pdf", "data:image/png;base64,aGk=", "aGk=", "s3://b/a"])
def test_a_file_of_another_kind_is_refused(data: str) -> None:
    told = refusal(messages=[user([{"type": "file", "file": {"file_data": data}}])])
    assert told.param == "messages[0].content[0].file.file_data"


def test_sound_is_heard() -> None:
    sound = {"type": "input_audio", "input_audio": {"data": "UklGRg==", "format": "wav"}}
    assert content(sound) == [{"audio": {"format": "wav", "source": {"bytes": "UklGRg=="}}}]
    sound["input_audio"]["format"] = "midi"
    assert refusal(messages=[user([sound])]).param == "messages[0].content[0].input_audio.format"


def test_what_is_to_be_cached_ends_at_a_cache_point() -> None:
    hour = {"cache_control": {"type": "ephemeral", "ttl": "1h"}}
    point = {"cachePoint": {"type": "default", "ttl": "1h"}}
    assert content({**text("long"), **hour}, text("short")) == [{"text": "long"}, point, {"text": "short"}]
    system = {"role": "system", "content": [{**text("rules"), "cache_control": {"type": "ephemeral"}}]}
    assert sent(messages=[system, user()])["system"][1] == {"cachePoint": {"type": "default"}}
    assert sent(tools=[{**TIME, **hour}, WEATHER])["toolConfig"]["tools"][1] == point
    result = {**RESULTS[0], "content": [{**text("done"), **hour}]}
    told = sent(messages=[*CALLED[:2], result, RESULTS[1]], tools=[TIME])["messages"][2]["content"]
    assert [next(iter(block)) for block in told] == ["toolResult", "cachePoint", "toolResult"]
    wrong = user([{**text("x"), "cache_control": {"type": "forever"}}])
    assert refusal(messages=[wrong]).param == "messages[0].content[0].cache_control"


def test_a_text_may_stand_for_any_block() -> None:
    guarded = {"guardContent": {"text": {"text": "Is it?", "qualifiers": ["query"]}}}
    assert content({**text("Is it?"), "bedrock": guarded}) == [guarded]
    system = {"role": "system", "content": "x", "bedrock": {"content": [{"text": "y"}]}}
    assert sent(messages=[system, user()])["system"] == [{"text": "y"}]


def test_a_result_may_hold_more_than_text_or_nothing() -> None:
    result = {**RESULTS[0], "content": [text("Look"), text(""), image(PIXEL)], "bedrock": {"status": "error"}}
    told = sent(messages=[*CALLED[:2], result, {**RESULTS[1], "content": ""}], tools=[TIME])["messages"][2]
    first, second = (block["toolResult"] for block in told["content"])
    assert [list(block) for block in first["content"]] == [["text"], ["image"]]
    assert (first["status"], second["content"]) == ("error", [])


def names(*messages: Any) -> list[str]:
    """The names of all documents of a request, as they stand in it."""
    made = sent(messages=list(messages), tools=[TIME])["messages"]
    blocks = [block for turn in made for block in turn["content"]]
    inner = [block for one in blocks for block in one.get("toolResult", {}).get("content", ())]
    return [block["document"]["name"] for block in [*blocks, *inner] if "document" in block]


def paper(filename: str | None) -> dict[str, Any]:
    return {"type": "file", "file": {"file_data": PDF} | ({"filename": filename} if filename else {})}


def test_document_names_are_unique_over_all_turns_and_results() -> None:
    turn = user([paper("report.pdf"), text("x")])
    answer = {"role": "assistant", "content": "Yes"}
    shown = {**RESULTS[0], "content": [paper("report.pdf")]}
    found = names(turn, answer, user([paper("REPORT.docx.pdf"), paper("Report.pdf")]), *CALLED[1:2], shown, RESULTS[1])
    assert len({one.casefold() for one in found}) == len(found) == 4
    assert found[0] == "report"
    assert names(turn, answer, turn) == ["report", "report 2"]


def test_document_names_equal_once_they_are_valid_are_unique() -> None:
    assert names(user([paper("a/b.pdf"), paper("a_b.pdf"), paper("a-b 2.pdf"), paper("a.b.pdf")])) == [
        "a-b",
        "a-b 2",
        "a-b 2 2",
        "a-b 3",
    ]
    long = names(user([paper("x" * 250 + ".pdf"), paper("x" * 240 + ".pdf")]))
    assert [len(one) for one in long] == [200, 200]
    assert len(set(long)) == 2
    own = {"document": {"format": "pdf", "name": "Report", "source": {"bytes": "aGk="}}}
    raw = user("x", bedrock={"content": [own]})
    assert names(user([paper("report.pdf"), text("x")]), raw) == ["report 2", "Report"]
    unnamed = names(user([paper(None), paper("document 0-0.pdf"), text("x")]))
    assert unnamed == ["document 0-0", "document 0-0 2"]
