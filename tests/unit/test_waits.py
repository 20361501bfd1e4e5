"""Waits: messages do not multiply, calls do not loop, and elapsed time counts against the timeout."""

import heapq
import itertools
import random
from collections.abc import Mapping

import pytest

from aiserver.circuit_breaker.circuit import OPEN_MS
from aiserver.errors import ProviderError, ProviderRateLimited, ProviderUnavailable
from aiserver.jobs.backoff import CAP_S
from aiserver.jobs.job import Job
from aiserver.jobs.ports import ConditionFailed
from aiserver.jobs.states import JobState
from aiserver.jobs.transitions import AttributeValue, Transition
from aiserver.usecases.sweep import Sweep
from tests.app import TestApp
from tests.examples import examples
from tests.fakes import FakeClock, FakeJobs

pytestmark = pytest.mark.usefixtures("quiet")
GPU = {"name": "gpu", "queue": "gpu", "models": {"m": ""}}
HOUR_MS = 3_600_000


class Backlog:
    """Simulates the queue of a rate-limited GPU with two workers whose passes take `pass_ms`."""

    def __init__(self, count: int, pass_ms: int) -> None:
        self.app = TestApp(GPU)
        self.jobs = [self.app.accept() for _ in range(count)]
        self.app.dispatcher.outcomes = [ProviderRateLimited(retry_after_s=300)] * 10_000
        self._pass_ms = pass_ms
        self.queue: list[tuple[int, int, int, int]] = []
        self._order = itertools.count()
        self.largest = 0

    def run(self, hours: float) -> None:
        clock = self.app.clock
        begin_ms, sweep_ms = clock.now, clock.now
        free_at = [begin_ms] * 2
        self._collect()
        while clock.now < begin_ms + hours * HOUR_MS:
            start_ms = max(heapq.heappop(free_at), self.queue[0][0])
            while sweep_ms + 60_000 <= start_ms:
                clock.now = sweep_ms = sweep_ms + 60_000
                self.app.sweep.sweep(remaining_ms=50_000)
                self._collect()
            clock.now = max(clock.now, start_ms)
            _, _, job_id, attempt = heapq.heappop(self.queue)
            calls = len(self.app.dispatcher.calls)
            self.app.run_job.run(job_id, remaining_ms=900_000, attempt=attempt)
            self._collect()
            heapq.heappush(free_at, clock.now + (self._pass_ms if len(self.app.dispatcher.calls) > calls else 50))

    def _collect(self) -> None:
        messages = self.app.messages
        for (_, job_id, delay_s), attempt in zip(messages.jobs, messages.attempts, strict=True):
            entry = (self.app.clock.now + delay_s * 1000, next(self._order), job_id, attempt)
            heapq.heappush(self.queue, entry)
        messages.jobs.clear()
        messages.attempts.clear()
        self.largest = max(self.largest, len(self.queue))


def test_long_backlog_does_not_multiply_its_messages() -> None:
    backlog = Backlog(count=30, pass_ms=60_000)
    backlog.run(hours=6)
    assert backlog.largest <= 10 * len(backlog.jobs)  # 75 each if the delay between two resends did not grow
    assert max(backlog.app.reload(job).resends for job in backlog.jobs) <= 12


class Outage:
    """Simulates jobs accepted at the start of a provider's outage, with an unlimited number of workers."""

    def __init__(self, count: int, seed: int) -> None:
        self.app = TestApp()
        self._random = random.Random(seed)
        self._queue = [(self.app.clock.now, self.app.accept().id, 0) for _ in range(count)]
        self.app.messages.jobs.clear()
        self.app.messages.attempts.clear()

    def last_completed_ms(self, down_ms: int) -> int:
        """Return the milliseconds from the provider's recovery to the completion of the last job."""
        clock, messages = self.app.clock, self.app.messages
        recovery_ms = clock.now + down_ms
        while self._queue:
            clock.now, job_id, attempt = heapq.heappop(self._queue)
            clock.chance = self._random.random()
            self.app.dispatcher.outcomes = [ProviderUnavailable()] if clock.now < recovery_ms else []
            self.app.run_job.run(job_id, remaining_ms=900_000, attempt=attempt)
            for (_, next_job_id, delay_s), next_attempt in zip(messages.jobs, messages.attempts, strict=True):
                heapq.heappush(self._queue, (clock.now + delay_s * 1000, next_job_id, next_attempt))
            messages.jobs.clear()
            messages.attempts.clear()
        return clock.now - recovery_ms


@pytest.mark.parametrize("down_s", [60, 600, 3600])
def test_jobs_complete_soon_after_their_provider_recovers(down_s: int) -> None:
    message_s = 2  # SQS delays are whole seconds: a job's message arrives up to 2 s late
    for seed in range(examples(5, at_least=1)):
        outage = Outage(100, seed)
        waited_ms = outage.last_completed_ms(down_s * 1000)
        assert waited_ms <= OPEN_MS + (CAP_S + 2 * message_s) * 1000
        assert {item["state"] for item in outage.app.jobs.items.values()} == {JobState.COMPLETED}


@pytest.mark.parametrize(("attempt", "is_resent"), [(0, False), (1, True), (None, True)])
def test_job_message_of_an_earlier_wait_is_dropped(attempt: int | None, is_resent: bool) -> None:
    app = TestApp()
    job = app.accept()
    app.dispatcher.outcomes = [ProviderRateLimited(retry_after_s=2000)]
    app.run(job)
    app.messages.jobs.clear()
    app.run_job.run(job.id, remaining_ms=900_000, attempt=attempt)
    assert app.messages.jobs == ([("hosted", job.id, 900)] if is_resent else [])


def test_retry_after_zero_does_not_cause_a_call_loop() -> None:
    app = TestApp()
    job = app.accept()
    for _ in range(100):
        app.dispatcher.outcomes = [ProviderRateLimited(retry_after_s=0)]
        app.clock.now = max(app.clock.now, app.run(job).not_before)
    assert (app.clock.now - job.created_at) / 1000 > 3600


def test_long_retry_after_of_one_provider_does_not_delay_another() -> None:
    app = TestApp({"name": "a", "priority": 2, "models": {"m": ""}}, {"name": "b", "models": {"m": ""}})
    job = app.accept()
    app.dispatcher.outcomes = [ProviderRateLimited(retry_after_s=86_400), ProviderUnavailable()]
    assert app.run(job).not_before <= app.clock.now + 2000
    app.clock.advance(2)
    app.dispatcher.outcomes = [ProviderRateLimited(retry_after_s=86_400)]
    assert app.run(job).served_by == "b"


class SlowJobs(FakeJobs):
    """A store whose write before a call (T3) takes 30 s."""

    def apply(self, transition: Transition, job_id: int, params: Mapping[str, AttributeValue]) -> Job | ConditionFailed:
        self._clock.advance(30 if transition.name == "T3" else 0)
        return super().apply(transition, job_id, params)


class Secrets:
    """router.Secrets whose reads take `seconds` and may fail."""

    def __init__(self, clock: FakeClock, seconds: float, error: ProviderError | None = None) -> None:
        self._clock, self._seconds, self._error = clock, seconds, error

    def value(self, name: str) -> str:
        self._clock.advance(self._seconds)
        if self._error:
            raise self._error
        return "k"


PROVIDER_WITH_SECRET = {"name": "p", "models": {"m": ""}, "timeout_s": 900, "api_key_secret": "/s/p"}


def test_call_timeout_excludes_the_time_of_its_mark_and_secret() -> None:
    app = TestApp(PROVIDER_WITH_SECRET, jobs=SlowJobs, secrets=lambda clock: Secrets(clock, 10))
    job, begin_ms = app.accept(), app.clock.now
    app.run_job.run(job.id, remaining_ms=60_000)
    ((_, call),) = app.dispatcher.calls
    assert app.clock.now - begin_ms == 40_000
    assert call["timeout_s"] == 60 - 10 - 40


def test_unreadable_secret_requeues_the_job_without_a_call() -> None:
    error = ProviderUnavailable("The provider's key cannot be read")
    app = TestApp(PROVIDER_WITH_SECRET, secrets=lambda clock: Secrets(clock, 0, error))
    job = app.accept()
    for _ in range(20):
        waiting = app.run(job)
        assert (waiting.state, waiting.calls, waiting.wait_reason) == (JobState.QUEUED, 0, "provider_unavailable")
        app.clock.now = waiting.not_before


class ReadOnlyJobs(FakeJobs):
    """A store whose writes fail."""

    def apply(self, transition: Transition, job_id: int, params: Mapping[str, AttributeValue]) -> Job | ConditionFailed:
        raise ConnectionError("DynamoDB is unavailable")


def test_jobs_are_swept_when_circuits_cannot_be_read() -> None:
    app = TestApp()
    app.accept()
    app.messages.jobs.clear()
    app.clock.advance(61)

    def fail() -> None:
        raise ConnectionError("DynamoDB is unavailable")

    app.circuits.read_all = fail  # pyright: ignore
    report = app.sweep.sweep(remaining_ms=50_000)
    assert (report.jobs, report.open_circuits, len(app.messages.jobs)) == (1, 0, 1)


def test_sweep_reports_the_overdue_time_of_a_job_it_cannot_update() -> None:
    app = TestApp()
    app.accept()
    jobs = ReadOnlyJobs(app.clock)
    jobs.items = app.jobs.items
    app.clock.advance(60 + 7200)
    report = Sweep(jobs, app.messages, app.circuits, app.clock, settled_days=7, threads=1).sweep(remaining_ms=50_000)
    assert (report.jobs, report.oldest_due_ms) == (1, 7_200_000)
