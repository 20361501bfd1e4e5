"""What the events of an OpenAI stream mean; all but one pass as they came.

Source: https://platform.openai.com/docs/api-reference/chat-streaming
https://platform.openai.com/docs/api-reference/responses-streaming
"""

import re

from aiserver.providers.openai_answers import NO_ERROR, failure_within, kept_usage
from aiserver.providers.provider import Provider
from aiserver.wire import scan, sse

# In a JSON text, what stands within a string has its quotes escaped: these are members, not words of an answer.
_ERROR = re.compile(rb'"error"\s*:')
_USAGE = re.compile(rb'"usage"\s*:\s*\{')
_NO_CHOICES = re.compile(rb'"choices"\s*:\s*\[\s*\]')
_SAYS = re.compile(rb'"(?:content|reasoning_content|reasoning|refusal|arguments|delta)"\s*:\s*"(?!")')
_LAST = {
    "chat.completions": re.compile(rb'"finish_reason"\s*:\s*"'),
    "responses": re.compile(rb'"type"\s*:\s*"response\.(?:completed|incomplete|failed)"'),
}


class OpenAiEvents:
    """stream.Translation of OpenAI's own events.

    With `hides_usage` the usage was not asked for by our caller, and the event that holds nothing else is kept back.
    An answer is whole once `[DONE]` has come, or all but that.
    """

    def __init__(self, provider: Provider, operation: str, *, hides_usage: bool, model_is_configured: bool) -> None:
        self.usage: str | None = None
        self.pieces = 0
        self.is_whole = False
        self.is_over = False
        self._provider = provider
        self._last = _LAST[operation]
        self._hides_usage = hides_usage
        self._model_is_configured = model_is_configured

    def told(self, event: bytes) -> bytes:
        data = sse.data(event)
        if data.strip() == sse.DONE:
            self.is_whole = self.is_over = True
            return event
        if _ERROR.search(data):
            self._raise_error(data)
        if _SAYS.search(data):
            self.pieces += 1
        if self._last.search(data):
            self.is_whole = True
        if _USAGE.search(data):
            self.usage = self._usage(data) or self.usage
            if self._hides_usage and _NO_CHOICES.search(data):
                return b""
        return event

    def _raise_error(self, data: bytes) -> None:
        if (scan.members(data, "error") or {}).get("error", b"null") not in NO_ERROR:
            has_begun = self.pieces > 0
            raise failure_within(
                self._provider, data, has_begun=has_begun, model_is_configured=self._model_is_configured
            )

    def _usage(self, data: bytes) -> str | None:
        """Of a chat it stands in the event itself, of a response in the response within."""
        found = scan.members(data, "usage", "response") or {}
        within = found.get("response") or b"{}"
        return kept_usage(found.get("usage") or (scan.members(within, "usage") or {}).get("usage", b""))
