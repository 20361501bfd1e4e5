"""Two who act at once, and one who dies or hears of a failure: in every situation of a job, at each call they make."""

import itertools

import pytest

from aiserver.jobs.backoff import CALLBACK_SCHEDULE_S
from aiserver.webhooks.client import DeliveryResult
from tests.crash.scenarios import DEEDS, MOST_CALLS, SITUATIONS, first_job_id
from tests.crash.simulation import Simulation, provider_error
from tests.examples import naming, sample


def world_in(situation: str, outcome: str | None) -> Simulation:
    world = Simulation()
    SITUATIONS[situation](world)
    if outcome:
        world.protocol.outcomes.append(provider_error(outcome))
        world.replier.outcomes.append(DeliveryResult(500, outcome))
    return world


@pytest.mark.parametrize("outcome", [None, "slow down", "silence", "broken"])
@pytest.mark.parametrize("situation", SITUATIONS)
def test_whoever_acts_at_once_nothing_is_lost_doubled_or_stuck(situation: str, outcome: str | None) -> None:
    pairs = itertools.product(DEEDS, DEEDS)
    cases = [(first, second, moment) for first, second in pairs for moment in range(1, MOST_CALLS[first] + 1)]
    for first, second, moment in sample(cases, f"{situation} {outcome}"):
        with naming(first, second, moment):
            world = world_in(situation, outcome)
            world.meanwhile(moment, lambda world=world, second=second: DEEDS[second](world))
            world.alive(lambda world=world, first=first: DEEDS[first](world))
            world.settle()
            assert world.now_of(first_job_id(world)).callback_attempt <= len(CALLBACK_SCHEDULE_S)
            assert len(world.replier.posts) <= len(CALLBACK_SCHEDULE_S)


@pytest.mark.parametrize("situation", SITUATIONS)
def test_whoever_dies_or_hears_of_a_failure_nothing_is_lost_doubled_or_stuck(situation: str) -> None:
    booleans = (False, True)
    kinds = itertools.product(DEEDS, (None, "slow down", "silence"), booleans, booleans)
    cases = [(*kind, at) for kind in kinds for at in range(1, MOST_CALLS[kind[0]] + 1)]
    for deed, outcome, after, dies, at in sample(cases, situation):
        with naming(deed, outcome, after, dies, at):
            world = world_in(situation, outcome)
            world.alive(lambda world=world, deed=deed: DEEDS[deed](world), at=at, after=after, dies=dies)
            world.settle()
