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
        asked = bind(request.body).with_provider(requests.options_from_headers(request.headers).provider)
        done = parts.answer.run(asked, owner=owner, base_url=request.base_url, deadline_ms=request.deadline_ms)
        told = {**done.headers, "x-provider": done.provider, "x-attempts": str(done.attempts)}
        if done.is_replay:
            told["x-replayed"] = "true"
        return Response(done.body, done.status, told)

    return answer


ROUTES: http_api.Routes = {
    ("POST", "/v1/chat/completions"): answered(requests.bind_chat),
    ("POST", "/api/OpenAiChatCompletion"): answered(requests.bind_chat),
    ("POST", "/v1/embeddings"): answered(requests.bind_embeddings),
    ("POST", "/v1/responses"): answered(requests.bind_responses),
}


def handler(event: dict[str, Any], context: Any) -> Any:
    return http_api.respond_streaming(event, context, ROUTES, bootstrap.chat().http)


bootstrap.preload(bootstrap.chat)
