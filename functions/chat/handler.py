"""Answers a chat completion while the caller waits."""

from typing import Any

from aiserver import edge, wiring
from aiserver.edge import Request, Response
from aiserver.wire import requests


def answer(request: Request) -> Response:
    parts = wiring.chat()
    parts.keys.authenticate(request.headers)
    done = parts.chat.answer(requests.chat(request.body), deadline_ms=request.deadline_ms)
    told = {**done.headers, "x-provider": done.provider, "x-attempts": str(done.attempts)}
    return Response(done.body, done.status, told)


ROUTES: edge.Routes = {
    ("POST", "/v1/chat/completions"): answer,
    ("POST", "/api/OpenAiChatCompletion"): answer,
}


def handler(event: dict[str, Any], context: Any) -> dict[str, Any]:
    return edge.answer(event, context, ROUTES, wiring.chat().edge)


wiring.warm(wiring.chat)
