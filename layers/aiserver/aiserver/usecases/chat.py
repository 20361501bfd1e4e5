"""Answer a chat completion while its caller waits."""

from dataclasses import dataclass

from aiserver.clock import Clock
from aiserver.errors import InvalidRequest
from aiserver.router import Router
from aiserver.usecases.ask import Question, ask
from aiserver.wire.requests import ChatRequest


@dataclass(frozen=True)
class ChatAnswer:
    """The provider's answer as it came, and who gave it after how many calls."""

    status: int
    headers: dict[str, str]
    body: bytes
    provider: str
    attempts: int


class Chat:
    def __init__(self, router: Router, clock: Clock) -> None:
        self._router = router
        self._clock = clock

    def answer(self, request: ChatRequest, *, deadline_ms: int) -> ChatAnswer:
        """Ask the best provider, and the next where that one is known to have done nothing.

        Raises: NotFound (model), InvalidRequest (provider, stream), ProviderError.
        """
        if request.stream:
            raise InvalidRequest("Streaming is not available yet: send stream: false", param="stream")
        candidates = self._router.candidates(request.model, request.options.provider)
        question = Question("chat.completions", request.body)
        done = ask(self._router, question, candidates, clock=self._clock, deadline_ms=deadline_ms)
        if done.answer is None:
            raise done.error or AssertionError("a pass without an answer has an error")
        return ChatAnswer(done.answer.status, done.answer.headers, done.answer.body, done.provider, done.attempts)
