"""What a fresh cloud is given: the providers, and two keys of two owners."""

from collections.abc import Mapping
from dataclasses import dataclass

from aiserver.admin import Admin
from aiserver.aws.config import DynamoConfig
from aiserver.clock import SystemClock
from local import aws


@dataclass(frozen=True)
class Seeded:
    """Two keys of two owners, so that isolation can be tried; the secret signs `api_key`'s callbacks."""

    api_key: str
    other_api_key: str
    webhook_secret: str


def seed(endpoint_url: str, outputs: Mapping[str, str], providers: str, environment: Mapping[str, str]) -> Seeded:
    """Apply `providers` (a providers.yaml; its `api_key_var`s are read from `environment`) and make the keys.

    Raises: aiserver.admin.Problem, for a providers.yaml that is wrong.
    """
    config = DynamoConfig(outputs["ConfigTable"], aws.client("dynamodb", endpoint_url))
    admin = Admin("aiserver", config, aws.client("ssm", endpoint_url), SystemClock())
    admin.apply_providers(providers, environment)
    mine, other = admin.create_key("development"), admin.create_key("somebody else")
    return Seeded(mine["key"], other["key"], mine["webhookSecret"])
