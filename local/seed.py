"""What a fresh cloud is given: the providers, and two keys of two owners."""

import sys
from collections.abc import Mapping
from dataclasses import dataclass

from aiserver import api_keys
from aiserver.admin.changes import apply_changes, plan_changes
from aiserver.admin.providers import refresh_model_listings
from aiserver.admin.stack import create_admin
from aiserver.api_keys import NewKey
from aiserver.aws.bedrock import BedrockWire
from aiserver.clock import SystemClock
from aiserver.providers.http import create_client
from aiserver.providers.registry import AdapterRegistry
from local import aws


@dataclass(frozen=True)
class Seeded:
    """Two keys of two owners, so that isolation can be tried; the secret signs `api_key`'s callbacks."""

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
        """The id of `api_key`, which the intake may queue jobs for."""
        return self.first.key.id

    @property
    def webhook_secret(self) -> str:
        return self.first.secrets.current


def new_keys() -> Seeded:
    """Two new keys, made before the stack: its parameters name one of them."""
    now = SystemClock().now_ms()
    return Seeded(api_keys.create_key("development", now_ms=now), api_keys.create_key("somebody else", now_ms=now))


def seed(
    endpoint_url: str, outputs: Mapping[str, str], providers: str, environment: Mapping[str, str], seeded: Seeded
) -> None:
    """Apply `providers` (a providers.yaml; its `api_key_var`s are read from `environment`) and store the keys.

    Raises: aiserver.admin.stack.Problem, for a providers.yaml that is wrong.
    """
    admin = create_admin("aiserver", outputs, lambda service: aws.client(service, endpoint_url))
    apply_changes(admin, plan_changes(admin, providers, environment))
    with create_client() as http:
        for line in refresh_model_listings(admin, AdapterRegistry(lambda: http, admin.clock, BedrockWire)):
            print(line, file=sys.stderr)
    for new in (seeded.first, seeded.second):
        admin.config.put_key(new.key, new.secrets)
