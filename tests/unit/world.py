"""A hostile world around the real use cases: messages are lost and doubled, and any port call may be the last.

What it watches are the machine's promises: I1 one end per epoch, I2 no accepted job is stuck, I3 no avoidable second
call that costs money, I4 every ReplyTo ends Delivered or Dead, I5 Delivered means a POST got a 2xx, I6 no callback
before the end.
"""

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

from aiserver import keys
from aiserver.errors import ProviderError, ProviderRateLimited, ProviderTimeout, ProviderUnavailable, UpstreamAnswer
from aiserver.jobs.job import Job
from aiserver.jobs.states import ENDED, Callback
from aiserver.replyto import Delivery
from aiserver.usecases.finished import Finished
from aiserver.wire import requests
from tests.fakes import FakeEvents
from tests.unit.house import ANSWER, BODY, ME, WORKER_MS, House

MAX_RECEIVES = 5  # then a message goes to the dead letters, and the sweeper is what is left
STEP_S = 61
MOST_STEPS = 6_000  # of a minute: four days, beyond any deadline and any callback's schedule


class Died(BaseException):
    """The process is gone; no `except Exception` hears of it."""


class Crashes:
    """Counts port calls: dies before or after the one it was told, or lets somebody else act in between."""

    def __init__(self) -> None:
        self.calls = 0
        self.at: int | None = None
        self.after = False
        self.meanwhile_at: int | None = None
        self.meanwhile: Callable[[], object] = lambda: None

    def tick(self) -> bool:
        """One more port call is about to be made; whether it is the one to die at."""
        self.calls += 1
        if self.calls == self.meanwhile_at:
            calls, at, self.meanwhile_at, self.at = self.calls, self.at, None, None
            self.meanwhile()
            self.calls, self.at = calls, at
        return self.calls == self.at

    def around(self, call: Callable[..., Any]) -> Callable[..., Any]:
        def guarded(*given: Any, **more: Any) -> Any:
            dies = self.tick()
            if dies and not self.after:
                raise Died
            answer = call(*given, **more)
            if dies:
                raise Died
            return answer

        return guarded


class Guarded:
    """Any port, each call of it a place to die."""

    def __init__(self, port: Any, crashes: Crashes) -> None:
        self._port = port
        self._crashes = crashes

    def __getattr__(self, name: str) -> Any:
        found = getattr(self._port, name)
        return self._crashes.around(found) if callable(found) else found


@dataclass(frozen=True)
class Message:
    """What lies in a queue; nobody sees it before `visible_at`."""

    kind: str
    job_id: int
    visible_at: int
    receives: int = 0


class World(House):
    """A house whose ports may fail, its queues, and what was seen of each job."""

    def __init__(self) -> None:
        super().__init__(
            {"name": "hosted", "models": {"m": ""}}, {"name": "gpu", "queue": "gpu", "models": {"gpu-m": ""}}
        )
        self.keys.stored["me"] = keys.create("mine", now_ms=self.clock.now)[1]
        self.crashes = Crashes()
        self.events = FakeEvents()
        self.bag: list[Message] = []
        self.paid: dict[int, int] = {}  # hosted calls whose outcome is success or unknown
        self.ends: dict[tuple[int, int], str] = {}
        self.delivered: set[tuple[int, int]] = set()
        self.accepted: list[int] = []
        self._plain_call, self._plain_post = self.protocol.call, self.replier.post
        self.protocol.call = self._call  # pyright: ignore[reportAttributeAccessIssue]
        self.replier.post = self._post  # pyright: ignore[reportAttributeAccessIssue]
        for use_case in (self.enqueue, self.work, self.sweep, self.reply):
            for name in ("_jobs", "_messages"):
                setattr(use_case, name, Guarded(getattr(use_case, name), self.crashes))
        self.finished = Finished(self.enqueue._messages, Guarded(self.events, self.crashes))  # pyright: ignore

    # --- what happens in it

    def alive(self, deed: Callable[[], Any], *, crash_at: int | None = None, after: bool = False) -> bool:
        """Do it, dying at the given port call; whether it lived. Sent messages are collected either way."""
        self.crashes.calls, self.crashes.at, self.crashes.after = 0, crash_at, after
        try:
            deed()
        except Died:
            return False
        finally:
            self.crashes.at = None
            now = self.clock.now
            self.bag += [Message("job", job_id, now + 1000 * delay_s) for _, job_id, delay_s in self.messages.jobs]
            self.bag += [
                Message("callback", job_id, now + 1000 * delay_s) for job_id, delay_s in self.messages.callbacks
            ]
            self.messages.jobs.clear()
            self.messages.callbacks.clear()
            self._look()
        return True

    def ask(self, ref_id: str, *, gpu: bool, reply_to: bool) -> None:
        """A caller asks; what they were promised is remembered."""
        body = BODY.replace('"m"', '"gpu-m"') if gpu else BODY
        options = requests.Options(ref_id=ref_id, reply_to="https://r.io/hook" if reply_to else None)
        job = self.enqueue.accept(requests.openai_queue_chat(body, options), ME)
        if job.id not in self.accepted:
            self.accepted.append(job.id)

    def receive(self, index: int, *, crash_at: int | None = None, after: bool = False) -> None:
        """One message of the bag is handled; a handler that dies has it come again, a few times."""
        message = self.bag.pop(index % len(self.bag))

        def handle() -> None:
            if message.kind == "job":
                self.work.run(message.job_id, end_ms=self.clock.now + WORKER_MS)
            else:
                self.reply.deliver(message.job_id)

        if not self.alive(handle, crash_at=crash_at, after=after) and message.receives + 1 < MAX_RECEIVES:
            hidden = self.clock.now + 6 * WORKER_MS
            self.bag.append(replace(message, receives=message.receives + 1, visible_at=hidden))

    def swept_all(self, *, crash_at: int | None = None, after: bool = False) -> None:
        self.alive(lambda: self.sweep.sweep(until_ms=self.clock.now + 55_000), crash_at=crash_at, after=after)

    def streamed(self, job_id: int, *, crash_at: int | None = None) -> None:
        """The table's stream tells that a job has ended."""
        job = self.jobs.get(job_id)
        if job and job.has_ended:
            self.alive(lambda: self.finished.tell(job), crash_at=crash_at)

    def settle(self) -> None:
        """Peace returns: nothing dies any more, the sweeper runs each minute, and messages are handled as they come."""
        for _ in range(MOST_STEPS):
            while visible := [i for i, message in enumerate(self.bag) if message.visible_at <= self.clock.now]:
                self.receive(visible[0])
            if all(self._is_settled(job_id) for job_id in self.accepted):
                return
            self.clock.advance(STEP_S)
            self.swept_all()

    # --- what it watches

    def _call(self, *given: Any, **more: Any) -> UpstreamAnswer:
        provider, body = given[0], given[2]
        job_id = int(more["idempotency_key"].split("-")[1])
        dies = self.crashes.tick()
        outcome = ANSWER
        error: ProviderError | None = None
        try:
            outcome = self._plain_call(provider, given[1], body, **more)
        except ProviderError as failed:
            error = failed
        if provider.queue != "gpu" and (dies or error is None or error.may_be_billed):
            self.paid[job_id] = self.paid.get(job_id, 0) + 1
            assert self.paid[job_id] == 1, "I3: a hosted call was paid for twice"
        if dies:
            raise Died
        if error:
            raise error
        return outcome

    def _post(self, url: str, body: bytes, headers: dict[str, str]) -> Delivery:
        job_id, sequence = map(int, headers["webhook-id"].split("_")[1:])
        job = self.jobs.get(job_id)
        assert job is not None
        assert job.has_ended, "I6: a callback before the end"
        dies = self.crashes.tick()
        if dies and not self.crashes.after:
            raise Died
        delivery = self._plain_post(url, body, headers)
        if delivery.error is None:
            self.delivered.add((job_id, sequence))
        if dies:
            raise Died
        return delivery

    def _look(self) -> None:
        for job_id in self.jobs.items:
            job = self.now_of(job_id)
            if job.state in ENDED:
                first = self.ends.setdefault((job.id, job.epoch), job.state)
                assert first == job.state, "I1: an end was followed by another"
            else:
                assert (job.id, job.epoch) not in self.ends, "I1: an end was taken back"
            if job.cb == Callback.DELIVERED:
                assert (job.id, job.cb_sequence) in self.delivered, "I5: Delivered without a 2xx"
            obliged = job.state not in ENDED or job.cb in (Callback.PENDING, Callback.DELIVERING)
            assert obliged == (job.due_at is not None), "I2: an obligation nobody will look after"
            assert not (obliged and job.ttl), "I2: an obligation that may be forgotten"

    def _is_settled(self, job_id: int) -> bool:
        job = self.now_of(job_id)
        return job.has_ended and job.cb in (Callback.NONE, Callback.DELIVERED, Callback.DEAD)

    def check_settled(self) -> None:
        for job_id in self.accepted:
            job = self.now_of(job_id)
            assert job.has_ended, f"I2: job {job_id} is stuck as {job.state}"
            assert (job.cb == Callback.NONE) == (job.reply_to is None), "I4: a callback was forgotten"
            assert job.cb in (Callback.NONE, Callback.DELIVERED, Callback.DEAD), f"I4: callback stuck as {job.cb}"

    def now_of(self, job_id: int) -> Job:
        found = self.jobs.get(job_id)
        assert found is not None
        return found


def trouble(kind: str) -> ProviderError:
    """An upstream's bad moment, by name."""

    return {
        "away": ProviderUnavailable(),
        "slow down": ProviderRateLimited(retry_after_s=90),
        "silence": ProviderTimeout(may_be_billed=True),
        "broken": ProviderError(),
    }[kind]
