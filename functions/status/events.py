"""Tells a job's owner each change of its state, event by event, until its end."""

from typing import Any

from aiserver import bootstrap, http_api
from aiserver.http_api import Request, Response
from aiserver.usecases import views, watch_job
from aiserver.wire import requests, sse


def events(request: Request) -> Response:
    parts = bootstrap.events()
    owner = parts.keys.authenticate(request.headers).id
    job = parts.status.job(owner, job_id=requests.job_id(request.params["id"]), ref_id=None)
    last_event_id = request.headers.get("last-event-id")
    if watch_job.has_heard_all(job, last_event_id):
        # No event stream: so an EventSource does not come again. A 204 would say so, too, but an answer without a body
        # is known to hang where routes stream (docs/decisions/0016).
        return Response(views.status(job, None))
    told = parts.watch.events(job, last_event_id=last_event_id, until_ms=request.deadline_ms)
    return Response(told, headers=sse.HEADERS)


ROUTES: http_api.Routes = {("GET", "/v1/jobs/{id}/events"): events}


def handler(event: dict[str, Any], context: Any) -> Any:
    return http_api.stream(event, context, ROUTES, bootstrap.events().edge)


bootstrap.warm(bootstrap.events)
