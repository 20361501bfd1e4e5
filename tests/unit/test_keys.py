"""API keys: shown once, kept as a hash, junk refused without a read."""

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from aiserver import keys
from aiserver.errors import Unauthorized
from aiserver.keys import Authenticator
from tests.fakes import FakeClock, FakeKeys


@pytest.fixture
def clock() -> FakeClock:
    return FakeClock()


@pytest.fixture
def store() -> FakeKeys:
    return FakeKeys()


def test_a_new_key_opens_and_its_secret_is_not_stored(store: FakeKeys, clock: FakeClock) -> None:
    text, key = keys.create("mine", now_ms=clock.now)
    store.put_key(key)
    door = Authenticator(store, clock)
    assert door.authenticate({"authorization": f"Bearer {text}"}) == key
    assert door.authenticate({"x-api-key": text, "authorization": "Bearer other"}) == key
    assert door.authenticate({"authorization": f"bearer  {text} "}) == key
    assert text[15:] not in repr(key)


@pytest.mark.parametrize("headers", [{}, {"authorization": ""}, {"authorization": "Basic abc"}, {"x-api-key": ""}])
def test_no_key_is_refused_with_a_hint(headers: dict[str, str], store: FakeKeys, clock: FakeClock) -> None:
    with pytest.raises(Unauthorized, match="No API key"):
        Authenticator(store, clock).authenticate(headers)


@given(st.text(max_size=80))
def test_junk_is_refused_without_a_read(junk: str) -> None:
    store = FakeKeys()
    with pytest.raises(Unauthorized):
        Authenticator(store, FakeClock()).authenticate({"x-api-key": junk})
    assert store.reads == 0


def test_one_wrong_character_is_caught_by_the_checksum(store: FakeKeys, clock: FakeClock) -> None:
    text, _ = keys.create("mine", now_ms=clock.now)
    assert keys.is_well_formed(text)
    for at in range(3, len(text)):
        assert not keys.is_well_formed(text[:at] + ("a" if text[at] != "a" else "b") + text[at + 1 :])


def test_a_key_with_another_s_id_but_a_secret_of_its_own_is_refused(store: FakeKeys, clock: FakeClock) -> None:
    text, key = keys.create("mine", now_ms=clock.now)
    _, other = keys.create("other", now_ms=clock.now)
    store.put_key(replace(other, id=key.id))
    with pytest.raises(Unauthorized, match="not valid"):
        Authenticator(store, clock).authenticate({"x-api-key": text})


def test_a_revoked_key_closes_within_the_cache_s_time(store: FakeKeys, clock: FakeClock) -> None:
    text, key = keys.create("mine", now_ms=clock.now)
    store.put_key(key)
    door = Authenticator(store, clock)
    door.authenticate({"x-api-key": text})
    store.put_key(replace(key, revoked_at=clock.now))
    door.authenticate({"x-api-key": text})
    assert store.reads == 1
    clock.advance(keys.CACHE_MS / 1000)
    with pytest.raises(Unauthorized):
        door.authenticate({"x-api-key": text})


def test_an_expired_key_is_refused_though_cached(store: FakeKeys, clock: FakeClock) -> None:
    text, key = keys.create("mine", now_ms=clock.now, expires_at=clock.now + 1000)
    store.put_key(key)
    door = Authenticator(store, clock)
    door.authenticate({"x-api-key": text})
    clock.advance(1)
    with pytest.raises(Unauthorized, match="expired"):
        door.authenticate({"x-api-key": text})
