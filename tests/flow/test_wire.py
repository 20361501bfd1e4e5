"""The product over plain HTTP: what goes in arrives, what comes back is relayed, and bad input gets its own answer."""

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


def both(answer: httpx.Response) -> tuple[int, str, str, str]:
    told = answer.json()
    assert answer.headers["content-type"].startswith("application/json")
    assert told["responseStatus"]["message"] == told["error"]["message"]
    assert told["responseStatus"]["meta"] == {}
    assert isinstance(told["responseStatus"]["errors"], list)
    return answer.status_code, told["responseStatus"]["errorCode"], told["error"]["type"], told["error"]["code"]


def test_request_and_answer_pass_byte_for_byte(product: Product) -> None:
    sent = ' {"x" : 2.50,"model":"llama3:8b",%s,\n"y":1E400,"seed":0, "é":"\\u00e9"} ' % MESSAGES
    told = b'{ "id":"1", "choices":[{}], "usage":{"total_tokens":1,"cost":0.10}, "big":12345678901234567890.50 }\n'
    product.upstream.answer_with(200, told, {"x-request-id": "up-1", "x-ratelimit-remaining": "3", "set-cookie": "s"})
    answer = product.http.post("/v1/chat/completions", content=sent.encode())
    assert answer.content == told
    assert product.upstream.requests[0].body == sent.encode()
    assert (answer.headers["x-request-id"], answer.headers["x-ratelimit-remaining"]) == ("up-1", "3")
    assert (answer.headers["x-provider"], answer.headers["x-attempts"]) == ("scripted", "1")
    assert answer.headers["x-aiserver-request-id"]
    assert "set-cookie" not in answer.headers


@pytest.mark.parametrize("path", ["/v1/chat/completions", "/api/OpenAiChatCompletion"])
@pytest.mark.parametrize("content_type", ["application/json", "text/plain;charset=UTF-8", ""])
def test_json_is_json_whatever_its_content_type(path: str, content_type: str, product: Product) -> None:
    answer = product.http.post(path, content=b"\xef\xbb\xbf" + CHAT.encode(), headers={"content-type": content_type})
    assert answer.status_code == 200, answer.text


POST_ROUTES = [
    *("/v1/chat/completions", "/api/OpenAiChatCompletion", "/v1/embeddings", "/v1/responses"),
    *("/v1/queue/chat/completions", "/api/QueueOpenAiChatCompletion", "/api/QueueOpenAiChatCompletion%5B%5D"),
    *("/api/CancelJob", "/api/RedeliverCallback", "/api/TestCallback"),
]


@pytest.mark.parametrize("path", POST_ROUTES)
def test_a_compressed_body_is_a_415_on_every_route(path: str, product: Product) -> None:
    content = gzip.compress(CHAT.encode())
    refused = product.http.post(path, content=content, headers={"content-encoding": "gzip"})
    expected = (415, "UnsupportedMediaType", "invalid_request_error", "unsupported_content_encoding")
    assert both(refused) == expected
    assert "Content-Encoding 'gzip'" in refused.json()["error"]["message"]
    assert refused.headers["accept-encoding"] == "identity"
    assert product.upstream.requests == []


@pytest.mark.parametrize("path", POST_ROUTES)
def test_a_body_that_is_not_utf_8_is_a_400_on_every_route(path: str, product: Product) -> None:
    content = CHAT.replace("hi", "café").encode("latin-1")
    for content_type in ("application/json", "application/json; charset=iso-8859-1"):
        refused = product.http.post(path, content=content, headers={"content-type": content_type})
        assert both(refused) == (400, "ValidationException", "invalid_request_error", "invalid_request")
        assert "UTF-8" in refused.json()["error"]["message"]
    assert product.upstream.requests == []


@pytest.mark.parametrize("header", ["authorization", "x-api-key"])
def test_our_key_does_not_reach_the_provider(header: str, product: Product) -> None:
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
def test_bad_input_gets_its_own_answer(
    method: str, path: str, body: str | None, expected: tuple[int, str, str, str], product: Product
) -> None:
    assert both(product.http.request(method, path, content=body)) == expected
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
def test_no_route_but_health_opens_without_a_key(method: str, path: str, key: str | None, product: Product) -> None:
    headers = {"authorization": f"Bearer {key}"} if key else {}
    answer = httpx.request(method, product.url + path, content="{}" if method == "POST" else None, headers=headers)
    assert both(answer) == (401, "Unauthorized", "invalid_request_error", "invalid_api_key")
    assert httpx.get(product.url + "/health").json() == {"status": "ok"}


def test_a_body_over_five_megabytes_is_refused_by_us_and_a_larger_one_by_the_gateway(product: Product) -> None:
    for megabytes in (5.1, 7, 11):
        body = CHAT[:-1] + ',"x":"' + "x" * int(megabytes * 1024 * 1024) + '"}'
        answer = product.http.post("/v1/chat/completions", content=body)
        assert both(answer) == (413, "PayloadTooLarge", "invalid_request_error", "request_too_large")


def test_another_key_s_job_is_as_unknown_as_none(product: Product) -> None:
    queued = product.http.post("/api/QueueOpenAiChatCompletion", content='{"request":%s}' % CHAT).json()
    other = {"authorization": f"Bearer {product.cloud.seeded.other_api_key}"}
    for path in (
        f"/api/GetOpenAiChatStatus?jobId={queued['id']}",
        f"/api/GetOpenAiChatStatus?refId={queued['refId']}",
        f"/api/GetOpenAiChat?id={queued['id']}",
        f"/v1/jobs/{queued['id']}/result",
        f"/v1/jobs/{queued['id']}/events",
    ):
        theirs, nobodys = product.http.get(path, headers=other), product.http.get("/v1/jobs/1/result")
        assert (theirs.status_code, theirs.json()) == (nobodys.status_code, nobodys.json())
    cancelled = product.http.post("/api/CancelJob", json={"id": queued["id"]}, headers=other)
    assert cancelled.status_code == 404
    assert product.ended(queued["refId"])["state"] == "Completed"


def test_a_ref_id_names_one_request_and_refuses_another(product: Product) -> None:
    first = product.http.post("/api/QueueOpenAiChatCompletion", content='{"refId":"once","request":%s}' % CHAT)
    again = product.http.post("/api/QueueOpenAiChatCompletion", content='{"refId":"once","request":%s}' % CHAT)
    assert first.json() == again.json()
    product.ended("once")
    other = CHAT.replace("hi", "ho")
    refused = product.http.post("/api/QueueOpenAiChatCompletion", content='{"refId":"once","request":%s}' % other)
    assert both(refused) == (409, "Conflict", "invalid_request_error", "idempotency_conflict")
    assert refused.headers["x-should-retry"] == "false"
    assert len(product.upstream.requests) == 1


def test_fifty_at_once_with_one_ref_id_are_one_job_and_one_call(product: Product) -> None:
    def ask(_: int) -> httpx.Response:
        return product.http.post("/api/QueueOpenAiChatCompletion", content='{"refId":"fifty","request":%s}' % CHAT)

    with ThreadPoolExecutor(50) as pool:
        answers = list(pool.map(ask, range(50)))
    assert {answer.status_code for answer in answers} == {200}
    assert len({answer.json()["id"] for answer in answers}) == 1
    assert product.ended("fifty")["state"] == "Completed"
    assert len(product.upstream.requests) == 1
    other = {"authorization": f"Bearer {product.cloud.seeded.other_api_key}"}
    theirs = product.http.post(
        "/api/QueueOpenAiChatCompletion", content='{"refId":"fifty","request":%s}' % CHAT, headers=other
    )
    assert theirs.json()["id"] != answers[0].json()["id"]
    told = product.http.get("/api/WaitForOpenAiChat", params={"refId": "fifty"}, headers=other).json()["result"]
    assert (told["id"], told["state"]) == (theirs.json()["id"], "Completed")


def test_the_openai_shaped_queue_route_takes_our_members_as_headers(product: Product, hook: Receiver) -> None:
    headers = {"x-ref-id": "by-header", "x-tag": "by header", "x-reply-to": hook.url, "x-deadline": "600"}
    accepted = product.http.post("/v1/queue/chat/completions", content=CHAT, headers=headers)
    assert accepted.status_code == 202
    assert accepted.headers["location"] == accepted.json()["statusUrl"]
    assert json.loads(hook.next(30).body)["object"] == "chat.completion"
    status = product.http.get(accepted.headers["location"]).json()
    assert (status["refId"], status["tag"], status["jobState"]) == ("by-header", "by header", "Completed")
    listed = product.http.get("/api/QueryJobs", params={"tag": "by header", "state": "Completed"}).json()["results"]
    assert [job["refId"] for job in listed] == ["by-header"]
    bare = product.http.get(f"/v1/jobs/{status['jobId']}/result")
    assert bare.json() == status["result"]


def test_a_job_that_fails_tells_status_and_receiver_why(product: Product, hook: Receiver) -> None:
    product.upstream.answer_with(
        400, b'{"error":{"message":"too long","type":"invalid_request_error","code":"length"}}'
    )
    ask = '{"refId":"fails","replyTo":"%s","request":%s}' % (hook.url, CHAT)
    product.http.post("/api/QueueOpenAiChatCompletion", content=ask)
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
def test_an_upstream_that_answers_badly_is_told_apart(
    status: int, body: bytes, expected: tuple[int, str, str, str], product: Product
) -> None:
    assert product.http.post("/v1/chat/completions", content=CHAT).status_code == 200  # its circuit stays closed
    product.upstream.requests.clear()
    product.upstream.answer_with(status, body, {"content-type": "text/html", "location": "/"})
    answer = product.http.post("/v1/chat/completions", content=CHAT)
    assert both(answer) == expected
    assert "sk-live" not in answer.text
    assert "Traceback" not in answer.text
    assert len(product.upstream.requests) == 1


def test_an_upstream_s_error_is_relayed_as_it_came(product: Product) -> None:
    told = b'{"error":{"message":"no such tool","type":"invalid_request_error","param":"tools","code":null,"n":1.0}}'
    product.upstream.answer_with(422, told, {"x-request-id": "up-9", "retry-after": "4"})
    answer = product.http.post("/v1/chat/completions", content=CHAT)
    assert answer.status_code == 422
    assert answer.content.endswith(told[1:])
    assert (answer.headers["x-request-id"], answer.headers["retry-after"]) == ("up-9", "4")


def test_nothing_listens_beyond_this_machine(product: Product) -> None:
    port = int(product.url.rsplit(":", 1)[1])
    for address in {entry[4][0] for entry in socket.getaddrinfo("localhost", None)} - {"127.0.0.1"}:
        with socket.socket(socket.AF_INET6 if ":" in str(address) else socket.AF_INET) as probe:
            assert probe.connect_ex((str(address), port)) != 0


def test_a_sync_chat_with_a_ref_id_is_answered_once_and_told_again(product: Product) -> None:
    told = b'{"id":"paid-once", "choices":[{}],"usage":{"total_tokens":1}, "n":2.50}'
    product.upstream.answer_with(200, told)
    ask = CHAT[:-1] + ',"refId":"sync-1","tag":"sync"}'
    first = product.http.post("/v1/chat/completions", content=ask)
    again = product.http.post("/api/OpenAiChatCompletion", content=ask)
    assert first.content == again.content == told
    assert ("x-replayed" in first.headers, again.headers["x-replayed"]) == (False, "true")
    assert len(product.upstream.requests) == 1
    other = product.http.post("/v1/chat/completions", content=ask.replace("hi", "ho"))
    assert both(other) == (409, "Conflict", "invalid_request_error", "idempotency_conflict")
    status = product.http.get("/api/GetOpenAiChatStatus?refId=sync-1").json()
    assert (status["jobState"], status["tag"], status["usage"]) == ("Completed", "sync", {"total_tokens": 1})
    foreign = {"authorization": f"Bearer {product.cloud.seeded.other_api_key}"}
    assert "x-replayed" not in product.http.post("/v1/chat/completions", content=ask, headers=foreign).headers


def test_a_sync_chat_whose_ref_id_names_a_running_job_is_a_conflict(product: Product) -> None:
    hold = threading.Event()
    product.upstream.answer_with(200, b'{"choices":[{}]}', hold=hold)
    product.http.post("/api/QueueOpenAiChatCompletion", content='{"refId":"runs","request":%s}' % CHAT)
    try:
        refused = product.http.post("/v1/chat/completions", content=CHAT[:-1] + ',"refId":"runs"}')
        assert both(refused) == (409, "Conflict", "invalid_request_error", "idempotency_conflict")
        assert refused.headers["x-should-retry"] == "false"
    finally:
        hold.set()
    product.ended("runs")
    done = product.http.post("/v1/chat/completions", content=CHAT[:-1] + ',"refId":"runs"}')
    assert (done.status_code, done.headers["x-replayed"]) == (200, "true")


def test_a_sync_chat_with_only_a_tag_is_recorded(product: Product) -> None:
    product.http.post("/v1/chat/completions", content=CHAT[:-1] + ',"tag":"only-tag"}').raise_for_status()
    (job,) = product.http.get("/api/QueryJobs?tag=only-tag").json()["results"]
    assert (job["state"], job["model"], job["attempts"]) == ("Completed", "llama3:8b", 1)
