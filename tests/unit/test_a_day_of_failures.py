"""Two providers through a day of failures: the calls each received are exactly those that the rules allow.

A caller comes every 5 s, at :00, :05 and so on, a job each minute at :02. The expected numbers are worked out by hand
from the rules: a circuit opens after 5 failures in a row, or when more than half of at least 10 calls in 60 s have
failed; 25 s later, and 25 s after each trial that failed, one call is its trial. All else is judged call by call: see
tests/failure_timeline.py.
"""

from collections import Counter
from dataclasses import dataclass, field
from functools import cache
from typing import Any

import pytest

from aiserver.jobs.states import JobState
from tests.failure_timeline import DAY_S, JOB_AT_S, JOB_EACH_S, SYNC_EACH_S, Day, Phase

pytestmark = pytest.mark.usefixtures("quiet")
FIRST: dict[str, Any] = {"name": "first", "priority": 1, "models": {"m": ""}}
GPU: dict[str, Any] = {**FIRST, "queue": "gpu", "timeout_s": 24, "concurrency": 4}
SECOND: dict[str, Any] = {"name": "second", "models": {"m": ""}}
AFTER_S = 60


@dataclass(frozen=True)
class Expected:
    """Calls in a phase; how long after it the first is asked again, and the second's calls in the minute after.

    `heard` is what callers were told but for 200, by status and how often.
    """

    phase: Phase
    first: int
    second: int
    back_s: int = 0
    after: int = 0
    heard: dict[int, int] = field(default_factory=dict[int, int])


REFUSED, BUSY, LIMITED, BAD = ("refused",), ("503",), ("429",), ("500",)

TWO_HOSTED = [
    # 780 arrivals. Failures at 0, 2 (the job), 5, 10, 15: open at 15. Trials at 40, 65 … 3590: 143. 3590 + 25 = 3615;
    # until then the second answers at 3600, 3602, 3605, 3610.
    Expected(Phase(60, 60, REFUSED), first=5 + 143, second=780, back_s=15, after=4),
    # 520 arrivals. Trials at 40, 65 … 2390: 95; 2390 + 25 = 2415.
    Expected(Phase(180, 40, BUSY), first=5 + 95, second=520, back_s=15, after=4),
    # A provider that asks to slow down is up: each of 390 arrivals asks it, and goes on.
    Expected(Phase(300, 30, LIMITED), first=390, second=390),
    # 130 arrivals. Trials at 40, 65 … 590: 23; 590 + 25 = 615.
    Expected(Phase(360, 10, BAD), first=5 + 23, second=130, back_s=15, after=4),
    # Just half of 390 fail, never more: 13 calls a minute, of which the good ones take a while, so that 60 s hold a
    # good one for each bad one that has just ended.
    Expected(Phase(420, 30, ("good", "500")), first=390, second=195),
    # Two of three fail, at 0, 2, 10, 15, 25, 30, 40, 45; good ones began at 5, 20, 35. At 40 the last 60 s hold 7 bad
    # and 7 good, those of -20, -15, -10 and -5 among them; at 45, 8 and 6: open. 50, 55, 60, 62, 65 are the second's as
    # well. The trial at 70 is the twelfth call, and good.
    Expected(Phase(465, 1.25, ("500", "500", "good")), first=11 + 1, second=8 + 5),
    # Calls hang for the caller's 27.5 s: those of 0, 5 … 45 and the job's at 2 have begun when the fifth fails at 47.5.
    # A job's call has 600 s: it is long unheard of. 47.5 + 25 = 72.5: trials at 75, which fails at 102.5; 127.5: at
    # 130, and so on each 55 s until 1780: 32. 1807.5 + 25 = 1832.5: back at 1835, after 7 callers and a job.
    Expected(Phase(480, 30, ("silent",)), first=11 + 32, second=390 - 43, back_s=35, after=8, heard={504: 42}),
    # Our key is at fault, not the provider: each arrival asks it, and goes on.
    Expected(Phase(540, 60, ("401",)), first=780, second=780),
    # Each fourth of 780 calls is refused, and nobody else asked: 195, of which 15 are jobs (the second call of each
    # minute is a job's, number 13 m + 2, and 4 divides that for each fourth minute).
    Expected(Phase(600, 60, ("good", "good", "good", "400")), first=780, second=0, heard={400: 180}),
    # Both fail at 0, 2, 4 (the job again, after 1 s and a message's whole second), 5 and 7 (after 2 s and one): open at
    # 7. 32: trials at 35, 60 … 1785: 71. 1785 + 25 = 1810. The job of 1682 asks for the ninth time at 1811, when the
    # first's trial is under way, and is the second's. A pass before open circuits tells 503, like one that failed.
    Expected(Phase(720, 30, REFUSED, BUSY), first=5 + 71, second=5 + 71, back_s=10, after=1, heard={503: 360}),
    # The second's circuit was not needed since: it is tried, and closes, at 0. First: trials at 40 … 290: 11.
    Expected(Phase(780, 5, BUSY), first=5 + 11, second=65, back_s=15, after=4),
    # First, without jobs: 0, 5, 10, 15, 20: open at 20. Trials at 45 … 595: 23. Back at 620. Second, which hangs: 0, 5
    # … 45 until the fifth fails at 47.5, trials at 75, 130 … 570: 10. Until 597.5 + 25 = 622.5 it is open. Each of its
    # calls is a 504, all others' passes of the phase are 503.
    Expected(Phase(840, 10, REFUSED, ("silent",), has_jobs=False), 5 + 23, 10 + 10, 20, 0, heard={504: 20, 503: 100}),
    # First: as at noon, trials at 35 … 585: 23, back at 610. The second is still open from two o'clock: its trials are
    # at 0, 25 … 575: 24. The next one, at 600, closes it, and it answers at 602, 605, 609 (the job of 542, for the
    # seventh time) and 611 (that of 482, for the ninth). Told of a 500 are the passes that called one of the two: those
    # of 0, 5, 23 of the first's trials and 23 more of the second's.
    Expected(Phase(1020, 10, BAD, BAD), first=5 + 23, second=24, back_s=10, after=5, heard={500: 48, 503: 72}),
]

GPU_AND_HOSTED = [
    # As above: 148 calls of 780 arrivals, back at 15.
    Expected(Phase(60, 60, REFUSED), first=5 + 143, second=780, back_s=15, after=4),
    # 260 arrivals. Trials at 40 … 1190: 47; 1190 + 25 = 1215.
    Expected(Phase(180, 20, BUSY), first=5 + 47, second=260, back_s=15, after=4),
    # Silent for its 24 s, then the second has what is left: all 390 arrivals get an answer. Four calls at once: 0, 2,
    # 5, 10; 15 and 20 find it full. They fail at 24, 26, 29, 34; 25, 30, 35, 40 have begun by then, 45 finds it full
    # again. The one of 25 is the fifth to fail, at 49: open. Trials at 75 (74), which fails at 99, at 125 (124) and so
    # on each 50 s until 1775: 35. 1799 + 25 = 1824: back at 1825, after 5 callers and a job.
    Expected(Phase(300, 30, ("silent",)), first=8 + 35, second=390, back_s=25, after=6),
    # Answers take 22 s: of each five callers in 25 s, four find room, the fifth goes on.
    Expected(Phase(420, 10, ("slow",), has_jobs=False), first=96, second=24),
    Expected(Phase(480, 30, LIMITED), first=390, second=390),
    Expected(Phase(540, 30, ("401",)), first=390, second=390),
    # 98 of 390 calls, the first and each fourth after it; of minute m the job's is the (13 m + 2)nd: refused where 4
    # divides 13 m + 1, in 7 of 30 minutes.
    Expected(Phase(600, 30, ("400", "good", "good", "good")), first=390, second=0, heard={400: 91}),
    # As above: open at 7, trials at 35 … 585: 23, back at 610; the job of 482 is the second's trial at 611. Told is the
    # last of a pass's errors, the second's.
    Expected(Phase(720, 10, BAD, BUSY), first=5 + 23, second=5 + 23, back_s=10, after=1, heard={503: 120}),
    # The second's circuit was not needed since: it is tried, and closes, at 0. Trials of the GPU at 40 … 290: 11.
    Expected(Phase(780, 5, BUSY), first=5 + 11, second=65, back_s=15, after=4),
]


@cache
def two_hosted() -> Day:
    day = Day(FIRST, SECOND, [one.phase for one in TWO_HOSTED])
    day.run()
    return day


@cache
def gpu_and_hosted() -> Day:
    day = Day(GPU, SECOND, [one.phase for one in GPU_AND_HOSTED])
    day.run()
    return day


DAYS = [(two_hosted, TWO_HOSTED), (gpu_and_hosted, GPU_AND_HOSTED)]


PHASES = [
    pytest.param(day, one, id=f"{day.__name__}-{one.phase.begin_min // 60:02}h{one.phase.begin_min % 60:02}")
    for day, expected in DAYS
    for one in expected
]


@pytest.mark.parametrize(("day", "expected"), PHASES)
def test_in_each_phase_each_provider_gets_exactly_the_calls_that_the_rules_allow(day: Any, expected: Expected) -> None:
    begin, end = expected.phase.begin_s, expected.phase.end_s
    first, second = (day().called(name, begin, end) for name in ("first", "second"))
    assert (len(first), len(second)) == (expected.first, expected.second)
    back, after = day().called("first", end, end + AFTER_S), day().called("second", end, end + AFTER_S)
    assert (back[0] - end, len(after)) == (expected.back_s, expected.after)
    heard = Counter(status for at, status in day().heard if begin <= at < end and status != 200)
    assert dict(heard) == expected.heard


@pytest.mark.parametrize(("day", "expected"), DAYS)
def test_while_all_is_well_every_call_goes_to_the_first(day: Any, expected: list[Expected]) -> None:
    def is_bad(at: float) -> bool:
        return any(one.phase.begin_s <= at < one.phase.end_s + AFTER_S for one in expected)

    quiet = [second for second in range(0, DAY_S, SYNC_EACH_S) if not is_bad(second)]
    jobs = [second for second in range(JOB_AT_S, DAY_S, JOB_EACH_S) if not is_bad(second)]
    called = Counter(name for at, name in day().calls if not is_bad(at) and at < DAY_S)
    assert called["second"] == 0
    waited = called["first"] - len(quiet) - len(jobs)  # jobs of a phase in which both failed
    assert 0 <= waited <= 50
    assert {status for at, status in day().heard if not is_bad(at)} == {200}


def ended(day: Day) -> Counter[tuple[str, str | None]]:
    return Counter((item["state"], item.get("error_code")) for item in day.jobs.items.values())


def test_every_job_of_the_day_before_two_hosted_providers_ends() -> None:
    day = two_hosted()
    assert ended(day) == {
        (JobState.COMPLETED, None): 1440 - 10 - 15 - 1,
        (JobState.FAILED, "ProviderRejected"): 15,
        (JobState.FAILED, "ProviderTimeout"): 1,
    }
    assert sum(item.get("maybe_billed", 0) for item in day.jobs.items.values()) == 1


def test_every_job_of_the_day_before_a_gpu_and_a_hosted_one_ends() -> None:
    day = gpu_and_hosted()
    assert ended(day) == {(JobState.COMPLETED, None): 1440 - 10 - 7, (JobState.FAILED, "ProviderRejected"): 7}
    assert sum(item.get("maybe_billed", 0) for item in day.jobs.items.values()) == 1
