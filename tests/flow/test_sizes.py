"""Bodies at each limit: they arrive byte for byte, are stored by size, and are inlined where a response has room."""

import json
from collections.abc import Iterator
from typing import Any

import httpx
import pytest

from benchmarks import memory
from local import aws
from tests.flow.conftest import Product
from tests.flow.test_wire import error_of

KB, MB = 1024, 1024 * 1024
CHAT = b'{"model":"llama3:8b","messages":[{"role":"user","content":"hi"}],"x":"%s"}'
RESULT = b'{"id":"big","choices":[{}],"usage":{"total_tokens":1},"x":"%s"}'
LARGE = (413, "PayloadTooLarge", "invalid_request_error", "request_too_large")
WORKER_MB = 1024  # its MemorySize
SPARE_MB = 400


def body_of_size(size: int, template: bytes = CHAT, fill: bytes = b"x") -> bytes:
    """Return a body of exactly `size` bytes."""
    padding = fill * ((size - len(template) + 2) // len(fill))
    return template % padding.ljust(size - len(template) + 2, b".")


class StoredBodies:
    """The bodies of a job in the embedded cloud's DynamoDB and S3."""

    def __init__(self, product: Product) -> None:
        self._outputs = product.cloud.outputs
        self._dynamodb = aws.client("dynamodb", product.cloud.endpoint_url)
        self._s3 = aws.client("s3", product.cloud.endpoint_url)

    def item(self, job_id: int, kind: str) -> bytes | None:
        key = {"pk": {"S": f"JOB#{job_id}"}, "sk": {"S": kind}}
        item = self._dynamodb.get_item(TableName=self._outputs["JobsTable"], Key=key).get("Item")
        return item["body"]["B"] if item else None

    def objects(self, job_id: int, kind: str) -> Iterator[str]:
        location = {"Bucket": self._outputs["BodiesBucket"], "Prefix": f"jobs/{job_id}/{kind.lower()}-"}
        yield from (entry["Key"] for entry in self._s3.list_objects_v2(**location).get("Contents", []))

    def object(self, job_id: int, kind: str) -> bytes | None:
        keys = list(self.objects(job_id, kind))
        assert len(keys) <= 1
        bodies = [self._s3.get_object(Bucket=self._outputs["BodiesBucket"], Key=key)["Body"].read() for key in keys]
        return bodies[0] if bodies else None

    def remove(self, job_id: int, kind: str) -> None:
        """Delete a body, like the bucket's lifecycle rule and the table's time to live."""
        for name in self.objects(job_id, kind):
            self._s3.delete_object(Bucket=self._outputs["BodiesBucket"], Key=name)
        key = {"pk": {"S": f"JOB#{job_id}"}, "sk": {"S": kind}}
        self._dynamodb.delete_item(TableName=self._outputs["JobsTable"], Key=key)


def run_job(product: Product, request: bytes, result: bytes) -> int:
    """Run a job with this request and this result, check that both arrive unchanged, and return its id."""
    product.upstream.respond_with(200, result)
    queued = product.http.post("/v1/queue/chat/completions", content=request).json()
    assert product.wait_for_job(queued["refId"])["state"] == "Completed"
    (upstream_request,) = product.upstream.requests
    assert upstream_request.body == request
    assert product.http.get(f"/v1/jobs/{queued['id']}/result", follow_redirects=True).content == result
    return queued["id"]


def status(product: Product, job_id: int) -> dict[str, Any]:
    return product.http.get("/api/GetOpenAiChatStatus", params={"jobId": job_id}).json()


def job_record(product: Product, job_id: int) -> dict[str, Any]:
    response = product.http.get("/api/GetOpenAiChat", params={"id": job_id})
    assert response.status_code == 200, response.text[:500]
    return response.json()["result"]


@pytest.mark.parametrize("size", [31 * KB, 32 * KB - 1, 32 * KB, 32 * KB + 1, 33 * KB, 300 * KB])
def test_body_is_an_item_up_to_32_kb_and_an_object_above(size: int, product: Product) -> None:
    request, result = body_of_size(size), body_of_size(size, RESULT)
    job_id = run_job(product, request, result)
    stored_bodies = StoredBodies(product)
    for kind, body in (("REQUEST", request), ("RESULT", result)):
        is_item = size <= 32 * KB
        assert (stored_bodies.item(job_id, kind), stored_bodies.object(job_id, kind)) == (
            (body, None) if is_item else (None, body)
        )
    record = job_record(product, job_id)
    assert (record["requestBody"], record["responseBody"]) == (request.decode(), result.decode())


@pytest.mark.parametrize(
    ("megabytes_in", "megabytes_out", "inline"),
    [
        (0.9, 0.9, {"result", "chatResponse"}),
        (1.1, 1.9, {"result", "chatResponse"}),
        (0.1, 2.1, {"result"}),
        (4.9, 4.1, set()),
        (0.1, 20, set()),
    ],
)
def test_status_inlines_small_results_and_record_bodies_up_to_1_mb(
    megabytes_in: float, megabytes_out: float, inline: set[str], product: Product
) -> None:
    request, result = body_of_size(int(megabytes_in * MB)), body_of_size(int(megabytes_out * MB), RESULT)
    job_id = run_job(product, request, result)
    result_response = product.http.get(f"/v1/jobs/{job_id}/result")
    assert result_response.status_code == (200 if inline else 302)
    job_status = status(product, job_id)
    assert job_status["resultUrl"] == f"{product.url}/v1/jobs/{job_id}/result"
    assert {name for name in ("result", "chatResponse") if name in job_status} == inline
    assert all(job_status[name] == json.loads(result) for name in inline)
    record = job_record(product, job_id)
    strings = {"requestBody": (request, "requestUrl"), "responseBody": (result, "resultUrl")}
    for name, (body, url_member) in strings.items():
        if len(body) <= MB:
            assert (record[name], url_member in record) == (body.decode(), False)
        else:
            assert name not in record
            assert url_member == "resultUrl" or httpx.get(record[url_member]).content == body


@pytest.mark.parametrize("fill", ["x", "語"])
def test_sync_chat_accepts_4_9_mb_of_any_characters(fill: str, product: Product) -> None:
    request = body_of_size(int(4.9 * MB), fill=fill.encode())
    response = product.http.post("/v1/chat/completions", content=request)
    assert response.status_code == 200, response.text
    assert product.upstream.requests[0].body == request


@pytest.mark.parametrize(
    ("path", "template"),
    [
        ("/v1/chat/completions", CHAT),
        ("/v1/queue/chat/completions", CHAT),
        ("/api/QueueOpenAiChatCompletion", b'{"request":' + CHAT + b"}"),
    ],
)
def test_body_over_5_mb_and_event_over_6_mb_are_rejected(path: str, template: bytes, product: Product) -> None:
    large_body_response = product.http.post(path, content=body_of_size(int(5.1 * MB), template))
    large_event_response = product.http.post(path, content=body_of_size(int(4.9 * MB), template, fill=b'\\"'))
    assert (error_of(large_body_response), error_of(large_event_response)) == (LARGE, LARGE)
    assert large_body_response.json()["error"]["message"] == "The request body exceeds 5 MB"
    assert large_event_response.json()["error"]["message"] == "The request body is too large"
    assert product.upstream.requests == []


def test_sync_response_may_exceed_the_buffered_lambda_limit(product: Product) -> None:
    large = body_of_size(20 * MB, RESULT, "語".encode())
    product.upstream.respond_with(200, large)
    response = product.http.post("/v1/chat/completions", content=body_of_size(KB))
    assert (response.status_code, response.content) == (200, large)


def test_ten_concurrent_results_of_20_mb_fit_in_the_worker_s_memory(product: Product) -> None:
    shapes = ["ASCII text", "3-byte characters, one emoji", "small objects"]
    results = {shape: memory.response_body(shape, 20 * MB) for shape in shapes}
    batch = [*results.values()] * 3 + [results["ASCII text"]]
    measurement = memory.run_batch(product.cloud, product.upstream, batch)
    assert measurement.peak_mb < WORKER_MB - SPARE_MB
    stored_bodies = StoredBodies(product)
    assert {stored_bodies.object(job_id, "RESULT") for job_id in measurement.job_ids[:3]} <= set(batch)


@pytest.mark.parametrize("size", [KB, 40 * KB])
def test_deleted_body_is_omitted(size: int, product: Product) -> None:
    job_id = run_job(product, body_of_size(size), body_of_size(size, RESULT))
    stored_bodies = StoredBodies(product)
    stored_bodies.remove(job_id, "REQUEST")
    record = job_record(product, job_id)
    assert (record["state"], record["responseBody"]) == ("Completed", body_of_size(size, RESULT).decode())
    assert not {"requestBody", "requestUrl"} & record.keys()
    stored_bodies.remove(job_id, "RESULT")
    assert "responseBody" not in job_record(product, job_id)
    assert (status(product, job_id)["jobState"], "result" in status(product, job_id)) == ("Completed", False)
    response = product.http.get(f"/v1/jobs/{job_id}/result")
    assert error_of(response) == (404, "NotFound", "invalid_request_error", "not_found")
