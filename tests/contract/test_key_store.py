"""The contract of key stores: the in-memory fake, and DynamoDB in moto and in MiniStack."""

from dataclasses import replace
from typing import Any

import pytest
from botocore.exceptions import ClientError

from aiserver import api_keys
from aiserver.admin.stack import Admin, AdminError
from aiserver.api_keys import ApiKey, KeyStore, WebhookSecrets
from aiserver.aws.config import DynamoConfig
from tests import moto_stack
from tests.fakes import FakeClock

FULL = ApiKey("id", "full", "hash", 1, 2, 3, ("hooks.example.com", "*.example.org"))
BARE = ApiKey("id", "bare", "hash", 1)
SECRETS = WebhookSecrets("whsec_a")
ROTATED = WebhookSecrets("whsec_b", "whsec_a", 4)
# A key during a rotation as stored by 0.1.0: its webhook secrets are in the item of the key.
EARLIER_ITEM = {
    "pk": {"S": "KEY"},
    "sk": {"S": "id"},
    "id": {"S": "id"},
    "name": {"S": "bare"},
    "secret_hash": {"S": "hash"},
    "created_at": {"N": "1"},
    "webhook_secret": {"S": "whsec_b"},
    "previous_webhook_secret": {"S": "whsec_a"},
    "previous_secret_until": {"N": "4"},
}


def test_key_is_read_as_stored(key_store: KeyStore) -> None:
    assert key_store.key("id") is None
    assert key_store.webhook_secrets("id") is None
    for key, secrets in ((FULL, ROTATED), (BARE, SECRETS)):
        key_store.put_key(key, secrets)
        assert (key_store.key("id"), key_store.webhook_secrets("id")) == (key, secrets)
    key_store.put_key(replace(FULL, id="other"), SECRETS)
    assert sorted(key_store.keys(), key=lambda key: key.id) == [BARE, replace(FULL, id="other")]


def test_key_is_replaced_if_it_has_not_changed_since_it_was_read(key_store: KeyStore) -> None:
    key_store.put_key(BARE, SECRETS)
    for old, new in ((BARE, FULL), (FULL, BARE), (BARE, BARE)):
        assert key_store.replace_key(old, new)
        assert key_store.key("id") == new
    assert key_store.webhook_secrets("id") == SECRETS


def test_key_that_has_changed_is_not_replaced(key_store: KeyStore) -> None:
    wanted = replace(BARE, name="wanted")
    changes = {"name": "x", "secret_hash": "x", "created_at": 9, "expires_at": 9}
    changes |= {"revoked_at": 9, "callback_hosts": ("x.y",)}
    for read in (BARE, FULL):
        for name, value in changes.items():
            stored = replace(read, **{name: value})
            key_store.put_key(stored, SECRETS)
            assert not key_store.replace_key(read, wanted), name
            assert key_store.key("id") == stored


def test_deleted_key_is_not_replaced(key_store: KeyStore) -> None:
    assert not key_store.replace_key(BARE, FULL)
    assert key_store.key("id") is None


def test_repeated_replacement_is_idempotent(key_store: KeyStore) -> None:
    key_store.put_key(BARE, SECRETS)
    for _ in range(2):
        assert key_store.replace_key(BARE, FULL)
        assert key_store.replace_webhook_secrets("id", SECRETS, ROTATED)


def test_webhook_secrets_are_replaced_only_if_unchanged(key_store: KeyStore) -> None:
    assert not key_store.replace_webhook_secrets("id", SECRETS, ROTATED)
    key_store.put_key(BARE, ROTATED)
    for changes in ({"current": "whsec_x"}, {"previous": None}, {"previous_until": 5}):
        assert not key_store.replace_webhook_secrets("id", replace(ROTATED, **changes), SECRETS)
    assert key_store.webhook_secrets("id") == ROTATED
    assert key_store.replace_webhook_secrets("id", ROTATED, SECRETS)
    assert (key_store.key("id"), key_store.webhook_secrets("id")) == (BARE, SECRETS)


def test_rotation_is_stored_completely(key_store: KeyStore) -> None:
    _, key, secrets = api_keys.create_key("mine", now_ms=1, callback_hosts=["*.example.org"])
    key_store.put_key(key, secrets)
    assert key_store.replace_webhook_secrets(key.id, secrets, secrets.rotate(now_ms=2, overlap_ms=3))
    stored = key_store.webhook_secrets(key.id)
    assert stored
    assert stored.active(4) == [stored.current, secrets.current]
    assert stored.active(5) == [stored.current]


def test_key_of_an_earlier_version_is_read_and_replaced(moto_config: DynamoConfig) -> None:
    _put(EARLIER_ITEM)
    assert (moto_config.key("id"), moto_config.webhook_secrets("id")) == (BARE, ROTATED)
    assert moto_config.replace_key(BARE, FULL)
    assert moto_config.replace_key(FULL, BARE)
    assert _items() == [EARLIER_ITEM]


def test_webhook_secrets_of_an_earlier_version_are_moved_there_and_back(moto_config: DynamoConfig) -> None:
    _put(EARLIER_ITEM)
    for back, moved in ((False, True), (False, False), (True, True), (True, False), (False, True)):
        assert moto_config.move_webhook_secrets("id", back=back) is moved
        assert (moto_config.key("id"), moto_config.webhook_secrets("id")) == (BARE, ROTATED)
        key = next(item for item in _items() if item["pk"] == {"S": "KEY"})
        assert key == EARLIER_ITEM if back else not any("secret" in name and name != "secret_hash" for name in key)


def test_webhook_secrets_that_change_during_a_move_stay_complete(moto_config: DynamoConfig) -> None:
    _put(EARLIER_ITEM)
    moto_config._read_secrets = lambda kind, key_id: SECRETS
    with pytest.raises(ClientError, match="TransactionCanceledException"):
        moto_config.move_webhook_secrets("id")
    assert _items() == [EARLIER_ITEM]


def test_webhook_secrets_are_readable_during_a_move(moto_config: DynamoConfig, monkeypatch: pytest.MonkeyPatch) -> None:
    """The migration runs between a reader's look-ups in both locations."""
    dynamodb = moto_stack.client("dynamodb")
    for reads_before in (1, 2):
        _put(EARLIER_ITEM)
        reads: list[str] = []

        def get_item(*, reads_before: int = reads_before, reads: list[str] = reads, **params: Any) -> Any:
            response = type(dynamodb).get_item(dynamodb, **params)
            reads.append(params["Key"]["pk"]["S"])
            if len(reads) == reads_before:
                moto_config.move_webhook_secrets("id")
            return response

        with monkeypatch.context() as patched:
            patched.setattr(dynamodb, "get_item", get_item)
            assert moto_config.webhook_secrets("id") == ROTATED


def test_rotation_moves_the_secrets_of_an_earlier_version(moto_config: DynamoConfig) -> None:
    _put(EARLIER_ITEM)
    rotation = _admin(moto_config).rotate_secret("id", overlap_hours=1)
    assert (rotation["previousWebhookSecret"], _items()[0].get("webhook_secret")) == ("whsec_b", None)


def test_key_migration_is_reversible_and_idempotent(moto_config: DynamoConfig) -> None:
    _put(EARLIER_ITEM)
    admin = _admin(moto_config)
    admin.create_key("new")
    migrations = [
        (sum(admin.migrate_key(key, back=back)["migrated"] for key in moto_config.keys()), back)  # noqa: SIM118
        for back in (False, False, True, True, False)
    ]
    assert migrations == [(1, False), (0, False), (2, True), (0, True), (2, False)]


def test_migration_with_persistent_conflicts_is_an_error(moto_config: DynamoConfig) -> None:
    _put(EARLIER_ITEM)
    moto_config._read_secrets = lambda kind, key_id: SECRETS
    with pytest.raises(AdminError, match="was not migrated"):
        _admin(moto_config).migrate_key(BARE)


def test_revocation_retries_after_a_transaction_conflict(
    moto_config: DynamoConfig, monkeypatch: pytest.MonkeyPatch
) -> None:
    _put(EARLIER_ITEM)
    dynamodb = moto_stack.client("dynamodb")
    conflicts = [dynamodb.exceptions.TransactionConflictException({"Error": {}}, "UpdateItem")] * 2

    def update_item(**params: Any) -> Any:
        if conflicts:
            raise conflicts.pop()
        return type(dynamodb).update_item(dynamodb, **params)

    monkeypatch.setattr(dynamodb, "update_item", update_item)
    _admin(moto_config).revoke_key("id")
    revoked = moto_config.key("id")
    assert revoked
    assert revoked.revoked_at


def _admin(config: DynamoConfig) -> Admin:
    nothing: Any = None
    return Admin("aiserver", config, nothing, nothing, nothing, FakeClock(), nothing, nothing)


def _put(item: dict[str, Any]) -> None:
    for stored in _items():
        moto_stack.client("dynamodb").delete_item(TableName="config", Key={"pk": stored["pk"], "sk": stored["sk"]})
    moto_stack.client("dynamodb").put_item(TableName="config", Item=item)


def _items() -> list[dict[str, Any]]:
    return moto_stack.client("dynamodb").scan(TableName="config")["Items"]
