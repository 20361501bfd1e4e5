"""Provider presets: defaults, overrides, sources, and usage in streams."""

import json
import re

import pytest
from pydantic import ValidationError

from aiserver.providers.catalogue import CATALOGUE, GENERIC
from aiserver.providers.provider import Provider
from local.scripted import ScriptedProvider
from tests.providers.streaming import open_stream

REQUEST_BODY = b'{"model":"m","messages":[{"role":"user","content":"hi"}],"stream":true%s}'
USAGE_OPTION = b',"stream_options":{"include_usage":true}'


def provider(**fields: object) -> Provider:
    return Provider.model_validate({"name": "p", "models": {"m": ""}} | fields)


def example_base_url(base_url: str) -> str:
    """The base URL with placeholders filled in."""
    return re.sub(r"{\w+}", "8000", base_url)


@pytest.mark.parametrize("preset", CATALOGUE)
def test_preset_supplies_omitted_provider_fields(preset: str) -> None:
    catalogue_preset = CATALOGUE[preset]
    fields = {"base_url": example_base_url(catalogue_preset.base_url)} if "{" in catalogue_preset.base_url else {}
    configured = provider(preset=preset, **fields)
    assert configured.base_url == example_base_url(catalogue_preset.base_url)
    assert (configured.queue, configured.auth_header, configured.operations) == (
        catalogue_preset.queue,
        catalogue_preset.auth_header,
        catalogue_preset.operations,
    )
    assert configured.catalogue_preset is catalogue_preset


@pytest.mark.parametrize("preset", [name for name, entry in CATALOGUE.items() if "{" in entry.base_url])
def test_preset_with_placeholders_requires_a_base_url(preset: str) -> None:
    with pytest.raises(ValidationError, match="requires 'base_url', for example"):
        provider(preset=preset)


def test_provider_fields_override_the_preset() -> None:
    fields = {"base_url": "http://x/v1", "queue": "hosted", "auth_header": "x-key", "operations": ["embeddings"]}
    configured = provider(preset="ollama", **fields)
    assert configured.model_dump(include=set(fields), mode="json") == fields


def test_unknown_preset_has_generic_defaults() -> None:
    configured = provider(preset="of-next-year", base_url="http://x/v1")
    assert configured == provider(preset="of-next-year", base_url="http://x/v1", **GENERIC.defaults)
    assert configured.catalogue_preset is GENERIC


def test_every_preset_fact_has_a_source_url() -> None:
    presets = CATALOGUE.values()
    sources = [preset.source for preset in presets] + [
        fact.source for preset in presets for fact in (*preset.credential_errors, *preset.quirks)
    ]
    sources += [preset.stream_usage for preset in presets if preset.stream_usage]
    assert all(re.fullmatch(r"https://[\w.-]+/\S*", source) for source in sources)


def stream_chat(target: Provider, body: bytes) -> tuple[bytes, str | None]:
    """Return the bytes of a streamed chat and its usage."""
    with open_stream(target, body=body, api_key=None, total_timeout_s=5) as stream:
        return b"".join(chunk or b"" for chunk in stream.events), stream.mapper.usage


@pytest.mark.parametrize("preset", ["", *(name for name, entry in CATALOGUE.items() if entry.type == "openai")])
def test_stream_usage_is_requested_only_if_the_preset_supports_it(preset: str, upstream: ScriptedProvider) -> None:
    configured = provider(preset=preset, base_url=upstream.base_url)
    body, usage = stream_chat(configured, REQUEST_BODY % b"")
    (request,) = upstream.requests
    if configured.catalogue_preset.stream_usage:
        assert json.loads(request.body)["stream_options"] == {"include_usage": True}
        assert json.loads(usage or "{}")["total_tokens"] > 0
    else:
        assert (request.body, usage) == (REQUEST_BODY % b"", None)
    assert b'"usage"' not in body


@pytest.mark.parametrize("preset", ["", "vllm", "mistral"])
def test_stream_usage_requested_by_the_caller_is_returned(preset: str, upstream: ScriptedProvider) -> None:
    body, usage = stream_chat(provider(preset=preset, base_url=upstream.base_url), REQUEST_BODY % USAGE_OPTION)
    (request,) = upstream.requests
    assert request.body == REQUEST_BODY % USAGE_OPTION
    assert json.loads(usage or "{}")["total_tokens"] > 0
    assert b'"choices": [], "usage": {' in body


def test_stream_usage_is_not_requested_where_unsupported_or_implicit() -> None:
    assert not any(CATALOGUE[name].stream_usage for name in ("mistral", "azure", "gemini", "fireworks", "openrouter"))
