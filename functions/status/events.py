"""Tells a job's owner each change of its state, event by event, until its end."""

from typing import Any

from aiserver import edge, wiring
from aiserver.edge import Request, Response
from aiserver.usecases import documents, watch
from aiserver.wire import requests, sse


def events(request: Request) -> Response:
    parts = wiring.events()
    owner = parts.keys.authenticate(request.headers).id
    job = parts.status.job(owner, job_id=requests.job_id(request.params["id"]), ref_id=None)
    last_event_id = request.headers.get("last-event-id")
    if watch.has_heard_all(job, last_event_id):
        # No event stream: so an EventSource does not come again. A 204 would say so, too, but an answer without a body
        # is known to hang where routes stream (docs/decisions/0016).
        return Response(documents.status(job, None))
    told = parts.watch.events(job, last_event_id=last_event_id, until_ms=request.deadline_ms)
    return Response(told, headers=sse.HEADERS)


ROUTES: edge.Routes = {("GET", "/v1/jobs/{id}/events"): events}


def handler(event: dict[str, Any], context: Any) -> Any:
    return edge.stream(event, context, ROUTES, wiring.events().edge)


wiring.warm(wiring.events)
