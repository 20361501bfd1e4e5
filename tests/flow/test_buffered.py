"""A deployment that does not stream: ResponseMode BUFFERED, with Lambda's own runtime client and API Gateway's 29 s."""

from collections.abc import Iterator

import httpx
import openai
import pytest

from local.choose_upstream import scripted_upstream
from local.cloud import Cloud
from local.scripted import ScriptedProvider
from tests.flow.conftest import Product

ASKED = {"model": "llama3:8b", "messages": [{"role": "user", "content": "hi"}], "stream": True}


@pytest.fixture(scope="module")
def buffered() -> Iterator[Product]:
    with (
        ScriptedProvider() as upstream,
        Cloud(scripted_upstream(upstream), parameters={"ResponseMode": "BUFFERED"}) as cloud,
        httpx.Client(
            base_url=cloud.base_url,
            headers={"authorization": f"Bearer {cloud.seeded.api_key}"},
            timeout=60,
            trust_env=False,
        ) as http,
    ):
        yield Product(cloud, upstream, http)


def test_a_chat_that_asks_to_stream_is_answered_all_at_once_and_official_clients_read_it(buffered: Product) -> None:
    with openai.OpenAI(base_url=f"{buffered.url}/v1", api_key=buffered.key, max_retries=0) as sdk:
        chunks = list(sdk.chat.completions.create(**ASKED))  # pyright: ignore[reportCallIssue, reportArgumentType]
    assert "".join(chunk.choices[0].delta.content or "" for chunk in chunks).startswith("This is a scripted answer")
    answer = buffered.http.post("/v1/chat/completions", json=ASKED)
    assert answer.headers["content-type"] == "text/event-stream; charset=utf-8"
    assert "content-length" in answer.headers
    assert answer.text.endswith("data: [DONE]\n\n")


def test_the_function_runs_in_lambda_s_own_client_within_api_gateway_s_time(buffered: Product) -> None:
    function = buffered.cloud.function("chat")
    assert "AWS_LAMBDA_EXEC_WRAPPER" not in function.environment
    assert function.timeout_s == 29


def test_other_answers_and_errors_are_as_ever(buffered: Product) -> None:
    assert buffered.http.post("/v1/chat/completions", json=ASKED | {"stream": False}).json()["choices"]
    refused = buffered.http.post("/v1/chat/completions", json=ASKED | {"model": "nobody"})
    assert (refused.status_code, refused.json()["error"]["code"]) == (404, "model_not_found")
