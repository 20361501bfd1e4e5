"""The use cases over in-memory fakes, with one API key owner and a scripted provider."""

from collections.abc import Callable, Collection, Generator, Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass, field, replace
from typing import Any

from aiserver import api_keys
from aiserver.artifacts import ArtifactUrls
from aiserver.circuit_breaker.breaker import CircuitBreaker
from aiserver.clock import Deadline
from aiserver.errors import InvalidRequest, ProviderError
from aiserver.jobs.job import Job
from aiserver.jobs.ports import JobStore, MessageSender
from aiserver.operations import CHAT
from aiserver.providers.call import ProviderCall, Upstream
from aiserver.providers.provider import Provider
from aiserver.providers.response import ProviderResponse
from aiserver.providers.stream import keep_alive
from aiserver.routing.admission import AdmissionControl
from aiserver.routing.failover import Failover, FailoverResult
from aiserver.routing.selection import ProviderDirectory
from aiserver.usecases.callbacks import Redelivery, SampleCallback
from aiserver.usecases.complete import Complete
from aiserver.usecases.deliver_callback import DeliverCallback
from aiserver.usecases.delivery_limiter import DeliveryLimiter
from aiserver.usecases.enqueue import Caller, Enqueue
from aiserver.usecases.image_outputs import FileSource, ImageOutputs
from aiserver.usecases.media_outputs import ArtifactStore
from aiserver.usecases.run_job import RunJob
from aiserver.usecases.status import Status
from aiserver.usecases.sweep import Sweep
from aiserver.usecases.sync_images import SyncImages
from aiserver.usecases.sync_records import SyncRecords
from aiserver.webhooks.client import DeliveryResult
from aiserver.wire import requests
from tests.fakes import (
    FakeArtifacts,
    FakeArtifactSecrets,
    FakeCircuits,
    FakeClock,
    FakeFileSource,
    FakeJobs,
    FakeKeyStore,
    FakeLeases,
    FakeMessageSender,
)

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
    request_id: str | None = None

    def on_event(self, event: bytes) -> bytes:
        return event

    def on_end(self) -> bytes:
        return b""


@dataclass
class FakeStream:
    """stream.ProviderStream with a script: chunks, errors to raise, and floats for seconds without any chunk."""

    clock: FakeClock
    script: list[bytes | Exception | float | None]
    usage: str | None = None
    content_events: int = 0
    interval_s: float = 0
    headers: dict[str, str] = field(default_factory=dict[str, str])
    is_closed: bool = False
    is_done: bool = False
    is_complete: bool = False
    has_events: bool = True

    @property
    def mapper(self) -> FakeEventMapper:
        return FakeEventMapper(self.usage, self.content_events, self.is_done, self.is_complete)

    @property
    def events(self) -> Iterator[bytes | None]:
        return keep_alive(self._run_script(), self.clock)

    def _run_script(self) -> Iterator[Any]:
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
class FakeDispatcher:
    """dispatch.Dispatcher that returns the scripted outcomes in order, then RESPONSE or STREAM_BODY.

    `check` rejects every request for a model in `unsupported_models`, and counts its calls in `checks`. `calls` are
    the provider's name and the call's options; timeouts are in seconds, as dispatch.Dispatcher computes them.
    """

    clock: FakeClock
    outcomes: list[ProviderResponse | ProviderError | FakeStream] = field(default_factory=list[Any])
    calls: list[tuple[str, dict[str, Any]]] = field(default_factory=list[tuple[str, dict[str, Any]]])
    latency_s: float = 0
    unsupported_models: tuple[str, ...] = ()
    checks: int = 0

    def check(self, upstream: Upstream, call: ProviderCall) -> None:
        self.checks += 1
        if upstream.model in self.unsupported_models:
            raise InvalidRequest(f"'seed' is not supported by {upstream.model}", param="seed")

    def send(self, upstream: Upstream, call: ProviderCall) -> Any:
        return self._outcome(RESPONSE, upstream, call, timeout_s=timeout_s(upstream, call, self.clock))

    @contextmanager
    def open_stream(self, upstream: Upstream, call: ProviderCall) -> Generator[Any]:
        stream = self._outcome(
            FakeStream(self.clock, [STREAM_BODY]),
            upstream,
            call,
            head_timeout_s=timeout_s(upstream, call, self.clock),
            total_timeout_s=call.deadline.remaining_s(self.clock),
        )
        with closing(stream):
            yield stream

    def _outcome(self, default: Any, upstream: Upstream, call: ProviderCall, **timeouts: float) -> Any:
        options = {
            "operation": call.operation.name,
            "body": call.body,
            "model": upstream.model,
            "api_key": upstream.api_key,
            "idempotency_key": call.idempotency_key,
            "model_is_configured": upstream.model_is_configured,
        }
        self.calls.append((upstream.provider.name, options | timeouts))
        self.clock.advance(self.latency_s)
        outcome = self.outcomes.pop(0) if self.outcomes else default
        if isinstance(outcome, ProviderError):
            raise outcome
        return outcome


def timeout_s(upstream: Upstream, call: ProviderCall, clock: FakeClock) -> float:
    """Seconds until a call must have begun to respond."""
    return min(call.begin_deadline.remaining_s(clock), upstream.provider.timeout_s)


class FakeAdapters:
    """registry.AdapterRegistry that checks requests as the dispatcher does."""

    def __init__(self, dispatcher: Any) -> None:
        self._dispatcher = dispatcher

    def check(self, upstream: Upstream, call: ProviderCall) -> None:
        self._dispatcher.check(upstream, call)


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
        dispatcher: Any,
        webhook_client: Any,
        keys: FakeKeyStore,
        leases: Any,
        circuits: Any,
        secrets: Any = None,
        per_key: int = PER_KEY,
        artifacts: ArtifactStore | None = None,
        files: FileSource | None = None,
    ) -> None:
        common: dict[str, Any] = {"settled_days": 7}
        urls = ArtifactUrls(FakeArtifactSecrets(), clock, hours=24)
        images = ImageOutputs(artifacts or FakeArtifacts(), files or FakeFileSource(), clock, clock.advance)
        self._clock = clock
        self.directory = ProviderDirectory(lambda: providers, clock)
        self.admission = AdmissionControl(clock, leases, CircuitBreaker(circuits, clock))
        self.failover = Failover(dispatcher, self.admission, secrets, clock)
        adapters: Any = FakeAdapters(dispatcher)
        check_reply_to = webhook_client.check_url
        self.enqueue = Enqueue(jobs, messages, self.directory, adapters, clock, check_reply_to=check_reply_to, **common)
        self.records = SyncRecords(jobs, clock, clock.advance, **common, lease_margin_s=MARGIN_S)
        self.complete = Complete(jobs, self.directory, self.failover, self.records, clock, SyncImages(images, urls))
        self.run_job = RunJob(
            jobs,
            messages,
            self.directory,
            self.failover,
            images,
            clock,
            sleep=clock.advance,
            lease_margin_s=MARGIN_S,
            **common,
        )
        self.sweep = Sweep(jobs, messages, circuits, clock, threads=1, **common)
        self.status = Status(jobs, clock, clock.advance, urls)
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
            urls=urls,
            **common,
        )

    def try_providers(self, timeout_ms: int, body: bytes = BODY.encode(), owner: str = "") -> FailoverResult:
        """One pass over the providers of model `m`, as for a sync request."""
        deadline = Deadline(self._clock.now + timeout_ms)
        call = ProviderCall(CHAT, body, deadline, deadline, owner)
        return self.failover.try_candidates(call, self.directory.candidates("m"))


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
        self.dispatcher = FakeDispatcher(self.clock)
        self.providers = load_providers(*(providers or ({"name": "p", "models": {"m": ""}},)))
        super().__init__(
            self.providers,
            clock=self.clock,
            jobs=self.jobs,
            messages=self.messages,
            dispatcher=self.dispatcher,
            webhook_client=webhook_client or self.webhook_client,
            keys=self.keys,
            leases=self.leases,
            circuits=self.circuits,
            secrets=secrets(self.clock),
            per_key=per_key,
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
