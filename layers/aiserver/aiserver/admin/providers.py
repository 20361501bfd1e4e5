"""One stack's providers, as its operator looks at them, turns one on or off, and finds out what is wrong with one."""

import json
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from itertools import accumulate
from typing import Any, Protocol

from aiserver.admin.changes import check_key, parse_stored, provider_view
from aiserver.admin.stack import Admin, AdminError
from aiserver.aws.secrets import SsmSecrets
from aiserver.errors import ProviderAuth, ProviderError
from aiserver.providers.circuit import PROVIDER_GATE, Circuit
from aiserver.providers.provider import ANY_MODEL, ModelListing, Provider
from aiserver.router import lease_name
from aiserver.wire.render import format_iso

CHECK_S = 10  # for a list of models
MAX_LISTED_BYTES = 300_000  # of ids that are kept of a provider: an item of DynamoDB holds 400 KB


class ModelLister(Protocol):
    """How a provider's models are asked for; see providers/openai.py for its promises."""

    def list_models(self, provider: Provider, *, api_key: str | None, timeout_s: float) -> list[str]: ...


def list_providers(admin: Admin) -> list[dict[str, Any]]:
    """As stored: keys by the name of their SSM parameter, never by value."""
    return [provider_view(provider) for provider in admin.config.providers()]


def show_provider(admin: Admin, name: str) -> dict[str, Any]:
    """One, with what is known of it now: its circuit, its calls under way, the models it listed. Raises: Problem."""
    (_, provider), now = _get_provider(admin, name), admin.clock.now_ms()
    circuit, listing = admin.circuits.read_all().get(name, Circuit()), admin.config.model_listings().get(name)
    ask_at = circuit.gate(PROVIDER_GATE).retry_at
    under_way = admin.leases.count_held([lease_name(provider)], now_ms=now)[lease_name(provider)]
    return provider_view(provider) | {
        "circuit": "closed" if ask_at is None else "open",
        "asked_again": format_iso(ask_at),
        "open_for": [
            {"key_id": owner or None, "model": model, "asked_again": format_iso(gate.retry_at)}
            for (owner, model), gate in circuit.gates.items()
            if model and gate.retry_at is not None
        ],
        "calls_under_way": under_way if provider.concurrency else None,
        "models_listed": len(listing.ids) if listing else None,
        "models_listed_at": format_iso(listing.listed_at) if listing else None,
    }


def set_enabled(admin: Admin, name: str, *, enabled: bool) -> dict[str, Any]:
    """Have it asked from now on, or no more, though it is kept; seen by functions within 30 s. Raises: Problem."""
    old, provider = _get_provider(admin, name)
    changed = provider.model_copy(update={"enabled": enabled})
    if not admin.config.replace_provider(name, old, changed):
        raise AdminError(f"provider {name} was changed by another meanwhile; look again")
    return provider_view(changed)


def providers_to_check(admin: Admin, names: Sequence[str]) -> list[str]:
    """These, or all that are enabled."""
    return list(names) or [provider.name for provider in admin.config.providers() if provider.enabled]


def check_provider(admin: Admin, name: str, protocols: Mapping[str, ModelLister]) -> dict[str, Any]:
    """How many models it lists, which is free to ask; where any may be asked for, /v1/models shows them from now on.

    Raises: Problem, naming what is wrong.
    """
    _, provider = _get_provider(admin, name)
    _check_stored_key(admin, provider)
    if not provider.catalogue_preset.lists_models:
        return {
            "name": provider.name,
            "models": None,
            "note": f"{provider.catalogue_preset.title} has no list of models to ask for",
        }
    ids = _fetch_model_ids(admin, provider, protocols)
    store_model_listing(admin, provider, ids)
    known = {*ids, *(one.removesuffix(":latest") for one in ids)}
    names = {own or name for name, own in provider.models.items() if name != ANY_MODEL or own}
    if unknown := sorted(names - known):
        raise AdminError(f"{provider.name} answers, but does not list {', '.join(unknown)}; it lists {_preview(ids)}")
    return {"name": provider.name, "models": len(ids)}


def refresh_model_listings(admin: Admin, protocols: Mapping[str, ModelLister]) -> Iterator[str]:
    """Ask every enabled provider that takes any model which it has; a line for each that does not tell."""
    for provider in admin.config.providers():
        if provider.enabled and provider.accepts_any_model and provider.catalogue_preset.lists_models:
            try:
                store_model_listing(admin, provider, _fetch_model_ids(admin, provider, protocols))
            except AdminError as problem:
                yield f"/v1/models will not show what {provider.name} has: {problem}"


def store_model_listing(admin: Admin, provider: Provider, ids: list[str]) -> None:
    """For /v1/models, until it is asked again."""
    if provider.accepts_any_model:
        sizes = accumulate(len(json.dumps([one])) for one in ids)
        kept = tuple(one for one, size in zip(ids, sizes, strict=True) if size <= MAX_LISTED_BYTES)
        admin.config.put_model_listing(provider.name, ModelListing(kept, admin.clock.now_ms()))


def _fetch_model_ids(admin: Admin, provider: Provider, protocols: Mapping[str, ModelLister]) -> list[str]:
    try:
        key = provider.api_key_secret and SsmSecrets(admin.ssm, admin.clock).value(provider.api_key_secret)
        return protocols[provider.type].list_models(provider, api_key=key or None, timeout_s=CHECK_S)
    except ProviderError as error:
        raise AdminError(f"{provider.name}: {_error_text(provider, error)}") from error


def _check_stored_key(admin: Admin, provider: Provider) -> None:
    """Raises: Problem. A key that cannot be read is reported by the call that needs it."""
    if provider.api_key_secret:
        with suppress(ProviderError):
            check_key(provider.name, SsmSecrets(admin.ssm, admin.clock).value(provider.api_key_secret))


def _error_text(provider: Provider, error: ProviderError) -> str:
    """In the operator's words; those of the provider may show part of a key, and are left out where it is refused."""
    if isinstance(error, ProviderAuth) and error.upstream_status:
        return f"it refuses the key (status {error.upstream_status})"
    if error.upstream_status == 404:
        return f"there is no {provider.base_url}/models (status 404): is its base_url right?"
    said = error.message.removeprefix(f"Provider {provider.name} ")
    return f"{said} ({error.__cause__})" if error.__cause__ else said


def _get_provider(admin: Admin, name: str) -> tuple[str, Provider]:
    """A provider's text and what it says. Raises: Problem."""
    text = admin.config.provider_texts().get(name, "")
    provider = parse_stored(text)
    if provider is None:
        raise AdminError(f"There is no provider {name}; `providers list` shows them")
    return text, provider


def _preview(ids: list[str]) -> str:
    return ", ".join(ids[:5]) + (f" and {len(ids) - 5} more" if len(ids) > 5 else "") if ids else "none"
