"""The intake: other services' messages become jobs like callers' requests, and what never can be one is told why."""

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
ASK = '{"model":"llama3:8b","messages":[{"role":"user","content":"Why is the sky blue?"}]}'
SECRET = "do not tell"


def sent(*bodies: str, **attributes: str) -> dict[str, Any]:
    """The queue's event with these messages, each with these attributes."""
    (like, _) = event("intake")["Records"]
    told = {name: {"stringValue": value, "dataType": "String"} for name, value in attributes.items()}
    messages = [
        like | {"messageId": f"message-{number}", "body": body, "messageAttributes": told}
        for number, body in enumerate(bodies)
    ]
    return {"Records": messages}


def body(**members: object) -> str:
    return json.dumps({"keyId": KEY_ID, **members})[:-1] + f', "request": {ASK}}}'


def reasons(stack: MotoStack) -> dict[str, dict[str, str]]:
    """The attributes of each message among the intake's dead letters, by its body."""
    return {
        message["Body"]: {name: one["StringValue"] for name, one in message["MessageAttributes"].items()}
        for message in stack.taken("IntakeDeadLetterQueue")
    }


@pytest.fixture
def open_stack(stack: MotoStack) -> MotoStack:
    """A stack whose intake may queue jobs for the key of the event files."""
    stack.parameters["IntakeKeyIds"] = f"other0000000, {KEY_ID}"
    return stack


def found(stack: MotoStack, ref_id: str) -> Job:
    job = stack.jobs().find_by_ref_id(KEY_ID, ref_id, now_ms=bootstrap.CLOCK.now_ms())
    assert job is not None
    return job


def test_messages_become_jobs_of_the_keys_they_name(open_stack: MotoStack) -> None:
    assert open_stack.invoke("intake", event("intake")) == {"batchItemFailures": []}
    by_body = found(open_stack, "example-ref-4")
    by_attribute = found(open_stack, event("intake")["Records"][1]["messageId"])
    hints = open_stack.messages("HostedQueue")
    assert sorted(hint["id"] for hint in hints) == sorted([by_body.id, by_attribute.id])
    assert (by_body.state, by_body.tag, by_attribute.tag) == (JobState.QUEUED, "example", None)
    asked = json.loads(event("intake")["Records"][0]["body"])["request"]
    assert json.loads(open_stack.jobs().read_request(by_body)) == asked
    assert open_stack.taken("IntakeDeadLetterQueue") == []


def test_a_message_that_comes_twice_is_one_job_with_its_id_for_a_ref_id(open_stack: MotoStack) -> None:
    for _ in range(2):
        assert open_stack.invoke("intake", sent(body())) == {"batchItemFailures": []}
    assert open_stack.messages("HostedQueue") == [{"id": found(open_stack, "message-0").id, "attempt": 0}]


def test_a_ref_id_makes_two_messages_one_job_and_another_request_a_conflict(open_stack: MotoStack) -> None:
    other = body(refId="r").replace("blue", "red")
    open_stack.invoke("intake", sent(body(refId="r"), body(refId="r")))
    open_stack.invoke("intake", sent(other))
    assert open_stack.messages("HostedQueue") == [{"id": found(open_stack, "r").id, "attempt": 0}]
    assert reasons(open_stack)[other]["errorCode"] == "Conflict"


def test_a_refused_message_keeps_as_many_attributes_as_sqs_takes_beside_the_reason(open_stack: MotoStack) -> None:
    mine = {f"mine{number}": "x" for number in range(10)}
    assert open_stack.invoke("intake", sent("not JSON", **mine)) == {"batchItemFailures": []}
    (kept,) = reasons(open_stack).values()
    assert len(kept) == 10
    assert {"errorCode", "messageId", "reason", "mine0"} <= set(kept)


def test_links_lead_to_the_api_or_to_the_public_address(open_stack: MotoStack) -> None:
    open_stack.invoke("intake", sent(body(refId="here")))
    open_stack.parameters["PublicBaseUrl"] = "https://ai.example.org"
    open_stack.invoke("intake", sent(body(refId="there")))
    assert found(open_stack, "here").base_url == f"https://{API_ID}.execute-api.us-east-1.amazonaws.com/prod"
    assert found(open_stack, "there").base_url == "https://ai.example.org"


@pytest.mark.parametrize(
    ("message", "error_code", "reason"),
    [
        ("not JSON", "ValidationException", "The request body is not valid JSON: invalid character at line 1 column 2"),
        ("[]", "ValidationException", "The request body must be a JSON object"),
        (f'{{"keyId":"{KEY_ID}"}}', "ValidationException", "'request' is required: the chat completion to run"),
        (f'{{"request":{ASK}}}', "ValidationException", "'keyId' is required"),
        (f'{{"keyId":7,"request":{ASK}}}', "ValidationException", "'keyId' must be a string"),
        (f'{{"keyId":"nobodys00000","request":{ASK}}}', "Forbidden", "Key nobodys00000 is not one"),
        (f'{{"keyId":"other0000000","request":{ASK}}}', "Unauthorized", "The API key is not valid"),
        (body().replace("llama3:8b", "no\\u0000body"), "NotFound", "Model no?body not found"),
        (body(deadline="soon"), "ValidationException", "'deadline' must be a date or a number of seconds"),
        (body(replyTo="http://127.0.0.1/x"), "ValidationException", "replyTo"),
        (body(tag="t" * 257), "ValidationException", "'tag' must be 1 to 256 characters"),
    ],
)
def test_what_can_never_be_a_job_goes_to_the_dead_letters_with_the_reason(
    message: str, error_code: str, reason: str, open_stack: MotoStack
) -> None:
    assert open_stack.invoke("intake", sent(message, body(refId="good"))) == {"batchItemFailures": []}
    told = reasons(open_stack)
    assert set(told) == {message}
    assert (told[message]["errorCode"], told[message]["messageId"]) == (error_code, "message-0")
    assert told[message]["reason"].startswith(reason)
    assert open_stack.messages("HostedQueue") == [{"id": found(open_stack, "good").id, "attempt": 0}]


def test_the_bad_examples_are_bad(open_stack: MotoStack) -> None:
    assert open_stack.invoke("intake", event("intake.bad")) == {"batchItemFailures": []}
    assert set(reasons(open_stack)) == {record["body"] for record in event("intake.bad")["Records"]}
    assert open_stack.messages("HostedQueue") == []


def test_a_refused_message_keeps_its_attributes(open_stack: MotoStack) -> None:
    open_stack.invoke("intake", sent("{}", keyId=KEY_ID, traceparent="00-1"))
    told = reasons(open_stack)["{}"]
    assert (told["keyId"], told["traceparent"], told["errorCode"]) == (KEY_ID, "00-1", "ValidationException")


def test_an_intake_without_a_list_of_keys_refuses_everything(stack: MotoStack) -> None:
    stack.invoke("intake", sent(body()))
    assert reasons(stack)[body()]["errorCode"] == "Forbidden"


@pytest.mark.parametrize(
    ("change", "reason"),
    [({"revoked_at": 1}, "The API key is not valid"), ({"expires_at": 1}, "The API key has expired")],
)
def test_a_key_on_the_list_must_be_in_force(change: dict[str, int], reason: str, open_stack: MotoStack) -> None:
    key = open_stack.put_key(example_key(), "example")
    assert open_stack.config().replace_key(key, replace(key, **change))
    open_stack.invoke("intake", sent(body()))
    assert reasons(open_stack)[body()] == {
        "errorCode": "Unauthorized",
        "reason": reason,
        "messageId": "message-0",
    }


@pytest.mark.parametrize("away", ["CONFIG_TABLE", "JOBS_TABLE"])
def test_a_message_comes_again_while_the_database_is_away(away: str, open_stack: MotoStack) -> None:
    answer = open_stack.invoke("intake", sent(body()), **{away: "no-such-table"})
    assert answer == {"batchItemFailures": [{"itemIdentifier": "message-0"}]}
    assert open_stack.taken("IntakeDeadLetterQueue") == []


def test_a_bad_message_comes_again_while_its_dead_letters_cannot_be_written(open_stack: MotoStack) -> None:
    gone = "https://sqs.us-east-1.amazonaws.com/1/no-such-queue"
    answer = open_stack.invoke("intake", sent("{}", body(refId="good")), INTAKE_DEAD_LETTER_QUEUE_URL=gone)
    assert answer == {"batchItemFailures": [{"itemIdentifier": "message-0"}]}
    assert found(open_stack, "good").state == JobState.QUEUED


@pytest.mark.parametrize("error", [TooManyRequests("a limit"), AiServerError("ours"), ProviderUnavailable("away")])
def test_what_passes_is_no_reason_to_refuse_a_message(error: AiServerError) -> None:
    refused: list[str] = []

    def handle(record: Mapping[str, Any]) -> None:
        raise error

    with pytest.raises(type(error)):
        batch.with_dead_letter(handle, lambda body, told: refused.append(body))(sent("{}")["Records"][0])
    assert refused == []


def test_nothing_of_a_message_is_logged(open_stack: MotoStack, log: io.StringIO) -> None:
    bad = [body(tag=SECRET)[:-1], body().replace("user", "").replace("blue", SECRET), f'{{"{SECRET}"', "{}"]
    open_stack.invoke("intake", sent(body().replace("blue", SECRET), *bad))
    open_stack.invoke(
        "intake", sent(bad[0]), INTAKE_DEAD_LETTER_QUEUE_URL="https://sqs.us-east-1.amazonaws.com/1/no-such-queue"
    )
    lines = [json.loads(line) for line in log.getvalue().splitlines()]
    assert [line["error"] for line in lines if line["message"] == "refused"] == ["ValidationException"] * len(bad)
    assert [line for line in lines if line["message"] == "record failed"]
    assert SECRET not in log.getvalue()
    assert SECRET not in json.dumps(list(reasons(open_stack).values()))


# --- binding ---


@pytest.mark.parametrize("name", ["keyId", "KeyId", "key_id", "keyid", "KEY-ID"])
def test_a_key_s_id_binds_in_every_naming_style(name: str) -> None:
    bound = requests.bind_intake_message(f'{{"{name}":"k","RefId":"r","Request":{ASK}}}', None)
    assert (bound.key_id, bound.request.options.ref_id, bound.request.body) == ("k", "r", ASK.encode())


@pytest.mark.parametrize(("in_body", "attribute"), [('"keyId":"k",', None), ("", "k"), ('"keyId":"k",', "k")])
def test_a_key_s_id_is_in_the_body_or_beside_it(in_body: str, attribute: str | None) -> None:
    assert requests.bind_intake_message(f'{{{in_body}"request":{ASK}}}', attribute).key_id == "k"


@pytest.mark.parametrize("in_body", ['"keyId":"k",', '"keyId":"k","KeyId":"k",', '"keyId":null,"key_id":"other",'])
def test_two_ids_of_keys_are_refused(in_body: str) -> None:
    with pytest.raises(InvalidRequest):
        requests.bind_intake_message(f'{{{in_body}"request":{ASK}}}', "other")


def bound_by_http(text: str) -> requests.ModelRequest:
    return requests.bind_queue_chat(text)


def bound_by_message(text: str) -> requests.ModelRequest:
    return requests.bind_intake_message(text, "k").request


@pytest.mark.parametrize("bind", [bound_by_http, bound_by_message])
def test_a_request_binds_the_same_by_http_and_by_message(bind: Callable[[str], requests.ModelRequest]) -> None:
    text = '{"refId":"r","tag":"t","replyTo":"https://x.io","deadline":60,"provider":"p","request":%s}'
    asked = bind(text % ASK.replace("}]}", '}],"temperature":1.50,"stream":true}'))
    assert asked.options == requests.Options("r", "t", "https://x.io", 60, "p")
    assert asked.body.decode() == ASK.replace("}]}", '}],"temperature":1.50}')
