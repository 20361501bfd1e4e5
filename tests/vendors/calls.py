"""Hypothesis strategies of requests and responses that OpenAI and every vendor support."""

import json
from typing import Any

from hypothesis import strategies as st

from tests.vendors.dialect import Dialect
from tests.vendors.semantics import Response, ToolCall, Usage

WORDS = st.text(st.characters(exclude_categories=("Cs", "Cc")), min_size=1, max_size=20).filter(str.strip)
NAMES = st.from_regex(r"[a-z][a-z_]{0,8}", fullmatch=True)
IDS = st.from_regex(r"call_[a-zA-Z0-9]{1,12}", fullmatch=True)
NUMBERS = st.integers(-(2**53), 2**53) | st.floats(allow_nan=False, allow_infinity=False, width=32)
VALUES = st.recursive(
    st.none() | st.booleans() | NUMBERS | WORDS,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(NAMES, inner, max_size=3),
    max_leaves=6,
)
OBJECTS = st.dictionaries(NAMES, VALUES, max_size=3)
ARGUMENTS = OBJECTS.map(json.dumps) | st.just("")
SCHEMAS = OBJECTS.map(
    lambda defaults: {"type": "object", "properties": {}, "additionalProperties": False, "x": defaults}
)
# Only one of the two, as some models reject both. Never 1, which the adapters omit for some models.
SAMPLING = st.fixed_dictionaries({"temperature": st.floats(0, 0.99)}) | st.fixed_dictionaries(
    {"top_p": st.floats(0.1, 0.99)}
)
SAMPLING |= st.just({})
IMAGES = st.sampled_from(["data:image/png;base64,iVBORw0KGgo=", "data:image/jpeg;base64,/9j/4AAQ"])
URLS = st.sampled_from(["https://example.com/a.png", "https://example.com/b.jpg?x=1"])


def responses() -> st.SearchStrategy[Response]:
    calls = st.lists(st.builds(ToolCall, IDS, NAMES, OBJECTS), max_size=3, unique_by=lambda call: call.id)
    usage = st.builds(Usage, st.integers(100, 200), st.integers(50, 99), st.integers(1, 99), st.integers(1, 49))
    return st.builds(Response, WORDS, st.just("") | WORDS, calls.map(tuple), st.just("stop"), usage).flatmap(
        _with_finish
    )


def _with_finish(response: Response) -> st.SearchStrategy[Response]:
    finishes = ["tool_calls"] if response.calls else ["stop", "length", "content_filter"]
    return st.sampled_from(finishes).map(lambda finish: Response(**{**vars(response), "finish": finish}))


@st.composite
def requests(draw: st.DrawFn, dialect: Dialect) -> dict[str, Any]:
    """A chat of a few turns with optional parameters."""
    tools = draw(st.lists(NAMES, max_size=3, unique=True))
    messages = [*draw(_system()), draw(_user(dialect))]
    for turn in range(draw(st.integers(0, 2))):
        messages += draw(_tool_exchange(tools, turn))
        messages.append(draw(_user(dialect)))
    body: dict[str, Any] = {"model": dialect.model, "messages": messages}
    body |= draw(st.fixed_dictionaries({"max_tokens": st.integers(1, 9999)}, optional=_optional_members()))
    body |= draw(SAMPLING)
    if tools:
        body["tools"] = [draw(_tool(tool)) for tool in tools]
        body |= draw(st.fixed_dictionaries({}, optional={"tool_choice": _choice(tools)}))
    return body


def _optional_members() -> dict[str, st.SearchStrategy[Any]]:
    schema_formats = SCHEMAS.map(lambda schema: {"name": "it", "schema": schema, "strict": True})
    response_formats = schema_formats.map(lambda json_schema: {"type": "json_schema", "json_schema": json_schema})
    return {
        "stop": WORDS | st.lists(WORDS, min_size=1, max_size=3),
        "response_format": response_formats | st.just({"type": "text"}),
        "stream": st.booleans(),
    }


def _text(role: str) -> st.SearchStrategy[dict[str, Any]]:
    parts = st.lists(WORDS.map(lambda text: {"type": "text", "text": text}), min_size=1, max_size=2)
    name = {"name": NAMES} if role != "tool" else {}
    return st.fixed_dictionaries({"role": st.just(role), "content": WORDS | parts}, optional=name)


def _system() -> st.SearchStrategy[list[dict[str, Any]]]:
    return st.lists(_text("system") | _text("developer"), max_size=2)


def _user(dialect: Dialect) -> st.SearchStrategy[dict[str, Any]]:
    images = (IMAGES | URLS) if dialect.has_urls else IMAGES
    image = images.map(lambda url: {"type": "image_url", "image_url": {"url": url}})
    part = WORDS.map(lambda text: {"type": "text", "text": text}) | image
    multimodal = st.lists(part, min_size=1, max_size=3).map(lambda parts: {"role": "user", "content": parts})
    return _text("user") | multimodal


@st.composite
def _tool_exchange(draw: st.DrawFn, tools: list[str], turn: int) -> list[dict[str, Any]]:
    """A model turn with the results of its tool calls. Each call id is unique in a chat."""
    message = draw(_text("assistant"))
    ids = [f"{id}-{turn}" for id in draw(st.lists(IDS, min_size=1, max_size=3, unique=True))] if tools else []
    if not ids:
        return [message]
    function = st.fixed_dictionaries({"name": st.sampled_from(tools), "arguments": ARGUMENTS})
    calls = [{"id": id, "type": "function", "function": draw(function)} for id in ids]
    results = [{"role": "tool", "tool_call_id": id, "content": draw(WORDS)} for id in ids]
    return [draw(st.sampled_from([message, {"role": "assistant", "content": None}])) | {"tool_calls": calls}, *results]


def _tool(name: str) -> st.SearchStrategy[dict[str, Any]]:
    functions = st.fixed_dictionaries({"name": st.just(name)}, optional={"description": WORDS, "parameters": SCHEMAS})
    return functions.map(lambda function: {"type": "function", "function": function})


def _choice(tools: list[str]) -> st.SearchStrategy[Any]:
    named_tools = st.sampled_from(tools).map(lambda name: {"type": "function", "function": {"name": name}})
    return st.sampled_from(["auto", "required"]) | named_tools
