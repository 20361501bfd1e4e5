"""A vendor that streams in its own words: `WORD hello`, `USED 3 5`, `BYE`, `FAIL why`, each and a blank line.

What such a vendor needs to be streamed is here, and is all it needs: a stream.Translation.
"""

import json

from aiserver.errors import ProviderError
from aiserver.wire import sse


class Toy:
    """stream.Translation of the toy's events; the caller hears its usage only where he asked for it."""

    def __init__(self, *, shows_usage: bool) -> None:
        self.usage: str | None = None
        self.content_events = 0
        self.is_complete = False
        self.is_done = False
        self._shows_usage = shows_usage

    def on_event(self, event: bytes) -> bytes:
        kind, _, said = event.decode().strip().partition(" ")
        match kind:
            case "WORD":
                self.content_events += 1
                return _chunk({"content": said})
            case "USED":
                prompt, completion = map(int, said.split())
                used = {"prompt_tokens": prompt, "completion_tokens": completion, "total_tokens": prompt + completion}
                self.usage = json.dumps(used)
                return b""
            case "BYE":
                self.is_complete = self.is_done = True
                used = sse.format_event(f'{{"choices":[],"usage":{self.usage}}}'.encode()) if self._shows_usage else b""
                return _chunk({}, "stop") + used + b"data: [DONE]\n\n"
            case _:
                raise ProviderError(said, may_be_billed=self.content_events > 0)

    def on_end(self) -> bytes:
        return b""


def _chunk(delta: dict[str, str], finish: str | None = None) -> bytes:
    return sse.format_event(json.dumps({"choices": [{"index": 0, "delta": delta, "finish_reason": finish}]}).encode())
