"""Providers' keys in SSM Parameter Store, as SecureStrings."""

from typing import TYPE_CHECKING

from botocore.exceptions import BotoCoreError, ClientError

from aiserver.clock import Clock
from aiserver.errors import ProviderAuth, ProviderUnavailable

if TYPE_CHECKING:
    from mypy_boto3_ssm.client import SSMClient

CACHE_MS = 300_000
JITTER = 0.2  # containers that started together do not ask together


class SsmSecrets:
    """router.Secrets. A value that was read once is used on when SSM cannot answer: it takes 40 reads a second."""

    def __init__(self, ssm: "SSMClient", clock: Clock) -> None:
        self._ssm = ssm
        self._clock = clock
        self._cache: dict[str, tuple[int, str]] = {}

    def value(self, name: str) -> str:
        """Raises: ProviderAuth, when there is no such parameter; ProviderUnavailable, when it cannot be read now."""
        cached = self._cache.get(name)
        now = self._clock.now_ms()
        if cached and now < cached[0]:
            return cached[1]
        try:
            found = self._ssm.get_parameters(Names=[name], WithDecryption=True)["Parameters"]
        except (ClientError, BotoCoreError) as error:
            if cached:
                return cached[1]
            raise ProviderUnavailable("The provider's key cannot be read") from error
        if not found or "Value" not in found[0]:
            raise ProviderAuth("The provider's key is not stored")
        fresh_until = now + round(CACHE_MS * (1 - JITTER * self._clock.fraction()))
        self._cache[name] = (fresh_until, found[0]["Value"])
        return found[0]["Value"]
