"""What Anthropic's Messages API has words for, and what differs from model to model.

Source: https://platform.claude.com/docs/en/api/messages
"""

import re

from aiserver.providers.translation.capabilities import Capabilities, Mapped, PassThrough, Unsupported

_INVALID_ID_CHARS = re.compile(r"[^a-zA-Z0-9_-]")


def normalize_call_id(id: str) -> str:
    """An id of another vendor's may hold what one of Anthropic's must not."""
    return _INVALID_ID_CHARS.sub("_", id)


CAPABILITIES = Capabilities(
    "Anthropic",
    "anthropic",
    {
        "model": PassThrough("model"),
        "messages": Mapped("`messages`; turns of one role after each other become one"),
        "messages[].role: system": Mapped("`system`, all of them, in order; wherever they stood"),
        "messages[].role: developer": Mapped("as system"),
        "messages[].role: user": Mapped("`user`"),
        "messages[].role: assistant": Mapped("`assistant`"),
        "messages[].role: tool": Mapped("`tool_result` in a turn of the user's"),
        "messages[].name": Mapped("written before the text: `alice: …`; a tool is known by its call"),
        "messages[].tool_calls": Mapped(
            "`tool_use`; what an id may not hold becomes `_`, and one that is empty or repeated becomes distinct"
        ),
        "messages[].reasoning_content": Mapped(
            "not sent: only reasoning with its signature can be, which `anthropic.content` of the answer has"
        ),
        "messages[].reasoning": Mapped("as reasoning_content"),
        "messages[].parsed": Mapped("not sent: the content again, as OpenAI's client read it"),
        "messages[].tool_calls[].function.parsed_arguments": Mapped("not sent: the arguments again, likewise"),
        "messages[].tool_calls[].index": Mapped("not sent: a place in a stream"),
        "messages[].refusal": Mapped("`text`"),
        "messages[].annotations": Mapped("not sent: notes for a reader of the text"),
        "messages[].content[].text": Mapped("`text`; one of white space only is left out"),
        "messages[].content[].refusal": Mapped("`text`"),
        "messages[].content[].image_url": Mapped("`image`: data and https URLs"),
        "messages[].content[].image_url (assistant)": Unsupported("a turn of the assistant's holds no images"),
        "messages[].content[].image_url (tool)": Mapped("`image`"),
        "messages[].content[].image_url.detail": Unsupported("it looks at each image in one way"),
        "messages[].content[].file": Mapped("`document`: a PDF or plain text, as data or https URL"),
        "messages[].content[].file (tool)": Mapped("`document`"),
        "messages[].content[].file (assistant)": Unsupported("a turn of the assistant's holds no files"),
        "messages[].content[].file.file_id": Unsupported(
            "the id is another service's; `anthropic` can name one of its own"
        ),
        "messages[].content[].input_audio": Unsupported("it hears nothing"),
        "messages[].content[].input_audio (assistant)": Unsupported("it hears nothing"),
        "messages[].content[].input_audio (tool)": Unsupported("it hears nothing"),
        "messages[].content[].cache_control": PassThrough("cache_control"),
        "messages[].audio": Unsupported("it hears nothing"),
        "messages[].function_call": Unsupported("use tool_calls"),
        "tools": Mapped("`tools`; a schema without a type gets `type: object`"),
        "tools[].function.strict": PassThrough("strict"),
        "tools[].cache_control": PassThrough("cache_control"),
        "tool_choice": Mapped(
            "`tool_choice`: `auto`, `none`, `any`, `tool`; without tools not sent, `required` and a function refused"
        ),
        "parallel_tool_calls": Mapped("`tool_choice.disable_parallel_tool_use`"),
        "functions": Unsupported("use tools"),
        "function_call": Unsupported("use tool_choice"),
        "response_format": Mapped("`json_schema`: `output_config.format`, without its name; `json_object`: refused"),
        "max_completion_tokens": Mapped("`max_tokens`"),
        "max_tokens": Mapped("`max_tokens`; without it 32,000, or the most that an older model takes"),
        "temperature": PassThrough(
            "temperature", "at most 1, of models before 4.7; asked by API version 2023-06-01, the last that has it"
        ),
        "top_p": PassThrough("top_p", "as temperature; of models from 4.5 one of both"),
        "stop": Mapped("`stop_sequences`"),
        "reasoning_effort": Mapped(
            "`thinking` and `output_config.effort`; of models before 4.6 `thinking.budget_tokens`, but not amid calls "
            "whose reasoning was not sent back"
        ),
        "user": Mapped("`metadata.user_id`"),
        "safety_identifier": Mapped("`metadata.user_id`"),
        "service_tier": Mapped("`auto`: the same; `default`: `standard_only`; others refused"),
        "stream": PassThrough("stream"),
        "stream_options": Mapped("`include_usage`: a last event tells the usage; `include_obfuscation`: refused"),
        "n": Unsupported("it gives one answer", allowed_values=("1",)),
        "frequency_penalty": Unsupported(allowed_values=("0", "0.0")),
        "presence_penalty": Unsupported(allowed_values=("0", "0.0")),
        "logit_bias": Unsupported(allowed_values=("{}",)),
        "logprobs": Unsupported(allowed_values=("false",)),
        "top_logprobs": Unsupported(allowed_values=("0",)),
        "seed": Unsupported("no answer can be had twice"),
        "modalities": Unsupported("it writes text", allowed_values=('["text"]',)),
        "audio": Unsupported("it says nothing aloud"),
        "prediction": Unsupported(),
        "verbosity": Unsupported(allowed_values=('"medium"',)),
        "metadata": Unsupported("it keeps no answers", allowed_values=("{}",)),
        "store": Unsupported("it keeps no answers", allowed_values=("false",)),
        "prompt_cache_key": Unsupported("mark what to cache by cache_control"),
        "prompt_cache_options": Unsupported("mark what to cache by cache_control"),
        "prompt_cache_retention": Unsupported("mark what to cache by cache_control"),
        "moderation": Unsupported(),
        "web_search_options": Unsupported("its own tool for that stands in `anthropic.tools`"),
    },
    normalize_call_id,
)

MAX_TOKENS = 32_000  # what every model since Claude 4 takes
# The most that older models write, by how their names begin.
# https://platform.claude.com/docs/en/about-claude/models/overview
OLDER_MAX_TOKENS = {"claude-3-5": 8_192, "claude-3-7": 32_000, "claude-3": 4_096, "claude-2": 4_096}

FINISH_REASONS = {
    "end_turn": "stop",
    "stop_sequence": "stop",
    "pause_turn": "stop",
    "max_tokens": "length",
    "model_context_window_exceeded": "length",
    "tool_use": "tool_calls",
    "refusal": "content_filter",
}
EQUIVALENT_STOP_REASONS = ("end_turn", "max_tokens", "tool_use")  # the others are told beside what OpenAI has for them

# What an error's type stands for where a stream can show no status. https://platform.claude.com/docs/en/api/errors
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
