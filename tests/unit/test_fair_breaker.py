"""Failing, slow or poison requests of one API key open the circuit for that key, and for no other."""

import itertools
from collections import Counter, deque
from collections.abc import Callable

import pytest

from aiserver.circuit_breaker.breaker import MAX_COUNTED_GATES
from aiserver.circuit_breaker.circuit import FAILURE_THRESHOLD, MAX_GATES, MAX_PROBES, OPEN_MS
from aiserver.circuit_breaker.outcome import CallOutcome, classify
from aiserver.errors import ProviderError, ProviderRateLimited, ProviderTimeout, ProviderUnavailable
from aiserver.providers.call import ProviderCall, Upstream
from aiserver.providers.response import ProviderResponse
from tests.app import RESPONSE, FakeWebhookClient, UseCases, load_providers, timeout_s
from tests.containers import FAILURE, Fleet
from tests.examples import IS_FULL
from tests.fakes import FakeCircuits, FakeClock, FakeJobs, FakeKeyStore, FakeLeases, FakeMessageSender
from tests.virtual_scheduler import VirtualScheduler

pytestmark = pytest.mark.usefixtures("quiet")
MINUTES = 10 if IS_FULL else 2
SYNC_MS = 27_500
GOOD_S = 1.5
CONCURRENT_CALLS, PAUSE_S = 4, 0.2  # concurrent calls of an attacker, and its pause between two: 20 per second
GOOD = "good"
POISON = "the same request"  # the server always responds with a 500


def status_error(status: int) -> ProviderError:
    return ProviderError(upstream=ProviderResponse(status, {}, b'{"error":{}}'))


def content_error() -> ProviderError:
    error = status_error(500)
    error.is_neutral = True
    return error


OUTCOMES: dict[
    str, tuple[float | None, Callable[[], ProviderError]]
] = {  # duration in seconds (None: until the timeout), and error
    POISON: (0.01, lambda: status_error(500)),
    "500": (0.01, lambda: status_error(500)),
    "503": (0.01, lambda: ProviderUnavailable(upstream=ProviderResponse(503, {}, b'{"error":{}}'))),
    "no answer": (0.01, lambda: ProviderError("The response contains no answer", may_be_billed=True)),
    "content": (0.01, content_error),
    "slow": (None, lambda: ProviderTimeout(may_be_billed=True)),
    "hangs": (120, lambda: ProviderTimeout(may_be_billed=True)),  # for longer than the probe timeout
    "refused": (0.0, lambda: ProviderUnavailable("no connection")),
}


class LoadSimulation:
    """Containers in front of one provider, with traffic of several API keys; each key has one outcome."""

    def __init__(self) -> None:
        self.clock = FakeClock()
        self.scheduler = VirtualScheduler(self.clock)
        self.begin_ms = self.clock.now
        self.statuses: dict[str, Counter[int]] = {}
        self.responses: list[tuple[float, str, int]] = []  # time of a response in seconds, owner, and status
        self.provider_calls: list[tuple[float, str]] = []  # end time of a call in seconds, and outcome
        self.unreachable_until_s = 0.0
        self.circuits = FakeCircuits()
        self._providers = load_providers({"name": "p", "models": {"m": ""}})
        self._free: deque[UseCases] = deque()
        self._seeds = itertools.count()

    @property
    def now_s(self) -> float:
        return (self.clock.now - self.begin_ms) / 1000

    def run(self, minutes: float) -> None:
        self._end_ms = self.begin_ms + minutes * 60_000
        self.scheduler.run()

    def add_requests(self, owner: str, outcome: str, *, each_s: float, from_s: float = 0) -> None:
        """Send a request every `each_s` seconds, whether the previous one has ended or not."""

        def call() -> None:
            if self.clock.now + each_s * 1000 < self._end_ms:
                self.scheduler.schedule(round(self.clock.now + each_s * 1000), call)
            self._send(owner, outcome)

        self.scheduler.schedule(round(self.begin_ms + from_s * 1000), call)

    def add_attacker(self, owner: str, outcome: str) -> None:
        """Send requests as fast as possible from several loops."""

        def loop() -> None:
            while self.clock.now < self._end_ms:
                self._send(owner, outcome)
                self.scheduler.sleep(PAUSE_S)

        for number in range(CONCURRENT_CALLS):
            self.scheduler.schedule(self.begin_ms + number * 50, loop)

    def check(self, upstream: Upstream, call: ProviderCall) -> None:
        """dispatch.Dispatcher.check."""

    def send(self, upstream: Upstream, call: ProviderCall) -> ProviderResponse:
        """dispatch.Dispatcher.send."""
        outcome = call.body.partition(b'"outcome":"')[2].partition(b'"')[0].decode()
        is_unreachable = self.now_s < self.unreachable_until_s
        duration_s, error = OUTCOMES["refused"] if is_unreachable else OUTCOMES.get(outcome, (GOOD_S, None))
        self.scheduler.sleep(timeout_s(upstream, call, self.clock) if duration_s is None else duration_s)
        self.provider_calls.append((self.now_s, outcome))
        if error:
            raise error()
        return RESPONSE

    def _send(self, owner: str, outcome: str) -> None:
        container = self._free.popleft() if self._free else self._container()
        seed = 0 if outcome == POISON else next(self._seeds)
        body = f'{{"model":"m","seed":{seed},"outcome":"{outcome}","messages":[]}}'.encode()
        result = container.try_providers(SYNC_MS, body, owner)
        status = result.error.status if result.error else 200
        self.statuses.setdefault(owner, Counter())[status] += 1
        self.responses.append((self.now_s, owner, status))
        self._free.append(container)

    def _container(self) -> UseCases:
        return UseCases(
            self._providers,
            clock=self.clock,
            jobs=FakeJobs(self.clock),
            messages=FakeMessageSender(),
            dispatcher=self,
            webhook_client=FakeWebhookClient(),
            keys=FakeKeyStore(),
            leases=FakeLeases(),
            circuits=self.circuits,
        )


@pytest.mark.parametrize("outcome", [POISON, "500", "503", "no answer", "content", "slow"])
@pytest.mark.parametrize("attackers", [1, 2])
def test_attacking_keys_do_not_open_the_circuit_for_others(attackers: int, outcome: str) -> None:
    load = LoadSimulation()
    for number in range(attackers):
        load.add_attacker(f"attacker-{number}", outcome)
    load.add_requests("good", GOOD, each_s=1)
    load.run(MINUTES)
    statuses = load.statuses["good"]
    assert statuses[200] >= 0.99 * statuses.total() > 50 * MINUTES


@pytest.mark.parametrize("outcome", ["500", "503", "slow"])
def test_circuit_opens_for_the_key_whose_requests_fail(outcome: str) -> None:
    load = LoadSimulation()
    load.add_attacker("attacker", outcome)
    load.add_requests("good", GOOD, each_s=1)
    load.run(MINUTES)
    probes = MINUTES * 60 // (OPEN_MS // 1000)
    assert (
        FAILURE_THRESHOLD
        <= sum(called == outcome for _, called in load.provider_calls)
        <= FAILURE_THRESHOLD + CONCURRENT_CALLS + probes
    )


@pytest.mark.parametrize("outcome", ["refused", "500", "503", "no answer"])
@pytest.mark.parametrize("keys", [1, 2, 40])
@pytest.mark.parametrize("calls_per_second", [1, 10])
def test_down_provider_gets_only_probes_after_ten_seconds(outcome: str, keys: int, calls_per_second: int) -> None:
    load = LoadSimulation()
    for number in range(keys):
        each_s = keys / calls_per_second
        load.add_requests(f"key-{number}", outcome, each_s=each_s, from_s=number * each_s / keys)
    load.run(2)
    first = load.provider_calls[0][0]
    later = [at for at, _ in load.provider_calls if at > first + 10]
    assert len(later) <= (110 // 25 + 1) * min(keys, MAX_PROBES)


@pytest.mark.parametrize("keys", [1, 2, 40])
def test_hanging_provider_gets_only_probes_after_five_timeouts(keys: int) -> None:
    load = LoadSimulation()
    for number in range(keys):
        load.add_requests(f"key-{number}", "slow", each_s=float(keys), from_s=number)
    load.run(3)
    fifth = load.provider_calls[4][0]
    begin_times = [at - SYNC_MS / 1000 for at, _ in load.provider_calls]
    assert len([at for at in begin_times if at > fifth + 10]) <= (120 // 25) * min(keys, MAX_PROBES)


@pytest.mark.parametrize("outcome", ["500", "503", "slow", "hangs"])
@pytest.mark.parametrize("attackers", [1, 2])
@pytest.mark.parametrize("each_s", [1, 12])
def test_attacking_keys_do_not_keep_the_circuit_open_after_an_outage(attackers: int, outcome: str, each_s: int) -> None:
    """The provider is unreachable for 30 s; then only the attackers' requests fail."""
    load = LoadSimulation()
    load.unreachable_until_s = 30
    for number in range(attackers):
        load.add_attacker(f"attacker-{number}", outcome)
    load.add_requests("good", GOOD, each_s=each_s, from_s=1)
    load.run(MINUTES + 1.5)
    later = [
        status for at, owner, status in load.responses if owner == "good" and at > 90
    ]  # a minute after its recovery
    assert later.count(200) >= 0.99 * len(later) > 0


@pytest.mark.parametrize("outcome", ["500", "slow"])
@pytest.mark.parametrize("attackers", [1, 2])
@pytest.mark.parametrize("each_s", [1, 5, 12])
def test_one_failure_of_a_key_lets_no_attacker_open_the_model_circuit(
    attackers: int, outcome: str, each_s: int
) -> None:
    load = LoadSimulation()
    for number in range(attackers):
        load.add_attacker(f"attacker-{number}", outcome)
    load.add_requests("good", "500", each_s=1_000, from_s=12)
    load.add_requests("good", GOOD, each_s=each_s, from_s=14)
    load.run(MINUTES)
    statuses = load.statuses["good"]
    assert statuses[200] >= 0.95 * (statuses.total() - 1)


def test_many_failing_keys_leave_a_circuit_of_bounded_size() -> None:
    load = LoadSimulation()
    for number in range(60):
        load.add_requests(f"key-{number}", "503", each_s=5, from_s=number / 60)
    load.run(1)
    assert len(load.circuits.stored["p"].gates) <= 1 + 2 * MAX_GATES


def test_failing_model_does_not_open_the_circuit_of_another_model() -> None:
    fleet = Fleet(1)
    for number in range(20):
        fleet.call(0, FAILURE, owner=f"key-{number % 2}", model="broken")
        fleet.clock.now += 1000
    assert not fleet.call(0, owner="key-0", model="broken")
    assert fleet.call(0, owner="key-0", model="works")


def test_connection_failures_open_the_circuit_of_all_models() -> None:
    fleet = Fleet(1)
    for number in range(FAILURE_THRESHOLD):
        fleet.call(0, ProviderUnavailable("no connection"), owner=f"key-{number}", model=f"model-{number}")
    assert not fleet.call(0, owner="another", model="another")


@pytest.mark.parametrize(("requests", "opens"), [(["a"] * 9, False), (["a", "a", "a", "a", "b"], True)])
def test_consecutive_500_open_the_circuit_only_for_two_requests(requests: list[str], opens: bool) -> None:
    fleet = Fleet(1)
    for request in requests:
        fleet.call(0, FAILURE, request=lambda request=request: request)
    assert fleet.call() != opens


def test_successful_probe_resets_consecutive_failures_of_its_key() -> None:
    fleet = Fleet(1)
    for owner in "ababa":
        fleet.call(0, FAILURE, owner=owner)
        fleet.clock.now += 3_000
    assert not fleet.call(owner="a")  # the circuit of the model is open for both
    fleet.clock.now += OPEN_MS
    assert fleet.call(owner="a")
    for _ in range(FAILURE_THRESHOLD - 3):
        assert fleet.call(0, FAILURE, owner="a")
    assert fleet.call(owner="a")


def test_successes_before_the_first_failure_of_a_key_count() -> None:
    fleet = Fleet(1)
    for _ in range(20):
        fleet.call(owner="a")
    fleet.call(0, FAILURE, owner="b")
    for outcome in (FAILURE, FAILURE, None) * 4:  # 8 of 32
        assert fleet.call(0, outcome, owner="a")
        fleet.clock.now += 1_000
    assert fleet.call(owner="a")


def test_failures_before_the_last_success_of_a_model_do_not_count() -> None:
    """Otherwise one key could open the model's circuit for all keys after a failure of another key."""
    fleet = Fleet(1)
    for owner in ("a", "b", "a", "b", "a"):
        fleet.call(0, FAILURE, owner=owner)
        fleet.clock.now += 2_000
    fleet.clock.now += OPEN_MS
    assert fleet.call(owner="a")
    for _ in range(2 * FAILURE_THRESHOLD):
        fleet.call(0, FAILURE, owner="a")
        fleet.clock.now += 2_000
    assert fleet.call(owner="c")


TIMEOUT = ProviderTimeout()


@pytest.mark.parametrize(
    ("error", "allowed_ms", "is_late", "expected"),
    [
        (ProviderUnavailable("no connection"), 60_000, False, CallOutcome.HARD),
        (ProviderUnavailable(upstream_status=503), 60_000, False, CallOutcome.SOFT),
        (TIMEOUT, 60_000, False, CallOutcome.SOFT),
        (TIMEOUT, 27_500, True, CallOutcome.SOFT),  # the request's own deadline
        (TIMEOUT, 280_000, True, CallOutcome.NEUTRAL),  # the gateway's timeout
        (TIMEOUT, 280_000, False, CallOutcome.SOFT),  # the provider's timeout_s
        (TIMEOUT, 9_999, True, CallOutcome.NEUTRAL),
        (ProviderError("no answer", may_be_billed=True), 60_000, False, CallOutcome.SOFT),
        (status_error(501), 60_000, False, CallOutcome.NEUTRAL),
        (status_error(500), 60_000, False, CallOutcome.SOFT),
        (content_error(), 60_000, False, CallOutcome.NEUTRAL),
        (ProviderRateLimited(), 60_000, False, CallOutcome.NEUTRAL),
    ],
)
def test_classification_of_call_outcomes(
    error: ProviderError, allowed_ms: int, is_late: bool, expected: CallOutcome
) -> None:
    assert classify(error, allowed_ms=allowed_ms, is_late=is_late) == expected


def test_number_of_counted_models_is_bounded() -> None:
    fleet = Fleet(1)
    for number in range(5 * MAX_COUNTED_GATES):
        fleet.call(0, FAILURE, model=f"model-{number}")
    (breaker,) = fleet.breakers
    assert len(breaker._local["p"]) <= MAX_COUNTED_GATES + 3


def test_expired_counts_are_dropped_after_a_store_outage() -> None:
    fleet, store = Fleet(1), FakeCircuits()

    def fail(*_: object) -> None:
        raise ConnectionError("DynamoDB is unavailable")

    fleet.circuits.replace = fail
    for number in range(2 * MAX_COUNTED_GATES):
        fleet.call(0, FAILURE, owner=f"key-{number}")
        fleet.clock.now += 2_000
    fleet.circuits.replace = store.replace
    assert fleet.call(0, owner="another")
