"""The real handler of a watch, in process: who may watch what, how it streams, and what it says when it breaks."""

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
from tests.answers import body, call, is_error, put_job
from tests.fakes import FakeClock
from tests.iam import recorder
from tests.moto_stack import Context, MotoStack, client, event
from tests.sse_reader import read

JOB = 4711


def watch(job_id: object = JOB, **headers: str) -> dict[str, Any]:
    """A call that watches this job."""
    return call("events", **headers) | {"pathParameters": {"id": str(job_id)}}


@pytest.fixture
def asleep(stack: MotoStack) -> Callable[..., None]:
    """Has a container's time pass only while it sleeps, and a deed done each time it does."""

    def fall(deed: Callable[[], object], *, streams: bool = True) -> None:
        clock = FakeClock(bootstrap.CLOCK.now_ms())

        began = clock.now

        def sleep(seconds: float) -> None:
            clock.advance(seconds)
            assert clock.now < began + 60_000, "the watch never ends"
            with recorder.running(None):
                deed()

        jobs = stack.jobs()
        bootstrap.reset()
        bootstrap.override(
            events=EventsParts(
                HttpContext(clock, [], streams=streams),
                Authenticator(stack.config(), clock),
                Status(jobs, clock, sleep),
                WatchJob(jobs, clock, sleep),
            )
        )

    return fall


def test_an_ended_job_is_one_event_and_the_end(stack: MotoStack) -> None:
    put_job(stack, JOB, state=JobState.CANCELLED)
    answer = stack.invoke("events", watch())
    assert answer["statusCode"] == 200
    assert answer["headers"] == {
        "content-type": "text/event-stream; charset=utf-8",
        "cache-control": "no-cache",
        "x-request-id": event("events")["requestContext"]["requestId"],
        "x-aiserver-request-id": event("events")["requestContext"]["requestId"],
        "x-content-type-options": "nosniff",
    }
    (told,) = read(answer["body"].encode())
    assert (told.document["jobId"], told.document["jobState"]) == (JOB, "Cancelled")


def test_the_head_and_the_first_event_go_out_while_the_job_still_runs(stack: MotoStack) -> None:
    put_job(stack, JOB, state=JobState.STARTED)
    stack.invoke("events", event("events"))  # of an unknown job: the container is there
    streamed = template.module("EventsFunction").handler(watch(), Context())
    assert isinstance(streamed, Generator)
    head, first = next(streamed), next(streamed)
    assert head["statusCode"] == 200
    assert read(first)[0].document["jobState"] == "Started"
    streamed.close()


@pytest.mark.parametrize("header", ["Last-Event-ID", "last-event-id", "LAST-EVENT-ID"])
def test_who_has_seen_the_end_is_told_not_to_come_again(header: str, stack: MotoStack) -> None:
    put_job(stack, JOB, state=JobState.FAILED)
    (told,) = read(stack.invoke("events", watch())["body"].encode())
    again = stack.invoke("events", watch(**{header: told.id}))
    assert (again["statusCode"], again["headers"]["content-type"]) == (200, "application/json; charset=utf-8")
    assert json.loads(again["body"])["jobState"] == "Failed"


def test_another_key_s_job_an_unknown_one_and_junk_are_the_same_404(stack: MotoStack) -> None:
    put_job(stack, JOB, owner="somebody else", state=JobState.FAILED)
    unknown = stack.invoke("events", watch(12))
    assert is_error(unknown, 404, "NotFound")
    assert unknown["headers"]["content-type"].startswith("application/json")
    for wrong in (JOB, "junk", "-1", "4711.0", "%34", "٤٧١١", "9" * 40, ""):
        for seen in ({}, {"Last-Event-ID": "0-0-Failed"}):
            answer = stack.invoke("events", watch(wrong, **seen))
            assert (answer["statusCode"], body(answer)) == (404, body(unknown))


def test_a_watch_without_a_key_is_refused_whether_there_is_such_a_job_or_not(stack: MotoStack) -> None:
    put_job(stack, JOB)
    for job_id in (JOB, 12):
        asked = watch(job_id)
        del asked["headers"]["Authorization"]
        assert is_error(stack.invoke("events", asked), 401, "Unauthorized")


def test_where_nothing_streams_all_comes_at_once_when_the_time_is_over(
    stack: MotoStack, asleep: Callable[..., None]
) -> None:
    job = put_job(stack, JOB)
    table = {"TableName": stack.names["JobsTable"], "Key": {"pk": {"S": f"JOB#{job.id}"}, "sk": {"S": "JOB"}}}
    looks: list[int] = []

    def starts_after_a_while() -> None:
        looks.append(1)
        if len(looks) == 10:
            to = {"AttributeUpdates": {"attempt": {"Value": {"N": "1"}}, "state": {"Value": {"S": "Started"}}}}
            client("dynamodb").update_item(**table, **to)

    asleep(starts_after_a_while, streams=False)
    answer = stack.invoke_again("events", watch())
    assert [told.document["jobState"] for told in read(answer["body"].encode())] == ["Queued", "Started"]
    assert len(looks) == 55  # of half a second: Lambda's 29 s, less what is kept to answer in


def test_a_table_that_fails_meanwhile_is_told_as_an_event_and_ends_the_stream(
    stack: MotoStack, asleep: Callable[..., None]
) -> None:
    put_job(stack, JOB)
    asleep(lambda: client("dynamodb").delete_table(TableName=stack.names["JobsTable"]))
    answer = stack.invoke_again("events", watch())
    queued, failed = read(answer["body"].encode())
    assert queued.document["jobState"] == "Queued"
    assert failed.document["responseStatus"]["errorCode"] == "InternalError"
    assert failed.id == queued.id  # so that who comes again goes on from what was seen
    assert "dynamodb" not in failed.data


def test_a_browser_may_send_the_last_event_s_id_along(stack: MotoStack) -> None:
    stack.parameters["CorsOrigins"] = "https://app.example.com"
    answer = stack.invoke("status", event("status.preflight") | {"resource": event("events")["resource"]})
    assert "last-event-id" in answer["headers"]["access-control-allow-headers"].split(", ")
