"""What becomes of the conversations, kept in golden/ for eyes and for a test; `python -m tests.vendors.golden` writes.

Each file: `asked` by OpenAI's client; `sent` to the vendor, or why it is `refused`; `said` by the vendor; `answered`.
"""

import json
from pathlib import Path
from typing import Any

from aiserver.errors import InvalidRequest
from aiserver.providers.translation.adapter import ResponseContext
from aiserver.providers.translation.chat import Chat
from aiserver.wire import sse
from tests.vendors.conversations import CONVERSATIONS, Conversation
from tests.vendors.dialect import Dialect
from tests.vendors.dialects import DIALECTS

FOLDER = Path(__file__).parent / "golden"
BORN = ResponseContext(1_700_000_000, lambda: "call_born", id="chatcmpl-born", model="model-born")


def made(dialect: Dialect, conversation: Conversation) -> dict[str, Any]:
    """One file's content, as the code has it now."""
    asked = {"model": dialect.model, **conversation.asked}
    try:
        chat = Chat(json.dumps(asked).encode(), dialect.vendor.capabilities)
        sent = dialect.vendor.build_request(chat)
    except InvalidRequest as refused:
        return {"asked": asked, "refused": refused.message}
    dialect.read(sent)
    body = json.loads(sent.body or b"")
    told: dict[str, Any] = {"asked": asked, "sent": {"path": sent.path, "headers": sent.headers, "body": body}}
    return told | (_streamed if chat.stream else _whole)(dialect, chat, conversation)


def _whole(dialect: Dialect, chat: Chat, conversation: Conversation) -> dict[str, Any]:
    said = dialect.message(conversation.answer)
    return {"said": json.loads(said), "answered": json.loads(dialect.vendor.map_response(said, BORN).body)}


def _streamed(dialect: Dialect, chat: Chat, conversation: Conversation) -> dict[str, Any]:
    events = dialect.vendor.create_event_mapper(chat, BORN)
    said = dialect.events(conversation.answer)
    told = b"".join(events.on_event(event) for event in said) + (b"" if events.is_done else events.on_end())
    answered = [sse.event_data(event).decode() for event in sse.EventSplitter().split(told)]
    heard = [json.loads(sse.event_data(event)) for event in said]
    return {"said": heard, "answered": [json.loads(one) if one.startswith("{") else one for one in answered]}


def place(dialect: Dialect, conversation: Conversation) -> Path:
    return FOLDER / dialect.type / f"{conversation.name}.json"


def main() -> None:
    for dialect in DIALECTS:
        for conversation in CONVERSATIONS:
            path = place(dialect, conversation)
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(json.dumps(made(dialect, conversation), indent=1, ensure_ascii=False) + "\n")


if __name__ == "__main__":
    main()
