"""Selects the providers that serve a model, and orders them; pure functions over the cached ProviderDirectory."""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from itertools import groupby
from typing import Any

from aiserver.clock import Clock
from aiserver.errors import InvalidRequest, NotFound
from aiserver.operations import Operation
from aiserver.providers.call import Upstream
from aiserver.providers.provider import Provider

CACHE_MS = 30_000  # how long a change of the providers may take to become effective


@dataclass(frozen=True)
class Candidate:
    """A provider that serves a model, its name for the model, the rank of the match (0 is best), and its settings."""

    provider: Provider
    upstream_model: str
    rank: int
    settings: Mapping[str, Any] = field(default_factory=dict[str, Any])

    @property
    def names_model(self) -> bool:
        return self.rank < 2

    @property
    def order(self) -> tuple[bool, int, int]:
        """A provider that names the model before `*`, then priority, then name before tag."""
        return not self.names_model, -self.provider.priority, self.rank

    @property
    def sort_key(self) -> tuple[tuple[bool, int, int], str]:
        """The order, and the provider's name among equals."""
        return self.order, self.provider.name

    def upstream(self, api_key: str | None = None) -> Upstream:
        model_is_configured = self.names_model or not self.provider.accepts_any_model
        return Upstream(self.provider, self.upstream_model, model_is_configured, api_key, self.settings)


class ProviderDirectory:
    """The enabled providers, which are cached for CACHE_MS."""

    def __init__(self, load: Callable[[], list[Provider]], clock: Clock) -> None:
        self._load = load
        self._clock = clock
        self._cached: tuple[int, list[Provider]] | None = None

    def providers(self) -> list[Provider]:
        now = self._clock.now_ms()
        if self._cached is None or now >= self._cached[0] + CACHE_MS:
            self._cached = (now, [provider for provider in self._load() if provider.enabled])
        return self._cached[1]

    def candidates(
        self, model: str, provider: str | None = None, operation: Operation | None = None
    ) -> list[Candidate]:
        """The candidates for a model. Raises: as `select_candidates`."""
        return select_candidates(self.providers(), model, provider, operation)


def select_candidates(
    providers: Iterable[Provider], model: str, provider: str | None = None, operation: Operation | None = None
) -> list[Candidate]:
    """The candidates for a model, best first: providers that name the model before `*`, then by priority.

    Raises: NotFound, when no provider serves the model or supports the operation; InvalidRequest, when the requested
    `provider` does not exist or does not serve the model.
    """
    configured = list(providers)
    serving = [
        Candidate(candidate, served[0], served[1], candidate.settings_of(model))
        for candidate in configured
        if (served := candidate.match_model(model)) is not None
    ]
    if not serving:
        raise NotFound(f"Model {model} not found", code="model_not_found", param="model")
    candidates = [c for c in serving if operation is None or operation.name in c.provider.operations]
    if operation and not candidates:
        hint = f"; {operation.alternative}" if operation.alternative else ""
        raise NotFound(f"No provider of model {model} supports {operation.name}{hint}")
    if provider is not None:
        candidates = [candidate for candidate in candidates if candidate.provider.name == provider]
        if not candidates:
            raise InvalidRequest(_unavailable_reason(configured, provider, model, operation), param="provider")
    return sorted(candidates, key=lambda candidate: candidate.sort_key)


def _unavailable_reason(providers: list[Provider], name: str, model: str, operation: Operation | None) -> str:
    """Why the provider that the caller requested cannot be used."""
    provider = next((provider for provider in providers if provider.name == name), None)
    if provider is None:
        return f"Provider {name} does not exist or is disabled"
    if provider.match_model(model) is None:
        return f"Provider {name} does not serve model {model}"
    return f"Provider {name} serves model {model}, but does not support {operation.name if operation else ''}"


def first_supported(candidates: list[Candidate], check: Callable[[Upstream], None]) -> Candidate:
    """The first candidate for which `check` raises no InvalidRequest.

    Raises: InvalidRequest, when there is none; it is that of the best candidate.
    """
    first_error: InvalidRequest | None = None
    for candidate in candidates:
        try:
            check(candidate.upstream())
        except InvalidRequest as error:
            first_error = first_error or error
        else:
            return candidate
    raise first_error or AssertionError("a selection without candidates raises NotFound")


def order_by_load(candidates: list[Candidate], loads: Mapping[str, float], fraction: float) -> list[Candidate]:
    """The candidates in call order: of equal order, the least loaded first; equally loaded ones in random order.

    `loads` is the share of its `concurrency` that a provider has in use, by provider name; one without counts as idle.
    `fraction`, in [0, 1), is the random number.
    """

    def key(candidate: Candidate) -> tuple[tuple[bool, int, int], float]:
        return candidate.order, loads.get(candidate.provider.name, 0)

    ordered: list[Candidate] = []
    for _, group in groupby(sorted(candidates, key=key), key):
        ordered += _permute(list(group), fraction)
    return ordered


def _permute(candidates: list[Candidate], fraction: float) -> list[Candidate]:
    """One of all orders, each equally likely: one of several equal candidates may be skipped later."""
    permuted: list[Candidate] = []
    while candidates:
        position = fraction * len(candidates)
        permuted.append(candidates.pop(int(position)))
        fraction = position % 1
    return permuted


def equal_limited_providers(candidates: list[Candidate]) -> list[Provider]:
    """The providers whose load decides the order: those with a `concurrency` and an equal."""
    groups = [list(group) for _, group in groupby(candidates, lambda candidate: candidate.order)]
    return [c.provider for equals in groups if len(equals) > 1 for c in equals if c.provider.concurrency]
