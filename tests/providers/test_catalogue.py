"""What a provider has by its preset, and that each row of the catalogue is whole."""

import json
import re
from contextlib import closing

import pytest
from pydantic import ValidationError

from aiserver.providers.catalogue import CATALOGUE, GENERIC
from aiserver.providers.http import create_client
from aiserver.providers.openai import OpenAiClient
from aiserver.providers.provider import Provider
from local.scripted import ScriptedProvider
from tests.fakes import FakeClock

QUESTION = b'{"model":"m","messages":[{"role":"user","content":"hi"}],"stream":true%s}'
ASKS = b',"stream_options":{"include_usage":true}'


def provider(**more: object) -> Provider:
    return Provider.model_validate({"name": "p", "models": {"m": ""}} | more)


def written_out(base_url: str) -> str:
    """The base URL as an operator of the row writes it."""
    return re.sub(r"{\w+}", "8000", base_url)


@pytest.mark.parametrize("preset", CATALOGUE)
def test_a_preset_says_what_its_operator_does_not(preset: str) -> None:
    row = CATALOGUE[preset]
    given = {"base_url": written_out(row.base_url)} if "{" in row.base_url else {}
    made = provider(preset=preset, **given)
    assert made.base_url == written_out(row.base_url)
    assert (made.queue, made.auth_header, made.operations) == (row.queue, row.auth_header, row.operations)
    assert made.catalogue_preset is row


@pytest.mark.parametrize("preset", [name for name, row in CATALOGUE.items() if "{" in row.base_url])
def test_a_part_of_the_base_url_that_only_the_operator_knows_is_asked_for(preset: str) -> None:
    with pytest.raises(ValidationError, match="needs a base_url, as in"):
        provider(preset=preset)


def test_what_the_operator_says_stands_before_the_preset() -> None:
    said = {"base_url": "http://x/v1", "queue": "hosted", "auth_header": "x-key", "operations": ["embeddings"]}
    made = provider(preset="ollama", **said)
    assert made.model_dump(include=set(said), mode="json") == said


def test_a_preset_that_nobody_knows_means_nothing() -> None:
    made = provider(preset="of-next-year", base_url="http://x/v1")
    assert made == provider(preset="of-next-year", base_url="http://x/v1", **GENERIC.defaults)
    assert made.catalogue_preset is GENERIC


def test_every_fact_of_the_catalogue_names_its_source() -> None:
    rows = CATALOGUE.values()
    sources = [row.source for row in rows] + [
        fact.source for row in rows for fact in (*row.credential_errors, *row.quirks)
    ]
    sources += [row.stream_usage for row in rows if row.stream_usage]
    assert all(re.fullmatch(r"https://[\w.-]+/\S*", source) for source in sources)


def streamed(asked: Provider, body: bytes) -> tuple[bytes, str | None]:
    """What a caller gets of a streamed chat, and what is known of its usage."""
    with create_client() as http:
        stream = OpenAiClient(http, FakeClock()).stream(
            asked, "chat.completions", body, api_key=None, model_is_configured=True, head_timeout_s=5, total_timeout_s=5
        )
        with closing(stream):
            return b"".join(piece or b"" for piece in stream), stream.mapper.usage


@pytest.mark.parametrize("preset", ["", *(name for name, row in CATALOGUE.items() if row.type == "openai")])
def test_a_stream_is_asked_for_its_usage_only_where_the_preset_says_that_it_may_be(
    preset: str, upstream: ScriptedProvider
) -> None:
    made = provider(preset=preset, base_url=upstream.base_url)
    shown, usage = streamed(made, QUESTION % b"")
    (asked,) = upstream.requests
    if made.catalogue_preset.stream_usage:
        assert json.loads(asked.body)["stream_options"] == {"include_usage": True}
        assert json.loads(usage or "{}")["total_tokens"] > 0
    else:
        assert (asked.body, usage) == (QUESTION % b"", None)
    assert b'"usage"' not in shown


@pytest.mark.parametrize("preset", ["", "vllm", "mistral"])
def test_a_caller_who_asks_for_the_usage_of_a_stream_is_shown_it(preset: str, upstream: ScriptedProvider) -> None:
    shown, usage = streamed(provider(preset=preset, base_url=upstream.base_url), QUESTION % ASKS)
    (asked,) = upstream.requests
    assert asked.body == QUESTION % ASKS
    assert json.loads(usage or "{}")["total_tokens"] > 0
    assert b'"choices": [], "usage": {' in shown


def test_a_server_that_refuses_to_be_asked_or_tells_unasked_is_not_asked() -> None:
    assert not any(CATALOGUE[name].stream_usage for name in ("mistral", "azure", "gemini", "fireworks", "openrouter"))
