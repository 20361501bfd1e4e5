"""Two providers in a day of failures: each receives exactly the calls that the circuit breaker's rules allow.

A request arrives every 5 s (:00, :05, …), a job each minute at :02. The expected numbers are calculated by hand from
the rules: a circuit opens after 5 consecutive failures, or when more than half of at least 10 calls in 60 s failed.
25 s later, and 25 s after each failed probe, one call is the next probe. tests/failure_timeline.py checks each call.
"""

from collections import Counter
from dataclasses import dataclass, field
from functools import cache
from typing import Any

import pytest

from aiserver.jobs.states import JobState
from tests.failure_timeline import DAY_S, JOB_AT_S, JOB_EACH_S, SYNC_EACH_S, DayTimeline, Phase

pytestmark = pytest.mark.usefixtures("quiet")
FIRST: dict[str, Any] = {"name": "first", "priority": 1, "models": {"m": ""}}
GPU: dict[str, Any] = {**FIRST, "queue": "gpu", "timeout_s": 24, "concurrency": 4}
SECOND: dict[str, Any] = {"name": "second", "models": {"m": ""}}
AFTER_S = 60


@dataclass(frozen=True)
class Expected:
    """Calls to `first` and `second` in a phase, and after it.

    `back_s` is the time from the end of the phase to the next call of the first provider, `after` the number of calls
    of the second provider in the minute after the phase. `errors` counts the error responses by status.
    """

    phase: Phase
    first: int
    second: int
    back_s: int = 0
    after: int = 0
    errors: dict[int, int] = field(default_factory=dict[int, int])


REFUSED, BUSY, LIMITED, BAD = ("refused",), ("503",), ("429",), ("500",)

TWO_HOSTED = [
    # 780 arrivals. Failures at 0, 2 (the job), 5, 10, 15: open at 15. Probes at 40, 65 … 3590: 143. 3590 + 25 = 3615;
    # until then the second provider serves 3600, 3602, 3605, 3610.
    Expected(Phase(60, 60, REFUSED), first=5 + 143, second=780, back_s=15, after=4),
    # 520 arrivals. Probes at 40, 65 … 2390: 95; 2390 + 25 = 2415.
    Expected(Phase(180, 40, BUSY), first=5 + 95, second=520, back_s=15, after=4),
    # A rate-limited provider is up: each of 390 arrivals calls it first, then the second provider.
    Expected(Phase(300, 30, LIMITED), first=390, second=390),
    # 130 arrivals. Probes at 40, 65 … 590: 23; 590 + 25 = 615.
    Expected(Phase(360, 10, BAD), first=5 + 23, second=130, back_s=15, after=4),
    # Half of 390 calls fail, never more: 13 calls a minute, and successes take 1.5 s, so that the last 60 s contain one
    # success for each failure that has just ended.
    Expected(Phase(420, 30, ("good", "500")), first=390, second=195),
    # Two of three fail, at 0, 2, 10, 15, 25, 30, 40, 45; successes begin at 5, 20, 35. At 40 the last 60 s contain 7
    # failures and 7 successes, including -20, -15, -10 and -5; at 45, 8 and 6: open. The second provider also serves
    # 50, 55, 60, 62, 65. The probe at 70 is the twelfth call, and succeeds.
    Expected(Phase(465, 1.25, ("500", "500", "good")), first=11 + 1, second=8 + 5),
    # Calls hang for the request's 27.5 s: those of 0, 5 … 45 and the job's at 2 are in flight when the fifth fails at
    # 47.5. A job's call has 600 s and is still pending. 47.5 + 25 = 72.5: the probe at 75 fails at 102.5; 127.5: next
    # at 130, and so on every 55 s until 1780: 32. 1807.5 + 25 = 1832.5: back at 1835, after 7 requests and a job.
    Expected(Phase(480, 30, ("silent",)), first=11 + 32, second=390 - 43, back_s=35, after=8, errors={504: 42}),
    # An invalid API key is no provider failure: each arrival calls it first, then the second provider.
    Expected(Phase(540, 60, ("401",)), first=780, second=780),
    # Each fourth of 780 calls is rejected without failover: 195, of which 15 are jobs (the second call of each minute
    # is a job's, number 13 m + 2, and 4 divides that in each fourth minute).
    Expected(Phase(600, 60, ("good", "good", "good", "400")), first=780, second=0, errors={400: 180}),
    # Both fail at 0, 2, 4 (the job's retry, after 1 s and a full second of message delay), 5 and 7 (after 2 s and 1 s):
    # open at 7. 32: probes at 35, 60 … 1785: 71. 1785 + 25 = 1810. The ninth attempt of the job of 1682 is at 1811,
    # during the probe of the first provider, and goes to the second. With both circuits open the status is also 503.
    Expected(Phase(720, 30, REFUSED, BUSY), first=5 + 71, second=5 + 71, back_s=10, after=1, errors={503: 360}),
    # The second provider was not called since: its probe at 0 closes the circuit. First: probes at 40 … 290: 11.
    Expected(Phase(780, 5, BUSY), first=5 + 11, second=65, back_s=15, after=4),
    # First, without jobs: 0, 5, 10, 15, 20: open at 20. Probes at 45 … 595: 23. Back at 620. Second, which hangs: 0, 5
    # … 45 until the fifth fails at 47.5, probes at 75, 130 … 570: 10. It is open until 597.5 + 25 = 622.5. Each of its
    # calls results in a 504, all other requests of the phase in a 503.
    Expected(Phase(840, 10, REFUSED, ("silent",), has_jobs=False), 5 + 23, 10 + 10, 20, 0, errors={504: 20, 503: 100}),
    # First: as at noon, probes at 35 … 585: 23, back at 610. The second is still open from two o'clock: its probes are
    # at 0, 25 … 575: 24. The next one, at 600, closes it, and it serves 602, 605, 609 (the job of 542, seventh attempt)
    # and 611 (the job of 482, ninth attempt). A request that called one of the two gets a 500: those of 0, 5, 23 probes
    # of the first and 23 more of the second.
    Expected(Phase(1020, 10, BAD, BAD), first=5 + 23, second=24, back_s=10, after=5, errors={500: 48, 503: 72}),
]

GPU_AND_HOSTED = [
    # As above: 148 calls of 780 arrivals, back at 15.
    Expected(Phase(60, 60, REFUSED), first=5 + 143, second=780, back_s=15, after=4),
    # 260 arrivals. Probes at 40 … 1190: 47; 1190 + 25 = 1215.
    Expected(Phase(180, 20, BUSY), first=5 + 47, second=260, back_s=15, after=4),
    # Silent for its 24 s, then the second gets the remaining time: all 390 arrivals succeed. Four concurrent calls: 0,
    # 2, 5, 10; at 15 and 20 it is at its limit. They fail at 24, 26, 29, 34; 25, 30, 35, 40 have begun by then, at 45
    # it is at its limit again. The call of 25 is the fifth to fail, at 49: open. The probe at 75 (74) fails at 99, the
    # next is at 125 (124) and so on every 50 s until 1775: 35. 1799 + 25 = 1824: back at 1825, after 5 requests and a
    # job.
    Expected(Phase(300, 30, ("silent",)), first=8 + 35, second=390, back_s=25, after=6),
    # Responses take 22 s: of five requests in 25 s, four get a lease, the fifth goes to the second provider.
    Expected(Phase(420, 10, ("slow",), has_jobs=False), first=96, second=24),
    Expected(Phase(480, 30, LIMITED), first=390, second=390),
    Expected(Phase(540, 30, ("401",)), first=390, second=390),
    # 98 of 390 calls, the first and each fourth after it. In minute m the job's call is number 13 m + 2: rejected when
    # 4 divides 13 m + 1, in 7 of 30 minutes.
    Expected(Phase(600, 30, ("400", "good", "good", "good")), first=390, second=0, errors={400: 91}),
    # As above: open at 7, probes at 35 … 585: 23, back at 610; the job of 482 is the second's probe at 611. A request
    # gets the last error of its failover, the second provider's.
    Expected(Phase(720, 10, BAD, BUSY), first=5 + 23, second=5 + 23, back_s=10, after=1, errors={503: 120}),
    # The second provider was not called since: its probe at 0 closes the circuit. Probes of the GPU at 40 … 290: 11.
    Expected(Phase(780, 5, BUSY), first=5 + 11, second=65, back_s=15, after=4),
]


@cache
def two_hosted() -> DayTimeline:
    day = DayTimeline(FIRST, SECOND, [expected.phase for expected in TWO_HOSTED])
    day.run()
    return day


@cache
def gpu_and_hosted() -> DayTimeline:
    day = DayTimeline(GPU, SECOND, [expected.phase for expected in GPU_AND_HOSTED])
    day.run()
    return day


DAYS = [(two_hosted, TWO_HOSTED), (gpu_and_hosted, GPU_AND_HOSTED)]


PHASES = [
    pytest.param(day, row, id=f"{day.__name__}-{row.phase.begin_min // 60:02}h{row.phase.begin_min % 60:02}")
    for day, table in DAYS
    for row in table
]


@pytest.mark.parametrize(("day", "expected"), PHASES)
def test_calls_per_phase_match_circuit_breaker_rules(day: Any, expected: Expected) -> None:
    begin, end = expected.phase.begin_s, expected.phase.end_s
    first, second = (day().call_times(name, begin, end) for name in ("first", "second"))
    assert (len(first), len(second)) == (expected.first, expected.second)
    back, after = day().call_times("first", end, end + AFTER_S), day().call_times("second", end, end + AFTER_S)
    assert (back[0] - end, len(after)) == (expected.back_s, expected.after)
    errors = Counter(status for at, status in day().responses if begin <= at < end and status != 200)
    assert dict(errors) == expected.errors


@pytest.mark.parametrize(("day", "expected"), DAYS)
def test_all_calls_go_to_first_provider_while_it_is_healthy(day: Any, expected: list[Expected]) -> None:
    def is_affected(at: float) -> bool:
        return any(row.phase.begin_s <= at < row.phase.end_s + AFTER_S for row in expected)

    requests = [second for second in range(0, DAY_S, SYNC_EACH_S) if not is_affected(second)]
    jobs = [second for second in range(JOB_AT_S, DAY_S, JOB_EACH_S) if not is_affected(second)]
    calls = Counter(name for at, name in day().calls if not is_affected(at) and at < DAY_S)
    assert calls["second"] == 0
    retries = calls["first"] - len(requests) - len(jobs)  # of jobs from a phase in which both providers failed
    assert 0 <= retries <= 50
    assert {status for at, status in day().responses if not is_affected(at)} == {200}


def job_outcomes(day: DayTimeline) -> Counter[tuple[str, str | None]]:
    return Counter((item["state"], item.get("error_code")) for item in day.jobs.items.values())


def test_every_job_ends_with_two_hosted_providers() -> None:
    day = two_hosted()
    assert job_outcomes(day) == {
        (JobState.COMPLETED, None): 1440 - 10 - 15 - 1,
        (JobState.FAILED, "ProviderRejected"): 15,
        (JobState.FAILED, "ProviderTimeout"): 1,
    }
    assert sum(item.get("maybe_billed", 0) for item in day.jobs.items.values()) == 1


def test_every_job_ends_with_gpu_and_hosted_provider() -> None:
    day = gpu_and_hosted()
    assert job_outcomes(day) == {(JobState.COMPLETED, None): 1440 - 10 - 7, (JobState.FAILED, "ProviderRejected"): 7}
    assert sum(item.get("maybe_billed", 0) for item in day.jobs.items.values()) == 1
