"""What no linter sees of queues, their consumers and the stream: times, sizes, dead letters, filters."""

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
CONSUMED = {stack.the_one(one["EventSourceArn"]): one for one in SOURCES.values() if "StartingPosition" not in one}
((STREAM),) = [one for one in SOURCES.values() if "StartingPosition" in one]
JOB_QUEUES = ("HostedQueue", "GpuQueue")
BATCH_WITHOUT_WINDOW = 10  # SQS sources take more only with a batching window
ORDER = ("Queued", "Started", "Completed", "Failed", "Cancelled")


def test_each_job_queue_the_callback_queue_and_the_intake_queue_have_a_consumer() -> None:
    assert set(CONSUMED) == {*JOB_QUEUES, "CallbackQueue", "IntakeQueue"}


@pytest.mark.parametrize("queue", CONSUMED)
def test_a_message_stays_hidden_for_six_times_its_consumer_s_time_limit(queue: str) -> None:
    function = stack.properties(stack.the_one(CONSUMED[queue]["FunctionName"]))
    assert stack.number(stack.properties(queue)["VisibilityTimeout"]) >= 6 * stack.number(function["Timeout"])


@pytest.mark.parametrize("queue", CONSUMED)
def test_a_batch_is_no_larger_than_sqs_gives_without_a_window(queue: str) -> None:
    size, window = CONSUMED[queue]["BatchSize"], CONSUMED[queue].get("MaximumBatchingWindowInSeconds", 0)
    largest = PARAMETERS[name]["MaxValue"] if (name := stack.parameter(size)) else size
    assert window or int(largest) <= BATCH_WITHOUT_WINDOW


@pytest.mark.parametrize("queue", CONSUMED)
def test_concurrency_is_bounded_by_what_lambda_accepts(queue: str) -> None:
    limit = CONSUMED[queue]["ScalingConfig"]["MaximumConcurrency"]
    assert 2 <= stack.number(limit) <= 1000
    if name := stack.parameter(limit):
        assert int(PARAMETERS[name]["MinValue"]) >= 2
        assert int(PARAMETERS[name]["MaxValue"]) <= 1000


def test_each_job_queue_has_a_concurrency_and_a_batch_size_of_its_own_to_set() -> None:
    for setting in (lambda one: one["ScalingConfig"]["MaximumConcurrency"], lambda one: one["BatchSize"]):
        named = [stack.parameter(setting(CONSUMED[queue])) for queue in JOB_QUEUES]
        assert None not in named
        assert len(set(named)) == len(JOB_QUEUES)


def test_each_consumed_queue_has_dead_letters_of_its_own_after_five_tries() -> None:
    redrives = {queue: QUEUES[queue]["RedrivePolicy"] for queue in CONSUMED}
    assert {policy["maxReceiveCount"] for policy in redrives.values()} == {5}
    dead = [stack.the_one(policy["deadLetterTargetArn"]) for policy in redrives.values()]
    dead.append(stack.the_one(STREAM["DestinationConfig"]["OnFailure"]))
    assert len(set(dead)) == len(dead)
    assert not set(dead) & set(CONSUMED)
    assert {QUEUES[queue]["MessageRetentionPeriod"] for queue in dead} == {14 * 86_400}


@pytest.mark.parametrize("queue", QUEUES)
def test_every_queue_is_encrypted(queue: str) -> None:
    assert QUEUES[queue]["SqsManagedSseEnabled"] is True


@pytest.mark.parametrize("source", SOURCES)
def test_one_failed_record_does_not_repeat_its_batch(source: str) -> None:
    assert SOURCES[source]["FunctionResponseTypes"] == ["ReportBatchItemFailures"]


def test_a_failing_record_does_not_block_the_stream() -> None:
    assert STREAM["BisectBatchOnFunctionError"] is True
    assert 1 <= STREAM["MaximumRetryAttempts"] <= 10
    assert stack.the_one(STREAM["DestinationConfig"]["OnFailure"]["Destination"]) in QUEUES


# --- which records the stream's filter lets through ---


def is_seen(record: Mapping[str, Any]) -> bool:
    return any(matches(json.loads(one["Pattern"]), record) for one in STREAM["FilterCriteria"]["Filters"])


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
    dynamodb = {key: pack({"pk": "JOB#1", "sk": "JOB", **one.to_item()}) for key, one in images.items() if one}
    return {"eventName": name, "eventSource": "aws:dynamodb", "dynamodb": dynamodb}


@pytest.mark.parametrize("transition", [t for t in TRANSITIONS if t.machine == "state"], ids=lambda t: t.name)
def test_the_stream_tells_of_a_transition_just_if_it_ends_the_job(transition: Transition) -> None:
    old, new = job(transition.source), job(transition.target)
    assert is_seen(record("MODIFY", old, new)) == (transition.target in TERMINAL_STATES)


@pytest.mark.parametrize("transition", [t for t in TRANSITIONS if t.machine == "callback"], ids=lambda t: t.name)
@pytest.mark.parametrize("ended", sorted(TERMINAL_STATES))
def test_the_stream_tells_of_no_callback_s_progress(transition: Transition, ended: str) -> None:
    assert not is_seen(record("MODIFY", job(ended, transition.source), job(ended, transition.target)))


@pytest.mark.parametrize("state", ORDER)
def test_the_stream_tells_of_a_job_written_when_it_had_already_ended(state: str) -> None:
    assert is_seen(record("INSERT", None, job(state))) == (state in TERMINAL_STATES)


def test_the_stream_tells_of_no_body_no_ref_id_and_nothing_forgotten() -> None:
    ended = job(JobState.COMPLETED)
    body = pack({"pk": "JOB#1", "sk": "RESULT", "body": b"{}", "ttl": 1})
    assert not is_seen({"eventName": "INSERT", "dynamodb": {"NewImage": body}})
    assert not is_seen({"eventName": "INSERT", "dynamodb": {"NewImage": pack({"pk": "REF#me#r", "job_id": 1})}})
    assert not is_seen(record("REMOVE", ended, None))
    assert not is_seen(record("MODIFY", ended, replace(ended, ttl=5)))
    assert not is_seen(record("MODIFY", job(JobState.FAILED), job(JobState.QUEUED)))
