"""Configuration in DynamoDB, set by operators and read by functions: API keys, webhook secrets and providers.

Webhook secrets have a separate partition: IAM grants access by partition, and only functions that sign need them.
"""

import json
import logging
import time
from collections.abc import Iterable, Mapping
from dataclasses import asdict, fields
from typing import TYPE_CHECKING, Any

from pydantic import ValidationError

from aiserver import log_events
from aiserver.api_keys import ApiKey, WebhookSecrets
from aiserver.artifacts import ArtifactSecrets
from aiserver.aws.items import pack, unpack
from aiserver.providers.provider import ModelListing, Provider

PAUSE_S = 0.05  # after a conflict with a transaction on the same item, which takes milliseconds

log = logging.getLogger("aiserver.config")

if TYPE_CHECKING:
    from mypy_boto3_dynamodb.client import DynamoDBClient

_KEYS, _SECRETS, _PROVIDERS, _LISTINGS = "KEY", "WEBHOOK_SECRET", "PROVIDER", "LISTING"
_ARTIFACT_SECRETS = "ARTIFACT_SECRET"
_SECRET_ATTRIBUTES = {
    "current": "webhook_secret",
    "previous": "previous_webhook_secret",
    "previous_until": "previous_secret_until",
}


class DynamoConfig:
    """Implements api_keys.KeyStore, and stores providers and their model listings."""

    def __init__(self, table: str, dynamodb: "DynamoDBClient") -> None:
        self._table = table
        self._dynamodb = dynamodb

    def key(self, key_id: str) -> ApiKey | None:
        response = self._dynamodb.get_item(TableName=self._table, Key=pack({"pk": _KEYS, "sk": key_id}))
        return _decode_key(unpack(response["Item"])) if "Item" in response else None

    def put_key(self, key: ApiKey, secrets: WebhookSecrets) -> None:
        items = [
            {"pk": _KEYS, "sk": key.id, **_key_attributes(key)},
            {"pk": _SECRETS, "sk": key.id, **_secret_attributes(secrets)},
        ]
        puts: Any = [{"Put": {"TableName": self._table, "Item": pack(item)}} for item in items]
        self._dynamodb.transact_write_items(TransactItems=puts)

    def replace_key(self, old: ApiKey, new: ApiKey) -> bool:
        """Replace `old` by `new`. Webhook secrets that an earlier version stored in the item do not change."""
        names = [field.name for field in fields(ApiKey)]
        change = _update_arguments(names, _key_attributes(old), _key_attributes(new))
        stored = self._update(_KEYS, old.id, change)
        return stored is None or ("id" in stored and _decode_key(stored) == new)

    def keys(self) -> list[ApiKey]:
        return [_decode_key(item) for item in self._query_partition(_KEYS)]

    def webhook_secrets(self, key_id: str) -> WebhookSecrets | None:
        """The key's secrets, including those that an earlier version stored in the key's item."""
        for kind in (_SECRETS, _KEYS, _SECRETS):  # the third read: a move can happen between the first two
            if secrets := self._read_secrets(kind, key_id):
                return secrets
        return None

    def replace_webhook_secrets(self, key_id: str, old: WebhookSecrets, new: WebhookSecrets) -> bool:
        change = _update_arguments(_SECRET_ATTRIBUTES.values(), _secret_attributes(old), _secret_attributes(new))
        stored = self._update(_SECRETS, key_id, change)
        return stored is None or _decode_secrets(stored) == new

    def move_webhook_secrets(self, key_id: str, *, back: bool = False) -> bool:
        """Move a key's secrets out of its item, where earlier versions stored them, or `back` into it.

        False when there is nothing to move. One transaction: the secrets are always stored in exactly one place.
        Raises: ClientError (TransactionCanceledException), when the key is changed at the same time.
        """
        source, target = (_SECRETS, _KEYS) if back else (_KEYS, _SECRETS)
        secrets = self._read_secrets(source, key_id)
        if secrets is None:
            return False
        stored, names = _secret_attributes(secrets), _SECRET_ATTRIBUTES.values()
        writes: Any = [
            {"Update": self._item_key(source, key_id) | _update_arguments(names, stored, {})},
            {"Update": self._item_key(target, key_id) | _update_arguments(names, {}, stored)},
        ]
        self._dynamodb.transact_write_items(TransactItems=writes)
        return True

    def _read_secrets(self, kind: str, key_id: str) -> WebhookSecrets | None:
        response = self._dynamodb.get_item(**self._item_key(kind, key_id), ConsistentRead=True)
        return _decode_secrets(unpack(response.get("Item", {})))

    def _item_key(self, kind: str, name: str) -> dict[str, Any]:
        return {"TableName": self._table, "Key": pack({"pk": kind, "sk": name})}

    def _update(self, kind: str, name: str, change: dict[str, Any]) -> dict[str, Any] | None:
        """None when the change was made, else the stored item, which does not meet the condition.

        That item may be the changed one: boto3 repeats a request whose response was lost. It is empty where there is
        none, or where a transaction is writing it: boto3 does not retry that.
        """
        try:
            self._dynamodb.update_item(
                **self._item_key(kind, name), **change, ReturnValuesOnConditionCheckFailure="ALL_OLD"
            )
        except self._dynamodb.exceptions.ConditionalCheckFailedException as error:
            response: Any = error.response
            return unpack(response.get("Item", {}))
        except self._dynamodb.exceptions.TransactionConflictException:
            time.sleep(PAUSE_S)
            return {}
        return None

    def artifact_secrets(self) -> ArtifactSecrets | None:
        response = self._dynamodb.get_item(**self._item_key(_ARTIFACT_SECRETS, _ARTIFACT_SECRETS), ConsistentRead=True)
        item = unpack(response.get("Item", {}))
        arguments: dict[str, Any] = {field.name: item.get(field.name) for field in fields(ArtifactSecrets)}
        return ArtifactSecrets(**arguments) if arguments["current"] else None

    def replace_artifact_secrets(self, old: ArtifactSecrets | None, new: ArtifactSecrets) -> bool:
        key = pack({"pk": _ARTIFACT_SECRETS, "sk": _ARTIFACT_SECRETS})
        condition: dict[str, Any] = {"ConditionExpression": "attribute_not_exists(pk)"}
        if old is not None:
            condition = {
                "ConditionExpression": "#current = :old",
                "ExpressionAttributeNames": {"#current": "current"},
                "ExpressionAttributeValues": pack({":old": old.current}),
            }
        try:
            self._dynamodb.put_item(TableName=self._table, Item=key | pack(_without_none(asdict(new))), **condition)
        except self._dynamodb.exceptions.ConditionalCheckFailedException:
            return self.artifact_secrets() == new  # True if boto3 repeated this write after a lost response
        return True

    def providers(self) -> list[Provider]:
        """Every stored provider, by name. Unknown fields, written by a later version, are ignored.

        An invalid provider is skipped, so that the others keep working.
        """
        providers: list[Provider] = []
        for name, text in self.provider_texts().items():
            try:
                providers.append(Provider.model_validate_json(text, extra="ignore"))
            except ValidationError:
                log.error(log_events.PROVIDER_CONFIG_INVALID, extra={"provider": name})
        return providers

    def provider_texts(self) -> dict[str, str]:
        """The stored JSON text of each provider, by name, which `replace_provider` compares with."""
        return {item["sk"]: item["provider"] for item in self._query_partition(_PROVIDERS)}

    def replace_provider(self, name: str, old: str | None, new: Provider | None) -> bool:
        """Store `new` if the stored text is still `old` (None: no item). Returns True if `new` is stored now."""
        key = pack({"pk": _PROVIDERS, "sk": name})
        text = new.to_json() if new else None
        condition: dict[str, Any] = {"ConditionExpression": "attribute_not_exists(pk)"}
        if old is not None:
            condition = {
                "ConditionExpression": "provider = :old",
                "ExpressionAttributeValues": pack({":old": old}),
            }
        try:
            if text is None:
                self._dynamodb.delete_item(TableName=self._table, Key=key, **condition)
            else:
                self._dynamodb.put_item(TableName=self._table, Item=key | pack({"provider": text}), **condition)
        except self._dynamodb.exceptions.ConditionalCheckFailedException:
            return self.provider_texts().get(name) == text  # True if boto3 repeated this write after a lost response
        return True

    def model_listings(self) -> dict[str, ModelListing]:
        """The last model listing of each provider, by provider name."""
        return {
            item["sk"]: ModelListing(tuple(json.loads(item["ids"])), item["listed_at"])
            for item in self._query_partition(_LISTINGS)
        }

    def put_model_listing(self, name: str, listing: ModelListing | None) -> None:
        key = pack({"pk": _LISTINGS, "sk": name})
        if listing is None:
            self._dynamodb.delete_item(TableName=self._table, Key=key)
            return
        attributes = pack({"ids": json.dumps(listing.ids), "listed_at": listing.listed_at})
        self._dynamodb.put_item(TableName=self._table, Item=key | attributes)

    def _query_partition(self, kind: str) -> list[dict[str, Any]]:
        pages = self._dynamodb.get_paginator("query").paginate(
            TableName=self._table,
            KeyConditionExpression="pk = :kind",
            ExpressionAttributeValues=pack({":kind": kind}),
        )
        return [unpack(item) for page in pages for item in page["Items"]]


def _update_arguments(
    names: Iterable[str], old: Mapping[str, str | int], new: Mapping[str, str | int]
) -> dict[str, Any]:
    """Update expression arguments that turn the attributes `names` from exactly `old` into `new`."""
    conditions = [f"#{name} = :old_{name}" if name in old else f"attribute_not_exists(#{name})" for name in names]
    sets = [f"#{name} = :new_{name}" for name in new]
    removes = [f"#{name}" for name in names if name not in new]
    operands = {f":old_{name}": old[name] for name in old} | {f":new_{name}": new[name] for name in new}
    clauses = [("SET", sets), ("REMOVE", removes)]
    return {
        "ConditionExpression": " AND ".join(conditions),
        "UpdateExpression": " ".join(f"{word} {', '.join(parts)}" for word, parts in clauses if parts),
        "ExpressionAttributeNames": {f"#{name}": name for name in names},
        "ExpressionAttributeValues": pack(operands),
    }


def _secret_attributes(secrets: WebhookSecrets) -> dict[str, str | int]:
    attributes = {attribute: getattr(secrets, name) for name, attribute in _SECRET_ATTRIBUTES.items()}
    return _without_none(attributes)


def _decode_secrets(item: Mapping[str, Any]) -> WebhookSecrets | None:
    arguments: dict[str, Any] = {name: item.get(attribute) for name, attribute in _SECRET_ATTRIBUTES.items()}
    return WebhookSecrets(**arguments) if arguments["current"] else None


def _key_attributes(key: ApiKey) -> dict[str, str | int]:
    """The stored attributes of a key: without those that are None, and with the hosts as one string."""
    attributes = {field.name: getattr(key, field.name) for field in fields(key)}
    attributes["callback_hosts"] = ",".join(key.callback_hosts) or None
    return _without_none(attributes)


def _decode_key(item: dict[str, Any]) -> ApiKey:
    arguments = {field.name: item[field.name] for field in fields(ApiKey) if field.name in item}
    if "callback_hosts" in item:
        arguments["callback_hosts"] = tuple(item["callback_hosts"].split(","))
    return ApiKey(**arguments)


def _without_none(attributes: Mapping[str, Any]) -> dict[str, Any]:
    return {name: attribute for name, attribute in attributes.items() if attribute is not None}
