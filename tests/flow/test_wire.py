"""The gateway over plain HTTP: requests and responses pass unchanged, and each kind of bad input has its error."""

import gzip
import json
import socket
import threading
from concurrent.futures import ThreadPoolExecutor

import httpx
import pytest

from local.receiver import Receiver
from tests.flow.conftest import Product

MESSAGES = '"messages":[{"role":"user","content":"hi"}]'
CHAT = '{"model":"llama3:8b",%s}' % MESSAGES


def error_of(response: httpx.Response) -> tuple[int, str, str, str]:
    body = response.json()
    assert response.headers["content-type"].startswith("application/json")
    assert body["responseStatus"]["message"] == body["error"]["message"]
    assert body["responseStatus"]["meta"] == {}
    assert isinstance(body["responseStatus"]["errors"], list)
    return response.status_code, body["responseStatus"]["errorCode"], body["error"]["type"], body["error"]["code"]


def test_request_and_response_pass_byte_for_byte(product: Product) -> None:
    request_body = ' {"x" : 2.50,"model":"llama3:8b",%s,\n"y":1E400,"seed":0, "é":"\\u00e9"} ' % MESSAGES
    response_body = (
        b'{ "id":"1", "choices":[{}], "usage":{"total_tokens":1,"cost":0.10}, "big":12345678901234567890.50 }\n'
    )
    product.upstream.respond_with(
        200, response_body, {"x-request-id": "up-1", "x-ratelimit-remaining": "3", "set-cookie": "s"}
    )
    response = product.http.post("/v1/chat/completions", content=request_body.encode())
    assert response.content == response_body
    assert product.upstream.requests[0].body == request_body.encode()
    assert (response.headers["x-request-id"], response.headers["x-ratelimit-remaining"]) == ("up-1", "3")
    assert (response.headers["x-provider"], response.headers["x-attempts"]) == ("scripted", "1")
    assert response.headers["x-aiserver-request-id"]
    assert "set-cookie" not in response.headers


@pytest.mark.parametrize("path", ["/v1/chat/completions", "/api/OpenAiChatCompletion"])
@pytest.mark.parametrize("content_type", ["application/json", "text/plain;charset=UTF-8", ""])
def test_json_is_accepted_with_any_content_type(path: str, content_type: str, product: Product) -> None:
    response = product.http.post(path, content=b"\xef\xbb\xbf" + CHAT.encode(), headers={"content-type": content_type})
    assert response.status_code == 200, response.text


POST_ROUTES = [
    *("/v1/chat/completions", "/api/OpenAiChatCompletion", "/v1/embeddings", "/v1/responses"),
    *("/v1/queue/chat/completions", "/api/QueueOpenAiChatCompletion", "/api/QueueOpenAiChatCompletion%5B%5D"),
    *("/api/CancelJob", "/api/RedeliverCallback", "/api/TestCallback"),
]


@pytest.mark.parametrize("path", POST_ROUTES)
def test_compressed_body_is_a_415_on_every_route(path: str, product: Product) -> None:
    content = gzip.compress(CHAT.encode())
    rejection = product.http.post(path, content=content, headers={"content-encoding": "gzip"})
    expected = (415, "UnsupportedMediaType", "invalid_request_error", "unsupported_content_encoding")
    assert error_of(rejection) == expected
    assert "Content-Encoding 'gzip'" in rejection.json()["error"]["message"]
    assert rejection.headers["accept-encoding"] == "identity"
    assert product.upstream.requests == []


@pytest.mark.parametrize("path", POST_ROUTES)
def test_body_that_is_not_utf_8_is_a_400_on_every_route(path: str, product: Product) -> None:
    content = CHAT.replace("hi", "café").encode("latin-1")
    for content_type in ("application/json", "application/json; charset=iso-8859-1"):
        rejection = product.http.post(path, content=content, headers={"content-type": content_type})
        assert error_of(rejection) == (400, "ValidationException", "invalid_request_error", "invalid_request")
        assert "UTF-8" in rejection.json()["error"]["message"]
    assert product.upstream.requests == []


@pytest.mark.parametrize("header", ["authorization", "x-api-key"])
def test_gateway_key_does_not_reach_the_provider(header: str, product: Product) -> None:
    value = f"Bearer {product.key}" if header == "authorization" else product.key
    headers = {header: value}
    assert httpx.post(f"{product.url}/v1/chat/completions", content=CHAT, headers=headers).status_code == 200
    assert product.key not in str(product.upstream.requests[0].headers)


@pytest.mark.parametrize(
    ("method", "path", "body", "expected"),
    [
        ("POST", "/v1/chat/completions", "{", (400, "ValidationException", "invalid_request_error", "invalid_request")),
        ("POST", "/v1/chat/completions", "", (400, "ValidationException", "invalid_request_error", "invalid_request")),
        (
            *("POST", "/api/OpenAiChatCompletion", '{"model":"llama3:8b","messages":[]}'),
            (400, "ValidationException", "invalid_request_error", "invalid_request"),
        ),
        (
            *("POST", "/api/QueueOpenAiChatCompletion", '{"request":{"model":5,%s}}' % MESSAGES),
            (400, "ValidationException", "invalid_request_error", "invalid_request"),
        ),
        (
            *("POST", "/v1/chat/completions", '{"model":"nobody",%s}' % MESSAGES),
            (404, "NotFound", "invalid_request_error", "model_not_found"),
        ),
        (
            *("POST", "/v1/queue/chat/completions", '{"model":"nobody",%s}' % MESSAGES),
            (404, "NotFound", "invalid_request_error", "model_not_found"),
        ),
        (
            *("POST", "/v1/chat/completions", '{"model":"llama3:8b","provider":"other",%s}' % MESSAGES),
            (400, "ValidationException", "invalid_request_error", "invalid_request"),
        ),
        ("GET", "/api/Nothing", None, (404, "NotFound", "invalid_request_error", "not_found")),
        ("POST", "/api/Nothing", "{}", (404, "NotFound", "invalid_request_error", "not_found")),
        ("GET", "/nothing/at/all", None, (404, "NotFound", "invalid_request_error", "not_found")),
        ("DELETE", "/v1/chat/completions", None, (404, "NotFound", "invalid_request_error", "not_found")),
        ("GET", "/", None, (404, "NotFound", "invalid_request_error", "not_found")),
        ("GET", "/api/GetOpenAiChatStatus?jobId=1", None, (404, "NotFound", "invalid_request_error", "not_found")),
        ("GET", "/api/GetOpenAiChatStatus?id=1", None, (404, "NotFound", "invalid_request_error", "not_found")),
        ("GET", "/api/GetOpenAiChat?jobId=1", None, (404, "NotFound", "invalid_request_error", "not_found")),
        (
            *("GET", "/api/GetOpenAiChatStatus", None),
            (400, "ValidationException", "invalid_request_error", "invalid_request"),
        ),
        ("GET", "/v1/jobs/1/result", None, (404, "NotFound", "invalid_request_error", "not_found")),
        ("GET", "/v1/jobs/junk/result", None, (404, "NotFound", "invalid_request_error", "not_found")),
        ("GET", "/v1/jobs/1/events", None, (404, "NotFound", "invalid_request_error", "not_found")),
        ("GET", "/v1/jobs/junk/events", None, (404, "NotFound", "invalid_request_error", "not_found")),
        (
            *("POST", "/api/OpenAiChatCompletion[]", "[]"),
            (400, "ValidationException", "invalid_request_error", "invalid_request"),
        ),
        (
            *(
                "POST",
                "/api/QueueOpenAiChatCompletion[]",
                '[{"request":%s},{"provider":"nope","request":%s}]' % (CHAT, CHAT),
            ),
            (400, "ValidationException", "invalid_request_error", "invalid_request"),
        ),
        (
            *("POST", "/api/CancelJob", '{"id":"%s"}' % ("9" * 5000)),
            (400, "ValidationException", "invalid_request_error", "invalid_request"),
        ),
        (
            *("POST", "/v1/chat/completions", '{"model":"%s",%s}' % ("m" * 300, MESSAGES)),
            (400, "ValidationException", "invalid_request_error", "invalid_request"),
        ),
        (
            *("POST", "/api/CancelJob[]", "[]"),
            (400, "ValidationException", "invalid_request_error", "invalid_request"),
        ),
    ],
)
def test_each_kind_of_bad_input_has_its_error(
    method: str, path: str, body: str | None, expected: tuple[int, str, str, str], product: Product
) -> None:
    assert error_of(product.http.request(method, path, content=body)) == expected
    assert product.upstream.requests == []


@pytest.mark.parametrize(
    ("method", "path"),
    [
        ("POST", "/v1/chat/completions"),
        ("POST", "/api/OpenAiChatCompletion"),
        ("POST", "/api/QueueOpenAiChatCompletion"),
        ("POST", "/api/QueueOpenAiChatCompletion[]"),
        ("POST", "/v1/queue/chat/completions"),
        ("POST", "/api/CancelJob"),
        ("POST", "/api/RedeliverCallback"),
        ("GET", "/api/GetOpenAiChatStatus?refId=x"),
        ("GET", "/api/GetOpenAiChat?refId=x"),
        ("GET", "/api/WaitForOpenAiChat?refId=x"),
        ("GET", "/api/QueryJobs"),
        ("GET", "/api/ActiveAiModels"),
        ("GET", "/v1/jobs/1/result"),
        ("GET", "/v1/jobs/1/events"),
        ("GET", "/v1/models"),
        ("GET", "/v1/models/llama3:8b"),
    ],
)
@pytest.mark.parametrize("key", [None, "ak-junk", "sk-something"])
def test_every_route_except_health_requires_a_key(method: str, path: str, key: str | None, product: Product) -> None:
    headers = {"authorization": f"Bearer {key}"} if key else {}
    response = httpx.request(method, product.url + path, content="{}" if method == "POST" else None, headers=headers)
    assert error_of(response) == (401, "Unauthorized", "invalid_request_error", "invalid_api_key")
    assert httpx.get(product.url + "/health").json() == {"status": "ok"}


def test_body_over_five_megabytes_is_rejected(product: Product) -> None:
    for megabytes in (5.1, 7, 11):
        body = CHAT[:-1] + ',"x":"' + "x" * int(megabytes * 1024 * 1024) + '"}'
        response = product.http.post("/v1/chat/completions", content=body)
        assert error_of(response) == (413, "PayloadTooLarge", "invalid_request_error", "request_too_large")


def test_job_of_another_key_is_not_found(product: Product) -> None:
    queued = product.http.post("/api/QueueOpenAiChatCompletion", content='{"request":%s}' % CHAT).json()
    foreign_headers = {"authorization": f"Bearer {product.cloud.keys.other_api_key}"}
    for path in (
        f"/api/GetOpenAiChatStatus?jobId={queued['id']}",
        f"/api/GetOpenAiChatStatus?refId={queued['refId']}",
        f"/api/GetOpenAiChat?id={queued['id']}",
        f"/v1/jobs/{queued['id']}/result",
        f"/v1/jobs/{queued['id']}/events",
    ):
        foreign_response, unknown_response = (
            product.http.get(path, headers=foreign_headers),
            product.http.get("/v1/jobs/1/result"),
        )
        assert (foreign_response.status_code, foreign_response.json()) == (
            unknown_response.status_code,
            unknown_response.json(),
        )
    cancel_response = product.http.post("/api/CancelJob", json={"id": queued["id"]}, headers=foreign_headers)
    assert cancel_response.status_code == 404
    assert product.wait_for_job(queued["refId"])["state"] == "Completed"


def test_ref_id_identifies_one_request_and_rejects_another(product: Product) -> None:
    first = product.http.post("/api/QueueOpenAiChatCompletion", content='{"refId":"once","request":%s}' % CHAT)
    repeated = product.http.post("/api/QueueOpenAiChatCompletion", content='{"refId":"once","request":%s}' % CHAT)
    assert first.json() == repeated.json()
    product.wait_for_job("once")
    other_chat = CHAT.replace("hi", "ho")
    conflict = product.http.post("/api/QueueOpenAiChatCompletion", content='{"refId":"once","request":%s}' % other_chat)
    assert error_of(conflict) == (409, "Conflict", "invalid_request_error", "idempotency_conflict")
    assert conflict.headers["x-should-retry"] == "false"
    assert len(product.upstream.requests) == 1


def test_fifty_concurrent_requests_with_one_ref_id_are_one_job(product: Product) -> None:
    def submit(_: int) -> httpx.Response:
        return product.http.post("/api/QueueOpenAiChatCompletion", content='{"refId":"fifty","request":%s}' % CHAT)

    with ThreadPoolExecutor(50) as pool:
        responses = list(pool.map(submit, range(50)))
    assert {response.status_code for response in responses} == {200}
    assert len({response.json()["id"] for response in responses}) == 1
    assert product.wait_for_job("fifty")["state"] == "Completed"
    assert len(product.upstream.requests) == 1
    foreign_headers = {"authorization": f"Bearer {product.cloud.keys.other_api_key}"}
    foreign_response = product.http.post(
        "/api/QueueOpenAiChatCompletion", content='{"refId":"fifty","request":%s}' % CHAT, headers=foreign_headers
    )
    assert foreign_response.json()["id"] != responses[0].json()["id"]
    foreign_job = product.http.get("/api/WaitForOpenAiChat", params={"refId": "fifty"}, headers=foreign_headers).json()[
        "result"
    ]
    assert (foreign_job["id"], foreign_job["state"]) == (foreign_response.json()["id"], "Completed")


def test_openai_queue_route_takes_gateway_members_as_headers(product: Product, hook: Receiver) -> None:
    headers = {"x-ref-id": "by-header", "x-tag": "by header", "x-reply-to": hook.url, "x-deadline": "600"}
    accepted = product.http.post("/v1/queue/chat/completions", content=CHAT, headers=headers)
    assert accepted.status_code == 202
    assert accepted.headers["location"] == accepted.json()["statusUrl"]
    assert json.loads(hook.next(30).body)["object"] == "chat.completion"
    status = product.http.get(accepted.headers["location"]).json()
    assert (status["refId"], status["tag"], status["jobState"]) == ("by-header", "by header", "Completed")
    jobs = product.http.get("/api/QueryJobs", params={"tag": "by header", "state": "Completed"}).json()["results"]
    assert [(job["refId"], job["usage"]) for job in jobs] == [("by-header", status["usage"])]
    created = status["createdDate"]
    for period, refs in (({"since": created}, ["by-header"]), ({"until": created}, []), ({"since": "2999-01-01"}, [])):
        page = product.http.get("/api/QueryJobs", params={"tag": "by header"} | period).json()
        assert [job["refId"] for job in page["results"]] == refs
    result = product.http.get(f"/v1/jobs/{status['jobId']}/result")
    assert result.json() == status["result"]


def test_failed_job_reports_its_error_in_status_and_callback(product: Product, hook: Receiver) -> None:
    product.upstream.respond_with(
        400, b'{"error":{"message":"too long","type":"invalid_request_error","code":"length"}}'
    )
    body = '{"refId":"fails","replyTo":"%s","request":%s}' % (hook.url, CHAT)
    product.http.post("/api/QueueOpenAiChatCompletion", content=body)
    callback = hook.next(30)
    assert callback.headers["x-job-state"] == "Failed"
    assert json.loads(callback.body)["error"]["message"] == "too long"
    status = product.http.get("/api/GetOpenAiChatStatus?RefId=fails")
    assert status.status_code == 200
    assert (status.json()["jobState"], status.json()["responseStatus"]["message"]) == ("Failed", "too long")
    assert product.http.get(f"/v1/jobs/{status.json()['jobId']}/result").status_code == 409


@pytest.mark.parametrize(
    ("status", "body", "expected"),
    [
        (200, b"<html>hello</html>", (502, "ProviderError", "server_error", "provider_error")),
        (200, b"[]", (502, "ProviderError", "server_error", "provider_error")),
        (502, b"<html>bad gateway</html>", (502, "ProviderError", "server_error", "provider_error")),
        (503, b"", (503, "ProviderUnavailable", "server_error", "provider_unavailable")),
        (401, b'{"error":{"message":"key sk-live-1234"}}', (502, "ProviderError", "server_error", "provider_auth")),
        (404, b'{"error":{"message":"no model"}}', (502, "ProviderError", "server_error", "provider_auth")),
        (302, b"", (502, "ProviderError", "server_error", "provider_error")),
        (
            *(429, b'{"error":{"message":"pay","code":"insufficient_quota"}}'),
            (502, "ProviderError", "server_error", "provider_auth"),
        ),
    ],
)
def test_invalid_upstream_responses_are_distinguished(
    status: int, body: bytes, expected: tuple[int, str, str, str], product: Product
) -> None:
    assert product.http.post("/v1/chat/completions", content=CHAT).status_code == 200  # keeps the circuit closed
    product.upstream.requests.clear()
    product.upstream.respond_with(status, body, {"content-type": "text/html", "location": "/"})
    response = product.http.post("/v1/chat/completions", content=CHAT)
    assert error_of(response) == expected
    assert "sk-live" not in response.text
    assert "Traceback" not in response.text
    assert len(product.upstream.requests) == 1


def test_upstream_error_is_relayed_unchanged(product: Product) -> None:
    error_body = (
        b'{"error":{"message":"no such tool","type":"invalid_request_error","param":"tools","code":null,"n":1.0}}'
    )
    product.upstream.respond_with(422, error_body, {"x-request-id": "up-9", "retry-after": "4"})
    response = product.http.post("/v1/chat/completions", content=CHAT)
    assert response.status_code == 422
    assert response.content.endswith(error_body[1:])
    assert (response.headers["x-request-id"], response.headers["retry-after"]) == ("up-9", "4")


def test_gateway_listens_on_loopback_only(product: Product) -> None:
    port = int(product.url.rsplit(":", 1)[1])
    for address in {entry[4][0] for entry in socket.getaddrinfo("localhost", None)} - {"127.0.0.1"}:
        with socket.socket(socket.AF_INET6 if ":" in str(address) else socket.AF_INET) as probe:
            assert probe.connect_ex((str(address), port)) != 0


def test_sync_chat_with_a_ref_id_is_called_once_and_replayed(product: Product) -> None:
    completion = b'{"id":"paid-once", "choices":[{}],"usage":{"total_tokens":1}, "n":2.50}'
    product.upstream.respond_with(200, completion)
    body = CHAT[:-1] + ',"refId":"sync-1","tag":"sync"}'
    first = product.http.post("/v1/chat/completions", content=body)
    replay = product.http.post("/api/OpenAiChatCompletion", content=body)
    assert first.content == replay.content == completion
    assert ("x-replayed" in first.headers, replay.headers["x-replayed"]) == (False, "true")
    assert len(product.upstream.requests) == 1
    conflict = product.http.post("/v1/chat/completions", content=body.replace("hi", "ho"))
    assert error_of(conflict) == (409, "Conflict", "invalid_request_error", "idempotency_conflict")
    status = product.http.get("/api/GetOpenAiChatStatus?refId=sync-1").json()
    assert (status["jobState"], status["tag"], status["usage"]) == ("Completed", "sync", {"total_tokens": 1})
    foreign_headers = {"authorization": f"Bearer {product.cloud.keys.other_api_key}"}
    assert "x-replayed" not in product.http.post("/v1/chat/completions", content=body, headers=foreign_headers).headers


def test_sync_chat_with_the_ref_id_of_a_running_job_is_a_conflict(product: Product) -> None:
    hold = threading.Event()
    product.upstream.respond_with(200, b'{"choices":[{}]}', hold=hold)
    product.http.post("/api/QueueOpenAiChatCompletion", content='{"refId":"runs","request":%s}' % CHAT)
    try:
        conflict = product.http.post("/v1/chat/completions", content=CHAT[:-1] + ',"refId":"runs"}')
        assert error_of(conflict) == (409, "Conflict", "invalid_request_error", "idempotency_conflict")
        assert conflict.headers["x-should-retry"] == "false"
    finally:
        hold.set()
    product.wait_for_job("runs")
    replay = product.http.post("/v1/chat/completions", content=CHAT[:-1] + ',"refId":"runs"}')
    assert (replay.status_code, replay.headers["x-replayed"]) == (200, "true")


def test_sync_chat_with_only_a_tag_is_recorded(product: Product) -> None:
    product.http.post("/v1/chat/completions", content=CHAT[:-1] + ',"tag":"only-tag"}').raise_for_status()
    (job,) = product.http.get("/api/QueryJobs?tag=only-tag").json()["results"]
    assert (job["state"], job["model"], job["attempts"]) == ("Completed", "llama3:8b", 1)
