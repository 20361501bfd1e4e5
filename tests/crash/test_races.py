"""Two concurrent processes, and one that dies or gets an error: in every situation of a job, at each of their calls."""

import itertools

import pytest

from aiserver.jobs.backoff import CALLBACK_SCHEDULE_S
from aiserver.webhooks.client import DeliveryResult
from tests.crash.scenarios import ACTIONS, MAX_CALLS, SITUATIONS, first_job_id
from tests.crash.simulation import Simulation, provider_error
from tests.examples import note_case, sample


def simulation_in(situation: str, outcome: str | None) -> Simulation:
    simulation = Simulation()
    SITUATIONS[situation](simulation)
    if outcome:
        simulation.dispatcher.outcomes.append(provider_error(outcome))
        simulation.webhook_client.outcomes.append(DeliveryResult(500, outcome))
    return simulation


@pytest.mark.parametrize("outcome", [None, "rate limited", "timeout", "error"])
@pytest.mark.parametrize("situation", SITUATIONS)
def test_concurrent_processes_lose_duplicate_or_block_nothing(situation: str, outcome: str | None) -> None:
    pairs = itertools.product(ACTIONS, ACTIONS)
    cases = [(first, second, call_number) for first, second in pairs for call_number in range(1, MAX_CALLS[first] + 1)]
    for first, second, call_number in sample(cases, f"{situation} {outcome}"):
        with note_case(first, second, call_number):
            simulation = simulation_in(situation, outcome)
            simulation.interrupt_at(
                call_number, lambda simulation=simulation, second=second: ACTIONS[second](simulation)
            )
            simulation.run_process(lambda simulation=simulation, first=first: ACTIONS[first](simulation))
            simulation.settle()
            assert simulation.load_job(first_job_id(simulation)).callback_attempt <= len(CALLBACK_SCHEDULE_S)
            assert len(simulation.webhook_client.posts) <= len(CALLBACK_SCHEDULE_S)


@pytest.mark.parametrize("situation", SITUATIONS)
def test_process_failures_lose_duplicate_or_block_nothing(situation: str) -> None:
    booleans = (False, True)
    kinds = itertools.product(ACTIONS, (None, "rate limited", "timeout"), booleans, booleans)
    cases = [(*kind, at) for kind in kinds for at in range(1, MAX_CALLS[kind[0]] + 1)]
    for action, outcome, after, dies, at in sample(cases, situation):
        with note_case(action, outcome, after, dies, at):
            simulation = simulation_in(situation, outcome)
            simulation.run_process(
                lambda simulation=simulation, action=action: ACTIONS[action](simulation), at=at, after=after, dies=dies
            )
            simulation.settle()
