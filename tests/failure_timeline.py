"""A day of sync callers and queued jobs before two providers that answer by a timetable, judged call by call."""

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
    ProviderResponse,
    ProviderTimeout,
    ProviderUnavailable,
)
from aiserver.providers.provider import Provider
from aiserver.router import ProviderCall
from aiserver.usecases.failover import try_candidates
from aiserver.wire import requests
from tests.app import ANSWER, BODY, ME, WORKER_MS, FakeWebhookClient, UseCases, load_providers
from tests.breaker_reference_model import Rules
from tests.fakes import FakeCircuits, FakeClock, FakeJobs, FakeKeyStore, FakeLeases, FakeMessageSender
from tests.virtual_scheduler import Turns

MIDNIGHT = FakeClock().now
DAY_S = 86_400
SYNC_EACH_S, SYNC_MS = 5, 27_500
JOB_EACH_S, JOB_AT_S = 60, 2
CHATS, WORKERS = 4, 2  # containers; more chats where these are busy


def _answer(status: int) -> ProviderResponse:
    return ProviderResponse(status, {}, b'{"error":{}}')


TAKES_S = {"good": 1.5, "slow": 22.0}  # what fails does so at once; what is silent is so for all the time it is given
ERRORS: dict[str, Callable[[], ProviderError]] = {
    "refused": lambda: ProviderUnavailable("no connection"),
    "503": lambda: ProviderUnavailable(upstream=_answer(503), retry_after_s=30),
    "429": lambda: ProviderRateLimited(upstream=_answer(429), retry_after_s=20),
    "500": lambda: ProviderError(upstream=_answer(500)),
    "401": lambda: ProviderAuth(upstream_status=401),
    "400": lambda: ProviderRejected(upstream=_answer(400)),
    "silent": lambda: ProviderTimeout(may_be_billed=True),
}


@dataclass(frozen=True)
class Phase:
    """From when, in minutes of the day, for how long the two answer how, call by call and over again."""

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
class Pass:
    """One pass of a caller or a job over the providers."""

    begin_ms: int
    job: str | None = None
    outcomes: dict[str, str] = field(default_factory=dict[str, str])  # of each that it has called


class Day:
    """Chat containers, workers and their queue. `calls` and `heard` are by second of the day."""

    def __init__(self, first: dict[str, Any], second: dict[str, Any], timetable: Sequence[Phase]) -> None:
        self.clock, self._timetable = FakeClock(), timetable
        self.turns = Turns(self.clock)
        self._first, self._second = self._providers = load_providers(first, second)
        self.rules = {provider.name: Rules() for provider in self._providers}
        self.calls: list[tuple[float, str]] = []
        self.heard: list[tuple[float, int]] = []
        self._numbers = Counter[tuple[str, Phase | None]]()
        self._under_way = Counter[str]()
        self._seeds = itertools.count()
        self._final: dict[str, str] = {}  # how a job's call came out after which there must be none
        self._pass = threading.local()
        self.jobs, self._messages = FakeJobs(self.clock), FakeMessageSender()
        self._slots, self._circuits = FakeLeases(), FakeCircuits()
        self._chats = deque(self._container() for _ in range(CHATS))
        self._workers = deque(self._container() for _ in range(WORKERS))

    def run(self) -> None:
        """The whole day, and until nobody waits any more."""
        for second in range(0, DAY_S, SYNC_EACH_S):
            self.turns.at(MIDNIGHT + second * 1000, self._chat)
        for second in range(JOB_AT_S, DAY_S, JOB_EACH_S):
            phase = self._phase(second)
            if phase is None or phase.has_jobs:
                self.turns.at(MIDNIGHT + second * 1000, self._accept)
        self.turns.run()

    def called(self, name: str, begin_s: float, end_s: float) -> list[float]:
        """When that one was called then."""
        return [at for at, called in self.calls if called == name and begin_s <= at < end_s]

    def call(
        self, provider: Provider, _operation: str, _body: bytes, *, timeout_s: float, **_: Any
    ) -> ProviderResponse:
        """router.ProviderProtocol."""
        now, asking, rules = self.clock.now, self._pass.asking, self.rules[provider.name]
        outcome = self._outcome(provider.name)
        self._judge(asking, provider)
        counted = rules.begin(now)
        self.calls.append((self._second_of(now), provider.name))
        asking.outcomes[provider.name] = outcome
        if asking.job and (outcome == "400" or (outcome == "silent" and provider.queue == "hosted")):
            self._final[asking.job] = outcome
        self._under_way[provider.name] += 1
        takes_s = timeout_s if outcome == "silent" else TAKES_S.get(outcome, 0)
        if takes_s:
            self.turns.pause(takes_s)
        self._under_way[provider.name] -= 1
        rules.end(counted, self.clock.now, outcome)
        if outcome in ERRORS:
            raise ERRORS[outcome]()
        return ANSWER

    def _judge(self, asking: Pass, provider: Provider) -> None:
        """Whether this call of a pass may be, after those before it."""
        before, now = asking.outcomes, self.clock.now
        assert provider.name not in before, "one pass called a provider twice"
        assert "400" not in before.values(), "a refused request was sent on"
        hosted = [one.name for one in self._providers if one.queue == "hosted"]
        assert all(before.get(name) != "silent" for name in hosted), "a call that may have been billed was repeated"
        assert asking.job not in self._final, f"a job was called again after {self._final[asking.job or '']}"
        assert not {"good", "slow"} & set(before.values()), "somebody was asked after an answer"
        if provider is self._second and self._first.name not in before:
            is_full = self._under_way[self._first.name] == self._first.concurrency
            assert is_full or self.rules[self._first.name].refuses(now), "the first was passed over though it was well"

    def _outcome(self, name: str) -> str:
        phase = self._phase(self._second_of(self.clock.now))
        told = ("good",) if phase is None else phase.first if name == self._first.name else phase.second
        self._numbers[name, phase] += 1
        return told[(self._numbers[name, phase] - 1) % len(told)]

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
            protocol=self,
            replier=FakeWebhookClient(),
            keys=FakeKeyStore(),
            slots=self._slots,
            circuits=self._circuits,
        )

    def _chat(self) -> None:
        """One caller who waits, served by whichever container has been idle for longest."""
        container = self._chats.popleft() if self._chats else self._container()
        began = self.clock.now
        self._pass.asking = Pass(began)
        question, found = ProviderCall("chat.completions", self._body(), ME.owner), container.router.candidates("m")
        done = try_candidates(container.router, question, found, clock=self.clock, deadline_ms=began + SYNC_MS)
        assert self.clock.now <= began + SYNC_MS
        self.heard.append((self._second_of(began), done.error.status if done.error else 200))
        self._chats.append(container)

    def _accept(self) -> None:
        self._workers[0].enqueue.accept(requests.bind_openai_queue_chat(self._body(), requests.Options()), ME)
        self._deliver()

    def _body(self) -> bytes:
        """Another request each time."""
        return BODY.replace('"messages"', f'"seed":{next(self._seeds)},"messages"', 1).encode()

    def _deliver(self) -> None:
        """Let the queue bring what has been sent, each message to a worker in turn."""
        for (_, job_id, delay_s), attempt in zip(self._messages.jobs, self._messages.attempts, strict=True):
            self.turns.at(
                self.clock.now + delay_s * 1000, lambda job_id=job_id, attempt=attempt: self._work(job_id, attempt)
            )
        self._messages.jobs.clear()
        self._messages.attempts.clear()

    def _work(self, job_id: int, attempt: int) -> None:
        self._workers.rotate()
        self._pass.asking = Pass(self.clock.now, job=str(job_id))
        self._workers[0].work.run(job_id, remaining_ms=WORKER_MS, attempt=attempt)
        self._deliver()
