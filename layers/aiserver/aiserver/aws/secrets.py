"""Providers' API keys in SSM Parameter Store, as SecureStrings."""

from typing import TYPE_CHECKING

from botocore.exceptions import BotoCoreError, ClientError

from aiserver.clock import Clock
from aiserver.errors import ProviderAuth, ProviderUnavailable

if TYPE_CHECKING:
    from mypy_boto3_ssm.client import SSMClient

CACHE_MS = 300_000
JITTER = 0.2  # so that containers started together do not read SSM together


class SsmSecrets:
    """Implements routing.failover.Secrets.

    While SSM is unavailable or throttles (at 40 reads per second), the cache is used.
    """

    def __init__(self, ssm: "SSMClient", clock: Clock) -> None:
        self._ssm = ssm
        self._clock = clock
        self._cache: dict[str, tuple[int, str]] = {}

    def value(self, name: str) -> str:
        """The parameter's value. Raises: ProviderAuth, when it does not exist; ProviderUnavailable, when SSM fails."""
        cached = self._cache.get(name)
        now = self._clock.now_ms()
        if cached and now < cached[0]:
            return cached[1]
        try:
            parameters = self._ssm.get_parameters(Names=[name], WithDecryption=True)["Parameters"]
        except (ClientError, BotoCoreError) as error:
            if cached:
                return cached[1]
            raise ProviderUnavailable("The provider's API key cannot be read") from error
        if not parameters or "Value" not in parameters[0]:
            raise ProviderAuth("The provider's API key is not stored")
        expires_ms = now + round(CACHE_MS * (1 - JITTER * self._clock.fraction()))
        self._cache[name] = (expires_ms, parameters[0]["Value"])
        return parameters[0]["Value"]
