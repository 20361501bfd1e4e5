"""The real handlers on the events of events/, in process: what goes in, what comes out, what is left behind."""

import base64
import copy
import io
import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from moto.moto_api import recorder

from aiserver import api_keys, bootstrap
from aiserver.aws.circuits import DynamoCircuits
from aiserver.jobs.states import CallbackState, JobState
from aiserver.limits import MAX_BODY_BYTES
from aiserver.providers.circuit import Circuit, Gate
from local import template
from local.scripted import MODELS, ScriptedProvider
from tests.answers import PROMPT, body, call, is_error, job_id, put_job
from tests.moto_stack import STACK_NAME, WEBHOOK_SECRET, MotoStack, client, event, example_key
from tests.stack import TEMPLATE, properties

VARY = "Origin, Access-Control-Request-Headers"
ORIGIN, FOREIGN = "https://app.example.com", "https://evil.example.net"
CALLS = (
    "chat",
    "chat.embeddings",
    "chat.no-key",
    "queue",
    "queue.openai",
    "queue.reply-to",
    "queue.cancel",
    "queue.test-callback",
    "status",
    "status.models",
    "events",
)


@pytest.fixture
def bus(stack: MotoStack, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[Callable[[], list[Any]]]:
    """What has been put on the stack's event bus, as moto records it in the current folder."""
    monkeypatch.chdir(tmp_path)
    recorder.start_recording()

    def put() -> list[Any]:
        calls = [json.loads(line) for line in Path("moto_recording").read_text().splitlines()]
        bodies = [call["body"] for call in calls if call["headers"].get("X-Amz-Target") == "AWSEvents.PutEvents"]
        return [entry for text in bodies for entry in json.loads(base64.b64decode(text))["Entries"]]

    yield put
    recorder.stop_recording()


# --- ask now ---


def test_a_chat_is_answered_with_the_provider_s_own_words(stack: MotoStack, upstream: ScriptedProvider) -> None:
    given = b'{"id":"x","object":"chat.completion","choices":[{"index":0}],"new_member":1.50}'
    upstream.answer_with(
        200, given, {"content-type": "application/json", "x-request-id": "req_up", "set-cookie": "a=b"}
    )
    answer = stack.invoke("chat", event("chat"))
    assert (answer["statusCode"], answer["body"], answer["isBase64Encoded"]) == (200, given.decode(), False)
    assert answer["headers"] == {
        "content-type": "application/json",
        "x-request-id": "req_up",
        "x-aiserver-request-id": event("chat")["requestContext"]["requestId"],
        "x-provider": "scripted",
        "x-attempts": "1",
        "x-content-type-options": "nosniff",
    }
    (asked,) = upstream.requests
    assert asked.body == event("chat")["body"].encode()
    assert "authorization" not in asked.headers


def test_a_chat_without_a_key_is_refused_before_anything_is_asked(stack: MotoStack, upstream: ScriptedProvider) -> None:
    assert is_error(stack.invoke("chat", event("chat.no-key")), 401, "Unauthorized")
    assert upstream.requests == []


def test_a_body_in_base64_is_the_same_body(stack: MotoStack, upstream: ScriptedProvider) -> None:
    encoded = event("chat")
    encoded |= {"body": base64.b64encode(encoded["body"].encode()).decode(), "isBase64Encoded": True}
    assert stack.invoke("chat", encoded)["statusCode"] == 200
    assert upstream.requests[0].body == event("chat")["body"].encode()


# --- queue ---


def test_a_queued_chat_becomes_a_job_and_a_message(stack: MotoStack) -> None:
    answer = stack.invoke("queue", event("queue"))
    told = body(answer)
    assert answer["statusCode"] == 200
    assert set(told) == {"id", "refId", "statusUrl"}
    assert told["refId"] == "example-ref-1"
    assert stack.messages("HostedQueue") == [{"id": told["id"], "attempt": 0}]
    job = stack.jobs().get(told["id"])
    assert job is not None
    assert (job.state, job.owner, job.tag, job.callback) == (
        JobState.QUEUED,
        "example00000",
        "example",
        CallbackState.NONE,
    )
    assert json.loads(stack.jobs().read_request(job)) == json.loads(event("queue")["body"])["request"]


def test_a_chat_queued_in_openai_s_form_is_accepted_with_its_location(stack: MotoStack) -> None:
    answer = stack.invoke("queue", event("queue.openai"))
    told = body(answer)
    assert (answer["statusCode"], answer["headers"]["location"]) == (202, told["statusUrl"])
    job = stack.jobs().get(told["id"])
    assert job is not None
    assert (job.ref_id, job.tag, job.deadline - job.created_at) == ("example-ref-2", "example", 3_600_000)


def test_the_same_request_again_is_the_same_job_and_another_one_a_conflict(stack: MotoStack) -> None:
    first = body(stack.invoke("queue", event("queue")))
    assert body(stack.invoke("queue", event("queue"))) == first
    assert len(stack.messages("HostedQueue")) == 1
    other = event("queue")
    other["body"] = other["body"].replace("blue", "red")
    answer = stack.invoke("queue", other)
    assert is_error(answer, 409, "Conflict")
    assert answer["headers"]["x-should-retry"] == "false"


def test_a_reply_to_on_this_machine_is_refused_in_production_and_taken_in_development(stack: MotoStack) -> None:
    answer = stack.invoke("queue", event("queue.reply-to"))
    assert is_error(answer, 400, "ValidationException")
    assert body(answer)["error"]["param"] == "replyTo"
    stack.parameters["UnsafeAllowAnyCallbackAddress"] = "true"
    job = stack.jobs().get(body(stack.invoke("queue", event("queue.reply-to")))["id"])
    assert job is not None
    assert job.reply_to == "http://127.0.0.1:9000/hook"


def test_a_queued_job_is_cancelled_at_once_and_again_just_as_well(stack: MotoStack) -> None:
    queued = body(stack.invoke("queue", event("queue")))
    for _ in range(2):
        answer = stack.invoke("queue", event("queue.cancel"))
        assert answer["statusCode"] == 200
        assert body(answer) == {"id": queued["id"], "refId": "example-ref-1", "jobState": "Cancelled"}


def test_an_unknown_name_is_not_found_and_only_queueing_comes_in_batches(stack: MotoStack) -> None:
    for name, status in (("Nothing", 404), ("CancelJob[]", 400), ("queueOPENAIchatcompletion", 200)):
        named = event("queue")
        named["pathParameters"] = {"proxy": name}
        assert stack.invoke("queue", named)["statusCode"] == status


# --- status ---


def test_a_job_s_status_is_told_by_its_ref_id(stack: MotoStack) -> None:
    queued = body(stack.invoke("queue", event("queue")))
    answer = stack.invoke("status", event("status"))
    assert answer["statusCode"] == 200
    told = body(answer)
    assert (told["jobId"], told["refId"], told["jobState"]) == (queued["id"], "example-ref-1", "Queued")


def test_another_key_s_job_is_as_unknown_as_one_that_never_was(stack: MotoStack) -> None:
    never = stack.invoke("status", event("status"))
    stack.invoke("queue", event("queue"))
    text, *_ = api_keys.create_key("other", now_ms=bootstrap.CLOCK.now_ms())
    stack.put_key(text, "other")
    other = stack.invoke("status", call("status", Authorization=f"Bearer {text}"))
    assert is_error(other, 404, "NotFound")
    assert other["body"] == never["body"]


def test_the_models_are_those_of_the_providers(stack: MotoStack) -> None:
    told = body(stack.invoke("status", event("status.models")))
    assert told["object"] == "list"
    assert [model["id"] for model in told["data"]] == sorted(MODELS)
    assert {(model["object"], model["owned_by"]) for model in told["data"]} == {("model", "scripted")}


def test_health_needs_no_key_and_any_other_path_is_our_not_found(stack: MotoStack) -> None:
    health = event("status.models") | {"resource": "/health", "path": "/health"}
    del health["headers"]["Authorization"]
    for method in ("GET", "POST"):
        assert body(stack.invoke("status", health | {"httpMethod": method})) == {"status": "ok"}
    other = health | {"resource": "/{proxy+}", "path": "/a/b", "pathParameters": {"proxy": "a/b"}}
    assert is_error(stack.invoke("status", other), 404, "NotFound")


# --- work, and what follows ---


def test_a_message_has_its_job_done(stack: MotoStack, upstream: ScriptedProvider) -> None:
    put_job(stack, job_id("worker"))
    assert stack.invoke("worker", event("worker")) == {"batchItemFailures": []}
    job = stack.jobs().get(job_id("worker"))
    assert job is not None
    assert (job.state, job.attempt, job.served_by, len(upstream.requests)) == (JobState.COMPLETED, 1, "scripted", 1)
    assert b"scripted answer" in (stack.jobs().read_result(job) or b"")


def test_a_malformed_message_comes_again_alone(stack: MotoStack, upstream: ScriptedProvider) -> None:
    put_job(stack, job_id("worker"))
    batch = event("worker")
    for number, wrong in enumerate(["", "nonsense", "{}", '{"id": "x"}', "[]", '{"id": null}']):
        batch["Records"].insert(0, batch["Records"][-1] | {"messageId": f"wrong-{number}", "body": wrong})
    failures = stack.invoke("worker", batch)["batchItemFailures"]
    assert sorted(failure["itemIdentifier"] for failure in failures) == [f"wrong-{number}" for number in range(6)]
    job = stack.jobs().get(job_id("worker"))
    assert job is not None
    assert job.state == JobState.COMPLETED
    assert len(upstream.requests) == 1


def test_a_message_that_comes_twice_asks_the_provider_once(stack: MotoStack, upstream: ScriptedProvider) -> None:
    put_job(stack, job_id("worker"))
    for _ in range(2):
        assert stack.invoke("worker", event("worker")) == {"batchItemFailures": []}
    assert len(upstream.requests) == 1


def test_from_queue_to_result_a_job_takes_what_its_messages_say(stack: MotoStack) -> None:
    queued = body(stack.invoke("queue", event("queue")))
    batch = event("worker")
    (hint,) = stack.messages("HostedQueue")
    batch["Records"][0]["body"] = json.dumps(hint)
    assert stack.invoke("worker", batch) == {"batchItemFailures": []}
    told = body(stack.invoke("status", event("status")))
    assert (told["jobState"], told["attempts"], told["provider"]) == ("Completed", 1, "scripted")
    result = event("status") | {"resource": "/v1/jobs/{id}/result", "pathParameters": {"id": str(queued["id"])}}
    assert body(stack.invoke("status", result)) == told["result"] == told["chatResponse"]


def test_a_job_that_has_ended_triggers_its_callback_and_an_event(
    stack: MotoStack, bus: Callable[[], list[Any]]
) -> None:
    assert stack.invoke("finished", event("finished")) == {"batchItemFailures": []}
    assert stack.messages("CallbackQueue") == [json.loads(event("reply")["Records"][0]["body"])]
    (put,) = bus()
    told = event("out/JobCompleted")
    assert put["EventBusName"] == STACK_NAME
    assert (put["Source"], put["DetailType"]) == (told["source"], told["detail-type"])
    assert json.loads(put["Detail"]) == told["detail"]


def test_a_job_that_has_ended_without_a_reply_to_is_an_event_only(
    stack: MotoStack, bus: Callable[[], list[Any]]
) -> None:
    ended = event("finished")
    ended["Records"][0]["dynamodb"]["NewImage"]["cb"] = {"S": "None"}
    stack.invoke("finished", ended)
    assert stack.messages("CallbackQueue") == []
    assert len(bus()) == 1


def test_a_record_of_the_stream_that_fails_is_named_by_its_sequence_number(stack: MotoStack) -> None:
    mixed = event("finished")
    wrong = copy.deepcopy(mixed["Records"][0])
    wrong["dynamodb"] |= {"SequenceNumber": "111", "NewImage": {"id": {"N": "1"}}}
    mixed["Records"].insert(0, wrong)
    assert stack.invoke("finished", mixed) == {"batchItemFailures": [{"itemIdentifier": "111"}]}
    assert len(stack.messages("CallbackQueue")) == 1


def test_the_sweep_sends_an_overdue_job_s_message_again(stack: MotoStack, capsys: pytest.CaptureFixture[str]) -> None:
    overdue = put_job(stack, 4711, due_at=bootstrap.CLOCK.now_ms() - 90_000)
    put_job(stack, 4712)
    swept = stack.invoke("sweep", event("sweep"))
    assert swept["jobs"] == 1
    assert swept["oldestDueMs"] >= 90_000
    assert stack.messages("HostedQueue") == [{"id": overdue.id, "attempt": 0}]
    metric = json.loads(capsys.readouterr().out)
    assert metric["OldestDueAge"] == [swept["oldestDueMs"]]
    (emitted,) = metric["_aws"]["CloudWatchMetrics"]
    (named,) = emitted["Metrics"]
    alarm = properties("OverdueJobsAlarm")
    assert (emitted["Namespace"], named["Name"]) == (alarm["Namespace"], alarm["MetricName"])
    (dimension,) = alarm["Dimensions"]
    assert emitted["Dimensions"] == [[dimension["Name"]]]
    assert (metric[dimension["Name"]], dimension["Value"]) == (STACK_NAME, {"Ref": "AWS::StackName"})


@pytest.mark.parametrize(
    ("owner", "minutes", "open_circuits"), [("", 0, 1), ("", 4, 1), ("", 6, 0), ("example00000", 0, 0)]
)
def test_the_sweep_counts_circuits_that_are_open_to_everyone(
    owner: str,
    minutes: int,
    open_circuits: int,
    stack: MotoStack,
    capsys: pytest.CaptureFixture[str],
    caplog: pytest.LogCaptureFixture,
) -> None:
    """One that nobody has tried for five minutes is idle; one that is open to a single key is that key's own."""
    circuit = Circuit({(owner, "llama3"): Gate(retry_at=bootstrap.CLOCK.now_ms() - minutes * 60_000)}, "stamp")
    DynamoCircuits("JobsTable", client("dynamodb"), bootstrap.CLOCK).replace("gpu-1", Circuit(), circuit)
    stack.invoke("sweep", event("sweep"))
    lines = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert sum(line.get("OpenCircuits", [0])[0] for line in lines) == open_circuits
    assert [vars(one)["provider"] for one in caplog.records if one.msg == "circuit open"] == ["gpu-1"] * open_circuits


# --- browsers ---


def test_a_preflight_of_an_allowed_origin_is_told_what_it_may_send(stack: MotoStack) -> None:
    stack.parameters["CorsOrigins"] = f"https://first.example, {ORIGIN}"
    answer = stack.invoke("status", event("status.preflight"))
    assert (answer["statusCode"], answer["body"]) == (204, "")
    headers = answer["headers"]
    assert headers["access-control-allow-origin"] == ORIGIN
    assert "POST" in headers["access-control-allow-methods"]
    assert {"authorization", "content-type", "x-api-key"} <= set(headers["access-control-allow-headers"].split(", "))
    assert headers["vary"] == VARY


@pytest.mark.parametrize("origin", [FOREIGN, "null", None])
def test_a_preflight_of_a_foreign_origin_or_none_is_told_nothing(origin: str | None, stack: MotoStack) -> None:
    stack.parameters["CorsOrigins"] = ORIGIN
    asked = event("status.preflight")
    del asked["headers"]["Origin"]
    if origin:
        asked["headers"]["origin"] = origin
    answer = stack.invoke("status", asked)
    assert (answer["statusCode"], answer["headers"]) == (204, {"vary": VARY, "x-content-type-options": "nosniff"})


@pytest.mark.parametrize("name", CALLS)
def test_an_allowed_origin_may_read_answers_and_errors_alike(name: str, stack: MotoStack) -> None:
    stack.parameters["CorsOrigins"] = ORIGIN
    function = name.partition(".")[0]
    headers = stack.invoke(function, call(name, origin=ORIGIN))["headers"]
    assert headers["access-control-allow-origin"] == ORIGIN
    assert "x-aiserver-request-id" in headers["access-control-expose-headers"]
    for asked in (call(name, origin=FOREIGN), event(name)):
        headers = stack.invoke(function, asked)["headers"]
        assert not [header for header in headers if header.startswith("access-control")]
        assert headers["vary"] == "Origin"


def test_where_no_origin_is_allowed_answers_say_nothing_of_origins(stack: MotoStack) -> None:
    for name in ("status.preflight", "chat.no-key"):
        headers = stack.invoke(name.partition(".")[0], call(name, Origin=ORIGIN))["headers"]
        assert not [header for header in headers if header.startswith("access-control") or header == "vary"]


@pytest.mark.parametrize("path", sorted({route.path for route in template.routes(TEMPLATE)}))
def test_a_preflight_allows_every_method_its_path_has(path: str, stack: MotoStack) -> None:
    stack.parameters["CorsOrigins"] = ORIGIN
    routes = [route for route in template.routes(TEMPLATE) if route.path == path]
    (options,) = [route for route in routes if route.method == "OPTIONS"]
    asked = event("status.preflight") | {"resource": path}
    answer = stack.invoke(options.function.removesuffix("Function").lower(), asked)
    assert {route.method for route in routes} <= set(answer["headers"]["access-control-allow-methods"].split(", "))


# --- limits and faults ---


@pytest.mark.parametrize("letter", ["a", "é"])
def test_a_body_over_five_megabytes_is_refused_in_our_own_words(letter: str, stack: MotoStack) -> None:
    large = event("chat") | {"body": letter * (MAX_BODY_BYTES // len(letter.encode()) + 1)}
    assert is_error(stack.invoke("chat", large), 413, "PayloadTooLarge")


def test_a_body_of_just_five_megabytes_is_taken(stack: MotoStack, upstream: ScriptedProvider) -> None:
    just = event("chat")
    just["body"] = just["body"].replace(PROMPT, PROMPT + "." * (MAX_BODY_BYTES - len(just["body"])))
    assert len(just["body"]) == MAX_BODY_BYTES
    assert stack.invoke("chat", just)["statusCode"] == 200
    assert len(upstream.requests[0].body) == MAX_BODY_BYTES


@pytest.mark.parametrize("name", ["chat", "queue", "status", "status.models", "events"])
def test_a_fault_of_our_own_is_told_with_a_request_id_and_no_detail(
    name: str, stack: MotoStack, log: io.StringIO
) -> None:
    answer = stack.invoke(name.partition(".")[0], event(name), CONFIG_TABLE="no-such-table")
    request_id = event(name)["requestContext"]["requestId"]
    assert is_error(answer, 500, "InternalError")
    assert request_id in body(answer)["error"]["message"]
    assert answer["headers"]["x-request-id"] == request_id
    assert not [
        word for word in ("Traceback", "botocore", "ResourceNotFound", "no-such-table") if word in answer["body"]
    ]
    assert "ResourceNotFoundException" in log.getvalue()
    assert request_id in log.getvalue()


def test_every_answer_carries_our_request_id_beside_the_provider_s(stack: MotoStack) -> None:
    for name in CALLS:
        asked = event(name)
        headers = stack.invoke(name.partition(".")[0], asked)["headers"]
        assert headers["x-aiserver-request-id"] == asked["requestContext"]["requestId"]


# --- our own address ---


def status_url(stack: MotoStack, name: str, domain: str, before: str) -> str:
    asked = event(name)
    asked["requestContext"] |= {"domainName": domain, "path": before + asked["path"]}
    return body(stack.invoke("queue", asked))["statusUrl"]


@pytest.mark.parametrize("name", ["queue", "queue.openai"])
@pytest.mark.parametrize(
    ("domain", "before"),
    [
        ("a1b2c3d4e5.execute-api.us-east-1.amazonaws.com", "/prod"),
        ("ai.example.com", "/base"),
        ("ai.example.com", "/base/deeper"),
        ("ai.example.com", ""),
    ],
    ids=["stage", "base path", "deep base path", "bare domain"],
)
def test_links_lead_back_where_the_caller_came_in(name: str, domain: str, before: str, stack: MotoStack) -> None:
    url = status_url(stack, name, domain, before)
    assert url.startswith(f"https://{domain}{before}/api/GetOpenAiChatStatus?refId=example-ref-")


def test_links_lead_to_the_public_address_where_one_is_set(stack: MotoStack) -> None:
    stack.parameters["PublicBaseUrl"] = "https://ai.example.org/gateway"
    url = status_url(stack, "queue", "ai.example.com", "/base")
    assert url == "https://ai.example.org/gateway/api/GetOpenAiChatStatus?refId=example-ref-1"


# --- what is logged ---


def test_no_prompt_answer_or_key_is_logged_whatever_happens(
    stack: MotoStack, upstream: ScriptedProvider, log: io.StringIO, capsys: pytest.CaptureFixture[str]
) -> None:
    secret = json.dumps({"error": {"message": f"cannot answer '{PROMPT}' ANSWERED", "code": "x"}}).encode()
    put_job(stack, job_id("worker"), reply_to="http://127.0.0.1:9/hook/token-in-a-path")
    for status in (200, 400, 401, 429, 500, 503):
        upstream.answer_with(status, b'{"choices":["ANSWERED"]}' if status == 200 else secret)
        stack.invoke("chat", event("chat"))
    upstream.answer_with(400, secret)
    stack.invoke("worker", event("worker"))
    stack.invoke("worker", {"Records": [event("worker")["Records"][0] | {"body": f'{{"{PROMPT}"'}]})
    for name in (*CALLS, "intake", "intake.bad", "finished", "sweep"):
        stack.invoke(name.partition(".")[0], event(name))
    for broken in ("chat", "queue", "status", "events"):
        stack.invoke(broken, event(broken), CONFIG_TABLE="no-such-table")
    stack.invoke("queue", event("queue"), HOSTED_QUEUE_URL="https://sqs.us-east-1.amazonaws.com/1/no-such-queue")
    stack.parameters["UnsafeAllowAnyCallbackAddress"] = "true"
    stack.invoke("reply", event("reply"))
    lines = log.getvalue().splitlines() + capsys.readouterr().out.splitlines()
    messages = {json.loads(line).get("message") for line in lines}
    assert {"provider failed", "refused", "failed", "record failed", "job failed", "callback attempted"} <= messages
    for unsaid in (PROMPT, "sky", "ANSWERED", "one sentence", example_key(), "NotASecret", WEBHOOK_SECRET, "token-in"):
        assert not [line for line in lines if unsaid in line]
