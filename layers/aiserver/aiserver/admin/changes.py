"""What a providers.yaml would change of a stack's providers, shown before it is made, and making it."""

import contextlib
import os
import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, cast
from urllib.parse import urlsplit

from pydantic import ValidationError

from aiserver.admin import providers_yaml
from aiserver.admin.stack import Admin, AdminError
from aiserver.aws.secrets import SsmSecrets
from aiserver.errors import ProviderError
from aiserver.providers.provider import Provider

_HEADER_VALUE = re.compile(r"[!-~]([ -~]*[!-~])?")


@dataclass(frozen=True)
class ProviderChange:
    """What becomes of one provider: what is stored of it, what it is to be, and the key to store for it first."""

    name: str
    old: str | None
    new: Provider | None
    secret: str | None = field(default=None, repr=False)

    def lines(self) -> Iterator[str]:
        """As it is shown before it is made: `+` new, `-` gone, `~` changed, and nothing where nothing changes."""
        if self.new is None:
            yield f"- {self.name}"
            return
        shown = _diff_view(self.new)
        if self.old is None:
            yield f"+ {self.name}  " + ", ".join(f"{name}: {_format_value(value)}" for name, value in shown.items())
            return
        old = parse_stored(self.old)
        before, after = provider_view(old) if old else {}, provider_view(self.new)
        for name in dict.fromkeys([*before, *after]):
            if before.get(name) != after.get(name):
                yield f"~ {self.name}  {name}: {_format_value(before.get(name))} -> {_format_value(after.get(name))}"
        if self.secret and old and old.api_key_secret == self.new.api_key_secret:
            yield f"~ {self.name}  key: another"


def plan_changes(admin: Admin, text: str, environment: Mapping[str, str] = os.environ) -> list[ProviderChange]:
    """What makes the providers those of a providers.yaml; nothing is written yet. Raises: Problem."""
    wanted = providers_yaml.parse_providers(text)
    for provider in wanted:
        if provider.api_key_secret and not provider.api_key_secret.startswith(f"/{admin.stack}/"):
            raise AdminError(f"provider {provider.name}: functions may only read parameters below /{admin.stack}/")
    stored = admin.config.provider_texts()
    changes: list[ProviderChange] = []
    for provider in wanted:
        secret = None
        if provider.api_key_var:
            parameter = _parameter(admin, provider)
            secret = _secret(provider, environment)
            check_key(provider.name, secret)
            secret = None if secret == _stored_key(admin, parameter) else secret
            provider = provider.model_copy(update={"api_key_var": None, "api_key_secret": parameter})
        elif provider.api_key_secret:
            check_key(provider.name, _stored_key(admin, provider.api_key_secret))
        changes.append(ProviderChange(provider.name, stored.get(provider.name), provider, secret))
    kept = {provider.name for provider in wanted}
    return changes + [ProviderChange(name, old, None) for name, old in stored.items() if name not in kept]


def apply_changes(admin: Admin, changes: Iterable[ProviderChange]) -> None:
    """Make the changes, each only of what it was planned for. Raises: Problem, where another was quicker.

    A key under a name that nobody reads yet is stored before its provider, one that is replaced after it.
    """
    changes = list(changes)
    had = {change.name: old.api_key_secret for change in changes if change.old and (old := parse_stored(change.old))}
    for change in changes:
        parameter = change.new.api_key_secret if change.new and change.secret else None
        if parameter != had.get(change.name):
            _store_key(admin, parameter, change.secret)
        if not admin.config.replace_provider(change.name, change.old, change.new):
            raise AdminError(f"provider {change.name} was changed by another meanwhile; look again and apply again")
        if parameter == had.get(change.name):
            _store_key(admin, parameter, change.secret)
        if change.new is None:
            admin.config.put_model_listing(change.name, None)
    read_now = {change.new.api_key_secret for change in changes if change.new}
    for name, parameter in had.items():
        if parameter and parameter.startswith(_parameter_prefix(admin, name)) and parameter not in read_now:
            _delete_key(admin, parameter)


def check_key(name: str, key: str | None) -> None:
    """Raises: Problem, where the provider's calls could not send this key."""
    if key and not _HEADER_VALUE.fullmatch(key):
        where = " (it begins or ends with white space)" if key != key.strip() else ""
        raise AdminError(f"provider {name}: the API key contains characters not allowed in an HTTP header{where}")


def _secret(provider: Provider, environment: Mapping[str, str]) -> str:
    value = environment.get(provider.api_key_var or "")
    if not value:
        raise AdminError(f"provider {provider.name}: the environment variable {provider.api_key_var} is not set")
    return value


def _parameter(admin: Admin, provider: Provider) -> str:
    """Where the key of an `api_key_var` is kept, for the host that it is for: no other may ever be sent it."""
    host = re.sub(r"[^A-Za-z0-9.-]", "_", urlsplit(provider.base_url).netloc)
    return f"{_parameter_prefix(admin, provider.name)}{host}/api-key"


def _parameter_prefix(admin: Admin, name: str) -> str:
    return f"/{admin.stack}/providers/{name}/"


def _stored_key(admin: Admin, parameter: str) -> str | None:
    """None where there is none, or it cannot be read."""
    try:
        return SsmSecrets(admin.ssm, admin.clock).value(parameter)
    except ProviderError:
        return None


def _store_key(admin: Admin, parameter: str | None, key: str | None) -> None:
    if parameter and key:
        admin.ssm.put_parameter(Name=parameter, Value=key, Type="SecureString", Overwrite=True)


def _delete_key(admin: Admin, parameter: str) -> None:
    with contextlib.suppress(admin.ssm.exceptions.ParameterNotFound):
        admin.ssm.delete_parameter(Name=parameter)


def parse_stored(text: str) -> Provider | None:
    """A provider as it is stored; None for one that cannot be read."""
    try:
        return Provider.model_validate_json(text, extra="ignore")
    except ValidationError:
        return None


def provider_view(provider: Provider) -> dict[str, Any]:
    """As the commands show it."""
    return provider.model_dump(mode="json", exclude_none=True)


def _diff_view(provider: Provider) -> dict[str, Any]:
    """What a diff shows: what is not as it would be by itself."""
    return provider.model_dump(mode="json", exclude_none=True, exclude_defaults=True, exclude={"name"})


def _format_value(value: Any) -> str:
    """A value in a diff; models as `public = own`, or the one name where there is but one."""
    if isinstance(value, dict):
        models = cast(dict[str, str], value)
        return ", ".join(f"{name} = {own}" if own else name for name, own in models.items())
    if isinstance(value, list):
        return ", ".join(cast(list[str], value))
    return "none" if value is None else str(value)
