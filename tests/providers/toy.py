"""A toy vendor whose stream events are `WORD hello`, `USED 3 5`, `BYE` and `FAIL why`, each followed by a blank line.

An EventMapper is all that such a vendor needs to stream.
"""

import json

from aiserver.errors import ProviderError
from aiserver.wire import sse


class Toy:
    """stream.EventMapper of the toy's events; the usage is sent to the caller only when requested."""

    def __init__(self, *, shows_usage: bool) -> None:
        self.request_id: str | None = None
        self.usage: str | None = None
        self.content_events = 0
        self.is_complete = False
        self.is_done = False
        self._shows_usage = shows_usage

    def on_event(self, event: bytes) -> bytes:
        kind, _, payload = event.decode().strip().partition(" ")
        match kind:
            case "WORD":
                self.content_events += 1
                return _chunk({"content": payload})
            case "USED":
                prompt, completion = map(int, payload.split())
                usage = {"prompt_tokens": prompt, "completion_tokens": completion, "total_tokens": prompt + completion}
                self.usage = json.dumps(usage)
                return b""
            case "BYE":
                self.is_complete = self.is_done = True
                usage = (
                    sse.format_event(f'{{"choices":[],"usage":{self.usage}}}'.encode()) if self._shows_usage else b""
                )
                return _chunk({}, "stop") + usage + b"data: [DONE]\n\n"
            case _:
                raise ProviderError(payload, may_be_billed=self.content_events > 0)

    def on_end(self) -> bytes:
        return b""


def _chunk(delta: dict[str, str], finish: str | None = None) -> bytes:
    return sse.format_event(json.dumps({"choices": [{"index": 0, "delta": delta, "finish_reason": finish}]}).encode())
