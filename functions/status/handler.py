"""Serves job states, jobs, waits for jobs, results and models."""

from typing import Any

from aiserver import bootstrap, http_api
from aiserver.errors import NotFound
from aiserver.http_api import Request, Response
from aiserver.jobs.job import Job
from aiserver.usecases import views
from aiserver.usecases.models import Model
from aiserver.wire import requests
from aiserver.wire.render import RawJson, render

DEFAULT_TAKE = 50


def chat_status(request: Request) -> Response:
    return Response(bootstrap.status().status.status(_job(request)))


def chat(request: Request) -> Response:
    return Response(render({"result": bootstrap.status().status.record(_job(request))}))


def wait(request: Request) -> Response:
    status = bootstrap.status().status
    job = status.wait(_job(request), deadline=request.deadline)
    return Response(render({"result": status.record(job)}))


def query_jobs(request: Request) -> Response:
    page = bootstrap.status().status.list_jobs(
        _owner(request),
        tag=requests.query_value(request.query, "tag"),
        state=requests.query_value(request.query, "state"),
        take=requests.query_integer(request.query, "take") or DEFAULT_TAKE,
        cursor=requests.query_integer(request.query, "cursor"),
    )
    return Response(render({"results": [views.record_view(job) for job in page.jobs], "cursor": page.cursor}))


def active_models(request: Request) -> Response:
    _owner(request)
    return Response(render({"results": [model.name for model in bootstrap.status().models.all()]}))


def result(request: Request) -> Response:
    job = bootstrap.status().status.job(
        _owner(request), job_id=requests.parse_job_id(request.params["id"]), ref_id=None
    )
    body_or_link = bootstrap.status().status.result(job)
    if isinstance(body_or_link, str):
        return Response(b"", 302, {"location": body_or_link})
    return Response(body_or_link, headers={"content-type": job.result_type} if job.result_type else {})


def models(request: Request) -> Response:
    _owner(request)
    entries = [RawJson(_model(model)) for model in bootstrap.status().models.all()]
    return Response(render({"object": "list", "data": entries}))


def model(request: Request) -> Response:
    _owner(request)
    return Response(_model(bootstrap.status().models.one(request.params["proxy"])))


def health(request: Request) -> Response:
    return Response(render({"status": "ok"}))


def by_name(request: Request) -> Response:
    """GET /api/{name}; the name is case-insensitive."""
    name = request.params["proxy"]
    if name.lower() not in NAMES:
        raise NotFound(f"No such route: GET /api/{name}")
    return NAMES[name.lower()](request)


NAMES = {
    "getopenaichatstatus": chat_status,
    "getopenaichat": chat,
    "waitforopenaichat": wait,
    "queryjobs": query_jobs,
    "activeaimodels": active_models,
}
ROUTES: http_api.Routes = {
    ("GET", "/api/{proxy+}"): by_name,
    ("GET", "/v1/jobs/{id}/result"): result,
    ("GET", "/v1/models"): models,
    ("GET", "/v1/models/{proxy+}"): model,
    ("GET", "/health"): health,
    ("POST", "/health"): health,  # a receiver for trial callbacks
    **{(method, "/{proxy+}"): http_api.no_such_route for method in ("GET", "POST", "PUT", "PATCH", "DELETE")},
}


def handler(event: dict[str, Any], context: Any) -> dict[str, Any]:
    return http_api.respond(event, context, ROUTES, bootstrap.status().http)


def _owner(request: Request) -> str:
    return bootstrap.status().keys.authenticate(request.headers).id


def _job(request: Request) -> Job:
    """The job named by `jobId`, `id` or `refId`: AI Server's requests use different names."""
    owner = _owner(request)
    job_id = requests.query_integer(request.query, "jobId") or requests.query_integer(request.query, "id")
    return bootstrap.status().status.job(owner, job_id=job_id, ref_id=requests.query_value(request.query, "refId"))


def _model(model: Model) -> bytes:
    return render({"id": model.name, "object": "model", "created": 0, "owned_by": model.provider})


bootstrap.preload(bootstrap.status)
