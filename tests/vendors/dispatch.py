"""Calls of one upstream, as failover makes them."""

from collections.abc import Generator
from contextlib import contextmanager
from typing import Any

from aiserver.aws.bedrock import bedrock_transport
from aiserver.clock import Clock, Deadline
from aiserver.operations import CHAT
from aiserver.providers.call import ProviderCall, Upstream
from aiserver.providers.dispatch import Dispatcher
from aiserver.providers.http import create_client
from aiserver.providers.registry import AdapterRegistry
from aiserver.providers.response import ProviderResponse
from aiserver.providers.stream import ProviderStream
from tests.fakes import FakeClock

TIMEOUT_S = 10


@contextmanager
def create_dispatcher(clock: Clock, session: Any = None) -> Generator[Dispatcher]:
    """A dispatcher with its own HTTP client; `session` has the AWS credentials for Bedrock."""
    with create_client() as http_client:
        yield Dispatcher(http_client, AdapterRegistry(clock, lambda: bedrock_transport(session)), clock)


def send(upstream: Upstream, body: bytes, *, session: Any = None) -> ProviderResponse:
    clock = FakeClock()
    with create_dispatcher(clock, session) as dispatcher:
        deadline = Deadline.after(TIMEOUT_S, clock)
        return dispatcher.send(upstream, ProviderCall(CHAT, body, deadline, deadline))


@contextmanager
def open_stream(
    upstream: Upstream, body: bytes, *, session: Any = None, clock: Clock | None = None, timeout_s: float = TIMEOUT_S
) -> Generator[ProviderStream]:
    clock = clock or FakeClock()
    deadline = Deadline.after(timeout_s, clock)
    call = ProviderCall(CHAT, body, deadline, deadline, stream=True)
    with create_dispatcher(clock, session) as dispatcher, dispatcher.open_stream(upstream, call) as stream:
        yield stream


def list_models(upstream: Upstream) -> list[str]:
    with create_dispatcher(FakeClock()) as dispatcher:
        return dispatcher.list_models(upstream, timeout_s=TIMEOUT_S)
