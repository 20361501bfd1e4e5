"""Provider failover: try the candidates in order until one responds. Shared by sync requests and queued jobs."""

import logging
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass
from enum import StrEnum
from functools import partial
from typing import Protocol

from aiserver import log_events
from aiserver.clock import Clock
from aiserver.errors import (
    AiServerError,
    InvalidRequest,
    ProviderBusy,
    ProviderCircuitOpen,
    ProviderError,
    ProviderRateLimited,
    ProviderTimeout,
)
from aiserver.providers.call import ProviderCall, Upstream
from aiserver.providers.dispatch import Dispatcher
from aiserver.providers.response import ProviderResponse
from aiserver.providers.stream import ProviderStream
from aiserver.routing.admission import AdmissionControl
from aiserver.routing.selection import Candidate, equal_limited_providers, order_by_load

SKIP_ERRORS = (ProviderBusy, ProviderCircuitOpen)

log = logging.getLogger("aiserver.failover")


class Secrets(Protocol):
    """Reads providers' API keys."""

    def value(self, name: str) -> str:
        """Raises: ProviderAuth (not stored), ProviderUnavailable (cannot be read now)."""
        ...


class CallPermission(StrEnum):
    """Whether a call may be made; anything but GRANTED ends the pass before the call."""

    GRANTED = "granted"
    LEASE_LOST = "lease lost"  # the job was cancelled, or another worker has it
    STORE_UNAVAILABLE = "store unavailable"  # the call could not be marked


# Asked before each call, with the candidate and the number of unknown outcomes so far.
RequestPermission = Callable[[Candidate, int], CallPermission]


def always_granted(candidate: Candidate, unknown_outcomes: int) -> CallPermission:
    return CallPermission.GRANTED


@dataclass(frozen=True)
class OpenStream:
    """A streamed response. Closing `resources` closes it, frees its lease and reports the outcome to the breaker.

    Call `on_first_event` when the first event with content arrives.
    """

    stream: ProviderStream
    resources: ExitStack
    on_first_event: Callable[[], None]


@dataclass(frozen=True)
class CandidateOutcome:
    """What became of one candidate: a `response`, an open `stream`, an `error`, or a call that was not permitted.

    `was_called`: the call was admitted and permitted. An InvalidRequest means that the candidate does not support the
    request. `upstream` is what was called.
    """

    candidate: Candidate
    response: ProviderResponse | None = None
    stream: OpenStream | None = None
    error: ProviderError | InvalidRequest | None = None
    was_called: bool = False
    permission: CallPermission = CallPermission.GRANTED
    upstream: Upstream | None = None

    @property
    def may_be_billed(self) -> bool:
        return isinstance(self.error, ProviderError) and self.error.may_be_billed

    @property
    def allows_next(self) -> bool:
        """Whether the next candidate may be called: only if this one is known to have done nothing.

        An unknown outcome of a self-hosted GPU allows it too, because it costs no money.
        """
        if isinstance(self.error, InvalidRequest):
            return True
        if self.error is None or not _is_temporary(self.error):
            return False
        return not self.error.may_be_billed or self.candidate.provider.queue == "gpu"


@dataclass(frozen=True)
class FailoverResult:
    """The outcome of one pass: a `response`, an open `stream`, or the `error` to report.

    `attempts` counts the calls; `unknown_outcomes` those without a response that may be billed.
    `can_retry` is True if another pass is safe: no call to a hosted provider has an unknown outcome.
    `retry_after_s` is the shortest requested wait, if every candidate requested one.
    `permission` is the answer that ended the pass before a call. `upstream` returned the `response` or the `stream`.
    """

    response: ProviderResponse | None
    error: AiServerError | None
    provider: str
    attempts: int
    unknown_outcomes: int
    can_retry: bool
    retry_after_s: int | None = None
    stream: OpenStream | None = None
    permission: CallPermission = CallPermission.GRANTED
    upstream: Upstream | None = None


class Failover:
    """Tries candidates within one process."""

    def __init__(
        self, dispatcher: Dispatcher, admission: AdmissionControl, secrets: Secrets | None, clock: Clock
    ) -> None:
        self._dispatcher = dispatcher
        self._admission = admission
        self._secrets = secrets
        self._clock = clock

    def try_candidates(
        self, call: ProviderCall, candidates: list[Candidate], request_permission: RequestPermission = always_granted
    ) -> FailoverResult:
        """One pass over the candidates, without sleeping, until the call's `begin_deadline`.

        A stream counts as a response once its first event has arrived; later errors go to the caller.
        """
        outcomes: list[CandidateOutcome] = []
        for candidate in self._in_call_order(candidates):
            if call.begin_deadline.has_passed(self._clock):
                break
            unknown_outcomes = sum(outcome.may_be_billed for outcome in outcomes)
            outcomes.append(self._try(candidate, call, partial(request_permission, candidate, unknown_outcomes)))
            if not outcomes[-1].allows_next:
                break
        return _fold(outcomes)

    def _in_call_order(self, candidates: list[Candidate]) -> list[Candidate]:
        loads = self._admission.loads(equal_limited_providers(candidates))
        return order_by_load(candidates, loads, self._clock.fraction())

    def _try(
        self, candidate: Candidate, call: ProviderCall, request_permission: Callable[[], CallPermission]
    ) -> CandidateOutcome:
        """Call one candidate, if it supports the request, is admitted and the call is permitted."""
        was_called = False
        try:
            self._dispatcher.check(candidate.upstream(), call)
            upstream = candidate.upstream(self._api_key(candidate))
            with ExitStack() as resources:
                admission = resources.enter_context(self._admission.admit(upstream, call))
                permission = request_permission()
                if permission is not CallPermission.GRANTED:
                    admission.withdraw()
                    return CandidateOutcome(candidate, permission=permission)
                was_called = True
                if not call.stream:
                    response = self._dispatcher.send(upstream, call)
                    return CandidateOutcome(candidate, response=response, was_called=True, upstream=upstream)
                stream = resources.enter_context(self._dispatcher.open_stream(upstream, call))
                if isinstance(stream, ProviderResponse):
                    return CandidateOutcome(candidate, response=stream, was_called=True, upstream=upstream)
                open_stream = OpenStream(stream, resources.pop_all(), admission.on_first_event)
                return CandidateOutcome(candidate, stream=open_stream, was_called=True, upstream=upstream)
        except InvalidRequest as error:  # another provider may support the request
            return CandidateOutcome(candidate, error=error)
        except ProviderError as error:
            _log_failure(candidate, error)
            return CandidateOutcome(candidate, error=error, was_called=was_called)

    def _api_key(self, candidate: Candidate) -> str | None:
        """Raises: as Secrets.value."""
        secret = candidate.provider.api_key_secret
        return self._secrets.value(secret) if secret and self._secrets else None


def _fold(outcomes: list[CandidateOutcome]) -> FailoverResult:
    """The result of a pass: the last candidate's response, stream or denied permission, else the error to report."""
    if not outcomes:
        error = ProviderTimeout("The deadline passed before a provider could be called")
        return FailoverResult(None, error, "", attempts=0, unknown_outcomes=0, can_retry=True)
    last = outcomes[-1]
    errors = [outcome.error for outcome in outcomes if isinstance(outcome.error, ProviderError)]
    error = None
    if last.error:  # that a candidate does not support the request matters only if none does
        error = _error_to_report(errors) if errors else min(outcomes, key=_selection_order).error
    return FailoverResult(
        response=last.response,
        error=error,
        provider=last.candidate.provider.name,
        attempts=sum(outcome.was_called for outcome in outcomes),
        unknown_outcomes=sum(outcome.may_be_billed for outcome in outcomes),
        can_retry=isinstance(error, ProviderError) and _is_temporary(error) and last.allows_next,
        retry_after_s=_shortest_wait_s(errors),
        stream=last.stream,
        permission=last.permission,
        upstream=last.upstream,
    )


def _selection_order(outcome: CandidateOutcome) -> tuple[tuple[bool, int, int], str]:
    """The order without regard to load and chance, so that a request always gets the same error."""
    return outcome.candidate.sort_key


def _is_temporary(error: ProviderError) -> bool:
    return error.retryable or isinstance(error, ProviderTimeout)


def _log_failure(candidate: Candidate, error: ProviderError) -> None:
    fields = {
        "provider": candidate.provider.name,
        "error": type(error).__name__,
        "upstream_status": error.upstream_status,
    }
    if isinstance(error, SKIP_ERRORS):
        log.info(log_events.PROVIDER_SKIPPED, extra=fields)
    else:
        log.warning(log_events.PROVIDER_CALL_FAILED, extra=fields)


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
