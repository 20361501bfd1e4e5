"""Random events in random order against the real handlers; the simulation checks the invariants."""

from collections.abc import Callable
from functools import partial
from typing import Any

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, precondition, rule, run_state_machine_as_test

from aiserver.jobs.job import Job
from aiserver.webhooks.client import DeliveryResult
from tests.app import LEASE_MS
from tests.crash.backends import BackendFactory, EmbeddedCloudBackend, FakeBackend
from tests.crash.simulation import Simulation, provider_error
from tests.examples import examples

INDEX = st.integers(0, 50)
# A process may die at one of its calls, or get an error before or after the call; its clock may be a minute off.
FAULT = st.fixed_dictionaries(
    {
        "at": st.none() | st.integers(1, 8),
        "after": st.booleans(),
        "dies": st.booleans(),
        "skew_s": st.sampled_from([0, 0, 60, -60]),
    }
)


class SimulationMachine(RuleBasedStateMachine):
    def __init__(self, create_backend: BackendFactory) -> None:
        super().__init__()
        self.simulation = Simulation(create_backend)
        self.submissions = 0

    def job(self, index: int) -> Job:
        jobs = self.simulation.backend.all_jobs()
        return jobs[index % len(jobs)]

    @rule(gpu=st.booleans(), reply_to=st.booleans(), large=st.booleans(), duplicate=st.booleans(), fault=FAULT)
    def submit(self, gpu: bool, reply_to: bool, large: bool, duplicate: bool, fault: dict[str, Any]) -> None:
        self.submissions += 0 if duplicate and self.submissions else 1
        name = f"{'g' if gpu else 'h'}{'L' if large else 's'}{self.submissions}"
        submit = partial(self.simulation.submit, name, gpu=gpu, reply_to=reply_to, large=large)
        self.simulation.run_process(submit, **fault)

    @rule(gpu=st.booleans(), stream=st.booleans(), large=st.booleans(), duplicate=st.booleans(), fault=FAULT)
    def chat(self, gpu: bool, stream: bool, large: bool, duplicate: bool, fault: dict[str, Any]) -> None:
        """A synchronous request; a duplicate may have the RefId of one that was queued."""
        chat = self.chat_request(gpu=gpu, stream=stream, large=large, duplicate=duplicate)
        self.simulation.run_process(chat, **fault)

    @rule(gpu=st.booleans(), stream=st.booleans(), at=st.integers(1, 6))
    def interrupt_a_chat_by_its_repeat(self, gpu: bool, stream: bool, at: int) -> None:
        chat = self.chat_request(gpu=gpu, stream=stream, large=False, duplicate=False)
        self.simulation.interrupt_at(at, chat)
        self.simulation.run_process(chat)

    def chat_request(self, *, gpu: bool, stream: bool, large: bool, duplicate: bool) -> Callable[[], object]:
        self.submissions += 0 if duplicate and self.submissions else 1
        name = f"{'g' if gpu else 'h'}{'L' if large else 's'}{self.submissions}"
        return partial(self.simulation.chat, name, gpu=gpu, stream=stream, large=large)

    @rule(kind=st.sampled_from(["unavailable", "rate limited", "timeout", "error"]))
    def fail_next_provider_call(self, kind: str) -> None:
        self.simulation.dispatcher.outcomes.append(provider_error(kind))

    @rule(status=st.sampled_from([500, 410, 302, None]))
    def fail_next_delivery(self, status: int | None) -> None:
        self.simulation.webhook_client.outcomes.append(DeliveryResult(status, "no"))

    @precondition(lambda self: self.simulation.messages)
    @rule(index=INDEX, fault=FAULT)
    def handle_any_message(self, index: int, fault: dict[str, Any]) -> None:
        self.simulation.receive(index, **fault)

    @precondition(lambda self: self.simulation.messages)
    @rule(index=INDEX)
    def duplicate_a_message(self, index: int) -> None:
        self.simulation.messages.append(self.simulation.messages[index % len(self.simulation.messages)])

    @precondition(lambda self: self.simulation.messages)
    @rule(index=INDEX)
    def lose_a_message(self, index: int) -> None:
        self.simulation.messages.pop(index % len(self.simulation.messages))

    @precondition(lambda self: self.simulation.backend.all_jobs())
    @rule(index=INDEX, second_index=INDEX, at=st.integers(1, 6), late=st.booleans())
    def interrupt_a_worker_by_another(self, index: int, second_index: int, at: int, late: bool) -> None:
        """If `late`, the first worker continues only after the sweeper has recovered its expired lease."""
        first, second = self.job(index), self.job(second_index)

        def run_second_worker() -> None:
            if late:
                self.simulation.clock.advance(LEASE_MS / 1000 + 1)
                self.simulation.sweep()
            self.simulation.run_worker(second.id)

        self.simulation.interrupt_at(at, run_second_worker)
        self.simulation.run_process(lambda: self.simulation.run_worker(first.id))

    @precondition(lambda self: self.simulation.backend.all_jobs())
    @rule(index=INDEX, fault=FAULT)
    def publish_stream_record(self, index: int, fault: dict[str, Any]) -> None:
        job = self.job(index)
        self.simulation.run_process(lambda: self.simulation.publish_stream_record(job.id), **fault)

    @precondition(lambda self: self.simulation.backend.all_jobs())
    @rule(index=INDEX, fault=FAULT)
    def cancel_a_job(self, index: int, fault: dict[str, Any]) -> None:
        job = self.job(index)
        self.simulation.run_process(lambda: self.simulation.cancel(job.id), **fault)

    @rule(seconds=st.sampled_from([1, 30, 61, 600, 1021, 3600, 90_000]))
    def advance_clock(self, seconds: int) -> None:
        self.simulation.clock.advance(seconds)

    @rule(fault=FAULT)
    def run_sweeper(self, fault: dict[str, Any]) -> None:
        self.simulation.run_process(self.simulation.sweep, **fault)

    @rule(at=st.integers(1, 12))
    def interrupt_a_sweeper_by_another(self, at: int) -> None:
        self.simulation.interrupt_at(at, self.simulation.sweep)
        self.simulation.run_process(self.simulation.sweep)

    def teardown(self) -> None:
        self.simulation.settle()


def run_machine(create_backend: BackendFactory, *, runs: int, steps: int) -> None:
    machine: Callable[[], RuleBasedStateMachine] = partial(SimulationMachine, create_backend)
    run_state_machine_as_test(machine, settings=settings(max_examples=runs, stateful_step_count=steps))


def test_invariants_hold_over_fakes() -> None:
    run_machine(FakeBackend, runs=examples(250, at_least=60), steps=30)


def test_invariants_hold_over_the_embedded_cloud(ministack: str) -> None:
    run_machine(partial(EmbeddedCloudBackend, ministack), runs=examples(20), steps=25)
