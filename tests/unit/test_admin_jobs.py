"""Dead callbacks: an operator lists them and redelivers one, or all of one receiver."""

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
def app() -> TestApp:
    app = TestApp()
    app.keys.put_key(replace(app.keys.stored["me"], id="other"), app.keys.secrets["me"])
    return app


@pytest.fixture
def admin(app: TestApp) -> Admin:
    config: Any = app.keys
    unused: Any = None
    return Admin(
        "stack",
        config,
        ssm=unused,
        jobs=app.jobs,
        messages=app.messages,
        clock=app.clock,
        circuits=app.circuits,
        leases=app.leases,
    )


def job_with_delivery(app: TestApp, host: str, *, owner: str = "me", dead: bool = True) -> Job:
    """Return a job whose callback was delivered, or is dead."""
    options = requests.Options(reply_to=f"https://{host}/hook?token=s3cret")
    job = app.enqueue.accept(requests.bind_openai_queue_chat(BODY, options), Caller(owner, "https://x.io"))
    app.run(job)
    app.webhook_client.outcomes = [GONE] if dead else []
    return app.deliver(job)


def dead_job_ids(admin: Admin, **criteria: str) -> list[int]:
    return [job.id for job in jobs.dead_callbacks(admin, DeadCallbackFilter(**criteria))]


def test_dead_callbacks_are_filtered_by_key_receiver_and_completion_time(
    app: TestApp, admin: Admin, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(jobs, "PAGE", 1)
    first = job_with_delivery(app, "a.io")
    job_with_delivery(app, "a.io", dead=False)
    app.run(app.accept())
    app.clock.advance(3600)
    second, other_owner = job_with_delivery(app, "b.io"), job_with_delivery(app, "a.io", owner="other")
    assert dead_job_ids(admin) == [second.id, first.id, other_owner.id]
    assert dead_job_ids(admin, key_id="other") == [other_owner.id]
    assert dead_job_ids(admin, host="A.io") == [first.id, other_owner.id]
    assert dead_job_ids(admin, since=format_iso(app.clock.now) or "") == [second.id, other_owner.id]
    assert dead_job_ids(admin, key_id="me", host="a.io", since="2030-01-01") == []


def test_dead_callback_view_shows_reason_and_only_the_host(app: TestApp, admin: Admin) -> None:
    dead = job_with_delivery(app, "a.io")
    view = jobs.dead_callback_view(dead)
    assert (view["id"], view["keyId"], view["host"], view["state"]) == (dead.id, "me", "a.io", CallbackState.DEAD)
    assert (view["attempts"], view["lastStatus"], view["lastError"]) == (1, 410, "status 410: gone")
    assert "s3cret" not in str(view)


def test_host_filter_accepts_unicode_and_punycode(app: TestApp, admin: Admin) -> None:
    dead = job_with_delivery(app, "bücher.example")
    assert jobs.dead_callback_view(dead)["host"] == "xn--bcher-kva.example"
    assert dead_job_ids(admin, host="xn--bcher-kva.example") == dead_job_ids(admin, host="BÜCHER.example") == [dead.id]


def test_redelivery_sends_one_message_per_dead_callback(app: TestApp, admin: Admin) -> None:
    dead = [job_with_delivery(app, "a.io") for _ in range(3)]
    app.messages.callbacks.clear()
    for job_id in dead_job_ids(admin):
        assert jobs.redeliver_callback(admin, job_id)["callback"]["state"] == CallbackState.PENDING
    assert sorted(app.messages.callbacks) == [(job.id, 0) for job in dead]
    assert dead_job_ids(admin) == []
    app.webhook_client.posts.clear()
    assert [app.deliver(job).callback for job in dead] == [CallbackState.DELIVERED] * 3
    assert [headers["webhook-id"] for _, _, headers in app.webhook_client.posts] == [f"msg_{job.id}_1" for job in dead]


def test_redelivery_by_id_needs_a_job_with_a_callback(app: TestApp, admin: Admin) -> None:
    assert (
        jobs.redeliver_callback(admin, job_with_delivery(app, "a.io", dead=False).id)["callback"]["state"]
        == CallbackState.PENDING
    )
    job = app.run(app.accept())
    with pytest.raises(AdminError, match="the callback cannot be redelivered"):
        jobs.redeliver_callback(admin, job.id)


def test_unknown_or_expired_job_is_an_error_and_not_listed(app: TestApp, admin: Admin) -> None:
    dead = job_with_delivery(app, "a.io")
    app.clock.advance(37 * 86_400)
    assert dead_job_ids(admin) == []
    for job_id in (dead.id, 4711):
        with pytest.raises(AdminError, match="does not exist or has expired"):
            jobs.redeliver_callback(admin, job_id)


def test_invalid_filters_are_rejected(admin: Admin) -> None:
    with pytest.raises(AdminError, match="key nobody does not exist"):
        jobs.dead_callbacks(admin, DeadCallbackFilter(key_id="nobody"))
    with pytest.raises(AdminError, match="must be a host name without a port"):
        jobs.dead_callbacks(admin, DeadCallbackFilter(host="a.io:443"))
    with pytest.raises(AdminError, match="yesterday: must be an ISO date"):
        jobs.dead_callbacks(admin, DeadCallbackFilter(since="yesterday"))
