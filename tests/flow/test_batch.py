"""A batch of jobs in one invocation of the real worker: concurrent, with one outcome each, within the timeout."""

import json
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor

import pytest

from aiserver.jobs.job import Job
from aiserver.jobs.states import JobState
from benchmarks.batch import MODELS, accept_jobs, job_store, worker_event
from local.sandbox_pool import SandboxPool
from local.scripted import RecordedRequest
from tests.flow.conftest import Product

BATCH_SIZE = 10
WAIT_TIMEOUT_S = 20
WORKER_TIMEOUT_S = 4  # the minimum of WorkerTimeoutSeconds
RESPONSE = b'{"object":"chat.completion","choices":[{}]}'


@pytest.fixture
def threads() -> Iterator[ThreadPoolExecutor]:
    with ThreadPoolExecutor() as pool:
        yield pool


class BlockedResponses:
    """Responses that the upstream provider blocks wait_until `release`, which the end of the test calls for all."""

    def __init__(self, product: Product, count: int, *, status: int | None = 200) -> None:
        self.gates = [threading.Event() for _ in range(count)]
        for gate in self.gates:
            product.upstream.respond_with(status, RESPONSE, hold=gate)

    def release(self, count: int) -> None:
        for gate in self.gates[:count]:
            gate.set()

    def __enter__(self) -> "BlockedResponses":
        return self

    def __exit__(self, *error: object) -> None:
        self.release(len(self.gates))


def wait_until(condition: Callable[[], bool]) -> None:
    """Wait for a condition that another thread or process makes true, up to a timeout."""
    tick = threading.Event()
    for _ in range(WAIT_TIMEOUT_S * 20):
        if condition():
            return
        tick.wait(0.05)
    raise AssertionError("the condition did not become true")


def jobs(product: Product, ids: list[int]) -> list[Job]:
    stored_jobs = [job_store(product.cloud).get(job_id) for job_id in ids]
    return [job for job in stored_jobs if job is not None]


def states(product: Product, ids: list[int]) -> list[str]:
    return sorted(str(job.state) for job in jobs(product, ids))


def upstream_requests(product: Product, ids: list[int]) -> list[RecordedRequest]:
    """Return the upstream requests of these jobs."""
    keys = {f"job-{job_id}-0" for job_id in ids}
    return [request for request in product.upstream.requests if request.headers["idempotency-key"] in keys]


def run_worker(product: Product, ids: list[int], *records: dict[str, object]) -> list[str]:
    """Invoke the worker with one batch; return the ids of the messages that it reports as failed."""
    event = worker_event(ids)
    event["Records"] += records
    response = json.loads(product.cloud.invoke("worker", json.dumps(event).encode()))
    return [failure["itemIdentifier"] for failure in response["batchItemFailures"]]


@pytest.mark.parametrize("queue", ["hosted", "gpu"])
def test_jobs_of_a_batch_run_concurrently_and_finish_independently(
    queue: str, product: Product, threads: ThreadPoolExecutor
) -> None:
    ids = accept_jobs(product.cloud, MODELS[queue], BATCH_SIZE)
    with BlockedResponses(product, BATCH_SIZE) as responses:
        worker_run = threads.submit(run_worker, product, ids)
        wait_until(lambda: len(upstream_requests(product, ids)) == BATCH_SIZE)
        assert states(product, ids) == [JobState.STARTED] * BATCH_SIZE
        responses.release(BATCH_SIZE - 1)
        wait_until(lambda: states(product, ids).count(JobState.COMPLETED) == BATCH_SIZE - 1)
        assert states(product, ids)[-1] == JobState.STARTED
        assert not worker_run.done()
        responses.release(BATCH_SIZE)
        assert worker_run.result(WAIT_TIMEOUT_S) == []
    assert states(product, ids) == [JobState.COMPLETED] * BATCH_SIZE


def test_batch_reuses_the_connections_of_the_previous_one(product: Product, threads: ThreadPoolExecutor) -> None:
    batches = [
        accept_jobs(product.cloud, MODELS["hosted"], BATCH_SIZE) for _ in range(2)
    ]  # both at once: idle connections live for 4 s
    for ids in batches:
        with BlockedResponses(product, BATCH_SIZE) as responses:
            worker_run = threads.submit(run_worker, product, ids)
            wait_until(lambda: len(upstream_requests(product, ids)) == BATCH_SIZE)  # noqa: B023  called before the next round
            responses.release(BATCH_SIZE)
            assert worker_run.result(WAIT_TIMEOUT_S) == []
    first, second = ({request.port for request in upstream_requests(product, ids)} for ids in batches)
    assert len(first) == BATCH_SIZE
    assert first == second


def test_only_the_failed_record_is_retried(product: Product) -> None:
    ids = accept_jobs(product.cloud, MODELS["hosted"], BATCH_SIZE - 1)
    broken = {**worker_event([0])["Records"][0], "messageId": "broken", "body": "nonsense"}
    assert run_worker(product, ids, broken) == ["broken"]
    assert states(product, ids) == [JobState.COMPLETED] * (BATCH_SIZE - 1)


def test_worker_records_a_provider_timeout_before_its_own_timeout(product: Product) -> None:
    hosted, gpu = accept_jobs(product.cloud, MODELS["hosted"], 1) + accept_jobs(product.cloud, MODELS["gpu"], 1)
    worker: SandboxPool = product.cloud.start_sandbox_pool("worker", timeout_s=WORKER_TIMEOUT_S)
    worker.warm()
    with BlockedResponses(product, 2, status=None):
        response = worker.invoke(json.dumps(worker_event([hosted, gpu])).encode())  # raises if the worker is killed
        failed, waiting = jobs(product, [hosted, gpu])
    assert json.loads(response) == {"batchItemFailures": []}
    assert (failed.state, failed.error_code, failed.maybe_billed) == (JobState.FAILED, "ProviderTimeout", 1)
    assert (waiting.state, waiting.wait_reason, waiting.maybe_billed) == (JobState.QUEUED, "provider_cold_start", 1)
    wait_until(lambda: states(product, [gpu]) == [JobState.COMPLETED])
    assert (len(upstream_requests(product, [hosted])), len(upstream_requests(product, [gpu]))) == (1, 2)
