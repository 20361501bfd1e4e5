"""What every store of keys must do; run over the in-memory fake and over DynamoDB."""

from dataclasses import replace

from aiserver import keys
from aiserver.aws.config import DynamoConfig
from aiserver.keys import ApiKey, KeyStore
from tests import moto_stack

FULL = ApiKey("id", "full", "hash", "whsec_a", 1, 2, 3, "whsec_b", 4, ("hooks.example.com", "*.example.org"))
BARE = ApiKey("id", "bare", "hash", "whsec_a", 1)


def test_a_key_is_read_as_it_was_put(key_store: KeyStore) -> None:
    assert key_store.key("id") is None
    for key in (FULL, BARE):
        key_store.put_key(key)
        assert key_store.key("id") == key
    key_store.put_key(replace(FULL, id="other"))
    assert sorted(key_store.keys(), key=lambda key: key.id) == [BARE, replace(FULL, id="other")]


def test_a_key_is_replaced_if_it_is_still_what_was_read(key_store: KeyStore) -> None:
    key_store.put_key(BARE)
    for old, new in ((BARE, FULL), (FULL, BARE), (BARE, BARE)):
        assert key_store.replace_key(old, new)
        assert key_store.key("id") == new


def test_a_key_that_anybody_changed_in_any_way_is_not_replaced(key_store: KeyStore) -> None:
    wanted = replace(BARE, name="wanted")
    changes = {"name": "x", "secret_hash": "x", "webhook_secret": "x", "created_at": 9, "expires_at": 9}
    changes |= {"revoked_at": 9, "previous_webhook_secret": "x", "previous_secret_until": 9, "callback_hosts": ("x.y",)}
    for read in (BARE, FULL):
        for name, value in changes.items():
            stored = replace(read, **{name: value})
            key_store.put_key(stored)
            assert not key_store.replace_key(read, wanted), name
            assert key_store.key("id") == stored


def test_a_key_that_is_gone_is_not_replaced(key_store: KeyStore) -> None:
    assert not key_store.replace_key(BARE, FULL)
    assert key_store.key("id") is None


def test_a_replacement_that_was_written_twice_has_been_made(key_store: KeyStore) -> None:
    key_store.put_key(BARE)
    assert key_store.replace_key(BARE, FULL)
    assert key_store.replace_key(BARE, FULL)


def test_a_rotation_survives_being_stored(key_store: KeyStore) -> None:
    _, key = keys.create("mine", now_ms=1, callback_hosts=["*.example.org"])
    key_store.put_key(key)
    assert key_store.replace_key(key, keys.rotated(key, now_ms=2, overlap_ms=3))
    stored = key_store.key(key.id)
    assert stored
    assert stored.signing_secrets(4) == [stored.webhook_secret, key.webhook_secret]
    assert stored.signing_secrets(5) == [stored.webhook_secret]


def test_an_item_of_before_there_were_rotations_is_read_and_replaced(moto_config: DynamoConfig) -> None:
    item = {"pk": "KEY", "sk": "id", "id": "id", "name": "bare", "secret_hash": "hash", "webhook_secret": "whsec_a"}
    written = {name: {"S": value} for name, value in item.items()} | {"created_at": {"N": "1"}}
    moto_stack.client("dynamodb").put_item(TableName="config", Item=written)
    assert moto_config.key("id") == BARE
    assert moto_config.replace_key(BARE, FULL)
    moto_config.put_key(BARE)
    (stored,) = moto_stack.client("dynamodb").scan(TableName="config")["Items"]
    assert stored == written
