"""Which members a request is known to have, and where: the finite tables that decide what may be renamed.

Typed clients write `maxTokens` or `MaxTokens` for OpenAI's `max_tokens`. Only keys at these positions are ever
renamed; everything below a position that is not here (tool parameters, metadata, logit_bias) is the caller's own.

Source: https://platform.openai.com/docs/api-reference/chat/create and, beside it, embeddings and responses
"""

from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from functools import cached_property

from aiserver.errors import FieldError, InvalidRequest


def fold(name: str) -> str:
    """The form in which `max_tokens`, `maxTokens` and `MaxTokens` are one name."""
    return name.replace("_", "").replace("-", "").casefold()


@dataclass(frozen=True)
class Shape:
    """The known members of an object, or of each object of an array, and the shapes below them."""

    names: Collection[str]
    below: Mapping[str, "Shape"] = field(default_factory=dict[str, "Shape"])

    @cached_property
    def _by_fold(self) -> Mapping[str, str]:
        return {fold(name): name for name in self.names}

    def canonical(self, found: tuple[str, ...]) -> tuple[str, ...]:
        """Each key's known name; itself where it has none, or the name stands beside it.

        Raises: InvalidRequest for a known member given twice, since we would check one and the provider bill the other.
        """
        exact = set(self.names).intersection(found)
        known = [key if key in exact else self._by_fold.get(fold(key), key) for key in found]
        canonical = tuple(key if name in exact else name for key, name in zip(found, known, strict=True))
        if len(set(canonical)) < len(canonical):
            for name in self.names:
                if canonical.count(name) > 1:
                    problem = f"'{name}' is given more than once"
                    raise InvalidRequest(problem, param=name, fields=(FieldError("Duplicate", name, problem),))
        return canonical


_FUNCTION_CALL = Shape(("name", "arguments"))
_MESSAGE = Shape(
    ("role", "content", "name", "refusal", "audio", "tool_calls", "tool_call_id", "function_call"),
    {"tool_calls": Shape(("id", "type", "function"), {"function": _FUNCTION_CALL}), "function_call": _FUNCTION_CALL},
)
_TOOL = Shape(("type", "function"), {"function": Shape(("name", "description", "parameters", "strict"))})
_FORMAT = Shape(("type", "json_schema"), {"json_schema": Shape(("name", "description", "schema", "strict"))})

CHAT = Shape(
    (
        *("model", "messages", "audio", "frequency_penalty", "function_call", "functions", "logit_bias", "logprobs"),
        *("max_completion_tokens", "max_tokens", "metadata", "modalities", "n", "parallel_tool_calls", "prediction"),
        *("presence_penalty", "prompt_cache_key", "reasoning_effort", "response_format", "safety_identifier", "seed"),
        *("service_tier", "stop", "store", "stream", "stream_options", "temperature", "tool_choice", "tools"),
        *("top_logprobs", "top_p", "user", "verbosity", "web_search_options"),
    ),
    {
        "messages": _MESSAGE,
        "tools": _TOOL,
        "response_format": _FORMAT,
        "stream_options": Shape(("include_usage", "include_obfuscation")),
    },
)

EMBEDDINGS = Shape(("model", "input", "dimensions", "encoding_format", "user"))

RESPONSES = Shape(
    (
        *("model", "background", "conversation", "include", "input", "instructions", "max_output_tokens"),
        *("max_tool_calls", "metadata", "parallel_tool_calls", "previous_response_id", "prompt", "prompt_cache_key"),
        *("reasoning", "safety_identifier", "service_tier", "store", "stream", "stream_options", "temperature"),
        *("text", "tool_choice", "tools", "top_logprobs", "top_p", "truncation", "user"),
    )
)
