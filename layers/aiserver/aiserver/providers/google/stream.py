"""An answer of Gemini's as it streams, in OpenAI's events: each of Gemini's is a whole answer, of what is new.

Source: https://ai.google.dev/api/generate-content#method:-models.streamgeneratecontent
"""

from typing import Any

import msgspec
from msgspec import Raw

from aiserver.providers.google.candidates import Candidate, Members, Part, candidate, kept, logprobs, refused, word
from aiserver.providers.google.errors import failure
from aiserver.providers.google.response import Answer, own, read, usage
from aiserver.providers.translation.adapter import Born, Failed, NoAnswer
from aiserver.providers.translation.chat import Chat
from aiserver.providers.translation.completion import Chunks, Usage
from aiserver.providers.translation.messages import held, members
from aiserver.providers.translation.size_limits import check, check_candidates
from aiserver.wire import json_scan, sse

# Members of which an event has one at least. https://ai.google.dev/api/generate-content#GenerateContentResponse
KNOWN = ("candidates", "promptFeedback", "usageMetadata", "modelVersion", "responseId", "modelStatus", "createTime")


class _Choice:
    """One of the answers till now. Why it ended is told last: Gemini may say so, and go on."""

    def __init__(self) -> None:
        self.calls = 0
        self.finish_reason = ""
        self.logprobs: list[dict[str, Any]] = []  # those of words that are not told yet
        self.left: Members = {}
        self._parts: list[tuple[Part, list[str]]] = []

    @property
    def is_silent(self) -> bool:
        return not self._parts

    @property
    def own(self) -> dict[str, Any]:
        """The parts, where OpenAI's words do not say all of them."""
        if all(one.is_plain for one, _ in self._parts):
            return {}
        return {"google": {"parts": [one.whole | self._text(one, pieces) for one, pieces in self._parts]}}

    def add(self, said: Part) -> dict[str, Any]:
        """What is told of one part more. Texts after each other are one, unless one has a signature."""
        last = self._parts[-1] if self._parts else None
        if last and said.is_text and last[0].is_text and said.is_thought == last[0].is_thought:
            last[1].append(said.text)
        else:
            self._parts.append((said, [said.text]))
            check(len(self._parts))
        if said.call:
            self.calls += 1
            return {"tool_calls": [{"index": self.calls - 1, **said.call}]}
        if not said.text:
            return {}
        return {"reasoning_content" if said.is_thought else "content": said.text}

    def take_logprobs(self) -> Any:
        taken, self.logprobs = self.logprobs, []
        return logprobs(taken)

    def _text(self, one: Part, pieces: list[str]) -> dict[str, str]:
        return {"text": "".join(pieces)} if one.is_text else {}


class GoogleEvents:
    """vendor.Events"""

    is_over = False  # no event says so

    def __init__(self, chat: Chat, born: Born) -> None:
        self.usage: str | None = None
        self.pieces = 0
        self.request_id: str | None = None
        self._chunks = Chunks(born.created_s, shows_usage=chat.shows_usage)
        self._born = born
        self._choices: dict[int, _Choice] = {}
        self._root: Members = {}
        self._counted: Members = {}
        self._used: Usage | None = None
        self._is_blocked = False

    @property
    def is_whole(self) -> bool:
        ended = sum(bool(choice.finish_reason) for choice in self._choices.values())
        is_empty = bool(self._root) and not self._choices
        return self._is_blocked or is_empty or (ended > 0 and ended == len(self._choices))

    @property
    def _has_worked(self) -> bool:
        """Whether there was something that is paid for, told or not."""
        is_heard = any(not choice.is_silent for choice in self._choices.values())
        return is_heard or bool(self._used and self._used.completion)

    def told(self, event: bytes) -> bytes:
        data = json_scan.sole(sse.data(event))  # an error may come as an array of one
        if not data.strip():
            return b""
        said, root = read(data), members(data)
        if said.is_error:
            raise Failed(data, has_begun=self._has_worked)
        if root and not root.keys() & set(KNOWN):
            raise NoAnswer
        check_candidates(len(said.candidates))
        self._note(said, root)
        return b"".join(self._hear(candidate(raw, self._born)) for raw in said.candidates)

    def ended(self) -> bytes:
        if self._is_blocked and not self._choices:
            return self._chunks.delta(finish="content_filter", own=own(self._root, [])) + self._chunks.end(self._used)
        if not self._choices:
            raise NoAnswer
        told = [self._finish(index, self._choices[index]) for index in sorted(self._choices)]
        return b"".join(told) + self._chunks.end(self._used)

    def _note(self, said: Answer, root: Members) -> None:
        """Keep what is told of all candidates."""
        self._root |= root
        self._chunks.id = said.response_id or self._chunks.id
        self._chunks.model = said.model_version or self._chunks.model
        self.request_id = self._chunks.id or None
        self._is_blocked = self._is_blocked or said.is_blocked
        if counted := held(root, "usageMetadata"):
            self._counted |= counted
            self._used = usage(self._counted)
            self.usage = self._used.text

    def _hear(self, heard: Candidate) -> bytes:
        choice = self._choices.setdefault(heard.index, _Choice())
        parts = kept(heard.parts, self._born, choice.calls)
        said = [told for part in parts if (told := choice.add(part))]
        if code := refused(heard, is_silent=choice.is_silent):
            whole = failure(code, heard.finish_reason, heard.finish_message, self._root)
            raise Failed(whole, has_begun=self._has_worked, is_of_content=True)
        choice.finish_reason = heard.finish_reason or choice.finish_reason
        choice.left |= heard.left
        choice.logprobs += heard.logprobs
        return b"".join(self._say(heard.index, choice, told) for told in said)

    def _say(self, index: int, choice: _Choice, said: dict[str, Any]) -> bytes:
        self.pieces += 1
        return self._chunks.delta(index, logprobs=choice.take_logprobs(), **said)

    def _finish(self, index: int, choice: _Choice) -> bytes:
        last = index == max(self._choices)
        root = self._root | {"usageMetadata": Raw(msgspec.json.encode(self._counted))} if last else {}
        more = own(root, [choice.left] if choice.left else [])
        is_blocked = self._is_blocked and not choice.finish_reason
        finish = "content_filter" if is_blocked else word(choice.finish_reason, calls=choice.calls > 0)
        return self._chunks.delta(index, finish=finish, logprobs=choice.take_logprobs(), own=more, **choice.own)
