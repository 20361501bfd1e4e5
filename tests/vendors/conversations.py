"""Twenty conversations translated for every vendor: golden/ contains the result of each."""

from dataclasses import dataclass, field
from typing import Any

from tests.vendors.semantics import Response, ToolCall, Usage

PIXEL = "data:image/gif;base64,R0lGODlhAQABAAAAACwAAAAAAQABAAA="
PDF = "data:application/pdf;base64,JVBERi0xLjQKJSVFT0YK"
WEATHER = {
    "type": "function",
    "function": {
        "name": "get_weather",
        "description": "The weather of a place now",
        "parameters": {
            "type": "object",
            "properties": {"place": {"type": "string"}, "days": {"type": "integer", "minimum": 1}},
            "required": ["place"],
        },
    },
}
TIME = {"type": "function", "function": {"name": "get_time"}}
CITY = {
    "type": "object",
    "properties": {"name": {"type": "string"}, "people": {"type": "integer"}},
    "required": ["name", "people"],
    "additionalProperties": False,
}
ROME = ToolCall("call_rome", "get_weather", {"place": "Rome", "days": 2})
OSLO = ToolCall("call_oslo", "get_weather", {"place": "Oslo"})
NOW = ToolCall("call_now", "get_time", {})
CALLS = [
    {"id": "call_rome", "type": "function", "function": {"name": "get_weather", "arguments": '{"place": "Rome"}'}},
    {"id": "call_now", "type": "function", "function": {"name": "get_time", "arguments": ""}},
]


@dataclass(frozen=True)
class Conversation:
    """A request without its model, and the vendor's response."""

    name: str
    request: dict[str, Any]
    response: Response = field(default_factory=lambda: Response("It is."))


def user(content: Any = "Is it?", **members: Any) -> dict[str, Any]:
    return {"role": "user", "content": content, **members}


def text(content: str) -> dict[str, Any]:
    return {"type": "text", "text": content}


def image(url: str) -> dict[str, Any]:
    return {"type": "image_url", "image_url": {"url": url}}


def request_body(*messages: dict[str, Any], **members: Any) -> dict[str, Any]:
    return {"messages": list(messages), **members}


STREAMS: dict[str, Any] = {"stream": True, "stream_options": {"include_usage": True}}
SYSTEM = {"role": "system", "content": "You are a helpful AI assistant."}

CONVERSATIONS = [
    Conversation("01-question", request_body(user())),
    Conversation("02-system", request_body(SYSTEM, user("How do LLMs work?"), max_tokens=50, top_p=0.9)),
    Conversation(
        "03-systems-and-developers",
        request_body(
            SYSTEM,
            {"role": "developer", "content": [text("Be brief."), text("Be kind.")]},
            user(),
            {"role": "assistant", "content": "Yes."},
            {"role": "system", "content": "Speak French from now on."},
            user("And now?"),
        ),
    ),
    Conversation(
        "04-turns",
        request_body(
            user("One"), {"role": "assistant", "content": "Two"}, user("Three"), user("Four"), max_completion_tokens=9
        ),
    ),
    Conversation(
        "05-names", request_body(user("Hi", name="alice"), user([image(PIXEL)], name="bob"), {**SYSTEM, "name": "host"})
    ),
    Conversation("06-image", request_body(user([text("What is this?"), image(PIXEL)]))),
    Conversation("07-image-url", request_body(user([image("https://example.com/cat.png"), text("And this?")]))),
    Conversation(
        "08-file",
        request_body(user([{"type": "file", "file": {"file_data": PDF, "filename": "report.pdf"}}, text("Sum it up")])),
    ),
    Conversation(
        "09-tool", request_body(user("Weather in Rome?"), tools=[WEATHER]), Response(calls=(ROME,), finish="tool_calls")
    ),
    Conversation(
        "10-parallel-calls",
        request_body(user("Weather and time?"), tools=[WEATHER, TIME], tool_choice="auto", parallel_tool_calls=True),
        Response("I will look.", calls=(ROME, OSLO, NOW), finish="tool_calls"),
    ),
    Conversation(
        "11-tool-results",
        request_body(
            user("Weather and time?"),
            {"role": "assistant", "content": None, "tool_calls": CALLS},
            {"role": "tool", "tool_call_id": "call_rome", "content": '{"celsius": 21.50}'},
            {"role": "tool", "tool_call_id": "call_now", "content": [text("noon")]},
            tools=[WEATHER, TIME],
        ),
        Response("Mild, at noon."),
    ),
    Conversation(
        "12-required-tool",
        request_body(user(), tools=[WEATHER], tool_choice="required"),
        Response(calls=(OSLO,), finish="tool_calls"),
    ),
    Conversation(
        "13-named-tool",
        request_body(user(), tools=[WEATHER, TIME], tool_choice={"type": "function", "function": {"name": "get_time"}}),
        Response(calls=(NOW,), finish="tool_calls"),
    ),
    Conversation(
        "14-one-call-at-a-time",
        request_body(user(), tools=[WEATHER], parallel_tool_calls=False),
        Response(calls=(ROME,), finish="tool_calls"),
    ),
    Conversation(
        "15-schema",
        request_body(
            user("The largest city?"),
            response_format={"type": "json_schema", "json_schema": {"name": "city", "strict": True, "schema": CITY}},
        ),
        Response('{"name": "Tokyo", "people": 37000000}'),
    ),
    Conversation(
        "16-sampling",
        request_body(user(), temperature=0.25, stop=["END", "\n\n"], max_tokens=64),
        Response("It", finish="length"),
    ),
    Conversation(
        "17-reasoning",
        request_body(user(), reasoning_effort="medium", max_completion_tokens=20_000),
        Response("It is.", reasoning="Is it? It must be.", usage=Usage(20, 40, 5, 30)),
    ),
    Conversation("18-refused-answer", request_body(user("How to?")), Response("I", finish="content_filter")),
    Conversation(
        "19-stream", request_body(SYSTEM, user(), **STREAMS), Response("Words, one by one.", reasoning="One at a time.")
    ),
    Conversation(
        "20-stream-of-calls",
        request_body(user([text("Weather and time?"), image(PIXEL)]), tools=[WEATHER, TIME], **STREAMS),
        Response("I will look.", calls=(ROME, NOW), finish="tool_calls"),
    ),
]
