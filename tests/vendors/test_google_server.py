"""The server that stands for Gemini in tests speaks as Google's own client expects."""

from collections.abc import Iterator

import pytest
from google.genai import Client, errors, types

from tests.vendors.google import GoogleDialect
from tests.vendors.server import serving

KEY = "vk-of-the-gateway"
MODEL = GoogleDialect.model


@pytest.fixture
def client() -> Iterator[Client]:
    with serving(GoogleDialect(), KEY) as server:
        options = types.HttpOptions(base_url=server.origin, api_version="")
        with Client(api_key=KEY, http_options=options) as speaking:
            yield speaking


def test_its_client_reads_an_answer_whole_and_in_pieces(client: Client) -> None:
    whole = client.models.generate_content(model=MODEL, contents="hello, think")
    assert (whole.text, whole.response_id) == ("You said: hello, think", "req_1")
    pieces = [event.text or "" for event in client.models.generate_content_stream(model=MODEL, contents="hello")]
    assert ("".join(pieces), len(pieces) > 3) == ("You said: hello", True)


def test_its_client_reads_an_error(client: Client) -> None:
    with pytest.raises(errors.ClientError) as limited:
        client.models.generate_content(model=MODEL, contents="fail 429")
    assert (limited.value.code, limited.value.status) == (429, "RESOURCE_EXHAUSTED")
