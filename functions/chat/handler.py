"""Answers a chat completion while the caller waits."""

from typing import Any

from aiserver import edge, wiring
from aiserver.edge import Request, Response
from aiserver.wire import requests


def answer(request: Request) -> Response:
    parts = wiring.chat()
    owner = parts.keys.authenticate(request.headers).id
    asked = requests.chat(request.body)
    done = parts.chat.answer(asked, owner=owner, base_url=request.base_url, deadline_ms=request.deadline_ms)
    told = {**done.headers, "x-provider": done.provider, "x-attempts": str(done.attempts)}
    if done.replayed:
        told["x-replayed"] = "true"
    return Response(done.body, done.status, told)


ROUTES: edge.Routes = {
    ("POST", "/v1/chat/completions"): answer,
    ("POST", "/api/OpenAiChatCompletion"): answer,
}


def handler(event: dict[str, Any], context: Any) -> dict[str, Any]:
    return edge.answer(event, context, ROUTES, wiring.chat().edge)


wiring.warm(wiring.chat)
