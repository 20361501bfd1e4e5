"""The number of AWS calls of the real handlers: the documented limits, and all other calls.

Job state: at most 5 DynamoDB calls and 1 SQS send for an ordinary job from accepted to completed, at most 2 round
trips to accept. `cold` is the first call in a container, `warm` a later one within the cache time.
"""

import json
from collections.abc import Generator, Iterator
from contextlib import contextmanager
from typing import Any

import pytest

from local.receiver import receiver
from local.scripted import ScriptedProvider
from tests.aws_call_recorder import (
    BODIES,
    CIRCUITS,
    CONFIG,
    EVENTS,
    HINTS,
    LOAD,
    SECRET,
    STATE,
    RecordingStack,
    chat_event,
    chat_request,
    completion_body,
    count_calls,
    queue_event,
    recording_stack,
    status_event,
)
from tests.moto_stack import event

SMALL, LARGE = 1024, 200 * 1024
ACCEPT = {STATE: {"TransactWriteItems": 1}, HINTS: {"SendMessage": 1}}
WORK = {STATE: {"UpdateItem": 2, "GetItem": 1, "TransactWriteItems": 1}}
LARGE_WORK = {STATE: {"UpdateItem": 2, "TransactWriteItems": 1}, BODIES: {"GET object": 1, "PUT object": 1}}
PUBLISH = {EVENTS: {"PutEvents": 1}}
COLD_WORKER = {CONFIG: {"Query": 1}, SECRET: {"GetParameters": 1}, CIRCUITS: {"Query": 1}}
Counts = dict[str, dict[str, int]]


@pytest.fixture(scope="module")
def upstream() -> Iterator[ScriptedProvider]:
    with ScriptedProvider() as provider:
        yield provider


@pytest.fixture
def recording(upstream: ScriptedProvider) -> Iterator[RecordingStack]:
    with recording_stack(upstream) as recording:
        yield recording


def json_body(response: dict[str, Any]) -> Any:
    assert response["statusCode"] == 200, response["body"]
    return json.loads(response["body"])


def accept_job(recording: RecordingStack, size: int) -> int:
    """Accept a job, whose message is then in the queue, and return its id."""
    response, _ = recording.cold("queue", queue_event(chat_request(size)))
    return json.loads(response["body"])["id"]


def complete_job(recording: RecordingStack, size: int) -> int:
    """Accept and complete a job, and return its id."""
    job_id = accept_job(recording, size)
    recording.upstream.respond_with(200, completion_body(size))
    recording.cold("worker", recording.worker_event())
    return job_id


def total(counts: Counts, purpose: str) -> int:
    return sum(counts.get(purpose, {}).values())


def test_job_uses_five_state_calls_and_one_message(recording: RecordingStack) -> None:
    accept_job(recording, SMALL)
    recording.cold("worker", recording.worker_event())
    response, accept = recording.cold("queue", queue_event(chat_request(SMALL)))
    _, work = recording.cold("worker", recording.worker_event())
    _, end = recording.cold("finished", recording.finished_event(json.loads(response["body"])["id"]))
    counts = count_calls(accept + work + end)
    assert (total(counts, STATE), total(counts, HINTS), total(counts, BODIES), total(counts, EVENTS)) == (5, 1, 0, 1)
    assert total(count_calls(accept), STATE) + total(count_calls(accept), HINTS) == 2


@pytest.mark.parametrize(("size", "bodies"), [(SMALL, {}), (LARGE, {BODIES: {"PUT object": 1}})], ids=["1", "200 KB"])
def test_accepting_a_job_uses_two_calls_and_one_s3_put_if_large(
    size: int, bodies: Counts, recording: RecordingStack
) -> None:
    _, cold = recording.cold("queue", queue_event(chat_request(size)))
    _, warm = recording.warm("queue", queue_event(chat_request(size)))
    assert count_calls(warm) == ACCEPT | bodies
    assert count_calls(cold) == ACCEPT | bodies | {CONFIG: {"GetItem": 1, "Query": 1}}


@pytest.mark.parametrize(("size", "work"), [(SMALL, WORK), (LARGE, LARGE_WORK)], ids=["1", "200 KB"])
def test_running_a_job_uses_four_state_calls_or_three_and_two_to_s3(
    size: int, work: Counts, recording: RecordingStack
) -> None:
    batches = []
    for _ in range(2):
        accept_job(recording, size)
        batches.append(recording.worker_event())
        recording.upstream.respond_with(200, completion_body(size))
    _, cold = recording.cold("worker", batches[0])
    _, warm = recording.warm("worker", batches[1])
    assert count_calls(warm) == work
    assert count_calls(cold) == work | COLD_WORKER


@pytest.mark.parametrize("size", [SMALL, LARGE])
def test_finished_job_without_reply_to_is_one_event_and_no_message(size: int, recording: RecordingStack) -> None:
    finished = recording.finished_event(complete_job(recording, size))
    _, cold = recording.cold("finished", finished)
    _, warm = recording.warm("finished", finished)
    assert count_calls(cold) == count_calls(warm) == PUBLISH


def test_deferred_job_uses_four_state_calls_and_one_message(recording: RecordingStack) -> None:
    accept_job(recording, SMALL)
    recording.upstream.respond_with(429, b'{"error":{"message":"slow down"}}')
    _, work = recording.cold("worker", recording.worker_event())
    assert count_calls(work) == COLD_WORKER | {STATE: {"UpdateItem": 3, "GetItem": 1}, HINTS: {"SendMessage": 1}}


def test_callback_uses_one_message_four_state_calls_and_two_lease_calls(recording: RecordingStack) -> None:
    recording.stack.parameters["UnsafeAllowAnyCallbackAddress"] = "true"
    with receiver() as hook:
        request = queue_event(chat_request(SMALL))
        request["headers"]["X-Reply-To"] = hook.url
        response, _ = recording.cold("queue", request)
        recording.cold("worker", recording.worker_event())
        _, end = recording.cold("finished", recording.finished_event(json.loads(response["body"])["id"]))
        delivery = event("reply")
        delivery["Records"][0]["body"] = json.dumps(*recording.stack.messages("CallbackQueue"))
        _, reply = recording.cold("reply", delivery)
    assert count_calls(end) == PUBLISH | {HINTS: {"SendMessage": 1}}
    assert count_calls(reply) == {STATE: {"GetItem": 2, "UpdateItem": 4}, CONFIG: {"GetItem": 2}}


@pytest.mark.parametrize(
    ("size", "reads", "bodies"), [(SMALL, 2, {}), (LARGE, 1, {BODIES: {"GET object": 1}})], ids=["1", "200 KB"]
)
def test_status_reads_the_job_and_its_result_once(
    size: int, reads: int, bodies: Counts, recording: RecordingStack
) -> None:
    by_id = status_event(jobId=str(complete_job(recording, size)))
    response, cold = recording.cold("status", by_id)
    _, warm = recording.warm("status", by_id)
    assert count_calls(warm) == {STATE: {"GetItem": reads}} | bodies
    assert count_calls(cold) == count_calls(warm) | {CONFIG: {"GetItem": 1}}
    _, by_ref_id = recording.warm("status", status_event(refId=json_body(response)["refId"]))
    assert count_calls(by_ref_id) == {STATE: {"GetItem": reads + 1}} | bodies


def test_status_of_a_running_job_is_one_read(recording: RecordingStack) -> None:
    by_id = status_event(jobId=str(accept_job(recording, SMALL)))
    recording.cold("status", by_id)
    assert count_calls(recording.warm("status", by_id)[1]) == {STATE: {"GetItem": 1}}


@pytest.mark.parametrize("size", [SMALL, LARGE])
def test_warm_chat_makes_no_aws_call(size: int, recording: RecordingStack) -> None:
    response, cold = recording.cold("chat", chat_event(chat_request(size)))
    _, warm = recording.warm("chat", chat_event(chat_request(size)))
    assert response["statusCode"] == 200
    assert count_calls(cold) == COLD_WORKER | {CONFIG: {"GetItem": 1, "Query": 1}}
    assert warm == []


@contextmanager
def replace_providers(recording: RecordingStack, *providers: dict[str, Any]) -> Generator[None]:
    """Replace the provider of the stack by one copy for each dict of changed fields."""
    (original,) = recording.stack.config().providers()
    recording.stack.set_providers(*(original.model_copy(update=changes) for changes in providers))
    try:
        yield
    finally:
        recording.stack.set_providers(original)


def test_concurrency_limit_costs_two_writes_per_call(recording: RecordingStack) -> None:
    with replace_providers(recording, {"concurrency": 4}):
        _, calls = recording.cold("chat", chat_event(chat_request(SMALL)))
    assert count_calls(calls)[STATE] == {"UpdateItem": 2}
    assert LOAD not in count_calls(calls)


def test_least_loaded_selection_costs_one_read(recording: RecordingStack) -> None:
    with replace_providers(recording, {"concurrency": 4}, {"name": "equal", "concurrency": 2}):
        _, calls = recording.cold("chat", chat_event(chat_request(SMALL)))
    assert count_calls(calls)[LOAD] == {"BatchGetItem": 1}


def test_circuit_is_written_only_on_failure_and_the_next_success(recording: RecordingStack) -> None:
    recording.cold("chat", chat_event(chat_request(SMALL)))
    recording.upstream.respond_with(500, b'{"error":{"message":"broken"}}')
    _, failure = recording.warm("chat", chat_event(chat_request(SMALL)))
    _, recovery = recording.warm("chat", chat_event(chat_request(SMALL)))
    _, later = recording.warm("chat", chat_event(chat_request(SMALL)))
    assert [count_calls(calls) for calls in (failure, recovery, later)] == [
        {CIRCUITS: {"PutItem": 1}},
        {CIRCUITS: {"PutItem": 1}},
        {},
    ]


@pytest.mark.parametrize(
    ("size", "put", "replay"),
    [
        (SMALL, {}, {STATE: {"GetItem": 3}}),
        (LARGE, {BODIES: {"PUT object": 2}}, {STATE: {"GetItem": 2}, BODIES: {"GET object": 1}}),
    ],
    ids=["1", "200 KB"],
)
def test_chat_with_ref_id_is_one_read_and_two_writes_and_replay_only_reads(
    size: int, put: Counts, replay: Counts, recording: RecordingStack
) -> None:
    recording.cold("chat", chat_event(chat_request(size)))
    chat = chat_event(chat_request(size, refId="r"))
    recording.upstream.respond_with(200, completion_body(size))
    _, first = recording.warm("chat", chat)
    response, second = recording.warm("chat", chat)
    assert count_calls(first) == {STATE: {"GetItem": 1, "TransactWriteItems": 2}} | put
    assert response["headers"]["x-replayed"] == "true"
    assert count_calls(second) == replay
