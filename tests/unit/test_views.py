"""Status and record views of a job stay below Lambda's response size limit for all bodies."""

import json
from dataclasses import replace

import pytest

from aiserver.errors import ProviderError, ProviderRejected, ProviderTimeout
from aiserver.jobs.job import Job
from aiserver.usecases import views
from aiserver.wire.render import render
from tests.app import TestApp

LAMBDA_BYTES = 6_291_456
MB = 1024 * 1024


def completed_job(result: bytes) -> Job:
    app = TestApp()
    return replace(app.run(app.accept()), result_bytes=len(result))


def lambda_response_size(body: bytes) -> int:
    return len(json.dumps({"body": body.decode()}, ensure_ascii=False).encode())


@pytest.mark.parametrize("fill", ["y", '\\"', "é", "語", "\\\\"])
@pytest.mark.parametrize("megabytes", [0.1, 0.9, 1.9, 2.1, 3.9, 4.1, 20])
def test_status_view_fits_the_lambda_limit(fill: str, megabytes: float) -> None:
    result = b'{"x":"' + (fill * int(megabytes * MB / len(fill.encode()))).encode() + b'"}'
    job = completed_job(result)
    document = views.status_view(job, result if views.may_fit_inline(job) else None)
    assert lambda_response_size(document) < LAMBDA_BYTES
    view = json.loads(document)
    assert view["resultUrl"].endswith(f"/v1/jobs/{job.id}/result")
    if "chatResponse" in view:
        assert view["chatResponse"] == view["result"]
    assert ("result" in view) or megabytes > 1.5


@pytest.mark.parametrize("fill", ["y", '\\"', "\\\\"])
@pytest.mark.parametrize("megabytes", [0.1, 0.9, 1.1, 4.9])
def test_record_view_fits_the_lambda_limit_and_links_omitted_bodies(fill: str, megabytes: float) -> None:
    body = b'{"x":"' + (fill * int(megabytes * MB / len(fill))).encode() + b'"}'
    document = render(views.record_view(completed_job(body), body, body, request_link="https://link"))
    assert lambda_response_size(document) < LAMBDA_BYTES
    view = json.loads(document)
    assert ("requestBody" in view, "responseBody" in view) == ("requestUrl" not in view, "resultUrl" not in view)
    assert view.get("requestBody", body.decode()) == body.decode()


@pytest.mark.parametrize("error", [ProviderRejected("no"), ProviderTimeout(may_be_billed=True)])
def test_failed_job_has_errors_and_meta_in_status_and_callback(error: ProviderError) -> None:
    app = TestApp()
    app.dispatcher.outcomes = [error]
    job = app.run(app.accept())
    for document in (views.status_view(job, None), views.error_view(job)):
        view = json.loads(document)["responseStatus"]
        assert (view["errorCode"], view["errors"], view["meta"]) == (error.error_code, [], {})


def test_callback_of_a_cancelled_job_has_errors_and_meta() -> None:
    app = TestApp()
    view = json.loads(views.error_view(app.enqueue.cancel(app.accept())))["responseStatus"]
    assert (view["errorCode"], view["errors"], view["meta"]) == ("Cancelled", [], {})
