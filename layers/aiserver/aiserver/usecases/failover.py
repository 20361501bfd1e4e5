"""Ask the candidates in turn until one answers: the pass that a waiting caller and a queued job share."""

import logging
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass

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
from aiserver.router import Candidate, ProviderCall, Router

SKIP_ERRORS = (ProviderBusy, ProviderCircuitOpen)

log = logging.getLogger("aiserver.ask")


@dataclass(frozen=True)
class OpenStream:
    """An answer that comes event by event. `held` is its place at the provider, to be left by how it ends.

    `has_begun` is to be called when it has said something.
    """

    stream: ProviderStream
    resources: ExitStack
    idle_timeout_s: float
    on_first_event: Callable[[], None]


@dataclass(frozen=True)
class FailoverResult:
    """What came of it: an answer, one that has `begun`, or the error to tell.

    `unknown` counts calls that may have been billed in vain.
    `may_ask_again` is whether another pass is safe: no call to a hosted provider has an unknown outcome.
    `retry_after_s` is the shortest wait that was asked for, where every candidate asked for one.
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
    """One pass, never sleeping. The next candidate is asked only where the last one's outcome is known to be nothing.

    An own GPU's unknown outcome goes on to the next, since it costs nobody money; a hosted provider's ends the pass.
    `before_call` hears who will be called, and how many calls of this pass have an unknown outcome by then.
    One that is asked to stream has answered once its first event is there: whatever fails later is its caller's to see.
    """
    errors: list[ProviderError] = []
    attempts = unknown = 0
    name = ""
    for candidate in router.order_by_load(candidates):
        if clock.now_ms() >= deadline_ms:
            break
        name = candidate.provider.name
        try:
            api_key = router.api_key(candidate)
            with ExitStack() as held:
                until_ms = call.stream_deadline_ms
                has_begun = held.enter_context(router.admit(candidate, call, deadline_ms=deadline_ms))
                on_attempt(candidate, unknown)
                attempts += 1
                now = clock.now_ms()  # since reading and marking took their time
                left_s = (deadline_ms - now) / 1000
                if until_ms is None:
                    answer = router.call(candidate, call, api_key=api_key, timeout_s=left_s)
                    return FailoverResult(answer, None, name, attempts, unknown, can_retry=False)
                total_s = (until_ms - now) / 1000
                stream = router.stream(candidate, call, api_key=api_key, head_timeout_s=left_s, total_timeout_s=total_s)
                held.callback(stream.close)
                begun = OpenStream(stream, held.pop_all(), candidate.provider.timeout_s, has_begun)
                return FailoverResult(None, None, name, attempts, unknown, can_retry=False, stream=begun)
        except ProviderError as error:
            told = {"provider": name, "error": type(error).__name__, "upstream_status": error.upstream_status}
            if isinstance(error, SKIP_ERRORS):
                log.info("provider passed over", extra=told)
            else:
                log.warning("provider failed", extra=told)
            errors.append(error)
            unknown += error.may_be_billed
            if not (error.retryable or isinstance(error, ProviderTimeout)):
                break
            if error.may_be_billed and candidate.provider.queue != "gpu":
                return FailoverResult(None, error, name, attempts, unknown, can_retry=False)
    error = _error_to_report(errors)
    may_ask_again = error.retryable or isinstance(error, ProviderTimeout)
    return FailoverResult(None, error, name, attempts, unknown, may_ask_again, _shortest_wait(errors))


def _shortest_wait(errors: list[ProviderError]) -> int | None:
    """Seconds until somebody may be asked again; None where one did not say: then it may be soon.

    An open circuit does not say: it is tried as soon as it may be, by one of all who wait.
    """
    waits = [None if isinstance(error, ProviderCircuitOpen) else error.retry_after_s for error in errors]
    return None if None in waits or not waits else min(wait for wait in waits if wait is not None)


def _error_to_report(errors: list[ProviderError]) -> ProviderError:
    """The error a caller hears when nobody answered: a 429 with the shortest wait if there was one, else the last.

    A request that was refused, or whose outcome is unknown, ended the pass and so is the last. An open circuit is told
    of only where there is nothing else.
    """
    if not errors:
        return ProviderTimeout("There was no time left to ask a provider")
    told = [error for error in errors if not isinstance(error, ProviderCircuitOpen)]
    if not told:
        return min(errors, key=_retry_after)
    last = told[-1]
    limited = [error for error in told if isinstance(error, ProviderRateLimited)]
    return last if not limited or not last.retryable or last.may_be_billed else min(limited, key=_retry_after)


def _retry_after(error: ProviderError) -> int:
    return error.retry_after_s if error.retry_after_s is not None else 1 << 30
