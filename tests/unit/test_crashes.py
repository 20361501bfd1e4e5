"""No accepted job is lost, and none is paid for twice, wherever a process dies and whatever becomes of its messages."""

from collections.abc import Callable

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, precondition, rule

from aiserver.jobs.states import Callback, State
from aiserver.replyto import Delivery
from tests.unit.world import World, trouble

CRASH = st.none() | st.integers(1, 8)
ENOUGH_CALLS = 20


def lead(world: World, *, gpu: bool, crash: dict[str, int], after: bool) -> None:
    """One job from its acceptance to its callback, one step dying where `crash` says; then peace."""
    world.alive(lambda: world.ask("r", gpu=gpu, reply_to=True), crash_at=crash.get("accept"), after=after)
    if not world.accepted:  # the caller heard nothing, and asks again
        world.alive(lambda: world.ask("r", gpu=gpu, reply_to=True))
    (job_id,) = world.accepted
    if world.bag:
        world.receive(0, crash_at=crash.get("work"), after=after)
    world.streamed(job_id, crash_at=crash.get("finished"))
    if callbacks := [i for i, message in enumerate(world.bag) if message.kind == "callback"]:
        world.receive(callbacks[0], crash_at=crash.get("reply"), after=after)
    world.clock.advance(61)
    world.swept_all(crash_at=crash.get("sweep"), after=after)
    world.settle()
    world.check_settled()


def crash_points(step: str, *, gpu: bool) -> list[int]:
    """Every port call a step makes when all goes well."""
    counted: dict[str, int] = {}
    world = World()
    deeds: list[tuple[str, Callable[[], object]]] = [
        ("accept", lambda: world.ask("r", gpu=gpu, reply_to=True)),
        ("work", lambda: world.receive(0)),
        ("finished", lambda: world.streamed(world.accepted[0])),
        ("reply", lambda: world.receive(0)),
    ]
    for name, deed in deeds:
        if name == "accept":
            world.alive(deed)
        else:
            deed()
        counted[name] = world.crashes.calls
    counted["sweep"] = 9
    return list(range(1, counted[step] + 1))


POINTS = [
    (step, at, after, gpu)
    for gpu in (False, True)
    for step in ("accept", "work", "finished", "reply", "sweep")
    for at in crash_points(step, gpu=gpu)
    for after in (False, True)
]


def test_the_crash_points_are_all_there() -> None:
    counted = {step: len(crash_points(step, gpu=False)) for step in ("accept", "work", "finished", "reply")}
    assert counted == {"accept": 2, "work": 5, "finished": 2, "reply": 4}
    assert len(POINTS) == 2 * 2 * (2 + 5 + 2 + 4 + 9)


@pytest.mark.parametrize(("step", "at", "after", "gpu"), POINTS)
def test_a_process_may_die_at_any_call(step: str, at: int, after: bool, gpu: bool) -> None:
    world = World()
    lead(world, gpu=gpu, crash={step: at}, after=after)
    (job_id,) = world.accepted
    job = world.now_of(job_id)
    if step != "work":
        assert job.state == State.COMPLETED
        assert len(world.protocol.calls) == 1
    assert job.cb == Callback.DELIVERED


class HostileWorld(RuleBasedStateMachine):
    """Anything may happen, in any order; the world itself watches what must not."""

    @initialize()
    def begin(self) -> None:
        self.world = World()
        self.asked = 0

    @rule(gpu=st.booleans(), reply_to=st.booleans(), again=st.booleans(), at=CRASH, after=st.booleans())
    def ask(self, gpu: bool, reply_to: bool, again: bool, at: int | None, after: bool) -> None:
        self.asked += 0 if again and self.asked else 1
        kind = {True: "g", False: "h"}[gpu]
        self.world.alive(
            lambda: self.world.ask(f"{kind}{self.asked}", gpu=gpu, reply_to=reply_to), crash_at=at, after=after
        )

    @rule(kind=st.sampled_from(["away", "slow down", "silence", "broken"]))
    def provider_has_a_bad_moment(self, kind: str) -> None:
        self.world.protocol.outcomes.append(trouble(kind))

    @rule(status=st.sampled_from([500, 410, 302, None]))
    def receiver_has_a_bad_moment(self, status: int | None) -> None:
        self.world.replier.outcomes.append(Delivery(status, "no"))

    @precondition(lambda self: self.world.bag)
    @rule(index=st.integers(0, 50), at=CRASH, after=st.booleans())
    def a_message_is_handled(self, index: int, at: int | None, after: bool) -> None:
        self.world.receive(index, crash_at=at, after=after)

    @precondition(lambda self: self.world.bag)
    @rule(index=st.integers(0, 50))
    def a_message_is_doubled(self, index: int) -> None:
        self.world.bag.append(self.world.bag[index % len(self.world.bag)])

    @precondition(lambda self: self.world.bag)
    @rule(index=st.integers(0, 50))
    def a_message_is_lost(self, index: int) -> None:
        self.world.bag.pop(index % len(self.world.bag))

    @precondition(lambda self: self.world.jobs.items)
    @rule(index=st.integers(0, 50), at=CRASH)
    def the_stream_tells(self, index: int, at: int | None) -> None:
        ids = sorted(self.world.jobs.items)
        self.world.streamed(ids[index % len(ids)], crash_at=at)

    @precondition(lambda self: self.world.jobs.items)
    @rule(index=st.integers(0, 50), at=CRASH, after=st.booleans())
    def an_owner_cancels(self, index: int, at: int | None, after: bool) -> None:
        ids = sorted(self.world.jobs.items)
        job = self.world.now_of(ids[index % len(ids)])
        if not job.has_ended:
            self.world.alive(lambda: self.world.enqueue.cancel(job), crash_at=at, after=after)

    @rule(seconds=st.sampled_from([1, 30, 61, 600, 931, 3600, 90_000]))
    def time_passes(self, seconds: int) -> None:
        self.world.clock.advance(seconds)

    @rule(at=CRASH, after=st.booleans())
    def the_sweeper_runs(self, at: int | None, after: bool) -> None:
        self.world.swept_all(crash_at=at, after=after)

    def teardown(self) -> None:
        if hasattr(self, "world"):
            self.world.settle()
            self.world.check_settled()


HostileWorld.TestCase.settings = settings(max_examples=120, stateful_step_count=30, deadline=None)
TestHostileWorld = HostileWorld.TestCase
