"""What a fresh cloud is given: the providers, and two keys of two owners."""

from collections.abc import Mapping
from dataclasses import dataclass

from aiserver.admin.stack import administer
from local import aws


@dataclass(frozen=True)
class Seeded:
    """Two keys of two owners, so that isolation can be tried; the secret signs `api_key`'s callbacks."""

    api_key: str
    other_api_key: str
    webhook_secret: str


def seed(endpoint_url: str, outputs: Mapping[str, str], providers: str, environment: Mapping[str, str]) -> Seeded:
    """Apply `providers` (a providers.yaml; its `api_key_var`s are read from `environment`) and make the keys.

    Raises: aiserver.admin.stack.Problem, for a providers.yaml that is wrong.
    """
    admin = administer("aiserver", outputs, lambda service: aws.client(service, endpoint_url))
    admin.apply_providers(providers, environment)
    mine, other = admin.create_key("development"), admin.create_key("somebody else")
    return Seeded(mine["key"], other["key"], mine["webhookSecret"])
