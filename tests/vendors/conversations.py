"""Twenty conversations that every vendor is taken through: golden/ shows what becomes of each."""

from dataclasses import dataclass, field
from typing import Any

from tests.vendors.semantics import Answer, Called, Spent

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
ROME = Called("call_rome", "get_weather", {"place": "Rome", "days": 2})
OSLO = Called("call_oslo", "get_weather", {"place": "Oslo"})
NOW = Called("call_now", "get_time", {})
CALLS = [
    {"id": "call_rome", "type": "function", "function": {"name": "get_weather", "arguments": '{"place": "Rome"}'}},
    {"id": "call_now", "type": "function", "function": {"name": "get_time", "arguments": ""}},
]


@dataclass(frozen=True)
class Conversation:
    """A request, less its model, and what the vendor answers."""

    name: str
    asked: dict[str, Any]
    answer: Answer = field(default_factory=lambda: Answer("It is."))


def user(content: Any = "Is it?", **more: Any) -> dict[str, Any]:
    return {"role": "user", "content": content, **more}


def text(said: str) -> dict[str, Any]:
    return {"type": "text", "text": said}


def image(url: str) -> dict[str, Any]:
    return {"type": "image_url", "image_url": {"url": url}}


def asked(*messages: dict[str, Any], **more: Any) -> dict[str, Any]:
    return {"messages": list(messages), **more}


STREAMS: dict[str, Any] = {"stream": True, "stream_options": {"include_usage": True}}
SYSTEM = {"role": "system", "content": "You are a helpful AI assistant."}

CONVERSATIONS = [
    Conversation("01-question", asked(user())),
    Conversation("02-system", asked(SYSTEM, user("How do LLMs work?"), max_tokens=50, top_p=0.9)),
    Conversation(
        "03-systems-and-developers",
        asked(
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
        asked(
            user("One"), {"role": "assistant", "content": "Two"}, user("Three"), user("Four"), max_completion_tokens=9
        ),
    ),
    Conversation(
        "05-names", asked(user("Hi", name="alice"), user([image(PIXEL)], name="bob"), {**SYSTEM, "name": "host"})
    ),
    Conversation("06-image", asked(user([text("What is this?"), image(PIXEL)]))),
    Conversation("07-image-url", asked(user([image("https://example.com/cat.png"), text("And this?")]))),
    Conversation(
        "08-file",
        asked(user([{"type": "file", "file": {"file_data": PDF, "filename": "report.pdf"}}, text("Sum it up")])),
    ),
    Conversation(
        "09-tool", asked(user("Weather in Rome?"), tools=[WEATHER]), Answer(calls=(ROME,), finish="tool_calls")
    ),
    Conversation(
        "10-parallel-calls",
        asked(user("Weather and time?"), tools=[WEATHER, TIME], tool_choice="auto", parallel_tool_calls=True),
        Answer("I will look.", calls=(ROME, OSLO, NOW), finish="tool_calls"),
    ),
    Conversation(
        "11-tool-results",
        asked(
            user("Weather and time?"),
            {"role": "assistant", "content": None, "tool_calls": CALLS},
            {"role": "tool", "tool_call_id": "call_rome", "content": '{"celsius": 21.50}'},
            {"role": "tool", "tool_call_id": "call_now", "content": [text("noon")]},
            tools=[WEATHER, TIME],
        ),
        Answer("Mild, at noon."),
    ),
    Conversation(
        "12-required-tool",
        asked(user(), tools=[WEATHER], tool_choice="required"),
        Answer(calls=(OSLO,), finish="tool_calls"),
    ),
    Conversation(
        "13-named-tool",
        asked(user(), tools=[WEATHER, TIME], tool_choice={"type": "function", "function": {"name": "get_time"}}),
        Answer(calls=(NOW,), finish="tool_calls"),
    ),
    Conversation(
        "14-one-call-at-a-time",
        asked(user(), tools=[WEATHER], parallel_tool_calls=False),
        Answer(calls=(ROME,), finish="tool_calls"),
    ),
    Conversation(
        "15-schema",
        asked(
            user("The largest city?"),
            response_format={"type": "json_schema", "json_schema": {"name": "city", "strict": True, "schema": CITY}},
        ),
        Answer('{"name": "Tokyo", "people": 37000000}'),
    ),
    Conversation(
        "16-sampling",
        asked(user(), temperature=0.25, stop=["END", "\n\n"], max_tokens=64),
        Answer("It", finish="length"),
    ),
    Conversation(
        "17-reasoning",
        asked(user(), reasoning_effort="medium", max_completion_tokens=20_000),
        Answer("It is.", reasoning="Is it? It must be.", spent=Spent(20, 40, 5, 30)),
    ),
    Conversation("18-refused-answer", asked(user("How to?")), Answer("I", finish="content_filter")),
    Conversation(
        "19-stream", asked(SYSTEM, user(), **STREAMS), Answer("Words, one by one.", reasoning="One at a time.")
    ),
    Conversation(
        "20-stream-of-calls",
        asked(user([text("Weather and time?"), image(PIXEL)]), tools=[WEATHER, TIME], **STREAMS),
        Answer("I will look.", calls=(ROME, NOW), finish="tool_calls"),
    ),
]
