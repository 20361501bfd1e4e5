"""Ids of tool calls: valid for the vendor, unique in a request, and equal in a call and its result.

Some models produce ids that are empty or repeated, and clients send them back; Anthropic and Bedrock reject both.
https://github.com/BerriAI/litellm/issues/23510 https://github.com/ducks/claux/issues/40
"""

from collections import deque
from collections.abc import Callable, Iterator, Sequence

from aiserver.providers.adapters.base.messages import AssistantMessage, Message, ToolCall, ToolMessage

DEFAULT_ID = "call"  # the id of a call without one


def assign_call_ids(messages: Sequence[Message], normalize: Callable[[str], str]) -> Iterator[int]:
    """Set the ids of calls and results, and each result's name to that of the called tool.

    A result belongs to the latest turn with an unanswered call of its id, and there to the first such call.
    The ids depend on the messages only. Yields the index of each result that has neither a call nor an id.
    """
    ids = _UniqueIds(normalize)
    unanswered: dict[str, list[deque[ToolCall]]] = {}
    for index, message in enumerate(messages):
        if isinstance(message, AssistantMessage):
            for original_id, calls in _calls_by_id(message).items():
                unanswered.setdefault(original_id, []).append(calls)
            for call in message.tool_calls or ():
                call.id = ids.make_unique(call.id or DEFAULT_ID)
        elif isinstance(message, ToolMessage):
            original_id = message.tool_call_id or ""
            if turns := unanswered.get(original_id):
                answered_call = turns[-1].popleft()
                message.tool_call_id, message.name = answered_call.id, answered_call.function.name
                if not turns[-1]:
                    turns.pop()
            elif original_id:
                message.tool_call_id = normalize(original_id)
            else:
                yield index


def restore_call_ids(named_ids: Sequence[tuple[str, str]], calls: Sequence[ToolCall]) -> Iterator[str]:
    """The ids of the message's calls for a vendor's blocks; `named_ids` are the tool names and ids of the blocks."""
    names, ids = [name for name, _ in named_ids], [id for _, id in named_ids]
    is_unchanged = names == [call.function.name for call in calls]
    return iter([call.id or "" for call in calls] if is_unchanged else ids)


def _calls_by_id(message: AssistantMessage) -> dict[str, deque[ToolCall]]:
    """The calls of one turn, by the ids that the client sent."""
    calls: dict[str, deque[ToolCall]] = {}
    for call in message.tool_calls or ():
        calls.setdefault(call.id or "", deque()).append(call)
    return calls


class _UniqueIds:
    def __init__(self, normalize: Callable[[str], str]) -> None:
        self._normalize = normalize
        self._numbers: dict[str, int] = {}  # the last suffix used for an id

    def make_unique(self, call_id: str) -> str:
        """The normalized id, with a number as suffix when it is in use."""
        id = name = self._normalize(call_id)
        while name in self._numbers:
            self._numbers[id] += 1
            name = self._normalize(f"{id}_{self._numbers[id]}")
        self._numbers[name] = 1
        return name
