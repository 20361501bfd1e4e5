"""What Anthropic's Messages API has words for, and what differs from model to model.

Source: https://platform.claude.com/docs/en/api/messages
"""

import re

from aiserver.providers.translation.capabilities import Passes, Refused, Translated, Words

_NOT_IN_AN_ID = re.compile(r"[^a-zA-Z0-9_-]")


def call_id(id: str) -> str:
    """An id of another vendor's may hold what one of Anthropic's must not."""
    return _NOT_IN_AN_ID.sub("_", id)


WORDS = Words(
    "Anthropic",
    "anthropic",
    {
        "model": Passes("model"),
        "messages": Translated("`messages`; turns of one role after each other become one"),
        "messages[].role: system": Translated("`system`, all of them, in order; wherever they stood"),
        "messages[].role: developer": Translated("as system"),
        "messages[].role: user": Translated("`user`"),
        "messages[].role: assistant": Translated("`assistant`"),
        "messages[].role: tool": Translated("`tool_result` in a turn of the user's"),
        "messages[].name": Translated("written before the text: `alice: …`; a tool is known by its call"),
        "messages[].tool_calls": Translated(
            "`tool_use`; what an id may not hold becomes `_`, and one that is empty or repeated becomes distinct"
        ),
        "messages[].reasoning_content": Translated(
            "not sent: only reasoning with its signature can be, which `anthropic.content` of the answer has"
        ),
        "messages[].reasoning": Translated("as reasoning_content"),
        "messages[].parsed": Translated("not sent: the content again, as OpenAI's client read it"),
        "messages[].tool_calls[].function.parsed_arguments": Translated("not sent: the arguments again, likewise"),
        "messages[].tool_calls[].index": Translated("not sent: a place in a stream"),
        "messages[].refusal": Translated("`text`"),
        "messages[].annotations": Translated("not sent: notes for a reader of the text"),
        "messages[].content[].text": Translated("`text`; one of white space only is left out"),
        "messages[].content[].refusal": Translated("`text`"),
        "messages[].content[].image_url": Translated("`image`: data and https URLs"),
        "messages[].content[].image_url (assistant)": Refused("a turn of the assistant's holds no images"),
        "messages[].content[].image_url (tool)": Translated("`image`"),
        "messages[].content[].image_url.detail": Refused("it looks at each image in one way"),
        "messages[].content[].file": Translated("`document`: a PDF or plain text, as data or https URL"),
        "messages[].content[].file (tool)": Translated("`document`"),
        "messages[].content[].file (assistant)": Refused("a turn of the assistant's holds no files"),
        "messages[].content[].file.file_id": Refused(
            "the id is another service's; `anthropic` can name one of its own"
        ),
        "messages[].content[].input_audio": Refused("it hears nothing"),
        "messages[].content[].input_audio (assistant)": Refused("it hears nothing"),
        "messages[].content[].input_audio (tool)": Refused("it hears nothing"),
        "messages[].content[].cache_control": Passes("cache_control"),
        "messages[].audio": Refused("it hears nothing"),
        "messages[].function_call": Refused("use tool_calls"),
        "tools": Translated("`tools`; a schema without a type gets `type: object`"),
        "tools[].function.strict": Passes("strict"),
        "tools[].cache_control": Passes("cache_control"),
        "tool_choice": Translated(
            "`tool_choice`: `auto`, `none`, `any`, `tool`; without tools not sent, `required` and a function refused"
        ),
        "parallel_tool_calls": Translated("`tool_choice.disable_parallel_tool_use`"),
        "functions": Refused("use tools"),
        "function_call": Refused("use tool_choice"),
        "response_format": Translated(
            "`json_schema`: `output_config.format`, without its name; `json_object`: refused"
        ),
        "max_completion_tokens": Translated("`max_tokens`"),
        "max_tokens": Translated("`max_tokens`; without it 32,000, or the most that an older model takes"),
        "temperature": Passes(
            "temperature", "at most 1, of models before 4.7; asked by API version 2023-06-01, the last that has it"
        ),
        "top_p": Passes("top_p", "as temperature; of models from 4.5 one of both"),
        "stop": Translated("`stop_sequences`"),
        "reasoning_effort": Translated(
            "`thinking` and `output_config.effort`; of models before 4.6 `thinking.budget_tokens`, but not amid calls "
            "whose reasoning was not sent back"
        ),
        "user": Translated("`metadata.user_id`"),
        "safety_identifier": Translated("`metadata.user_id`"),
        "service_tier": Translated("`auto`: the same; `default`: `standard_only`; others refused"),
        "stream": Passes("stream"),
        "stream_options": Translated("`include_usage`: a last event tells the usage; `include_obfuscation`: refused"),
        "n": Refused("it gives one answer", unless=("1",)),
        "frequency_penalty": Refused(unless=("0", "0.0")),
        "presence_penalty": Refused(unless=("0", "0.0")),
        "logit_bias": Refused(unless=("{}",)),
        "logprobs": Refused(unless=("false",)),
        "top_logprobs": Refused(unless=("0",)),
        "seed": Refused("no answer can be had twice"),
        "modalities": Refused("it writes text", unless=('["text"]',)),
        "audio": Refused("it says nothing aloud"),
        "prediction": Refused(),
        "verbosity": Refused(unless=('"medium"',)),
        "metadata": Refused("it keeps no answers", unless=("{}",)),
        "store": Refused("it keeps no answers", unless=("false",)),
        "prompt_cache_key": Refused("mark what to cache by cache_control"),
        "prompt_cache_options": Refused("mark what to cache by cache_control"),
        "prompt_cache_retention": Refused("mark what to cache by cache_control"),
        "moderation": Refused(),
        "web_search_options": Refused("its own tool for that stands in `anthropic.tools`"),
    },
    call_id,
)

MAX_TOKENS = 32_000  # what every model since Claude 4 takes
# The most that older models write, by how their names begin.
# https://platform.claude.com/docs/en/about-claude/models/overview
OLDER_MAX_TOKENS = {"claude-3-5": 8_192, "claude-3-7": 32_000, "claude-3": 4_096, "claude-2": 4_096}

STOPS = {
    "end_turn": "stop",
    "stop_sequence": "stop",
    "pause_turn": "stop",
    "max_tokens": "length",
    "model_context_window_exceeded": "length",
    "tool_use": "tool_calls",
    "refusal": "content_filter",
}
OPENAI_SAYS_IT = ("end_turn", "max_tokens", "tool_use")  # the others are told beside what OpenAI has for them

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
