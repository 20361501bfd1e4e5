"""The use cases over in-memory fakes, with one API key owner and a scripted provider."""

from collections.abc import Callable, Collection, Iterator
from dataclasses import dataclass, field, replace
from typing import Any

from aiserver import api_keys
from aiserver.circuit_breaker.breaker import CircuitBreaker
from aiserver.errors import InvalidRequest, ProviderError, ProviderResponse
from aiserver.jobs.job import Job
from aiserver.jobs.ports import JobStore, MessageSender
from aiserver.providers.provider import Provider
from aiserver.routing.router import Router
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
STREAM_BODY = b'data: {"id":"1"}\n\ndata: [DONE]\n\n'
RESPONSE = ProviderResponse(200, {}, b'{"id":"1"}', usage='{"total_tokens":3}')
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
    """stream.EventMapper that has mapped all events."""

    usage: str | None = None
    content_events: int = 0
    is_done: bool = False
    is_complete: bool = False

    def on_end(self) -> bytes:
        return b""


@dataclass
class FakeStream:
    """stream.Stream that yields a script: chunks, errors to raise, and floats for seconds without any chunk."""

    clock: FakeClock
    script: list[bytes | Exception | float]
    usage: str | None = None
    content_events: int = 0
    interval_s: float = 0
    headers: dict[str, str] = field(default_factory=dict[str, str])
    is_closed: bool = False
    has_first_event: bool = True
    is_done: bool = False
    is_complete: bool = False

    @property
    def mapper(self) -> FakeEventMapper:
        return FakeEventMapper(self.usage, self.content_events, self.is_done, self.is_complete)

    def __iter__(self) -> Iterator[bytes | None]:
        for step in self.script:
            self.clock.advance(self.interval_s)
            if isinstance(step, Exception):
                raise step
            if isinstance(step, float):
                self.clock.advance(step)
            yield None if isinstance(step, float) else step

    def close(self) -> None:
        self.is_closed = True


@dataclass
class FakeProviderClient:
    """router.ProviderClient that returns the scripted outcomes in order, then RESPONSE or STREAM_BODY.

    `check` rejects every request for a model in `unsupported_models`, and counts its calls in `checks`.
    """

    clock: FakeClock
    outcomes: list[ProviderResponse | ProviderError | FakeStream] = field(default_factory=list[Any])
    calls: list[tuple[str, dict[str, Any]]] = field(default_factory=list[tuple[str, dict[str, Any]]])
    latency_s: float = 0
    unsupported_models: tuple[str, ...] = ()
    checks: int = 0

    def check(self, type: str, body: bytes, model: str) -> None:
        self.checks += 1
        if model in self.unsupported_models:
            raise InvalidRequest(f"'seed' is not supported by {model}", param="seed")

    def call(self, provider: Provider, operation: str, body: bytes, **options: Any) -> Any:
        return self._outcome(RESPONSE, provider, operation, body, options)

    def stream(self, provider: Provider, operation: str, body: bytes, **options: Any) -> Any:
        return self._outcome(FakeStream(self.clock, [STREAM_BODY]), provider, operation, body, options)

    def _outcome(self, default: Any, provider: Provider, operation: str, body: bytes, options: dict[str, Any]) -> Any:
        self.calls.append((provider.name, {"operation": operation, "body": body, **options}))
        self.clock.advance(self.latency_s)
        outcome = self.outcomes.pop(0) if self.outcomes else default
        if isinstance(outcome, ProviderError):
            raise outcome
        return outcome


class FakeWebhookClient:
    """Webhook client that returns the scripted deliveries in order, then 200."""

    def __init__(self) -> None:
        self.outcomes: list[DeliveryResult | Exception] = []
        self.posts: list[tuple[str, bytes, dict[str, str]]] = []

    def receiver(self, url: str) -> str:
        return url.split("/")[2]

    def check_url(self, url: str, hosts: Collection[str] = ()) -> None:
        pass

    def post(self, url: str, body: bytes, headers: dict[str, str], hosts: Collection[str] = ()) -> DeliveryResult:
        self.posts.append((url, body, headers))
        outcome = self.outcomes.pop(0) if self.outcomes else DeliveryResult(200, None)
        if isinstance(outcome, Exception):
            raise outcome
        return outcome


class UseCases:
    """All use cases connected as in production, over the given ports."""

    def __init__(
        self,
        providers: list[Provider],
        *,
        clock: FakeClock,
        jobs: JobStore,
        messages: MessageSender,
        provider_client: Any,
        webhook_client: Any,
        keys: FakeKeyStore,
        leases: Any,
        circuits: Any,
        secrets: Any = None,
        per_key: int = PER_KEY,
        check: Any = None,
    ) -> None:
        common: dict[str, Any] = {"settled_days": 7}
        breaker = CircuitBreaker(circuits, clock)
        self.router = Router(
            lambda: providers, {"openai": provider_client}, secrets, clock, leases, breaker, check or (lambda *_: None)
        )
        self.enqueue = Enqueue(jobs, messages, self.router, clock, check_reply_to=webhook_client.check_url, **common)
        self.complete = Complete(jobs, self.router, clock, **common)
        self.run_job = RunJob(
            jobs, messages, self.router, clock, sleep=clock.advance, lease_margin_s=MARGIN_S, **common
        )
        self.sweep = Sweep(jobs, messages, circuits, clock, threads=1, **common)
        self.status = Status(jobs, clock, clock.advance)
        self.redelivery = Redelivery(jobs, messages, clock)
        limiter = DeliveryLimiter(leases, per_key=per_key, per_receiver=PER_RECEIVER)
        self.sample_callback = SampleCallback(keys, webhook_client, limiter, clock)
        self.deliver_callback = DeliverCallback(
            jobs,
            messages,
            keys,
            webhook_client,
            limiter,
            clock,
            lease_margin_s=MARGIN_S,
            **common,
        )


def load_providers(*providers: dict[str, Any]) -> list[Provider]:
    return [Provider.model_validate({"base_url": "http://127.0.0.1:1/v1", **provider}) for provider in providers]


class TestApp(UseCases):
    """The use cases over in-memory fakes."""

    __test__ = False  # pytest must not collect it

    jobs: FakeJobs

    def __init__(
        self,
        *providers: dict[str, Any],
        jobs: Callable[[FakeClock], FakeJobs] = FakeJobs,
        secrets: Callable[[FakeClock], Any] = lambda _: None,
        webhook_client: Any = None,
        per_key: int = PER_KEY,
    ) -> None:
        self.clock = FakeClock()
        self.jobs = jobs(self.clock)
        self.messages = FakeMessageSender()
        self.keys = FakeKeyStore()
        created = api_keys.create_key("mine", now_ms=self.clock.now)
        self.keys.put_key(replace(created.key, id=ME.owner), created.secrets)
        self.leases = FakeLeases()
        self.circuits = FakeCircuits()
        self.webhook_client = FakeWebhookClient()
        self.provider_client = FakeProviderClient(self.clock)
        self.providers = load_providers(*(providers or ({"name": "p", "models": {"m": ""}},)))
        super().__init__(
            self.providers,
            clock=self.clock,
            jobs=self.jobs,
            messages=self.messages,
            provider_client=self.provider_client,
            webhook_client=webhook_client or self.webhook_client,
            keys=self.keys,
            leases=self.leases,
            circuits=self.circuits,
            secrets=secrets(self.clock),
            per_key=per_key,
            check=self.provider_client.check,
        )

    def accept(self, **options: Any) -> Job:
        return self.enqueue.accept(requests.bind_openai_queue_chat(BODY, requests.Options(**options)), ME)

    def run(self, job: Job) -> Job:
        """Process the job's message in one worker."""
        self.run_job.run(job.id, remaining_ms=WORKER_MS)
        return self.reload(job)

    def deliver(self, job: Job) -> Job:
        """Process the callback's message in one deliverer."""
        self.deliver_callback.deliver(job.id, remaining_ms=REPLY_MS)
        return self.reload(job)

    def run_sweep(self, job: Job) -> Job:
        self.sweep.sweep(remaining_ms=SWEEPER_MS)
        return self.reload(job)

    def reload(self, job: Job) -> Job:
        stored = self.jobs.get(job.id)
        assert stored is not None
        return stored
