"""API keys: shown once, stored as a hash; malformed keys are rejected without a database read.

A key is `ak-` + 12 characters of key id + 43 of secret (256 bits) + 6 of checksum, all of [0-9A-Za-z].
"""

import base64
import hashlib
import hmac
import secrets
import string
import zlib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import NamedTuple, Protocol

from aiserver.clock import Clock
from aiserver.errors import Unauthorized

PREFIX = "ak-"
ID_CHARS = 12
SECRET_CHARS = 43
CHECKSUM_CHARS = 6
CACHE_MS = 30_000  # how long a revoked key may still work in a warm container
INVALID_KEY = "The API key is not valid"
_ALPHABET = string.digits + string.ascii_letters


@dataclass(frozen=True)
class ApiKey:
    """An API key as stored, without its webhook secrets; times are milliseconds since 1970."""

    id: str
    name: str
    secret_hash: str
    created_at: int
    expires_at: int | None = None
    revoked_at: int | None = None
    callback_hosts: tuple[str, ...] = ()  # patterns of the hosts allowed in ReplyTo; empty: any public host


@dataclass(frozen=True)
class WebhookSecrets:
    """The secrets that sign a key's callbacks (`whsec_…`, Standard Webhooks), stored apart from the key.

    During a rotation both secrets sign, until `previous_until` (milliseconds since 1970).
    """

    current: str = field(repr=False)
    previous: str | None = field(default=None, repr=False)
    previous_until: int | None = None

    def active(self, now_ms: int) -> list[str]:
        """The secrets that sign a callback now, the current one first."""
        if self.previous and now_ms < (self.previous_until or 0):
            return [self.current, self.previous]
        return [self.current]

    def rotate(self, *, now_ms: int, overlap_ms: int) -> "WebhookSecrets":
        """New secrets; the current secret keeps signing for `overlap_ms`, the previous one stops."""
        if not overlap_ms:
            return new_webhook_secrets()
        return WebhookSecrets(new_webhook_secrets().current, self.current, now_ms + overlap_ms)


class NewKey(NamedTuple):
    """A new key: its text, which is shown once, and the records to store."""

    text: str
    key: ApiKey
    secrets: WebhookSecrets


class KeyStore(Protocol):
    """Stores keys and, apart from them, the secrets that sign their callbacks."""

    def key(self, key_id: str) -> ApiKey | None: ...

    def put_key(self, key: ApiKey, secrets: WebhookSecrets) -> None:
        """Store a new key."""
        ...

    def replace_key(self, old: ApiKey, new: ApiKey) -> bool:
        """Store `new` if `old` is still stored. Returns whether `new` is stored now."""
        ...

    def keys(self) -> list[ApiKey]: ...

    def webhook_secrets(self, key_id: str) -> WebhookSecrets | None: ...

    def replace_webhook_secrets(self, key_id: str, old: WebhookSecrets, new: WebhookSecrets) -> bool:
        """Store `new` if `old` is still stored. Returns whether `new` is stored now."""
        ...


def create_key(name: str, *, now_ms: int, expires_at: int | None = None, callback_hosts: Iterable[str] = ()) -> NewKey:
    """Create a key with new webhook secrets, without storing it."""
    text = _with_checksum(PREFIX + _random(ID_CHARS) + _random(SECRET_CHARS))
    key = ApiKey(_id(text), name, _hash(text), now_ms, expires_at, callback_hosts=tuple(callback_hosts))
    return NewKey(text, key, new_webhook_secrets())


def key_record(text: str, name: str, *, now_ms: int) -> ApiKey:
    """The record to store for the key `text`."""
    return ApiKey(_id(text), name, _hash(text), now_ms)


def new_webhook_secrets() -> WebhookSecrets:
    return WebhookSecrets("whsec_" + base64.b64encode(secrets.token_bytes(32)).decode())


class Authenticator:
    """Finds the API key of a request, by its headers, or of a message, by a key id."""

    def __init__(self, store: KeyStore, clock: Clock) -> None:
        self._store = store
        self._clock = clock
        self._cache: dict[str, tuple[int, ApiKey | None]] = {}

    def authenticate(self, headers: Mapping[str, str]) -> ApiKey:
        """The caller's key: X-Api-Key first, else Authorization: Bearer; header names in lower case.

        Raises: Unauthorized, with the same message for unknown, revoked and wrong keys, so that it reveals nothing.
        """
        text = headers.get("x-api-key") or _bearer(headers.get("authorization", ""))
        if not text:
            raise Unauthorized("Missing API key: send it as 'Authorization: Bearer <key>' or 'X-Api-Key: <key>'")
        key = self._lookup(_id(text)) if is_well_formed(text) else None
        if key is None or not hmac.compare_digest(key.secret_hash, _hash(text)):
            raise Unauthorized(INVALID_KEY)
        return self._check_active(key)

    def find_id(self, headers: Mapping[str, str]) -> str | None:
        """The id of the caller's key; None without a valid key."""
        try:
            return self.authenticate(headers).id
        except Unauthorized:
            return None

    def find_by_id(self, key_id: str) -> ApiKey:
        """The key with this id, for callers authorized by other means than its secret. Raises: Unauthorized."""
        key = self._lookup(key_id)
        if key is None:
            raise Unauthorized(INVALID_KEY)
        return self._check_active(key)

    def _check_active(self, key: ApiKey) -> ApiKey:
        if key.revoked_at is not None:
            raise Unauthorized(INVALID_KEY)
        if key.expires_at is not None and key.expires_at <= self._clock.now_ms():
            raise Unauthorized("The API key has expired")
        return key

    def _lookup(self, key_id: str) -> ApiKey | None:
        now_ms = self._clock.now_ms()
        cached = self._cache.get(key_id)
        if cached and now_ms < cached[0] + CACHE_MS:
            return cached[1]
        key = self._store.key(key_id)
        if key or key_id in self._cache:  # unknown ids are not cached: they could fill the memory
            self._cache[key_id] = (now_ms, key)
        return key


def is_well_formed(text: str) -> bool:
    """Whether length, alphabet and checksum are those of a key."""
    return len(text) == len(PREFIX) + ID_CHARS + SECRET_CHARS + CHECKSUM_CHARS and text == _with_checksum(
        text[:-CHECKSUM_CHARS]
    )


def _bearer(authorization: str) -> str:
    scheme, _, text = authorization.partition(" ")
    return text.strip() if scheme.casefold() == "bearer" else ""


def _id(text: str) -> str:
    return text[len(PREFIX) :][:ID_CHARS]


def _hash(text: str) -> str:
    # The secret holds 256 random bits: a fast hash is as safe as a slow one, and no rainbow table can exist.
    return hashlib.sha256(text.encode()).hexdigest()


def _random(chars: int) -> str:
    return "".join(secrets.choice(_ALPHABET) for _ in range(chars))


def _with_checksum(text: str) -> str:
    number = zlib.crc32(text.encode())
    digits = ""
    for _ in range(CHECKSUM_CHARS):
        number, digit = divmod(number, len(_ALPHABET))
        digits = _ALPHABET[digit] + digits
    return text + digits
