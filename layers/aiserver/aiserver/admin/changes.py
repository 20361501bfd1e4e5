"""Plan, show and apply the changes between a providers.yaml and a stack's stored providers."""

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
    """A change of one provider: `old` as stored (JSON), `new`, and the API key to store with it."""

    name: str
    old: str | None
    new: Provider | None
    secret: str | None = field(default=None, repr=False)

    def lines(self) -> Iterator[str]:
        """The diff: `+` added, `-` removed, `~` changed field; no line where nothing changes."""
        if self.new is None:
            yield f"- {self.name}"
            return
        if self.old is None:
            yield f"+ {self.name}  " + ", ".join(
                f"{name}: {_format_value(value)}" for name, value in _diff_view(self.new).items()
            )
            return
        old = parse_stored(self.old)
        before, after = provider_view(old) if old else {}, provider_view(self.new)
        for name in dict.fromkeys([*before, *after]):
            if before.get(name) != after.get(name):
                yield f"~ {self.name}  {name}: {_format_value(before.get(name))} -> {_format_value(after.get(name))}"
        if self.secret and old and old.api_key_secret == self.new.api_key_secret:
            yield f"~ {self.name}  API key: changed"


def plan_changes(admin: Admin, text: str, environment: Mapping[str, str] = os.environ) -> list[ProviderChange]:
    """The changes that make the stored providers match a providers.yaml. Writes nothing.

    Raises: AdminError, when the file or a provider's API key is not valid.
    """
    providers = providers_yaml.parse_providers(text)
    for provider in providers:
        if provider.api_key_secret and not provider.api_key_secret.startswith(f"/{admin.stack}/"):
            raise AdminError(f"provider {provider.name}: api_key_secret must be an SSM parameter below /{admin.stack}/")
    stored_texts = admin.config.provider_texts()
    changes: list[ProviderChange] = []
    for provider in providers:
        secret = None
        if provider.api_key_var:
            parameter = _parameter(admin, provider)
            secret = _secret(provider, environment)
            check_key(provider.name, secret)
            secret = None if secret == _read_key(admin, parameter) else secret
            provider = provider.model_copy(update={"api_key_var": None, "api_key_secret": parameter})
        elif provider.api_key_secret:
            check_key(provider.name, _read_key(admin, provider.api_key_secret))
        changes.append(ProviderChange(provider.name, stored_texts.get(provider.name), provider, secret))
    names = {provider.name for provider in providers}
    return changes + [ProviderChange(name, old, None) for name, old in stored_texts.items() if name not in names]


def apply_changes(admin: Admin, changes: Iterable[ProviderChange]) -> None:
    """Apply the changes. A key with a new SSM parameter is stored before its provider, a replaced key after it.

    Raises: AdminError, when a provider has changed since the plan.
    """
    changes = list(changes)
    old_parameters = {
        change.name: old.api_key_secret for change in changes if change.old and (old := parse_stored(change.old))
    }
    for change in changes:
        parameter = change.new.api_key_secret if change.new and change.secret else None
        if parameter != old_parameters.get(change.name):
            _store_key(admin, parameter, change.secret)
        if not admin.config.replace_provider(change.name, change.old, change.new):
            raise AdminError(
                f"provider {change.name}: changed by someone else since the plan; run `providers apply` again"
            )
        if parameter == old_parameters.get(change.name):
            _store_key(admin, parameter, change.secret)
        if change.new is None:
            admin.config.put_model_listing(change.name, None)
    parameters_in_use = {change.new.api_key_secret for change in changes if change.new}
    for name, parameter in old_parameters.items():
        if parameter and parameter.startswith(_parameter_prefix(admin, name)) and parameter not in parameters_in_use:
            _delete_key(admin, parameter)


def check_key(name: str, key: str | None) -> None:
    """Raises: AdminError, when the key contains characters not allowed in an HTTP header."""
    if key and not _HEADER_VALUE.fullmatch(key):
        hint = " (leading or trailing white space)" if key != key.strip() else ""
        raise AdminError(f"provider {name}: the API key contains characters not allowed in an HTTP header{hint}")


def _secret(provider: Provider, environment: Mapping[str, str]) -> str:
    value = environment.get(provider.api_key_var or "")
    if not value:
        raise AdminError(f"provider {provider.name}: the environment variable {provider.api_key_var} is not set")
    return value


def _parameter(admin: Admin, provider: Provider) -> str:
    """SSM parameter of an `api_key_var`. Its name contains the host, so that no other host is sent the key."""
    host = re.sub(r"[^A-Za-z0-9.-]", "_", urlsplit(provider.base_url).netloc)
    return f"{_parameter_prefix(admin, provider.name)}{host}/api-key"


def _parameter_prefix(admin: Admin, name: str) -> str:
    return f"/{admin.stack}/providers/{name}/"


def _read_key(admin: Admin, parameter: str) -> str | None:
    """None, when the parameter does not exist or cannot be read."""
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
    """A stored provider; None, when its JSON is not valid."""
    try:
        return Provider.model_validate_json(text, extra="ignore")
    except ValidationError:
        return None


def provider_view(provider: Provider) -> dict[str, Any]:
    """The provider as printed by the commands."""
    return _with_settings(provider.model_dump(mode="json", exclude_none=True))


def _diff_view(provider: Provider) -> dict[str, Any]:
    """The fields that differ from their defaults."""
    return _with_settings(provider.model_dump(mode="json", exclude_none=True, exclude_defaults=True, exclude={"name"}))


def _with_settings(view: dict[str, Any]) -> dict[str, Any]:
    """The view with the settings of each model beside its name, as in providers.yaml."""
    settings: dict[str, dict[str, Any]] = view.pop("model_settings", {})
    names: dict[str, str] = view["models"]
    models = {n: {"model": upstream, **settings[n]} if settings.get(n) else upstream for n, upstream in names.items()}
    return view | {"models": models}


def _format_value(value: Any) -> str:
    """A value in a diff; models as `public = upstream`, or one name when both are the same."""
    if isinstance(value, dict):
        models = cast(dict[str, Any], value)
        return ", ".join(_format_model(name, upstream) for name, upstream in models.items())
    if isinstance(value, list):
        return ", ".join(cast(list[str], value))
    return "none" if value is None else str(value)


def _format_model(name: str, upstream: Any) -> str:
    """`public = upstream`, followed by the model's settings in parentheses."""
    if not isinstance(upstream, dict):
        return f"{name} = {upstream}" if upstream else name
    members = dict(cast(dict[str, Any], upstream))
    model = members.pop("model")
    settings = ", ".join(f"{member} = {value}" for member, value in members.items())
    return f"{name} = {model} ({settings})" if model else f"{name} ({settings})"
