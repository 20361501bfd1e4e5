"""A stack in this process for the handler tests: moto's services and a scripted provider."""

import io
import os
from collections.abc import Iterator

import pytest

from aiserver import bootstrap, http_api
from aiserver.providers.provider import Provider
from local import template
from local.scripted import MODELS, ScriptedProvider
from tests.moto_stack import MotoStack, example_key, mock_aws


@pytest.fixture(scope="module")
def provider() -> Iterator[ScriptedProvider]:
    with ScriptedProvider() as provider:
        yield provider


@pytest.fixture
def upstream(provider: ScriptedProvider) -> ScriptedProvider:
    """The provider of the stack, without recorded requests."""
    provider.requests.clear()
    return provider


@pytest.fixture
def stack(monkeypatch: pytest.MonkeyPatch, upstream: ScriptedProvider) -> Iterator[MotoStack]:
    """A stack with a provider of all scripted models, and the key of the event files."""
    before = dict(os.environ)
    monkeypatch.setenv("AWS_DEFAULT_REGION", template.REGION)
    with mock_aws():
        stack = MotoStack()
        stack.create()
        stack.put_key(example_key(), "example")
        models = dict.fromkeys(MODELS, "")
        stack.set_providers(Provider(name="scripted", base_url=upstream.base_url, models=models))
        yield stack
        bootstrap.reset_for_tests()
    os.environ.clear()
    os.environ.update(before)


@pytest.fixture
def log() -> Iterator[io.StringIO]:
    """All log lines of the functions."""
    lines, handler = io.StringIO(), http_api.logger.registered_handler
    before = handler.setStream(lines)
    yield lines
    if before:
        handler.setStream(before)
