"""Golden files of the translated conversations, for review and a test; `python -m tests.vendors.golden` writes them.

Each file contains `asked` (the client's request), `sent` (the vendor's request) or `refused` (the error message),
`said` (the vendor's response) and `answered` (the client's response).
"""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

from aiserver.errors import InvalidRequest
from aiserver.providers.adapters.base.adapter import ResponseContext
from aiserver.providers.adapters.base.chat import Chat
from aiserver.providers.adapters.base.validate import parse_chat
from aiserver.wire import sse
from tests.vendors.conversations import CONVERSATIONS, Conversation
from tests.vendors.dialect import Dialect
from tests.vendors.dialects import DIALECTS

FOLDER = Path(__file__).parent / "golden"
CONTEXT = ResponseContext(1_700_000_000, lambda: "call_born", id="chatcmpl-born", model="model-born")


def build_golden(dialect: Dialect, conversation: Conversation) -> dict[str, Any]:
    """The content of one golden file, as the code produces it now."""
    request_body = {"model": dialect.model, **conversation.request}
    try:
        chat = parse_chat(json.dumps(request_body).encode(), dialect.translator.capabilities)
        request = dialect.translator.build_request(chat)
    except InvalidRequest as refusal:
        return {"asked": request_body, "refused": refusal.message}
    dialect.parse_request(request)
    body = json.loads(request.body or b"")
    golden: dict[str, Any] = {
        "asked": request_body,
        "sent": {"path": request.path, "headers": request.headers, "body": body},
    }
    return golden | (_golden_stream if chat.stream else _golden_response)(dialect, chat, conversation)


def _golden_response(dialect: Dialect, chat: Chat, conversation: Conversation) -> dict[str, Any]:
    response_body = dialect.encode_response(conversation.response)
    return {
        "said": json.loads(response_body),
        "answered": json.loads(dialect.translator.map_response(response_body, CONTEXT).body),
    }


def _golden_stream(dialect: Dialect, chat: Chat, conversation: Conversation) -> dict[str, Any]:
    mapper = dialect.translator.create_event_mapper(replace(CONTEXT, include_usage=chat.include_usage))
    events = dialect.encode_events(conversation.response)
    output = b"".join(mapper.on_event(event) for event in events) + (b"" if mapper.is_done else mapper.on_end())
    output_events = [sse.event_data(event).decode() for event in sse.EventSplitter().split(output)]
    event_bodies = [json.loads(sse.event_data(event)) for event in events]
    return {
        "said": event_bodies,
        "answered": [json.loads(data) if data.startswith("{") else data for data in output_events],
    }


def golden_path(dialect: Dialect, conversation: Conversation) -> Path:
    return FOLDER / dialect.type / f"{conversation.name}.json"


def main() -> None:
    for dialect in DIALECTS:
        for conversation in CONVERSATIONS:
            path = golden_path(dialect, conversation)
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(json.dumps(build_golden(dialect, conversation), indent=1, ensure_ascii=False) + "\n")


if __name__ == "__main__":
    main()
