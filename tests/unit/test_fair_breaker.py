"""One key's failing, slow or poison requests close a provider for that key, and for nobody else."""

import itertools
from collections import Counter, deque
from collections.abc import Callable
from typing import Any

import pytest

from aiserver.errors import (
    ProviderError,
    ProviderRateLimited,
    ProviderResponse,
    ProviderTimeout,
    ProviderUnavailable,
)
from aiserver.providers.breaker import MAX_COUNTED_GATES
from aiserver.providers.circuit import FAILURE_THRESHOLD, MAX_GATES, MAX_PROBES, OPEN_MS
from aiserver.providers.outcome import Outcome, classify
from aiserver.providers.provider import Provider
from aiserver.router import ProviderCall
from aiserver.usecases.failover import try_candidates
from tests.app import ANSWER, FakeWebhookClient, UseCases, load_providers
from tests.containers import BAD, Fleet
from tests.examples import IS_FULL
from tests.fakes import FakeCircuits, FakeClock, FakeJobs, FakeKeyStore, FakeLeases, FakeMessageSender
from tests.virtual_scheduler import Turns

pytestmark = pytest.mark.usefixtures("quiet")
MINUTES = 10 if IS_FULL else 2
SYNC_MS = 27_500
GOOD_S = 1.5
AT_ONCE, PAUSE_S = 4, 0.2  # calls of an attacker under way, and its pause between two: 20 a second
GOOD = "good"
POISON = "the same request"  # which the server answers with a 500 each time


def failed(status: int) -> ProviderError:
    return ProviderError(upstream=ProviderResponse(status, {}, b'{"error":{}}'))


def content() -> ProviderError:
    error = failed(500)
    error.is_neutral = True
    return error


OUTCOMES: dict[str, tuple[float | None, Callable[[], ProviderError]]] = {  # after how long; None is as long as it may
    POISON: (0.01, lambda: failed(500)),
    "500": (0.01, lambda: failed(500)),
    "503": (0.01, lambda: ProviderUnavailable(upstream=ProviderResponse(503, {}, b'{"error":{}}'))),
    "no answer": (0.01, lambda: ProviderError("The response holds no answer", may_be_billed=True)),
    "content": (0.01, content),
    "slow": (None, lambda: ProviderTimeout(may_be_billed=True)),
    "hangs": (120, lambda: ProviderTimeout(may_be_billed=True)),  # for longer than a trial may last
    "refused": (0.0, lambda: ProviderUnavailable("no connection")),
}


class Town:
    """Containers that serve keys, each with requests that come out in one way, before one provider."""

    def __init__(self) -> None:
        self.clock = FakeClock()
        self.turns = Turns(self.clock)
        self.began = self.clock.now
        self.heard: dict[str, Counter[int]] = {}
        self.answers: list[tuple[float, str, int]] = []  # when a key got a response, in seconds, and its status
        self.called: list[tuple[float, str]] = []  # when a call ended, in seconds, and how
        self.unreachable_until_s = 0.0
        self.circuits = FakeCircuits()
        self._providers = load_providers({"name": "p", "models": {"m": ""}})
        self._free: deque[UseCases] = deque()
        self._seeds = itertools.count()

    @property
    def now_s(self) -> float:
        return (self.clock.now - self.began) / 1000

    def run(self, minutes: float) -> None:
        self._until = self.began + minutes * 60_000
        self.turns.run()

    def comes(self, owner: str, outcome: str, *, each_s: float, from_s: float = 0) -> None:
        """One call after another at fixed times, whether the last one has ended or not."""

        def call() -> None:
            if self.clock.now + each_s * 1000 < self._until:
                self.turns.at(round(self.clock.now + each_s * 1000), call)
            self._ask(owner, outcome)

        self.turns.at(round(self.began + from_s * 1000), call)

    def attacks(self, owner: str, outcome: str) -> None:
        """As fast as it can."""

        def loop() -> None:
            while self.clock.now < self._until:
                self._ask(owner, outcome)
                self.turns.pause(PAUSE_S)

        for number in range(AT_ONCE):
            self.turns.at(self.began + number * 50, loop)

    def call(
        self, _provider: Provider, _operation: str, body: bytes, *, timeout_s: float, **_: Any
    ) -> ProviderResponse:
        """router.ProviderProtocol."""
        outcome = body.partition(b'"outcome":"')[2].partition(b'"')[0].decode()
        is_unreachable = self.now_s < self.unreachable_until_s
        takes_s, error = OUTCOMES["refused"] if is_unreachable else OUTCOMES.get(outcome, (GOOD_S, None))
        self.turns.pause(timeout_s if takes_s is None else takes_s)
        self.called.append((self.now_s, outcome))
        if error:
            raise error()
        return ANSWER

    def _ask(self, owner: str, outcome: str) -> None:
        container = self._free.popleft() if self._free else self._container()
        seed = 0 if outcome == POISON else next(self._seeds)
        body = f'{{"model":"m","seed":{seed},"outcome":"{outcome}","messages":[]}}'.encode()
        question, found = ProviderCall("chat.completions", body, owner), container.router.candidates("m")
        done = try_candidates(container.router, question, found, clock=self.clock, deadline_ms=self.clock.now + SYNC_MS)
        status = done.error.status if done.error else 200
        self.heard.setdefault(owner, Counter())[status] += 1
        self.answers.append((self.now_s, owner, status))
        self._free.append(container)

    def _container(self) -> UseCases:
        return UseCases(
            self._providers,
            clock=self.clock,
            jobs=FakeJobs(self.clock),
            messages=FakeMessageSender(),
            protocol=self,
            replier=FakeWebhookClient(),
            keys=FakeKeyStore(),
            slots=FakeLeases(),
            circuits=self.circuits,
        )


@pytest.mark.parametrize("outcome", [POISON, "500", "503", "no answer", "content", "slow"])
@pytest.mark.parametrize("attackers", [1, 2])
def test_attacking_keys_close_a_provider_for_nobody_else(attackers: int, outcome: str) -> None:
    town = Town()
    for number in range(attackers):
        town.attacks(f"attacker-{number}", outcome)
    town.comes("good", GOOD, each_s=1)
    town.run(MINUTES)
    statuses = town.heard["good"]
    assert statuses[200] >= 0.99 * statuses.total() > 50 * MINUTES


@pytest.mark.parametrize("outcome", ["500", "503", "slow"])
def test_a_key_whose_requests_fail_is_kept_from_the_provider_itself(outcome: str) -> None:
    town = Town()
    town.attacks("attacker", outcome)
    town.comes("good", GOOD, each_s=1)
    town.run(MINUTES)
    trials = MINUTES * 60 // (OPEN_MS // 1000)
    assert FAILURE_THRESHOLD <= sum(how == outcome for _, how in town.called) <= FAILURE_THRESHOLD + AT_ONCE + trials


@pytest.mark.parametrize("outcome", ["refused", "500", "503", "no answer"])
@pytest.mark.parametrize("keys", [1, 2, 40])
@pytest.mark.parametrize("a_second", [1, 10])
def test_a_provider_that_is_down_is_left_alone_after_ten_seconds(outcome: str, keys: int, a_second: int) -> None:
    town = Town()
    for number in range(keys):
        each_s = keys / a_second
        town.comes(f"key-{number}", outcome, each_s=each_s, from_s=number * each_s / keys)
    town.run(2)
    first = town.called[0][0]
    later = [at for at, _ in town.called if at > first + 10]
    assert len(later) <= (110 // 25 + 1) * min(keys, MAX_PROBES)


@pytest.mark.parametrize("keys", [1, 2, 40])
def test_a_hanging_provider_is_left_alone_soon_after_five_timeouts(keys: int) -> None:
    town = Town()
    for number in range(keys):
        town.comes(f"key-{number}", "slow", each_s=float(keys), from_s=number)
    town.run(3)
    fifth = town.called[4][0]
    begun = [at - SYNC_MS / 1000 for at, _ in town.called]
    assert len([at for at in begun if at > fifth + 10]) <= (120 // 25) * min(keys, MAX_PROBES)


@pytest.mark.parametrize("outcome", ["500", "503", "slow", "hangs"])
@pytest.mark.parametrize("attackers", [1, 2])
@pytest.mark.parametrize("each_s", [1, 12])
def test_attacking_keys_keep_no_provider_closed_after_an_outage(attackers: int, outcome: str, each_s: int) -> None:
    """The provider cannot be reached for 30 s; then only the attackers' requests fail."""
    town = Town()
    town.unreachable_until_s = 30
    for number in range(attackers):
        town.attacks(f"attacker-{number}", outcome)
    town.comes("good", GOOD, each_s=each_s, from_s=1)
    town.run(MINUTES + 1.5)
    later = [status for at, owner, status in town.answers if owner == "good" and at > 90]  # a minute after it is back
    assert later.count(200) >= 0.99 * len(later) > 0


@pytest.mark.parametrize("outcome", ["500", "slow"])
@pytest.mark.parametrize("attackers", [1, 2])
@pytest.mark.parametrize("each_s", [1, 5, 12])
def test_one_failure_of_a_key_lets_no_attacker_close_its_model(attackers: int, outcome: str, each_s: int) -> None:
    town = Town()
    for number in range(attackers):
        town.attacks(f"attacker-{number}", outcome)
    town.comes("good", "500", each_s=1_000, from_s=12)
    town.comes("good", GOOD, each_s=each_s, from_s=14)
    town.run(MINUTES)
    statuses = town.heard["good"]
    assert statuses[200] >= 0.95 * (statuses.total() - 1)


def test_many_keys_that_fail_at_once_leave_an_item_of_bounded_size() -> None:
    town = Town()
    for number in range(60):
        town.comes(f"key-{number}", "503", each_s=5, from_s=number / 60)
    town.run(1)
    assert len(town.circuits.stored["p"].gates) <= 1 + 2 * MAX_GATES


def test_a_model_that_fails_closes_no_other_of_its_provider() -> None:
    fleet = Fleet(1)
    for number in range(20):
        fleet.call(0, BAD, owner=f"key-{number % 2}", model="broken")
        fleet.clock.now += 1000
    assert not fleet.call(0, owner="key-0", model="broken")
    assert fleet.call(0, owner="key-0", model="works")


def test_a_failure_to_connect_of_every_model_closes_all_of_them() -> None:
    fleet = Fleet(1)
    for number in range(FAILURE_THRESHOLD):
        fleet.call(0, ProviderUnavailable("no connection"), owner=f"key-{number}", model=f"model-{number}")
    assert not fleet.call(0, owner="another", model="another")


@pytest.mark.parametrize(("requests", "opens"), [(["a"] * 9, False), (["a", "a", "a", "a", "b"], True)])
def test_a_row_of_500_counts_when_it_is_of_two_requests(requests: list[str], opens: bool) -> None:
    fleet = Fleet(1)
    for request in requests:
        fleet.call(0, BAD, request=lambda request=request: request)
    assert fleet.call() != opens


def test_a_probe_that_succeeds_ends_the_row_of_failures_of_its_key() -> None:
    fleet = Fleet(1)
    for owner in "ababa":
        fleet.call(0, BAD, owner=owner)
        fleet.clock.now += 3_000
    assert not fleet.call(owner="a")  # the model is closed to both
    fleet.clock.now += OPEN_MS
    assert fleet.call(owner="a")
    for _ in range(FAILURE_THRESHOLD - 3):
        assert fleet.call(0, BAD, owner="a")
    assert fleet.call(owner="a")


def test_successes_before_the_first_failure_of_a_key_count() -> None:
    fleet = Fleet(1)
    for _ in range(20):
        fleet.call(owner="a")
    fleet.call(0, BAD, owner="b")
    for outcome in (BAD, BAD, None) * 4:  # 8 of 32
        assert fleet.call(0, outcome, owner="a")
        fleet.clock.now += 1_000
    assert fleet.call(owner="a")


def test_failures_before_the_last_success_of_a_model_do_not_count() -> None:
    """Otherwise one key alone could close the model to everyone after another key has failed."""
    fleet = Fleet(1)
    for owner in ("a", "b", "a", "b", "a"):
        fleet.call(0, BAD, owner=owner)
        fleet.clock.now += 2_000
    fleet.clock.now += OPEN_MS
    assert fleet.call(owner="a")
    for _ in range(2 * FAILURE_THRESHOLD):
        fleet.call(0, BAD, owner="a")
        fleet.clock.now += 2_000
    assert fleet.call(owner="c")


TIMEOUT = ProviderTimeout()


@pytest.mark.parametrize(
    ("error", "had_ms", "is_late", "expected"),
    [
        (ProviderUnavailable("no connection"), 60_000, False, Outcome.HARD),
        (ProviderUnavailable(upstream_status=503), 60_000, False, Outcome.SOFT),
        (TIMEOUT, 60_000, False, Outcome.SOFT),
        (TIMEOUT, 27_500, True, Outcome.SOFT),  # the caller's own allowance
        (TIMEOUT, 280_000, True, Outcome.NEUTRAL),  # our own cut
        (TIMEOUT, 280_000, False, Outcome.SOFT),  # the provider's timeout_s
        (TIMEOUT, 9_999, True, Outcome.NEUTRAL),
        (ProviderError("no answer", may_be_billed=True), 60_000, False, Outcome.SOFT),
        (failed(501), 60_000, False, Outcome.NEUTRAL),
        (failed(500), 60_000, False, Outcome.SOFT),
        (content(), 60_000, False, Outcome.NEUTRAL),
        (ProviderRateLimited(), 60_000, False, Outcome.NEUTRAL),
    ],
)
def test_what_the_end_of_a_call_says_of_its_provider(
    error: ProviderError, had_ms: int, is_late: bool, expected: Outcome
) -> None:
    assert classify(error, allowed_ms=had_ms, is_late=is_late) == expected


def test_counts_of_ever_new_models_are_bounded() -> None:
    fleet = Fleet(1)
    for number in range(5 * MAX_COUNTED_GATES):
        fleet.call(0, BAD, model=f"model-{number}")
    (breaker,) = fleet.breakers
    assert len(breaker._local["p"]) <= MAX_COUNTED_GATES + 3


def test_counts_that_grew_old_while_the_store_was_away_are_dropped() -> None:
    fleet, store = Fleet(1), FakeCircuits()

    def away(*_: object) -> None:
        raise ConnectionError("DynamoDB is away")

    fleet.circuits.replace = away
    for number in range(2 * MAX_COUNTED_GATES):
        fleet.call(0, BAD, owner=f"key-{number}")
        fleet.clock.now += 2_000
    fleet.circuits.replace = store.replace
    assert fleet.call(0, owner="another")
