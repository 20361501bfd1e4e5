"""API keys: shown once, kept as a hash, junk refused without a read."""

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


def test_a_new_key_opens_and_its_secret_is_not_stored(store: FakeKeyStore, clock: FakeClock) -> None:
    text, key, secrets = api_keys.create_key("mine", now_ms=clock.now)
    store.put_key(key, secrets)
    door = Authenticator(store, clock)
    assert door.authenticate({"authorization": f"Bearer {text}"}) == key
    assert door.authenticate({"x-api-key": text, "authorization": "Bearer other"}) == key
    assert door.authenticate({"authorization": f"bearer  {text} "}) == key
    assert text[15:] not in repr(key)


@pytest.mark.parametrize("headers", [{}, {"authorization": ""}, {"authorization": "Basic abc"}, {"x-api-key": ""}])
def test_no_key_is_refused_with_a_hint(headers: dict[str, str], store: FakeKeyStore, clock: FakeClock) -> None:
    with pytest.raises(Unauthorized, match="No API key"):
        Authenticator(store, clock).authenticate(headers)


@given(st.text(max_size=80))
def test_junk_is_refused_without_a_read(junk: str) -> None:
    store = FakeKeyStore()
    with pytest.raises(Unauthorized):
        Authenticator(store, FakeClock()).authenticate({"x-api-key": junk})
    assert store.reads == 0


def test_one_wrong_character_is_caught_by_the_checksum(store: FakeKeyStore, clock: FakeClock) -> None:
    text, *_ = api_keys.create_key("mine", now_ms=clock.now)
    assert api_keys.is_well_formed(text)
    for at in range(3, len(text)):
        assert not api_keys.is_well_formed(text[:at] + ("a" if text[at] != "a" else "b") + text[at + 1 :])


def test_a_key_with_another_s_id_but_a_secret_of_its_own_is_refused(store: FakeKeyStore, clock: FakeClock) -> None:
    text, key, _ = api_keys.create_key("mine", now_ms=clock.now)
    _, other, secrets = api_keys.create_key("other", now_ms=clock.now)
    store.put_key(replace(other, id=key.id), secrets)
    with pytest.raises(Unauthorized, match="not valid"):
        Authenticator(store, clock).authenticate({"x-api-key": text})


def test_a_revoked_key_closes_within_the_cache_s_time(store: FakeKeyStore, clock: FakeClock) -> None:
    text, key, secrets = api_keys.create_key("mine", now_ms=clock.now)
    store.put_key(key, secrets)
    door = Authenticator(store, clock)
    door.authenticate({"x-api-key": text})
    store.put_key(replace(key, revoked_at=clock.now), secrets)
    door.authenticate({"x-api-key": text})
    assert store.reads == 1
    clock.advance(api_keys.CACHE_MS / 1000)
    with pytest.raises(Unauthorized):
        door.authenticate({"x-api-key": text})


def test_an_expired_key_is_refused_though_cached(store: FakeKeyStore, clock: FakeClock) -> None:
    text, key, secrets = api_keys.create_key("mine", now_ms=clock.now, expires_at=clock.now + 1000)
    store.put_key(key, secrets)
    door = Authenticator(store, clock)
    door.authenticate({"x-api-key": text})
    clock.advance(1)
    with pytest.raises(Unauthorized, match="expired"):
        door.authenticate({"x-api-key": text})


def test_both_secrets_sign_until_the_overlap_ends_the_new_one_first(clock: FakeClock) -> None:
    old = api_keys.new_webhook_secrets()
    assert old.active(clock.now) == [old.current]
    new = old.rotate(now_ms=clock.now, overlap_ms=1000)
    assert new.current != old.current
    assert len(base64.b64decode(new.current.removeprefix("whsec_"), validate=True)) == 32
    assert new.active(clock.now) == [new.current, old.current]
    assert new.active(clock.now + 999) == [new.current, old.current]
    assert new.active(clock.now + 1000) == [new.current]


def test_rotation_without_an_overlap_keeps_no_older_secret(clock: FakeClock) -> None:
    old = api_keys.new_webhook_secrets()
    overlapping = old.rotate(now_ms=clock.now, overlap_ms=1000)
    new = overlapping.rotate(now_ms=clock.now, overlap_ms=0)
    assert new.active(clock.now) == [new.current]
    assert (new.previous, new.previous_until) == (None, None)


def test_webhook_secrets_are_not_in_their_repr(clock: FakeClock) -> None:
    secrets = api_keys.new_webhook_secrets().rotate(now_ms=clock.now, overlap_ms=1000)
    assert "whsec_" not in repr(secrets)


def over(store: Any, clock: FakeClock) -> Admin:
    nothing: Any = None
    return Admin(
        "stack", store, ssm=nothing, jobs=nothing, messages=nothing, clock=clock, circuits=nothing, leases=nothing
    )


@pytest.fixture
def admin(store: FakeKeyStore, clock: FakeClock) -> Admin:
    return over(store, clock)


def test_a_secret_is_rotated_and_its_overlap_ends_by_the_clock(
    admin: Admin, store: FakeKeyStore, clock: FakeClock
) -> None:
    made = admin.create_key("mine")
    new = admin.rotate_secret(made["id"], overlap_hours=24)
    assert new["webhookSecret"] != made["webhookSecret"]
    assert new["previousWebhookSecret"] == made["webhookSecret"]
    assert new["previousSignsUntil"] == "2027-01-16T08:00:00.000Z"
    clock.advance(24 * 3600 - 0.001)
    assert admin.show_secret(made["id"]) == new
    with pytest.raises(AdminError, match=r"signs until 2027-01-16T08:00:00.000Z; wait .* --overlap-hours 0"):
        admin.rotate_secret(made["id"], overlap_hours=24)
    assert admin.show_secret(made["id"]) == new
    clock.advance(0.001)
    assert admin.show_secret(made["id"]) == new | {"previousWebhookSecret": None, "previousSignsUntil": None}
    assert admin.rotate_secret(made["id"], overlap_hours=1)["previousWebhookSecret"] == new["webhookSecret"]


def test_secrets_that_leaked_are_ended_at_once_during_an_overlap(admin: Admin, store: FakeKeyStore) -> None:
    made = admin.create_key("mine")
    leaked = admin.rotate_secret(made["id"], overlap_hours=24)
    new = admin.rotate_secret(made["id"], overlap_hours=0)
    assert new["previousWebhookSecret"] is new["previousSignsUntil"] is None
    assert new["webhookSecret"] not in (made["webhookSecret"], leaked["webhookSecret"])


@pytest.mark.parametrize("hours", [-1, 721])
def test_an_overlap_is_at_most_a_month(hours: int, admin: Admin, store: FakeKeyStore) -> None:
    made = admin.create_key("mine")
    with pytest.raises(AdminError, match="0 to 720"):
        admin.rotate_secret(made["id"], overlap_hours=hours)
    assert admin.show_secret(made["id"])["webhookSecret"] == made["webhookSecret"]
    assert admin.rotate_secret(made["id"], overlap_hours=720)["previousSignsUntil"].startswith("2027-02-14")


def test_a_wrong_callback_host_is_told_and_nothing_is_written(admin: Admin, store: FakeKeyStore) -> None:
    with pytest.raises(AdminError, match=r"'a\.b:1' is no callback host"):
        admin.create_key("mine", callback_hosts=["ok.example.com", "a.b:1"])
    assert store.stored == {}
    made = admin.create_key("mine", callback_hosts=["ok.example.com", "OK.example.com"])
    assert store.stored[made["id"]].callback_hosts == ("ok.example.com",)
    with pytest.raises(AdminError, match=r"'a\.b:1' is no callback host"):
        admin.set_callback_hosts(made["id"], ["a.b:1"])
    assert store.stored[made["id"]].callback_hosts == ("ok.example.com",)


class Shared(FakeKeyStore):
    """A store in which others do something right after each read, as long as there is something to do."""

    def __init__(self) -> None:
        super().__init__()
        self.others: list[Callable[[], object]] = []

    def key(self, key_id: str) -> ApiKey | None:
        found = super().key(key_id)
        self._let_another_act()
        return found

    def webhook_secrets(self, key_id: str) -> WebhookSecrets | None:
        found = super().webhook_secrets(key_id)
        self._let_another_act()
        return found

    def _let_another_act(self) -> None:
        if self.others:
            self.others.pop()()


@pytest.fixture
def shared() -> Shared:
    return Shared()


@pytest.fixture
def one_of_two(shared: Shared, clock: FakeClock) -> Admin:
    """An operator who is not alone."""
    return over(shared, clock)


def test_a_rotation_does_not_bring_a_key_back_that_is_revoked_meanwhile(
    one_of_two: Admin, shared: Shared, clock: FakeClock
) -> None:
    made = one_of_two.create_key("mine")
    shared.others = [lambda: one_of_two.revoke_key(made["id"])]
    one_of_two.rotate_secret(made["id"], overlap_hours=24)
    assert shared.stored[made["id"]].revoked_at == clock.now
    with pytest.raises(AdminError, match="is revoked"):
        one_of_two.rotate_secret(made["id"], overlap_hours=24)


def test_revoking_and_setting_hosts_keep_what_others_change_meanwhile(
    one_of_two: Admin, shared: Shared, clock: FakeClock
) -> None:
    made = one_of_two.create_key("mine")
    shared.others = [lambda: one_of_two.rotate_secret(made["id"], overlap_hours=24)]
    one_of_two.set_callback_hosts(made["id"], ["a.example.com"])
    shared.others = [lambda: one_of_two.set_callback_hosts(made["id"], ["b.example.com"])]
    one_of_two.revoke_key(made["id"])
    key = shared.stored[made["id"]]
    assert (key.revoked_at, key.callback_hosts) == (clock.now, ("b.example.com",))
    assert shared.secrets[made["id"]].previous == made["webhookSecret"]


def test_of_two_rotations_at_once_one_is_refused_and_no_secret_is_lost(
    one_of_two: Admin, shared: Shared, clock: FakeClock
) -> None:
    made = one_of_two.create_key("mine")
    shared.others = [lambda: one_of_two.rotate_secret(made["id"], overlap_hours=24)]
    with pytest.raises(AdminError, match="is being rotated"):
        one_of_two.rotate_secret(made["id"], overlap_hours=24)
    assert one_of_two.show_secret(made["id"])["previousWebhookSecret"] == made["webhookSecret"]


def test_a_change_that_meets_others_each_time_gives_up_in_words(
    one_of_two: Admin, shared: Shared, clock: FakeClock
) -> None:
    made = one_of_two.create_key("mine")

    def rename() -> None:
        shared.stored[made["id"]] = replace(shared.stored[made["id"]], name=f"{len(shared.others)} to go")

    shared.others = [rename] * 100
    with pytest.raises(AdminError, match="too many concurrent changes"):
        one_of_two.revoke_key(made["id"])
    assert shared.stored[made["id"]].revoked_at is None


def test_a_key_that_was_revoked_stays_revoked_at_its_first_time(
    admin: Admin, store: FakeKeyStore, clock: FakeClock
) -> None:
    made = admin.create_key("mine")
    first = admin.revoke_key(made["id"])
    clock.advance(60)
    assert admin.revoke_key(made["id"]) == first


@pytest.mark.parametrize(
    "command",
    [
        lambda admin: admin.revoke_key("nobody"),
        lambda admin: admin.show_secret("nobody"),
        lambda admin: admin.rotate_secret("nobody", overlap_hours=1),
        lambda admin: admin.set_callback_hosts("nobody", []),
    ],
)
def test_a_key_that_is_not_there_is_told(command: Callable[[Admin], object], admin: Admin, store: FakeKeyStore) -> None:
    with pytest.raises(AdminError, match="There is no key nobody"):
        command(admin)
    assert store.stored == {}
