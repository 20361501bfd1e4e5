"""A job or request for images: its process may die at any call, and a completed one always has all its files."""

import base64
import json
import secrets
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any

import pytest

from aiserver.artifacts import artifact_folder
from aiserver.jobs.job import Job
from aiserver.jobs.states import CallbackState, JobState
from aiserver.providers.downloads import DownloadFailed
from aiserver.providers.response import ProviderResponse
from tests.app import LEASE_MS
from tests.crash.backends import EmbeddedCloudBackend
from tests.crash.simulation import REPLY_TO, Simulation
from tests.examples import note_case, sample

BASE_URL = "https://a1b2c3d4e5.execute-api.us-east-1.amazonaws.com/prod"  # of the event files
PROVIDER_URL = "https://images.example/"
BASE64, URL, LOST = "base64", "url", "lost"  # how the provider sends an image; a lost one cannot be downloaded
KINDS = {
    "base64": (BASE64,),
    "url": (URL,),
    "two": (URL, BASE64),
    "one of two lost": (LOST, URL),
    "all lost": (LOST, LOST),
}
OTHER_STEPS = {"accept": 2, "finished": 2, "reply": 7, "sweep": 12}  # and the number of their calls
PUTS_OF_STORE = 3  # of one file, before storing the response fails
PUTS_OF_WORKER = 6 * PUTS_OF_STORE  # then the worker's time to record the outcome is over
MAX_CALLS = 4
CLOUD_SHARE = 8  # of the crash points over the cloud in `make test`

# The calls that a worker makes between its claim and its outcome, and those of a synchronous request.
STORE = {
    "base64": ("put",),
    "url": ("fetch", "put"),
    "two": ("fetch", "put", "put"),
    "one of two lost": ("fetch", "fetch", "put"),
    "all lost": ("fetch", "fetch"),
}


def worker_calls(kind: str, *, gpu: bool) -> tuple[str, ...]:
    """The calls of a worker that runs the job, over the fakes."""
    lease, release = (("acquire",), ("release",)) if gpu else ((), ())
    finish = "apply" if kind == "all lost" else "complete"
    return ("apply", "read_request", "read_all", *lease, "apply", "provider", *release, *STORE[kind], finish)


def request_calls(kind: str, *, gpu: bool) -> tuple[str, ...]:
    """The calls of a synchronous request with a RefId, over the fakes."""
    lease, release = (("acquire",), ("release",)) if gpu else ((), ())
    finish = "apply" if kind == "all lost" else "complete"
    return ("find_by_ref_id", "create", "read_all", *lease, "provider", *release, *STORE[kind], finish)


# The calls to AWS of the fakes' calls.
CLOUD_NAMES = {
    "apply": "update_item",
    "acquire": "update_item",
    "release": "update_item",
    "find_by_ref_id": "get_item",
    "create": "transact_write_items",
    "read_request": "get_item",
    "read_all": "get_paginator",
    "put": "put_object",
    "complete": "transact_write_items",
}


@dataclass(frozen=True)
class Crash:
    """The step and the call at which a process dies, or at which a call fails."""

    step: str
    at: int
    after: bool
    dies: bool = True

    @property
    def fault(self) -> dict[str, Any]:
        return {"at": self.at, "after": self.after, "dies": self.dies}


@dataclass
class Drawings:
    """The provider's responses, one for each call; no two of them contain the same image."""

    simulation: Simulation
    kind: str
    calls: int = MAX_CALLS
    images: list[list[bytes]] = field(default_factory=list[list[bytes]])
    outputs: list[list[dict[str, str]]] = field(default_factory=list[list[dict[str, str]]])

    def __post_init__(self) -> None:
        for call in range(self.calls):
            images = [b"\x89PNG\r\n\x1a\n" + secrets.token_bytes(64) for _ in KINDS[self.kind]]
            outputs = [self._output(f"{call}-{i}.png", images[i], form) for i, form in enumerate(KINDS[self.kind])]
            body = json.dumps({"created": 1, "data": outputs}).encode()
            self.images.append(images)
            self.outputs.append(outputs)
            self.simulation.dispatcher.outcomes.append(ProviderResponse(200, {}, body))

    def _output(self, name: str, image: bytes, form: str) -> dict[str, str]:
        if form == BASE64:
            return {"b64_json": base64.b64encode(image).decode()}
        lost = DownloadFailed("its URL returned status 403")
        self.simulation.files.files[PROVIDER_URL + name] = lost if form == LOST else image
        return {"url": PROVIDER_URL + name}

    def check_completed(self, job: Job) -> None:
        """The files of `outputs` are those of the last call, and the result has their URLs, without a signature."""
        call = len(self.simulation.dispatcher.calls) - 1
        forms = KINDS[self.kind]
        names = (job.outputs or "").split(",")
        keys = [artifact_folder(job.owner, job.created_at) + name for name in names]
        stored = [image for image, form in zip(self.images[call], forms, strict=True) if form != LOST]
        assert [self.simulation.backend.read_artifact(key) for key in keys] == stored
        expected = [dict(output) for output in self.outputs[call]]
        remaining_keys = list(keys)
        for output, form in zip(expected, forms, strict=True):
            key = "" if form == LOST else remaining_keys.pop(0)
            if form == URL:
                output["url"] = f"{BASE_URL}/{key}"
        result = self.simulation.backend.job_store.read_result(job)
        assert json.loads(result or b"{}")["data"] == expected
        signed = self.simulation.use_cases.status.result(job)
        assert isinstance(signed, bytes)
        check_signed(signed, expected)
        assert bool(job.error) == (LOST in forms)
        if job.reply_to:
            check_signed(self.simulation.webhook_client.posts[-1][1], expected)


def check_signed(result: bytes, expected: list[dict[str, str]]) -> None:
    """The URLs of our files have a signature; everything else is as expected."""
    for output, unsigned in zip(json.loads(result)["data"], expected, strict=True):
        url, _, query = output.get("url", "").partition("?")
        assert output | ({"url": url} if url else {}) == unsigned
        assert query.startswith("e=") == url.startswith(BASE_URL)


def check_books(simulation: Simulation, job: Job) -> None:
    """Every call except the one of the result may be billed, and the job says so."""
    calls, is_completed = len(simulation.dispatcher.calls), job.state == JobState.COMPLETED
    assert job.has_ended
    assert calls - is_completed <= job.maybe_billed
    assert simulation.billed_calls.get(job.id, 0) <= 1
    assert calls >= is_completed


def only_job(simulation: Simulation) -> Job:
    (job,) = simulation.stored_jobs()
    return job


# --- queued jobs


def run_steps(simulation: Simulation, *, gpu: bool, crash: Crash | None = None) -> dict[str, tuple[str, ...]]:
    """Run one job from its submission to its callback, with a fault in one step; return the calls of each step."""
    calls: dict[str, tuple[str, ...]] = {}

    def step(name: str, action: Callable[[], Any]) -> None:
        def run_and_record() -> Any:
            try:
                return action()
            finally:
                calls[name] = tuple(simulation.fault_points.names)

        simulation.run_process(run_and_record, **(crash.fault if crash and crash.step == name else {}))

    submit = partial(simulation.submit_image, "r", gpu=gpu)
    step("accept", submit)
    if not simulation.job_ids:  # the caller got no response and retries
        simulation.run_process(submit)
    (job_id,) = simulation.job_ids
    if crash and crash.step == "sweep":
        simulation.messages.clear()  # lost: the sweeper has work to do
        simulation.clock.advance(61)
        step("sweep", simulation.sweep)
    if simulation.messages:
        step("work", partial(simulation.run_worker, job_id))  # SQS delivers the message again: it stays in the queue
    step("finished", partial(simulation.publish_stream_record, job_id))
    if any(message.kind == "callback" for message in simulation.messages):
        step("reply", partial(simulation.deliver, job_id))
    simulation.settle()
    return calls


def crash_points(kind: str, calls: tuple[str, ...], step: str = "work") -> list[Crash]:
    """Before and after each call; the point after a download that raises an error is the one before the next call."""
    downloads = [form for form in KINDS[kind] if form != BASE64]
    forms = [downloads.pop(0) if name == "fetch" else "" for name in calls]
    return [
        Crash(step, at, after)
        for at, form in enumerate(forms, start=1)
        for after in (False, True)
        if not (after and form == LOST)
    ]


def is_call_open(crash: Crash, calls: tuple[str, ...]) -> bool:
    """Whether the worker dies after it has marked its call, and before it has recorded the outcome."""
    mark, finish = calls.index("provider"), len(calls)  # positions from 1; the mark is the call before
    is_marked = crash.at > mark or (crash.at == mark and crash.after)
    return is_marked and not (crash.at == finish and crash.after)


def check_job(simulation: Simulation, drawings: Drawings, *, fails: bool) -> None:
    """The job has ended, as its callback says; `fails`: its worker died during the call of a hosted provider."""
    job = only_job(simulation)
    check_books(simulation, job)
    assert (job.callback, REPLY_TO) == (CallbackState.DELIVERED, simulation.webhook_client.posts[-1][0])
    if fails:
        assert (job.state, job.error_code, job.maybe_billed) == (JobState.FAILED, "ProviderTimeout", 1)
    elif drawings.kind == "all lost":
        assert (job.state, job.error_code) == (JobState.FAILED, "ProviderError")
        assert "image 1: its URL returned status 403" in (job.error or "")
    else:
        assert job.state == JobState.COMPLETED
        drawings.check_completed(job)
    if job.state == JobState.FAILED:
        assert (job.result_location, job.outputs) == (None, None)
        assert b"responseStatus" in simulation.webhook_client.posts[-1][1]


@pytest.mark.parametrize("gpu", [False, True])
@pytest.mark.parametrize("kind", KINDS)
def test_crash_points_of_an_image_job_are_all_its_calls(kind: str, gpu: bool) -> None:
    simulation = Simulation()
    drawings = Drawings(simulation, kind)
    calls = run_steps(simulation, gpu=gpu)
    assert calls["work"] == worker_calls(kind, gpu=gpu)
    assert set(calls) == {"work", "accept", "finished", "reply"}
    check_job(simulation, drawings, fails=False)
    assert len(simulation.dispatcher.calls) == 1


@pytest.mark.parametrize("gpu", [False, True])
@pytest.mark.parametrize("kind", KINDS)
def test_worker_may_die_at_any_call_of_an_image_job(kind: str, gpu: bool) -> None:
    calls = worker_calls(kind, gpu=gpu)
    for crash in crash_points(kind, calls):
        with note_case(crash):
            simulation = Simulation()
            drawings = Drawings(simulation, kind)
            run_steps(simulation, gpu=gpu, crash=crash)
            check_job(simulation, drawings, fails=not gpu and is_call_open(crash, calls))


@pytest.mark.parametrize("gpu", [False, True])
@pytest.mark.parametrize("kind", KINDS)
def test_any_call_of_the_worker_of_an_image_job_may_fail(kind: str, gpu: bool) -> None:
    calls = worker_calls(kind, gpu=gpu)
    for crash in crash_points(kind, calls):
        with note_case(crash):
            simulation = Simulation()
            drawings = Drawings(simulation, kind)
            run_steps(simulation, gpu=gpu, crash=replace(crash, dies=False))
            check_job(simulation, drawings, fails=not gpu and calls[crash.at - 1] == "provider")
            assert len(simulation.dispatcher.calls) <= 1 + gpu


@pytest.mark.parametrize("dies", [True, False])
@pytest.mark.parametrize("after", [False, True])
@pytest.mark.parametrize(
    ("step", "at"),
    [(step, at) for step, calls in OTHER_STEPS.items() for at in range(1, calls + 1)],
)
def test_image_job_completes_after_a_fault_in_another_step(step: str, at: int, after: bool, dies: bool) -> None:
    simulation = Simulation()
    drawings = Drawings(simulation, "two")
    calls = run_steps(simulation, gpu=False, crash=Crash(step, at, after, dies))
    assert len(calls[step]) >= at
    check_job(simulation, drawings, fails=False)
    assert len(simulation.dispatcher.calls) == 1


@pytest.mark.parametrize("gpu", [False, True])
@pytest.mark.parametrize("kind", ["two", "one of two lost"])
def test_worker_of_images_may_die_at_any_call_to_the_cloud(kind: str, gpu: bool, ministack: str) -> None:
    create = partial(Simulation, partial(EmbeddedCloudBackend, ministack))
    simulation = create()
    Drawings(simulation, kind)
    calls = run_steps(simulation, gpu=gpu)["work"]
    assert tuple(CLOUD_NAMES.get(name, name) for name in worker_calls(kind, gpu=gpu)) == calls
    for crash in sample(crash_points(kind, calls), f"{kind} {gpu}", share=CLOUD_SHARE):
        with note_case(crash):
            simulation = create()
            drawings = Drawings(simulation, kind)
            run_steps(simulation, gpu=gpu, crash=crash)
            check_job(simulation, drawings, fails=not gpu and is_call_open(crash, calls))


# --- a store that fails


def fail_puts(simulation: Simulation, count: int, *, from_call: int) -> None:
    """Let the next `count` puts fail, from call number `from_call` of the next process on."""
    simulation.interrupt_at(from_call, lambda: simulation.fault_points.failures.update(put=count, put_object=count))


def run_with_failing_puts(simulation: Simulation, count: int, *, image: int, gpu: bool) -> Job:
    """Run a job of two images; the puts fail from this image on."""
    simulation.run_process(partial(simulation.submit_image, "r", gpu=gpu))
    calls = worker_calls("two", gpu=gpu)
    fail_puts(simulation, count, from_call=calls.index("put") + 1 + image)
    simulation.run_process(partial(simulation.run_worker, *simulation.job_ids))
    assert 0 in simulation.fault_points.failures.values()
    simulation.settle()
    return only_job(simulation)


@pytest.mark.parametrize("gpu", [False, True])
@pytest.mark.parametrize("image", [0, 1])
@pytest.mark.parametrize("count", [1, 2, PUTS_OF_STORE, PUTS_OF_STORE + 1, PUTS_OF_WORKER - 1])
def test_job_completes_with_one_call_after_failures_of_the_store(count: int, image: int, gpu: bool) -> None:
    simulation = Simulation()
    drawings = Drawings(simulation, "two")
    job = run_with_failing_puts(simulation, count, image=image, gpu=gpu)
    assert (job.state, job.error, job.maybe_billed) == (JobState.COMPLETED, None, 0)
    assert (job.attempt, len(simulation.dispatcher.calls)) == (1, 1)
    drawings.check_completed(job)


@pytest.mark.parametrize("gpu", [False, True])
@pytest.mark.parametrize("image", [0, 1])
def test_job_ends_when_the_store_fails_for_longer_than_its_worker_runs(image: int, gpu: bool) -> None:
    simulation = Simulation()
    drawings = Drawings(simulation, "two")
    job = run_with_failing_puts(simulation, PUTS_OF_WORKER, image=image, gpu=gpu)
    check_job(simulation, drawings, fails=not gpu)
    assert (len(simulation.dispatcher.calls), job.maybe_billed) == (1 + gpu, 1)


@pytest.mark.parametrize("count", [PUTS_OF_STORE + 1, PUTS_OF_WORKER])
def test_image_job_ends_after_failures_of_the_cloud_store(count: int, ministack: str) -> None:
    simulation = Simulation(partial(EmbeddedCloudBackend, ministack))
    drawings = Drawings(simulation, "two")
    job = run_with_failing_puts(simulation, count, image=1, gpu=False)
    assert (job.attempt, len(simulation.dispatcher.calls)) == (1, 1)
    check_job(simulation, drawings, fails=count == PUTS_OF_WORKER)


@pytest.mark.parametrize("gpu", [False, True])
def test_job_ends_when_the_store_never_works(gpu: bool) -> None:
    simulation = Simulation()
    Drawings(simulation, "two", calls=200)
    simulation.fault_points.broken = {"put"}
    simulation.run_process(partial(simulation.submit_image, "r", gpu=gpu))
    simulation.settle()
    job = only_job(simulation)
    assert (job.state, job.callback, job.result_location) == (JobState.FAILED, CallbackState.DELIVERED, None)
    check_books(simulation, job)
    assert (len(simulation.dispatcher.calls) > 1) == gpu


# --- other processes while a worker stores images


@pytest.mark.parametrize("gpu", [False, True])
@pytest.mark.parametrize("at", range(1, len(worker_calls("two", gpu=True)) + 1))
def test_duplicate_message_of_an_image_job_makes_no_second_call(at: int, gpu: bool) -> None:
    simulation = Simulation()
    drawings = Drawings(simulation, "two")
    simulation.run_process(partial(simulation.submit_image, "r", gpu=gpu))
    simulation.interrupt_at(at, partial(simulation.run_worker, *simulation.job_ids))
    simulation.run_process(partial(simulation.run_worker, *simulation.job_ids))
    simulation.settle()
    check_job(simulation, drawings, fails=False)
    assert len(simulation.dispatcher.calls) == 1


@pytest.mark.parametrize("gpu", [False, True])
@pytest.mark.parametrize("at", range(1, len(worker_calls("two", gpu=False)) + 1))
def test_cancel_of_a_running_image_job_ends_it_without_a_result(at: int, gpu: bool) -> None:
    simulation = Simulation()
    Drawings(simulation, "two")
    simulation.run_process(partial(simulation.submit_image, "r", gpu=gpu))
    simulation.interrupt_at(at, partial(simulation.cancel, *simulation.job_ids))
    simulation.run_process(partial(simulation.run_worker, *simulation.job_ids))
    simulation.settle()
    job = only_job(simulation)
    assert (job.state, job.callback) == (JobState.CANCELLED, CallbackState.DELIVERED)
    assert (job.result_location, job.outputs) == (None, None)
    assert len(simulation.dispatcher.calls) == (at >= worker_calls("two", gpu=gpu).index("provider") + 1)


@pytest.mark.parametrize("gpu", [False, True])
@pytest.mark.parametrize("call", ["fetch", "put", "complete"])
def test_end_by_another_process_stands_when_images_are_stored_late(call: str, gpu: bool) -> None:
    simulation = Simulation()
    drawings = Drawings(simulation, "two")
    simulation.run_process(partial(simulation.submit_image, "r", gpu=gpu))

    def expire_lease() -> None:
        simulation.clock.advance(LEASE_MS / 1000 + 1)
        simulation.sweep()
        simulation.run_worker(*simulation.job_ids)

    simulation.interrupt_at(worker_calls("two", gpu=gpu).index(call) + 1, expire_lease)
    simulation.run_process(partial(simulation.run_worker, *simulation.job_ids))
    job = only_job(simulation)
    assert (job.state, job.maybe_billed) == (JobState.COMPLETED if gpu else JobState.FAILED, 1)
    simulation.settle()
    assert len(simulation.dispatcher.calls) == 1 + gpu
    check_job(simulation, drawings, fails=not gpu)


# --- synchronous requests with a RefId


@dataclass
class Reply:
    """What the caller of one request got; no status if its process died."""

    status: int | None = None
    body: str = ""
    headers: dict[str, str] = field(default_factory=dict[str, str])
    calls: tuple[str, ...] = ()

    @property
    def is_replay(self) -> bool:
        return self.headers.get("x-replayed") == "true"


def draw(simulation: Simulation, *, gpu: bool, **fault: Any) -> Reply:
    reply = Reply()

    def run() -> None:
        try:
            response = simulation.draw("r", gpu=gpu)
            reply.status, reply.body = response["statusCode"], response["body"]
            reply.headers = {name.lower(): value for name, value in response["headers"].items()}
        finally:
            reply.calls = tuple(simulation.fault_points.names)

    simulation.run_process(run, **fault)
    return reply


def check_repeats(simulation: Simulation, drawings: Drawings, *, gpu: bool) -> Job:
    """A repeat makes a call only if none was made whose outcome is success or unknown, before and after the sweep."""
    for _ in range(2):
        (before, *_) = [*simulation.stored_jobs(), None]
        calls = len(simulation.dispatcher.calls)
        repeat = draw(simulation, gpu=gpu)
        new_calls, job = len(simulation.dispatcher.calls) - calls, only_job(simulation)
        if before is None or (before.state == JobState.FAILED and before.maybe_billed == 0):
            assert (repeat.status, repeat.is_replay, new_calls) == (200, False, 1)
        elif before.state == JobState.COMPLETED:
            assert (repeat.status, repeat.is_replay, new_calls) == (200, True, 0)
        else:
            assert (repeat.status, new_calls) == (409, 0)
        if repeat.status == 200 and job.state == JobState.COMPLETED:
            check_reply(drawings, repeat, job)
        simulation.settle()
    job = only_job(simulation)
    check_books(simulation, job)
    if job.state == JobState.COMPLETED:
        drawings.check_completed(job)
    else:
        assert (job.state, job.result_location, job.outputs) == (JobState.FAILED, None, None)
        assert job.maybe_billed == 1
    return job


def check_reply(drawings: Drawings, reply: Reply, job: Job) -> None:
    """The caller gets the stored result with signatures, and which images could not be stored."""
    result = drawings.simulation.backend.job_store.read_result(job)
    check_signed(reply.body.encode(), json.loads(result or b"{}")["data"])
    assert ("x-images-not-stored" in reply.headers) == (LOST in KINDS[drawings.kind])


@pytest.mark.parametrize("gpu", [False, True])
@pytest.mark.parametrize("kind", KINDS)
def test_crash_points_of_an_image_request_are_all_its_calls(kind: str, gpu: bool) -> None:
    simulation = Simulation()
    drawings = Drawings(simulation, kind)
    reply = draw(simulation, gpu=gpu)
    assert (reply.status, reply.calls) == (200, request_calls(kind, gpu=gpu))
    if kind == "all lost":
        assert json.loads(reply.body)["data"] == drawings.outputs[0]
        assert "status 403" in reply.headers["x-images-not-stored"]
    else:
        check_reply(drawings, reply, only_job(simulation))
    job = check_repeats(simulation, drawings, gpu=gpu)
    assert job.state == (JobState.FAILED if kind == "all lost" else JobState.COMPLETED)


@pytest.mark.parametrize("dies", [True, False])
@pytest.mark.parametrize("gpu", [False, True])
@pytest.mark.parametrize("kind", KINDS)
def test_image_request_may_die_at_any_call(kind: str, gpu: bool, dies: bool) -> None:
    calls = request_calls(kind, gpu=gpu)
    for crash in crash_points(kind, calls):
        with note_case(crash):
            simulation = Simulation()
            drawings = Drawings(simulation, kind)
            reply = draw(simulation, gpu=gpu, **replace(crash, dies=dies).fault)
            assert (reply.status is None) == dies
            if calls[crash.at - 1] == "acquire":  # the lease may be held, by no process
                simulation.clock.advance(LEASE_MS / 1000)
            check_repeats(simulation, drawings, gpu=gpu)
            assert len(simulation.dispatcher.calls) <= 1


@pytest.mark.parametrize("gpu", [False, True])
@pytest.mark.parametrize("kind", ["two", "one of two lost"])
def test_image_request_may_die_at_any_call_to_the_cloud(kind: str, gpu: bool, ministack: str) -> None:
    create = partial(Simulation, partial(EmbeddedCloudBackend, ministack))
    simulation = create()
    drawings = Drawings(simulation, kind)
    calls = draw(simulation, gpu=gpu).calls
    assert tuple(CLOUD_NAMES.get(name, name) for name in request_calls(kind, gpu=gpu)) == calls
    assert check_repeats(simulation, drawings, gpu=gpu).state == JobState.COMPLETED
    for crash in sample(crash_points(kind, calls), f"{kind} {gpu}", share=CLOUD_SHARE):
        with note_case(crash):
            simulation = create()
            drawings = Drawings(simulation, kind)
            draw(simulation, gpu=gpu, **crash.fault)
            check_repeats(simulation, drawings, gpu=gpu)


@pytest.mark.parametrize("gpu", [False, True])
@pytest.mark.parametrize("image", [0, 1])
@pytest.mark.parametrize("count", [1, PUTS_OF_STORE - 1, PUTS_OF_STORE])
def test_image_request_is_recorded_as_failed_when_its_store_fails(count: int, image: int, gpu: bool) -> None:
    simulation = Simulation()
    drawings = Drawings(simulation, "two")
    fail_puts(simulation, count, from_call=request_calls("two", gpu=gpu).index("put") + 1 + image)
    reply = draw(simulation, gpu=gpu)
    is_stored = count < PUTS_OF_STORE
    assert (reply.status, "x-images-not-stored" in reply.headers) == (200, not is_stored)
    assert is_stored or json.loads(reply.body)["data"] == drawings.outputs[0]
    job = check_repeats(simulation, drawings, gpu=gpu)
    assert job.state == (JobState.COMPLETED if is_stored else JobState.FAILED)
    assert len(simulation.dispatcher.calls) == 1
