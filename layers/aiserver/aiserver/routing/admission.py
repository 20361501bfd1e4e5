"""Admits calls to a provider: its circuit breaker must admit them, and it must be below its concurrency limit."""

import logging
from collections.abc import Generator
from contextlib import ExitStack, contextmanager

from aiserver import log_events
from aiserver.circuit_breaker.breaker import CallTarget, CircuitBreaker, TrackedCall
from aiserver.clock import Clock, Deadline
from aiserver.concurrency import ConcurrencyLeaseStore, lease
from aiserver.errors import ProviderBusy
from aiserver.jobs.job import request_hash
from aiserver.providers.call import ProviderCall, Upstream
from aiserver.providers.provider import Provider

BUSY_RETRY_AFTER_S = 2  # for a provider at its concurrency limit
LEASE_MARGIN_MS = 60_000  # clocks may be a minute apart
HASH_CHARS = 8  # of a request's hash: enough to distinguish the recent requests of one key

log = logging.getLogger("aiserver.admission")


class Admission:
    """One admitted call."""

    def __init__(self, tracked: TrackedCall | None) -> None:
        self._tracked = tracked

    def on_first_event(self) -> None:
        """Report that the first event of a stream has arrived."""
        if self._tracked:
            self._tracked.on_first_event()

    def withdraw(self) -> None:
        """Report that the provider was not called after all."""
        if self._tracked:
            self._tracked.withdraw()


class AdmissionControl:
    """Without a store of leases there is no concurrency limit, without a breaker every call is admitted."""

    def __init__(
        self, clock: Clock, leases: ConcurrencyLeaseStore | None = None, breaker: CircuitBreaker | None = None
    ) -> None:
        self._clock = clock
        self._leases = leases
        self._breaker = breaker

    @contextmanager
    def admit(self, upstream: Upstream, call: ProviderCall) -> Generator[Admission]:
        """Wrap one call: check the circuit breaker, hold a concurrency lease, and report the outcome to the breaker.

        The outcome is how the block ends. Raises: ProviderCircuitOpen, ProviderBusy.
        """
        target = CallTarget(
            upstream.provider.name,
            call.owner,
            upstream.model,
            lambda: request_hash(call.operation.name, call.body)[:HASH_CHARS],
        )
        with ExitStack() as stack:
            if self._breaker:
                self._breaker.check(target)
            stack.enter_context(self._concurrency_lease(upstream.provider, self._end(upstream.provider, call)))
            tracked = None
            if self._breaker:
                tracked = stack.enter_context(self._breaker.track_call(target, deadline=call.begin_deadline))
            yield Admission(tracked)

    def _end(self, provider: Provider, call: ProviderCall) -> Deadline:
        """The time by which the call ends, unless its process dies."""
        return call.deadline if call.stream else min(call.deadline, Deadline.after(provider.timeout_s, self._clock))

    @contextmanager
    def _concurrency_lease(self, provider: Provider, end: Deadline) -> Generator[None]:
        """Hold one of the provider's concurrency leases; without `concurrency` no lease and no AWS request is needed.

        The lease of a process that dies expires a minute after `end`. Raises: ProviderBusy.
        """
        if provider.concurrency is None or self._leases is None:
            yield
            return
        now, expires_ms = self._clock.now_ms(), end.at_ms + LEASE_MARGIN_MS
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

    def loads(self, providers: list[Provider]) -> dict[str, float]:
        """The share of its `concurrency` that each provider has in use, by provider name; empty when it is unknown.

        One read; none when no providers are given.
        """
        if self._leases is None or not providers:
            return {}
        try:
            in_use = self._leases.count_active(
                [lease_name(provider) for provider in providers], now_ms=self._clock.now_ms()
            )
        except Exception:  # a provider at its limit is skipped when it is called
            log.exception(log_events.LOAD_UNKNOWN)
            return {}
        return {p.name: in_use.get(lease_name(p), 0) / (p.concurrency or 1) for p in providers}


def lease_name(provider: Provider) -> str:
    """The lease name of the provider's calls in progress."""
    return f"provider#{provider.name}"
