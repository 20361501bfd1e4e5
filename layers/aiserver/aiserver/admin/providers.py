"""One stack's providers, as its operator looks at them, turns one on or off, and finds out what is wrong with one."""

import json
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from itertools import accumulate
from typing import Any, Protocol

from aiserver.admin.changes import check_key, dump, parsed
from aiserver.admin.stack import Admin, Problem
from aiserver.aws.secrets import SsmSecrets
from aiserver.errors import ProviderAuth, ProviderError
from aiserver.providers.circuit import EVERYONE, Circuit
from aiserver.providers.provider import ANY_MODEL, Listing, Provider
from aiserver.router import slots_of
from aiserver.wire.render import iso

CHECK_S = 10  # for a list of models
MAX_LISTED_BYTES = 300_000  # of ids that are kept of a provider: an item of DynamoDB holds 400 KB


class ListsModels(Protocol):
    """How a provider's models are asked for; see providers/openai.py for its promises."""

    def models(self, provider: Provider, *, api_key: str | None, deadline_s: float) -> list[str]: ...


def listed(admin: Admin) -> list[dict[str, Any]]:
    """As stored: keys by the name of their SSM parameter, never by value."""
    return [dump(provider) for provider in admin.config.providers()]


def shown(admin: Admin, name: str) -> dict[str, Any]:
    """One, with what is known of it now: its circuit, its calls under way, the models it listed. Raises: Problem."""
    (_, provider), now = _stored(admin, name), admin.clock.now_ms()
    circuit, listing = admin.circuits.all().get(name, Circuit()), admin.config.listings().get(name)
    ask_at = circuit.gate(EVERYONE).ask_at
    under_way = admin.slots.taken([slots_of(provider)], now_ms=now)[slots_of(provider)]
    return dump(provider) | {
        "circuit": "closed" if ask_at is None else "open",
        "asked_again": iso(ask_at),
        "open_for": [
            {"key_id": owner or None, "model": model, "asked_again": iso(gate.ask_at)}
            for (owner, model), gate in circuit.gates.items()
            if model and gate.ask_at is not None
        ],
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
    return dump(changed)


def to_check(admin: Admin, names: Sequence[str]) -> list[str]:
    """These, or all that are enabled."""
    return list(names) or [provider.name for provider in admin.config.providers() if provider.enabled]


def checked(admin: Admin, name: str, protocols: Mapping[str, ListsModels]) -> dict[str, Any]:
    """How many models it lists, which is free to ask; where any may be asked for, /v1/models shows them from now on.

    Raises: Problem, naming what is wrong.
    """
    _, provider = _stored(admin, name)
    _check_stored_key(admin, provider)
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
        sizes = accumulate(len(json.dumps([one])) for one in ids)
        kept = tuple(one for one, size in zip(ids, sizes, strict=True) if size <= MAX_LISTED_BYTES)
        admin.config.put_listing(provider.name, Listing(kept, admin.clock.now_ms()))


def _ids(admin: Admin, provider: Provider, protocols: Mapping[str, ListsModels]) -> list[str]:
    try:
        key = provider.api_key_secret and SsmSecrets(admin.ssm, admin.clock).value(provider.api_key_secret)
        return protocols[provider.type].models(provider, api_key=key or None, deadline_s=CHECK_S)
    except ProviderError as error:
        raise Problem(f"{provider.name}: {_why(provider, error)}") from error


def _check_stored_key(admin: Admin, provider: Provider) -> None:
    """Raises: Problem. A key that cannot be read is reported by the call that needs it."""
    if provider.api_key_secret:
        with suppress(ProviderError):
            check_key(provider.name, SsmSecrets(admin.ssm, admin.clock).value(provider.api_key_secret))


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
    provider = parsed(text)
    if provider is None:
        raise Problem(f"There is no provider {name}; `providers list` shows them")
    return text, provider


def _some(ids: list[str]) -> str:
    return ", ".join(ids[:5]) + (f" and {len(ids) - 5} more" if len(ids) > 5 else "") if ids else "none"
