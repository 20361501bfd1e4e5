"""The Anthropic adapter: reasoning, sampling, betas, prompt caching, content blocks, streams and errors."""

import json
from dataclasses import replace
from typing import Any

import pytest

from aiserver.errors import InvalidRequest, ProviderRejected
from aiserver.providers.adapters.anthropic import ANTHROPIC
from aiserver.providers.adapters.base.adapter import ResponseContext, VendorError
from aiserver.providers.adapters.base.chat import Chat
from aiserver.providers.adapters.base.validate import parse_chat
from aiserver.providers.call import Upstream
from aiserver.providers.error_mapping import map_error
from aiserver.providers.provider import Provider
from aiserver.providers.request import ProviderRequest
from aiserver.providers.response import ProviderResponse
from aiserver.wire import sse
from tests.vendors.conversations import PDF, TIME, WEATHER, text, user

PROVIDER = Provider.model_validate({"name": "p", "type": "anthropic", "models": {"*": ""}})
UPSTREAM = Upstream(PROVIDER, "claude-sonnet-5", model_is_configured=True)
CONTEXT = ResponseContext(1_700_000_000, lambda: "call_born")
CACHE = {"type": "ephemeral", "ttl": "1h"}


def chat(model: str = "claude-sonnet-5", /, **members: Any) -> Chat:
    return parse_chat(json.dumps({"model": model, "messages": [user()], **members}).encode(), ANTHROPIC.capabilities)


def build_request(model: str = "claude-sonnet-5", /, **members: Any) -> ProviderRequest:
    return ANTHROPIC.build_request(chat(model, **members))


def request_body(model: str = "claude-sonnet-5", /, **members: Any) -> Any:
    return json.loads(build_request(model, **members).body or b"")


def refusal(model: str = "claude-sonnet-5", /, **members: Any) -> InvalidRequest:
    with pytest.raises(InvalidRequest) as rejection:
        build_request(model, **members)
    return rejection.value


def blocks(*content: Any, **members: Any) -> Any:
    """The content blocks of a user message with these parts."""
    return request_body(messages=[user(list(content))], **members)["messages"][0]["content"]


def map_response(*content: Any, **fields: Any) -> Any:
    message = {"id": "m", "type": "message", "role": "assistant", "model": "claude", "content": list(content)}
    usage = {"usage": {"input_tokens": 5, "output_tokens": 6}}
    return json.loads(ANTHROPIC.map_response(json.dumps(message | usage | fields).encode(), CONTEXT).body)


def map_stream(*events: dict[str, Any], context: ResponseContext = CONTEXT) -> list[Any]:
    """The chunks that a stream of these events produces."""
    mapper = ANTHROPIC.create_event_mapper(context)
    output = b"".join(mapper.on_event(sse.format_event(json.dumps(event).encode())) for event in events)
    chunks = [sse.event_data(event) for event in sse.EventSplitter().split(output)]
    return [json.loads(chunk) for chunk in chunks if chunk != sse.DONE]


# --- requests ---


@pytest.mark.parametrize("effort", ["low", "medium", "high", "xhigh", "max"])
@pytest.mark.parametrize("model", ["claude-sonnet-5", "claude-opus-4-6", "claude-sonnet-4-6", "claude-mythos-5-2"])
def test_reasoning_effort_is_sent_as_adaptive_thinking(model: str, effort: str) -> None:
    body = request_body(model, reasoning_effort=effort)
    assert body["thinking"] == {"type": "adaptive", "display": "summarized"}
    assert body["output_config"] == {"effort": effort}
    assert request_body(model, reasoning_effort="minimal")["output_config"] == {"effort": "low"}


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
def test_reasoning_budget_of_older_models_is_below_max_tokens(model: str) -> None:
    budgets = [
        request_body(model, reasoning_effort=effort)["thinking"]["budget_tokens"]
        for effort in ("low", "medium", "high")
    ]
    assert budgets == [1_024, 8_192, 24_576]
    assert "output_config" not in request_body(model, reasoning_effort="low")
    assert request_body(model, reasoning_effort="high", max_tokens=2_000)["thinking"]["budget_tokens"] == 1_999
    assert request_body(model, reasoning_effort="high", max_tokens=1_025)["thinking"]["budget_tokens"] == 1_024
    with pytest.raises(InvalidRequest) as rejection:
        build_request(model, reasoning_effort="low", max_tokens=1_024)
    assert rejection.value.param == "reasoning_effort"


def test_reasoning_effort_none_disables_thinking_and_unknown_is_rejected() -> None:
    assert request_body(reasoning_effort="none")["thinking"] == {"type": "disabled"}
    assert "'heroic' is not supported" in refusal(reasoning_effort="heroic").message


@pytest.mark.parametrize(
    ("model", "limit"),
    [
        ("claude-3-haiku-20240307", 4_096),
        ("claude-3-5-sonnet-20241022", 8_192),
        ("claude-3-7-sonnet", 32_000),
        ("claude-sonnet-5", 32_000),
    ],
)
def test_max_tokens_defaults_to_the_limit_of_the_model(model: str, limit: int) -> None:
    assert request_body(model)["max_tokens"] == limit
    assert request_body(model, max_tokens=7)["max_tokens"] == 7


def test_conflicting_aliases_are_rejected() -> None:
    assert request_body(max_tokens=7, max_completion_tokens=7)["max_tokens"] == 7
    assert refusal(max_tokens=7, max_completion_tokens=8).param == "max_tokens"
    assert request_body(user="a", safety_identifier="a")["metadata"] == {"user_id": "a"}
    assert refusal(user="a", safety_identifier="b").param == "user"


SAMPLING_MODEL = "claude-sonnet-4-20250514"


@pytest.mark.parametrize("sampling", [{"temperature": 0}, {"top_p": 0.5}, {"anthropic": {"top_k": 3}}])
def test_sampling_parameters_select_the_older_api_version(sampling: dict[str, Any]) -> None:
    assert build_request(SAMPLING_MODEL, **sampling).headers["anthropic-version"] == "2023-06-01"
    assert build_request(SAMPLING_MODEL).headers["anthropic-version"] == "2026-10-21"


def test_temperature_above_one_is_rejected() -> None:
    assert request_body(SAMPLING_MODEL, temperature=1, top_p=1)["temperature"] == 1
    assert refusal(SAMPLING_MODEL, temperature=1.1).param == "temperature"


@pytest.mark.parametrize("model", ["claude-opus-4-7", "claude-opus-4-8", "claude-sonnet-5", "claude-haiku-5-5"])
def test_sampling_parameters_are_omitted_for_models_without_them(model: str) -> None:
    """Values other than the default are rejected."""
    assert request_body(model, temperature=1, top_p=1.0) == request_body(model)
    assert build_request(model, temperature=1).headers["anthropic-version"] == "2026-10-21"
    assert refusal(model, temperature=0.9).param == "temperature"
    assert refusal(model, temperature=0).param == "temperature"
    assert refusal(model, top_p=0.9).param == "top_p"


@pytest.mark.parametrize("model", ["claude-sonnet-4-6", "claude-haiku-4-5-20251001", "claude-opus-4-1-20250805"])
def test_temperature_and_top_p_are_exclusive_for_newer_models(model: str) -> None:
    assert refusal(model, temperature=0.5, top_p=0.5).param == "top_p"
    assert {"temperature", "top_p"} & request_body(model, temperature=0.5, top_p=1).keys() == {"temperature"}
    assert {"temperature", "top_p"} & request_body(SAMPLING_MODEL, temperature=0.5, top_p=0.5).keys() == {
        "temperature",
        "top_p",
    }
    assert {"temperature", "top_p"} & request_body("glm-4", temperature=0.5, top_p=1).keys() == {"temperature", "top_p"}


@pytest.mark.parametrize("model", ["claude-sonnet-4-6", SAMPLING_MODEL])
def test_reasoning_restricts_sampling_parameters(model: str) -> None:
    temperature_error = refusal(model, reasoning_effort="low", temperature=0.5)
    top_p_error = refusal(model, reasoning_effort="low", top_p=0.9)
    assert temperature_error.message == "'temperature' must be 1 for Anthropic: reasoning is enabled"
    assert top_p_error.message == "'top_p' must be at least 0.95 for Anthropic: reasoning is enabled"
    assert request_body(model, reasoning_effort="low", top_p=0.95)["top_p"] == 0.95
    assert request_body(model, reasoning_effort="none", temperature=0.5)["temperature"] == 0.5


@pytest.mark.parametrize("choice", ["required", {"type": "function", "function": {"name": "get_time"}}])
def test_budget_reasoning_rejects_forced_tool_choice(choice: Any) -> None:
    members: dict[str, Any] = {"tools": [TIME], "tool_choice": choice, "reasoning_effort": "low"}
    assert refusal("claude-haiku-4-5", **members).param == "tool_choice"
    assert request_body("claude-sonnet-4-6", **members)["thinking"]["type"] == "adaptive"
    assert request_body("claude-haiku-4-5", **members | {"tool_choice": "auto"})["thinking"]["type"] == "enabled"


def test_budget_reasoning_is_off_after_calls_without_signed_reasoning() -> None:
    call = {"id": "c", "type": "function", "function": {"name": "get_time", "arguments": "{}"}}
    turn, result = {"role": "assistant", "tool_calls": [call]}, {"role": "tool", "tool_call_id": "c", "content": "1"}
    signed_turn = turn | {
        "anthropic": {"content": [THINKING, {"type": "tool_use", "id": "c", "name": "f", "input": {}}]}
    }

    def thinks(model: str, *messages: dict[str, Any]) -> bool:
        return "thinking" in request_body(model, messages=list(messages), tools=[TIME], reasoning_effort="low")

    assert not thinks("claude-haiku-4-5", user(), turn, result)
    assert thinks("claude-haiku-4-5", user(), signed_turn, result)
    assert thinks("claude-haiku-4-5", user(), turn, result, {"role": "assistant", "content": "1 o'clock"}, user())
    assert thinks("claude-haiku-4-5", user(), turn, result, user())
    assert thinks("claude-sonnet-4-6", user(), turn, result)


def test_betas_are_sent_as_header_and_validated() -> None:
    request = build_request(anthropic={"betas": ["one-2026-01-01", "two-2026-01-01"], "top_k": 3})
    assert request.headers["anthropic-beta"] == "one-2026-01-01,two-2026-01-01"
    assert "betas" not in json.loads(request.body or b"")
    for betas in ("one", [""], ["é"], ["a\r\nx: y"], ["a,b"], [1]):
        assert refusal(anthropic={"betas": betas}).param == "anthropic.betas"


def test_stream_extension_field_is_rejected() -> None:
    for streams in (True, False):
        assert refusal(anthropic={"stream": streams}).param == "anthropic.stream"
        assert refusal(stream=True, anthropic={"stream": streams}).param == "anthropic.stream"


def test_max_tokens_extension_is_used_without_openai_limit() -> None:
    assert request_body(anthropic={"max_tokens": 5})["max_tokens"] == 5
    assert refusal(max_tokens=6, anthropic={"max_tokens": 5}).param == "anthropic.max_tokens"
    assert request_body(max_tokens=0)["max_tokens"] == 0


def test_vendor_specific_fields_are_merged_with_mapped_ones() -> None:
    search = {"type": "web_search_20260209", "name": "web_search"}
    body = request_body(
        tools=[TIME], reasoning_effort="low", anthropic={"tools": [search], "output_config": {"task_budget": 1}}
    )
    assert [tool["name"] for tool in body["tools"]] == ["get_time", "web_search"]
    assert body["output_config"] == {"effort": "low", "task_budget": 1}
    assert (
        refusal(reasoning_effort="low", anthropic={"output_config": {"effort": "max"}}).param
        == "anthropic.output_config.effort"
    )
    assert refusal(tools=[TIME], anthropic={"tools": {}}).param == "anthropic.tools"


@pytest.mark.parametrize(("tier", "anthropic_tier"), [("auto", "auto"), ("default", "standard_only")])
def test_service_tier_is_mapped(tier: str, anthropic_tier: str) -> None:
    assert request_body(service_tier=tier)["service_tier"] == anthropic_tier
    assert refusal(service_tier="flex").param == "service_tier"


@pytest.mark.parametrize(
    ("members", "expected"),
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
def test_tool_choice_and_parallel_tool_calls_are_mapped(members: dict[str, Any], expected: Any) -> None:
    assert request_body(tools=[TIME], **members).get("tool_choice") == expected


def test_tool_may_be_strict_and_without_parameters() -> None:
    function = {"name": "f", "parameters": None, "strict": True}
    (tool,) = request_body(tools=[{"type": "function", "function": function}])["tools"]
    assert tool == {"name": "f", "input_schema": {"type": "object", "properties": {}}, "strict": True}
    (tool,) = request_body(tools=[{"type": "function", "function": function | {"strict": False}}])["tools"]
    assert "strict" not in tool


def test_extension_that_conflicts_with_a_mapped_field_is_rejected() -> None:
    part_error = refusal(messages=[user([text("a") | {"anthropic": {"text": "b"}}])])
    assert part_error.param == "messages[0].content[0].anthropic.text"
    tool_error = refusal(tools=[TIME | {"anthropic": {"name": "other"}}])
    assert tool_error.param == "tools[0].anthropic.name"


def test_parallel_tool_calls_without_tools_is_omitted() -> None:
    assert "tool_choice" not in request_body(parallel_tool_calls=False)


def test_response_schema_keeps_its_description_and_is_required() -> None:
    def output_config(**schema: Any) -> Any:
        return request_body(response_format={"type": "json_schema", "json_schema": {"name": "n", **schema}})[
            "output_config"
        ]

    assert output_config(schema={"type": "object"}) == {"format": {"type": "json_schema", "schema": {"type": "object"}}}
    assert output_config(schema={"a": 1}, description="D")["format"]["schema"] == {"a": 1, "description": "D"}
    assert output_config(schema={"description": "E"}, description="D")["format"]["schema"] == {"description": "E"}
    assert refusal(response_format={"type": "json_object"}).param == "response_format.type"
    no_schema = {"type": "json_schema", "json_schema": {"name": "n"}}
    assert refusal(response_format=no_schema).param == "response_format.json_schema.schema"


def test_cache_control_is_sent_on_parts_tools_and_system() -> None:
    cached = text("long") | {"cache_control": CACHE}
    assert blocks(cached) == [{"type": "text", "text": "long", "cache_control": CACHE}]
    image = {"type": "image_url", "image_url": {"url": "https://example.com/a.png"}, "cache_control": CACHE}
    assert blocks(image) == [
        {"type": "image", "source": {"type": "url", "url": "https://example.com/a.png"}, "cache_control": CACHE}
    ]
    assert request_body(tools=[WEATHER | {"cache_control": CACHE}])["tools"][0]["cache_control"] == CACHE
    system = {"role": "system", "content": [cached]}
    assert request_body(messages=[system, user()])["system"][0]["cache_control"] == CACHE


def test_parts_calls_tools_and_results_accept_vendor_specific_fields() -> None:
    paper = {
        "type": "file",
        "file": {"file_data": PDF, "filename": "a.pdf"},
        "anthropic": {"citations": {"enabled": True}},
    }
    (document,) = blocks(paper)
    assert (document["title"], document["citations"]) == ("a.pdf", {"enabled": True})
    assert request_body(tools=[TIME | {"anthropic": {"defer_loading": True}}])["tools"][0]["defer_loading"] is True
    call = {"id": "c", "type": "function", "function": {"name": "get_time", "arguments": "{}"}}
    turn = {"role": "assistant", "tool_calls": [call | {"anthropic": {"caller": {"type": "direct"}}}]}
    failed = {"role": "tool", "tool_call_id": "c", "content": "no clock", "anthropic": {"is_error": True}}
    _, call_turn, result = request_body(messages=[user(), turn, failed], tools=[TIME])["messages"]
    assert call_turn["content"][0]["caller"] == {"type": "direct"}
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
def test_document_is_sent_as_data_or_url(url: str, source: Any) -> None:
    assert blocks({"type": "file", "file": {"file_data": url}}) == [{"type": "document", "source": source}]


@pytest.mark.parametrize(
    "url",
    ["data:application/zip;base64,UEs=", "data:text/plain;base64,/w==", "data:text/plain;base64,a", "file:///a", ""],
)
def test_unsupported_document_is_rejected_with_its_path(url: str) -> None:
    error = refusal(messages=[user([text("x"), {"type": "file", "file": {"file_data": url}}])])
    assert error.param == "messages[0].content[1].file.file_data"


def test_error_param_counts_the_content_parts_of_the_caller() -> None:
    invalid_image = {"type": "image_url", "image_url": {"url": "ftp://x"}}
    assert refusal(messages=[user([invalid_image], name="alice")]).param == "messages[0].content[0].image_url.url"
    assert (
        refusal(messages=[user([text("x"), invalid_image], name="alice")]).param
        == "messages[0].content[1].image_url.url"
    )


@pytest.mark.parametrize("url", ["http://example.com/a.png", "data:image/png,abc", "s3://b/k", ""])
def test_image_must_be_a_data_url_or_https_url(url: str) -> None:
    error = refusal(messages=[user([{"type": "image_url", "image_url": {"url": url}}])])
    assert error.param == "messages[0].content[0].image_url.url"


def test_image_jpg_media_type_is_corrected_to_image_jpeg() -> None:
    (image,) = blocks({"type": "image_url", "image_url": {"url": "data:image/jpg;base64,/9j/"}})
    assert image["source"] == {"type": "base64", "media_type": "image/jpeg", "data": "/9j/"}


def test_invalid_tool_call_id_is_replaced_in_call_and_result() -> None:
    call = {"id": "functions.f:0", "type": "function", "function": {"name": "f", "arguments": "{}"}}
    result = {"role": "tool", "tool_call_id": "functions.f:0", "content": "x"}
    _, call_turn, result_turn = request_body(messages=[user(), {"role": "assistant", "tool_calls": [call]}, result])[
        "messages"
    ]
    assert call_turn["content"][0]["id"] == result_turn["content"][0]["tool_use_id"] == "functions_f_0"


# --- responses ---

THINKING = {"type": "thinking", "thinking": "Hm.", "signature": "c2ln"}
REDACTED_THOUGHT = {"type": "redacted_thinking", "data": "eHl6"}
WEB_SEARCH = {"type": "server_tool_use", "id": "s", "name": "web_search", "input": {"query": "q"}}
CITED_TEXT = {"type": "text", "text": "So it is.", "citations": [{"type": "page_location", "cited_text": "it is"}]}


TOOLSET_CALL = {"type": "tool_use", "id": "t", "name": "click", "input": {}, "toolset_name": "computer"}
CODE_CALL = {"type": "tool_use", "id": "t", "name": "f", "input": {}, "caller": {"type": "code", "tool_id": "x"}}


@pytest.mark.parametrize("vendor_block", [THINKING, REDACTED_THOUGHT, WEB_SEARCH, CITED_TEXT, TOOLSET_CALL, CODE_CALL])
def test_block_without_openai_equivalent_round_trips(vendor_block: dict[str, Any]) -> None:
    content = [vendor_block, {"type": "text", "text": "Yes."}]
    message = map_response(*content)["choices"][0]["message"]
    assert message["anthropic"] == {"content": content}
    assert request_body(messages=[user(), message, user()])["messages"][1]["content"] == content
    assert bool(message.get("tool_calls")) == (vendor_block["type"] == "tool_use")


def test_text_and_tool_calls_need_no_extension() -> None:
    call = {"type": "tool_use", "id": "t", "name": "f", "input": {}, "caller": {"type": "direct"}}
    completion = map_response({"type": "text", "text": "Yes.", "citations": None}, call, stop_reason="tool_use")
    assert "anthropic" not in completion
    assert "anthropic" not in completion["choices"][0]["message"]


@pytest.mark.parametrize(
    ("stop_reason", "finish_reason"),
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
def test_stop_reason_is_mapped_and_kept_when_more_specific(stop_reason: str, finish_reason: str) -> None:
    completion = map_response({"type": "text", "text": "x"}, stop_reason=stop_reason, stop_sequence=None)
    assert completion["choices"][0]["finish_reason"] == finish_reason
    extension = None if stop_reason in ("end_turn", "max_tokens", "tool_use") else {"stop_reason": stop_reason}
    assert completion.get("anthropic") == extension


def test_cache_writes_count_as_prompt_tokens_and_are_reported() -> None:
    usage = {"input_tokens": 5, "output_tokens": 6, "cache_creation_input_tokens": 7, "cache_read_input_tokens": 8}
    completion = map_response(
        stop_reason="end_turn", usage=usage | {"server_tool_use": {"web_search_requests": 1}, "service_tier": None}
    )
    assert completion["usage"] == {
        "prompt_tokens": 20,
        "completion_tokens": 6,
        "total_tokens": 26,
        "prompt_tokens_details": {"cached_tokens": 8},
    }
    expected = {"cache_creation_input_tokens": 7, "server_tool_use": {"web_search_requests": 1}}
    assert completion["anthropic"] == {"usage": expected}


def test_error_body_with_status_200_is_an_error() -> None:
    with pytest.raises(VendorError) as failed:
        ANTHROPIC.map_response(b'{"type": "error", "error": {"type": "api_error", "message": "x"}}', CONTEXT)
    assert failed.value.has_content


@pytest.mark.parametrize(
    ("error_type", "status"),
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
def test_error_type_maps_to_its_status(error_type: str, status: int) -> None:
    body = json.dumps({"type": "error", "error": {"type": error_type, "message": "M"}, "request_id": "req_9"}).encode()
    mapped = ANTHROPIC.map_error(ProviderResponse(200, {}, body))
    assert (mapped.status, mapped.headers) == (status, {"x-request-id": "req_9"})
    assert json.loads(mapped.body)["error"] == {"message": "M", "type": error_type, "code": None, "param": None}
    assert ANTHROPIC.map_error(ProviderResponse(418, {"x-request-id": "r"}, body)).status == 418


@pytest.mark.parametrize("message", ["File not found: file_1", "Container not found"])
def test_not_found_of_a_caller_s_file_is_a_client_error(message: str) -> None:
    body = json.dumps({"type": "error", "error": {"type": "not_found_error", "message": message}}).encode()
    mapped = ANTHROPIC.map_error(ProviderResponse(404, {}, body))
    assert json.loads(mapped.body)["error"]["param"] == "anthropic"
    error = map_error(UPSTREAM, mapped, retry_after_s=None)
    assert (type(error), error.status, error.message) == (ProviderRejected, 404, message)


# --- streams ---

MESSAGE_START = {"type": "message_start", "message": {"id": "m", "model": "claude", "usage": {"input_tokens": 5}}}
MESSAGE_END: tuple[dict[str, Any], ...] = (
    {"type": "message_delta", "delta": {"stop_reason": "end_turn"}, "usage": {"output_tokens": 2}},
    {"type": "message_stop"},
)


def block_events(index: int, start: dict[str, Any], *deltas: dict[str, Any]) -> list[dict[str, Any]]:
    delta_events = [{"type": "content_block_delta", "index": index, "delta": delta} for delta in deltas]
    start_event = {"type": "content_block_start", "index": index, "content_block": start}
    return [start_event, *delta_events, {"type": "content_block_stop", "index": index}]


def test_block_without_openai_equivalent_is_sent_at_the_end() -> None:
    thinking = block_events(
        *(0, {"type": "thinking", "thinking": "", "signature": ""}),
        *({"type": "thinking_delta", "thinking": "H"}, {"type": "thinking_delta", "thinking": "m."}),
        {"type": "signature_delta", "signature": "c2ln"},
    )
    search = block_events(
        *(1, {"type": "server_tool_use", "id": "s", "name": "web_search", "input": {}}),
        *(
            {"type": "input_json_delta", "partial_json": '{"query": '},
            {"type": "input_json_delta", "partial_json": '"q"}'},
        ),
    )
    citation = {"type": "page_location", "cited_text": "it is"}
    cited_text = block_events(
        *(2, {"type": "text", "text": "So ", "citations": None}),
        *({"type": "text_delta", "text": "it is."}, {"type": "citations_delta", "citation": citation}),
    )
    chunks = map_stream(MESSAGE_START, *thinking, *search, *cited_text, *MESSAGE_END)
    extension = chunks[-1]["choices"][0]["delta"]["anthropic"]
    assert extension == {"content": [THINKING, WEB_SEARCH, CITED_TEXT]}
    deltas = [chunk["choices"][0]["delta"] for chunk in chunks]
    assert [delta.get("content") for delta in deltas] == ["", None, "So ", "it is.", None]
    assert not any("tool_calls" in delta for delta in deltas)


def test_tool_call_arguments_may_come_at_once_or_never() -> None:
    at_once = block_events(0, {"type": "tool_use", "id": "a", "name": "f", "input": {"x": 1}})
    never = block_events(1, {"type": "tool_use", "id": "b", "name": "g", "input": {}}, {"type": "input_json_delta"})
    calls = [
        c for chunk in map_stream(MESSAGE_START, *at_once, *never) for c in chunk["choices"][0]["delta"]["tool_calls"]
    ]
    assert [(call["index"], call.get("id"), call["function"]) for call in calls] == [
        (0, "a", {"name": "f", "arguments": ""}),
        (0, None, {"arguments": '{"x": 1}'}),
        (1, "b", {"name": "g", "arguments": ""}),
        (1, None, {"arguments": "{}"}),
    ]


def test_usage_is_taken_from_the_last_event() -> None:
    message_delta = {
        "type": "message_delta",
        "delta": {"stop_reason": "end_turn"},
        "usage": {"input_tokens": 9, "output_tokens": 4, "speed": "fast"},
    }
    context = replace(CONTEXT, include_usage=True)
    finish, usage = map_stream(MESSAGE_START, message_delta, {"type": "message_stop"}, context=context)
    assert usage["usage"] == {"prompt_tokens": 9, "completion_tokens": 4, "total_tokens": 13}
    assert finish["anthropic"] == {"usage": {"speed": "fast"}}
    assert finish["choices"][0] == {
        "index": 0,
        "delta": {"role": "assistant", "content": ""},
        "logprobs": None,
        "finish_reason": "stop",
    }


def test_truncated_tool_input_is_forwarded_and_not_in_the_extension() -> None:
    thinking = block_events(0, THINKING)
    truncated_call = block_events(
        *(1, {"type": "tool_use", "id": "a", "name": "f", "input": {}}),
        {"type": "input_json_delta", "partial_json": '{"a": "lon'},
    )
    delta: dict[str, Any] = {"type": "message_delta", "delta": {"stop_reason": "max_tokens"}, "usage": {}}
    chunks = map_stream(MESSAGE_START, *thinking, *truncated_call, delta, {"type": "message_stop"})
    assert chunks[-1]["choices"][0]["delta"]["anthropic"] == {"content": [THINKING]}
    assert chunks[-1]["choices"][0]["finish_reason"] == "length"
    assert chunks[-2]["choices"][0]["delta"]["tool_calls"][0]["function"]["arguments"] == '{"a": "lon'


def test_unknown_delta_is_merged_into_its_block() -> None:
    compaction = {"type": "compaction_delta", "content": "In short.", "encrypted_content": "x"}
    chunks = map_stream(
        MESSAGE_START, *block_events(0, {"type": "compaction", "content": None}, compaction), *MESSAGE_END
    )
    expected = {"type": "compaction", "content": "In short.", "encrypted_content": "x"}
    assert chunks[-1]["choices"][0]["delta"]["anthropic"] == {"content": [expected]}


def test_end_split_over_several_events_is_sent_once() -> None:
    first: dict[str, Any] = {"type": "message_delta", "delta": {"stop_reason": None}, "usage": {"output_tokens": 1}}
    container = {"type": "message_delta", "delta": {"container": {"id": "c"}}, "usage": {"output_tokens": 2}}
    chunks = map_stream(MESSAGE_START, *block_events(0, THINKING), first, *MESSAGE_END[:1], container, *MESSAGE_END[1:])
    assert [chunk["choices"][0]["finish_reason"] for chunk in chunks] == [None, "stop"]
    assert chunks[-1]["anthropic"] == {"container": {"id": "c"}}


@pytest.mark.parametrize(
    ("events", "may_be_billed"),
    [
        ([], False),
        (block_events(0, {"type": "text", "text": ""})[:1], False),
        (block_events(0, WEB_SEARCH), True),
        (block_events(0, {"type": "tool_use", "id": "t", "name": "f", "input": {}})[:1], True),
        (block_events(0, {"type": "text", "text": "So"})[:1], True),
        (block_events(0, {"type": "thinking", "thinking": ""}, {"type": "signature_delta", "signature": "c2ln"}), True),
    ],
)
def test_stream_error_is_billable_only_after_output(events: list[dict[str, Any]], may_be_billed: bool) -> None:
    failure = {"type": "error", "error": {"type": "overloaded_error", "message": "x"}}
    with pytest.raises(VendorError) as failed:
        map_stream(MESSAGE_START, *events, failure)
    assert failed.value.has_content is may_be_billed


def test_error_event_without_type_is_an_error() -> None:
    """Some compatible servers omit the type in the data of an error event."""
    events = ANTHROPIC.create_event_mapper(CONTEXT)
    with pytest.raises(VendorError) as failed:
        events.on_event(b'event: error\ndata: {"error": {"message": "no room"}}\n\n')
    assert not failed.value.has_content


def test_pings_and_unknown_events_are_ignored() -> None:
    assert map_stream({"type": "ping"}, {"type": "aurora", "index": 3}) == []
    events = ANTHROPIC.create_event_mapper(CONTEXT)
    assert events.on_event(b": comment\n\n") == b""


# --- model list ---


def test_model_list_is_paged_and_omits_retired_models() -> None:
    assert ANTHROPIC.model_pages.build_request(None).path == "/v1/models?limit=1000"
    assert ANTHROPIC.model_pages.build_request("b").path == "/v1/models?limit=1000&after_id=b"
    models = [{"id": "a", "lifecycle": "active"}, {"id": "b", "lifecycle": "retired"}, {"id": "c"}]
    page = {"data": models, "has_more": True, "last_id": "c"}
    assert ANTHROPIC.model_pages.parse(json.dumps(page).encode()) == (["a", "c"], "c")
    assert ANTHROPIC.model_pages.parse(json.dumps(page | {"has_more": False}).encode()) == (["a", "c"], None)
