"""The intake queue: messages of other services become jobs; invalid ones become dead letters with the reason."""

import io
import json
from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any

import pytest

from aiserver import batch, bootstrap
from aiserver.errors import AiServerError, InvalidRequest, ProviderUnavailable, TooManyRequests
from aiserver.jobs.job import Job
from aiserver.jobs.states import JobState
from aiserver.wire import requests
from tests.moto_stack import API_ID, MotoStack, event, example_key

KEY_ID = "example00000"
CHAT_REQUEST = '{"model":"llama3:8b","messages":[{"role":"user","content":"Why is the sky blue?"}]}'
SECRET = "do not tell"


def intake_event(*bodies: str, **attributes: str) -> dict[str, Any]:
    """Return the queue's event with these message bodies, each message with these attributes."""
    (template, _) = event("intake")["Records"]
    message_attributes = {name: {"stringValue": value, "dataType": "String"} for name, value in attributes.items()}
    messages = [
        template | {"messageId": f"message-{number}", "body": body, "messageAttributes": message_attributes}
        for number, body in enumerate(bodies)
    ]
    return {"Records": messages}


def body(**members: object) -> str:
    return json.dumps({"keyId": KEY_ID, **members})[:-1] + f', "request": {CHAT_REQUEST}}}'


def dead_letters_by_body(stack: MotoStack) -> dict[str, dict[str, str]]:
    """Return the attributes of each dead letter of the intake queue, by its body."""
    return {
        message["Body"]: {name: attribute["StringValue"] for name, attribute in message["MessageAttributes"].items()}
        for message in stack.receive("IntakeDeadLetterQueue")
    }


@pytest.fixture
def intake_stack(stack: MotoStack) -> MotoStack:
    """A stack whose intake accepts jobs for the key of the event files."""
    stack.parameters["IntakeKeyIds"] = f"other0000000, {KEY_ID}"
    return stack


def find_job(stack: MotoStack, ref_id: str) -> Job:
    job = stack.jobs().find_by_ref_id(KEY_ID, ref_id, now_ms=bootstrap.CLOCK.now_ms())
    assert job is not None
    return job


def test_messages_become_jobs_of_their_keys(intake_stack: MotoStack) -> None:
    assert intake_stack.invoke("intake", event("intake")) == {"batchItemFailures": []}
    body_job = find_job(intake_stack, "example-ref-4")
    attribute_job = find_job(intake_stack, event("intake")["Records"][1]["messageId"])
    hints = intake_stack.messages("HostedQueue")
    assert sorted(hint["id"] for hint in hints) == sorted([body_job.id, attribute_job.id])
    assert (body_job.state, body_job.tag, attribute_job.tag) == (JobState.QUEUED, "example", None)
    request = json.loads(event("intake")["Records"][0]["body"])["request"]
    assert json.loads(intake_stack.jobs().read_request(body_job)) == request
    assert intake_stack.receive("IntakeDeadLetterQueue") == []


def test_redelivered_message_is_one_job_with_message_id_as_ref_id(intake_stack: MotoStack) -> None:
    for _ in range(2):
        assert intake_stack.invoke("intake", intake_event(body())) == {"batchItemFailures": []}
    assert intake_stack.messages("HostedQueue") == [{"id": find_job(intake_stack, "message-0").id, "attempt": 0}]


def test_same_ref_id_is_one_job_and_another_request_a_conflict(intake_stack: MotoStack) -> None:
    conflicting = body(refId="r").replace("blue", "red")
    intake_stack.invoke("intake", intake_event(body(refId="r"), body(refId="r")))
    intake_stack.invoke("intake", intake_event(conflicting))
    assert intake_stack.messages("HostedQueue") == [{"id": find_job(intake_stack, "r").id, "attempt": 0}]
    assert dead_letters_by_body(intake_stack)[conflicting]["errorCode"] == "Conflict"


def test_dead_letter_has_at_most_ten_attributes_including_the_reason(intake_stack: MotoStack) -> None:
    mine = {f"mine{number}": "x" for number in range(10)}
    assert intake_stack.invoke("intake", intake_event("not JSON", **mine)) == {"batchItemFailures": []}
    (attributes,) = dead_letters_by_body(intake_stack).values()
    assert len(attributes) == 10
    assert {"errorCode", "messageId", "reason", "mine0"} <= set(attributes)


def test_job_links_use_the_api_url_or_the_public_base_url(intake_stack: MotoStack) -> None:
    intake_stack.invoke("intake", intake_event(body(refId="here")))
    intake_stack.parameters["PublicBaseUrl"] = "https://ai.example.org"
    intake_stack.invoke("intake", intake_event(body(refId="there")))
    assert find_job(intake_stack, "here").base_url == f"https://{API_ID}.execute-api.us-east-1.amazonaws.com/prod"
    assert find_job(intake_stack, "there").base_url == "https://ai.example.org"


@pytest.mark.parametrize(
    ("message", "error_code", "reason"),
    [
        ("not JSON", "ValidationException", "The request body is not valid JSON: invalid character at line 1 column 2"),
        ("[]", "ValidationException", "The request body must be a JSON object"),
        (f'{{"keyId":"{KEY_ID}"}}', "ValidationException", "'request' is required: the chat completion to run"),
        (f'{{"request":{CHAT_REQUEST}}}', "ValidationException", "'keyId' is required"),
        (f'{{"keyId":7,"request":{CHAT_REQUEST}}}', "ValidationException", "'keyId' must be a string"),
        (f'{{"keyId":"nobodys00000","request":{CHAT_REQUEST}}}', "Forbidden", "Key nobodys00000 may not submit jobs"),
        (f'{{"keyId":"other0000000","request":{CHAT_REQUEST}}}', "Unauthorized", "The API key is not valid"),
        (body().replace("llama3:8b", "no\\u0000body"), "NotFound", "Model no?body not found"),
        (body(deadline="soon"), "ValidationException", "'deadline' must be a date or a number of seconds"),
        (
            body(replyTo="http://127.0.0.1/x"),
            "ValidationException",
            "'replyTo' is not allowed: it must start with https://",
        ),
        (body(tag="t" * 257), "ValidationException", "'tag' must be 1 to 256 characters"),
    ],
)
def test_invalid_message_becomes_a_dead_letter_with_the_reason(
    message: str, error_code: str, reason: str, intake_stack: MotoStack
) -> None:
    assert intake_stack.invoke("intake", intake_event(message, body(refId="good"))) == {"batchItemFailures": []}
    dead_letters = dead_letters_by_body(intake_stack)
    assert set(dead_letters) == {message}
    assert (dead_letters[message]["errorCode"], dead_letters[message]["messageId"]) == (error_code, "message-0")
    assert dead_letters[message]["reason"].startswith(reason)
    assert intake_stack.messages("HostedQueue") == [{"id": find_job(intake_stack, "good").id, "attempt": 0}]


def test_all_messages_of_the_bad_example_event_are_rejected(intake_stack: MotoStack) -> None:
    assert intake_stack.invoke("intake", event("intake.bad")) == {"batchItemFailures": []}
    assert set(dead_letters_by_body(intake_stack)) == {record["body"] for record in event("intake.bad")["Records"]}
    assert intake_stack.messages("HostedQueue") == []


def test_dead_letter_keeps_message_attributes(intake_stack: MotoStack) -> None:
    intake_stack.invoke("intake", intake_event("{}", keyId=KEY_ID, traceparent="00-1"))
    attributes = dead_letters_by_body(intake_stack)["{}"]
    assert (attributes["keyId"], attributes["traceparent"], attributes["errorCode"]) == (
        KEY_ID,
        "00-1",
        "ValidationException",
    )


def test_intake_without_a_key_list_rejects_all_messages(stack: MotoStack) -> None:
    stack.invoke("intake", intake_event(body()))
    assert dead_letters_by_body(stack)[body()]["errorCode"] == "Forbidden"


@pytest.mark.parametrize(
    ("change", "reason"),
    [({"revoked_at": 1}, "The API key is not valid"), ({"expires_at": 1}, "The API key has expired")],
)
def test_revoked_or_expired_key_is_rejected(change: dict[str, int], reason: str, intake_stack: MotoStack) -> None:
    key = intake_stack.put_key(example_key(), "example")
    assert intake_stack.config().replace_key(key, replace(key, **change))
    intake_stack.invoke("intake", intake_event(body()))
    assert dead_letters_by_body(intake_stack)[body()] == {
        "errorCode": "Unauthorized",
        "reason": reason,
        "messageId": "message-0",
    }


@pytest.mark.parametrize("table", ["CONFIG_TABLE", "JOBS_TABLE"])
def test_message_is_retried_while_the_database_is_unavailable(table: str, intake_stack: MotoStack) -> None:
    response = intake_stack.invoke("intake", intake_event(body()), **{table: "no-such-table"})
    assert response == {"batchItemFailures": [{"itemIdentifier": "message-0"}]}
    assert intake_stack.receive("IntakeDeadLetterQueue") == []


def test_invalid_message_is_retried_while_dead_letters_cannot_be_written(intake_stack: MotoStack) -> None:
    missing_queue = "https://sqs.us-east-1.amazonaws.com/1/no-such-queue"
    response = intake_stack.invoke(
        "intake", intake_event("{}", body(refId="good")), INTAKE_DEAD_LETTER_QUEUE_URL=missing_queue
    )
    assert response == {"batchItemFailures": [{"itemIdentifier": "message-0"}]}
    assert find_job(intake_stack, "good").state == JobState.QUEUED


@pytest.mark.parametrize(
    "error", [TooManyRequests("a limit"), AiServerError("internal"), ProviderUnavailable("unavailable")]
)
def test_transient_error_does_not_reject_a_message(error: AiServerError) -> None:
    rejected: list[str] = []

    def handle(record: Mapping[str, Any]) -> None:
        raise error

    with pytest.raises(type(error)):
        batch.with_dead_letter(handle, lambda body, attributes: rejected.append(body))(intake_event("{}")["Records"][0])
    assert rejected == []


def test_message_content_is_never_logged(intake_stack: MotoStack, log: io.StringIO) -> None:
    invalid = [body(tag=SECRET)[:-1], body().replace("user", "").replace("blue", SECRET), f'{{"{SECRET}"', "{}"]
    intake_stack.invoke("intake", intake_event(body().replace("blue", SECRET), *invalid))
    intake_stack.invoke(
        "intake",
        intake_event(invalid[0]),
        INTAKE_DEAD_LETTER_QUEUE_URL="https://sqs.us-east-1.amazonaws.com/1/no-such-queue",
    )
    lines = [json.loads(line) for line in log.getvalue().splitlines()]
    assert [line["error"] for line in lines if line["message"] == "message_rejected"] == ["ValidationException"] * len(
        invalid
    )
    assert [line for line in lines if line["message"] == "record_failed"]
    assert SECRET not in log.getvalue()
    assert SECRET not in json.dumps(list(dead_letters_by_body(intake_stack).values()))


# --- binding ---


@pytest.mark.parametrize("name", ["keyId", "KeyId", "key_id", "keyid", "KEY-ID"])
def test_key_id_binds_in_every_naming_style(name: str) -> None:
    bound = requests.bind_intake_message(f'{{"{name}":"k","RefId":"r","Request":{CHAT_REQUEST}}}', None)
    assert (bound.key_id, bound.request.options.ref_id, bound.request.body) == ("k", "r", CHAT_REQUEST.encode())


@pytest.mark.parametrize(("in_body", "attribute"), [('"keyId":"k",', None), ("", "k"), ('"keyId":"k",', "k")])
def test_key_id_comes_from_the_body_or_the_attribute(in_body: str, attribute: str | None) -> None:
    assert requests.bind_intake_message(f'{{{in_body}"request":{CHAT_REQUEST}}}', attribute).key_id == "k"


@pytest.mark.parametrize("in_body", ['"keyId":"k",', '"keyId":"k","KeyId":"k",', '"keyId":null,"key_id":"other",'])
def test_two_key_ids_are_rejected(in_body: str) -> None:
    with pytest.raises(InvalidRequest):
        requests.bind_intake_message(f'{{{in_body}"request":{CHAT_REQUEST}}}', "other")


def bind_http_request(text: str) -> requests.ModelRequest:
    return requests.bind_queue_chat(text)


def bind_message_request(text: str) -> requests.ModelRequest:
    return requests.bind_intake_message(text, "k").request


@pytest.mark.parametrize("bind", [bind_http_request, bind_message_request])
def test_request_binds_the_same_from_http_and_from_a_message(bind: Callable[[str], requests.ModelRequest]) -> None:
    text = '{"refId":"r","tag":"t","replyTo":"https://x.io","deadline":60,"provider":"p","request":%s}'
    request = bind(text % CHAT_REQUEST.replace("}]}", '}],"temperature":1.50,"stream":true}'))
    assert request.options == requests.Options("r", "t", "https://x.io", 60, "p")
    assert request.body.decode() == CHAT_REQUEST.replace("}]}", '}],"temperature":1.50}')
