"""Chooses who answers, and asks them: the candidates for a model, best first, and one call to one of them."""

import logging
from collections.abc import Callable, Generator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from itertools import groupby
from typing import Protocol

from aiserver.clock import Clock
from aiserver.errors import InvalidRequest, NotFound, ProviderBusy, ProviderResponse
from aiserver.jobs.concurrency import lease
from aiserver.jobs.job import request_hash
from aiserver.jobs.ports import LeaseStore
from aiserver.providers import registry
from aiserver.providers.breaker import Attempt, CircuitBreaker
from aiserver.providers.provider import Provider
from aiserver.providers.stream import ProviderStream
from aiserver.wire.upstream_body import with_model

ALTERNATIVES = {"responses": "; ask it by /v1/chat/completions (LangChain: use_responses_api=False)"}
BUSY_S = 2  # until a provider whose calls are all under way may be asked again
LEASE_MARGIN_MS = 60_000  # clocks may be a minute apart
HASH_CHARS = 8  # of a request's hash: enough to tell the last few of one key apart
CACHE_MS = 30_000  # how long a change of the providers may take to be seen

log = logging.getLogger("aiserver.router")


class ProviderClient(Protocol):
    """How providers of one type are called; see providers/openai.py for its promises."""

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
    """Where providers' keys live."""

    def value(self, name: str) -> str: ...


@dataclass(frozen=True)
class Candidate:
    """A provider that can answer for a model, the name it knows the model by, and how well it matches."""

    provider: Provider
    upstream_model: str
    rank: int

    @property
    def names_model(self) -> bool:
        return self.rank < 2

    @property
    def model_is_configured(self) -> bool:
        """Whether the model's name stands in our own configuration, so that a provider's 404 is our trouble."""
        return self.names_model or not self.provider.accepts_any_model

    @property
    def order(self) -> tuple[bool, int, int]:
        """What it is sorted by: whoever names the model before every `*`, then by priority, then name before tag."""
        return not self.names_model, -self.provider.priority, self.rank


@dataclass(frozen=True)
class ProviderCall:
    """What every candidate is asked, for the key `owner`.

    With `stream_until_ms` to answer event by event, until then at the latest.
    """

    operation: str
    body: bytes
    owner: str = ""
    idempotency_key: str | None = None
    stream_deadline_ms: int | None = None


class Router:
    """The configured providers, read through a short cache."""

    def __init__(
        self,
        load: Callable[[], list[Provider]],
        by_type: Mapping[str, ProviderClient],
        secrets: Secrets | None,
        clock: Clock,
        leases: LeaseStore | None = None,
        breaker: CircuitBreaker | None = None,
        check: Callable[[str, bytes, str], None] = registry.check_supported,
    ) -> None:
        self._load = load
        self._protocols = by_type
        self._secrets = secrets
        self._clock = clock
        self._leases = leases
        self._breaker = breaker
        self._check = check
        self._cached: tuple[int, list[Provider]] | None = None

    def providers(self) -> list[Provider]:
        """The enabled ones."""
        now = self._clock.now_ms()
        if self._cached is None or now >= self._cached[0] + CACHE_MS:
            self._cached = (now, [provider for provider in self._load() if provider.enabled])
        return self._cached[1]

    def candidates(self, model: str, provider: str | None = None, operation: str | None = None) -> list[Candidate]:
        """Who can answer, best first: whoever names the model before every `*`, then by priority.

        Raises: NotFound (nobody serves the model, or nobody does that with it), InvalidRequest (the provider asked for
        does not exist or serve it).
        """
        serving = [
            Candidate(p, served[0], served[1]) for p in self.providers() if (served := p.match_model(model)) is not None
        ]
        if not serving:
            raise NotFound(f"Model {model} not found", code="model_not_found", param="model")
        found = [candidate for candidate in serving if operation in (None, *candidate.provider.operations)]
        if not found:
            raise NotFound(f"No provider of model {model} offers {operation}{ALTERNATIVES.get(operation or '', '')}")
        if provider is not None:
            found = [candidate for candidate in found if candidate.provider.name == provider]
            if not found:
                raise InvalidRequest(self._unavailable_reason(provider, model, operation), param="provider")
        return sorted(found, key=lambda c: (c.order, c.provider.name))

    def filter_supported(self, candidates: list[Candidate], call: ProviderCall) -> list[Candidate]:
        """Those whose protocol has words for all of the request.

        Raises: InvalidRequest, where none has: it names the member, and the vendor that would be asked first.
        """
        found: list[Candidate] = []
        first: InvalidRequest | None = None
        judged: dict[tuple[str, str], InvalidRequest | None] = {}
        for candidate in candidates:
            kind = (candidate.provider.type, candidate.upstream_model)
            if kind not in judged:
                judged[kind] = self._validation_error(candidate, call)
            if judged[kind] is None:
                found.append(candidate)
            first = first or judged[kind]
        if not found and first:
            raise first
        return found

    def _validation_error(self, candidate: Candidate, call: ProviderCall) -> InvalidRequest | None:
        try:
            self._check(candidate.provider.type, call.body, candidate.upstream_model)
        except InvalidRequest as error:
            return error
        return None

    def _unavailable_reason(self, name: str, model: str, operation: str | None) -> str:
        """Why a provider that was asked for cannot be asked."""
        named = [provider for provider in self.providers() if provider.name == name]
        if not named:
            return f"There is no provider {name}, or it is disabled"
        if named[0].match_model(model) is None:
            return f"Provider {name} does not serve model {model}"
        return f"Provider {name} serves model {model}, but does not offer {operation}"

    def order_by_load(self, candidates: list[Candidate]) -> list[Candidate]:
        """As they are to be asked now: of equals the one with the fewest calls under way for its concurrency.

        One without `concurrency` counts as idle; those that are as idle take turns by chance. One read more, and only
        where equals have a `concurrency`.
        """
        return [one for _, equals in groupby(candidates, lambda c: c.order) for one in self._by_load(list(equals))]

    def _by_load(self, equals: list[Candidate]) -> list[Candidate]:
        loads = self._loads(equals)

        def load(one: Candidate) -> float:
            return loads.get(one.provider.name, 0)

        return [one for _, alike in groupby(sorted(equals, key=load), load) for one in self._rotate(list(alike))]

    def _rotate(self, alike: list[Candidate]) -> list[Candidate]:
        first = int(self._clock.fraction() * len(alike))
        return alike[first:] + alike[:first]

    def _loads(self, equals: list[Candidate]) -> dict[str, float]:
        """The share of its calls that each has under way, by its name, where that is counted and known."""
        counted = [c.provider for c in equals if c.provider.concurrency]
        if len(equals) == 1 or self._leases is None or not counted:
            return {}
        try:
            taken = self._leases.count_held([lease_name(provider) for provider in counted], now_ms=self._clock.now_ms())
        except Exception:  # whoever is full says so when it is asked
            log.exception("load not known")
            return {}
        return {p.name: taken.get(lease_name(p), 0) / (p.concurrency or 1) for p in counted}

    def api_key(self, candidate: Candidate) -> str | None:
        """The provider's key. Raises: ProviderAuth (it is not stored), ProviderUnavailable (it cannot be read now)."""
        secret = candidate.provider.api_key_secret
        return self._secrets.value(secret) if secret and self._secrets else None

    @contextmanager
    def admit(self, candidate: Candidate, call: ProviderCall, *, deadline_ms: int) -> Generator[Callable[[], None]]:
        """Around one call: the provider is worth asking, and has room for as long as the block lasts.

        Whether it will be worth asking follows from how the block ends; of a stream, from its beginning, too, which the
        function given here tells. Raises: ProviderCircuitOpen, ProviderBusy.
        """
        provider = candidate.provider
        longest_ms = self._clock.now_ms() + round(provider.timeout_s * 1000)
        attempt = Attempt(
            provider.name,
            call.owner,
            candidate.upstream_model,
            lambda: request_hash(call.operation, call.body)[:HASH_CHARS],
        )
        with ExitStack() as stack:
            if self._breaker:
                self._breaker.check(attempt)
            stack.enter_context(
                self._concurrency_lease(provider, call.stream_deadline_ms or min(deadline_ms, longest_ms))
            )
            watched = self._breaker.track_call(attempt, deadline_ms=deadline_ms) if self._breaker else None
            yield stack.enter_context(watched) if watched else lambda: None

    @contextmanager
    def _concurrency_lease(self, provider: Provider, ends_ms: int) -> Generator[None]:
        """One of the calls that the provider may have at once.

        A provider without `concurrency` has room always, and no request to AWS is made. Whoever dies in a call holds
        its slot until a minute after the call's end, as it was expected. Raises: ProviderBusy.
        """
        if provider.concurrency is None or self._leases is None:
            yield
            return
        now, until = self._clock.now_ms(), ends_ms + LEASE_MARGIN_MS
        name, among = lease_name(provider), range(provider.concurrency)
        with ExitStack() as stack:
            try:
                room = stack.enter_context(lease(self._leases, name, among, now_ms=now, expires_ms=until))
            except Exception as error:  # the next provider may have no limit
                log.exception("provider not counted", extra={"provider": provider.name})
                raise ProviderBusy(f"{provider.name} cannot be counted now", retry_after_s=BUSY_S) from error
            if not room:
                raise ProviderBusy(f"{provider.name} has all the calls it may have", retry_after_s=BUSY_S)
            yield

    def call(
        self, candidate: Candidate, call: ProviderCall, *, api_key: str | None, timeout_s: float
    ) -> ProviderResponse:
        """Ask one candidate. Raises: the ProviderErrors of providers/openai.py."""
        provider = candidate.provider
        return self._protocols[provider.type].call(
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
        """Ask one candidate to answer event by event. Raises: as `call`, before the first event."""
        provider = candidate.provider
        return self._protocols[provider.type].stream(
            provider,
            call.operation,
            with_model(call.body, candidate.upstream_model),
            api_key=api_key,
            model_is_configured=candidate.model_is_configured,
            head_timeout_s=min(head_timeout_s, provider.timeout_s),
            total_timeout_s=total_timeout_s,
        )


def lease_name(provider: Provider) -> str:
    """The name of the slots that hold its calls under way."""
    return f"provider#{provider.name}"
