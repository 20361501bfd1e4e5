"""The known members of request bodies and their types: the tables that binding reads.

Typed clients send `maxTokens` or `MaxTokens` for OpenAI's `max_tokens`. Only keys at the positions listed here are
renamed; objects at other positions (tool parameters, metadata, logit_bias) are forwarded unchanged. The provider
validates ranges.

Source: https://platform.openai.com/docs/api-reference/chat/create, and the pages of embeddings, responses, speech and
images
"""

from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from functools import cached_property, lru_cache

from aiserver.errors import FieldError, InvalidRequest
from aiserver.limits import MAX_MESSAGES, MAX_NAME_CHARS

MAX_CACHED_KEY_ORDERS = 256  # of key sequences with cached canonical names


@lru_cache(4 * MAX_CACHED_KEY_ORDERS)
def fold_name(name: str) -> str:
    """The common form of `max_tokens`, `maxTokens` and `MaxTokens`."""
    return name.replace("_", "").replace("-", "").casefold()


@dataclass(frozen=True)
class FieldType:
    """The JSON types that a member may have, by the first bytes of their texts, and their description.

    `item_first_bytes` are the allowed first bytes of an array's elements; empty for any.
    """

    first_bytes: bytes
    description: str
    item_first_bytes: bytes = b""
    item_description: str = ""
    is_integer: bool = False
    is_required: bool = False
    min_length: int = 0
    max_length: int | None = None


_NULL = b"n"
_STRING = FieldType(b'"' + _NULL, "a valid string")
_NUMBER = FieldType(b"-0123456789" + _NULL, "a valid number")
_INTEGER = FieldType(b"-0123456789" + _NULL, "a valid integer", is_integer=True)
_BOOLEAN = FieldType(b"tf" + _NULL, "a valid boolean")
_OBJECT = FieldType(b"{" + _NULL, "a valid object")
_OBJECTS = FieldType(b"[" + _NULL, "a valid array", b"{", "a valid object")
_MODEL = FieldType(b'"', "a valid string", is_required=True, min_length=1, max_length=MAX_NAME_CHARS)


@dataclass(frozen=True)
class ObjectSchema:
    """The known members of an object, or of each object of an array, with types and nested schemas.

    A second spelling of a `unique` name is rejected, because servers with case-insensitive names would read it.
    """

    names: Collection[str]
    nested: Mapping[str, "ObjectSchema"] = field(default_factory=dict[str, "ObjectSchema"])
    types: Mapping[str, FieldType] = field(default_factory=dict[str, FieldType])
    unique: Collection[str] = ()

    @cached_property
    def required(self) -> tuple[str, ...]:
        return tuple(name for name, field_type in self.types.items() if field_type.is_required)

    @cached_property
    def _names_by_folded(self) -> Mapping[str, str]:
        return {fold_name(name): name for name in self.names}

    @cached_property
    def _canonical_names_by_keys(self) -> dict[tuple[str, ...], tuple[str, ...]]:
        return {}

    def canonical_names(self, keys: tuple[str, ...]) -> tuple[str, ...]:
        """Each key's canonical name; the key itself when it is unknown, or when the canonical name is also present.

        Raises: InvalidRequest, for a duplicate of a known member: the gateway could check one and the provider read
        the other.
        """
        if names := self._canonical_names_by_keys.get(keys):
            return names
        exact = set(self.names).intersection(keys)
        candidates = [key if key in exact else self._names_by_folded.get(fold_name(key), key) for key in keys]
        unique = exact.intersection(self.unique)
        names = tuple(
            key if name in exact and name not in unique else name for key, name in zip(keys, candidates, strict=True)
        )
        if len(set(names)) < len(names):
            for name in self.names:
                if names.count(name) > 1:
                    problem = f"'{name}' is given more than once"
                    raise InvalidRequest(problem, param=name, fields=(FieldError("Duplicate", name, problem),))
        if len(self._canonical_names_by_keys) < MAX_CACHED_KEY_ORDERS and sum(map(len, keys)) < MAX_CACHED_KEY_ORDERS:
            self._canonical_names_by_keys[keys] = names
        return names


_FUNCTION_CALL = ObjectSchema(("name", "arguments"))
_MESSAGE = ObjectSchema(
    ("role", "content", "name", "refusal", "audio", "tool_calls", "tool_call_id", "function_call"),
    {
        "tool_calls": ObjectSchema(("id", "type", "function"), {"function": _FUNCTION_CALL}),
        "function_call": _FUNCTION_CALL,
    },
    {
        "role": FieldType(b'"', "a valid string", is_required=True, min_length=1),
        "content": FieldType(b'"[' + _NULL, "a valid string or array", b"{", "a valid object"),
        "name": _STRING,
        "tool_calls": _OBJECTS,
        "tool_call_id": _STRING,
    },
)
_TOOL = ObjectSchema(("type", "function"), {"function": ObjectSchema(("name", "description", "parameters", "strict"))})
_FORMAT = ObjectSchema(
    ("type", "json_schema"), {"json_schema": ObjectSchema(("name", "description", "schema", "strict"))}
)

CHAT = ObjectSchema(
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
        "stream_options": ObjectSchema(
            ("include_usage", "include_obfuscation"), types={"include_usage": _BOOLEAN}, unique=("include_usage",)
        ),
    },
    {
        "model": _MODEL,
        "messages": FieldType(
            b"[", "a valid array", b"{", "a valid object", is_required=True, min_length=1, max_length=MAX_MESSAGES
        ),
        "logit_bias": _OBJECT,
        "reasoning_effort": _STRING,
        "response_format": _OBJECT,
        "stop": FieldType(b'"[' + _NULL, "a valid string or array", b'"', "a valid string"),
        "stream_options": _OBJECT,
        "tool_choice": FieldType(b'"{' + _NULL, "a valid string or object"),
        "tools": _OBJECTS,
        "user": _STRING,
        **dict.fromkeys(("frequency_penalty", "presence_penalty", "temperature", "top_p"), _NUMBER),
        **dict.fromkeys(("max_completion_tokens", "max_tokens", "n", "seed", "top_logprobs"), _INTEGER),
        **dict.fromkeys(("logprobs", "parallel_tool_calls", "stream"), _BOOLEAN),
    },
    ("model", "messages", "stream", "stream_options", "max_tokens", "max_completion_tokens", "n", "tools"),
)

EMBEDDINGS = ObjectSchema(
    ("model", "input", "dimensions", "encoding_format", "user"),
    types={
        "model": _MODEL,
        "input": FieldType(b'"[', "a valid string or array", is_required=True, min_length=1),
        "dimensions": _INTEGER,
        "encoding_format": _STRING,
        "user": _STRING,
    },
    unique=("model", "input"),
)

RESPONSES = ObjectSchema(
    (
        *("model", "background", "conversation", "include", "input", "instructions", "max_output_tokens"),
        *("max_tool_calls", "metadata", "parallel_tool_calls", "previous_response_id", "prompt", "prompt_cache_key"),
        *("reasoning", "safety_identifier", "service_tier", "store", "stream", "stream_options", "temperature"),
        *("text", "tool_choice", "tools", "top_logprobs", "top_p", "truncation", "user"),
    ),
    types={"model": _MODEL, "stream": _BOOLEAN},
    unique=("model", "input", "stream", "max_output_tokens", "tools"),
)

SPEECH = ObjectSchema(
    ("model", "input", "voice", "instructions", "response_format", "speed", "stream", "stream_format"),
    types={
        "model": _MODEL,
        "input": FieldType(b'"', "a valid string", is_required=True, min_length=1),
        "voice": FieldType(b'"{' + _NULL, "a valid string or object"),
        "instructions": _STRING,
        "response_format": _STRING,
        "speed": _NUMBER,
        "stream_format": _STRING,
    },
    unique=("model", "input"),
)

_IMAGE_NAMES = (
    *("model", "prompt", "background", "moderation", "n", "output_compression", "output_format", "partial_images"),
    *("quality", "response_format", "safety_identifier", "size", "stream", "style", "user"),
)
_IMAGE_TYPES = {
    "model": _MODEL,
    "prompt": FieldType(b'"', "a valid string", is_required=True, min_length=1),
    "stream": _BOOLEAN,
    **dict.fromkeys(("n", "output_compression", "partial_images"), _INTEGER),
    **dict.fromkeys(("background", "output_format", "quality", "response_format", "size", "style", "user"), _STRING),
}
IMAGES = ObjectSchema(_IMAGE_NAMES, types=_IMAGE_TYPES, unique=("model", "prompt", "n", "size", "stream"))
IMAGE_EDITS = ObjectSchema(
    (*_IMAGE_NAMES, "images", "mask", "input_fidelity"),
    types={**_IMAGE_TYPES, "images": _OBJECTS, "input_fidelity": _STRING},
    unique=("model", "prompt", "n", "size", "stream"),
)
