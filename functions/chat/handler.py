"""Answers a chat completion, or another request to a model, while the caller waits."""

from collections.abc import Callable
from typing import Any

from aiserver import bootstrap, http_api
from aiserver.http_api import Request, Response
from aiserver.wire import requests
from aiserver.wire.requests import ModelRequest


def answered(bind: Callable[[bytes], ModelRequest]) -> Callable[[Request], Response]:
    """A route whose body is bound so, and goes to a provider."""

    def answer(request: Request) -> Response:
        parts = bootstrap.chat()
        owner = parts.keys.authenticate(request.headers).id
        asked = bind(request.body).by(requests.headers(request.headers).provider)
        done = parts.answer.now(asked, owner=owner, base_url=request.base_url, deadline_ms=request.deadline_ms)
        told = {**done.headers, "x-provider": done.provider, "x-attempts": str(done.attempts)}
        if done.replayed:
            told["x-replayed"] = "true"
        return Response(done.body, done.status, told)

    return answer


ROUTES: http_api.Routes = {
    ("POST", "/v1/chat/completions"): answered(requests.chat),
    ("POST", "/api/OpenAiChatCompletion"): answered(requests.chat),
    ("POST", "/v1/embeddings"): answered(requests.embeddings),
    ("POST", "/v1/responses"): answered(requests.responses),
}


def handler(event: dict[str, Any], context: Any) -> Any:
    return http_api.stream(event, context, ROUTES, bootstrap.chat().edge)


bootstrap.warm(bootstrap.chat)
