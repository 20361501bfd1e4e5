"""Serves POST /api/{name} and the queue routes: accepts and cancels jobs, sends callbacks again, sends samples."""

from collections.abc import Callable
from typing import Any

from aiserver import bootstrap, http_api
from aiserver.errors import InvalidRequest, NotFound
from aiserver.http_api import Request, Response
from aiserver.jobs.job import Job
from aiserver.jobs.states import JobState
from aiserver.usecases import views
from aiserver.usecases.enqueue import Caller
from aiserver.wire import aiserver_audio, aiserver_images, audio_requests, image_requests, requests
from aiserver.wire.render import dump_json, render
from aiserver.wire.requests import ModelRequest
from aiserver.wire.samples import CHAT_COMPLETION

BATCH = "[]"


def queue_openai(request: Request) -> Response:
    caller = _caller(request)
    bound = requests.bind_openai_queue_chat(request.body, requests.options_from_headers(request.headers))
    job = bootstrap.queue().enqueue.accept(bound, caller)
    return Response(render(views.accepted_view(job)), 202, {"location": views.status_url(job)})


def queue_openai_media(bind: Callable[..., ModelRequest]) -> Callable[[Request], Response]:
    """A route that queues a request for media in OpenAI's format, which `bind` parses."""

    def queue(request: Request) -> Response:
        caller = _caller(request)
        bound = bind(request.body, request.headers.get("content-type", ""), is_queued=True)
        bound = bound.with_options(requests.options_from_headers(request.headers))
        job = bootstrap.queue().enqueue.accept(bound, caller)
        return Response(render(views.accepted_view(job)), 202, {"location": views.status_url(job)})

    return queue


def queue_media(name: str, bind: Callable[..., ModelRequest]) -> Callable[[Request], Response]:
    """AI Server's queue request `name`, which `bind` parses."""

    def queue(request: Request) -> Response:
        caller = _caller(request)
        bound = bind(request.body, request.headers.get("content-type", ""), request.query, name=name)
        bound = bound.with_options(requests.options_from_headers(request.headers))
        job = bootstrap.queue().enqueue.accept(bound, caller)
        headers = {"x-ignored": ", ".join(bound.ignored)} if bound.ignored else {}
        return Response(render(views.accepted_media_view(job, name)), headers=headers)

    return queue


def queue_chat(request: Request) -> Response:
    caller = _caller(request)
    job = bootstrap.queue().enqueue.accept(requests.bind_queue_chat(request.body), caller)
    return Response(render(views.accepted_view(job)))


def queue_chats(request: Request) -> Response:
    """Accepts a batch; nothing is stored unless every request is valid. Only a reused RefId (409) can fail midway."""
    caller = _caller(request)
    bound = [requests.bind_queue_chat(text) for text in requests.split_batch(request.body)]
    return Response(
        dump_json([views.accepted_view(job) for job in bootstrap.queue().enqueue.accept_all(bound, caller)])
    )


def cancel(request: Request) -> Response:
    job = bootstrap.queue().enqueue.cancel(_job(request))
    return Response(_state(job), 200 if job.state == JobState.CANCELLED else 202)


def redeliver(request: Request) -> Response:
    return Response(_state(bootstrap.queue().redelivery.redeliver(_job(request))))


def test_callback(request: Request) -> Response:
    """Sends a sample callback now and returns its outcome."""
    key = bootstrap.queue().keys.authenticate(request.headers)
    sample = bootstrap.queue().sample.send(key, requests.bind_reply_to(request.body), CHAT_COMPLETION)
    status, error = sample.delivery.status, sample.delivery.error
    return Response(
        render(
            {
                "webhookId": sample.message_id,
                "delivered": error is None,
                "status": status,
                "error": error,
                "durationMs": sample.took_ms,
            }
        )
    )


def by_name(request: Request) -> Response:
    """POST /api/{name}; the name is case-insensitive, the suffix `[]` means a batch."""
    name = request.params["proxy"].lower()
    if name.removesuffix(BATCH) not in {*NAMES, "openaichatcompletion"} or name == "openaichatcompletion":
        raise NotFound(f"No such route: POST /api/{request.params['proxy']}")
    if name.endswith(BATCH) and name not in NAMES:
        raise InvalidRequest(f"'{request.params['proxy'].removesuffix(BATCH)}' does not support batches")
    return NAMES[name](request)


NAMES = {
    "queueopenaichatcompletion": queue_chat,
    "queueopenaichatcompletion" + BATCH: queue_chats,
    "queuespeechtotext": queue_media("QueueSpeechToText", aiserver_audio.bind_speech_to_text),
    "queuetexttospeech": queue_media("QueueTextToSpeech", aiserver_audio.bind_text_to_speech),
    "queuetexttoimage": queue_media("QueueTextToImage", aiserver_images.bind_text_to_image),
    "queueimagetoimage": queue_media("QueueImageToImage", aiserver_images.bind_image_to_image),
    "queueimagewithmask": queue_media("QueueImageWithMask", aiserver_images.bind_image_with_mask),
    "queueimagetotext": queue_media("QueueImageToText", aiserver_images.bind_image_to_text),
    "canceljob": cancel,
    "redelivercallback": redeliver,
    "testcallback": test_callback,
}
ROUTES: http_api.Routes = {
    ("POST", "/v1/queue/chat/completions"): queue_openai,
    ("POST", "/v1/queue/audio/transcriptions"): queue_openai_media(audio_requests.bind_transcription),
    ("POST", "/v1/queue/audio/translations"): queue_openai_media(audio_requests.bind_translation),
    ("POST", "/v1/queue/audio/speech"): queue_openai_media(audio_requests.bind_speech),
    ("POST", "/v1/queue/images/generations"): queue_openai_media(image_requests.bind_generation),
    ("POST", "/v1/queue/images/edits"): queue_openai_media(image_requests.bind_edit),
    ("POST", "/v1/queue/images/variations"): queue_openai_media(image_requests.bind_variation),
    ("POST", "/api/{proxy+}"): by_name,
}


def handler(event: dict[str, Any], context: Any) -> dict[str, Any]:
    return http_api.respond(event, context, ROUTES, bootstrap.queue().http)


def _caller(request: Request) -> Caller:
    key = bootstrap.queue().keys.authenticate(request.headers)
    return Caller(key.id, request.base_url, key.callback_hosts)


def _job(request: Request) -> Job:
    owner = _caller(request).owner
    job_id, ref_id = requests.bind_job_reference(request.body)
    return bootstrap.queue().status.job(owner, job_id=job_id, ref_id=ref_id)


def _state(job: Job) -> bytes:
    return render({"id": job.id, "refId": job.ref_id, "jobState": job.state, "callback": views.callback_view(job)})


bootstrap.preload(bootstrap.queue)
