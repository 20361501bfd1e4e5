"""What is Anthropic's own: reasoning by effort or by budget, its betas, its cache, its blocks, its errors."""

import json
from typing import Any

import pytest

from aiserver.errors import InvalidRequest, ProviderRejected, ProviderResponse
from aiserver.providers.anthropic import ANTHROPIC
from aiserver.providers.http import ProviderRequest
from aiserver.providers.openai_response import map_error
from aiserver.providers.provider import Provider
from aiserver.providers.translation.adapter import ResponseContext, VendorError
from aiserver.providers.translation.chat import Chat
from aiserver.wire import sse
from tests.vendors.conversations import PDF, TIME, WEATHER, text, user

VENDOR = ANTHROPIC
PROVIDER = Provider.model_validate({"name": "p", "type": "anthropic", "models": {"*": ""}})
BORN = ResponseContext(1_700_000_000, lambda: "call_born")
CACHE = {"type": "ephemeral", "ttl": "1h"}


def chat(model: str = "claude-sonnet-5", /, **more: Any) -> Chat:
    return Chat(json.dumps({"model": model, "messages": [user()], **more}).encode(), VENDOR.capabilities)


def asked(model: str = "claude-sonnet-5", /, **more: Any) -> ProviderRequest:
    return VENDOR.build_request(chat(model, **more))


def sent(model: str = "claude-sonnet-5", /, **more: Any) -> Any:
    return json.loads(asked(model, **more).body or b"")


def refusal(model: str = "claude-sonnet-5", /, **more: Any) -> InvalidRequest:
    with pytest.raises(InvalidRequest) as refused:
        asked(model, **more)
    return refused.value


def blocks(*content: Any, **more: Any) -> Any:
    """The first turn of a user who says that."""
    return sent(messages=[user(list(content))], **more)["messages"][0]["content"]


def answered(*content: Any, **more: Any) -> Any:
    message = {"id": "m", "type": "message", "role": "assistant", "model": "claude", "content": list(content)}
    usage = {"usage": {"input_tokens": 5, "output_tokens": 6}}
    return json.loads(VENDOR.map_response(json.dumps(message | usage | more).encode(), BORN).body)


def streamed(*events: dict[str, Any], chat: Chat | None = None) -> list[Any]:
    """The chunks that come of it."""
    translation = VENDOR.create_event_mapper(chat or Chat(b'{"model":"m","messages":[]}', VENDOR.capabilities), BORN)
    told = b"".join(translation.on_event(sse.format_event(json.dumps(event).encode())) for event in events)
    chunks = [sse.event_data(event) for event in sse.EventSplitter().split(told)]
    return [json.loads(chunk) for chunk in chunks if chunk != sse.DONE]


# --- what is asked ---


@pytest.mark.parametrize("effort", ["low", "medium", "high", "xhigh", "max"])
@pytest.mark.parametrize("model", ["claude-sonnet-5", "claude-opus-4-6", "claude-sonnet-4-6", "claude-mythos-5-2"])
def test_a_model_that_decides_by_itself_is_told_an_effort(model: str, effort: str) -> None:
    body = sent(model, reasoning_effort=effort)
    assert body["thinking"] == {"type": "adaptive", "display": "summarized"}
    assert body["output_config"] == {"effort": effort}
    assert sent(model, reasoning_effort="minimal")["output_config"] == {"effort": "low"}


@pytest.mark.parametrize(
    "model",
    [
        "claude-haiku-4-5-20251001",
        "claude-opus-4-5",
        "claude-sonnet-4-5",
        "claude-opus-4-20250514",
        "claude-3-7-sonnet",
    ],
)
def test_an_older_model_is_told_a_budget_within_what_it_may_write(model: str) -> None:
    budgets = [
        sent(model, reasoning_effort=effort)["thinking"]["budget_tokens"] for effort in ("low", "medium", "high")
    ]
    assert budgets == [1_024, 8_192, 24_576]
    assert "output_config" not in sent(model, reasoning_effort="low")
    assert sent(model, reasoning_effort="high", max_tokens=2_000)["thinking"]["budget_tokens"] == 1_999
    assert sent(model, reasoning_effort="high", max_tokens=1_025)["thinking"]["budget_tokens"] == 1_024
    with pytest.raises(InvalidRequest) as refused:
        asked(model, reasoning_effort="low", max_tokens=1_024)
    assert refused.value.param == "reasoning_effort"


def test_no_effort_is_told_as_such_and_an_unknown_one_refused() -> None:
    assert sent(reasoning_effort="none")["thinking"] == {"type": "disabled"}
    assert "'heroic' is none of minimal, low, medium, high, xhigh" in refusal(reasoning_effort="heroic").message


@pytest.mark.parametrize(
    ("model", "most"),
    [
        ("claude-3-haiku-20240307", 4_096),
        ("claude-3-5-sonnet-20241022", 8_192),
        ("claude-3-7-sonnet", 32_000),
        ("claude-sonnet-5", 32_000),
    ],
)
def test_without_a_limit_a_model_may_write_what_it_can(model: str, most: int) -> None:
    assert sent(model)["max_tokens"] == most
    assert sent(model, max_tokens=7)["max_tokens"] == 7


def test_two_names_of_one_thing_must_agree() -> None:
    assert sent(max_tokens=7, max_completion_tokens=7)["max_tokens"] == 7
    assert refusal(max_tokens=7, max_completion_tokens=8).param == "max_tokens"
    assert sent(user="a", safety_identifier="a")["metadata"] == {"user_id": "a"}
    assert refusal(user="a", safety_identifier="b").param == "user"


SAMPLED = "claude-sonnet-4-20250514"


@pytest.mark.parametrize("sampling", [{"temperature": 0}, {"top_p": 0.5}, {"anthropic": {"top_k": 3}}])
def test_sampling_is_asked_by_the_last_version_that_knows_it(sampling: dict[str, Any]) -> None:
    assert asked(SAMPLED, **sampling).headers["anthropic-version"] == "2023-06-01"
    assert asked(SAMPLED).headers["anthropic-version"] == "2026-10-21"


def test_a_temperature_is_at_most_one() -> None:
    assert sent(SAMPLED, temperature=1, top_p=1)["temperature"] == 1
    assert refusal(SAMPLED, temperature=1.1).param == "temperature"


@pytest.mark.parametrize("model", ["claude-opus-4-7", "claude-opus-4-8", "claude-sonnet-5", "claude-haiku-5-5"])
def test_a_model_that_samples_in_its_own_way_is_told_nothing_of_it(model: str) -> None:
    assert sent(model, temperature=1, top_p=1.0) == sent(model)
    assert asked(model, temperature=1).headers["anthropic-version"] == "2026-10-21"
    assert refusal(model, temperature=0.9).param == "temperature"
    assert refusal(model, temperature=0).param == "temperature"
    assert refusal(model, top_p=0.9).param == "top_p"


@pytest.mark.parametrize("model", ["claude-sonnet-4-6", "claude-haiku-4-5-20251001", "claude-opus-4-1-20250805"])
def test_a_model_that_takes_one_of_both_is_told_one(model: str) -> None:
    assert refusal(model, temperature=0.5, top_p=0.5).param == "top_p"
    assert {"temperature", "top_p"} & sent(model, temperature=0.5, top_p=1).keys() == {"temperature"}
    assert {"temperature", "top_p"} & sent(SAMPLED, temperature=0.5, top_p=0.5).keys() == {"temperature", "top_p"}
    assert {"temperature", "top_p"} & sent("glm-4", temperature=0.5, top_p=1).keys() == {"temperature", "top_p"}


@pytest.mark.parametrize("model", ["claude-sonnet-4-6", SAMPLED])
def test_who_reasons_samples_as_he_must(model: str) -> None:
    warm = refusal(model, reasoning_effort="low", temperature=0.5)
    narrow = refusal(model, reasoning_effort="low", top_p=0.9)
    assert warm.message.endswith("'temperature': while the model reasons it is 1")
    assert narrow.message.endswith("'top_p': while the model reasons it is 1, or from 0.95")
    assert sent(model, reasoning_effort="low", top_p=0.95)["top_p"] == 0.95
    assert sent(model, reasoning_effort="none", temperature=0.5)["temperature"] == 0.5


@pytest.mark.parametrize("choice", ["required", {"type": "function", "function": {"name": "get_time"}}])
def test_who_reasons_by_a_budget_cannot_be_made_to_call(choice: Any) -> None:
    asking: dict[str, Any] = {"tools": [TIME], "tool_choice": choice, "reasoning_effort": "low"}
    assert refusal("claude-haiku-4-5", **asking).param == "tool_choice"
    assert sent("claude-sonnet-4-6", **asking)["thinking"]["type"] == "adaptive"
    assert sent("claude-haiku-4-5", **asking | {"tool_choice": "auto"})["thinking"]["type"] == "enabled"


def test_who_reasons_by_a_budget_does_not_amid_calls_whose_reasoning_is_lost() -> None:
    call = {"id": "c", "type": "function", "function": {"name": "get_time", "arguments": "{}"}}
    turn, result = {"role": "assistant", "tool_calls": [call]}, {"role": "tool", "tool_call_id": "c", "content": "1"}
    kept = turn | {"anthropic": {"content": [THOUGHT, {"type": "tool_use", "id": "c", "name": "f", "input": {}}]}}

    def thinks(model: str, *messages: dict[str, Any]) -> bool:
        return "thinking" in sent(model, messages=list(messages), tools=[TIME], reasoning_effort="low")

    assert not thinks("claude-haiku-4-5", user(), turn, result)
    assert thinks("claude-haiku-4-5", user(), kept, result)
    assert thinks("claude-haiku-4-5", user(), turn, result, {"role": "assistant", "content": "1 o'clock"}, user())
    assert thinks("claude-haiku-4-5", user(), turn, result, user())
    assert thinks("claude-sonnet-4-6", user(), turn, result)


def test_betas_are_a_header() -> None:
    ours = asked(anthropic={"betas": ["one-2026-01-01", "two-2026-01-01"], "top_k": 3})
    assert ours.headers["anthropic-beta"] == "one-2026-01-01,two-2026-01-01"
    assert "betas" not in json.loads(ours.body or b"")
    for wrong in ("one", [""], ["é"], ["a\r\nx: y"], ["a,b"], [1]):
        assert refusal(anthropic={"betas": wrong}).param == "anthropic.betas"


def test_whether_it_streams_is_openai_s_to_say() -> None:
    for streams in (True, False):
        assert refusal(anthropic={"stream": streams}).param == "anthropic.stream"
        assert refusal(stream=True, anthropic={"stream": streams}).param == "anthropic.stream"


def test_a_limit_of_its_own_stands_where_openai_s_is_not_given() -> None:
    assert sent(anthropic={"max_tokens": 5})["max_tokens"] == 5
    assert refusal(max_tokens=6, anthropic={"max_tokens": 5}).param == "anthropic.max_tokens"
    assert sent(max_tokens=0)["max_tokens"] == 0


def test_its_own_members_join_what_is_made_of_openai_s() -> None:
    search = {"type": "web_search_20260209", "name": "web_search"}
    body = sent(
        tools=[TIME], reasoning_effort="low", anthropic={"tools": [search], "output_config": {"task_budget": 1}}
    )
    assert [tool["name"] for tool in body["tools"]] == ["get_time", "web_search"]
    assert body["output_config"] == {"effort": "low", "task_budget": 1}
    assert (
        refusal(reasoning_effort="low", anthropic={"output_config": {"effort": "max"}}).param
        == "anthropic.output_config.effort"
    )
    assert refusal(tools=[TIME], anthropic={"tools": {}}).param == "anthropic.tools"


@pytest.mark.parametrize(("tier", "theirs"), [("auto", "auto"), ("default", "standard_only")])
def test_a_tier_has_its_own_word(tier: str, theirs: str) -> None:
    assert sent(service_tier=tier)["service_tier"] == theirs
    assert refusal(service_tier="flex").param == "service_tier"


@pytest.mark.parametrize(
    ("asked_for", "theirs"),
    [
        ({}, None),
        ({"tool_choice": "none"}, {"type": "none"}),
        ({"tool_choice": "required"}, {"type": "any"}),
        ({"parallel_tool_calls": True}, None),
        ({"parallel_tool_calls": False}, {"type": "auto", "disable_parallel_tool_use": True}),
        (
            {"tool_choice": "required", "parallel_tool_calls": False},
            {"type": "any", "disable_parallel_tool_use": True},
        ),
        ({"tool_choice": "none", "parallel_tool_calls": False}, {"type": "none"}),
        (
            {"tool_choice": {"type": "function", "function": {"name": "get_time"}}, "parallel_tool_calls": False},
            {"type": "tool", "name": "get_time", "disable_parallel_tool_use": True},
        ),
    ],
)
def test_a_choice_of_tools_has_its_own_words(asked_for: dict[str, Any], theirs: Any) -> None:
    assert sent(tools=[TIME], **asked_for).get("tool_choice") == theirs


def test_a_tool_may_be_strict_and_have_no_parameters() -> None:
    function = {"name": "f", "parameters": None, "strict": True}
    (tool,) = sent(tools=[{"type": "function", "function": function}])["tools"]
    assert tool == {"name": "f", "input_schema": {"type": "object", "properties": {}}, "strict": True}
    (tool,) = sent(tools=[{"type": "function", "function": function | {"strict": False}}])["tools"]
    assert "strict" not in tool


def test_what_a_part_says_already_is_not_said_again_by_its_own() -> None:
    twice = refusal(messages=[user([text("a") | {"anthropic": {"text": "b"}}])])
    assert twice.param == "messages[0].content[0].anthropic.text"
    again = refusal(tools=[TIME | {"anthropic": {"name": "other"}}])
    assert again.param == "tools[0].anthropic.name"


def test_without_tools_nothing_is_said_of_their_calls() -> None:
    assert "tool_choice" not in sent(parallel_tool_calls=False)


def test_a_schema_is_told_with_its_description_and_json_without_one_refused() -> None:
    def format(**schema: Any) -> Any:
        return sent(response_format={"type": "json_schema", "json_schema": {"name": "n", **schema}})["output_config"]

    assert format(schema={"type": "object"}) == {"format": {"type": "json_schema", "schema": {"type": "object"}}}
    assert format(schema={"a": 1}, description="D")["format"]["schema"] == {"a": 1, "description": "D"}
    assert format(schema={"description": "E"}, description="D")["format"]["schema"] == {"description": "E"}
    assert refusal(response_format={"type": "json_object"}).param == "response_format.type"
    no_schema = {"type": "json_schema", "json_schema": {"name": "n"}}
    assert refusal(response_format=no_schema).param == "response_format.json_schema.schema"


def test_what_to_cache_is_marked_on_parts_and_tools() -> None:
    marked = text("long") | {"cache_control": CACHE}
    assert blocks(marked) == [{"type": "text", "text": "long", "cache_control": CACHE}]
    image = {"type": "image_url", "image_url": {"url": "https://example.com/a.png"}, "cache_control": CACHE}
    assert blocks(image) == [
        {"type": "image", "source": {"type": "url", "url": "https://example.com/a.png"}, "cache_control": CACHE}
    ]
    assert sent(tools=[WEATHER | {"cache_control": CACHE}])["tools"][0]["cache_control"] == CACHE
    system = {"role": "system", "content": [marked]}
    assert sent(messages=[system, user()])["system"][0]["cache_control"] == CACHE


def test_a_part_a_call_a_tool_and_a_result_may_have_more_of_its_own() -> None:
    paper = {
        "type": "file",
        "file": {"file_data": PDF, "filename": "a.pdf"},
        "anthropic": {"citations": {"enabled": True}},
    }
    (document,) = blocks(paper)
    assert (document["title"], document["citations"]) == ("a.pdf", {"enabled": True})
    assert sent(tools=[TIME | {"anthropic": {"defer_loading": True}}])["tools"][0]["defer_loading"] is True
    call = {"id": "c", "type": "function", "function": {"name": "get_time", "arguments": "{}"}}
    turn = {"role": "assistant", "tool_calls": [call | {"anthropic": {"caller": {"type": "direct"}}}]}
    failed = {"role": "tool", "tool_call_id": "c", "content": "no clock", "anthropic": {"is_error": True}}
    _, called, result = sent(messages=[user(), turn, failed], tools=[TIME])["messages"]
    assert called["content"][0]["caller"] == {"type": "direct"}
    assert result["content"][0]["is_error"] is True


@pytest.mark.parametrize(
    ("url", "source"),
    [
        (
            "data:application/pdf;base64,JVBERg==",
            {"type": "base64", "media_type": "application/pdf", "data": "JVBERg=="},
        ),
        ("data:text/plain;base64,w7w=", {"type": "text", "media_type": "text/plain", "data": "ü"}),
        ("data:text/plain;charset=utf-8;base64,w7w=", {"type": "text", "media_type": "text/plain", "data": "ü"}),
        ("https://example.com/a.pdf", {"type": "url", "url": "https://example.com/a.pdf"}),
    ],
)
def test_a_document_comes_as_data_or_by_its_address(url: str, source: Any) -> None:
    assert blocks({"type": "file", "file": {"file_data": url}}) == [{"type": "document", "source": source}]


@pytest.mark.parametrize(
    "url",
    ["data:application/zip;base64,UEs=", "data:text/plain;base64,/w==", "data:text/plain;base64,a", "file:///a", ""],
)
def test_another_document_is_refused_by_its_place(url: str) -> None:
    told = refusal(messages=[user([text("x"), {"type": "file", "file": {"file_data": url}}])])
    assert told.param == "messages[0].content[1].file.file_data"


def test_a_refusal_names_the_part_as_the_caller_counts_it() -> None:
    odd = {"type": "image_url", "image_url": {"url": "ftp://x"}}
    assert refusal(messages=[user([odd], name="alice")]).param == "messages[0].content[0].image_url.url"
    assert refusal(messages=[user([text("x"), odd], name="alice")]).param == "messages[0].content[1].image_url.url"


@pytest.mark.parametrize("url", ["http://example.com/a.png", "data:image/png,abc", "s3://b/k", ""])
def test_an_image_must_be_data_or_at_an_https_address(url: str) -> None:
    told = refusal(messages=[user([{"type": "image_url", "image_url": {"url": url}}])])
    assert told.param == "messages[0].content[0].image_url.url"


def test_a_media_type_that_many_misspell_is_set_right() -> None:
    (image,) = blocks({"type": "image_url", "image_url": {"url": "data:image/jpg;base64,/9j/"}})
    assert image["source"] == {"type": "base64", "media_type": "image/jpeg", "data": "/9j/"}


def test_an_id_of_another_vendor_s_fits_in_both_places() -> None:
    call = {"id": "functions.f:0", "type": "function", "function": {"name": "f", "arguments": "{}"}}
    result = {"role": "tool", "tool_call_id": "functions.f:0", "content": "x"}
    _, called, told = sent(messages=[user(), {"role": "assistant", "tool_calls": [call]}, result])["messages"]
    assert called["content"][0]["id"] == told["content"][0]["tool_use_id"] == "functions_f_0"


# --- what is answered ---

THOUGHT = {"type": "thinking", "thinking": "Hm.", "signature": "c2ln"}
HIDDEN = {"type": "redacted_thinking", "data": "eHl6"}
SEARCHED = {"type": "server_tool_use", "id": "s", "name": "web_search", "input": {"query": "q"}}
CITED = {"type": "text", "text": "So it is.", "citations": [{"type": "page_location", "cited_text": "it is"}]}


IN_A_SET = {"type": "tool_use", "id": "t", "name": "click", "input": {}, "toolset_name": "computer"}
BY_CODE = {"type": "tool_use", "id": "t", "name": "f", "input": {}, "caller": {"type": "code", "tool_id": "x"}}


@pytest.mark.parametrize("odd", [THOUGHT, HIDDEN, SEARCHED, CITED, IN_A_SET, BY_CODE])
def test_what_openai_has_no_words_for_comes_back_whole_and_is_sent_again_as_it_came(odd: dict[str, Any]) -> None:
    said = [odd, {"type": "text", "text": "Yes."}]
    message = answered(*said)["choices"][0]["message"]
    assert message["anthropic"] == {"content": said}
    assert sent(messages=[user(), message, user()])["messages"][1]["content"] == said
    assert bool(message.get("tool_calls")) == (odd["type"] == "tool_use")


def test_plain_words_and_calls_come_back_in_openai_s_words_alone() -> None:
    call = {"type": "tool_use", "id": "t", "name": "f", "input": {}, "caller": {"type": "direct"}}
    told = answered({"type": "text", "text": "Yes.", "citations": None}, call, stop_reason="tool_use")
    assert "anthropic" not in told
    assert "anthropic" not in told["choices"][0]["message"]


@pytest.mark.parametrize(
    ("theirs", "ours"),
    [
        ("end_turn", "stop"),
        ("stop_sequence", "stop"),
        ("pause_turn", "stop"),
        ("max_tokens", "length"),
        ("model_context_window_exceeded", "length"),
        ("tool_use", "tool_calls"),
        ("refusal", "content_filter"),
        ("something_new", "stop"),
    ],
)
def test_a_stop_reason_has_openai_s_word_and_its_own_where_that_says_less(theirs: str, ours: str) -> None:
    told = answered({"type": "text", "text": "x"}, stop_reason=theirs, stop_sequence=None)
    assert told["choices"][0]["finish_reason"] == ours
    own = None if theirs in ("end_turn", "max_tokens", "tool_use") else {"stop_reason": theirs}
    assert told.get("anthropic") == own


def test_what_was_written_to_the_cache_counts_as_prompt_and_is_told() -> None:
    usage = {"input_tokens": 5, "output_tokens": 6, "cache_creation_input_tokens": 7, "cache_read_input_tokens": 8}
    told = answered(
        stop_reason="end_turn", usage=usage | {"server_tool_use": {"web_search_requests": 1}, "service_tier": None}
    )
    assert told["usage"] == {
        "prompt_tokens": 20,
        "completion_tokens": 6,
        "total_tokens": 26,
        "prompt_tokens_details": {"cached_tokens": 8},
    }
    expected = {"cache_creation_input_tokens": 7, "server_tool_use": {"web_search_requests": 1}}
    assert told["anthropic"] == {"usage": expected}


def test_an_error_in_place_of_an_answer_is_one() -> None:
    with pytest.raises(VendorError) as failed:
        VENDOR.map_response(b'{"type": "error", "error": {"type": "api_error", "message": "x"}}', BORN)
    assert failed.value.has_content


@pytest.mark.parametrize(
    ("type", "status"),
    [
        ("invalid_request_error", 400),
        ("authentication_error", 401),
        ("billing_error", 402),
        ("permission_error", 403),
        ("not_found_error", 404),
        ("request_too_large", 413),
        ("rate_limit_error", 429),
        ("api_error", 500),
        ("timeout_error", 504),
        ("overloaded_error", 529),
        ("something_new", 500),
    ],
)
def test_an_error_in_a_stream_has_the_status_that_its_type_stands_for(type: str, status: int) -> None:
    said = json.dumps({"type": "error", "error": {"type": type, "message": "M"}, "request_id": "req_9"}).encode()
    told = VENDOR.map_error(ProviderResponse(200, {}, said))
    assert (told.status, told.headers) == (status, {"x-request-id": "req_9"})
    assert json.loads(told.body)["error"] == {"message": "M", "type": type, "code": None, "param": None}
    assert VENDOR.map_error(ProviderResponse(418, {"x-request-id": "r"}, said)).status == 418


@pytest.mark.parametrize("named", ["File not found: file_1", "Container not found"])
def test_what_only_a_caller_can_have_named_is_its_caller_s_affair(named: str) -> None:
    said = json.dumps({"type": "error", "error": {"type": "not_found_error", "message": named}}).encode()
    told = VENDOR.map_error(ProviderResponse(404, {}, said))
    assert json.loads(told.body)["error"]["param"] == "anthropic"
    error = map_error(PROVIDER, told, model_is_configured=True, retry_after_s=None)
    assert (type(error), error.status, error.message) == (ProviderRejected, 404, named)


# --- what is streamed ---

BEGUN = {"type": "message_start", "message": {"id": "m", "model": "claude", "usage": {"input_tokens": 5}}}
ENDED: tuple[dict[str, Any], ...] = (
    {"type": "message_delta", "delta": {"stop_reason": "end_turn"}, "usage": {"output_tokens": 2}},
    {"type": "message_stop"},
)


def block(index: int, start: dict[str, Any], *deltas: dict[str, Any]) -> list[dict[str, Any]]:
    pieces = [{"type": "content_block_delta", "index": index, "delta": delta} for delta in deltas]
    started = {"type": "content_block_start", "index": index, "content_block": start}
    return [started, *pieces, {"type": "content_block_stop", "index": index}]


def test_blocks_without_words_of_openai_s_are_told_whole_with_the_end() -> None:
    thought = block(
        *(0, {"type": "thinking", "thinking": "", "signature": ""}),
        *({"type": "thinking_delta", "thinking": "H"}, {"type": "thinking_delta", "thinking": "m."}),
        {"type": "signature_delta", "signature": "c2ln"},
    )
    searched = block(
        *(1, {"type": "server_tool_use", "id": "s", "name": "web_search", "input": {}}),
        *(
            {"type": "input_json_delta", "partial_json": '{"query": '},
            {"type": "input_json_delta", "partial_json": '"q"}'},
        ),
    )
    citation = {"type": "page_location", "cited_text": "it is"}
    cited = block(
        *(2, {"type": "text", "text": "So ", "citations": None}),
        *({"type": "text_delta", "text": "it is."}, {"type": "citations_delta", "citation": citation}),
    )
    chunks = streamed(BEGUN, *thought, *searched, *cited, *ENDED)
    own = chunks[-1]["choices"][0]["delta"]["anthropic"]
    assert own == {"content": [THOUGHT, SEARCHED, CITED]}
    deltas = [chunk["choices"][0]["delta"] for chunk in chunks]
    assert [delta.get("content") for delta in deltas] == ["", None, "So ", "it is.", None]
    assert not any("tool_calls" in delta for delta in deltas)


def test_a_call_whose_arguments_come_at_once_or_never_is_told_with_them() -> None:
    at_once = block(0, {"type": "tool_use", "id": "a", "name": "f", "input": {"x": 1}})
    never = block(1, {"type": "tool_use", "id": "b", "name": "g", "input": {}}, {"type": "input_json_delta"})
    calls = [c for chunk in streamed(BEGUN, *at_once, *never) for c in chunk["choices"][0]["delta"]["tool_calls"]]
    assert [(call["index"], call.get("id"), call["function"]) for call in calls] == [
        (0, "a", {"name": "f", "arguments": ""}),
        (0, None, {"arguments": '{"x": 1}'}),
        (1, "b", {"name": "g", "arguments": ""}),
        (1, None, {"arguments": "{}"}),
    ]


def test_counts_are_those_told_last() -> None:
    counted = {
        "type": "message_delta",
        "delta": {"stop_reason": "end_turn"},
        "usage": {"input_tokens": 9, "output_tokens": 4, "speed": "fast"},
    }
    asked = chat(stream=True, stream_options={"include_usage": True})
    finish, usage = streamed(BEGUN, counted, {"type": "message_stop"}, chat=asked)
    assert usage["usage"] == {"prompt_tokens": 9, "completion_tokens": 4, "total_tokens": 13}
    assert finish["anthropic"] == {"usage": {"speed": "fast"}}
    assert finish["choices"][0] == {
        "index": 0,
        "delta": {"role": "assistant", "content": ""},
        "logprobs": None,
        "finish_reason": "stop",
    }


def test_an_input_that_breaks_off_is_told_as_it_came_and_is_in_no_event_that_is_no_json() -> None:
    thought = block(0, THOUGHT)
    cut = block(
        *(1, {"type": "tool_use", "id": "a", "name": "f", "input": {}}),
        {"type": "input_json_delta", "partial_json": '{"a": "lon'},
    )
    delta: dict[str, Any] = {"type": "message_delta", "delta": {"stop_reason": "max_tokens"}, "usage": {}}
    chunks = streamed(BEGUN, *thought, *cut, delta, {"type": "message_stop"})
    assert chunks[-1]["choices"][0]["delta"]["anthropic"] == {"content": [THOUGHT]}
    assert chunks[-1]["choices"][0]["finish_reason"] == "length"
    assert chunks[-2]["choices"][0]["delta"]["tool_calls"][0]["function"]["arguments"] == '{"a": "lon'


def test_what_a_delta_of_another_year_says_is_its_block_s() -> None:
    compacted = {"type": "compaction_delta", "content": "In short.", "encrypted_content": "x"}
    chunks = streamed(BEGUN, *block(0, {"type": "compaction", "content": None}, compacted), *ENDED)
    own = {"type": "compaction", "content": "In short.", "encrypted_content": "x"}
    assert chunks[-1]["choices"][0]["delta"]["anthropic"] == {"content": [own]}


def test_the_end_is_told_once_though_it_comes_in_parts() -> None:
    first: dict[str, Any] = {"type": "message_delta", "delta": {"stop_reason": None}, "usage": {"output_tokens": 1}}
    container = {"type": "message_delta", "delta": {"container": {"id": "c"}}, "usage": {"output_tokens": 2}}
    chunks = streamed(BEGUN, *block(0, THOUGHT), first, *ENDED[:1], container, *ENDED[1:])
    assert [chunk["choices"][0]["finish_reason"] for chunk in chunks] == [None, "stop"]
    assert chunks[-1]["anthropic"] == {"container": {"id": "c"}}


@pytest.mark.parametrize(
    ("before", "billed"),
    [
        ([], False),
        (block(0, {"type": "text", "text": ""})[:1], False),
        (block(0, SEARCHED), True),
        (block(0, {"type": "tool_use", "id": "t", "name": "f", "input": {}})[:1], True),
        (block(0, {"type": "text", "text": "So"})[:1], True),
        (block(0, {"type": "thinking", "thinking": ""}, {"type": "signature_delta", "signature": "c2ln"}), True),
    ],
)
def test_what_fails_after_work_was_done_may_be_billed(before: list[dict[str, Any]], billed: bool) -> None:
    failure = {"type": "error", "error": {"type": "overloaded_error", "message": "x"}}
    with pytest.raises(VendorError) as failed:
        streamed(BEGUN, *before, failure)
    assert failed.value.has_content is billed


def test_an_error_that_only_its_event_names_is_one() -> None:
    """As servers say it that speak Anthropic's protocol as they understand it."""
    events = VENDOR.create_event_mapper(chat(stream=True), BORN)
    with pytest.raises(VendorError) as failed:
        events.on_event(b'event: error\ndata: {"error": {"message": "no room"}}\n\n')
    assert not failed.value.has_content


def test_pings_and_events_of_another_year_are_passed_over() -> None:
    assert streamed({"type": "ping"}, {"type": "aurora", "index": 3}) == []
    events = VENDOR.create_event_mapper(chat(stream=True), BORN)
    assert events.on_event(b": comment\n\n") == b""


# --- its list of models ---


def test_a_list_of_models_is_read_page_by_page_without_those_that_are_gone() -> None:
    assert VENDOR.model_pages.build_request(None).path == "/v1/models?limit=1000"
    assert VENDOR.model_pages.build_request("b").path == "/v1/models?limit=1000&after_id=b"
    models = [{"id": "a", "lifecycle": "active"}, {"id": "b", "lifecycle": "retired"}, {"id": "c"}]
    page = {"data": models, "has_more": True, "last_id": "c"}
    assert VENDOR.model_pages.parse(json.dumps(page).encode()) == (["a", "c"], "c")
    assert VENDOR.model_pages.parse(json.dumps(page | {"has_more": False}).encode()) == (["a", "c"], None)
