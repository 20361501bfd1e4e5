"""Dead callbacks, as an operator finds them and starts them over: one, or all that a receiver has missed."""

from dataclasses import replace
from typing import Any

import pytest

from aiserver.admin import jobs
from aiserver.admin.jobs import DeadCallbackFilter
from aiserver.admin.stack import Admin, AdminError
from aiserver.jobs.job import Job
from aiserver.jobs.states import CallbackState
from aiserver.usecases.enqueue import Caller
from aiserver.webhooks.client import DeliveryResult
from aiserver.wire import requests
from aiserver.wire.render import format_iso
from tests.app import BODY, TestApp

GONE = DeliveryResult(410, "status 410: gone")


@pytest.fixture
def house() -> TestApp:
    house = TestApp()
    house.keys.put_key(replace(house.keys.stored["me"], id="other"), house.keys.secrets["me"])
    return house


@pytest.fixture
def admin(house: TestApp) -> Admin:
    config: Any = house.keys
    nothing: Any = None
    return Admin(
        "stack",
        config,
        ssm=nothing,
        jobs=house.jobs,
        messages=house.messages,
        clock=house.clock,
        circuits=house.circuits,
        leases=house.slots,
    )


def told(house: TestApp, host: str, *, owner: str = "me", dead: bool = True) -> Job:
    """A job whose callback has come to its end."""
    options = requests.Options(reply_to=f"https://{host}/hook?token=s3cret")
    job = house.enqueue.accept(requests.bind_openai_queue_chat(BODY, options), Caller(owner, "https://x.io"))
    house.run(job)
    house.replier.outcomes = [GONE] if dead else []
    return house.deliver(job)


def found(admin: Admin, **which: str) -> list[int]:
    return [job.id for job in jobs.dead_callbacks(admin, DeadCallbackFilter(**which))]


def test_the_dead_ones_are_found_by_key_by_receiver_and_by_when_their_jobs_ended(
    house: TestApp, admin: Admin, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(jobs, "PAGE", 1)
    first = told(house, "a.io")
    told(house, "a.io", dead=False)
    house.run(house.accept())
    house.clock.advance(3600)
    second, theirs = told(house, "b.io"), told(house, "a.io", owner="other")
    assert found(admin) == [second.id, first.id, theirs.id]
    assert found(admin, key_id="other") == [theirs.id]
    assert found(admin, host="A.io") == [first.id, theirs.id]
    assert found(admin, since=format_iso(house.clock.now) or "") == [second.id, theirs.id]
    assert found(admin, key_id="me", host="a.io", since="2030-01-01") == []


def test_what_is_shown_says_why_and_no_more_of_the_address_than_its_host(house: TestApp, admin: Admin) -> None:
    dead = told(house, "a.io")
    shown = jobs.dead_callback_view(dead)
    assert (shown["id"], shown["keyId"], shown["host"], shown["state"]) == (dead.id, "me", "a.io", CallbackState.DEAD)
    assert (shown["attempts"], shown["lastStatus"], shown["lastError"]) == (1, 410, "status 410: gone")
    assert "s3cret" not in str(shown)


def test_a_receiver_is_found_however_its_name_was_written(house: TestApp, admin: Admin) -> None:
    dead = told(house, "bücher.example")
    assert jobs.dead_callback_view(dead)["host"] == "xn--bcher-kva.example"
    assert found(admin, host="xn--bcher-kva.example") == found(admin, host="BÜCHER.example") == [dead.id]


def test_all_that_are_dead_are_started_over_each_as_a_message_of_its_own(house: TestApp, admin: Admin) -> None:
    dead = [told(house, "a.io") for _ in range(3)]
    house.messages.callbacks.clear()
    for job_id in found(admin):
        assert jobs.redeliver_callback(admin, job_id)["callback"]["state"] == CallbackState.PENDING
    assert sorted(house.messages.callbacks) == [(job.id, 0) for job in dead]
    assert found(admin) == []
    house.replier.posts.clear()
    assert [house.deliver(job).callback for job in dead] == [CallbackState.DELIVERED] * 3
    assert [headers["webhook-id"] for _, _, headers in house.replier.posts] == [f"msg_{job.id}_1" for job in dead]


def test_one_that_was_delivered_can_be_sent_again_by_its_id_and_one_without_a_callback_cannot(
    house: TestApp, admin: Admin
) -> None:
    assert (
        jobs.redeliver_callback(admin, told(house, "a.io", dead=False).id)["callback"]["state"] == CallbackState.PENDING
    )
    without = house.run(house.accept())
    with pytest.raises(AdminError, match="has no callback to send again"):
        jobs.redeliver_callback(admin, without.id)


def test_a_job_that_is_unknown_or_past_its_time_to_live_is_told_and_not_shown(house: TestApp, admin: Admin) -> None:
    dead = told(house, "a.io")
    house.clock.advance(37 * 86_400)
    assert found(admin) == []
    for job_id in (dead.id, 4711):
        with pytest.raises(AdminError, match="is unknown, or past its time to live"):
            jobs.redeliver_callback(admin, job_id)


def test_what_cannot_be_meant_is_told(admin: Admin) -> None:
    with pytest.raises(AdminError, match="There is no key nobody"):
        jobs.dead_callbacks(admin, DeadCallbackFilter(key_id="nobody"))
    with pytest.raises(AdminError, match="write it without a port"):
        jobs.dead_callbacks(admin, DeadCallbackFilter(host="a.io:443"))
    with pytest.raises(AdminError, match="yesterday is no date"):
        jobs.dead_callbacks(admin, DeadCallbackFilter(since="yesterday"))
