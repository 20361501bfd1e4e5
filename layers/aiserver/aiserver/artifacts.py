"""Artifacts: files that jobs and requests produce, at URLs that work without an API key until they expire.

The S3 key of an artifact is `artifacts/yyyy/mm/dd/{API key id}/{SHA-256}.{extension}`. Its URL contains the time when
it expires, and a signature. It outlives a presigned S3 URL, which ends with the session of the function that made it.
"""

import hashlib
import hmac
import re
import secrets
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Protocol

from aiserver.clock import Clock
from aiserver.jobs.job import FILE_PREFIX
from aiserver.wire.file_types import FILE_TYPES, UNKNOWN, FileType, detect_file_type

LINK_TTL_S = 300  # of the presigned S3 URL that an artifact, or a large body, redirects to
CACHE_MS = 300_000  # how long a container uses the secrets that it has read
MIN_REFRESH_MS = 5_000  # between two reads because of a signature that did not match
SIGNATURE_CHARS = 32  # 128 bits
_KEY = re.compile(r"artifacts/[0-9]{4}/[0-9]{2}/[0-9]{2}/([0-9A-Za-z_-]{1,64})/([0-9a-f]{64}\.([a-z0-9]{2,4}))")


@dataclass(frozen=True)
class ArtifactSecrets:
    """The secrets that sign URLs. The previous one stays valid until `previous_until` (Unix milliseconds)."""

    current: str = field(repr=False)
    previous: str | None = field(default=None, repr=False)
    previous_until: int | None = None

    def active(self, now_ms: int) -> list[str]:
        """The secrets whose signatures are valid, the current one first."""
        is_overlapping = self.previous and now_ms < (self.previous_until or 0)
        return [self.current, *([self.previous] if is_overlapping and self.previous else [])]

    def rotate(self, *, now_ms: int, overlap_ms: int) -> "ArtifactSecrets":
        """A new secret; signatures of the current one stay valid for `overlap_ms`."""
        return ArtifactSecrets(secrets.token_hex(32), self.current, now_ms + overlap_ms)


class ArtifactSecretStore(Protocol):
    def artifact_secrets(self) -> ArtifactSecrets | None: ...

    def replace_artifact_secrets(self, old: ArtifactSecrets | None, new: ArtifactSecrets) -> bool:
        """Store `new` if `old` is still stored (None: nothing is). Returns whether `new` is stored now."""
        ...


def artifact_key(owner: str, created_at: int, content: bytes, content_type: str) -> str:
    """The S3 key of a file; the same file of the same owner and day has the same key. `created_at` is in Unix ms."""
    extension = detect_file_type(content, content_type).extension
    return f"{artifact_folder(owner, created_at)}{hashlib.sha256(content).hexdigest()}.{extension}"


def artifact_folder(owner: str, created_at: int) -> str:
    """The start of the S3 keys of an owner's files of that day. `created_at` is in Unix ms."""
    return f"{FILE_PREFIX}{datetime.fromtimestamp(created_at / 1000, UTC):%Y/%m/%d}/{owner}/"


def artifact_owner(key: str) -> str | None:
    """The id of the API key that owns an artifact; None for a key that is not an artifact's."""
    match = _KEY.fullmatch(key)
    return match[1] if match else None


def file_name(key: str) -> str:
    return key.rpartition("/")[2]


def file_type(key: str) -> FileType:
    return FILE_TYPES.get(key.rpartition(".")[2], UNKNOWN)


class ArtifactUrls:
    """Creates and checks the URLs of artifacts."""

    def __init__(self, store: ArtifactSecretStore, clock: Clock, *, hours: int) -> None:
        self._store = store
        self._clock = clock
        self._ttl_s = hours * 3600
        self._cached: tuple[int, ArtifactSecrets] | None = None

    def prepare(self) -> None:
        """Read the secrets, or create them, before a call that is paid for. Raises: errors of the store."""
        self._secrets()

    def url(self, base_url: str, key: str) -> str:
        """A URL that works without an API key until it expires. Raises: errors of the store."""
        expires_at = self._clock.now_ms() // 1000 + self._ttl_s
        return f"{base_url}/{key}?e={expires_at}&s={_sign(self._secrets().current, key, str(expires_at))}"

    def is_valid(self, key: str, expires_at: str, signature: str) -> bool:
        """Whether a URL's parameters are those of `url`, and it has not expired."""
        now_ms = self._clock.now_ms()
        if not (expires_at.isascii() and expires_at.isdigit() and len(expires_at) <= 12):
            return False
        if int(expires_at) * 1000 <= now_ms:
            return False
        if self._matches(key, expires_at, signature):
            return True
        if self._cached and now_ms < self._cached[0] + MIN_REFRESH_MS:
            return False
        self._cached = None  # another function may have rotated the secret
        return self._matches(key, expires_at, signature)

    def _matches(self, key: str, expires_at: str, signature: str) -> bool:
        active = self._secrets().active(self._clock.now_ms())
        signature_bytes = signature.encode(errors="replace")
        return any(hmac.compare_digest(_sign(secret, key, expires_at).encode(), signature_bytes) for secret in active)

    def _secrets(self) -> ArtifactSecrets:
        """The stored secrets; the first use creates them."""
        now_ms = self._clock.now_ms()
        if self._cached is None or now_ms >= self._cached[0] + CACHE_MS:
            self._cached = (now_ms, self._read_or_create())
        return self._cached[1]

    def _read_or_create(self) -> ArtifactSecrets:
        while True:
            if stored := self._store.artifact_secrets():
                return stored
            created = ArtifactSecrets(secrets.token_hex(32))
            if self._store.replace_artifact_secrets(None, created):
                return created


def _sign(secret: str, key: str, expires_at: str) -> str:
    content = f"{key}\n{expires_at}".encode()
    return hmac.digest(bytes.fromhex(secret), content, hashlib.sha256).hex()[:SIGNATURE_CHARS]
