"""One POST to an address a caller chose, made so that it can be trusted and cannot be abused.

The name is resolved once, every address must be public, and the connection goes to an address that was checked:
nothing can change in between. The whole exchange has TOTAL_S, and only the start of the answer is read.
"""

from collections.abc import Callable, Collection, Iterable, Mapping
from contextlib import closing, suppress
from dataclasses import dataclass

import httpcore
import httpx

from aiserver.limits import MAX_RECEIVER_BYTES
from aiserver.providers.transport import DeadlineStream, Transport, remaining_s, total_deadline
from aiserver.webhooks.url_policy import (
    CallbackRefused,
    NameNotFound,
    Resolve,
    ResolverFailed,
    is_public,
    parse_url,
    refused_error,
    resolve,
)

TOTAL_S = 15  # for one delivery, from resolving to the last byte read
MAX_EXCERPT_CHARS = 512
MAX_ADDRESSES = 4  # of a name's addresses: it could have thousands

_HEADERS = {"accept": "*/*", "accept-encoding": "identity", "user-agent": "aiserver", "connection": "close"}


@dataclass(frozen=True)
class DeliveryResult:
    """What came of one POST. `error` is None exactly for a 2xx; `refused` says that none may be made."""

    status: int | None
    error: str | None
    retry_after: str | None = None
    refused: bool = False


class WebhookClient:
    """Checks addresses and makes deliveries, by the strict rules unless `unsafe` (development only)."""

    def __init__(
        self,
        *,
        unsafe: bool = False,
        resolver: Resolve = resolve,
        network: httpcore.NetworkBackend | None = None,
        total_s: float = TOTAL_S,
    ) -> None:
        self._unsafe = unsafe
        self._resolve = resolver
        self._total_s = total_s
        backend = _CheckedBackend(self._addresses, network or httpcore.SyncBackend())
        # No httpx.Client above it: that one keeps cookies, reads where a redirect leads, and may decompress.
        self._http = Transport(backend, keep_alive_s=0)

    def receiver(self, url: str) -> str:
        """Who is called, without the path, which may hold a secret; empty for an address that may not be called."""
        try:
            return self._parse(url, ()).netloc.decode()
        except CallbackRefused:
            return ""

    def check_url(self, url: str, hosts: Collection[str] = ()) -> None:
        """Whether a callback to `url` may be promised; a resolver's passing failure does not speak against it.

        `hosts`: the only ones it may name, where there are any. Raises: CallbackRefused, NameNotFound.
        """
        target = self._parse(url, hosts)
        with suppress(ResolverFailed):
            self._addresses(target.raw_host.decode(), target.port or 443)

    def post(self, url: str, body: bytes, headers: Mapping[str, str], hosts: Collection[str] = ()) -> DeliveryResult:
        """POST once; redirects are not followed, and at most MAX_RECEIVER_BYTES of the answer are read.

        Raises: CallbackRefused when the address may not be called (any more); no packet has left then.
        """
        target = self._parse(url, hosts)
        host = target.netloc.decode()  # httpx would look into A-labels, and stumble over those it does not know
        request = httpx.Request("POST", target, content=body, headers={"host": host, **_HEADERS, **headers})
        try:
            with total_deadline(self._total_s), closing(self._http.handle_request(request)) as told:
                status, retry_after = told.status_code, told.headers.get("retry-after")
                excerpt = _excerpt(told)
        except (NameNotFound, ResolverFailed, httpcore.NetworkError, httpcore.TimeoutException) as error:
            return DeliveryResult(None, (str(error) or type(error).__name__)[:MAX_EXCERPT_CHARS])
        except httpcore.ProtocolError:
            return DeliveryResult(None, "the answer is no HTTP, breaks off, or has too long a head")
        if 200 <= status < 300:
            return DeliveryResult(status, None)
        return DeliveryResult(status, f"status {status}: {excerpt}"[:MAX_EXCERPT_CHARS], retry_after)

    def _parse(self, url: str, hosts: Collection[str]) -> httpx.URL:
        return parse_url(url, unsafe=self._unsafe, hosts=hosts)

    def _addresses(self, host: str, port: int) -> list[str]:
        addresses = self._resolve(host, port)
        if not self._unsafe and not all(is_public(address) for address in addresses):
            raise refused_error(f"{host} leads to an address that is not public")
        return addresses


def _excerpt(response: httpx.Response) -> str:
    """What can be read of the body, as text for its owner's eyes.

    The status has been heard: what goes wrong after it takes nothing back.
    """
    read = bytearray()
    with suppress(httpcore.NetworkError, httpcore.TimeoutException, httpcore.ProtocolError):
        for chunk in response.iter_raw():
            read += chunk
    return read.decode("utf-8", "replace")


class _LimitedStream(DeadlineStream):
    """A connection on which the receiver seems to hang up after MAX_RECEIVER_BYTES, whatever it goes on to send."""

    def __init__(self, inner: httpcore.NetworkStream) -> None:
        super().__init__(inner)
        self._left = MAX_RECEIVER_BYTES

    def read(self, max_bytes: int, timeout: float | None = None) -> bytes:
        data = super().read(min(max_bytes, self._left))
        self._left -= len(data)
        return data


class _CheckedBackend(httpcore.NetworkBackend):
    """Connects only to addresses that were checked in the same breath."""

    def __init__(self, addresses: Callable[[str, int], list[str]], network: httpcore.NetworkBackend) -> None:
        self._addresses = addresses
        self._network = network

    def connect_tcp(
        self,
        host: str,
        port: int,
        timeout: float | None = None,
        local_address: str | None = None,
        socket_options: Iterable[httpcore.SOCKET_OPTION] | None = None,
    ) -> httpcore.NetworkStream:
        failure: Exception = httpcore.ConnectError(f"{host} has no address")
        addresses = self._addresses(host, port)[:MAX_ADDRESSES]
        for untried, address in zip(range(len(addresses), 0, -1), addresses, strict=True):
            share_s = remaining_s(httpcore.ConnectTimeout) / untried  # a silent one leaves time for the next
            try:
                return _LimitedStream(self._network.connect_tcp(address, port, share_s, None, socket_options))
            except (httpcore.ConnectError, httpcore.ConnectTimeout) as error:
                failure = error
        raise failure
