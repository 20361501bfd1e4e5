"""A batch of jobs in one invocation of the real worker: at the same time, each settled on its own, within its limit."""

import json
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor

import pytest

from aiserver.jobs.job import Job
from aiserver.jobs.states import JobState
from benchmarks.batch import MODELS, batch, store, unsent
from local.sandbox_pool import SandboxPool
from local.scripted import RecordedRequest
from tests.flow.conftest import Product

TEN = 10
PATIENCE_S = 20
SHORT_S = 4  # the least that WorkerTimeoutSeconds allows
ANSWER = b'{"object":"chat.completion","choices":[{}]}'


@pytest.fixture
def threads() -> Iterator[ThreadPoolExecutor]:
    with ThreadPoolExecutor() as pool:
        yield pool


class Held:
    """Answers that the upstream holds back until they are let go, as they do when the test ends."""

    def __init__(self, product: Product, count: int, *, status: int | None = 200) -> None:
        self.gates = [threading.Event() for _ in range(count)]
        for gate in self.gates:
            product.upstream.answer_with(status, ANSWER, hold=gate)

    def let_go(self, count: int) -> None:
        for gate in self.gates[:count]:
            gate.set()

    def __enter__(self) -> "Held":
        return self

    def __exit__(self, *ended: object) -> None:
        self.let_go(len(self.gates))


def until(condition: Callable[[], bool]) -> None:
    """Wait for another thread or process, up to a bound."""
    tick = threading.Event()
    for _ in range(PATIENCE_S * 20):
        if condition():
            return
        tick.wait(0.05)
    raise AssertionError("it never happened")


def jobs(product: Product, ids: list[int]) -> list[Job]:
    found = [store(product.cloud).get(one) for one in ids]
    return [job for job in found if job is not None]


def states(product: Product, ids: list[int]) -> list[str]:
    return sorted(str(job.state) for job in jobs(product, ids))


def asked(product: Product, ids: list[int]) -> list[RecordedRequest]:
    """The upstream's requests of these jobs."""
    keys = {f"job-{one}-0" for one in ids}
    return [request for request in product.upstream.requests if request.headers["idempotency-key"] in keys]


def work(product: Product, ids: list[int], *more: dict[str, object]) -> list[str]:
    """Invoke the worker with one batch; the messages that it wants again."""
    event = batch(ids)
    event["Records"] += more
    answer = json.loads(product.cloud.invoke("worker", json.dumps(event).encode()))
    return [failure["itemIdentifier"] for failure in answer["batchItemFailures"]]


@pytest.mark.parametrize("queue", ["hosted", "gpu"])
def test_ten_jobs_are_asked_at_once_and_each_is_settled_as_it_ends(
    queue: str, product: Product, threads: ThreadPoolExecutor
) -> None:
    ids = unsent(product.cloud, MODELS[queue], TEN)
    with Held(product, TEN) as held:
        working = threads.submit(work, product, ids)
        until(lambda: len(asked(product, ids)) == TEN)
        assert states(product, ids) == [JobState.STARTED] * TEN
        held.let_go(TEN - 1)
        until(lambda: states(product, ids).count(JobState.COMPLETED) == TEN - 1)
        assert states(product, ids)[-1] == JobState.STARTED
        assert not working.done()
        held.let_go(TEN)
        assert working.result(PATIENCE_S) == []
    assert states(product, ids) == [JobState.COMPLETED] * TEN


def test_a_batch_goes_out_by_the_connections_of_the_one_before(product: Product, threads: ThreadPoolExecutor) -> None:
    batches = [
        unsent(product.cloud, MODELS["hosted"], TEN) for _ in range(2)
    ]  # both now: connections idle for 4 s only
    for ids in batches:
        with Held(product, TEN) as held:
            working = threads.submit(work, product, ids)
            until(lambda: len(asked(product, ids)) == TEN)  # noqa: B023  called before the next round
            held.let_go(TEN)
            assert working.result(PATIENCE_S) == []
    first, second = ({request.port for request in asked(product, ids)} for ids in batches)
    assert len(first) == TEN
    assert first == second


def test_a_record_that_fails_comes_again_alone(product: Product) -> None:
    ids = unsent(product.cloud, MODELS["hosted"], TEN - 1)
    broken = {**batch([0])["Records"][0], "messageId": "broken", "body": "nonsense"}
    assert work(product, ids, broken) == ["broken"]
    assert states(product, ids) == [JobState.COMPLETED] * (TEN - 1)


def test_a_worker_writes_what_came_of_a_silent_provider_before_its_own_time_is_over(product: Product) -> None:
    hosted, gpu = unsent(product.cloud, MODELS["hosted"], 1) + unsent(product.cloud, MODELS["gpu"], 1)
    worker: SandboxPool = product.cloud.sandboxes("worker", timeout_s=SHORT_S)
    worker.warm()
    with Held(product, 2, status=None):
        answer = worker.invoke(json.dumps(batch([hosted, gpu])).encode())  # raises where the worker is killed
        failed, waiting = jobs(product, [hosted, gpu])
    assert json.loads(answer) == {"batchItemFailures": []}
    assert (failed.state, failed.error_code, failed.maybe_billed) == (JobState.FAILED, "ProviderTimeout", 1)
    assert (waiting.state, waiting.wait_reason, waiting.maybe_billed) == (JobState.QUEUED, "provider_cold_start", 1)
    until(lambda: states(product, [gpu]) == [JobState.COMPLETED])
    assert (len(asked(product, [hosted])), len(asked(product, [gpu]))) == (1, 2)
