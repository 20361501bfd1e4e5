"""The events handler in this process: access to jobs, streaming, and errors during the stream."""

import json
from collections.abc import Callable, Generator
from typing import Any

import pytest

from aiserver import bootstrap
from aiserver.api_keys import Authenticator
from aiserver.bootstrap import EventsParts
from aiserver.http_api import HttpContext
from aiserver.jobs.states import JobState
from aiserver.usecases.status import Status
from aiserver.usecases.watch_job import WatchJob
from tests import stack as template
from tests.answers import event_with_headers, is_error, json_body, put_job
from tests.fakes import FakeClock
from tests.iam import recorder
from tests.moto_stack import Context, MotoStack, client, event
from tests.sse_reader import read

JOB = 4711


def watch(job_id: object = JOB, **headers: str) -> dict[str, Any]:
    """Return the event of a request that watches a job."""
    return event_with_headers("events", **headers) | {"pathParameters": {"id": str(job_id)}}


@pytest.fixture
def advance_on_sleep(stack: MotoStack) -> Callable[..., None]:
    """Return a function that advances the clock only in sleeps of the handler, and calls an action in each."""

    def install(action: Callable[[], object], *, streams: bool = True) -> None:
        clock = FakeClock(bootstrap.CLOCK.now_ms())

        begin_ms = clock.now

        def sleep(seconds: float) -> None:
            clock.advance(seconds)
            assert clock.now < begin_ms + 60_000, "the stream never ends"
            with recorder.running(None):
                action()

        jobs = stack.jobs()
        bootstrap.reset_for_tests()
        bootstrap.override_for_tests(
            events=EventsParts(
                HttpContext(clock, [], streams=streams),
                Authenticator(stack.config(), clock),
                Status(jobs, clock, sleep),
                WatchJob(jobs, clock, sleep),
            )
        )

    return install


def test_ended_job_is_one_event(stack: MotoStack) -> None:
    put_job(stack, JOB, state=JobState.CANCELLED)
    response = stack.invoke("events", watch())
    assert response["statusCode"] == 200
    assert response["headers"] == {
        "content-type": "text/event-stream; charset=utf-8",
        "cache-control": "no-cache",
        "x-request-id": event("events")["requestContext"]["requestId"],
        "x-aiserver-request-id": event("events")["requestContext"]["requestId"],
        "x-content-type-options": "nosniff",
    }
    (last_event,) = read(response["body"].encode())
    assert (last_event.document["jobId"], last_event.document["jobState"]) == (JOB, "Cancelled")


def test_head_and_first_event_are_sent_while_the_job_runs(stack: MotoStack) -> None:
    put_job(stack, JOB, state=JobState.STARTED)
    stack.invoke("events", event("events"))  # of an unknown job: starts the container
    stream = template.module("EventsFunction").handler(watch(), Context())
    assert isinstance(stream, Generator)
    head, first = next(stream), next(stream)
    assert head["statusCode"] == 200
    assert read(first)[0].document["jobState"] == "Started"
    stream.close()


@pytest.mark.parametrize("header", ["Last-Event-ID", "last-event-id", "LAST-EVENT-ID"])
def test_reconnect_after_the_last_event_gets_json_and_no_stream(header: str, stack: MotoStack) -> None:
    put_job(stack, JOB, state=JobState.FAILED)
    (last_event,) = read(stack.invoke("events", watch())["body"].encode())
    response = stack.invoke("events", watch(**{header: last_event.id}))
    assert (response["statusCode"], response["headers"]["content-type"]) == (200, "application/json; charset=utf-8")
    assert json.loads(response["body"])["jobState"] == "Failed"


def test_other_owner_unknown_and_invalid_ids_get_the_same_404(stack: MotoStack) -> None:
    put_job(stack, JOB, owner="somebody else", state=JobState.FAILED)
    unknown = stack.invoke("events", watch(12))
    assert is_error(unknown, 404, "NotFound")
    assert unknown["headers"]["content-type"].startswith("application/json")
    for job_id in (JOB, "junk", "-1", "4711.0", "%34", "٤٧١١", "9" * 40, ""):
        for headers in ({}, {"Last-Event-ID": "0-0-Failed"}):
            response = stack.invoke("events", watch(job_id, **headers))
            assert (response["statusCode"], json_body(response)) == (404, json_body(unknown))


def test_events_without_api_key_get_401_for_any_job(stack: MotoStack) -> None:
    put_job(stack, JOB)
    for job_id in (JOB, 12):
        request = watch(job_id)
        del request["headers"]["Authorization"]
        assert is_error(stack.invoke("events", request), 401, "Unauthorized")


def test_buffered_events_are_returned_at_the_timeout(stack: MotoStack, advance_on_sleep: Callable[..., None]) -> None:
    job = put_job(stack, JOB)
    table = {"TableName": stack.names["JobsTable"], "Key": {"pk": {"S": f"JOB#{job.id}"}, "sk": {"S": "JOB"}}}
    sleeps: list[int] = []

    def start_job_after_ten_sleeps() -> None:
        sleeps.append(1)
        if len(sleeps) == 10:
            updates = {"AttributeUpdates": {"attempt": {"Value": {"N": "1"}}, "state": {"Value": {"S": "Started"}}}}
            client("dynamodb").update_item(**table, **updates)

    advance_on_sleep(start_job_after_ten_sleeps, streams=False)
    response = stack.invoke_again("events", watch())
    assert [job_event.document["jobState"] for job_event in read(response["body"].encode())] == ["Queued", "Started"]
    assert len(sleeps) == 55  # of half a second: Lambda's 29 s, less the reserve for the response


def test_table_failure_during_the_stream_is_the_last_event(
    stack: MotoStack, advance_on_sleep: Callable[..., None]
) -> None:
    put_job(stack, JOB)
    advance_on_sleep(lambda: client("dynamodb").delete_table(TableName=stack.names["JobsTable"]))
    response = stack.invoke_again("events", watch())
    queued, failed = read(response["body"].encode())
    assert queued.document["jobState"] == "Queued"
    assert failed.document["responseStatus"]["errorCode"] == "InternalError"
    assert failed.id == queued.id  # so that a reconnect resumes after the last job event
    assert "dynamodb" not in failed.data


def test_cors_allows_the_last_event_id_header(stack: MotoStack) -> None:
    stack.parameters["CorsOrigins"] = "https://app.example.com"
    response = stack.invoke("status", event("status.preflight") | {"resource": event("events")["resource"]})
    assert "last-event-id" in response["headers"]["access-control-allow-headers"].split(", ")
