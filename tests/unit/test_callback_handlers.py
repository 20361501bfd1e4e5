"""Callbacks of the real handlers: delivery, samples, the callback hosts of a key, and the metric of dead ones."""

import json
from dataclasses import replace

import pytest

from aiserver import bootstrap
from aiserver.aws.leases import DynamoConcurrencyLeases
from aiserver.jobs.states import CallbackState
from local.receiver import receiver
from tests.answers import is_error, json_body, put_job, queued_job_id
from tests.moto_stack import STACK_NAME, WEBHOOK_SECRET, MotoStack, client, event
from tests.stack import properties


def put_due_callback(stack: MotoStack, url: str) -> None:
    """Store the job of the reply event as failed, with a callback that is due."""
    now = bootstrap.CLOCK.now_ms()
    due = {"state": "Failed", "completed_at": now, "error_code": "X", "callback": "Pending", "callback_next_at": now}
    put_job(stack, queued_job_id("reply"), reply_to=url, **due)


def test_callback_message_is_delivered_with_a_signature(stack: MotoStack) -> None:
    stack.parameters["UnsafeAllowAnyCallbackAddress"] = "true"
    with receiver() as hook:
        put_job(stack, queued_job_id("worker"), reply_to=hook.url, tag="tag é")
        stack.invoke("worker", event("worker"))
        assert stack.invoke("reply", event("reply")) == {"batchItemFailures": []}
        delivery = hook.next(timeout_s=5)
    job = stack.jobs().get(queued_job_id("reply"))
    assert job is not None
    assert (job.callback, job.callback_attempt, job.callback_last_status) == (CallbackState.DELIVERED, 1, 200)
    assert delivery.body == stack.jobs().read_result(job)
    assert delivery.is_signed_by(WEBHOOK_SECRET)
    assert (delivery.headers["x-job-id"], delivery.headers["x-tag"]) == (str(job.id), "tag%20%C3%A9")


def test_sample_callback_is_sent_and_signed_without_a_job(stack: MotoStack) -> None:
    stack.parameters["UnsafeAllowAnyCallbackAddress"] = "true"
    with receiver() as hook:
        response = stack.invoke("queue", event("queue.test-callback") | {"body": json.dumps({"replyTo": hook.url})})
        delivery = hook.next(timeout_s=5)
    result = json_body(response)
    assert (response["statusCode"], result["delivered"], result["status"]) == (200, True, 200)
    assert result["durationMs"] >= 0
    assert delivery.is_signed_by(WEBHOOK_SECRET)
    assert delivery.headers["webhook-id"] == result["webhookId"] != ""
    assert result["webhookId"].startswith("msg_test_")
    assert (delivery.headers["x-job-id"], delivery.headers["x-job-state"]) == ("0", "Completed")
    assert json.loads(delivery.body)["choices"][0]["message"]["role"] == "assistant"
    assert stack.jobs().list_page("example00000", take=9).jobs == []


def test_sample_callback_uses_all_secrets_and_is_rejected_without_lease(stack: MotoStack) -> None:
    stack.parameters["UnsafeAllowAnyCallbackAddress"] = "true"
    old = stack.config().webhook_secrets("example00000")
    assert old
    rotated = old.rotate(now_ms=bootstrap.CLOCK.now_ms(), overlap_ms=60_000)
    assert stack.config().replace_webhook_secrets("example00000", old, rotated)
    with receiver() as hook:
        sample = event("queue.test-callback") | {"body": json.dumps({"replyTo": hook.url})}
        stack.invoke("queue", sample)
        delivery = hook.next(timeout_s=5)
        assert [delivery.is_signed_by(secret) for secret in rotated.active(0)] == [True, True]
        leases = DynamoConcurrencyLeases("JobsTable", client("dynamodb"))
        now = bootstrap.CLOCK.now_ms()
        while leases.acquire("callbacks#example00000", range(25), now_ms=now, expires_ms=now + 60_000) is not None:
            pass
        response = stack.invoke("queue", sample)
    assert is_error(response, 429, "TooManyRequests")
    assert response["headers"]["retry-after"] == "5"


def test_sample_callback_reports_the_response_of_the_receiver(stack: MotoStack) -> None:
    stack.parameters["UnsafeAllowAnyCallbackAddress"] = "true"
    with receiver(lambda _: 500) as hook:
        result = json_body(
            stack.invoke("queue", event("queue.test-callback") | {"body": json.dumps({"ReplyTo": hook.url})})
        )
    assert (result["delivered"], result["status"]) == (False, 500)
    assert result["error"].startswith("status 500")
    unreachable = json_body(
        stack.invoke("queue", event("queue.test-callback") | {"body": json.dumps({"replyTo": hook.url})})
    )
    assert (unreachable["delivered"], "status" in unreachable) == (False, False)
    assert unreachable["error"]


@pytest.mark.parametrize("body", ["{}", "[]", '{"replyTo":""}', '{"replyTo":1}', '{"replyTo":"https://10.0.0.1/"}'])
def test_sample_callback_with_invalid_reply_to_is_rejected(body: str, stack: MotoStack) -> None:
    assert is_error(stack.invoke("queue", event("queue.test-callback") | {"body": body}), 400, "ValidationException")


def test_callback_hosts_of_a_key_apply_at_acceptance_and_delivery(stack: MotoStack) -> None:
    stack.parameters |= {"UnsafeAllowAnyCallbackAddress": "true", "IntakeKeyIds": "example00000"}
    key = stack.config().key("example00000")
    assert key
    assert stack.config().replace_key(key, replace(key, callback_hosts=("hooks.example.com",)))
    sample = event("queue.test-callback")
    for request in (event("queue.reply-to"), sample):
        response = stack.invoke("queue", request)
        assert is_error(response, 400, "ValidationException")
        assert "is not among the callback hosts of this API key" in json_body(response)["error"]["message"]
    intake_event = event("intake")
    message = json.loads(intake_event["Records"][0]["body"]) | {"replyTo": "http://127.0.0.1:9000/hook"}
    intake_event["Records"][0]["body"] = json.dumps(message)
    stack.invoke("intake", intake_event)
    (dead_letter,) = stack.receive("IntakeDeadLetterQueue")
    assert "not among the callback hosts" in dead_letter["MessageAttributes"]["reason"]["StringValue"]
    with receiver() as hook:  # accepted before the key had callback hosts
        put_due_callback(stack, hook.url)
        stack.invoke("reply", event("reply"))
    job = stack.jobs().get(queued_job_id("reply"))
    assert job
    assert (job.callback, (job.callback_last_error or "")[:17]) == (CallbackState.DEAD, "CallbackRefused: ")


def test_dead_callbacks_of_deliverer_and_sweeper_are_metrics(
    stack: MotoStack, capsys: pytest.CaptureFixture[str]
) -> None:
    stack.parameters["UnsafeAllowAnyCallbackAddress"] = "true"
    now = bootstrap.CLOCK.now_ms()
    with receiver(lambda _: 410) as hook:
        put_due_callback(stack, hook.url)
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
    log_lines = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    dead = [line for line in log_lines if "DeadCallbacks" in line]
    assert [(line["DeadCallbacks"], line["service"]) for line in dead] == [([1.0], STACK_NAME)] * 2
    alarm = properties("DeadCallbacksAlarm")
    assert all(line["_aws"]["CloudWatchMetrics"][0]["Namespace"] == alarm["Namespace"] for line in dead)
