"""Anything may happen, in any order, to the real handlers; the world itself watches what must not."""

from collections.abc import Callable
from functools import partial
from typing import Any

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, precondition, rule, run_state_machine_as_test

from aiserver.jobs.job import Job
from aiserver.webhooks.client import DeliveryResult
from tests.app import LEASE_MS
from tests.crash.backends import EmbeddedCloudBackend, FakeBackend, OpenPlace
from tests.crash.simulation import Simulation, provider_error
from tests.examples import examples

ANY = st.integers(0, 50)
# At one of its calls a process may die, or hear of a failure, though the call was made; its clock may be a minute off.
FATE = st.fixed_dictionaries(
    {
        "at": st.none() | st.integers(1, 8),
        "after": st.booleans(),
        "dies": st.booleans(),
        "skew_s": st.sampled_from([0, 0, 60, -60]),
    }
)


class HostileWorld(RuleBasedStateMachine):
    def __init__(self, place: OpenPlace) -> None:
        super().__init__()
        self.world = Simulation(place)
        self.asked = 0

    def job(self, index: int) -> Job:
        jobs = self.world.backend.all_jobs()
        return jobs[index % len(jobs)]

    @rule(gpu=st.booleans(), reply_to=st.booleans(), large=st.booleans(), again=st.booleans(), fate=FATE)
    def ask(self, gpu: bool, reply_to: bool, large: bool, again: bool, fate: dict[str, Any]) -> None:
        self.asked += 0 if again and self.asked else 1
        name = f"{'g' if gpu else 'h'}{'L' if large else 's'}{self.asked}"
        self.world.alive(partial(self.world.ask, name, gpu=gpu, reply_to=reply_to, large=large), **fate)

    @rule(kind=st.sampled_from(["away", "slow down", "silence", "broken"]))
    def the_provider_has_a_bad_moment(self, kind: str) -> None:
        self.world.protocol.outcomes.append(provider_error(kind))

    @rule(status=st.sampled_from([500, 410, 302, None]))
    def the_receiver_has_a_bad_moment(self, status: int | None) -> None:
        self.world.replier.outcomes.append(DeliveryResult(status, "no"))

    @precondition(lambda self: self.world.bag)
    @rule(index=ANY, fate=FATE)
    def a_message_is_handled_in_any_order(self, index: int, fate: dict[str, Any]) -> None:
        self.world.receive(index, **fate)

    @precondition(lambda self: self.world.bag)
    @rule(index=ANY)
    def a_message_is_doubled(self, index: int) -> None:
        self.world.bag.append(self.world.bag[index % len(self.world.bag)])

    @precondition(lambda self: self.world.bag)
    @rule(index=ANY)
    def a_message_is_lost(self, index: int) -> None:
        self.world.bag.pop(index % len(self.world.bag))

    @precondition(lambda self: self.world.accepted)
    @rule(index=ANY, other=ANY, at=st.integers(1, 6), late=st.booleans())
    def two_workers_meet(self, index: int, other: int, at: int, late: bool) -> None:
        """One is interrupted by another; perhaps for so long that it comes back after its lease was swept."""
        ours, theirs = self.job(index), self.job(other)

        def meanwhile() -> None:
            if late:
                self.world.clock.advance(LEASE_MS / 1000 + 1)
                self.world.sweep()
            self.world.work(theirs.id)

        self.world.meanwhile(at, meanwhile)
        self.world.alive(lambda: self.world.work(ours.id))

    @precondition(lambda self: self.world.accepted)
    @rule(index=ANY, fate=FATE)
    def the_stream_tells(self, index: int, fate: dict[str, Any]) -> None:
        job = self.job(index)
        self.world.alive(lambda: self.world.stream(job.id), **fate)

    @precondition(lambda self: self.world.accepted)
    @rule(index=ANY, fate=FATE)
    def an_owner_cancels(self, index: int, fate: dict[str, Any]) -> None:
        job = self.job(index)
        self.world.alive(lambda: self.world.cancel(job.id), **fate)

    @rule(seconds=st.sampled_from([1, 30, 61, 600, 1021, 3600, 90_000]))
    def time_passes(self, seconds: int) -> None:
        self.world.clock.advance(seconds)

    @rule(fate=FATE)
    def the_sweeper_runs(self, fate: dict[str, Any]) -> None:
        self.world.alive(self.world.sweep, **fate)

    @rule(at=st.integers(1, 12))
    def two_sweepers_meet(self, at: int) -> None:
        self.world.meanwhile(at, self.world.sweep)
        self.world.alive(self.world.sweep)

    def teardown(self) -> None:
        self.world.settle()


def play(place: OpenPlace, *, runs: int, steps: int) -> None:
    machine: Callable[[], RuleBasedStateMachine] = partial(HostileWorld, place)
    run_state_machine_as_test(machine, settings=settings(max_examples=runs, stateful_step_count=steps))


def test_whatever_happens_over_fakes_the_promises_hold() -> None:
    play(FakeBackend, runs=examples(250, at_least=60), steps=30)


def test_whatever_happens_over_the_embedded_cloud_the_promises_hold(ministack: str) -> None:
    play(partial(EmbeddedCloudBackend, ministack), runs=examples(20), steps=25)
