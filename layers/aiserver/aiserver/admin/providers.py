"""List, show, enable, disable and check a stack's providers."""

import json
from collections.abc import Iterator, Sequence
from contextlib import suppress
from itertools import accumulate
from typing import Any, Protocol

from aiserver.admin.changes import check_key, parse_stored, provider_view
from aiserver.admin.stack import Admin, AdminError
from aiserver.aws.secrets import SsmSecrets
from aiserver.circuit_breaker.circuit import PROVIDER_GATE, Circuit
from aiserver.errors import ProviderAuth, ProviderError
from aiserver.providers.call import Upstream
from aiserver.providers.provider import ANY_MODEL, ModelListing, Provider
from aiserver.routing.admission import lease_name
from aiserver.wire.render import format_iso

CHECK_S = 10  # timeout of a request for the model list
MAX_LISTED_BYTES = 300_000  # of model ids stored for a provider: a DynamoDB item holds 400 KB


class ModelLister(Protocol):
    """The part of dispatch.Dispatcher that lists a provider's models."""

    def list_models(self, upstream: Upstream, *, timeout_s: float) -> list[str]: ...


def list_providers(admin: Admin) -> list[dict[str, Any]]:
    """The stored providers, with the SSM parameter names of their API keys, never the keys."""
    return [provider_view(provider) for provider in admin.config.providers()]


def show_provider(admin: Admin, name: str) -> dict[str, Any]:
    """A provider with its circuit state, active calls and listed models.

    Raises: AdminError, when the provider does not exist.
    """
    (_, provider), now = _get_provider(admin, name), admin.clock.now_ms()
    circuit, listing = admin.circuits.read_all().get(name, Circuit()), admin.config.model_listings().get(name)
    retry_at = circuit.gate(PROVIDER_GATE).retry_at
    active_calls = admin.leases.count_active([lease_name(provider)], now_ms=now)[lease_name(provider)]
    return provider_view(provider) | {
        "circuit": "closed" if retry_at is None else "open",
        "asked_again": format_iso(retry_at),
        "open_for": [
            {"key_id": owner or None, "model": model, "asked_again": format_iso(gate.retry_at)}
            for (owner, model), gate in circuit.gates.items()
            if model and gate.retry_at is not None
        ],
        "calls_under_way": active_calls if provider.concurrency else None,
        "models_listed": len(listing.ids) if listing else None,
        "models_listed_at": format_iso(listing.listed_at) if listing else None,
    }


def set_enabled(admin: Admin, name: str, *, enabled: bool) -> dict[str, Any]:
    """Enable or disable a provider; functions read the change within 30 s.

    Raises: AdminError, when the provider does not exist or was changed at the same time.
    """
    old, provider = _get_provider(admin, name)
    new = provider.model_copy(update={"enabled": enabled})
    if not admin.config.replace_provider(name, old, new):
        raise AdminError(f"provider {name}: changed by someone else at the same time; try again")
    return provider_view(new)


def providers_to_check(admin: Admin, names: Sequence[str]) -> list[str]:
    """These names, or all enabled providers."""
    return list(names) or [provider.name for provider in admin.config.providers() if provider.enabled]


def check_provider(admin: Admin, name: str, lister: ModelLister) -> dict[str, Any]:
    """Request a provider's model list, which is free, and count the models.

    For a provider that accepts any model, the list is stored for /v1/models.
    Raises: AdminError, when the list cannot be read or lacks a configured model.
    """
    _, provider = _get_provider(admin, name)
    _check_stored_key(admin, provider)
    if not provider.catalogue_preset.lists_models:
        return {
            "name": provider.name,
            "models": None,
            "note": f"{provider.catalogue_preset.title} does not list its models",
        }
    ids = _fetch_model_ids(admin, provider, lister)
    store_model_listing(admin, provider, ids)
    known = {*ids, *(model_id.removesuffix(":latest") for model_id in ids)}
    names = {upstream or name for name, upstream in provider.models.items() if name != ANY_MODEL or upstream}
    if unknown := sorted(names - known):
        raise AdminError(
            f"provider {provider.name}: does not list {', '.join(unknown)}; listed models: {_preview(ids)}"
        )
    return {"name": provider.name, "models": len(ids)}


def refresh_model_listings(admin: Admin, lister: ModelLister) -> Iterator[str]:
    """Store the model lists of enabled providers that accept any model; yields a line for each failure."""
    for provider in admin.config.providers():
        if provider.enabled and provider.accepts_any_model and provider.catalogue_preset.lists_models:
            try:
                store_model_listing(admin, provider, _fetch_model_ids(admin, provider, lister))
            except AdminError as error:
                yield f"/v1/models does not include the models of {provider.name}: {error}"


def store_model_listing(admin: Admin, provider: Provider, ids: list[str]) -> None:
    """Store the ids for /v1/models, if the provider accepts any model."""
    if provider.accepts_any_model:
        sizes = accumulate(len(json.dumps([model_id])) for model_id in ids)
        stored_ids = tuple(model_id for model_id, size in zip(ids, sizes, strict=True) if size <= MAX_LISTED_BYTES)
        admin.config.put_model_listing(provider.name, ModelListing(stored_ids, admin.clock.now_ms()))


def _fetch_model_ids(admin: Admin, provider: Provider, lister: ModelLister) -> list[str]:
    try:
        key = provider.api_key_secret and SsmSecrets(admin.ssm, admin.clock).value(provider.api_key_secret)
        upstream = Upstream(provider, "", model_is_configured=False, api_key=key or None)
        return lister.list_models(upstream, timeout_s=CHECK_S)
    except ProviderError as error:
        raise AdminError(f"provider {provider.name}: {_error_text(provider, error)}") from error


def _check_stored_key(admin: Admin, provider: Provider) -> None:
    """Raises: AdminError, when the stored key is not valid. A key that cannot be read is reported by the call."""
    if provider.api_key_secret:
        with suppress(ProviderError):
            check_key(provider.name, SsmSecrets(admin.ssm, admin.clock).value(provider.api_key_secret))


def _error_text(provider: Provider, error: ProviderError) -> str:
    """The error for the operator. A rejected key omits the provider's message, which may contain part of the key."""
    if isinstance(error, ProviderAuth) and error.upstream_status:
        return f"rejected the API key (status {error.upstream_status})"
    if error.upstream_status == 404:
        return f"{provider.base_url}/models does not exist (status 404); check base_url"
    message = error.message.removeprefix(f"Provider {provider.name}").removeprefix(":").strip()
    return f"{message} ({error.__cause__})" if error.__cause__ else message


def _get_provider(admin: Admin, name: str) -> tuple[str, Provider]:
    """A provider as stored JSON and parsed. Raises: AdminError, when it does not exist."""
    text = admin.config.provider_texts().get(name, "")
    provider = parse_stored(text)
    if provider is None:
        raise AdminError(f"provider {name} does not exist; see `providers list`")
    return text, provider


def _preview(ids: list[str]) -> str:
    return ", ".join(ids[:5]) + (f" and {len(ids) - 5} more" if len(ids) > 5 else "") if ids else "none"
