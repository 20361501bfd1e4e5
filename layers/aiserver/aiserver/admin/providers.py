"""One stack's providers: what a providers.yaml would change, its application, and what is wrong with one."""

import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol, cast

import yaml
from pydantic import TypeAdapter, ValidationError

from aiserver.admin.stack import Admin, Problem
from aiserver.aws.secrets import SsmSecrets
from aiserver.errors import ProviderAuth, ProviderError
from aiserver.providers.catalogue import CATALOGUE
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
        before = _shown(Provider.model_validate_json(self.old, extra="ignore"))
        for name in dict.fromkeys([*before, *shown]):
            if before.get(name) != shown.get(name):
                yield f"~ {self.name}  {name}: {_short(before.get(name))} -> {_short(shown.get(name))}"


def plan(admin: Admin, text: str, environment: Mapping[str, str] = os.environ) -> list[Change]:
    """What makes the providers those of a providers.yaml; nothing is written yet. Raises: Problem."""
    wanted = read(text)
    for provider in wanted:
        if provider.api_key_secret and not provider.api_key_secret.startswith(f"/{admin.stack}/"):
            raise Problem(f"provider {provider.name}: functions may only read parameters below /{admin.stack}/")
    stored = admin.config.provider_texts()
    changes: list[Change] = []
    for provider in wanted:
        secret = _secret(provider, environment) if provider.api_key_var else None
        if secret:
            own = {"api_key_var": None, "api_key_secret": _parameter(admin, provider.name)}
            provider = provider.model_copy(update=own)
        changes.append(Change(provider.name, stored.get(provider.name), provider, secret))
    kept = {provider.name for provider in wanted}
    return changes + [Change(name, old, None) for name, old in stored.items() if name not in kept]


def apply(admin: Admin, changes: Iterable[Change]) -> None:
    """Make the changes, each only of what it was planned for. Raises: Problem, where another was quicker."""
    changes = list(changes)
    for change in changes:
        if change.secret:
            parameter = _parameter(admin, change.name)
            admin.ssm.put_parameter(Name=parameter, Value=change.secret, Type="SecureString", Overwrite=True)
    for change in changes:
        if not admin.config.replace_provider(change.name, change.old, change.new):
            raise Problem(f"provider {change.name} was changed by another meanwhile; look again and apply again")
    read_now = {change.new.api_key_secret for change in changes if change.new}
    for change in changes:
        own = _parameter(admin, change.name)
        had = Provider.model_validate_json(change.old, extra="ignore").api_key_secret if change.old else None
        if had == own and own not in read_now:
            admin.ssm.delete_parameter(Name=own)
        if change.new is None:
            admin.config.put_listing(change.name, None)


def listed(admin: Admin) -> list[dict[str, Any]]:
    """As stored: keys by the name of their SSM parameter, never by value."""
    return [_dump(provider) for provider in admin.config.providers()]


def shown(admin: Admin, name: str) -> dict[str, Any]:
    """One, with what is known of it now: its circuit, its calls under way, the models it listed. Raises: Problem."""
    provider, now = _one(admin, name), admin.clock.now_ms()
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
    _one(admin, name)
    old = admin.config.provider_texts()[name]
    changed = Provider.model_validate_json(old, extra="ignore").model_copy(update={"enabled": enabled})
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
    provider = _one(admin, name)
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


def read(text: str) -> list[Provider]:
    """The providers of a providers.yaml. Raises: Problem, naming each member that is wrong."""
    try:
        document = yaml.safe_load(text)
    except yaml.YAMLError as error:
        raise Problem(f"not YAML: {error}") from error
    if not isinstance(document, dict) or set(document) != {"providers"}:  # pyright: ignore[reportUnknownArgumentType]
        raise Problem("a providers.yaml holds one member, 'providers': a list")
    try:
        providers = TypeAdapter(list[Provider]).validate_python(document["providers"])
    except ValidationError as error:
        problems = [f"providers[{'.'.join(map(str, e['loc']))}]: {e['msg']}" for e in error.errors()]
        raise Problem("; ".join(problems)) from error
    names = [provider.name for provider in providers]
    if twice := {name for name in names if names.count(name) > 1}:
        raise Problem(f"each provider needs its own name; given twice: {', '.join(sorted(twice))}")
    if unknown := {provider.preset for provider in providers} - {"", *CATALOGUE}:
        raise Problem(f"no such preset: {', '.join(sorted(unknown))}; there are {', '.join(sorted(CATALOGUE))}")
    return providers


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
    return f"{error.message} ({error.__cause__})" if error.__cause__ else error.message


def _one(admin: Admin, name: str) -> Provider:
    found = [provider for provider in admin.config.providers() if provider.name == name]
    if not found:
        raise Problem(f"There is no provider {name}; `providers list` shows them")
    return found[0]


def _secret(provider: Provider, environment: Mapping[str, str]) -> str:
    value = environment.get(provider.api_key_var or "")
    if not value:
        raise Problem(f"provider {provider.name}: the environment variable {provider.api_key_var} is not set")
    return value


def _parameter(admin: Admin, name: str) -> str:
    """Where the key of an `api_key_var` is kept."""
    return f"/{admin.stack}/providers/{name}/api-key"


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
