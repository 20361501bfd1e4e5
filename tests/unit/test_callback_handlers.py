"""Callbacks by the real handlers: delivered, sampled, held against a key's hosts, and counted when they die."""

import json
from dataclasses import replace

import pytest

from aiserver import bootstrap
from aiserver.aws.leases import DynamoLeases
from aiserver.jobs.states import CallbackState
from local.receiver import receiver
from tests.answers import body, is_error, job_id, put_job
from tests.moto_stack import STACK_NAME, WEBHOOK_SECRET, MotoStack, client, event
from tests.stack import properties


def put_owed(stack: MotoStack, url: str) -> None:
    """A job that has failed, and whose callback is due: the one that the event's message names."""
    now = bootstrap.CLOCK.now_ms()
    due = {"state": "Failed", "completed_at": now, "error_code": "X", "callback": "Pending", "callback_next_at": now}
    put_job(stack, job_id("reply"), reply_to=url, **due)


def test_a_callback_s_message_has_it_delivered_signed(stack: MotoStack) -> None:
    stack.parameters["UnsafeAllowAnyCallbackAddress"] = "true"
    with receiver() as there:
        put_job(stack, job_id("worker"), reply_to=there.url, tag="tag é")
        stack.invoke("worker", event("worker"))
        assert stack.invoke("reply", event("reply")) == {"batchItemFailures": []}
        arrived = there.next(timeout_s=5)
    job = stack.jobs().get(job_id("reply"))
    assert job is not None
    assert (job.callback, job.callback_attempt, job.callback_last_status) == (CallbackState.DELIVERED, 1, 200)
    assert arrived.body == stack.jobs().read_result(job)
    assert arrived.is_signed_by(WEBHOOK_SECRET)
    assert (arrived.headers["x-job-id"], arrived.headers["x-tag"]) == (str(job.id), "tag%20%C3%A9")


def test_a_sample_callback_is_sent_now_signed_and_no_job_is_behind_it(stack: MotoStack) -> None:
    stack.parameters["UnsafeAllowAnyCallbackAddress"] = "true"
    with receiver() as there:
        answer = stack.invoke("queue", event("queue.test-callback") | {"body": json.dumps({"replyTo": there.url})})
        arrived = there.next(timeout_s=5)
    told = body(answer)
    assert (answer["statusCode"], told["delivered"], told["status"]) == (200, True, 200)
    assert told["durationMs"] >= 0
    assert arrived.is_signed_by(WEBHOOK_SECRET)
    assert arrived.headers["webhook-id"] == told["webhookId"] != ""
    assert told["webhookId"].startswith("msg_test_")
    assert (arrived.headers["x-job-id"], arrived.headers["x-job-state"]) == ("0", "Completed")
    assert json.loads(arrived.body)["choices"][0]["message"]["role"] == "assistant"
    assert stack.jobs().list_page("example00000", tag=None, state=None, take=9, cursor=None).jobs == []


def test_a_sample_is_signed_like_any_callback_and_waits_for_no_place(stack: MotoStack) -> None:
    stack.parameters["UnsafeAllowAnyCallbackAddress"] = "true"
    old = stack.config().webhook_secrets("example00000")
    assert old
    rotated = old.rotate(now_ms=bootstrap.CLOCK.now_ms(), overlap_ms=60_000)
    assert stack.config().replace_webhook_secrets("example00000", old, rotated)
    with receiver() as there:
        sample = event("queue.test-callback") | {"body": json.dumps({"replyTo": there.url})}
        stack.invoke("queue", sample)
        arrived = there.next(timeout_s=5)
        assert [arrived.is_signed_by(secret) for secret in rotated.active(0)] == [True, True]
        slots = DynamoLeases("JobsTable", client("dynamodb"))
        now = bootstrap.CLOCK.now_ms()
        while slots.acquire("callbacks#example00000", range(25), now_ms=now, expires_ms=now + 60_000) is not None:
            pass
        refused = stack.invoke("queue", sample)
    assert is_error(refused, 429, "TooManyRequests")
    assert refused["headers"]["retry-after"] == "5"


def test_what_a_receiver_says_to_a_sample_is_told_to_who_asked(stack: MotoStack) -> None:
    stack.parameters["UnsafeAllowAnyCallbackAddress"] = "true"
    with receiver(lambda _: 500) as there:
        told = body(stack.invoke("queue", event("queue.test-callback") | {"body": json.dumps({"ReplyTo": there.url})}))
    assert (told["delivered"], told["status"]) == (False, 500)
    assert told["error"].startswith("status 500")
    nobody = body(stack.invoke("queue", event("queue.test-callback") | {"body": json.dumps({"replyTo": there.url})}))
    assert (nobody["delivered"], "status" in nobody) == (False, False)
    assert nobody["error"]


@pytest.mark.parametrize("asked", ["{}", "[]", '{"replyTo":""}', '{"replyTo":1}', '{"replyTo":"https://10.0.0.1/"}'])
def test_a_sample_callback_to_nowhere_or_inside_is_refused(asked: str, stack: MotoStack) -> None:
    assert is_error(stack.invoke("queue", event("queue.test-callback") | {"body": asked}), 400, "ValidationException")


def test_a_key_s_callback_hosts_hold_for_whoever_asks_and_at_each_delivery(stack: MotoStack) -> None:
    stack.parameters |= {"UnsafeAllowAnyCallbackAddress": "true", "IntakeKeyIds": "example00000"}
    mine = stack.config().key("example00000")
    assert mine
    assert stack.config().replace_key(mine, replace(mine, callback_hosts=("hooks.example.com",)))
    sample = event("queue.test-callback")
    for given in (event("queue.reply-to"), sample):
        refused = stack.invoke("queue", given)
        assert is_error(refused, 400, "ValidationException")
        assert "not among the hosts that this API key may name" in body(refused)["error"]["message"]
    sent = event("intake")
    asked = json.loads(sent["Records"][0]["body"]) | {"replyTo": "http://127.0.0.1:9000/hook"}
    sent["Records"][0]["body"] = json.dumps(asked)
    stack.invoke("intake", sent)
    (dead,) = stack.taken("IntakeDeadLetterQueue")
    assert "not among the hosts" in dead["MessageAttributes"]["reason"]["StringValue"]
    with receiver() as there:  # accepted before there was a list
        put_owed(stack, there.url)
        stack.invoke("reply", event("reply"))
    job = stack.jobs().get(job_id("reply"))
    assert job
    assert (job.callback, (job.callback_last_error or "")[:17]) == (CallbackState.DEAD, "CallbackRefused: ")


def test_a_dead_callback_is_a_metric_whether_its_deliverer_or_the_sweeper_gives_it_up(
    stack: MotoStack, capsys: pytest.CaptureFixture[str]
) -> None:
    stack.parameters["UnsafeAllowAnyCallbackAddress"] = "true"
    now = bootstrap.CLOCK.now_ms()
    with receiver(lambda _: 410) as there:
        put_owed(stack, there.url)
        stack.invoke("reply", event("reply"))
    put_job(
        stack,
        4711,
        state="Failed",
        callback="Delivering",
        callback_attempt=10,
        callback_token="t",
        callback_lease_until=now,
        due_at=now,
    )
    stack.invoke("sweep", event("sweep"))
    told = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    dead = [line for line in told if "DeadCallbacks" in line]
    assert [(one["DeadCallbacks"], one["service"]) for one in dead] == [([1.0], STACK_NAME)] * 2
    alarm = properties("DeadCallbacksAlarm")
    assert all(one["_aws"]["CloudWatchMetrics"][0]["Namespace"] == alarm["Namespace"] for one in dead)
