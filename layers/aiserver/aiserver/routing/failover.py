"""Provider failover: call the candidates in order until one responds. Shared by sync requests and queued jobs."""

import logging
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass

from aiserver import log_events
from aiserver.clock import Clock
from aiserver.errors import (
    ProviderBusy,
    ProviderCircuitOpen,
    ProviderError,
    ProviderRateLimited,
    ProviderResponse,
    ProviderTimeout,
)
from aiserver.providers.stream import ProviderStream
from aiserver.routing.router import Candidate, ProviderCall, Router

SKIP_ERRORS = (ProviderBusy, ProviderCircuitOpen)

log = logging.getLogger("aiserver.failover")


@dataclass(frozen=True)
class OpenStream:
    """A streamed response. Closing `resources` closes it, frees its lease and reports the outcome to the breaker.

    Call `on_first_event` when the first event with content arrives. `idle_timeout_s` limits the time between events.
    """

    stream: ProviderStream
    resources: ExitStack
    idle_timeout_s: float
    on_first_event: Callable[[], None]


@dataclass(frozen=True)
class FailoverResult:
    """The outcome of one pass: a `response`, an open `stream`, or the `error` to report.

    `attempts` counts the calls; `unknown_outcomes` those without a response that may be billed.
    `can_retry` is True if another pass is safe: no call to a hosted provider has an unknown outcome.
    `retry_after_s` is the shortest requested wait, if every candidate requested one.
    """

    response: ProviderResponse | None
    error: ProviderError | None
    provider: str
    attempts: int
    unknown_outcomes: int
    can_retry: bool
    retry_after_s: int | None = None
    stream: OpenStream | None = None


def try_candidates(
    router: Router,
    call: ProviderCall,
    candidates: list[Candidate],
    *,
    clock: Clock,
    deadline_ms: int,
    on_attempt: Callable[[Candidate, int], None] = lambda _candidate, _unknown: None,
) -> FailoverResult:
    """One pass over the candidates, without sleeping. The next one is called only after a call without effect.

    An unknown outcome of a self-hosted GPU also continues with the next, because it costs no money; that of a hosted
    provider ends the pass. `on_attempt` is called before each call, with the candidate and the number of unknown
    outcomes so far. A stream counts as a response once its first event has arrived; later errors go to the caller.
    """
    errors: list[ProviderError] = []
    attempts = unknown_outcomes = 0
    name = ""
    for candidate in router.order_by_load(candidates):
        if clock.now_ms() >= deadline_ms:
            break
        name = candidate.provider.name
        try:
            api_key = router.api_key(candidate)
            with ExitStack() as stack:
                on_first_event = stack.enter_context(router.admit(candidate, call, deadline_ms=deadline_ms))
                on_attempt(candidate, unknown_outcomes)
                attempts += 1
                now = clock.now_ms()  # again, because the reads and writes above take time
                remaining_s = (deadline_ms - now) / 1000
                if call.stream_deadline_ms is None:
                    response = router.call(candidate, call, api_key=api_key, timeout_s=remaining_s)
                    return FailoverResult(response, None, name, attempts, unknown_outcomes, can_retry=False)
                total_s = (call.stream_deadline_ms - now) / 1000
                stream = router.stream(
                    candidate, call, api_key=api_key, head_timeout_s=remaining_s, total_timeout_s=total_s
                )
                stack.callback(stream.close)
                open_stream = OpenStream(stream, stack.pop_all(), candidate.provider.timeout_s, on_first_event)
                return FailoverResult(None, None, name, attempts, unknown_outcomes, can_retry=False, stream=open_stream)
        except ProviderError as error:
            fields = {"provider": name, "error": type(error).__name__, "upstream_status": error.upstream_status}
            if isinstance(error, SKIP_ERRORS):
                log.info(log_events.PROVIDER_SKIPPED, extra=fields)
            else:
                log.warning(log_events.PROVIDER_CALL_FAILED, extra=fields)
            errors.append(error)
            unknown_outcomes += error.may_be_billed
            if not (error.retryable or isinstance(error, ProviderTimeout)):
                break
            if error.may_be_billed and candidate.provider.queue != "gpu":
                return FailoverResult(None, error, name, attempts, unknown_outcomes, can_retry=False)
    error = _error_to_report(errors)
    can_retry = error.retryable or isinstance(error, ProviderTimeout)
    return FailoverResult(None, error, name, attempts, unknown_outcomes, can_retry, _shortest_wait_s(errors))


def _shortest_wait_s(errors: list[ProviderError]) -> int | None:
    """Seconds until a candidate can be called again; None if one of them did not request a wait.

    An open circuit counts as no requested wait: one of the waiting jobs probes it as soon as it is half-open.
    """
    waits = [None if isinstance(error, ProviderCircuitOpen) else error.retry_after_s for error in errors]
    return None if None in waits or not waits else min(wait for wait in waits if wait is not None)


def _error_to_report(errors: list[ProviderError]) -> ProviderError:
    """The error for the caller after no candidate responded: the 429 with the shortest wait, else the last error.

    A rejected request, or one with an unknown outcome, ended the pass and is therefore the last error. An open circuit
    is reported only if there is no other error.
    """
    if not errors:
        return ProviderTimeout("The deadline passed before a provider could be called")
    call_errors = [error for error in errors if not isinstance(error, ProviderCircuitOpen)]
    if not call_errors:
        return min(errors, key=_retry_after_s)
    last = call_errors[-1]
    rate_limits = [error for error in call_errors if isinstance(error, ProviderRateLimited)]
    if not rate_limits or not last.retryable or last.may_be_billed:
        return last
    return min(rate_limits, key=_retry_after_s)


def _retry_after_s(error: ProviderError) -> int:
    return error.retry_after_s if error.retry_after_s is not None else 1 << 30
