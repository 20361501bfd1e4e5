"""The real handlers in this process, on the events of events/: responses, stored jobs, messages and logs."""

import base64
import copy
import io
import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from moto.moto_api import recorder

from aiserver import api_keys, bootstrap, http_api
from aiserver.aws.circuits import DynamoCircuits
from aiserver.circuit_breaker.circuit import Circuit, Gate
from aiserver.jobs.states import CallbackState, JobState
from aiserver.limits import MAX_BODY_BYTES
from local import template
from local.scripted import MODELS, ScriptedProvider
from tests.answers import PROMPT, event_with_headers, is_error, json_body, put_job, queued_job_id
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
    """Return a function that reads the entries on the event bus from moto's recording in the current folder."""
    monkeypatch.chdir(tmp_path)
    recorder.start_recording()

    def entries() -> list[Any]:
        calls = [json.loads(line) for line in Path("moto_recording").read_text().splitlines()]
        bodies = [call["body"] for call in calls if call["headers"].get("X-Amz-Target") == "AWSEvents.PutEvents"]
        return [entry for text in bodies for entry in json.loads(base64.b64decode(text))["Entries"]]

    yield entries
    recorder.stop_recording()


# --- chat ---


def test_chat_returns_the_provider_response_unchanged(stack: MotoStack, upstream: ScriptedProvider) -> None:
    body = b'{"id":"x","object":"chat.completion","choices":[{"index":0}],"new_member":1.50}'
    upstream.respond_with(
        200, body, {"content-type": "application/json", "x-request-id": "req_up", "set-cookie": "a=b"}
    )
    response = stack.invoke("chat", event("chat"))
    assert (response["statusCode"], response["body"], response["isBase64Encoded"]) == (200, body.decode(), False)
    assert response["headers"] == {
        "content-type": "application/json",
        "x-request-id": "req_up",
        "x-aiserver-request-id": event("chat")["requestContext"]["requestId"],
        "x-provider": "scripted",
        "x-attempts": "1",
        "x-content-type-options": "nosniff",
    }
    (request,) = upstream.requests
    assert request.body == event("chat")["body"].encode()
    assert "authorization" not in request.headers


def test_chat_without_api_key_is_rejected_without_provider_call(stack: MotoStack, upstream: ScriptedProvider) -> None:
    assert is_error(stack.invoke("chat", event("chat.no-key")), 401, "Unauthorized")
    assert upstream.requests == []


def test_base64_body_is_decoded(stack: MotoStack, upstream: ScriptedProvider) -> None:
    encoded = event("chat")
    encoded |= {"body": base64.b64encode(encoded["body"].encode()).decode(), "isBase64Encoded": True}
    assert stack.invoke("chat", encoded)["statusCode"] == 200
    assert upstream.requests[0].body == event("chat")["body"].encode()


# --- queue ---


def test_queued_chat_creates_a_job_and_a_message(stack: MotoStack) -> None:
    response = stack.invoke("queue", event("queue"))
    document = json_body(response)
    assert response["statusCode"] == 200
    assert set(document) == {"id", "refId", "statusUrl"}
    assert document["refId"] == "example-ref-1"
    assert stack.messages("HostedQueue") == [{"id": document["id"], "attempt": 0}]
    job = stack.jobs().get(document["id"])
    assert job is not None
    assert (job.state, job.owner, job.tag, job.callback) == (
        JobState.QUEUED,
        "example00000",
        "example",
        CallbackState.NONE,
    )
    assert json.loads(stack.jobs().read_request(job)) == json.loads(event("queue")["body"])["request"]


def test_openai_queue_chat_is_accepted_with_a_location(stack: MotoStack) -> None:
    response = stack.invoke("queue", event("queue.openai"))
    document = json_body(response)
    assert (response["statusCode"], response["headers"]["location"]) == (202, document["statusUrl"])
    job = stack.jobs().get(document["id"])
    assert job is not None
    assert (job.ref_id, job.tag, job.deadline - job.created_at) == ("example-ref-2", "example", 3_600_000)


def test_repeated_ref_id_returns_the_job_or_conflicts_on_another_body(stack: MotoStack) -> None:
    first = json_body(stack.invoke("queue", event("queue")))
    assert json_body(stack.invoke("queue", event("queue"))) == first
    assert len(stack.messages("HostedQueue")) == 1
    changed = event("queue")
    changed["body"] = changed["body"].replace("blue", "red")
    response = stack.invoke("queue", changed)
    assert is_error(response, 409, "Conflict")
    assert response["headers"]["x-should-retry"] == "false"


def test_loopback_reply_to_is_rejected_unless_unsafe_addresses_are_allowed(stack: MotoStack) -> None:
    response = stack.invoke("queue", event("queue.reply-to"))
    assert is_error(response, 400, "ValidationException")
    assert json_body(response)["error"]["param"] == "replyTo"
    stack.parameters["UnsafeAllowAnyCallbackAddress"] = "true"
    job = stack.jobs().get(json_body(stack.invoke("queue", event("queue.reply-to")))["id"])
    assert job is not None
    assert job.reply_to == "http://127.0.0.1:9000/hook"


def test_cancelling_a_queued_job_is_immediate_and_idempotent(stack: MotoStack) -> None:
    queued = json_body(stack.invoke("queue", event("queue")))
    for _ in range(2):
        response = stack.invoke("queue", event("queue.cancel"))
        assert response["statusCode"] == 200
        assert json_body(response) == {"id": queued["id"], "refId": "example-ref-1", "jobState": "Cancelled"}


def test_unknown_operation_is_404_and_only_queueing_accepts_batches(stack: MotoStack) -> None:
    for name, status in (("Nothing", 404), ("CancelJob[]", 400), ("queueOPENAIchatcompletion", 200)):
        request = event("queue")
        request["pathParameters"] = {"proxy": name}
        assert stack.invoke("queue", request)["statusCode"] == status


# --- status ---


def test_status_is_returned_by_ref_id(stack: MotoStack) -> None:
    queued = json_body(stack.invoke("queue", event("queue")))
    response = stack.invoke("status", event("status"))
    assert response["statusCode"] == 200
    document = json_body(response)
    assert (document["jobId"], document["refId"], document["jobState"]) == (queued["id"], "example-ref-1", "Queued")


def test_job_of_another_key_is_the_same_404_as_an_unknown_one(stack: MotoStack) -> None:
    unknown = stack.invoke("status", event("status"))
    stack.invoke("queue", event("queue"))
    text, *_ = api_keys.create_key("other", now_ms=bootstrap.CLOCK.now_ms())
    stack.put_key(text, "other")
    response = stack.invoke("status", event_with_headers("status", Authorization=f"Bearer {text}"))
    assert is_error(response, 404, "NotFound")
    assert response["body"] == unknown["body"]


def test_models_lists_the_models_of_all_providers(stack: MotoStack) -> None:
    document = json_body(stack.invoke("status", event("status.models")))
    assert document["object"] == "list"
    assert [model["id"] for model in document["data"]] == sorted(MODELS)
    assert {(model["object"], model["owned_by"]) for model in document["data"]} == {("model", "scripted")}


def test_health_needs_no_api_key_and_other_paths_are_404(stack: MotoStack) -> None:
    health = event("status.models") | {"resource": "/health", "path": "/health"}
    del health["headers"]["Authorization"]
    for method in ("GET", "POST"):
        assert json_body(stack.invoke("status", health | {"httpMethod": method})) == {"status": "ok"}
    request = health | {"resource": "/{proxy+}", "path": "/a/b", "pathParameters": {"proxy": "a/b"}}
    assert is_error(stack.invoke("status", request), 404, "NotFound")


# --- worker, finished and sweep ---


def test_worker_message_completes_its_job(stack: MotoStack, upstream: ScriptedProvider) -> None:
    put_job(stack, queued_job_id("worker"))
    assert stack.invoke("worker", event("worker")) == {"batchItemFailures": []}
    job = stack.jobs().get(queued_job_id("worker"))
    assert job is not None
    assert (job.state, job.attempt, job.served_by, len(upstream.requests)) == (JobState.COMPLETED, 1, "scripted", 1)
    assert b"scripted response" in (stack.jobs().read_result(job) or b"")


def test_only_malformed_messages_are_reported_as_failures(stack: MotoStack, upstream: ScriptedProvider) -> None:
    put_job(stack, queued_job_id("worker"))
    batch = event("worker")
    for number, malformed in enumerate(["", "nonsense", "{}", '{"id": "x"}', "[]", '{"id": null}']):
        batch["Records"].insert(0, batch["Records"][-1] | {"messageId": f"wrong-{number}", "body": malformed})
    failures = stack.invoke("worker", batch)["batchItemFailures"]
    assert sorted(failure["itemIdentifier"] for failure in failures) == [f"wrong-{number}" for number in range(6)]
    job = stack.jobs().get(queued_job_id("worker"))
    assert job is not None
    assert job.state == JobState.COMPLETED
    assert len(upstream.requests) == 1


def test_duplicate_message_calls_the_provider_once(stack: MotoStack, upstream: ScriptedProvider) -> None:
    put_job(stack, queued_job_id("worker"))
    for _ in range(2):
        assert stack.invoke("worker", event("worker")) == {"batchItemFailures": []}
    assert len(upstream.requests) == 1


def test_queued_job_runs_from_message_to_result(stack: MotoStack) -> None:
    queued = json_body(stack.invoke("queue", event("queue")))
    batch = event("worker")
    (message,) = stack.messages("HostedQueue")
    batch["Records"][0]["body"] = json.dumps(message)
    assert stack.invoke("worker", batch) == {"batchItemFailures": []}
    document = json_body(stack.invoke("status", event("status")))
    assert (document["jobState"], document["attempts"], document["provider"]) == ("Completed", 1, "scripted")
    result = event("status") | {"resource": "/v1/jobs/{id}/result", "pathParameters": {"id": str(queued["id"])}}
    assert json_body(stack.invoke("status", result)) == document["result"] == document["chatResponse"]


def test_finished_job_sends_callback_message_and_event(stack: MotoStack, bus: Callable[[], list[Any]]) -> None:
    assert stack.invoke("finished", event("finished")) == {"batchItemFailures": []}
    assert stack.messages("CallbackQueue") == [json.loads(event("reply")["Records"][0]["body"])]
    (entry,) = bus()
    expected = event("out/JobCompleted")
    assert entry["EventBusName"] == STACK_NAME
    assert (entry["Source"], entry["DetailType"]) == (expected["source"], expected["detail-type"])
    assert json.loads(entry["Detail"]) == expected["detail"]


def test_finished_job_without_reply_to_sends_only_an_event(stack: MotoStack, bus: Callable[[], list[Any]]) -> None:
    stream_event = event("finished")
    stream_event["Records"][0]["dynamodb"]["NewImage"]["cb"] = {"S": "None"}
    stack.invoke("finished", stream_event)
    assert stack.messages("CallbackQueue") == []
    assert len(bus()) == 1


def test_failed_stream_record_is_reported_by_sequence_number(stack: MotoStack) -> None:
    stream_event = event("finished")
    invalid = copy.deepcopy(stream_event["Records"][0])
    invalid["dynamodb"] |= {"SequenceNumber": "111", "NewImage": {"id": {"N": "1"}}}
    stream_event["Records"].insert(0, invalid)
    assert stack.invoke("finished", stream_event) == {"batchItemFailures": [{"itemIdentifier": "111"}]}
    assert len(stack.messages("CallbackQueue")) == 1


def test_sweep_resends_the_message_of_an_overdue_job(stack: MotoStack, capsys: pytest.CaptureFixture[str]) -> None:
    overdue = put_job(stack, 4711, due_at=bootstrap.CLOCK.now_ms() - 90_000)
    put_job(stack, 4712)
    result = stack.invoke("sweep", event("sweep"))
    assert result["jobs"] == 1
    assert result["oldestDueMs"] >= 90_000
    assert stack.messages("HostedQueue") == [{"id": overdue.id, "attempt": 0}]
    metric = json.loads(capsys.readouterr().out)
    assert metric["OldestDueAge"] == [result["oldestDueMs"]]
    (directive,) = metric["_aws"]["CloudWatchMetrics"]
    (metric_definition,) = directive["Metrics"]
    alarm = properties("OverdueJobsAlarm")
    assert (directive["Namespace"], metric_definition["Name"]) == (alarm["Namespace"], alarm["MetricName"])
    (dimension,) = alarm["Dimensions"]
    assert directive["Dimensions"] == [[dimension["Name"]]]
    assert (metric[dimension["Name"]], dimension["Value"]) == (STACK_NAME, {"Ref": "AWS::StackName"})


@pytest.mark.parametrize(
    ("owner", "minutes", "open_circuits"), [("", 0, 1), ("", 4, 1), ("", 6, 0), ("example00000", 0, 0)]
)
def test_sweep_counts_circuits_that_are_open_for_all_keys(
    owner: str,
    minutes: int,
    open_circuits: int,
    stack: MotoStack,
    capsys: pytest.CaptureFixture[str],
    caplog: pytest.LogCaptureFixture,
) -> None:
    """Circuits without a probe for five minutes, and circuits of a single key, are not counted."""
    circuit = Circuit({(owner, "llama3"): Gate(retry_at=bootstrap.CLOCK.now_ms() - minutes * 60_000)}, "stamp")
    DynamoCircuits("JobsTable", client("dynamodb"), bootstrap.CLOCK).replace("gpu-1", Circuit(), circuit)
    stack.invoke("sweep", event("sweep"))
    lines = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert sum(line.get("OpenCircuits", [0])[0] for line in lines) == open_circuits
    assert [vars(record)["provider"] for record in caplog.records if record.msg == "circuit_still_open"] == [
        "gpu-1"
    ] * open_circuits


# --- CORS ---


def test_preflight_of_an_allowed_origin_gets_cors_headers(stack: MotoStack) -> None:
    stack.parameters["CorsOrigins"] = f"https://first.example, {ORIGIN}"
    response = stack.invoke("status", event("status.preflight"))
    assert (response["statusCode"], response["body"]) == (204, "")
    headers = response["headers"]
    assert headers["access-control-allow-origin"] == ORIGIN
    assert "POST" in headers["access-control-allow-methods"]
    assert {"authorization", "content-type", "x-api-key"} <= set(headers["access-control-allow-headers"].split(", "))
    assert headers["vary"] == VARY


@pytest.mark.parametrize("origin", [FOREIGN, "null", None])
def test_preflight_of_a_foreign_or_missing_origin_gets_no_cors_headers(origin: str | None, stack: MotoStack) -> None:
    stack.parameters["CorsOrigins"] = ORIGIN
    request = event("status.preflight")
    del request["headers"]["Origin"]
    if origin:
        request["headers"]["origin"] = origin
    response = stack.invoke("status", request)
    assert (response["statusCode"], response["headers"]) == (204, {"vary": VARY, "x-content-type-options": "nosniff"})


@pytest.mark.parametrize("name", CALLS)
def test_allowed_origin_may_read_responses_and_errors(name: str, stack: MotoStack) -> None:
    stack.parameters["CorsOrigins"] = ORIGIN
    function = name.partition(".")[0]
    headers = stack.invoke(function, event_with_headers(name, origin=ORIGIN))["headers"]
    assert headers["access-control-allow-origin"] == ORIGIN
    assert "x-aiserver-request-id" in headers["access-control-expose-headers"]
    for request in (event_with_headers(name, origin=FOREIGN), event(name)):
        headers = stack.invoke(function, request)["headers"]
        assert not [header for header in headers if header.startswith("access-control")]
        assert headers["vary"] == "Origin"


def test_no_cors_headers_without_allowed_origins(stack: MotoStack) -> None:
    for name in ("status.preflight", "chat.no-key"):
        headers = stack.invoke(name.partition(".")[0], event_with_headers(name, Origin=ORIGIN))["headers"]
        assert not [header for header in headers if header.startswith("access-control") or header == "vary"]


@pytest.mark.parametrize("path", sorted({route.path for route in template.routes(TEMPLATE)}))
def test_preflight_allows_every_method_of_its_path(path: str, stack: MotoStack) -> None:
    stack.parameters["CorsOrigins"] = ORIGIN
    routes = [route for route in template.routes(TEMPLATE) if route.path == path]
    (options,) = [route for route in routes if route.method == "OPTIONS"]
    request = event("status.preflight") | {"resource": path}
    response = stack.invoke(options.function.removesuffix("Function").lower(), request)
    allowed_methods = response["headers"]["access-control-allow-methods"].split(", ")
    assert allowed_methods == sorted({route.method for route in routes} | http_api.METHODS)


# --- limits and internal errors ---


@pytest.mark.parametrize("letter", ["a", "é"])
def test_body_over_five_megabytes_is_rejected(letter: str, stack: MotoStack) -> None:
    large = event("chat") | {"body": letter * (MAX_BODY_BYTES // len(letter.encode()) + 1)}
    assert is_error(stack.invoke("chat", large), 413, "PayloadTooLarge")


def test_body_of_exactly_five_megabytes_is_accepted(stack: MotoStack, upstream: ScriptedProvider) -> None:
    request = event("chat")
    request["body"] = request["body"].replace(PROMPT, PROMPT + "." * (MAX_BODY_BYTES - len(request["body"])))
    assert len(request["body"]) == MAX_BODY_BYTES
    assert stack.invoke("chat", request)["statusCode"] == 200
    assert len(upstream.requests[0].body) == MAX_BODY_BYTES


@pytest.mark.parametrize("name", ["chat", "queue", "status", "status.models", "events"])
def test_internal_error_has_a_request_id_and_no_detail(name: str, stack: MotoStack, log: io.StringIO) -> None:
    response = stack.invoke(name.partition(".")[0], event(name), CONFIG_TABLE="no-such-table")
    request_id = event(name)["requestContext"]["requestId"]
    assert is_error(response, 500, "InternalError")
    assert request_id in json_body(response)["error"]["message"]
    assert response["headers"]["x-request-id"] == request_id
    assert not [
        word for word in ("Traceback", "botocore", "ResourceNotFound", "no-such-table") if word in response["body"]
    ]
    assert "ResourceNotFoundException" in log.getvalue()
    assert request_id in log.getvalue()


def test_every_response_has_the_gateway_request_id(stack: MotoStack) -> None:
    for name in CALLS:
        request = event(name)
        headers = stack.invoke(name.partition(".")[0], request)["headers"]
        assert headers["x-aiserver-request-id"] == request["requestContext"]["requestId"]


# --- public URLs ---


def status_url(stack: MotoStack, name: str, domain: str, base_path: str) -> str:
    request = event(name)
    request["requestContext"] |= {"domainName": domain, "path": base_path + request["path"]}
    return json_body(stack.invoke("queue", request))["statusUrl"]


@pytest.mark.parametrize("name", ["queue", "queue.openai"])
@pytest.mark.parametrize(
    ("domain", "base_path"),
    [
        ("a1b2c3d4e5.execute-api.us-east-1.amazonaws.com", "/prod"),
        ("ai.example.com", "/base"),
        ("ai.example.com", "/base/deeper"),
        ("ai.example.com", ""),
    ],
    ids=["stage", "base path", "deep base path", "bare domain"],
)
def test_links_use_the_domain_and_path_of_the_request(name: str, domain: str, base_path: str, stack: MotoStack) -> None:
    url = status_url(stack, name, domain, base_path)
    assert url.startswith(f"https://{domain}{base_path}/api/GetOpenAiChatStatus?refId=example-ref-")


def test_links_use_the_configured_public_base_url(stack: MotoStack) -> None:
    stack.parameters["PublicBaseUrl"] = "https://ai.example.org/gateway"
    url = status_url(stack, "queue", "ai.example.com", "/base")
    assert url == "https://ai.example.org/gateway/api/GetOpenAiChatStatus?refId=example-ref-1"


# --- logs ---


def test_logs_contain_no_prompt_response_or_key(
    stack: MotoStack, upstream: ScriptedProvider, log: io.StringIO, capsys: pytest.CaptureFixture[str]
) -> None:
    error_body = json.dumps({"error": {"message": f"cannot answer '{PROMPT}' ANSWERED", "code": "x"}}).encode()
    put_job(stack, queued_job_id("worker"), reply_to="http://127.0.0.1:9/hook/token-in-a-path")
    for status in (200, 400, 401, 429, 500, 503):
        upstream.respond_with(status, b'{"choices":["ANSWERED"]}' if status == 200 else error_body)
        stack.invoke("chat", event("chat"))
    upstream.respond_with(400, error_body)
    stack.invoke("worker", event("worker"))
    stack.invoke("worker", {"Records": [event("worker")["Records"][0] | {"body": f'{{"{PROMPT}"'}]})
    for name in (*CALLS, "intake", "intake.bad", "finished", "sweep"):
        stack.invoke(name.partition(".")[0], event(name))
    for function in ("chat", "queue", "status", "events"):
        stack.invoke(function, event(function), CONFIG_TABLE="no-such-table")
    stack.invoke("queue", event("queue"), HOSTED_QUEUE_URL="https://sqs.us-east-1.amazonaws.com/1/no-such-queue")
    stack.parameters["UnsafeAllowAnyCallbackAddress"] = "true"
    stack.invoke("reply", event("reply"))
    lines = log.getvalue().splitlines() + capsys.readouterr().out.splitlines()
    messages = {json.loads(line).get("message") for line in lines}
    assert {
        *("provider_call_failed", "request_rejected", "request_failed"),
        *("record_failed", "job_failed", "callback_attempted"),
    } <= messages
    for secret_text in (
        PROMPT,
        "sky",
        "ANSWERED",
        "one sentence",
        example_key(),
        "NotASecret",
        WEBHOOK_SECRET,
        "token-in",
    ):
        assert not [line for line in lines if secret_text in line]
