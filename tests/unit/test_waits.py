"""Waiting costs what it must: messages do not multiply, calls do not loop, and time that was used is counted."""

import heapq
import itertools
import random
from collections.abc import Mapping

import pytest

from aiserver.errors import ProviderError, ProviderRateLimited, ProviderUnavailable
from aiserver.jobs.backoff import CAP_S
from aiserver.jobs.job import Job
from aiserver.jobs.ports import ConditionFailed
from aiserver.jobs.states import JobState
from aiserver.jobs.transitions import AttributeValue, Transition
from aiserver.providers.circuit import OPEN_MS
from aiserver.usecases.sweep import Sweep
from tests.app import TestApp
from tests.examples import examples
from tests.fakes import FakeClock, FakeJobs

pytestmark = pytest.mark.usefixtures("quiet")
GPU = {"name": "gpu", "queue": "gpu", "models": {"m": ""}}
HOUR_MS = 3_600_000


class Backlog:
    """Jobs of a GPU that asks to slow down, and two workers who take a while over each: the queue by its own clock."""

    def __init__(self, count: int, pass_ms: int) -> None:
        self.house = TestApp(GPU)
        self.jobs = [self.house.accept() for _ in range(count)]
        self.house.protocol.outcomes = [ProviderRateLimited(retry_after_s=300)] * 10_000
        self._pass_ms = pass_ms
        self.queue: list[tuple[int, int, int, int]] = []
        self._order = itertools.count()
        self.largest = 0

    def run(self, hours: float) -> None:
        clock = self.house.clock
        began, swept = clock.now, clock.now
        free = [began] * 2
        self._collect()
        while clock.now < began + hours * HOUR_MS:
            at = max(heapq.heappop(free), self.queue[0][0])
            while swept + 60_000 <= at:
                clock.now = swept = swept + 60_000
                self.house.sweep.sweep(remaining_ms=50_000)
                self._collect()
            clock.now = max(clock.now, at)
            _, _, job_id, attempt = heapq.heappop(self.queue)
            calls = len(self.house.protocol.calls)
            self.house.work.run(job_id, remaining_ms=900_000, attempt=attempt)
            self._collect()
            heapq.heappush(free, clock.now + (self._pass_ms if len(self.house.protocol.calls) > calls else 50))

    def _collect(self) -> None:
        messages = self.house.messages
        for (_, job_id, delay_s), attempt in zip(messages.jobs, messages.attempts, strict=True):
            entry = (self.house.clock.now + delay_s * 1000, next(self._order), job_id, attempt)
            heapq.heappush(self.queue, entry)
        messages.jobs.clear()
        messages.attempts.clear()
        self.largest = max(self.largest, len(self.queue))


def test_a_backlog_that_takes_long_to_go_round_does_not_multiply_its_messages() -> None:
    backlog = Backlog(count=30, pass_ms=60_000)
    backlog.run(hours=6)
    assert backlog.largest <= 10 * len(backlog.jobs)  # 75 each, were the pauses between two reminders not to grow
    assert max(backlog.house.now(job).resends for job in backlog.jobs) <= 12


class Outage:
    """Jobs accepted as their provider goes down for a while, and as many workers as have something to do."""

    def __init__(self, count: int, seed: int) -> None:
        self.house = TestApp()
        self._random = random.Random(seed)
        self._queue = [(self.house.clock.now, self.house.accept().id, 0) for _ in range(count)]
        self.house.messages.jobs.clear()
        self.house.messages.attempts.clear()

    def last_completed_ms(self, down_ms: int) -> int:
        """How long after the provider's recovery the last of them was answered."""
        clock, messages = self.house.clock, self.house.messages
        recovered = clock.now + down_ms
        while self._queue:
            clock.now, job_id, attempt = heapq.heappop(self._queue)
            clock.chance = self._random.random()
            self.house.protocol.outcomes = [ProviderUnavailable()] if clock.now < recovered else []
            self.house.work.run(job_id, remaining_ms=900_000, attempt=attempt)
            for (_, waiting, delay_s), number in zip(messages.jobs, messages.attempts, strict=True):
                heapq.heappush(self._queue, (clock.now + delay_s * 1000, waiting, number))
            messages.jobs.clear()
            messages.attempts.clear()
        return clock.now - recovered


@pytest.mark.parametrize("down_s", [60, 600, 3600])
def test_every_job_runs_soon_after_its_provider_has_recovered(down_s: int) -> None:
    message_s = 2  # a message wakes its job in whole seconds, just after its time
    for seed in range(examples(5, at_least=1)):
        outage = Outage(100, seed)
        waited_ms = outage.last_completed_ms(down_s * 1000)
        assert waited_ms <= OPEN_MS + (CAP_S + 2 * message_s) * 1000
        assert {item["state"] for item in outage.house.jobs.items.values()} == {JobState.COMPLETED}


@pytest.mark.parametrize(("attempt", "sent_again"), [(0, False), (1, True), (None, True)])
def test_a_message_that_is_too_early_comes_again_only_if_it_is_this_wait_s(
    attempt: int | None, sent_again: bool
) -> None:
    house = TestApp()
    job = house.accept()
    house.protocol.outcomes = [ProviderRateLimited(retry_after_s=2000)]
    house.run(job)
    house.messages.jobs.clear()
    house.work.run(job.id, remaining_ms=900_000, attempt=attempt)
    assert house.messages.jobs == ([("hosted", job.id, 900)] if sent_again else [])


def test_a_provider_that_says_to_come_back_at_once_is_not_asked_in_a_loop() -> None:
    house = TestApp()
    job = house.accept()
    for _ in range(100):
        house.protocol.outcomes = [ProviderRateLimited(retry_after_s=0)]
        house.clock.now = max(house.clock.now, house.run(job).not_before)
    assert (house.clock.now - job.created_at) / 1000 > 3600


def test_one_provider_s_long_wait_does_not_keep_a_job_from_another_that_is_soon_back() -> None:
    house = TestApp({"name": "a", "priority": 2, "models": {"m": ""}}, {"name": "b", "models": {"m": ""}})
    job = house.accept()
    house.protocol.outcomes = [ProviderRateLimited(retry_after_s=86_400), ProviderUnavailable()]
    assert house.run(job).not_before <= house.clock.now + 2000
    house.clock.advance(2)
    house.protocol.outcomes = [ProviderRateLimited(retry_after_s=86_400)]
    assert house.run(job).served_by == "b"


class SlowJobs(FakeJobs):
    """A store whose marks take half a minute."""

    def apply(self, transition: Transition, job_id: int, params: Mapping[str, AttributeValue]) -> Job | ConditionFailed:
        self._clock.advance(30 if transition.name == "T3" else 0)
        return super().apply(transition, job_id, params)


class Secrets:
    """router.Secrets that take their time, or are away."""

    def __init__(self, clock: FakeClock, seconds: float, error: ProviderError | None = None) -> None:
        self._clock, self._seconds, self._error = clock, seconds, error

    def value(self, name: str) -> str:
        self._clock.advance(self._seconds)
        if self._error:
            raise self._error
        return "k"


KEYED = {"name": "p", "models": {"m": ""}, "timeout_s": 900, "api_key_secret": "/s/p"}


def test_a_call_has_only_the_time_that_its_mark_and_its_secret_left_it() -> None:
    house = TestApp(KEYED, jobs=SlowJobs, secrets=lambda clock: Secrets(clock, 10))
    job, began = house.accept(), house.clock.now
    house.work.run(job.id, remaining_ms=60_000)
    ((_, call),) = house.protocol.calls
    assert house.clock.now - began == 40_000
    assert call["timeout_s"] == 60 - 10 - 40


def test_a_secret_that_cannot_be_read_now_is_waited_for_and_no_call() -> None:
    away = ProviderUnavailable("The provider's key cannot be read")
    house = TestApp(KEYED, secrets=lambda clock: Secrets(clock, 0, away))
    job = house.accept()
    for _ in range(20):
        waiting = house.run(job)
        assert (waiting.state, waiting.calls, waiting.wait_reason) == (JobState.QUEUED, 0, "provider_unavailable")
        house.clock.now = waiting.not_before


class StuckJobs(FakeJobs):
    """A store that takes no writes."""

    def apply(self, transition: Transition, job_id: int, params: Mapping[str, AttributeValue]) -> Job | ConditionFailed:
        raise ConnectionError("DynamoDB is away")


def test_jobs_are_swept_though_circuits_cannot_be_read() -> None:
    house = TestApp()
    house.accept()
    house.messages.jobs.clear()
    house.clock.advance(61)

    def fail() -> None:
        raise ConnectionError("DynamoDB is unavailable")

    house.circuits.read_all = fail  # pyright: ignore
    swept = house.sweep.sweep(remaining_ms=50_000)
    assert (swept.jobs, swept.open_circuits, len(house.messages.jobs)) == (1, 0, 1)


def test_a_job_that_cannot_be_looked_after_counts_as_long_overdue_as_it_is() -> None:
    house = TestApp()
    house.accept()
    stuck = StuckJobs(house.clock)
    stuck.items = house.jobs.items
    house.clock.advance(60 + 7200)
    swept = Sweep(stuck, house.messages, house.circuits, house.clock, settled_days=7, threads=1).sweep(
        remaining_ms=50_000
    )
    assert (swept.jobs, swept.oldest_due_ms) == (1, 7_200_000)
