"""Chooses who answers, and asks them: the candidates for a model, best first, and one call to one of them."""

import logging
from collections.abc import Callable, Generator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from itertools import groupby
from typing import Protocol

from aiserver.clock import Clock
from aiserver.errors import InvalidRequest, NotFound, ProviderBusy, UpstreamAnswer
from aiserver.jobs.concurrency import held
from aiserver.jobs.job import request_hash
from aiserver.jobs.ports import Slots
from aiserver.providers import registry
from aiserver.providers.breaker import Attempt, Breaker
from aiserver.providers.provider import Provider
from aiserver.providers.stream import Stream
from aiserver.wire.upstream_body import with_model

INSTEAD = {"responses": "; ask it by /v1/chat/completions (LangChain: use_responses_api=False)"}
BUSY_S = 2  # until a provider whose calls are all under way may be asked again
SLOT_MARGIN_MS = 60_000  # clocks may be a minute apart
HASH_CHARS = 8  # of a request's hash: enough to tell the last few of one key apart
CACHE_MS = 30_000  # how long a change of the providers may take to be seen

log = logging.getLogger("aiserver.router")


class ProviderProtocol(Protocol):
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
        deadline_s: float,
    ) -> UpstreamAnswer: ...

    def stream(
        self,
        provider: Provider,
        operation: str,
        body: bytes,
        *,
        api_key: str | None,
        model_is_configured: bool,
        begin_s: float,
        total_s: float,
    ) -> Stream: ...


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
    def names_the_model(self) -> bool:
        return self.rank < 2

    @property
    def model_is_configured(self) -> bool:
        """Whether the model's name stands in our own configuration, so that a provider's 404 is our trouble."""
        return self.names_the_model or not self.provider.passes_any_model

    @property
    def order(self) -> tuple[bool, int, int]:
        """What it is sorted by: whoever names the model before every `*`, then by priority, then name before tag."""
        return not self.names_the_model, -self.provider.priority, self.rank


@dataclass(frozen=True)
class Question:
    """What every candidate is asked, for the key `owner`.

    With `stream_until_ms` to answer event by event, until then at the latest.
    """

    operation: str
    body: bytes
    owner: str = ""
    idempotency_key: str | None = None
    stream_until_ms: int | None = None


class Router:
    """The configured providers, read through a short cache."""

    def __init__(
        self,
        load: Callable[[], list[Provider]],
        by_type: Mapping[str, ProviderProtocol],
        secrets: Secrets | None,
        clock: Clock,
        slots: Slots | None = None,
        breaker: Breaker | None = None,
        check: Callable[[str, bytes, str], None] = registry.check,
    ) -> None:
        self._load = load
        self._protocols = by_type
        self._secrets = secrets
        self._clock = clock
        self._slots = slots
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
            Candidate(p, served[0], served[1]) for p in self.providers() if (served := p.serves(model)) is not None
        ]
        if not serving:
            raise NotFound(f"Model {model} not found", code="model_not_found", param="model")
        found = [candidate for candidate in serving if operation in (None, *candidate.provider.operations)]
        if not found:
            raise NotFound(f"No provider of model {model} offers {operation}{INSTEAD.get(operation or '', '')}")
        if provider is not None:
            found = [candidate for candidate in found if candidate.provider.name == provider]
            if not found:
                raise InvalidRequest(self._why_not(provider, model, operation), param="provider")
        return sorted(found, key=lambda c: (c.order, c.provider.name))

    def able(self, candidates: list[Candidate], question: Question) -> list[Candidate]:
        """Those whose protocol has words for all of the request.

        Raises: InvalidRequest, where none has: it names the member, and the vendor that would be asked first.
        """
        found: list[Candidate] = []
        first: InvalidRequest | None = None
        judged: dict[tuple[str, str], InvalidRequest | None] = {}
        for candidate in candidates:
            kind = (candidate.provider.type, candidate.upstream_model)
            if kind not in judged:
                judged[kind] = self._refusal(candidate, question)
            if judged[kind] is None:
                found.append(candidate)
            first = first or judged[kind]
        if not found and first:
            raise first
        return found

    def _refusal(self, candidate: Candidate, question: Question) -> InvalidRequest | None:
        try:
            self._check(candidate.provider.type, question.body, candidate.upstream_model)
        except InvalidRequest as error:
            return error
        return None

    def _why_not(self, name: str, model: str, operation: str | None) -> str:
        """Why a provider that was asked for cannot be asked."""
        named = [provider for provider in self.providers() if provider.name == name]
        if not named:
            return f"There is no provider {name}, or it is disabled"
        if named[0].serves(model) is None:
            return f"Provider {name} does not serve model {model}"
        return f"Provider {name} serves model {model}, but does not offer {operation}"

    def in_order(self, candidates: list[Candidate]) -> list[Candidate]:
        """As they are to be asked now: of equals the one with the fewest calls under way for its concurrency.

        One without `concurrency` counts as idle; those that are as idle take turns by chance. One read more, and only
        where equals have a `concurrency`.
        """
        return [one for _, equals in groupby(candidates, lambda c: c.order) for one in self._by_load(list(equals))]

    def _by_load(self, equals: list[Candidate]) -> list[Candidate]:
        loads = self._loads(equals)

        def load(one: Candidate) -> float:
            return loads.get(one.provider.name, 0)

        return [one for _, alike in groupby(sorted(equals, key=load), load) for one in self._turned(list(alike))]

    def _turned(self, alike: list[Candidate]) -> list[Candidate]:
        first = int(self._clock.fraction() * len(alike))
        return alike[first:] + alike[:first]

    def _loads(self, equals: list[Candidate]) -> dict[str, float]:
        """The share of its calls that each has under way, by its name, where that is counted and known."""
        counted = [c.provider for c in equals if c.provider.concurrency]
        if len(equals) == 1 or self._slots is None or not counted:
            return {}
        try:
            taken = self._slots.taken([slots_of(provider) for provider in counted], now_ms=self._clock.now_ms())
        except Exception:  # whoever is full says so when it is asked
            log.exception("load not known")
            return {}
        return {p.name: taken.get(slots_of(p), 0) / (p.concurrency or 1) for p in counted}

    def api_key(self, candidate: Candidate) -> str | None:
        """The provider's key. Raises: ProviderAuth (it is not stored), ProviderUnavailable (it cannot be read now)."""
        secret = candidate.provider.api_key_secret
        return self._secrets.value(secret) if secret and self._secrets else None

    @contextmanager
    def admitted(self, candidate: Candidate, question: Question, *, deadline_ms: int) -> Generator[Callable[[], None]]:
        """Around one call: the provider is worth asking, and has room for as long as the block lasts.

        Whether it will be worth asking follows from how the block ends; of a stream, from its beginning, too, which the
        function given here tells. Raises: ProviderCircuitOpen, ProviderBusy.
        """
        provider = candidate.provider
        longest_ms = self._clock.now_ms() + round(provider.timeout_s * 1000)
        attempt = Attempt(
            provider.name,
            question.owner,
            candidate.upstream_model,
            lambda: request_hash(question.operation, question.body)[:HASH_CHARS],
        )
        with ExitStack() as stack:
            if self._breaker:
                self._breaker.check(attempt)
            stack.enter_context(self._room(provider, question.stream_until_ms or min(deadline_ms, longest_ms)))
            watched = self._breaker.watched(attempt, deadline_ms=deadline_ms) if self._breaker else None
            yield stack.enter_context(watched) if watched else lambda: None

    @contextmanager
    def _room(self, provider: Provider, ends_ms: int) -> Generator[None]:
        """One of the calls that the provider may have at once.

        A provider without `concurrency` has room always, and no request to AWS is made. Whoever dies in a call holds
        its slot until a minute after the call's end, as it was expected. Raises: ProviderBusy.
        """
        if provider.concurrency is None or self._slots is None:
            yield
            return
        now, until = self._clock.now_ms(), ends_ms + SLOT_MARGIN_MS
        name, among = slots_of(provider), range(provider.concurrency)
        with ExitStack() as stack:
            try:
                room = stack.enter_context(held(self._slots, name, among, now_ms=now, until_ms=until))
            except Exception as error:  # the next provider may have no limit
                log.exception("provider not counted", extra={"provider": provider.name})
                raise ProviderBusy(f"{provider.name} cannot be counted now", retry_after_s=BUSY_S) from error
            if not room:
                raise ProviderBusy(f"{provider.name} has all the calls it may have", retry_after_s=BUSY_S)
            yield

    def call(
        self, candidate: Candidate, question: Question, *, api_key: str | None, deadline_s: float
    ) -> UpstreamAnswer:
        """Ask one candidate. Raises: the ProviderErrors of providers/openai.py."""
        provider = candidate.provider
        return self._protocols[provider.type].call(
            provider,
            question.operation,
            with_model(question.body, candidate.upstream_model),
            api_key=api_key,
            idempotency_key=question.idempotency_key,
            model_is_configured=candidate.model_is_configured,
            deadline_s=min(deadline_s, provider.timeout_s),
        )

    def stream(
        self, candidate: Candidate, question: Question, *, api_key: str | None, begin_s: float, total_s: float
    ) -> Stream:
        """Ask one candidate to answer event by event. Raises: as `call`, before the first event."""
        provider = candidate.provider
        return self._protocols[provider.type].stream(
            provider,
            question.operation,
            with_model(question.body, candidate.upstream_model),
            api_key=api_key,
            model_is_configured=candidate.model_is_configured,
            begin_s=min(begin_s, provider.timeout_s),
            total_s=total_s,
        )


def slots_of(provider: Provider) -> str:
    """The name of the slots that hold its calls under way."""
    return f"provider#{provider.name}"
