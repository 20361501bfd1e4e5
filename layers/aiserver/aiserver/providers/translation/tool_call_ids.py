"""Ids of tool calls: valid for the vendor, distinct in a request, and the same at a call and at its result.

Clients send ids that are empty, or the same in each turn, as some models make them; Anthropic and Bedrock refuse both.
https://github.com/BerriAI/litellm/issues/23510 https://github.com/ducks/claux/issues/40
"""

from collections import deque
from collections.abc import Callable, Iterator, Sequence

from aiserver.providers.translation.messages import AssistantMessage, Message, ToolCall, ToolMessage

DEFAULT_ID = "call"  # the id of a call without one


def assign_call_ids(messages: Sequence[Message], normalize: Callable[[str], str]) -> Iterator[int]:
    """Set the ids of calls and results, and each result's name to that of the tool that was called.

    A result belongs to the latest turn that has an unanswered call of its id, and there to the first such call.
    The ids follow from the messages alone. Yields the index of each result that has neither a call nor an id.
    """
    ids = _UniqueIds(normalize)
    unanswered: dict[str, list[deque[ToolCall]]] = {}
    for index, message in enumerate(messages):
        if isinstance(message, AssistantMessage):
            for given, calls in _calls_by_id(message).items():
                unanswered.setdefault(given, []).append(calls)
            for call in message.tool_calls or ():
                call.id = ids.make_unique(call.id or DEFAULT_ID)
        elif isinstance(message, ToolMessage):
            given = message.tool_call_id or ""
            if turns := unanswered.get(given):
                called = turns[-1].popleft()
                message.tool_call_id, message.name = called.id, called.function.name
                if not turns[-1]:
                    turns.pop()
            elif given:
                message.tool_call_id = normalize(given)
            else:
                yield index


def restore_call_ids(said: Sequence[tuple[str, str]], calls: Sequence[ToolCall]) -> Iterator[str]:
    """The ids for the calls that a vendor's own blocks hold, by `said` names and ids: those of the message's calls."""
    names, ids = [name for name, _ in said], [id for _, id in said]
    same = names == [call.function.name for call in calls]
    return iter([call.id or "" for call in calls] if same else ids)


def _calls_by_id(message: AssistantMessage) -> dict[str, deque[ToolCall]]:
    """The calls of one turn, by the ids that its client gave them."""
    calls: dict[str, deque[ToolCall]] = {}
    for call in message.tool_calls or ():
        calls.setdefault(call.id or "", deque()).append(call)
    return calls


class _UniqueIds:
    def __init__(self, normalize: Callable[[str], str]) -> None:
        self._normalize = normalize
        self._numbers: dict[str, int] = {}  # the last that stands behind an id

    def make_unique(self, given: str) -> str:
        """The id as it is valid, with a number behind it where it is taken."""
        id = name = self._normalize(given)
        while name in self._numbers:
            self._numbers[id] += 1
            name = self._normalize(f"{id}_{self._numbers[id]}")
        self._numbers[name] = 1
        return name
