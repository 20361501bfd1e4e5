"""A hostile world around the real handlers: messages are lost, doubled and late, and any call may be a process's last.

What it watches are the machine's promises: I1 one end per epoch, I2 no accepted job is stuck, I3 no avoidable second
call that costs money, I4 every ReplyTo ends Delivered or Dead, I5 Delivered means a POST got a 2xx, I6 no callback
before the end.
"""

import json
from collections.abc import Callable, Collection
from dataclasses import dataclass, replace
from typing import Any

from aiserver import api_keys, bootstrap
from aiserver.api_keys import Authenticator, WebhookSecrets
from aiserver.aws.items import pack
from aiserver.errors import ProviderError, ProviderRateLimited, ProviderResponse, ProviderTimeout, ProviderUnavailable
from aiserver.http_api import HttpContext
from aiserver.jobs.job import Job
from aiserver.jobs.states import TERMINAL_STATES, CallbackState
from aiserver.usecases.job_finished import JobFinishedNotifier
from aiserver.webhooks.client import DeliveryResult
from tests import stack
from tests.app import REPLY_MS, WORKER_MS, FakeProviderClient, FakeWebhookClient, UseCases, load_providers
from tests.crash.backends import FakeBackend, OpenPlace
from tests.crash.fault_points import FaultPoints, ProcessDied, check_invariant
from tests.fakes import FakeClock, FakeKeyStore
from tests.iam import recorder
from tests.moto_stack import WEBHOOK_SECRET, event, example_key

MAX_RECEIVES = 5  # then a message goes to the dead letters, and the sweeper is what is left
HTTP_MS, SWEEPER_MS = 29_000, 55_000
MOST_STEPS = 3_000
PROVIDERS = (
    {"name": "hosted", "models": {"m": ""}},
    {"name": "gpu", "queue": "gpu", "concurrency": 1, "models": {"gpu-m": ""}},
)
LARGE = "x" * 40_000  # a request with this, and the answer to it, go to S3


@dataclass(frozen=True)
class Message:
    """What lies in a queue; nobody sees it before `visible_at`."""

    kind: str
    body: str
    visible_at: int
    receives: int = 0

    @property
    def job_id(self) -> int:
        return json.loads(self.body)["id"]


class Context:
    """What a handler asks of Lambda's context, by the world's clock."""

    def __init__(self, clock: FakeClock, limit_ms: int) -> None:
        self._clock = clock
        self._deadline = clock.now + limit_ms

    def get_remaining_time_in_millis(self) -> int:
        return self._deadline - self._clock.now


class Simulation:
    """The handlers over a place, its queues, and what was seen of each job."""

    def __init__(self, open_place: OpenPlace = FakeBackend) -> None:
        self.clock = FakeClock()
        self.crashes = FaultPoints()
        self.backend = open_place(self.clock, self.crashes)
        self.protocol = FakeProviderClient(self.clock)
        self.replier = FakeWebhookClient()
        self.bag: list[Message] = []
        self.paid: dict[int, int] = {}  # hosted calls whose outcome is success or unknown
        self.accepted: list[int] = []
        self._ends: dict[tuple[int, int], tuple[str, int | None]] = {}
        self._delivered: set[tuple[int, int]] = set()
        self.keys = FakeKeyStore()
        key = api_keys.key_record(example_key(), "example", now_ms=self.clock.now)
        self.keys.put_key(key, WebhookSecrets(WEBHOOK_SECRET))
        self.parts = self._parts()
        self._put_parts()

    def _parts(self) -> UseCases:
        """As a cold container has them: everything but the outside is real."""
        place = self.backend
        return UseCases(
            load_providers(*PROVIDERS),
            clock=self.clock,
            jobs=place.jobs,
            messages=place.messages,
            protocol=_Outside(call=self.crashes.around(self._call, "provider")),
            replier=_Outside(
                receiver=self.replier.receiver,
                check=self.replier.check,
                post=self.crashes.around(self.post_callback, "receiver"),
            ),
            keys=self.keys,
            slots=place.slots,
            circuits=place.circuits,
            per_key=1,  # whoever dies in it leaves no other
        )

    def _put_parts(self) -> None:
        """Into the handlers, as wiring would."""
        place, parts = self.backend, self.parts
        front = HttpContext(self.clock, []), Authenticator(self.keys, self.clock)
        bootstrap.reset()
        bootstrap.override(
            queue=bootstrap.QueueParts(*front, parts.enqueue, parts.status, parts.redelivery, parts.sample),
            finished=JobFinishedNotifier(place.messages, place.events),
            reply=parts.reply,
            sweep=parts.sweep,
        )

    # --- what happens in it

    def alive(self, deed: Callable[[], Any], *, skew_s: int = 0, **fate: Any) -> bool:
        """A process does it, its clock off by `skew_s`, one call going wrong by `fate`; whether all was done."""
        for name, value in fate.items():
            setattr(self.crashes, name, value)
        self.clock.advance(skew_s)
        try:
            done = deed()
            return not (done and done.get("batchItemFailures"))
        except (ProcessDied, TimeoutError):  # a failure that a handler does not catch is Lambda's to try again
            return False
        finally:
            self.clock.advance(-skew_s)
            self.crashes.begin()
            self._collect()
            self._look()

    def meanwhile(self, at: int, deed: Callable[[], object]) -> None:
        """Have the next process interrupted just before its call number `at`."""
        self.crashes.meanwhile_at, self.crashes.meanwhile = at, deed

    def ask(self, ref_id: str, *, gpu: bool = False, reply_to: bool = True, large: bool = False) -> None:
        """A caller asks; what they were promised is remembered."""
        asked: dict[str, Any] = {"model": "gpu-m" if gpu else "m", "messages": [{"role": "user", "content": "hi"}]}
        body = {"refId": ref_id, "request": asked | ({"x": LARGE} if large else {})}
        answer = self.post("QueueOpenAiChatCompletion", body | ({"replyTo": "https://r.io/"} if reply_to else {}))
        if answer["statusCode"] == 500:  # they ask again, or not
            return
        check_invariant(answer["statusCode"] == 200, f"a good request was answered {answer}")
        job_id = json.loads(answer["body"])["id"]
        if job_id not in self.accepted:
            self.accepted.append(job_id)

    def cancel(self, job_id: int) -> None:
        answer = self.post("CancelJob", {"id": job_id})
        ended = answer["statusCode"] == 409 and self.now_of(job_id).has_ended
        check_invariant(ended or answer["statusCode"] in (200, 202, 500), f"a cancel was answered {answer}")

    def post(self, name: str, body: object) -> dict[str, Any]:
        """POST /api/{name} through the queue function."""
        called = event("queue") | {"path": f"/api/{name}", "body": json.dumps(body)}
        return self._run("QueueFunction", called | {"pathParameters": {"proxy": name}}, HTTP_MS)

    def work(self, *job_ids: int) -> dict[str, Any]:
        """A worker gets a batch of messages."""
        return self.work_records({f"message-{job_id}": json.dumps({"id": job_id}) for job_id in job_ids})

    def work_records(self, bodies: dict[str, str]) -> dict[str, Any]:
        """A worker gets a batch of messages of these ids and bodies."""
        return self._run("WorkerFunction", _records("worker", bodies), WORKER_MS)

    def reply(self, job_id: int) -> dict[str, Any]:
        return self._run("ReplyFunction", _records("reply", {"message": json.dumps({"id": job_id})}), REPLY_MS)

    def sweep(self) -> None:
        self._run("SweepFunction", event("sweep"), SWEEPER_MS)

    def stream(self, job_id: int) -> dict[str, Any] | None:
        """The table's stream tells that a job has ended."""
        job = self.now_of(job_id)
        if not job.has_ended:
            return None
        image = pack({"pk": f"JOB#{job.id}", "sk": "JOB", **job.to_item()})
        record = {"eventName": "MODIFY", "dynamodb": {"SequenceNumber": "1", "NewImage": image}}
        return self._run("FinishedFunction", {"Records": [record]}, REPLY_MS)

    def _run(self, function: str, given: dict[str, Any], limit_ms: int) -> dict[str, Any]:
        if function == "WorkerFunction":  # each is a container of its own: what one has read, no other knows
            bootstrap.override(worker=self._parts().work)
        module = stack.module(function)
        name = stack.properties(function)["Handler"].rpartition(".")[2]
        with recorder.running(function):
            return getattr(module, name)(given, Context(self.clock, limit_ms))

    def receive(self, index: int, **fate: Any) -> None:
        """One message of the bag is handled; one that was not done with comes again, a few times."""
        message = self.bag.pop(index % len(self.bag))
        function, limit_ms = ("worker", WORKER_MS) if message.kind == "job" else ("reply", REPLY_MS)
        given = _records(function, {"message": message.body})
        if (
            not self.alive(lambda: self._run(f"{function.capitalize()}Function", given, limit_ms), **fate)
            and message.receives + 1 < MAX_RECEIVES
        ):
            hidden = self.clock.now + 6 * WORKER_MS
            self.bag.append(replace(message, receives=message.receives + 1, visible_at=hidden))

    def settle(self) -> None:
        """Peace returns: nothing dies any more, the sweeper runs whenever something is due, messages are handled."""
        for _ in range(MOST_STEPS):
            while visible := [i for i, message in enumerate(self.bag) if message.visible_at <= self.clock.now]:
                self.receive(visible[0])
            jobs = [self.now_of(job_id) for job_id in self.accepted]
            due = [job.due_at for job in jobs if job.due_at is not None]
            if not due:
                break
            self.clock.now = max(self.clock.now + 1, min([*due, *(message.visible_at for message in self.bag)]))
            if min(due) <= self.clock.now:
                self.alive(self.sweep)
        self._check_settled()

    # --- what it watches

    def _call(self, *given: Any, **more: Any) -> ProviderResponse:
        provider, job_id = given[0], int(more["idempotency_key"].split("-")[1])
        error: ProviderError | None = None
        try:
            answer = self.protocol.call(*given, **more)
            return replace(answer, body=b'{"x":"%s"}' % LARGE.encode()) if LARGE.encode() in given[2] else answer
        except ProviderError as failed:
            error = failed
            raise
        finally:
            if provider.queue != "gpu" and (error is None or error.may_be_billed):
                self.paid[job_id] = self.paid.get(job_id, 0) + 1
                check_invariant(self.paid[job_id] == 1, "I3: a hosted call was paid for twice")

    def post_callback(
        self, url: str, body: bytes, headers: dict[str, str], hosts: Collection[str] = ()
    ) -> DeliveryResult:
        job_id, sequence = map(int, headers["webhook-id"].split("_")[1:])
        check_invariant(self.now_of(job_id).has_ended, "I6: a callback before the end")
        delivery = self.replier.post(url, body, headers)
        if delivery.error is None:
            self._delivered.add((job_id, sequence))
        return delivery

    def _collect(self) -> None:
        for sent in self.backend.sent():
            self.bag.append(Message(sent.kind, sent.body, self.clock.now + 1000 * sent.delay_s))

    def _look(self) -> None:
        for job in self.backend.all_jobs():
            if job.state in TERMINAL_STATES:
                end = (str(job.state), job.completed_at)
                check_invariant(
                    self._ends.setdefault((job.id, job.epoch), end) == end, "I1: an end was followed by another"
                )
            else:
                check_invariant((job.id, job.epoch) not in self._ends, "I1: an end was taken back")
            if job.callback == CallbackState.DELIVERED:
                check_invariant((job.id, job.callback_sequence) in self._delivered, "I5: Delivered without a 2xx")
            obliged = job.state not in TERMINAL_STATES or job.callback in (
                CallbackState.PENDING,
                CallbackState.DELIVERING,
            )
            check_invariant(obliged == (job.due_at is not None), "I2: an obligation nobody will look after")
            check_invariant(not (obliged and job.ttl), "I2: an obligation that may be forgotten")

    def _check_settled(self) -> None:
        for job_id in self.accepted:
            job = self.now_of(job_id)
            assert job.has_ended, f"I2: job {job_id} is stuck as {job.state}"
            assert (job.callback == CallbackState.NONE) == (job.reply_to is None), "I4: a callback was forgotten"
            assert job.callback in (CallbackState.NONE, CallbackState.DELIVERED, CallbackState.DEAD), (
                f"I4: callback stuck as {job.callback}"
            )
            if job.has_ended and job.result_location:
                assert self.backend.seen.read_result(job), "a Completed job without its result"

    def now_of(self, job_id: int) -> Job:
        found = self.backend.seen.get(job_id)
        assert found is not None
        return found


class _Outside:
    """An object of these methods."""

    def __init__(self, **methods: Callable[..., Any]) -> None:
        vars(self).update(methods)


def _records(name: str, bodies: dict[str, str]) -> dict[str, Any]:
    """The event of a batch of messages, made from the event file of one."""
    (record,) = event(name)["Records"]
    return {"Records": [record | {"messageId": message_id, "body": body} for message_id, body in bodies.items()]}


def provider_error(kind: str) -> ProviderError:
    """An upstream's bad moment, by name."""
    return {
        "away": ProviderUnavailable(),
        "slow down": ProviderRateLimited(retry_after_s=90),
        "silence": ProviderTimeout(may_be_billed=True),
        "broken": ProviderError(),
    }[kind]
