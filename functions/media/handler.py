"""Serves synchronous requests for audio and images: OpenAI's, and AI Server's."""

from collections.abc import Callable
from typing import Any

from aiserver import bootstrap, http_api
from aiserver.http_api import Request, Response
from aiserver.wire import aiserver_audio, aiserver_images, audio_requests, image_requests, requests
from aiserver.wire.media_types import is_event_stream, is_text
from aiserver.wire.requests import ModelRequest


def openai_route(bind: Callable[[bytes, str], ModelRequest]) -> Callable[[Request], Response]:
    """A route that parses its body, of a content type, by `bind` and relays the provider's response."""

    def complete(request: Request) -> Response:
        parts = bootstrap.media()
        owner = parts.keys.authenticate(request.headers).id
        bound = bind(request.body, request.headers.get("content-type", ""))
        completion = parts.complete.run(
            bound.with_options(requests.options_from_headers(request.headers)),
            owner=owner,
            base_url=request.base_url,
            deadline=request.deadline,
        )
        headers = completion.response_headers
        content_type = headers.get("content-type", "application/json")
        if parts.http.streams or is_text(content_type) or is_event_stream(content_type):
            return Response(completion.body, completion.status, headers)
        # API Gateway would send a buffered file in base64: docs/decisions/0026
        link = parts.generate.store_file(completion, owner=owner)
        return Response(
            b"", 302, {name: value for name, value in headers.items() if name != "content-type"} | {"location": link}
        )

    return complete


def aiserver_route(name: str, bind: Callable[..., ModelRequest]) -> Callable[[Request], Response]:
    """The route of AI Server's request `name`, parsed by `bind`, which returns texts or URLs of files."""

    def generate(request: Request) -> Response:
        parts = bootstrap.media()
        owner = parts.keys.authenticate(request.headers).id
        bound = bind(request.body, request.headers.get("content-type", ""), request.query, name=name)
        media = parts.generate.run(
            bound.with_options(requests.options_from_headers(request.headers)),
            owner=owner,
            base_url=request.base_url,
            deadline=request.deadline,
        )
        return Response(media.body, headers=media.headers)

    return generate


ROUTES: http_api.Routes = {
    ("POST", "/v1/audio/transcriptions"): openai_route(audio_requests.bind_transcription),
    ("POST", "/v1/audio/translations"): openai_route(audio_requests.bind_translation),
    ("POST", "/v1/audio/speech"): openai_route(audio_requests.bind_speech),
    ("POST", "/v1/images/generations"): openai_route(image_requests.bind_generation),
    ("POST", "/v1/images/edits"): openai_route(image_requests.bind_edit),
    ("POST", "/v1/images/variations"): openai_route(image_requests.bind_variation),
    ("POST", "/api/SpeechToText"): aiserver_route("SpeechToText", aiserver_audio.bind_speech_to_text),
    ("POST", "/api/TextToSpeech"): aiserver_route("TextToSpeech", aiserver_audio.bind_text_to_speech),
    ("POST", "/api/TextToImage"): aiserver_route("TextToImage", aiserver_images.bind_text_to_image),
    ("POST", "/api/ImageToImage"): aiserver_route("ImageToImage", aiserver_images.bind_image_to_image),
    ("POST", "/api/ImageWithMask"): aiserver_route("ImageWithMask", aiserver_images.bind_image_with_mask),
    ("POST", "/api/ImageToText"): aiserver_route("ImageToText", aiserver_images.bind_image_to_text),
}


def handler(event: dict[str, Any], context: Any) -> Any:
    return http_api.respond_streaming(event, context, ROUTES, bootstrap.media().http)


bootstrap.preload(bootstrap.media)
