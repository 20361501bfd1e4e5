"""Calls a vendor that speaks a protocol of its own as any other: translated there, and back."""

from collections.abc import Callable
from contextlib import suppress
from dataclasses import replace

import httpx
import msgspec

from aiserver.clock import Clock
from aiserver.errors import ProviderError, UpstreamAnswer
from aiserver.limits import MAX_ANSWER_BYTES, MAX_ANSWER_VALUES, MAX_LIST_BYTES
from aiserver.providers import memory_budget
from aiserver.providers.error_message import reason
from aiserver.providers.http import Asked, open_stream, send
from aiserver.providers.openai_response import failure
from aiserver.providers.provider import Provider
from aiserver.providers.redaction import Redaction
from aiserver.providers.stream import Stream
from aiserver.providers.translation.adapter import Born, Events, Failed, NoAnswer, Vendor, Wire
from aiserver.providers.translation.chat import Chat
from aiserver.wire import sse
from aiserver.wire.http_dates import retry_after_s
from aiserver.wire.json_text import count_values

MAX_PAGES = 20  # of a list of models
NOTHING_SAID = (sse.DONE, b"null", b"{}")  # of proxies that put OpenAI's end, or a sign of life, into any stream
BAD = (msgspec.DecodeError, UnicodeDecodeError, RecursionError, LookupError)


class Translated:
    """Calls providers of one vendor's type; its promises are those of providers/openai.py."""

    def __init__(self, http: httpx.Client, clock: Clock, vendor: Vendor, wire: Wire | None = None) -> None:
        self._http = http
        self._clock = clock
        self._vendor = vendor
        self._wire = wire

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
    ) -> UpstreamAnswer:
        """Send one request, translated, and wait for the whole answer, translated back; see OpenAi.call.

        The vendors know no idempotency key. Raises: as OpenAi.call.
        """
        with memory_budget.translation:
            chat = Chat(body, self._vendor.words)
            asked = self._asked(provider, chat, api_key)
            model, one_call = chat.model, chat.one_call
            del chat  # it holds the request as objects, and the response may be long in coming
        judge = Judge(self._vendor, provider, self._clock, model_is_configured)
        with Redaction(api_key).of_errors():
            answer = send(self._http, provider, asked, deadline_s=deadline_s)
            with memory_budget.translation:
                return judge.judged(answer, self._born(model, one_call))

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
    ) -> Stream:
        """Send one request and wait for the first event of its answer; see OpenAi.stream."""
        ends_ms = self._clock.now_ms() + total_s * 1000
        chat = Chat(body, self._vendor.words)
        asked = self._asked(provider, chat, api_key)
        judge = Judge(self._vendor, provider, self._clock, model_is_configured)
        redaction = Redaction(api_key)
        streamed = open_stream(self._http, provider, asked, begin_s=begin_s, total_s=total_s)
        with redaction.of_errors(), streamed as (head, pieces):
            if pieces is None:
                judge.judged(head, self._born(chat.model, chat.one_call))
                raise ProviderError(f"Provider {provider.name} did not stream its answer", may_be_billed=True)
            events = self._vendor.events(chat, self._born(chat.model, chat.one_call))
            came = self._wire.events(pieces) if self._wire else pieces
            stream = Stream(provider.name, head.headers, came, Judged(events, judge), redaction)
            stream.begin(self._clock, min(provider.timeout_s * 1000, ends_ms - self._clock.now_ms()))
        if events.request_id:
            stream.headers.setdefault("x-request-id", events.request_id)
        return stream

    def models(self, provider: Provider, *, api_key: str | None, deadline_s: float) -> list[str]:
        """The ids of the models that the provider lists, sorted. Raises: as OpenAi.models."""
        judge = Judge(self._vendor, provider, self._clock, model_is_configured=False)
        listing = self._vendor.listing
        assert listing  # its row in the catalogue says that it has one
        ids: set[str] = set()
        after: str | None = None
        for _ in range(MAX_PAGES):
            asked = replace(listing.asked(after), api_key=api_key, max_answer_bytes=MAX_LIST_BYTES)
            with Redaction(api_key).of_errors():
                answer = send(self._http, provider, asked, deadline_s=deadline_s)
                if not answer.is_success:
                    raise judge.failure(answer)
            try:
                page, after = listing.read(answer.body)
            except BAD:
                raise ProviderError(f"Provider {provider.name} answered something that is no list of models") from None
            ids.update(page)
            if after is None:
                break
        return sorted(ids)

    def _asked(self, provider: Provider, chat: Chat, api_key: str | None) -> Asked:
        asked = replace(self._vendor.request(chat), api_key=api_key)
        return self._wire.signed(provider, asked) if self._wire and not api_key else asked

    def _born(self, model: str, one_call: bool) -> Born:
        id, call_id = f"chatcmpl-{self._clock.token()}", lambda: f"call_{self._clock.token()[:24]}"
        return Born(self._clock.now_ms() // 1000, call_id, one_call, id, model)


class Judge:
    """Reads what one provider says as an answer, or as the error that it means."""

    def __init__(self, vendor: Vendor, provider: Provider, clock: Clock, model_is_configured: bool) -> None:
        self._vendor = vendor
        self._provider = provider
        self._clock = clock
        self._model_is_configured = model_is_configured

    def judged(self, answer: UpstreamAnswer, born: Born) -> UpstreamAnswer:
        """The answer in OpenAI's words. Raises: ProviderError."""
        if not answer.is_success:
            raise self.failure(answer)
        try:
            told = self._vendor.answer(answer.body, born)
        except Failed as failed:
            raise self.failure_within(failed) from None
        except NoAnswer as nothing:
            raise self.no_answer(answer.body, nothing.reason) from None
        except BAD:
            raise self.no_answer(answer.body) from None
        headers = ({"x-request-id": told.request_id} if told.request_id else {}) | answer.headers
        return UpstreamAnswer(answer.status, headers, told.body, usage=told.usage)

    def failure(self, answer: UpstreamAnswer) -> ProviderError:
        try:
            said = self._vendor.error(answer)
        except BAD:  # the status says what it means, and the body says why, in any shape
            said = replace(answer, status=500) if answer.is_success else answer
        else:
            said = said if reason(said.body) else replace(answer, status=said.status, headers=said.headers)
        wait_s = retry_after_s(said.headers.get("retry-after"), self._clock.now_ms())
        return failure(self._provider, said, model_is_configured=self._model_is_configured, wait_s=wait_s)

    def failure_within(self, failed: Failed) -> ProviderError:
        """What an error means that came with status 200; before the first of the answer's words nothing was billed."""
        error = self.failure(UpstreamAnswer(200, {}, failed.said))
        error.may_be_billed = error.may_be_billed or failed.has_begun
        error.is_neutral = failed.is_of_content
        return error

    def no_answer(self, body: bytes, why: str = "") -> ProviderError:
        """What a 200 without an answer means, in the provider's own words where it has some."""
        words = f"Provider {self._provider.name}: {why or 'the response holds no answer'}"
        return ProviderError((not why and reason(body)) or words, may_be_billed=True)

    def too_large(self) -> ProviderError:
        return ProviderError(f"Provider {self._provider.name} sent an answer that is too large", may_be_billed=True)


class Judged:
    """stream.Translation of a vendor's events, whose errors are ProviderErrors."""

    def __init__(self, events: Events, judge: Judge) -> None:
        self._events = events
        self._judge = judge
        self._bytes = 0

    @property
    def usage(self) -> str | None:
        return self._events.usage

    @property
    def pieces(self) -> int:
        return self._events.pieces

    @property
    def is_whole(self) -> bool:
        return self._events.is_whole

    @property
    def is_over(self) -> bool:
        return self._events.is_over

    def told(self, event: bytes) -> bytes:
        self._bytes += len(event)
        if self._bytes > MAX_ANSWER_BYTES:  # the vendor's whole answer is kept, for what stands at its end
            raise self._judge.too_large()
        data = sse.data(event)
        if data.strip() in NOTHING_SAID:
            return b""
        if count_values(data, MAX_ANSWER_VALUES) > MAX_ANSWER_VALUES:
            raise self._judge.too_large()
        if self._events.is_whole:  # what follows a complete answer takes nothing back
            with suppress(NoAnswer, *BAD):
                return self._events.told(event)
            return b""
        return self._guarded(lambda: self._events.told(event), data)

    def ended(self) -> bytes:
        return self._guarded(self._events.ended, b"")

    def _guarded(self, tell: Callable[[], bytes], said: bytes) -> bytes:
        try:
            return tell()
        except Failed as failed:
            raise self._judge.failure_within(failed) from None
        except NoAnswer as nothing:
            raise self._judge.no_answer(said, nothing.reason) from None
        except BAD:
            raise self._judge.no_answer(said) from None
