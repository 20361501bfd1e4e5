"""A simulated day of synchronous requests and queued jobs with two providers that fail by a timetable.

Every call is checked when it is made.
"""

import itertools
import threading
from collections import Counter, deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

from aiserver.errors import (
    ProviderAuth,
    ProviderError,
    ProviderRateLimited,
    ProviderRejected,
    ProviderTimeout,
    ProviderUnavailable,
)
from aiserver.providers.call import ProviderCall, Upstream
from aiserver.providers.provider import Provider
from aiserver.providers.response import ProviderResponse
from aiserver.wire import requests
from tests.app import BODY, ME, RESPONSE, WORKER_MS, FakeWebhookClient, UseCases, load_providers, timeout_s
from tests.breaker_reference_model import ReferenceBreaker
from tests.fakes import FakeCircuits, FakeClock, FakeJobs, FakeKeyStore, FakeLeases, FakeMessageSender
from tests.virtual_scheduler import VirtualScheduler

MIDNIGHT = FakeClock().now
DAY_S = 86_400
SYNC_EACH_S, SYNC_MS = 5, 27_500
JOB_EACH_S, JOB_AT_S = 60, 2
CHATS, WORKERS = 4, 2  # containers; more chat containers start when these are busy


def _response(status: int) -> ProviderResponse:
    return ProviderResponse(status, {}, b'{"error":{}}')


TAKES_S = {"good": 1.5, "slow": 22.0}  # failures are immediate; "silent" lasts until the timeout
ERRORS: dict[str, Callable[[], ProviderError]] = {
    "refused": lambda: ProviderUnavailable("no connection"),
    "503": lambda: ProviderUnavailable(upstream=_response(503), retry_after_s=30),
    "429": lambda: ProviderRateLimited(upstream=_response(429), retry_after_s=20),
    "500": lambda: ProviderError(upstream=_response(500)),
    "401": lambda: ProviderAuth(upstream_status=401),
    "400": lambda: ProviderRejected(upstream=_response(400)),
    "silent": lambda: ProviderTimeout(may_be_billed=True),
}


@dataclass(frozen=True)
class Phase:
    """From `begin_min` of the day, for `minutes`: the outcomes of the two providers, repeated call by call."""

    begin_min: int
    minutes: float
    first: tuple[str, ...]
    second: tuple[str, ...] = ("good",)
    has_jobs: bool = True

    @property
    def begin_s(self) -> int:
        return self.begin_min * 60

    @property
    def end_s(self) -> int:
        return self.begin_s + round(self.minutes * 60)


@dataclass
class FailoverPass:
    """One failover pass of a request or a job over the providers."""

    begin_ms: int
    job: str | None = None
    outcomes: dict[str, str] = field(default_factory=dict[str, str])  # by provider called


class DayTimeline:
    """Chat containers, workers and their queue. `calls` and `responses` are by second of the day."""

    def __init__(self, first: dict[str, Any], second: dict[str, Any], timetable: Sequence[Phase]) -> None:
        self.clock, self._timetable = FakeClock(), timetable
        self.scheduler = VirtualScheduler(self.clock)
        self._first, self._second = self._providers = load_providers(first, second)
        self.breakers = {provider.name: ReferenceBreaker() for provider in self._providers}
        self.calls: list[tuple[float, str]] = []
        self.responses: list[tuple[float, int]] = []
        self._numbers = Counter[tuple[str, Phase | None]]()
        self._in_flight = Counter[str]()
        self._seeds = itertools.count()
        self._final: dict[str, str] = {}  # outcome of the last call of a job that must not be called again
        self._pass = threading.local()
        self.jobs, self._messages = FakeJobs(self.clock), FakeMessageSender()
        self._slots, self._circuits = FakeLeases(), FakeCircuits()
        self._chats = deque(self._container() for _ in range(CHATS))
        self._workers = deque(self._container() for _ in range(WORKERS))

    def run(self) -> None:
        """Simulate the day, and continue until no request is pending."""
        for second in range(0, DAY_S, SYNC_EACH_S):
            self.scheduler.schedule(MIDNIGHT + second * 1000, self._chat)
        for second in range(JOB_AT_S, DAY_S, JOB_EACH_S):
            phase = self._phase(second)
            if phase is None or phase.has_jobs:
                self.scheduler.schedule(MIDNIGHT + second * 1000, self._accept)
        self.scheduler.run()

    def call_times(self, name: str, begin_s: float, end_s: float) -> list[float]:
        """Return the times of the calls to a provider in that interval."""
        return [at for at, provider in self.calls if provider == name and begin_s <= at < end_s]

    def check(self, upstream: Upstream, call: ProviderCall) -> None:
        """dispatch.Dispatcher.check."""

    def send(self, upstream: Upstream, call: ProviderCall) -> ProviderResponse:
        """dispatch.Dispatcher.send."""
        provider = upstream.provider
        now, failover_pass, breaker = self.clock.now, self._pass.current, self.breakers[provider.name]
        outcome = self._outcome(provider.name)
        self._check_call(failover_pass, provider)
        breaker_call = breaker.begin(now)
        self.calls.append((self._second_of(now), provider.name))
        failover_pass.outcomes[provider.name] = outcome
        if failover_pass.job and (outcome == "400" or (outcome == "silent" and provider.queue == "hosted")):
            self._final[failover_pass.job] = outcome
        self._in_flight[provider.name] += 1
        duration_s = timeout_s(upstream, call, self.clock) if outcome == "silent" else TAKES_S.get(outcome, 0)
        if duration_s:
            self.scheduler.sleep(duration_s)
        self._in_flight[provider.name] -= 1
        breaker.end(breaker_call, self.clock.now, outcome)
        if outcome in ERRORS:
            raise ERRORS[outcome]()
        return RESPONSE

    def _check_call(self, failover_pass: FailoverPass, provider: Provider) -> None:
        """Assert that the pass may make this call after its previous calls."""
        previous, now = failover_pass.outcomes, self.clock.now
        assert provider.name not in previous, "one pass called a provider twice"
        assert "400" not in previous.values(), "a rejected request was sent to the next provider"
        hosted = [candidate.name for candidate in self._providers if candidate.queue == "hosted"]
        assert all(previous.get(name) != "silent" for name in hosted), "a call that may have been billed was repeated"
        assert failover_pass.job not in self._final, (
            f"a job was called again after {self._final[failover_pass.job or '']}"
        )
        assert not {"good", "slow"} & set(previous.values()), "a provider was called after a response"
        if provider is self._second and self._first.name not in previous:
            is_full = self._in_flight[self._first.name] == self._first.concurrency
            assert is_full or self.breakers[self._first.name].is_open(now), "a healthy first provider was skipped"

    def _outcome(self, name: str) -> str:
        phase = self._phase(self._second_of(self.clock.now))
        outcomes = ("good",) if phase is None else phase.first if name == self._first.name else phase.second
        self._numbers[name, phase] += 1
        return outcomes[(self._numbers[name, phase] - 1) % len(outcomes)]

    def _phase(self, second: float) -> Phase | None:
        return next((phase for phase in self._timetable if phase.begin_s <= second < phase.end_s), None)

    def _second_of(self, at_ms: int) -> float:
        return (at_ms - MIDNIGHT) / 1000

    def _container(self) -> UseCases:
        return UseCases(
            self._providers,
            clock=self.clock,
            jobs=self.jobs,
            messages=self._messages,
            dispatcher=self,
            webhook_client=FakeWebhookClient(),
            keys=FakeKeyStore(),
            leases=self._slots,
            circuits=self._circuits,
        )

    def _chat(self) -> None:
        """Send one synchronous request to the container that has been idle for longest."""
        container = self._chats.popleft() if self._chats else self._container()
        begin_ms = self.clock.now
        self._pass.current = FailoverPass(begin_ms)
        result = container.try_providers(SYNC_MS, self._body(), ME.owner)
        assert self.clock.now <= begin_ms + SYNC_MS
        self.responses.append((self._second_of(begin_ms), result.error.status if result.error else 200))
        self._chats.append(container)

    def _accept(self) -> None:
        self._workers[0].enqueue.accept(requests.bind_openai_queue_chat(self._body(), requests.Options()), ME)
        self._deliver()

    def _body(self) -> bytes:
        """Return a new request each time."""
        return BODY.replace('"messages"', f'"seed":{next(self._seeds)},"messages"', 1).encode()

    def _deliver(self) -> None:
        """Schedule the delivery of each sent message to the next worker."""
        for (_, job_id, delay_s), attempt in zip(self._messages.jobs, self._messages.attempts, strict=True):
            self.scheduler.schedule(
                self.clock.now + delay_s * 1000, lambda job_id=job_id, attempt=attempt: self._work(job_id, attempt)
            )
        self._messages.jobs.clear()
        self._messages.attempts.clear()

    def _work(self, job_id: int, attempt: int) -> None:
        self._workers.rotate()
        self._pass.current = FailoverPass(self.clock.now, job=str(job_id))
        self._workers[0].run_job.run(job_id, remaining_ms=WORKER_MS, attempt=attempt)
        self._deliver()
