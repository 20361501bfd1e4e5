"""A deployment without streaming: ResponseMode BUFFERED, Lambda's default runtime client, API Gateway's 29 s."""

from collections.abc import Iterator

import httpx
import openai
import pytest

from local.choose_upstream import build_scripted_upstream
from local.cloud import Cloud
from local.scripted import ScriptedProvider
from tests.flow.conftest import Product

REQUEST = {"model": "llama3:8b", "messages": [{"role": "user", "content": "hi"}], "stream": True}


@pytest.fixture(scope="module")
def buffered_product() -> Iterator[Product]:
    with (
        ScriptedProvider() as upstream,
        Cloud(build_scripted_upstream(upstream), parameters={"ResponseMode": "BUFFERED"}) as cloud,
        httpx.Client(
            base_url=cloud.base_url,
            headers={"authorization": f"Bearer {cloud.keys.api_key}"},
            timeout=60,
            trust_env=False,
        ) as http,
    ):
        yield Product(cloud, upstream, http)


def test_streamed_chat_is_returned_as_one_buffered_response(buffered_product: Product) -> None:
    """The official OpenAI client reads it."""
    with openai.OpenAI(base_url=f"{buffered_product.url}/v1", api_key=buffered_product.key, max_retries=0) as sdk:
        chunks = list(sdk.chat.completions.create(**REQUEST))  # pyright: ignore[reportCallIssue, reportArgumentType]
    assert "".join(chunk.choices[0].delta.content or "" for chunk in chunks).startswith("This is a scripted response")
    response = buffered_product.http.post("/v1/chat/completions", json=REQUEST)
    assert response.headers["content-type"] == "text/event-stream; charset=utf-8"
    assert "content-length" in response.headers
    assert response.text.endswith("data: [DONE]\n\n")


def test_function_runs_the_default_runtime_client_within_29_seconds(buffered_product: Product) -> None:
    function = buffered_product.cloud.function("chat")
    assert "AWS_LAMBDA_EXEC_WRAPPER" not in function.environment
    assert function.timeout_s == 29


def test_other_responses_and_errors_do_not_change(buffered_product: Product) -> None:
    assert buffered_product.http.post("/v1/chat/completions", json=REQUEST | {"stream": False}).json()["choices"]
    error_response = buffered_product.http.post("/v1/chat/completions", json=REQUEST | {"model": "nobody"})
    assert (error_response.status_code, error_response.json()["error"]["code"]) == (404, "model_not_found")
