"""A response with status 200 without content, or with too much of it, is a provider error."""

import json
from typing import Any

import pytest

from aiserver.errors import ProviderError
from aiserver.limits import MAX_CONTENT_BLOCKS, MAX_ERROR_MESSAGE_CHARS, MAX_RESPONSE_VALUES
from aiserver.providers.adapters.base.translation import MappedEvents
from aiserver.providers.response import ProviderResponse
from aiserver.wire import sse
from tests.memory import peak_bytes
from tests.vendors.dialect import Dialect
from tests.vendors.dialects import DIALECTS, dialect_type
from tests.vendors.semantics import Response
from tests.vendors.test_nonsense import CONTEXT, response_mapper

every_vendor = pytest.mark.parametrize("dialect", DIALECTS, ids=dialect_type)
MESSAGES: list[tuple[Any, str]] = [
    ({"success": False, "message": "quota used up"}, "quota used up"),
    ({"status": "435", "msg": "Model not supported"}, "Model not supported"),
    ({"detail": "no such route"}, "no such route"),
    ({"message": None, "detail": "no such route"}, "no such route"),
    ({"type": "message", "message": "quota used up"}, "quota used up"),
]
WITHOUT_CONTENT: dict[str, list[Any]] = {
    "anthropic": [{}, {"type": "message"}, {"type": "message", "content": None}, {"content": [], "stop_reason": None}]
    + [{"content": [{"type": "text", "text": text}], "stop_reason": None} for text in ("", None)],
    "google": [{}, {"candidates": None}, {"candidates": []}, {"candidates": [{}]}, {"usageMetadata": None}]
    + [{"candidates": [{"content": {"parts": [part]}}]} for part in ({}, {"text": ""}, {"text": None})],
    "bedrock": [
        *({}, {"output": None}, {"stopReason": "end_turn"}, {"output": {"message": None}, "usage": None}),
        {"output": {"message": {"content": [{"text": ""}]}}, "stopReason": None},
    ],
}
EMPTY_RESPONSES: dict[str, list[Any]] = {
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


def map_response(dialect: Dialect, response: Any) -> Any:
    body = response if isinstance(response, bytes) else json.dumps(response).encode()
    return json.loads(response_mapper(dialect).map_response(ProviderResponse(200, {}, body), CONTEXT).body)


def map_failure(dialect: Dialect, response: Any) -> ProviderError:
    with pytest.raises(ProviderError) as failure:
        map_response(dialect, response)
    assert (failure.value.status, failure.value.may_be_billed) == (502, True)
    return failure.value


def map_stream(dialect: Dialect, *payloads: Any) -> list[Any]:
    """The chunks that a stream of these events produces."""
    mapper = MappedEvents(dialect.translator.create_event_mapper(CONTEXT), response_mapper(dialect))
    encoded_events = [
        payload if isinstance(payload, bytes) else sse.format_event(json.dumps(payload).encode())
        for payload in payloads
    ]
    output = b"".join(mapper.on_event(event) for event in encoded_events)
    assert mapper.is_complete
    output += b"" if mapper.is_done else mapper.on_end()
    chunks = [sse.event_data(event) for event in sse.EventSplitter().split(output)]
    return [json.loads(chunk) for chunk in chunks if chunk != sse.DONE]


@every_vendor
@pytest.mark.parametrize(("response", "message"), MESSAGES)
def test_status_200_without_content_is_a_502_with_the_provider_message(
    response: Any, message: str, dialect: Dialect
) -> None:
    assert map_failure(dialect, response).message == message


@every_vendor
def test_status_200_without_content_or_message_is_a_502(dialect: Dialect) -> None:
    for response in (*WITHOUT_CONTENT[dialect.type], [], {"message": None}):
        assert map_failure(dialect, response).message == "Provider p: the response contains no completion"
    assert len(map_failure(dialect, {"message": "x" * 100_000}).message) == MAX_ERROR_MESSAGE_CHARS


@every_vendor
def test_empty_response_with_stop_reason_is_accepted(dialect: Dialect) -> None:
    for response in EMPTY_RESPONSES[dialect.type]:
        (choice,) = map_response(dialect, response)["choices"]
        assert (choice["message"]["content"], choice["finish_reason"]) == (None, "stop")


@every_vendor
def test_response_without_stop_reason_is_accepted(dialect: Dialect) -> None:
    response = json.loads(dialect.encode_response(Response("Hi")))
    for reason in ("stop_reason", "stopReason"):
        if reason in response:
            response[reason] = None
    for candidate in response.get("candidates", ()):
        candidate["finishReason"] = None
    (choice,) = map_response(dialect, response)["choices"]
    assert (choice["message"]["content"], choice["finish_reason"]) == ("Hi", "stop")


@pytest.mark.parametrize("dialect", [dialect for dialect in DIALECTS if dialect.type != "bedrock"], ids=dialect_type)
@pytest.mark.parametrize(("event", "message"), [case for case in MESSAGES if "type" not in case[0]])
def test_stream_event_with_only_a_message_is_a_502_with_it(event: Any, message: str, dialect: Dialect) -> None:
    with pytest.raises(ProviderError) as failure:
        map_stream(dialect, event)
    assert (failure.value.message, failure.value.status, failure.value.may_be_billed) == (message, 502, True)


STREAMS_WITHOUT_CONTENT: dict[str, list[Any]] = {
    "anthropic": [{"type": "message_start", "message": {"id": "m"}}, {"type": "message_stop"}],
    "google": [{"candidates": [], "usageMetadata": {"promptTokenCount": 3}}],
    "bedrock": [{"messageStart": {"role": "assistant"}}, {"messageStop": {"stopReason": None}}],
}


@every_vendor
def test_stream_that_ends_without_content_is_a_502(dialect: Dialect) -> None:
    with pytest.raises(ProviderError) as failure:
        map_stream(dialect, *STREAMS_WITHOUT_CONTENT[dialect.type])
    assert (failure.value.status, failure.value.may_be_billed) == (502, True)


EVENTS_WITH_NULLS: dict[str, list[Any]] = {
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
def test_nulls_in_stream_events_are_ignored(dialect: Dialect) -> None:
    chunks = map_stream(dialect, *EVENTS_WITH_NULLS[dialect.type])
    choices = [chunk["choices"][0] for chunk in chunks if chunk["choices"]]
    assert "".join(choice["delta"].get("content") or "" for choice in choices) == "Hi"
    assert choices[-1]["finish_reason"] == "stop"


RESPONSES_WITH_NULLS: dict[str, Any] = {
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
def test_nulls_in_a_response_are_ignored(dialect: Dialect) -> None:
    message = map_response(dialect, RESPONSES_WITH_NULLS[dialect.type])["choices"][0]["message"]
    assert message["content"] == "Hi"
    assert message["tool_calls"] == [
        {"id": "call_born", "type": "function", "function": {"name": "f", "arguments": "{}"}}
    ]
    assert dialect.type not in message


def blocks(dialect: Dialect, number: int, block: bytes) -> bytes:
    """A complete response with that number of blocks."""
    content = b",".join([block] * number)
    return {
        "anthropic": b'{"type":"message","stop_reason":"end_turn","content":[%b]}',
        "google": b'{"candidates":[{"finishReason":"STOP","content":{"parts":[%b]}}]}',
        "bedrock": b'{"stopReason":"end_turn","output":{"message":{"content":[%b]}}}',
    }[dialect.type] % content


def text_block(dialect: Dialect) -> bytes:
    return b'{"type":"text","text":"a"}' if dialect.type == "anthropic" else b'{"text":"a"}'


@every_vendor
def test_content_block_limit_is_accepted_and_more_is_an_error(dialect: Dialect) -> None:
    limit = MAX_CONTENT_BLOCKS - (dialect.type == "google")  # the candidate counts as one
    body = blocks(dialect, limit, text_block(dialect))
    assert len(map_response(dialect, body)["choices"][0]["message"]["content"]) == limit
    assert (
        "100,000 content blocks"
        in map_failure(dialect, blocks(dialect, MAX_CONTENT_BLOCKS + 1, text_block(dialect))).message
    )


@every_vendor
@pytest.mark.parametrize("block", [b"{}", b"7", b"null", b"[]", b'"{"'])
def test_too_many_content_blocks_are_rejected_before_decoding(block: bytes, dialect: Dialect) -> None:
    body = blocks(dialect, 500_000, block)
    assert peak_bytes(lambda: map_failure(dialect, body)) < 30 * 1024 * 1024


VALUE_TEMPLATES: dict[str, list[bytes]] = {  # places for small values other than content blocks
    "anthropic": [b'{"content":[{"type":"text","text":"a","citations":[%b]}],"stop_reason":"end_turn"}'],
    "google": [
        b'{"candidates":[%b]}',
        b'{"candidates":[{"finishReason":"STOP","logprobsResult":{"chosenCandidates":[%b]}}]}',
    ],
    "bedrock": [b'{"output":{"message":{"content":[{"citationsContent":{"content":[%b]}}]}},"stopReason":"end_turn"}'],
}


@pytest.mark.parametrize(
    ("dialect", "template"), [(dialect, body) for dialect in DIALECTS for body in VALUE_TEMPLATES[dialect.type]]
)
@pytest.mark.parametrize("element", [b"{}", b"0", b"[]"])
def test_too_many_values_are_rejected_before_decoding(element: bytes, template: bytes, dialect: Dialect) -> None:
    body = template % b",".join([element] * (MAX_RESPONSE_VALUES + 1))
    assert peak_bytes(lambda: map_failure(dialect, body)) < 30 * 1024 * 1024


@every_vendor
def test_event_with_too_many_values_is_rejected_before_decoding(dialect: Dialect) -> None:
    body = VALUE_TEMPLATES[dialect.type][0] % b",".join([b"{}"] * (MAX_RESPONSE_VALUES + 1))
    with pytest.raises(ProviderError, match="too large"):
        map_stream(dialect, sse.format_event(body))


def test_too_many_candidates_are_rejected_in_response_and_stream() -> None:
    (google,) = (dialect for dialect in DIALECTS if dialect.type == "google")
    body = b'{"candidates":[%b]}' % b",".join([b'{"content":{"parts":[{"text":"a"}]}}'] * 1025)
    assert "1,024 candidates" in map_failure(google, body).message
    with pytest.raises(ProviderError, match="1,024 candidates"):
        map_stream(google, sse.format_event(body))


COMPLETE_STREAMS: dict[str, list[Any]] = {
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
@pytest.mark.parametrize(
    "trailing_data", [b"[DONE]", b"null", b"garbage", b'{"type":null}', b'{"a":', b'{"message":"late"}']
)
def test_data_after_a_complete_stream_is_ignored(trailing_data: bytes, dialect: Dialect) -> None:
    complete = COMPLETE_STREAMS[dialect.type]
    expected = map_stream(dialect, *complete)
    assert map_stream(dialect, *complete, sse.format_event(trailing_data)) == expected
    assert expected[-1]["choices"][0]["finish_reason"] == "stop"


@every_vendor
def test_braces_within_a_text_do_not_count_as_content_blocks(dialect: Dialect) -> None:
    content = "{" * (MAX_CONTENT_BLOCKS + 1)
    block = text_block(dialect).replace(b'"a"', json.dumps(content).encode())
    assert map_response(dialect, blocks(dialect, 1, block))["choices"][0]["message"]["content"] == content
