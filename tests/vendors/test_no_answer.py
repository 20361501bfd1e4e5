"""A response with status 200 that holds no answer, or too much of one, is an error of the provider's."""

import json
from typing import Any

import pytest

from aiserver.errors import ProviderError, ProviderResponse
from aiserver.limits import MAX_ANSWER_VALUES, MAX_CONTENT_BLOCKS, MAX_REASON_CHARS
from aiserver.providers.translation.chat import Chat
from aiserver.providers.translation.client import MappedEvents
from aiserver.wire import sse
from tests.memory import peak_bytes
from tests.vendors.dialect import Dialect
from tests.vendors.dialects import DIALECTS, name
from tests.vendors.semantics import Answer
from tests.vendors.test_nonsense import BORN, judge

every_vendor = pytest.mark.parametrize("dialect", DIALECTS, ids=name)
WORDS: list[tuple[Any, str]] = [
    ({"success": False, "message": "quota used up"}, "quota used up"),
    ({"status": "435", "msg": "Model not supported"}, "Model not supported"),
    ({"detail": "no such route"}, "no such route"),
    ({"message": None, "detail": "no such route"}, "no such route"),
    ({"type": "message", "message": "quota used up"}, "quota used up"),
]
SILENT: dict[str, list[Any]] = {
    "anthropic": [{}, {"type": "message"}, {"type": "message", "content": None}, {"content": [], "stop_reason": None}]
    + [{"content": [{"type": "text", "text": text}], "stop_reason": None} for text in ("", None)],
    "google": [{}, {"candidates": None}, {"candidates": []}, {"candidates": [{}]}, {"usageMetadata": None}]
    + [{"candidates": [{"content": {"parts": [part]}}]} for part in ({}, {"text": ""}, {"text": None})],
    "bedrock": [
        *({}, {"output": None}, {"stopReason": "end_turn"}, {"output": {"message": None}, "usage": None}),
        {"output": {"message": {"content": [{"text": ""}]}}, "stopReason": None},
    ],
}
EMPTY: dict[str, list[Any]] = {
    "anthropic": [
        {"content": [], "stop_reason": "end_turn"},
        {"content": None, "stop_reason": "end_turn", "usage": None},
    ],
    "google": [
        {"candidates": [{"finishReason": "STOP", "content": None, "index": None}]},
        {"candidates": [{"finishReason": "STOP", "content": {"parts": None, "role": "model"}}], "usageMetadata": None},
    ],
    "bedrock": [
        {"output": {"message": {"role": "assistant", "content": []}}, "stopReason": "end_turn", "usage": None},
        {"output": {"message": {"role": "assistant", "content": None}}, "stopReason": "end_turn", "metrics": None},
    ],
}


def whole(dialect: Dialect, said: Any) -> Any:
    body = said if isinstance(said, bytes) else json.dumps(said).encode()
    return json.loads(judge(dialect).map_response(ProviderResponse(200, {}, body), BORN).body)


def failed(dialect: Dialect, said: Any) -> ProviderError:
    with pytest.raises(ProviderError) as failure:
        whole(dialect, said)
    assert (failure.value.status, failure.value.may_be_billed) == (502, True)
    return failure.value


def streamed(dialect: Dialect, *said: Any) -> list[Any]:
    """The chunks of a stream of these events."""
    events = MappedEvents(
        dialect.vendor.create_event_mapper(Chat(b'{"model":"m","messages":[]}', dialect.vendor.capabilities), BORN),
        judge(dialect),
    )
    each = [one if isinstance(one, bytes) else sse.format_event(json.dumps(one).encode()) for one in said]
    told = b"".join(events.on_event(event) for event in each)
    assert events.is_complete
    told += b"" if events.is_done else events.on_end()
    chunks = [sse.event_data(event) for event in sse.EventSplitter().split(told)]
    return [json.loads(chunk) for chunk in chunks if chunk != sse.DONE]


@every_vendor
@pytest.mark.parametrize(("said", "words"), WORDS)
def test_200_without_an_answer_is_a_502_with_the_provider_s_words(said: Any, words: str, dialect: Dialect) -> None:
    assert failed(dialect, said).message == words


@every_vendor
def test_200_without_an_answer_and_without_words_is_a_502(dialect: Dialect) -> None:
    for said in (*SILENT[dialect.type], [], {"message": None}):
        assert failed(dialect, said).message == "Provider p: the response holds no answer"
    assert len(failed(dialect, {"message": "x" * 100_000}).message) == MAX_REASON_CHARS


@every_vendor
def test_empty_answer_that_ended_is_an_answer(dialect: Dialect) -> None:
    for said in EMPTY[dialect.type]:
        (choice,) = whole(dialect, said)["choices"]
        assert (choice["message"]["content"], choice["finish_reason"]) == (None, "stop")


@every_vendor
def test_answer_whose_reason_to_end_is_missing_is_an_answer(dialect: Dialect) -> None:
    said = json.loads(dialect.message(Answer("Hi")))
    for reason in ("stop_reason", "stopReason"):
        if reason in said:
            said[reason] = None
    for candidate in said.get("candidates", ()):
        candidate["finishReason"] = None
    (choice,) = whole(dialect, said)["choices"]
    assert (choice["message"]["content"], choice["finish_reason"]) == ("Hi", "stop")


@pytest.mark.parametrize("dialect", [one for one in DIALECTS if one.type != "bedrock"], ids=name)
@pytest.mark.parametrize(("said", "words"), [one for one in WORDS if "type" not in one[0]])
def test_stream_event_without_an_answer_is_a_502_with_its_words(said: Any, words: str, dialect: Dialect) -> None:
    with pytest.raises(ProviderError) as failure:
        streamed(dialect, said)
    assert (failure.value.message, failure.value.status, failure.value.may_be_billed) == (words, 502, True)


NOTHING_SAID: dict[str, list[Any]] = {
    "anthropic": [{"type": "message_start", "message": {"id": "m"}}, {"type": "message_stop"}],
    "google": [{"candidates": [], "usageMetadata": {"promptTokenCount": 3}}],
    "bedrock": [{"messageStart": {"role": "assistant"}}, {"messageStop": {"stopReason": None}}],
}


@every_vendor
def test_stream_that_ends_without_content_is_a_502(dialect: Dialect) -> None:
    with pytest.raises(ProviderError) as failure:
        streamed(dialect, *NOTHING_SAID[dialect.type])
    assert (failure.value.status, failure.value.may_be_billed) == (502, True)


NULLS: dict[str, list[Any]] = {
    "anthropic": [
        {"type": "message_start", "message": {"id": None, "model": "m", "content": None, "usage": None}, "index": None},
        {
            "type": "content_block_start",
            "index": None,
            "content_block": {"type": "text", "text": None, "citations": None},
        },
        {"type": "content_block_delta", "index": None, "delta": None},
        {"type": "content_block_delta", "index": 0, "delta": {"type": "text_delta", "text": None}},
        {"type": "content_block_delta", "index": 0, "delta": {"type": "text_delta", "text": "Hi", "thinking": None}},
        {"type": "content_block_stop", "index": None},
        {"type": "message_delta", "delta": None, "usage": None},
        {
            "type": "message_delta",
            "delta": {"stop_reason": "end_turn", "stop_sequence": None},
            "usage": {"output_tokens": None},
        },
        {"type": "message_stop", "usage": None},
    ],
    "google": [
        {"candidates": None, "usageMetadata": None, "responseId": "r", "error": None},
        {"candidates": [{"content": None, "index": None, "finishReason": None}], "promptFeedback": None},
        {"candidates": [{"content": {"parts": None}, "logprobsResult": None}], "modelVersion": None},
        {
            "candidates": [
                {"content": {"parts": [{"text": "Hi", "thought": None, "functionCall": None}]}, "index": None}
            ]
        },
        {"candidates": [{"content": None, "finishReason": "STOP"}], "usageMetadata": {"promptTokenCount": None}},
    ],
    "bedrock": [
        {"messageStart": None},
        {"contentBlockStart": {"contentBlockIndex": None, "start": None}},
        {"contentBlockDelta": {"contentBlockIndex": 0, "delta": None}},
        {"contentBlockDelta": {"contentBlockIndex": 0, "delta": {"text": None, "toolUse": None}}},
        {"contentBlockDelta": {"contentBlockIndex": None, "delta": {"text": "Hi"}}},
        {"contentBlockStop": {"contentBlockIndex": None}},
        {"messageStop": {"stopReason": "end_turn", "additionalModelResponseFields": None}},
        {"metadata": {"usage": None, "metrics": None}},
    ],
}


@every_vendor
def test_nulls_in_stream_events_are_absent(dialect: Dialect) -> None:
    chunks = streamed(dialect, *NULLS[dialect.type])
    choices = [chunk["choices"][0] for chunk in chunks if chunk["choices"]]
    assert "".join(choice["delta"].get("content") or "" for choice in choices) == "Hi"
    assert choices[-1]["finish_reason"] == "stop"


WITH_NULLS: dict[str, Any] = {
    "anthropic": {
        "id": None,
        "content": [
            {"type": "text", "text": "Hi", "citations": None, "id": None, "input": None},
            {"type": "tool_use", "id": None, "name": "f", "input": None, "caller": None},
        ],
        "stop_reason": None,
        "usage": {"input_tokens": 1, "output_tokens_details": {"thinking_tokens": None}},
    },
    "google": {
        "candidates": [
            {
                "content": {
                    "parts": [
                        {"text": "Hi", "inlineData": None},
                        {"functionCall": {"id": None, "name": "f", "args": None}},
                    ]
                },
                "logprobsResult": {"chosenCandidates": None},
            }
        ],
        "usageMetadata": {"promptTokenCount": None},
    },
    "bedrock": {
        "output": {
            "message": {
                "content": [
                    {"text": "Hi", "toolUse": None},
                    {"text": None, "toolUse": {"toolUseId": None, "name": "f", "input": None, "type": None}},
                ]
            }
        },
        "stopReason": None,
        "usage": {"inputTokens": 1, "outputTokens": None},
    },
}


@every_vendor
def test_nulls_in_a_whole_answer_are_absent(dialect: Dialect) -> None:
    message = whole(dialect, WITH_NULLS[dialect.type])["choices"][0]["message"]
    assert message["content"] == "Hi"
    assert message["tool_calls"] == [
        {"id": "call_born", "type": "function", "function": {"name": "f", "arguments": "{}"}}
    ]
    assert dialect.type not in message


def blocks(dialect: Dialect, number: int, block: bytes) -> bytes:
    """A whole answer of so many blocks."""
    content = b",".join([block] * number)
    return {
        "anthropic": b'{"type":"message","stop_reason":"end_turn","content":[%b]}',
        "google": b'{"candidates":[{"finishReason":"STOP","content":{"parts":[%b]}}]}',
        "bedrock": b'{"stopReason":"end_turn","output":{"message":{"content":[%b]}}}',
    }[dialect.type] % content


def text_block(dialect: Dialect) -> bytes:
    return b'{"type":"text","text":"a"}' if dialect.type == "anthropic" else b'{"text":"a"}'


@every_vendor
def test_answer_of_as_many_content_blocks_as_may_be_is_accepted(dialect: Dialect) -> None:
    most = MAX_CONTENT_BLOCKS - (dialect.type == "google")  # its candidate counts
    body = blocks(dialect, most, text_block(dialect))
    assert len(whole(dialect, body)["choices"][0]["message"]["content"]) == most
    assert (
        "100,000 content blocks"
        in failed(dialect, blocks(dialect, MAX_CONTENT_BLOCKS + 1, text_block(dialect))).message
    )


@every_vendor
@pytest.mark.parametrize("odd", [b"{}", b"7", b"null", b"[]", b'"{"'])
def test_too_many_content_blocks_are_refused_before_they_are_built(odd: bytes, dialect: Dialect) -> None:
    body = blocks(dialect, 500_000, odd)
    assert peak_bytes(lambda: failed(dialect, body)) < 30 * 1024 * 1024


MANY: dict[str, list[bytes]] = {  # where small values stand that are no content blocks
    "anthropic": [b'{"content":[{"type":"text","text":"a","citations":[%b]}],"stop_reason":"end_turn"}'],
    "google": [
        b'{"candidates":[%b]}',
        b'{"candidates":[{"finishReason":"STOP","logprobsResult":{"chosenCandidates":[%b]}}]}',
    ],
    "bedrock": [b'{"output":{"message":{"content":[{"citationsContent":{"content":[%b]}}]}},"stopReason":"end_turn"}'],
}


@pytest.mark.parametrize(("dialect", "around"), [(one, body) for one in DIALECTS for body in MANY[one.type]])
@pytest.mark.parametrize("small", [b"{}", b"0", b"[]"])
def test_too_many_values_of_any_kind_are_refused_before_they_are_built(
    small: bytes, around: bytes, dialect: Dialect
) -> None:
    body = around % b",".join([small] * (MAX_ANSWER_VALUES + 1))
    assert peak_bytes(lambda: failed(dialect, body)) < 30 * 1024 * 1024


@every_vendor
def test_an_event_of_too_many_values_is_refused_before_it_is_built(dialect: Dialect) -> None:
    body = MANY[dialect.type][0] % b",".join([b"{}"] * (MAX_ANSWER_VALUES + 1))
    with pytest.raises(ProviderError, match="too large"):
        streamed(dialect, sse.format_event(body))


def test_too_many_candidates_are_refused_whole_and_streamed() -> None:
    (google,) = (one for one in DIALECTS if one.type == "google")
    body = b'{"candidates":[%b]}' % b",".join([b'{"content":{"parts":[{"text":"a"}]}}'] * 1025)
    assert "1,024 candidates" in failed(google, body).message
    with pytest.raises(ProviderError, match="1,024 candidates"):
        streamed(google, sse.format_event(body))


COMPLETE: dict[str, list[Any]] = {
    "anthropic": [
        {"type": "message_start", "message": {"id": "m", "model": "claude"}},
        {"type": "content_block_start", "index": 0, "content_block": {"type": "text", "text": ""}},
        {"type": "content_block_delta", "index": 0, "delta": {"type": "text_delta", "text": "Hi"}},
        {"type": "content_block_stop", "index": 0},
        {"type": "message_delta", "delta": {"stop_reason": "end_turn"}},
    ],
    "google": [{"candidates": [{"content": {"parts": [{"text": "Hi"}]}, "finishReason": "STOP"}]}],
    "bedrock": [
        {"contentBlockDelta": {"contentBlockIndex": 0, "delta": {"text": "Hi"}}},
        {"messageStop": {"stopReason": "end_turn"}},
    ],
}


@every_vendor
@pytest.mark.parametrize("after", [b"[DONE]", b"null", b"garbage", b'{"type":null}', b'{"a":', b'{"message":"late"}'])
def test_what_follows_a_complete_answer_takes_nothing_back(after: bytes, dialect: Dialect) -> None:
    complete = COMPLETE[dialect.type]
    expected = streamed(dialect, *complete)
    assert streamed(dialect, *complete, sse.format_event(after)) == expected
    assert expected[-1]["choices"][0]["finish_reason"] == "stop"


@every_vendor
def test_braces_within_a_text_are_no_content_blocks(dialect: Dialect) -> None:
    words = "{" * (MAX_CONTENT_BLOCKS + 1)
    block = text_block(dialect).replace(b'"a"', json.dumps(words).encode())
    assert whole(dialect, blocks(dialect, 1, block))["choices"][0]["message"]["content"] == words
