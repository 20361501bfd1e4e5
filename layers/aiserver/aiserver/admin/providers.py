"""One stack's providers: what a providers.yaml would change, its application, and what is wrong with one."""

import contextlib
import os
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol, cast
from urllib.parse import urlsplit

from pydantic import ValidationError

from aiserver.admin import providers_yaml
from aiserver.admin.stack import Admin, Problem
from aiserver.aws.secrets import SsmSecrets
from aiserver.errors import ProviderAuth, ProviderError
from aiserver.providers.provider import ANY_MODEL, Listing, Provider
from aiserver.router import slots_of
from aiserver.wire.render import iso

CHECK_S = 10  # for a list of models
MAX_LISTED = 5_000  # ids that are kept of a provider: an item of DynamoDB holds 400 KB


class ListsModels(Protocol):
    """How a provider's models are asked for; see providers/openai.py for its promises."""

    def models(self, provider: Provider, *, api_key: str | None, deadline_s: float) -> list[str]: ...


@dataclass(frozen=True)
class Change:
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
        shown = _shown(self.new)
        if self.old is None:
            yield f"+ {self.name}  " + ", ".join(f"{name}: {_short(value)}" for name, value in shown.items())
            return
        old = _parsed(self.old)
        before, after = _dump(old) if old else {}, _dump(self.new)
        for name in dict.fromkeys([*before, *after]):
            if before.get(name) != after.get(name):
                yield f"~ {self.name}  {name}: {_short(before.get(name))} -> {_short(after.get(name))}"
        if self.secret and old and old.api_key_secret == self.new.api_key_secret:
            yield f"~ {self.name}  key: another"


def plan(admin: Admin, text: str, environment: Mapping[str, str] = os.environ) -> list[Change]:
    """What makes the providers those of a providers.yaml; nothing is written yet. Raises: Problem."""
    wanted = providers_yaml.read(text)
    for provider in wanted:
        if provider.api_key_secret and not provider.api_key_secret.startswith(f"/{admin.stack}/"):
            raise Problem(f"provider {provider.name}: functions may only read parameters below /{admin.stack}/")
    stored = admin.config.provider_texts()
    changes: list[Change] = []
    for provider in wanted:
        secret = None
        if provider.api_key_var:
            parameter = _parameter(admin, provider)
            secret = _secret(provider, environment)
            secret = None if secret == _stored_key(admin, parameter) else secret
            provider = provider.model_copy(update={"api_key_var": None, "api_key_secret": parameter})
        changes.append(Change(provider.name, stored.get(provider.name), provider, secret))
    kept = {provider.name for provider in wanted}
    return changes + [Change(name, old, None) for name, old in stored.items() if name not in kept]


def apply(admin: Admin, changes: Iterable[Change]) -> None:
    """Make the changes, each only of what it was planned for. Raises: Problem, where another was quicker.

    A key under a name that nobody reads yet is stored before its provider, one that is replaced after it.
    """
    changes = list(changes)
    had = {change.name: old.api_key_secret for change in changes if change.old and (old := _parsed(change.old))}
    for change in changes:
        parameter = change.new.api_key_secret if change.new and change.secret else None
        if parameter != had.get(change.name):
            _store_key(admin, parameter, change.secret)
        if not admin.config.replace_provider(change.name, change.old, change.new):
            raise Problem(f"provider {change.name} was changed by another meanwhile; look again and apply again")
        if parameter == had.get(change.name):
            _store_key(admin, parameter, change.secret)
        if change.new is None:
            admin.config.put_listing(change.name, None)
    read_now = {change.new.api_key_secret for change in changes if change.new}
    for name, parameter in had.items():
        if parameter and parameter.startswith(_folder(admin, name)) and parameter not in read_now:
            _forget_key(admin, parameter)


def listed(admin: Admin) -> list[dict[str, Any]]:
    """As stored: keys by the name of their SSM parameter, never by value."""
    return [_dump(provider) for provider in admin.config.providers()]


def shown(admin: Admin, name: str) -> dict[str, Any]:
    """One, with what is known of it now: its circuit, its calls under way, the models it listed. Raises: Problem."""
    (_, provider), now = _stored(admin, name), admin.clock.now_ms()
    circuit, listing = admin.circuits.all().get(name), admin.config.listings().get(name)
    under_way = admin.slots.taken([slots_of(provider)], now_ms=now)[slots_of(provider)]
    return _dump(provider) | {
        "circuit": "open" if circuit and circuit.ask_at is not None else "closed",
        "asked_again": iso(circuit.ask_at) if circuit else None,
        "calls_under_way": under_way if provider.concurrency else None,
        "models_listed": len(listing.ids) if listing else None,
        "models_listed_at": iso(listing.listed_at) if listing else None,
    }


def enable(admin: Admin, name: str, *, enabled: bool) -> dict[str, Any]:
    """Have it asked from now on, or no more, though it is kept; seen by functions within 30 s. Raises: Problem."""
    old, provider = _stored(admin, name)
    changed = provider.model_copy(update={"enabled": enabled})
    if not admin.config.replace_provider(name, old, changed):
        raise Problem(f"provider {name} was changed by another meanwhile; look again")
    return _dump(changed)


def to_check(admin: Admin, names: Sequence[str]) -> list[str]:
    """These, or all that are enabled."""
    return list(names) or [provider.name for provider in admin.config.providers() if provider.enabled]


def checked(admin: Admin, name: str, protocols: Mapping[str, ListsModels]) -> dict[str, Any]:
    """How many models it lists, which is free to ask; where any may be asked for, /v1/models shows them from now on.

    Raises: Problem, naming what is wrong.
    """
    _, provider = _stored(admin, name)
    if not provider.row.lists_models:
        return {"name": provider.name, "models": None, "note": f"{provider.row.title} has no list of models to ask for"}
    ids = _ids(admin, provider, protocols)
    keep(admin, provider, ids)
    known = {*ids, *(one.removesuffix(":latest") for one in ids)}
    names = {own or name for name, own in provider.models.items() if name != ANY_MODEL or own}
    if unknown := sorted(names - known):
        raise Problem(f"{provider.name} answers, but does not list {', '.join(unknown)}; it lists {_some(ids)}")
    return {"name": provider.name, "models": len(ids)}


def refresh(admin: Admin, protocols: Mapping[str, ListsModels]) -> Iterator[str]:
    """Ask every enabled provider that takes any model which it has; a line for each that does not tell."""
    for provider in admin.config.providers():
        if provider.enabled and provider.passes_any_model and provider.row.lists_models:
            try:
                keep(admin, provider, _ids(admin, provider, protocols))
            except Problem as problem:
                yield f"/v1/models will not show what {provider.name} has: {problem}"


def keep(admin: Admin, provider: Provider, ids: list[str]) -> None:
    """For /v1/models, until it is asked again."""
    if provider.passes_any_model:
        admin.config.put_listing(provider.name, Listing(tuple(ids[:MAX_LISTED]), admin.clock.now_ms()))


def _ids(admin: Admin, provider: Provider, protocols: Mapping[str, ListsModels]) -> list[str]:
    try:
        key = provider.api_key_secret and SsmSecrets(admin.ssm, admin.clock).value(provider.api_key_secret)
        return protocols[provider.type].models(provider, api_key=key or None, deadline_s=CHECK_S)
    except ProviderError as error:
        raise Problem(f"{provider.name}: {_why(provider, error)}") from error


def _why(provider: Provider, error: ProviderError) -> str:
    """In the operator's words; those of the provider may show part of a key, and are left out where it is refused."""
    if isinstance(error, ProviderAuth) and error.upstream_status:
        return f"it refuses the key (status {error.upstream_status})"
    if error.upstream_status == 404:
        return f"there is no {provider.base_url}/models (status 404): is its base_url right?"
    said = error.message.removeprefix(f"Provider {provider.name} ")
    return f"{said} ({error.__cause__})" if error.__cause__ else said


def _stored(admin: Admin, name: str) -> tuple[str, Provider]:
    """A provider's text and what it says. Raises: Problem."""
    text = admin.config.provider_texts().get(name, "")
    provider = _parsed(text)
    if provider is None:
        raise Problem(f"There is no provider {name}; `providers list` shows them")
    return text, provider


def _secret(provider: Provider, environment: Mapping[str, str]) -> str:
    value = environment.get(provider.api_key_var or "")
    if not value:
        raise Problem(f"provider {provider.name}: the environment variable {provider.api_key_var} is not set")
    return value


def _parameter(admin: Admin, provider: Provider) -> str:
    """Where the key of an `api_key_var` is kept, for the host that it is for: no other may ever be sent it."""
    host = re.sub(r"[^A-Za-z0-9.-]", "_", urlsplit(provider.base_url).netloc)
    return f"{_folder(admin, provider.name)}{host}/api-key"


def _folder(admin: Admin, name: str) -> str:
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


def _forget_key(admin: Admin, parameter: str) -> None:
    with contextlib.suppress(admin.ssm.exceptions.ParameterNotFound):
        admin.ssm.delete_parameter(Name=parameter)


def _parsed(text: str) -> Provider | None:
    """A provider as it is stored; None for one that cannot be read."""
    try:
        return Provider.model_validate_json(text, extra="ignore")
    except ValidationError:
        return None


def _dump(provider: Provider) -> dict[str, Any]:
    return provider.model_dump(mode="json", exclude_none=True)


def _shown(provider: Provider) -> dict[str, Any]:
    """What a diff shows: what is not as it would be by itself."""
    return provider.model_dump(mode="json", exclude_none=True, exclude_defaults=True, exclude={"name"})


def _short(value: Any) -> str:
    """A value in a diff; models as `public = own`, or the one name where there is but one."""
    if isinstance(value, dict):
        models = cast(dict[str, str], value)
        return ", ".join(f"{name} = {own}" if own else name for name, own in models.items())
    if isinstance(value, list):
        return ", ".join(cast(list[str], value))
    return "none" if value is None else str(value)


def _some(ids: list[str]) -> str:
    return ", ".join(ids[:5]) + (f" and {len(ids) - 5} more" if len(ids) > 5 else "") if ids else "none"
