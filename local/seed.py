"""Seeds a new embedded cloud with the providers and two API keys of two owners."""

import sys
from collections.abc import Mapping
from dataclasses import dataclass

from aiserver import api_keys
from aiserver.admin.changes import apply_changes, plan_changes
from aiserver.admin.providers import refresh_model_listings
from aiserver.admin.stack import create_admin
from aiserver.api_keys import NewKey
from aiserver.aws.bedrock import bedrock_transport
from aiserver.clock import SystemClock
from aiserver.providers.dispatch import Dispatcher
from aiserver.providers.http import create_client
from aiserver.providers.registry import AdapterRegistry
from local import aws


@dataclass(frozen=True)
class SeedKeys:
    """Two API keys of two owners, to try isolation; `webhook_secret` signs the callbacks of `api_key`."""

    first: NewKey
    second: NewKey

    @property
    def api_key(self) -> str:
        return self.first.text

    @property
    def other_api_key(self) -> str:
        return self.second.text

    @property
    def key_id(self) -> str:
        """The id of `api_key`, for which the intake may queue jobs."""
        return self.first.key.id

    @property
    def webhook_secret(self) -> str:
        return self.first.secrets.current


def new_keys() -> SeedKeys:
    """Two new API keys. They are created before the stack, whose parameters contain the id of one."""
    now = SystemClock().now_ms()
    return SeedKeys(api_keys.create_key("development", now_ms=now), api_keys.create_key("other owner", now_ms=now))


def seed(
    endpoint_url: str, outputs: Mapping[str, str], providers: str, environment: Mapping[str, str], keys: SeedKeys
) -> None:
    """Apply `providers` (a providers.yaml; its `api_key_var`s are read from `environment`) and store the keys.

    Raises: aiserver.admin.stack.AdminError, when the providers.yaml is invalid.
    """
    admin = create_admin("aiserver", outputs, lambda service: aws.client(service, endpoint_url))
    apply_changes(admin, plan_changes(admin, providers, environment))
    with create_client() as http:
        dispatcher = Dispatcher(http, AdapterRegistry(admin.clock, bedrock_transport), admin.clock)
        for line in refresh_model_listings(admin, dispatcher):
            print(line, file=sys.stderr)
    for new_key in (keys.first, keys.second):
        admin.config.put_key(new_key.key, new_key.secrets)
