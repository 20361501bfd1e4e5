"""How many AWS calls the real handlers send, every one counted: the promise, and what else is called beside it.

Job state: at most 5 DynamoDB calls and 1 SQS send for an ordinary job from accepted to completed, at most 2 round
trips to accept. `cold` is a container's first call, `warm` a later one within the caches' time.
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
    Observed,
    asked,
    counted,
    observed,
    queued,
    request_of,
    result_of,
    status_of,
)
from tests.moto_stack import event

SMALL, LARGE = 1024, 200 * 1024
ACCEPT = {STATE: {"TransactWriteItems": 1}, HINTS: {"SendMessage": 1}}
WORK = {STATE: {"UpdateItem": 2, "GetItem": 1, "TransactWriteItems": 1}}
LARGE_WORK = {STATE: {"UpdateItem": 2, "TransactWriteItems": 1}, BODIES: {"GET object": 1, "PUT object": 1}}
TELL = {EVENTS: {"PutEvents": 1}}
COLD_WORKER = {CONFIG: {"Query": 1}, SECRET: {"GetParameters": 1}, CIRCUITS: {"Query": 1}}
Counts = dict[str, dict[str, int]]


@pytest.fixture(scope="module")
def upstream() -> Iterator[ScriptedProvider]:
    with ScriptedProvider() as provider:
        yield provider


@pytest.fixture
def seen(upstream: ScriptedProvider) -> Iterator[Observed]:
    with observed(upstream) as made:
        yield made


def told(answer: dict[str, Any]) -> Any:
    assert answer["statusCode"] == 200, answer["body"]
    return json.loads(answer["body"])


def accepted(seen: Observed, size: int) -> int:
    """A job that was accepted; its message lies in the queue."""
    answer, _ = seen.cold("queue", queued(request_of(size)))
    return json.loads(answer["body"])["id"]


def completed(seen: Observed, size: int) -> int:
    """A job that was done."""
    job_id = accepted(seen, size)
    seen.upstream.answer_with(200, result_of(size))
    seen.cold("worker", seen.message())
    return job_id


def total(counts: Counts, purpose: str) -> int:
    return sum(counts.get(purpose, {}).values())


def test_an_ordinary_job_takes_five_calls_for_its_state_and_one_message(seen: Observed) -> None:
    accepted(seen, SMALL)
    seen.cold("worker", seen.message())
    answer, accept = seen.cold("queue", queued(request_of(SMALL)))
    _, work = seen.cold("worker", seen.message())
    _, end = seen.cold("finished", seen.ending(json.loads(answer["body"])["id"]))
    counts = counted(accept + work + end)
    assert (total(counts, STATE), total(counts, HINTS), total(counts, BODIES), total(counts, EVENTS)) == (5, 1, 0, 1)
    assert total(counted(accept), STATE) + total(counted(accept), HINTS) == 2


@pytest.mark.parametrize(("size", "bodies"), [(SMALL, {}), (LARGE, {BODIES: {"PUT object": 1}})], ids=["1", "200 KB"])
def test_a_job_is_accepted_by_two_calls_a_large_body_by_one_to_s3_more(
    size: int, bodies: Counts, seen: Observed
) -> None:
    _, cold = seen.cold("queue", queued(request_of(size)))
    _, warm = seen.warm("queue", queued(request_of(size)))
    assert counted(warm) == ACCEPT | bodies
    assert counted(cold) == ACCEPT | bodies | {CONFIG: {"GetItem": 1, "Query": 1}}


@pytest.mark.parametrize(("size", "work"), [(SMALL, WORK), (LARGE, LARGE_WORK)], ids=["1", "200 KB"])
def test_a_job_is_done_by_four_calls_for_its_state_a_large_one_by_three_and_two_to_s3(
    size: int, work: Counts, seen: Observed
) -> None:
    batches = []
    for _ in range(2):
        accepted(seen, size)
        batches.append(seen.message())
        seen.upstream.answer_with(200, result_of(size))
    _, cold = seen.cold("worker", batches[0])
    _, warm = seen.warm("worker", batches[1])
    assert counted(warm) == work
    assert counted(cold) == work | COLD_WORKER


@pytest.mark.parametrize("size", [SMALL, LARGE])
def test_an_end_without_a_reply_to_is_one_event_and_no_message(size: int, seen: Observed) -> None:
    ending = seen.ending(completed(seen, size))
    _, cold = seen.cold("finished", ending)
    _, warm = seen.warm("finished", ending)
    assert counted(cold) == counted(warm) == TELL


def test_a_pass_that_ends_in_a_wait_is_four_calls_and_a_message(seen: Observed) -> None:
    accepted(seen, SMALL)
    seen.upstream.answer_with(429, b'{"error":{"message":"slow down"}}')
    _, work = seen.cold("worker", seen.message())
    assert counted(work) == COLD_WORKER | {STATE: {"UpdateItem": 3, "GetItem": 1}, HINTS: {"SendMessage": 1}}


def test_a_callback_is_one_message_four_calls_for_its_state_and_two_for_its_receiver_s_slot(seen: Observed) -> None:
    seen.stack.parameters["UnsafeAllowAnyCallbackAddress"] = "true"
    with receiver() as hook:
        posted = queued(request_of(SMALL))
        posted["headers"]["X-Reply-To"] = hook.url
        answer, _ = seen.cold("queue", posted)
        seen.cold("worker", seen.message())
        _, end = seen.cold("finished", seen.ending(json.loads(answer["body"])["id"]))
        delivery = event("reply")
        delivery["Records"][0]["body"] = json.dumps(*seen.stack.messages("CallbackQueue"))
        _, reply = seen.cold("reply", delivery)
    assert counted(end) == TELL | {HINTS: {"SendMessage": 1}}
    assert counted(reply) == {STATE: {"GetItem": 2, "UpdateItem": 4}, CONFIG: {"GetItem": 2}}


@pytest.mark.parametrize(
    ("size", "read", "bodies"), [(SMALL, 2, {}), (LARGE, 1, {BODIES: {"GET object": 1}})], ids=["1", "200 KB"]
)
def test_a_status_read_is_one_read_of_the_job_and_one_of_its_result(
    size: int, read: int, bodies: Counts, seen: Observed
) -> None:
    by_id = status_of(jobId=str(completed(seen, size)))
    answer, cold = seen.cold("status", by_id)
    _, warm = seen.warm("status", by_id)
    assert counted(warm) == {STATE: {"GetItem": read}} | bodies
    assert counted(cold) == counted(warm) | {CONFIG: {"GetItem": 1}}
    _, by_ref_id = seen.warm("status", status_of(refId=told(answer)["refId"]))
    assert counted(by_ref_id) == {STATE: {"GetItem": read + 1}} | bodies


def test_the_status_of_a_job_that_runs_is_one_read(seen: Observed) -> None:
    by_id = status_of(jobId=str(accepted(seen, SMALL)))
    seen.cold("status", by_id)
    assert counted(seen.warm("status", by_id)[1]) == {STATE: {"GetItem": 1}}


@pytest.mark.parametrize("size", [SMALL, LARGE])
def test_a_sync_chat_calls_nothing_of_aws_but_what_a_cold_container_has_to_learn(size: int, seen: Observed) -> None:
    answer, cold = seen.cold("chat", asked(request_of(size)))
    _, warm = seen.warm("chat", asked(request_of(size)))
    assert answer["statusCode"] == 200
    assert counted(cold) == COLD_WORKER | {CONFIG: {"GetItem": 1, "Query": 1}}
    assert warm == []


@contextmanager
def having(seen: Observed, *providers: dict[str, Any]) -> Generator[None]:
    """The stack with its provider once for each of these, changed so."""
    (one,) = seen.stack.config().providers()
    seen.stack.providers(*(one.model_copy(update=changes) for changes in providers))
    try:
        yield
    finally:
        seen.stack.providers(one)


def test_a_provider_whose_calls_are_counted_costs_two_writes_a_call(seen: Observed) -> None:
    with having(seen, {"concurrency": 4}):
        _, sent = seen.cold("chat", asked(request_of(SMALL)))
    assert counted(sent)[STATE] == {"UpdateItem": 2}
    assert LOAD not in counted(sent)


def test_to_find_the_least_loaded_of_equals_is_one_read_more(seen: Observed) -> None:
    with having(seen, {"concurrency": 4}, {"name": "equal", "concurrency": 2}):
        _, sent = seen.cold("chat", asked(request_of(SMALL)))
    assert counted(sent)[LOAD] == {"BatchGetItem": 1}


def test_what_happens_to_a_provider_is_written_only_when_it_fails_or_has_failed_lately(seen: Observed) -> None:
    seen.cold("chat", asked(request_of(SMALL)))
    seen.upstream.answer_with(500, b'{"error":{"message":"broken"}}')
    _, failed = seen.warm("chat", asked(request_of(SMALL)))
    _, good = seen.warm("chat", asked(request_of(SMALL)))
    _, later = seen.warm("chat", asked(request_of(SMALL)))
    assert [counted(sent) for sent in (failed, good, later)] == [
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
def test_a_sync_chat_with_a_ref_id_is_one_read_and_one_write_and_its_repetition_reads_only(
    size: int, put: Counts, replay: Counts, seen: Observed
) -> None:
    seen.cold("chat", asked(request_of(size)))
    chat = asked(request_of(size, refId="r"))
    seen.upstream.answer_with(200, result_of(size))
    _, first = seen.warm("chat", chat)
    answer, again = seen.warm("chat", chat)
    assert counted(first) == {STATE: {"GetItem": 1, "TransactWriteItems": 1}} | put
    assert answer["headers"]["x-replayed"] == "true"
    assert counted(again) == replay
