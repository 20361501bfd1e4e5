"""The request fields that Anthropic's Messages API supports, and its tables of limits, stop reasons and statuses.

Source: https://platform.claude.com/docs/en/api/messages
"""

import re

from aiserver.providers.adapters.base.capabilities import Capabilities, Mapped, PassThrough, Unsupported

_INVALID_ID_CHARS = re.compile(r"[^a-zA-Z0-9_-]")


def normalize_call_id(id: str) -> str:
    """Replace the characters of another vendor's id that Anthropic does not allow."""
    return _INVALID_ID_CHARS.sub("_", id)


CAPABILITIES = Capabilities(
    "Anthropic",
    "anthropic",
    {
        "model": PassThrough("model"),
        "messages": Mapped("`messages`; consecutive messages of one role are merged"),
        "messages[].role: system": Mapped("`system`: all system messages in order, from any position"),
        "messages[].role: developer": Mapped("as system"),
        "messages[].role: user": Mapped("`user`"),
        "messages[].role: assistant": Mapped("`assistant`"),
        "messages[].role: tool": Mapped("`tool_result` in a user message"),
        "messages[].name": Mapped("prefix of the text: `alice: …`; a tool's name is taken from its call"),
        "messages[].tool_calls": Mapped(
            "`tool_use`; invalid characters of an id become `_`; empty and repeated ids become unique"
        ),
        "messages[].reasoning_content": Mapped(
            "not sent: only signed reasoning is accepted, and `anthropic.content` of the response contains it"
        ),
        "messages[].reasoning": Mapped("as reasoning_content"),
        "messages[].parsed": Mapped("not sent: the parsed content that OpenAI's client adds"),
        "messages[].tool_calls[].function.parsed_arguments": Mapped(
            "not sent: the parsed arguments that OpenAI's client adds"
        ),
        "messages[].tool_calls[].index": Mapped("not sent: an index within a stream"),
        "messages[].refusal": Mapped("`text`"),
        "messages[].annotations": Mapped("not sent: annotations of the text for readers"),
        "messages[].content[].text": Mapped("`text`; texts of only white space are skipped"),
        "messages[].content[].refusal": Mapped("`text`"),
        "messages[].content[].image_url": Mapped("`image`: data and https URLs"),
        "messages[].content[].image_url (assistant)": Unsupported("assistant messages cannot contain images"),
        "messages[].content[].image_url (tool)": Mapped("`image`"),
        "messages[].content[].image_url.detail": Unsupported("the image resolution cannot be selected"),
        "messages[].content[].file": Mapped("`document`: a PDF or plain text, as data or https URL"),
        "messages[].content[].file (tool)": Mapped("`document`"),
        "messages[].content[].file (assistant)": Unsupported("assistant messages cannot contain files"),
        "messages[].content[].file.file_id": Unsupported(
            "OpenAI's file ids are not valid here; name Anthropic's own file in `anthropic`"
        ),
        "messages[].content[].input_audio": Unsupported("no audio input"),
        "messages[].content[].input_audio (assistant)": Unsupported("no audio input"),
        "messages[].content[].input_audio (tool)": Unsupported("no audio input"),
        "messages[].content[].cache_control": PassThrough("cache_control"),
        "messages[].audio": Unsupported("no audio input"),
        "messages[].function_call": Unsupported("use tool_calls"),
        "tools": Mapped("`tools`; a schema without a type gets `type: object`"),
        "tools[].function.strict": PassThrough("strict"),
        "tools[].cache_control": PassThrough("cache_control"),
        "tool_choice": Mapped(
            "`tool_choice`: `auto`, `none`, `any`, `tool`; without tools not sent, `required` and a function are "
            "rejected"
        ),
        "parallel_tool_calls": Mapped("`tool_choice.disable_parallel_tool_use`"),
        "functions": Unsupported("use tools"),
        "function_call": Unsupported("use tool_choice"),
        "response_format": Mapped("`json_schema`: `output_config.format`, without its name; `json_object`: rejected"),
        "max_completion_tokens": Mapped("`max_tokens`"),
        "max_tokens": Mapped("`max_tokens`; default 32,000, or the maximum of an older model"),
        "temperature": PassThrough(
            "temperature",
            "at most 1, models before 4.7 only; sent with API version 2023-06-01, the last that supports it",
        ),
        "top_p": PassThrough("top_p", "as temperature; models from 4.5 accept only one of the two"),
        "stop": Mapped("`stop_sequences`"),
        "reasoning_effort": Mapped(
            "`thinking` and `output_config.effort`; models before 4.6: `thinking.budget_tokens`, but not after "
            "tool calls whose reasoning was not sent back"
        ),
        "user": Mapped("`metadata.user_id`"),
        "safety_identifier": Mapped("`metadata.user_id`"),
        "service_tier": Mapped("`auto`: the same; `default`: `standard_only`; others rejected"),
        "stream": PassThrough("stream"),
        "stream_options": Mapped("`include_usage`: the last event contains the usage; `include_obfuscation`: rejected"),
        "n": Unsupported("one response per request", allowed_values=("1",)),
        "frequency_penalty": Unsupported(allowed_values=("0", "0.0")),
        "presence_penalty": Unsupported(allowed_values=("0", "0.0")),
        "logit_bias": Unsupported(allowed_values=("{}",)),
        "logprobs": Unsupported(allowed_values=("false",)),
        "top_logprobs": Unsupported(allowed_values=("0",)),
        "seed": Unsupported("sampling is not reproducible"),
        "modalities": Unsupported("text output only", allowed_values=('["text"]',)),
        "audio": Unsupported("no audio output"),
        "prediction": Unsupported(),
        "verbosity": Unsupported(allowed_values=('"medium"',)),
        "metadata": Unsupported("responses are not stored", allowed_values=("{}",)),
        "store": Unsupported("responses are not stored", allowed_values=("false",)),
        "prompt_cache_key": Unsupported("use cache_control on content and tools"),
        "prompt_cache_options": Unsupported("use cache_control on content and tools"),
        "prompt_cache_retention": Unsupported("use cache_control on content and tools"),
        "moderation": Unsupported(),
        "web_search_options": Unsupported("use the web search tool in `anthropic.tools`"),
    },
    normalize_call_id,
)

FINISH_REASONS = {
    "end_turn": "stop",
    "stop_sequence": "stop",
    "pause_turn": "stop",
    "max_tokens": "length",
    "model_context_window_exceeded": "length",
    "tool_use": "tool_calls",
    "refusal": "content_filter",
}
EQUIVALENT_STOP_REASONS = ("end_turn", "max_tokens", "tool_use")  # others are also sent as a vendor-specific member

# The status of an error type: an error within a stream has no status. https://platform.claude.com/docs/en/api/errors
STATUSES = {
    "invalid_request_error": 400,
    "authentication_error": 401,
    "billing_error": 402,
    "permission_error": 403,
    "not_found_error": 404,
    "request_too_large": 413,
    "rate_limit_error": 429,
    "api_error": 500,
    "timeout_error": 504,
    "overloaded_error": 529,
}
