"""A simulation around the real handlers: messages are lost, duplicated and late, and a process may die at any call.

It checks the invariants of the state machine: I1 one terminal state per epoch, I2 no accepted job is stuck, I3 no
avoidable second call that costs money, I4 every ReplyTo becomes Delivered or Dead, I5 Delivered means that a POST got
a 2xx, I6 no callback before the terminal state, I7 a synchronous request with a RefId is stored before its call.
"""

import base64
import json
from collections.abc import Callable, Collection, Generator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from functools import partial
from typing import Any, cast

from aiserver import api_keys, bootstrap
from aiserver.api_keys import Authenticator, WebhookSecrets
from aiserver.artifacts import ArtifactUrls
from aiserver.aws.items import pack
from aiserver.errors import ProviderError, ProviderRateLimited, ProviderTimeout, ProviderUnavailable
from aiserver.http_api import HttpContext
from aiserver.jobs.job import Job, request_hash
from aiserver.jobs.states import TERMINAL_STATES, CallbackState
from aiserver.providers.call import ProviderCall, Upstream
from aiserver.providers.response import ProviderResponse
from aiserver.usecases.generate_media import GenerateMedia
from aiserver.usecases.job_finished import JobFinishedNotifier
from aiserver.webhooks.client import DeliveryResult
from aiserver.wire.forms import Part, encode_form
from tests import stack
from tests.app import REPLY_MS, WORKER_MS, FakeDispatcher, FakeWebhookClient, UseCases, load_providers
from tests.crash.backends import BackendFactory, FakeBackend
from tests.crash.fault_points import FaultPoints, ProcessDied, check_invariant
from tests.fakes import FakeArtifactSecrets, FakeClock, FakeFileSource, FakeKeyStore
from tests.iam import recorder
from tests.moto_stack import WEBHOOK_SECRET, event, example_key

MAX_RECEIVES = 5  # then a message is a dead letter, and only the sweeper can recover its job
HTTP_MS, SWEEPER_MS = 29_000, 55_000
MAX_STEPS = 3_000
IMAGES = "images.generations"
OPERATIONS = ["chat.completions", "audio.transcriptions", "audio.speech", IMAGES]
PROVIDERS = (
    {"name": "hosted", "models": {"m": ""}, "operations": OPERATIONS},
    {"name": "gpu", "queue": "gpu", "concurrency": 1, "models": {"gpu-m": ""}},
    {"name": "gpu-images", "queue": "gpu", "concurrency": 1, "models": {"gpu-image": ""}, "operations": [IMAGES]},
)
# Of a synchronous request: also a conflict with the job of its RefId, and errors of the provider or the store.
CHAT_STATUSES = (200, 409, 429, 500, 502, 503, 504)
REPLY_TO = "https://r.io/"
LARGE = "x" * 40_000  # a request that contains this, and its response, are stored in S3


@dataclass(frozen=True)
class Message:
    """A message in a queue; it is visible from `visible_at`, in milliseconds."""

    kind: str
    body: str
    visible_at: int
    receives: int = 0

    @property
    def job_id(self) -> int:
        return json.loads(self.body)["id"]


class LambdaContext:
    """The Lambda context of a handler, by the simulation's clock."""

    def __init__(self, clock: FakeClock, timeout_ms: int) -> None:
        self._clock = clock
        self._deadline = clock.now + timeout_ms

    def get_remaining_time_in_millis(self) -> int:
        return self._deadline - self._clock.now


class Simulation:
    """The handlers over a backend, its queues, and what was observed of each job."""

    def __init__(self, create_backend: BackendFactory = FakeBackend) -> None:
        self.clock = FakeClock()
        self.fault_points = FaultPoints()
        self.backend = create_backend(self.clock, self.fault_points)
        self.dispatcher = FakeDispatcher(self.clock)
        self.webhook_client = FakeWebhookClient()
        self.files = FakeFileSource()  # at the URLs in responses of providers
        self.messages: list[Message] = []
        self.billed_calls: dict[int, int] = {}  # hosted calls whose outcome is success or unknown
        self.job_ids: list[int] = []
        self._terminal_states: dict[tuple[int, int, int], tuple[str, int | None]] = {}
        self._delivered: set[tuple[int, int]] = set()
        self.keys = FakeKeyStore()
        key = api_keys.key_record(example_key(), "example", now_ms=self.clock.now)
        self.keys.put_key(key, WebhookSecrets(WEBHOOK_SECRET))
        self.use_cases = self._build_use_cases()
        self._install_use_cases()

    def _build_use_cases(self) -> UseCases:
        """The use cases of a cold container: everything except external systems is real."""
        backend = self.backend
        use_cases = UseCases(
            load_providers(*PROVIDERS),
            clock=self.clock,
            jobs=backend.jobs,
            messages=backend.messages,
            dispatcher=_Stub(
                check=self.dispatcher.check,
                send=self.fault_points.wrap(self._send, "provider"),
                open_stream=self._open_stream,
            ),
            webhook_client=_Stub(
                receiver=self.webhook_client.receiver,
                check_url=self.webhook_client.check_url,
                post=self.fault_points.wrap(self.post_callback, "receiver"),
            ),
            keys=self.keys,
            leases=backend.leases,
            circuits=backend.circuits,
            per_key=1,  # a process that dies with the lease leaves no other
            artifacts=backend.artifacts,
            files=cast(Any, _Stub(fetch=self.fault_points.wrap(self.files.fetch, "fetch"))),
        )
        cast(Any, use_cases.run_job)._recorder._images._sleep = self.clock.advance
        return use_cases

    def _install_use_cases(self) -> None:
        """Install the use cases in the handlers, as bootstrap does."""
        backend, use_cases = self.backend, self.use_cases
        http = HttpContext(self.clock, []), Authenticator(self.keys, self.clock)
        urls = ArtifactUrls(FakeArtifactSecrets(), self.clock, hours=24)
        generate = GenerateMedia(use_cases.complete, backend.artifacts, urls, self.clock)
        bootstrap.reset_for_tests()
        bootstrap.override_for_tests(
            chat=bootstrap.ChatParts(*http, use_cases.complete),
            media=bootstrap.MediaParts(*http, use_cases.complete, generate),
            queue=bootstrap.QueueParts(
                *http, use_cases.enqueue, use_cases.status, use_cases.redelivery, use_cases.sample_callback
            ),
            finished=JobFinishedNotifier(backend.messages, backend.events),
            reply=use_cases.deliver_callback,
            sweep=use_cases.sweep,
        )

    # --- actions

    def run_process(self, action: Callable[[], Any], *, skew_s: int = 0, **fault: Any) -> bool:
        """Run a process with its clock off by `skew_s` and one call failing by `fault`; return whether all was done."""
        for name, value in fault.items():
            setattr(self.fault_points, name, value)
        self.clock.advance(skew_s)
        try:
            response = action()
            return not (response and response.get("batchItemFailures"))
        except (ProcessDied, TimeoutError):  # Lambda retries after a failure that a handler does not catch
            return False
        finally:
            self.clock.advance(-skew_s)
            self.fault_points.begin()
            self._collect_messages()
            self._check_invariants()

    def interrupt_at(self, at: int, action: Callable[[], object]) -> None:
        """Run `action` just before call number `at` of the next process."""
        self.fault_points.interruption_at, self.fault_points.interruption = at, action

    def submit(self, ref_id: str, *, gpu: bool = False, reply_to: bool = True, large: bool = False) -> None:
        """Submit a job; remember the id that its caller received."""
        body = {"refId": ref_id, "request": _chat_body(ref_id, gpu=gpu, large=large)}
        body |= {"replyTo": REPLY_TO} if reply_to else {}
        self._remember_job(ref_id, self.post("QueueOpenAiChatCompletion", body))

    def submit_speech(self, ref_id: str) -> None:
        """Submit AI Server's request for speech, with a member that is ignored."""
        body = {"refId": ref_id, "text": "hi", "model": "m", "replyTo": REPLY_TO, "state": "s", "seed": 1}
        self._remember_job(ref_id, self.post("QueueTextToSpeech", body))

    def submit_transcription(self, ref_id: str) -> None:
        """Submit a form of OpenAI's transcriptions."""
        fields = {"refId": ref_id, "model": "m", "replyTo": REPLY_TO}
        parts = [Part(name, value.encode()) for name, value in fields.items()]
        body, content_type = encode_form([*parts, Part("file", b"audio", "a.wav")])
        form = {"body": base64.b64encode(body).decode(), "isBase64Encoded": True}
        http_event = event("queue") | form | {"resource": "/v1/queue/audio/transcriptions", "pathParameters": None}
        http_event["headers"] |= {"Content-Type": content_type}
        self._remember_job(ref_id, self._run("QueueFunction", http_event, HTTP_MS))

    def submit_image(self, ref_id: str, *, gpu: bool = False) -> None:
        """Submit OpenAI's request for images."""
        route = "/v1/queue/images/generations"
        http_event: dict[str, Any] = event("queue")
        http_event |= {"body": _image_body(ref_id, gpu=gpu), "resource": route, "pathParameters": None}
        http_event["headers"].update({"X-Ref-Id": ref_id, "X-Reply-To": REPLY_TO})
        http_event["requestContext"]["path"] = f"/prod{route}"
        self._remember_job(ref_id, self._run("QueueFunction", http_event, HTTP_MS))

    def draw(self, ref_id: str, *, gpu: bool = False) -> dict[str, Any]:
        """Make OpenAI's synchronous request for images with that RefId, and check its status."""
        http_event = event("media.image")
        http_event |= {"body": _image_body(ref_id, gpu=gpu)}
        http_event["headers"] |= {"X-Ref-Id": ref_id}
        response = self._run("MediaFunction", http_event, HTTP_MS)
        check_invariant(response["statusCode"] in CHAT_STATUSES, f"a valid request got {response}")
        return response

    def _remember_job(self, ref_id: str, response: dict[str, Any]) -> None:
        if response["statusCode"] == 500 or (response["statusCode"] == 409 and self._has_synchronous_job(ref_id)):
            return  # the caller retries, or not
        check_invariant(response["statusCode"] in (200, 202), f"a valid request got {response}")
        job_id = json.loads(response["body"])["id"]
        if job_id not in self.job_ids:
            self.job_ids.append(job_id)

    def chat(self, ref_id: str, *, gpu: bool = False, large: bool = False, stream: bool = False) -> dict[str, Any]:
        """Make a synchronous request with that RefId, and check its status."""
        body = _chat_body(ref_id, gpu=gpu, large=large) | {"refId": ref_id}
        body |= {"stream": True} if stream else {}
        response = self._run("ChatFunction", event("chat") | {"body": json.dumps(body)}, HTTP_MS)
        check_invariant(response["statusCode"] in CHAT_STATUSES, f"a valid request got {response}")
        return response

    def cancel(self, job_id: int) -> None:
        response = self.post("CancelJob", {"id": job_id})
        is_conflict = response["statusCode"] == 409 and self.load_job(job_id).has_ended
        check_invariant(is_conflict or response["statusCode"] in (200, 202, 500), f"a cancel request got {response}")

    def post(self, name: str, body: object) -> dict[str, Any]:
        """POST /api/{name} through the queue function."""
        http_event = event("queue") | {"path": f"/api/{name}", "body": json.dumps(body)}
        return self._run("QueueFunction", http_event | {"pathParameters": {"proxy": name}}, HTTP_MS)

    def run_worker(self, *job_ids: int) -> dict[str, Any]:
        """Run a worker for a batch of messages, one per job."""
        return self.run_worker_batch({f"message-{job_id}": json.dumps({"id": job_id}) for job_id in job_ids})

    def run_worker_batch(self, bodies: dict[str, str]) -> dict[str, Any]:
        """Run a worker for a batch of messages of these ids and bodies."""
        return self._run("WorkerFunction", _records("worker", bodies), WORKER_MS)

    def deliver(self, job_id: int) -> dict[str, Any]:
        return self._run("ReplyFunction", _records("reply", {"message": json.dumps({"id": job_id})}), REPLY_MS)

    def sweep(self) -> None:
        self._run("SweepFunction", event("sweep"), SWEEPER_MS)

    def publish_stream_record(self, job_id: int) -> dict[str, Any] | None:
        """Send the table's stream record of a job in a terminal state."""
        job = self.load_job(job_id)
        if not job.has_ended:
            return None
        image = pack({"pk": f"JOB#{job.id}", "sk": "JOB", **job.to_item()})
        record = {"eventName": "MODIFY", "dynamodb": {"SequenceNumber": "1", "NewImage": image}}
        return self._run("FinishedFunction", {"Records": [record]}, REPLY_MS)

    def _run(self, function: str, payload: dict[str, Any], timeout_ms: int) -> dict[str, Any]:
        if function == "WorkerFunction":  # each runs in its own container and shares no cache
            bootstrap.override_for_tests(worker=self._build_use_cases().run_job)
        module = stack.module(function)
        name = stack.properties(function)["Handler"].rpartition(".")[2]
        with recorder.running(function):
            return getattr(module, name)(payload, LambdaContext(self.clock, timeout_ms))

    def receive(self, index: int, **fault: Any) -> None:
        """Handle one message; after a failure it is received again, up to `MAX_RECEIVES` times."""
        message = self.messages.pop(index % len(self.messages))
        function, timeout_ms = ("worker", WORKER_MS) if message.kind == "job" else ("reply", REPLY_MS)
        batch = _records(function, {"message": message.body})
        if (
            not self.run_process(lambda: self._run(f"{function.capitalize()}Function", batch, timeout_ms), **fault)
            and message.receives + 1 < MAX_RECEIVES
        ):
            visible_at = self.clock.now + 6 * WORKER_MS
            self.messages.append(replace(message, receives=message.receives + 1, visible_at=visible_at))

    def settle(self) -> None:
        """Run without faults: handle all messages, run the sweeper whenever something is due, and check the result."""
        for _ in range(MAX_STEPS):
            while visible := [i for i, message in enumerate(self.messages) if message.visible_at <= self.clock.now]:
                self.receive(visible[0])
            jobs = [self.load_job(job_id) for job_id in self._all_job_ids()]
            due = [job.due_at for job in jobs if job.due_at is not None]
            if not due:
                break
            self.clock.now = max(self.clock.now + 1, min([*due, *(message.visible_at for message in self.messages)]))
            if min(due) <= self.clock.now:
                self.run_process(self.sweep)
        self._check_settled()

    # --- invariants

    def _send(self, upstream: Upstream, call: ProviderCall) -> ProviderResponse:
        response = self._count_billed(upstream, call, partial(self.dispatcher.send, upstream, call))
        return replace(response, body=b'{"x":"%s"}' % LARGE.encode()) if LARGE.encode() in call.body else response

    @contextmanager
    def _open_stream(self, upstream: Upstream, call: ProviderCall) -> Generator[Any]:
        with ExitStack() as resources:
            stream = self.dispatcher.open_stream(upstream, call)
            open_stream = partial(self._count_billed, upstream, call, partial(resources.enter_context, stream))
            yield self.fault_points.wrap(open_stream, "provider")()

    def _count_billed(self, upstream: Upstream, call: ProviderCall, send: Callable[[], Any]) -> Any:
        provider, job_id = upstream.provider, self._job_id_of(call)
        error: ProviderError | None = None
        try:
            return send()
        except ProviderError as provider_failure:
            error = provider_failure
            raise
        finally:
            if provider.queue != "gpu" and (error is None or error.may_be_billed):
                self.billed_calls[job_id] = self.billed_calls.get(job_id, 0) + 1
                check_invariant(self.billed_calls[job_id] == 1, "I3: a hosted call was billed twice")

    def _job_id_of(self, call: ProviderCall) -> int:
        if call.idempotency_key:
            return int(call.idempotency_key.split("-")[1])
        digest = request_hash(call.operation.name, call.body)
        job_ids = [job.id for job in self.stored_jobs() if job.request_hash == digest]
        check_invariant(bool(job_ids), "I7: a call before its job is stored")
        return max(job_ids)  # an older job with that RefId has expired

    def _has_synchronous_job(self, ref_id: str) -> bool:
        return any(job.ref_id == ref_id and not job.queue for job in self.stored_jobs())

    def _all_job_ids(self) -> list[int]:
        """The jobs whose callers know their ids, and those of synchronous requests."""
        synchronous = [job.id for job in self.stored_jobs() if not job.queue]
        return list(dict.fromkeys([*self.job_ids, *synchronous]))

    def post_callback(
        self, url: str, body: bytes, headers: dict[str, str], hosts: Collection[str] = ()
    ) -> DeliveryResult:
        job_id, sequence = map(int, headers["webhook-id"].split("_")[1:])
        check_invariant(self.load_job(job_id).has_ended, "I6: a callback before the terminal state")
        delivery = self.webhook_client.post(url, body, headers)
        if delivery.error is None:
            self._delivered.add((job_id, sequence))
        return delivery

    def _collect_messages(self) -> None:
        for message in self.backend.take_sent_messages():
            self.messages.append(Message(message.kind, message.body, self.clock.now + 1000 * message.delay_s))

    def _check_invariants(self) -> None:
        for job in self.stored_jobs():
            # A repeated synchronous request may start a job again that failed without effect, as a new attempt.
            run = (job.id, job.epoch, 0 if job.queue else job.attempt)
            if job.state in TERMINAL_STATES:
                terminal = (str(job.state), job.completed_at)
                check_invariant(
                    self._terminal_states.setdefault(run, terminal) == terminal, "I1: a second terminal state"
                )
            else:
                check_invariant(run not in self._terminal_states, "I1: a terminal state was reverted")
            if job.callback == CallbackState.DELIVERED:
                check_invariant((job.id, job.callback_sequence) in self._delivered, "I5: Delivered without a 2xx")
            is_pending = job.state not in TERMINAL_STATES or job.callback in (
                CallbackState.PENDING,
                CallbackState.DELIVERING,
            )
            check_invariant(is_pending == (job.due_at is not None), "I2: pending work outside the due index")
            check_invariant(not (is_pending and job.ttl), "I2: pending work with a time to live")

    def _check_settled(self) -> None:
        for job_id in self._all_job_ids():
            job = self.load_job(job_id)
            assert job.has_ended, f"I2: job {job_id} is stuck as {job.state}"
            assert (job.callback == CallbackState.NONE) == (job.reply_to is None), "I4: a callback is missing"
            assert job.callback in (CallbackState.NONE, CallbackState.DELIVERED, CallbackState.DEAD), (
                f"I4: callback stuck as {job.callback}"
            )
            if job.has_ended and job.result_location:
                assert self.backend.job_store.read_result(job), "a Completed job without its result"

    def stored_jobs(self) -> list[Job]:
        """All jobs; reading them is not a call of the function that runs."""
        with recorder.running(None):
            return self.backend.all_jobs()

    def load_job(self, job_id: int) -> Job:
        job = self.backend.job_store.get(job_id)
        assert job is not None
        return job


class _Stub:
    """An object with the given methods."""

    def __init__(self, **methods: Callable[..., Any]) -> None:
        vars(self).update(methods)


def _chat_body(ref_id: str, *, gpu: bool, large: bool) -> dict[str, Any]:
    """Return a chat body; each RefId has its own."""
    body: dict[str, Any] = {"model": "gpu-m" if gpu else "m", "messages": [{"role": "user", "content": ref_id}]}
    return body | ({"x": LARGE} if large else {})


def _image_body(ref_id: str, *, gpu: bool) -> str:
    return json.dumps({"model": "gpu-image" if gpu else "m", "prompt": ref_id})


def _records(name: str, bodies: dict[str, str]) -> dict[str, Any]:
    """Return the event of a batch of messages, based on the event file of one message."""
    (record,) = event(name)["Records"]
    return {"Records": [record | {"messageId": message_id, "body": body} for message_id, body in bodies.items()]}


def provider_error(kind: str) -> ProviderError:
    """Return the provider error of this kind."""
    return {
        "unavailable": ProviderUnavailable(),
        "rate limited": ProviderRateLimited(retry_after_s=90),
        "timeout": ProviderTimeout(may_be_billed=True),
        "error": ProviderError(),
    }[kind]
