"""What callers see of a job stays within what Lambda can answer, whatever the bodies hold."""

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


def done(result: bytes) -> Job:
    house = TestApp()
    return replace(house.run(house.accept()), result_bytes=len(result))


def as_lambda_sends(body: bytes) -> int:
    return len(json.dumps({"body": body.decode()}, ensure_ascii=False).encode())


@pytest.mark.parametrize("fill", ["y", '\\"', "é", "語", "\\\\"])
@pytest.mark.parametrize("megabytes", [0.1, 0.9, 1.9, 2.1, 3.9, 4.1, 20])
def test_a_status_fits_whatever_its_result(fill: str, megabytes: float) -> None:
    result = b'{"x":"' + (fill * int(megabytes * MB / len(fill.encode()))).encode() + b'"}'
    job = done(result)
    told = views.status_view(job, result if views.may_fit_inline(job) else None)
    assert as_lambda_sends(told) < LAMBDA_BYTES
    shown = json.loads(told)
    assert shown["resultUrl"].endswith(f"/v1/jobs/{job.id}/result")
    if "chatResponse" in shown:
        assert shown["chatResponse"] == shown["result"]
    assert ("result" in shown) or megabytes > 1.5


@pytest.mark.parametrize("fill", ["y", '\\"', "\\\\"])
@pytest.mark.parametrize("megabytes", [0.1, 0.9, 1.1, 4.9])
def test_a_record_fits_whatever_its_bodies_and_tells_where_they_are(fill: str, megabytes: float) -> None:
    body = b'{"x":"' + (fill * int(megabytes * MB / len(fill))).encode() + b'"}'
    told = render(views.record_view(done(body), body, body, request_link="https://link"))
    assert as_lambda_sends(told) < LAMBDA_BYTES
    shown = json.loads(told)
    assert ("requestBody" in shown, "responseBody" in shown) == ("requestUrl" not in shown, "resultUrl" not in shown)
    assert shown.get("requestBody", body.decode()) == body.decode()


@pytest.mark.parametrize("error", [ProviderRejected("no"), ProviderTimeout(may_be_billed=True)])
def test_a_failed_job_has_errors_and_meta_in_status_and_callback(error: ProviderError) -> None:
    house = TestApp()
    house.protocol.outcomes = [error]
    failed = house.run(house.accept())
    for document in (views.status_view(failed, None), views.error_view(failed)):
        shown = json.loads(document)["responseStatus"]
        assert (shown["errorCode"], shown["errors"], shown["meta"]) == (error.error_code, [], {})


def test_a_cancelled_job_s_callback_has_errors_and_meta() -> None:
    house = TestApp()
    shown = json.loads(views.error_view(house.enqueue.cancel(house.accept())))["responseStatus"]
    assert (shown["errorCode"], shown["errors"], shown["meta"]) == ("Cancelled", [], {})
