"""Provider selection and calls: the candidates for a model, best first, and one call to one candidate."""

import logging
from collections.abc import Callable, Generator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from itertools import groupby
from typing import Protocol

from aiserver import log_events
from aiserver.circuit_breaker.breaker import CallTarget, CircuitBreaker
from aiserver.clock import Clock
from aiserver.concurrency import ConcurrencyLeaseStore, lease
from aiserver.errors import InvalidRequest, NotFound, ProviderBusy, ProviderResponse
from aiserver.jobs.job import request_hash
from aiserver.providers import registry
from aiserver.providers.provider import Provider
from aiserver.providers.stream import ProviderStream
from aiserver.wire.upstream_body import with_model

ALTERNATIVES = {"responses": "; use /v1/chat/completions (LangChain: use_responses_api=False)"}
BUSY_RETRY_AFTER_S = 2  # for a provider at its concurrency limit
LEASE_MARGIN_MS = 60_000  # clocks may be a minute apart
HASH_CHARS = 8  # of a request's hash: enough to distinguish the recent requests of one key
CACHE_MS = 30_000  # how long a change of the providers may take to become effective

log = logging.getLogger("aiserver.routing.router")


class ProviderClient(Protocol):
    """Calls providers of one type; see providers/adapters/openai/client.py for its contract."""

    def call(
        self,
        provider: Provider,
        operation: str,
        body: bytes,
        *,
        api_key: str | None,
        idempotency_key: str | None,
        model_is_configured: bool,
        timeout_s: float,
    ) -> ProviderResponse: ...

    def stream(
        self,
        provider: Provider,
        operation: str,
        body: bytes,
        *,
        api_key: str | None,
        model_is_configured: bool,
        head_timeout_s: float,
        total_timeout_s: float,
    ) -> ProviderStream: ...


class Secrets(Protocol):
    """Reads providers' API keys."""

    def value(self, name: str) -> str: ...


@dataclass(frozen=True)
class Candidate:
    """A provider that serves a model, the provider's name for the model, and the rank of the match (0 is best)."""

    provider: Provider
    upstream_model: str
    rank: int

    @property
    def names_model(self) -> bool:
        return self.rank < 2

    @property
    def model_is_configured(self) -> bool:
        """True if the model's name comes from the configuration; a provider's 404 is then a configuration error."""
        return self.names_model or not self.provider.accepts_any_model

    @property
    def order(self) -> tuple[bool, int, int]:
        """The sort key: a provider that names the model before `*`, then priority, then name before tag."""
        return not self.names_model, -self.provider.priority, self.rank


@dataclass(frozen=True)
class ProviderCall:
    """The request for every candidate, made for the API key `owner`.

    With `stream_deadline_ms` the response is streamed and must end by then (Unix ms).
    """

    operation: str
    body: bytes
    owner: str = ""
    idempotency_key: str | None = None
    stream_deadline_ms: int | None = None


class Router:
    """Selects and calls the configured providers, which are cached for CACHE_MS."""

    def __init__(
        self,
        load: Callable[[], list[Provider]],
        clients: Mapping[str, ProviderClient],
        secrets: Secrets | None,
        clock: Clock,
        leases: ConcurrencyLeaseStore | None = None,
        breaker: CircuitBreaker | None = None,
        check: Callable[[str, bytes, str], None] = registry.check_request,
    ) -> None:
        self._load = load
        self._clients = clients
        self._secrets = secrets
        self._clock = clock
        self._leases = leases
        self._breaker = breaker
        self._check = check
        self._cached: tuple[int, list[Provider]] | None = None

    def providers(self) -> list[Provider]:
        """The enabled providers."""
        now = self._clock.now_ms()
        if self._cached is None or now >= self._cached[0] + CACHE_MS:
            self._cached = (now, [provider for provider in self._load() if provider.enabled])
        return self._cached[1]

    def candidates(self, model: str, provider: str | None = None, operation: str | None = None) -> list[Candidate]:
        """The candidates for a model, best first: providers that name the model before `*`, then by priority.

        Raises: NotFound, when no provider serves the model or supports the operation; InvalidRequest, when the
        requested provider does not exist or does not serve the model.
        """
        serving = [
            Candidate(p, served[0], served[1]) for p in self.providers() if (served := p.match_model(model)) is not None
        ]
        if not serving:
            raise NotFound(f"Model {model} not found", code="model_not_found", param="model")
        candidates = [candidate for candidate in serving if operation in (None, *candidate.provider.operations)]
        if not candidates:
            raise NotFound(f"No provider of model {model} supports {operation}{ALTERNATIVES.get(operation or '', '')}")
        if provider is not None:
            candidates = [candidate for candidate in candidates if candidate.provider.name == provider]
            if not candidates:
                raise InvalidRequest(self._unavailable_reason(provider, model, operation), param="provider")
        return sorted(candidates, key=lambda c: (c.order, c.provider.name))

    def filter_supported(self, candidates: list[Candidate], call: ProviderCall) -> list[Candidate]:
        """The candidates whose adapter supports every field of the request.

        Raises: InvalidRequest, when none does; it names the field and the vendor of the best candidate.
        """
        supported: list[Candidate] = []
        first_error: InvalidRequest | None = None
        errors: dict[tuple[str, str], InvalidRequest | None] = {}
        for candidate in candidates:
            adapter_model = (candidate.provider.type, candidate.upstream_model)
            if adapter_model not in errors:
                errors[adapter_model] = self._validation_error(candidate, call)
            if errors[adapter_model] is None:
                supported.append(candidate)
            first_error = first_error or errors[adapter_model]
        if not supported and first_error:
            raise first_error
        return supported

    def _validation_error(self, candidate: Candidate, call: ProviderCall) -> InvalidRequest | None:
        try:
            self._check(candidate.provider.type, call.body, candidate.upstream_model)
        except InvalidRequest as error:
            return error
        return None

    def _unavailable_reason(self, name: str, model: str, operation: str | None) -> str:
        """Why the provider that the caller requested cannot be used."""
        provider = next((provider for provider in self.providers() if provider.name == name), None)
        if provider is None:
            return f"Provider {name} does not exist or is disabled"
        if provider.match_model(model) is None:
            return f"Provider {name} does not serve model {model}"
        return f"Provider {name} serves model {model}, but does not support {operation}"

    def order_by_load(self, candidates: list[Candidate]) -> list[Candidate]:
        """The candidates in call order: within equal order, the one with the lowest share of its `concurrency` in use.

        A candidate without `concurrency` counts as idle; equally loaded ones are rotated at random. This costs one
        read, and only if equals have a `concurrency`.
        """
        groups = groupby(candidates, lambda candidate: candidate.order)
        return [candidate for _, equals in groups for candidate in self._sort_by_load(list(equals))]

    def _sort_by_load(self, equals: list[Candidate]) -> list[Candidate]:
        loads = self._loads(equals)

        def load(candidate: Candidate) -> float:
            return loads.get(candidate.provider.name, 0)

        groups = groupby(sorted(equals, key=load), load)
        return [candidate for _, equally_loaded in groups for candidate in self._rotate(list(equally_loaded))]

    def _rotate(self, candidates: list[Candidate]) -> list[Candidate]:
        first = int(self._clock.fraction() * len(candidates))
        return candidates[first:] + candidates[:first]

    def _loads(self, equals: list[Candidate]) -> dict[str, float]:
        """The share of its `concurrency` that each provider has in use, by provider name, if limited and known."""
        limited = [c.provider for c in equals if c.provider.concurrency]
        if len(equals) == 1 or self._leases is None or not limited:
            return {}
        try:
            in_use = self._leases.count_active(
                [lease_name(provider) for provider in limited], now_ms=self._clock.now_ms()
            )
        except Exception:  # a provider at its limit is skipped when it is called
            log.exception(log_events.LOAD_UNKNOWN)
            return {}
        return {p.name: in_use.get(lease_name(p), 0) / (p.concurrency or 1) for p in limited}

    def api_key(self, candidate: Candidate) -> str | None:
        """The provider's API key. Raises: ProviderAuth (not stored), ProviderUnavailable (cannot be read now)."""
        secret = candidate.provider.api_key_secret
        return self._secrets.value(secret) if secret and self._secrets else None

    @contextmanager
    def admit(self, candidate: Candidate, call: ProviderCall, *, deadline_ms: int) -> Generator[Callable[[], None]]:
        """Wrap one call: check the circuit breaker, hold a concurrency lease, and report the outcome to the breaker.

        The outcome is how the block ends. For a stream, call the yielded function when the first event arrives.
        Raises: ProviderCircuitOpen, ProviderBusy.
        """
        provider = candidate.provider
        timeout_ms = self._clock.now_ms() + round(provider.timeout_s * 1000)
        attempt = CallTarget(
            provider.name,
            call.owner,
            candidate.upstream_model,
            lambda: request_hash(call.operation, call.body)[:HASH_CHARS],
        )
        with ExitStack() as stack:
            if self._breaker:
                self._breaker.check(attempt)
            stack.enter_context(
                self._concurrency_lease(provider, call.stream_deadline_ms or min(deadline_ms, timeout_ms))
            )
            tracking = self._breaker.track_call(attempt, deadline_ms=deadline_ms) if self._breaker else None
            yield stack.enter_context(tracking) if tracking else lambda: None

    @contextmanager
    def _concurrency_lease(self, provider: Provider, deadline_ms: int) -> Generator[None]:
        """Hold one of the provider's concurrency leases; without `concurrency` no lease and no AWS request is needed.

        The lease of a process that dies expires a minute after the call's `deadline_ms`. Raises: ProviderBusy.
        """
        if provider.concurrency is None or self._leases is None:
            yield
            return
        now, expires_ms = self._clock.now_ms(), deadline_ms + LEASE_MARGIN_MS
        name, indexes = lease_name(provider), range(provider.concurrency)
        with ExitStack() as stack:
            try:
                is_held = stack.enter_context(lease(self._leases, name, indexes, now_ms=now, expires_ms=expires_ms))
            except Exception as error:  # the next candidate may have no limit
                log.exception(log_events.CONCURRENCY_CHECK_FAILED, extra={"provider": provider.name})
                message = f"Provider {provider.name}: the concurrency limit cannot be checked now"
                raise ProviderBusy(message, retry_after_s=BUSY_RETRY_AFTER_S) from error
            if not is_held:
                message = f"Provider {provider.name} is at its concurrency limit"
                raise ProviderBusy(message, retry_after_s=BUSY_RETRY_AFTER_S)
            yield

    def call(
        self, candidate: Candidate, call: ProviderCall, *, api_key: str | None, timeout_s: float
    ) -> ProviderResponse:
        """Call one candidate. Raises: the ProviderErrors of providers/adapters/openai/client.py."""
        provider = candidate.provider
        return self._clients[provider.type].call(
            provider,
            call.operation,
            with_model(call.body, candidate.upstream_model),
            api_key=api_key,
            idempotency_key=call.idempotency_key,
            model_is_configured=candidate.model_is_configured,
            timeout_s=min(timeout_s, provider.timeout_s),
        )

    def stream(
        self,
        candidate: Candidate,
        call: ProviderCall,
        *,
        api_key: str | None,
        head_timeout_s: float,
        total_timeout_s: float,
    ) -> ProviderStream:
        """Call one candidate for a streamed response. Raises: like `call`, before the first event."""
        provider = candidate.provider
        return self._clients[provider.type].stream(
            provider,
            call.operation,
            with_model(call.body, candidate.upstream_model),
            api_key=api_key,
            model_is_configured=candidate.model_is_configured,
            head_timeout_s=min(head_timeout_s, provider.timeout_s),
            total_timeout_s=total_timeout_s,
        )


def lease_name(provider: Provider) -> str:
    """The lease name of the provider's calls in progress."""
    return f"provider#{provider.name}"
