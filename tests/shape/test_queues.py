"""Queues, their consumers and the stream, beyond linters: times, sizes, dead letters, filters."""

import json
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import pytest

from aiserver.aws.items import pack
from aiserver.jobs.job import Job
from aiserver.jobs.states import TERMINAL_STATES, CallbackState, JobState
from aiserver.jobs.transitions import TRANSITIONS, Transition
from local.streams import matches
from tests import stack
from tests.stack import PARAMETERS

SOURCES = stack.of_type("AWS::Lambda::EventSourceMapping")
QUEUES = stack.of_type("AWS::SQS::Queue")
CONSUMED = {
    stack.single_resource(source["EventSourceArn"]): source
    for source in SOURCES.values()
    if "StartingPosition" not in source
}
(STREAM,) = [source for source in SOURCES.values() if "StartingPosition" in source]
JOB_QUEUES = ("HostedQueue", "GpuQueue")
BATCH_WITHOUT_WINDOW = 10  # larger batches of SQS sources need a batching window
ORDER = ("Queued", "Started", "Completed", "Failed", "Cancelled")


def test_job_callback_and_intake_queues_have_a_consumer() -> None:
    assert set(CONSUMED) == {*JOB_QUEUES, "CallbackQueue", "IntakeQueue"}


@pytest.mark.parametrize("queue", CONSUMED)
def test_visibility_timeout_is_six_times_the_timeout_of_the_consumer(queue: str) -> None:
    function = stack.properties(stack.single_resource(CONSUMED[queue]["FunctionName"]))
    assert stack.number(stack.properties(queue)["VisibilityTimeout"]) >= 6 * stack.number(function["Timeout"])


@pytest.mark.parametrize("queue", CONSUMED)
def test_batch_size_does_not_exceed_the_limit_without_a_window(queue: str) -> None:
    size, window = CONSUMED[queue]["BatchSize"], CONSUMED[queue].get("MaximumBatchingWindowInSeconds", 0)
    max_size = PARAMETERS[name]["MaxValue"] if (name := stack.parameter(size)) else size
    assert window or int(max_size) <= BATCH_WITHOUT_WINDOW


@pytest.mark.parametrize("queue", CONSUMED)
def test_concurrency_is_within_the_limits_of_lambda(queue: str) -> None:
    limit = CONSUMED[queue]["ScalingConfig"]["MaximumConcurrency"]
    assert 2 <= stack.number(limit) <= 1000
    if name := stack.parameter(limit):
        assert int(PARAMETERS[name]["MinValue"]) >= 2
        assert int(PARAMETERS[name]["MaxValue"]) <= 1000


def test_each_job_queue_has_its_concurrency_and_batch_size_parameters() -> None:
    for setting in (lambda source: source["ScalingConfig"]["MaximumConcurrency"], lambda source: source["BatchSize"]):
        parameters = [stack.parameter(setting(CONSUMED[queue])) for queue in JOB_QUEUES]
        assert None not in parameters
        assert len(set(parameters)) == len(JOB_QUEUES)


def test_each_consumed_queue_has_its_dead_letter_queue_after_five_receives() -> None:
    redrives = {queue: QUEUES[queue]["RedrivePolicy"] for queue in CONSUMED}
    assert {policy["maxReceiveCount"] for policy in redrives.values()} == {5}
    dead = [stack.single_resource(policy["deadLetterTargetArn"]) for policy in redrives.values()]
    dead.append(stack.single_resource(STREAM["DestinationConfig"]["OnFailure"]))
    assert len(set(dead)) == len(dead)
    assert not set(dead) & set(CONSUMED)
    assert {QUEUES[queue]["MessageRetentionPeriod"] for queue in dead} == {14 * 86_400}


@pytest.mark.parametrize("queue", QUEUES)
def test_every_queue_is_encrypted(queue: str) -> None:
    assert QUEUES[queue]["SqsManagedSseEnabled"] is True


@pytest.mark.parametrize("source", SOURCES)
def test_failed_record_does_not_repeat_its_batch(source: str) -> None:
    assert SOURCES[source]["FunctionResponseTypes"] == ["ReportBatchItemFailures"]


def test_failing_record_does_not_block_the_stream() -> None:
    assert STREAM["BisectBatchOnFunctionError"] is True
    assert 1 <= STREAM["MaximumRetryAttempts"] <= 10
    assert stack.single_resource(STREAM["DestinationConfig"]["OnFailure"]["Destination"]) in QUEUES


# --- the records that the stream's filter passes ---


def is_passed(record: Mapping[str, Any]) -> bool:
    return any(
        matches(json.loads(stream_filter["Pattern"]), record) for stream_filter in STREAM["FilterCriteria"]["Filters"]
    )


def job(state: str, callback: str = CallbackState.NONE) -> Job:
    return Job(
        id=1,
        owner="me",
        ref_id="r",
        operation="chat.completions",
        model="m",
        queue="hosted",
        state=JobState(state),
        created_at=1,
        deadline=2,
        request_location="item",
        request_hash="h",
        base_url="https://x",
        callback=CallbackState(callback),
    )


def record(name: str, old: Job | None, new: Job | None) -> dict[str, Any]:
    images = {"OldImage": old, "NewImage": new}
    dynamodb = {key: pack({"pk": "JOB#1", "sk": "JOB", **image.to_item()}) for key, image in images.items() if image}
    return {"eventName": name, "eventSource": "aws:dynamodb", "dynamodb": dynamodb}


@pytest.mark.parametrize("transition", [t for t in TRANSITIONS if t.machine == "state"], ids=lambda t: t.name)
def test_stream_passes_a_transition_only_if_it_ends_the_job(transition: Transition) -> None:
    old, new = job(transition.source), job(transition.target)
    assert is_passed(record("MODIFY", old, new)) == (transition.target in TERMINAL_STATES)


@pytest.mark.parametrize("transition", [t for t in TRANSITIONS if t.machine == "callback"], ids=lambda t: t.name)
@pytest.mark.parametrize("terminal_state", sorted(TERMINAL_STATES))
def test_stream_passes_no_callback_transition(transition: Transition, terminal_state: str) -> None:
    assert not is_passed(
        record("MODIFY", job(terminal_state, transition.source), job(terminal_state, transition.target))
    )


@pytest.mark.parametrize("state", ORDER)
def test_stream_passes_a_job_that_is_created_in_a_terminal_state(state: str) -> None:
    assert is_passed(record("INSERT", None, job(state))) == (state in TERMINAL_STATES)


def test_stream_passes_no_body_no_ref_id_and_no_removal() -> None:
    completed = job(JobState.COMPLETED)
    body = pack({"pk": "JOB#1", "sk": "RESULT", "body": b"{}", "ttl": 1})
    assert not is_passed({"eventName": "INSERT", "dynamodb": {"NewImage": body}})
    assert not is_passed({"eventName": "INSERT", "dynamodb": {"NewImage": pack({"pk": "REF#me#r", "job_id": 1})}})
    assert not is_passed(record("REMOVE", completed, None))
    assert not is_passed(record("MODIFY", completed, replace(completed, ttl=5)))
    assert not is_passed(record("MODIFY", job(JobState.FAILED), job(JobState.QUEUED)))
