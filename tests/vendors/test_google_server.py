"""The fake Gemini server is compatible with Google's own client."""

from collections.abc import Iterator

import pytest
from google.genai import Client, errors, types

from tests.vendors.google import GoogleDialect
from tests.vendors.server import run_vendor_server

KEY = "vk-of-the-gateway"
MODEL = GoogleDialect.model


@pytest.fixture
def client() -> Iterator[Client]:
    with run_vendor_server(GoogleDialect(), KEY) as server:
        options = types.HttpOptions(base_url=server.origin, api_version="")
        with Client(api_key=KEY, http_options=options) as google_client:
            yield google_client


def test_google_client_reads_a_response_and_a_stream(client: Client) -> None:
    response = client.models.generate_content(model=MODEL, contents="hello, think")
    assert (response.text, response.response_id) == ("You said: hello, think", "req_1")
    chunks = [event.text or "" for event in client.models.generate_content_stream(model=MODEL, contents="hello")]
    assert ("".join(chunks), len(chunks) > 3) == ("You said: hello", True)


def test_google_client_reads_an_error(client: Client) -> None:
    with pytest.raises(errors.ClientError) as error:
        client.models.generate_content(model=MODEL, contents="fail 429")
    assert (error.value.code, error.value.status) == (429, "RESOURCE_EXHAUSTED")
