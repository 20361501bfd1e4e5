"""Streams the state changes of a job to its owner as server-sent events, until the job is terminal."""

from typing import Any

from aiserver import bootstrap, http_api
from aiserver.http_api import Request, Response
from aiserver.usecases import views, watch_job
from aiserver.wire import requests, sse


def events(request: Request) -> Response:
    parts = bootstrap.events()
    owner = parts.keys.authenticate(request.headers).id
    job = parts.status.job(owner, job_id=requests.parse_job_id(request.params["id"]), ref_id=None)
    last_event_id = request.headers.get("last-event-id")
    if watch_job.has_received_all(job, last_event_id):
        # Not an event stream, so that an EventSource does not reconnect. A 204 would do the same, but responses without
        # a body are known to hang where routes stream (docs/decisions/0016).
        return Response(views.status_view(job, None))
    stream = parts.watch.events(job, last_event_id=last_event_id, deadline=request.deadline)
    return Response(stream, headers=sse.HEADERS)


ROUTES: http_api.Routes = {("GET", "/v1/jobs/{id}/events"): events}


def handler(event: dict[str, Any], context: Any) -> Any:
    return http_api.respond_streaming(event, context, ROUTES, bootstrap.events().http)


bootstrap.preload(bootstrap.events)
