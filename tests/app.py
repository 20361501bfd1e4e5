"""The use cases over fakes: one owner's house, with a provider that does as it is told."""

from collections.abc import Callable, Collection, Iterator
from dataclasses import dataclass, field, replace
from typing import Any

from aiserver import api_keys
from aiserver.errors import InvalidRequest, ProviderError, ProviderResponse
from aiserver.jobs.job import Job
from aiserver.jobs.ports import JobStore, MessageSender
from aiserver.providers.breaker import CircuitBreaker
from aiserver.providers.provider import Provider
from aiserver.router import Router
from aiserver.usecases.callbacks import Redelivery, SampleCallback
from aiserver.usecases.complete import Complete
from aiserver.usecases.deliver_callback import DeliverCallback
from aiserver.usecases.delivery_limiter import DeliveryLimiter
from aiserver.usecases.enqueue import Caller, Enqueue
from aiserver.usecases.run_job import RunJob
from aiserver.usecases.status import Status
from aiserver.usecases.sweep import Sweep
from aiserver.webhooks.client import DeliveryResult
from aiserver.wire import requests
from tests.fakes import FakeCircuits, FakeClock, FakeJobs, FakeKeyStore, FakeLeases, FakeMessageSender

BODY = '{"model":"m","messages":[{"role":"user","content":"hi"}]}'
STREAMED = b'data: {"id":"1"}\n\ndata: [DONE]\n\n'
ANSWER = ProviderResponse(200, {}, b'{"id":"1"}', usage='{"total_tokens":3}')
ME = Caller("me", "https://x.io")
WORKER_MS = 900_000
SWEEPER_MS = 50_000
REPLY_MS = 30_000
MARGIN_S = 120
LEASE_MS = WORKER_MS + MARGIN_S * 1000
PER_KEY, PER_RECEIVER = 25, 10
CALLBACK_LEASE_MS = REPLY_MS + MARGIN_S * 1000


@dataclass
class FakeEventMapper:
    """stream.Translation of which all has been said."""

    usage: str | None = None
    content_events: int = 0
    is_done: bool = False
    is_complete: bool = False

    def on_end(self) -> bytes:
        return b""


@dataclass
class FakeStream:
    """stream.Stream: gives what it is told to; a number is so many seconds in which nothing comes."""

    clock: FakeClock
    given: list[bytes | Exception | float]
    usage: str | None = None
    content_events: int = 0
    takes_s: float = 0
    headers: dict[str, str] = field(default_factory=dict[str, str])
    is_closed: bool = False
    has_first_event: bool = True
    is_done: bool = False
    is_complete: bool = False

    @property
    def mapper(self) -> FakeEventMapper:
        return FakeEventMapper(self.usage, self.content_events, self.is_done, self.is_complete)

    def __iter__(self) -> Iterator[bytes | None]:
        for one in self.given:
            self.clock.advance(self.takes_s)
            if isinstance(one, Exception):
                raise one
            if isinstance(one, float):
                self.clock.advance(one)
            yield None if isinstance(one, float) else one

    def close(self) -> None:
        self.is_closed = True


@dataclass
class FakeProviderClient:
    """router.ProviderProtocol: gives the scripted outcomes in order, then ANSWER, or STREAMED.

    It has no words for what is asked of the models of `wordless`, each time it is looked at counted in `looks`.
    """

    clock: FakeClock
    outcomes: list[ProviderResponse | ProviderError | FakeStream] = field(default_factory=list[Any])
    calls: list[tuple[str, dict[str, Any]]] = field(default_factory=list[tuple[str, dict[str, Any]]])
    takes_s: float = 0
    wordless: tuple[str, ...] = ()
    looks: int = 0

    def check(self, type: str, body: bytes, model: str) -> None:
        self.looks += 1
        if model in self.wordless:
            raise InvalidRequest(f"{model} cannot be told 'seed'", param="seed")

    def call(self, provider: Provider, operation: str, body: bytes, **more: Any) -> Any:
        return self._outcome(ANSWER, provider, operation, body, more)

    def stream(self, provider: Provider, operation: str, body: bytes, **more: Any) -> Any:
        return self._outcome(FakeStream(self.clock, [STREAMED]), provider, operation, body, more)

    def _outcome(self, default: Any, provider: Provider, operation: str, body: bytes, more: dict[str, Any]) -> Any:
        self.calls.append((provider.name, {"operation": operation, "body": body, **more}))
        self.clock.advance(self.takes_s)
        outcome = self.outcomes.pop(0) if self.outcomes else default
        if isinstance(outcome, ProviderError):
            raise outcome
        return outcome


class FakeWebhookClient:
    """Gives the scripted deliveries in order, then 200."""

    def __init__(self) -> None:
        self.outcomes: list[DeliveryResult | Exception] = []
        self.posts: list[tuple[str, bytes, dict[str, str]]] = []

    def receiver(self, url: str) -> str:
        return url.split("/")[2]

    def check(self, url: str, hosts: Collection[str] = ()) -> None:
        pass

    def post(self, url: str, body: bytes, headers: dict[str, str], hosts: Collection[str] = ()) -> DeliveryResult:
        self.posts.append((url, body, headers))
        outcome = self.outcomes.pop(0) if self.outcomes else DeliveryResult(200, None)
        if isinstance(outcome, Exception):
            raise outcome
        return outcome


class UseCases:
    """Everything wired as in production, over the ports it is given."""

    def __init__(
        self,
        providers: list[Provider],
        *,
        clock: FakeClock,
        jobs: JobStore,
        messages: MessageSender,
        protocol: Any,
        replier: Any,
        keys: FakeKeyStore,
        slots: Any,
        circuits: Any,
        secrets: Any = None,
        per_key: int = PER_KEY,
        check: Any = None,
    ) -> None:
        common: dict[str, Any] = {"settled_days": 7}
        breaker = CircuitBreaker(circuits, clock)
        self.router = Router(
            lambda: providers, {"openai": protocol}, secrets, clock, slots, breaker, check or (lambda *_: None)
        )
        self.enqueue = Enqueue(jobs, messages, self.router, clock, check_reply_to=replier.check, **common)
        self.answer = Complete(jobs, self.router, clock, **common)
        self.work = RunJob(jobs, messages, self.router, clock, sleep=clock.advance, lease_margin_s=MARGIN_S, **common)
        self.sweep = Sweep(jobs, messages, circuits, clock, threads=1, **common)
        self.status = Status(jobs, clock, clock.advance)
        self.redelivery = Redelivery(jobs, messages, clock)
        places = DeliveryLimiter(slots, per_key=per_key, per_receiver=PER_RECEIVER)
        self.sample = SampleCallback(keys, replier, places, clock)
        self.reply = DeliverCallback(
            jobs,
            messages,
            keys,
            replier,
            places,
            clock,
            lease_margin_s=MARGIN_S,
            **common,
        )


def load_providers(*providers: dict[str, Any]) -> list[Provider]:
    return [Provider.model_validate({"base_url": "http://127.0.0.1:1/v1", **provider}) for provider in providers]


class TestApp(UseCases):
    """The use cases over fakes."""

    __test__ = False  # not a class of tests

    jobs: FakeJobs

    def __init__(
        self,
        *providers: dict[str, Any],
        jobs: Callable[[FakeClock], FakeJobs] = FakeJobs,
        secrets: Callable[[FakeClock], Any] = lambda _: None,
        replier: Any = None,
        per_key: int = PER_KEY,
    ) -> None:
        self.clock = FakeClock()
        self.jobs = jobs(self.clock)
        self.messages = FakeMessageSender()
        self.keys = FakeKeyStore()
        mine = api_keys.create_key("mine", now_ms=self.clock.now)
        self.keys.put_key(replace(mine.key, id=ME.owner), mine.secrets)
        self.slots = FakeLeases()
        self.circuits = FakeCircuits()
        self.replier = FakeWebhookClient()
        self.protocol = FakeProviderClient(self.clock)
        self.providers = load_providers(*(providers or ({"name": "p", "models": {"m": ""}},)))
        super().__init__(
            self.providers,
            clock=self.clock,
            jobs=self.jobs,
            messages=self.messages,
            protocol=self.protocol,
            replier=replier or self.replier,
            keys=self.keys,
            slots=self.slots,
            circuits=self.circuits,
            secrets=secrets(self.clock),
            per_key=per_key,
            check=self.protocol.check,
        )

    def accept(self, **options: Any) -> Job:
        return self.enqueue.accept(requests.bind_openai_queue_chat(BODY, requests.Options(**options)), ME)

    def run(self, job: Job) -> Job:
        """One worker takes the job's message."""
        self.work.run(job.id, remaining_ms=WORKER_MS)
        return self.now(job)

    def deliver(self, job: Job) -> Job:
        """One deliverer takes its callback's message."""
        self.reply.deliver(job.id, remaining_ms=REPLY_MS)
        return self.now(job)

    def swept(self, job: Job) -> Job:
        self.sweep.sweep(remaining_ms=SWEEPER_MS)
        return self.now(job)

    def now(self, job: Job) -> Job:
        found = self.jobs.get(job.id)
        assert found is not None
        return found
