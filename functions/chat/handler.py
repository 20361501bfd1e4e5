"""Serves synchronous requests: chat completions, embeddings and responses."""

from collections.abc import Callable
from typing import Any

from aiserver import bootstrap, http_api
from aiserver.http_api import Request, Response
from aiserver.wire import requests
from aiserver.wire.requests import ModelRequest


def model_route(bind: Callable[[bytes], ModelRequest]) -> Callable[[Request], Response]:
    """A route that parses its body by `bind` and sends it to a provider."""

    def complete(request: Request) -> Response:
        parts = bootstrap.chat()
        owner = parts.keys.authenticate(request.headers).id
        completion = parts.complete.run(
            bind(request.body).with_options(requests.options_from_headers(request.headers)),
            owner=owner,
            base_url=request.base_url,
            deadline=request.deadline,
        )
        return Response(completion.body, completion.status, completion.response_headers)

    return complete


ROUTES: http_api.Routes = {
    ("POST", "/v1/chat/completions"): model_route(requests.bind_chat),
    ("POST", "/api/OpenAiChatCompletion"): model_route(requests.bind_chat),
    ("POST", "/v1/embeddings"): model_route(requests.bind_embeddings),
    ("POST", "/v1/responses"): model_route(requests.bind_responses),
}


def handler(event: dict[str, Any], context: Any) -> Any:
    return http_api.respond_streaming(event, context, ROUTES, bootstrap.chat().http)


bootstrap.preload(bootstrap.chat)
