"""Serves job states, jobs, waits for jobs, results, artifacts, models and types."""

from functools import partial
from typing import Any

from aiserver import bootstrap, http_api
from aiserver.artifacts import LINK_TTL_S, artifact_owner
from aiserver.errors import NotFound
from aiserver.http_api import Request, Response
from aiserver.jobs.job import Job
from aiserver.jobs.ports import JobFilter
from aiserver.usecases import views
from aiserver.usecases.models import Model
from aiserver.wire import requests
from aiserver.wire.render import RawJson, render

DEFAULT_TAKE = 50
CACHED = {"cache-control": "public, max-age=300"}  # of types, which change with releases only


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
        JobFilter(
            tag=requests.query_value(request.query, "tag"),
            state=requests.query_value(request.query, "state"),
            since_ms=requests.query_time(request.query, "since"),
            until_ms=requests.query_time(request.query, "until"),
        ),
        take=requests.query_integer(request.query, "take") or DEFAULT_TAKE,
        cursor=requests.query_integer(request.query, "cursor"),
    )
    return Response(render({"results": [views.record_view(job) for job in page.jobs], "cursor": page.cursor}))


def active_models(request: Request) -> Response:
    _owner(request)
    return Response(render({"results": [model.name for model in bootstrap.status().models.all()]}))


def active_media_models(request: Request) -> Response:
    """AI Server's names of the models for images."""
    _owner(request)
    names = bootstrap.status().models.image_models()
    return Response(render({"results": [{"key": name, "value": name} for name in names]}))


def result(request: Request) -> Response:
    job = bootstrap.status().status.job(
        _owner(request), job_id=requests.parse_job_id(request.params["id"]), ref_id=None
    )
    body_or_link = bootstrap.status().status.result(job)
    if isinstance(body_or_link, str):
        return Response(b"", 302, {"location": body_or_link})
    return Response(body_or_link, headers={"content-type": job.result_type} if job.result_type else {})


def artifact(request: Request, *, is_head: bool = False) -> Response:
    """Redirects to a file, for a signed URL or the API key that owns the file; anything else is a 404."""
    parts, key = bootstrap.status(), f"artifacts/{request.params['proxy']}"
    owner = None if "%" in request.path else artifact_owner(key)
    is_signed = parts.artifact_urls.is_valid(key, request.query.get("e", ""), request.query.get("s", ""))
    if owner is None or not (is_signed or parts.keys.find_id(request.headers) == owner):
        raise NotFound("Artifact not found")
    link = parts.artifacts.link(key, seconds=LINK_TTL_S, is_head=is_head)
    if link is None:
        raise NotFound("Artifact not found")
    return Response(b"", 302, {"location": link})


def voices(request: Request) -> Response:
    """AI Server's voices: the models for speech whose voice is configured."""
    _owner(request)
    entries = [{"id": voice.id, "model": voice.model} for voice in bootstrap.status().models.voices()]
    skip = requests.query_integer(request.query, "skip") or 0
    take = requests.query_integer(request.query, "take") or len(entries)
    return Response(render({"offset": skip, "total": len(entries), "results": entries[skip : skip + take]}))


def models(request: Request) -> Response:
    _owner(request)
    entries = [RawJson(_model(model)) for model in bootstrap.status().models.all()]
    return Response(render({"object": "list", "data": entries}))


def model(request: Request) -> Response:
    _owner(request)
    return Response(_model(bootstrap.status().models.one(request.params["proxy"])))


def catch_all(request: Request) -> Response:
    """The types for clients under /types, without an API key; any other path is unknown."""
    name = request.params["proxy"].rstrip("/")
    if name != "types" and not name.startswith("types/"):
        return http_api.no_such_route(request)
    from aiserver.dtos import types  # needed for this route only

    body, content_type = types.render_types(name[len("types/") :], request.query, request.base_url)
    return Response(body, headers={"content-type": content_type, **CACHED})


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
    "gettextgenerationstatus": chat_status,
    "getartifactgenerationstatus": chat_status,
    "querytexttospeechvoices": voices,
    "queryjobs": query_jobs,
    "activeaimodels": active_models,
    "activemediamodels": active_media_models,
}
ROUTES: http_api.Routes = {
    ("GET", "/api/{proxy+}"): by_name,
    ("GET", "/v1/jobs/{id}/result"): result,
    ("GET", "/artifacts/{proxy+}"): artifact,
    ("HEAD", "/artifacts/{proxy+}"): partial(artifact, is_head=True),
    ("GET", "/v1/models"): models,
    ("GET", "/v1/models/{proxy+}"): model,
    ("GET", "/health"): health,
    ("POST", "/health"): health,  # a receiver for trial callbacks
    ("GET", "/{proxy+}"): catch_all,
    **{(method, "/{proxy+}"): http_api.no_such_route for method in ("POST", "PUT", "PATCH", "DELETE")},
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
