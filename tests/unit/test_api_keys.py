"""API keys: shown once, stored as a hash, malformed keys rejected without a read."""

import base64
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from aiserver import api_keys
from aiserver.admin.stack import Admin, AdminError
from aiserver.api_keys import ApiKey, Authenticator, WebhookSecrets
from aiserver.errors import Unauthorized
from tests.fakes import FakeClock, FakeKeyStore


@pytest.fixture
def clock() -> FakeClock:
    return FakeClock()


@pytest.fixture
def store() -> FakeKeyStore:
    return FakeKeyStore()


def test_new_key_authenticates_and_its_secret_is_not_stored(store: FakeKeyStore, clock: FakeClock) -> None:
    text, key, secrets = api_keys.create_key("mine", now_ms=clock.now)
    store.put_key(key, secrets)
    authenticator = Authenticator(store, clock)
    assert authenticator.authenticate({"authorization": f"Bearer {text}"}) == key
    assert authenticator.authenticate({"x-api-key": text, "authorization": "Bearer other"}) == key
    assert authenticator.authenticate({"authorization": f"bearer  {text} "}) == key
    assert text[15:] not in repr(key)


@pytest.mark.parametrize("headers", [{}, {"authorization": ""}, {"authorization": "Basic abc"}, {"x-api-key": ""}])
def test_missing_key_is_rejected_with_a_hint(headers: dict[str, str], store: FakeKeyStore, clock: FakeClock) -> None:
    with pytest.raises(Unauthorized, match="Missing API key"):
        Authenticator(store, clock).authenticate(headers)


@given(st.text(max_size=80))
def test_malformed_key_is_rejected_without_a_read(key_text: str) -> None:
    store = FakeKeyStore()
    with pytest.raises(Unauthorized):
        Authenticator(store, FakeClock()).authenticate({"x-api-key": key_text})
    assert store.reads == 0


def test_checksum_detects_one_wrong_character(store: FakeKeyStore, clock: FakeClock) -> None:
    text, *_ = api_keys.create_key("mine", now_ms=clock.now)
    assert api_keys.is_well_formed(text)
    for index in range(3, len(text)):
        assert not api_keys.is_well_formed(text[:index] + ("a" if text[index] != "a" else "b") + text[index + 1 :])


def test_key_with_the_id_of_another_key_is_rejected(store: FakeKeyStore, clock: FakeClock) -> None:
    text, key, _ = api_keys.create_key("mine", now_ms=clock.now)
    _, other_key, secrets = api_keys.create_key("other", now_ms=clock.now)
    store.put_key(replace(other_key, id=key.id), secrets)
    with pytest.raises(Unauthorized, match="not valid"):
        Authenticator(store, clock).authenticate({"x-api-key": text})


def test_revoked_key_is_rejected_after_the_cache_time(store: FakeKeyStore, clock: FakeClock) -> None:
    text, key, secrets = api_keys.create_key("mine", now_ms=clock.now)
    store.put_key(key, secrets)
    authenticator = Authenticator(store, clock)
    authenticator.authenticate({"x-api-key": text})
    store.put_key(replace(key, revoked_at=clock.now), secrets)
    authenticator.authenticate({"x-api-key": text})
    assert store.reads == 1
    clock.advance(api_keys.CACHE_MS / 1000)
    with pytest.raises(Unauthorized):
        authenticator.authenticate({"x-api-key": text})


def test_expired_key_is_rejected_even_when_cached(store: FakeKeyStore, clock: FakeClock) -> None:
    text, key, secrets = api_keys.create_key("mine", now_ms=clock.now, expires_at=clock.now + 1000)
    store.put_key(key, secrets)
    authenticator = Authenticator(store, clock)
    authenticator.authenticate({"x-api-key": text})
    clock.advance(1)
    with pytest.raises(Unauthorized, match="expired"):
        authenticator.authenticate({"x-api-key": text})


def test_both_webhook_secrets_are_active_until_the_overlap_ends(clock: FakeClock) -> None:
    old = api_keys.new_webhook_secrets()
    assert old.active(clock.now) == [old.current]
    new = old.rotate(now_ms=clock.now, overlap_ms=1000)
    assert new.current != old.current
    assert len(base64.b64decode(new.current.removeprefix("whsec_"), validate=True)) == 32
    assert new.active(clock.now) == [new.current, old.current]
    assert new.active(clock.now + 999) == [new.current, old.current]
    assert new.active(clock.now + 1000) == [new.current]


def test_rotation_without_overlap_drops_older_secrets(clock: FakeClock) -> None:
    old = api_keys.new_webhook_secrets()
    overlapping = old.rotate(now_ms=clock.now, overlap_ms=1000)
    new = overlapping.rotate(now_ms=clock.now, overlap_ms=0)
    assert new.active(clock.now) == [new.current]
    assert (new.previous, new.previous_until) == (None, None)


def test_repr_does_not_contain_webhook_secrets(clock: FakeClock) -> None:
    secrets = api_keys.new_webhook_secrets().rotate(now_ms=clock.now, overlap_ms=1000)
    assert "whsec_" not in repr(secrets)


def make_admin(store: Any, clock: FakeClock) -> Admin:
    unused: Any = None
    return Admin("stack", store, ssm=unused, jobs=unused, messages=unused, clock=clock, circuits=unused, leases=unused)


@pytest.fixture
def admin(store: FakeKeyStore, clock: FakeClock) -> Admin:
    return make_admin(store, clock)


def test_rotated_secret_signs_until_the_overlap_ends(admin: Admin, store: FakeKeyStore, clock: FakeClock) -> None:
    created = admin.create_key("mine")
    new = admin.rotate_secret(created["id"], overlap_hours=24)
    assert new["webhookSecret"] != created["webhookSecret"]
    assert new["previousWebhookSecret"] == created["webhookSecret"]
    assert new["previousSignsUntil"] == "2027-01-16T08:00:00.000Z"
    clock.advance(24 * 3600 - 0.001)
    assert admin.show_secret(created["id"]) == new
    with pytest.raises(AdminError, match=r"signs until 2027-01-16T08:00:00.000Z; wait .* --overlap-hours 0"):
        admin.rotate_secret(created["id"], overlap_hours=24)
    assert admin.show_secret(created["id"]) == new
    clock.advance(0.001)
    assert admin.show_secret(created["id"]) == new | {"previousWebhookSecret": None, "previousSignsUntil": None}
    assert admin.rotate_secret(created["id"], overlap_hours=1)["previousWebhookSecret"] == new["webhookSecret"]


def test_rotation_without_overlap_ends_leaked_secrets_at_once(admin: Admin, store: FakeKeyStore) -> None:
    created = admin.create_key("mine")
    leaked = admin.rotate_secret(created["id"], overlap_hours=24)
    new = admin.rotate_secret(created["id"], overlap_hours=0)
    assert new["previousWebhookSecret"] is new["previousSignsUntil"] is None
    assert new["webhookSecret"] not in (created["webhookSecret"], leaked["webhookSecret"])


@pytest.mark.parametrize("hours", [-1, 721])
def test_overlap_is_limited_to_720_hours(hours: int, admin: Admin, store: FakeKeyStore) -> None:
    created = admin.create_key("mine")
    with pytest.raises(AdminError, match="0 to 720"):
        admin.rotate_secret(created["id"], overlap_hours=hours)
    assert admin.show_secret(created["id"])["webhookSecret"] == created["webhookSecret"]
    assert admin.rotate_secret(created["id"], overlap_hours=720)["previousSignsUntil"].startswith("2027-02-14")


def test_invalid_callback_host_is_an_error_and_nothing_is_written(admin: Admin, store: FakeKeyStore) -> None:
    with pytest.raises(AdminError, match=r"'a\.b:1' is not a valid callback host"):
        admin.create_key("mine", callback_hosts=["ok.example.com", "a.b:1"])
    assert store.stored == {}
    created = admin.create_key("mine", callback_hosts=["ok.example.com", "OK.example.com"])
    assert store.stored[created["id"]].callback_hosts == ("ok.example.com",)
    with pytest.raises(AdminError, match=r"'a\.b:1' is not a valid callback host"):
        admin.set_callback_hosts(created["id"], ["a.b:1"])
    assert store.stored[created["id"]].callback_hosts == ("ok.example.com",)


class RacingKeyStore(FakeKeyStore):
    """A key store that runs the next of `concurrent_updates` right after each read."""

    def __init__(self) -> None:
        super().__init__()
        self.concurrent_updates: list[Callable[[], object]] = []

    def key(self, key_id: str) -> ApiKey | None:
        key = super().key(key_id)
        self._run_concurrent_update()
        return key

    def webhook_secrets(self, key_id: str) -> WebhookSecrets | None:
        secrets = super().webhook_secrets(key_id)
        self._run_concurrent_update()
        return secrets

    def _run_concurrent_update(self) -> None:
        if self.concurrent_updates:
            self.concurrent_updates.pop()()


@pytest.fixture
def racing_store() -> RacingKeyStore:
    return RacingKeyStore()


@pytest.fixture
def racing_admin(racing_store: RacingKeyStore, clock: FakeClock) -> Admin:
    """An operator who changes keys at the same time as another."""
    return make_admin(racing_store, clock)


def test_rotation_keeps_a_concurrent_revocation(
    racing_admin: Admin, racing_store: RacingKeyStore, clock: FakeClock
) -> None:
    created = racing_admin.create_key("mine")
    racing_store.concurrent_updates = [lambda: racing_admin.revoke_key(created["id"])]
    racing_admin.rotate_secret(created["id"], overlap_hours=24)
    assert racing_store.stored[created["id"]].revoked_at == clock.now
    with pytest.raises(AdminError, match="is revoked"):
        racing_admin.rotate_secret(created["id"], overlap_hours=24)


def test_revocation_and_host_changes_keep_concurrent_changes(
    racing_admin: Admin, racing_store: RacingKeyStore, clock: FakeClock
) -> None:
    created = racing_admin.create_key("mine")
    racing_store.concurrent_updates = [lambda: racing_admin.rotate_secret(created["id"], overlap_hours=24)]
    racing_admin.set_callback_hosts(created["id"], ["a.example.com"])
    racing_store.concurrent_updates = [lambda: racing_admin.set_callback_hosts(created["id"], ["b.example.com"])]
    racing_admin.revoke_key(created["id"])
    key = racing_store.stored[created["id"]]
    assert (key.revoked_at, key.callback_hosts) == (clock.now, ("b.example.com",))
    assert racing_store.secrets[created["id"]].previous == created["webhookSecret"]


def test_second_concurrent_rotation_is_rejected_and_no_secret_is_lost(
    racing_admin: Admin, racing_store: RacingKeyStore, clock: FakeClock
) -> None:
    created = racing_admin.create_key("mine")
    racing_store.concurrent_updates = [lambda: racing_admin.rotate_secret(created["id"], overlap_hours=24)]
    with pytest.raises(AdminError, match="is being rotated"):
        racing_admin.rotate_secret(created["id"], overlap_hours=24)
    assert racing_admin.show_secret(created["id"])["previousWebhookSecret"] == created["webhookSecret"]


def test_change_fails_after_too_many_concurrent_updates(
    racing_admin: Admin, racing_store: RacingKeyStore, clock: FakeClock
) -> None:
    created = racing_admin.create_key("mine")

    def rename() -> None:
        racing_store.stored[created["id"]] = replace(
            racing_store.stored[created["id"]], name=f"{len(racing_store.concurrent_updates)} to go"
        )

    racing_store.concurrent_updates = [rename] * 100
    with pytest.raises(AdminError, match="too many concurrent updates"):
        racing_admin.revoke_key(created["id"])
    assert racing_store.stored[created["id"]].revoked_at is None


def test_second_revocation_keeps_the_first_revocation_time(admin: Admin, store: FakeKeyStore, clock: FakeClock) -> None:
    created = admin.create_key("mine")
    first = admin.revoke_key(created["id"])
    clock.advance(60)
    assert admin.revoke_key(created["id"]) == first


@pytest.mark.parametrize(
    "command",
    [
        lambda admin: admin.revoke_key("nobody"),
        lambda admin: admin.show_secret("nobody"),
        lambda admin: admin.rotate_secret("nobody", overlap_hours=1),
        lambda admin: admin.set_callback_hosts("nobody", []),
    ],
)
def test_unknown_key_is_an_error(command: Callable[[Admin], object], admin: Admin, store: FakeKeyStore) -> None:
    with pytest.raises(AdminError, match="key nobody does not exist"):
        command(admin)
    assert store.stored == {}
