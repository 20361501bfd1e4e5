"""Keys and providers on DynamoDB: what an operator sets, and every function reads."""

from dataclasses import fields
from typing import TYPE_CHECKING, Any

from aiserver.aws.items import pack, unpack
from aiserver.keys import ApiKey
from aiserver.providers.provider import Provider

if TYPE_CHECKING:
    from mypy_boto3_dynamodb.client import DynamoDBClient

_KEYS, _PROVIDERS = "KEY", "PROVIDER"


class DynamoConfig:
    """keys.KeyStore, and the list of providers."""

    def __init__(self, table: str, dynamodb: "DynamoDBClient") -> None:
        self._table = table
        self._dynamodb = dynamodb

    def key(self, key_id: str) -> ApiKey | None:
        found = self._dynamodb.get_item(TableName=self._table, Key=pack({"pk": _KEYS, "sk": key_id}))
        return _key(unpack(found["Item"])) if "Item" in found else None

    def put_key(self, key: ApiKey) -> None:
        self._dynamodb.put_item(TableName=self._table, Item=_item(key))

    def replace_key(self, old: ApiKey, new: ApiKey) -> bool:
        stored = _attributes(old)
        conditions = [f"#{f.name} = :{f.name}" for f in fields(old) if f.name in stored]
        conditions += [f"attribute_not_exists(#{f.name})" for f in fields(old) if f.name not in stored]
        try:
            self._dynamodb.put_item(
                TableName=self._table,
                Item=_item(new),
                ConditionExpression=" AND ".join(conditions),
                ExpressionAttributeNames={f"#{f.name}": f.name for f in fields(old)},
                ExpressionAttributeValues=pack({f":{name}": value for name, value in stored.items()}),
                ReturnValuesOnConditionCheckFailure="ALL_OLD",
            )
        except self._dynamodb.exceptions.ConditionalCheckFailedException as error:
            return error.response.get("Item") == _item(new)  # ours, sent twice by boto3: its answer got lost
        return True

    def keys(self) -> list[ApiKey]:
        return [_key(item) for item in self._all(_KEYS)]

    def providers(self) -> list[Provider]:
        return [Provider.model_validate_json(item["provider"]) for item in self._all(_PROVIDERS)]

    def put_provider(self, provider: Provider) -> None:
        """Write one, new or changed."""
        item = {"pk": _PROVIDERS, "sk": provider.name, "provider": provider.model_dump_json()}
        self._dynamodb.put_item(TableName=self._table, Item=pack(item))

    def replace_providers(self, providers: list[Provider]) -> None:
        """Make these the providers: new and changed ones are written, others removed."""
        gone = {item["sk"] for item in self._all(_PROVIDERS)} - {provider.name for provider in providers}
        for provider in providers:
            self.put_provider(provider)
        for name in gone:
            self._dynamodb.delete_item(TableName=self._table, Key=pack({"pk": _PROVIDERS, "sk": name}))

    def _all(self, kind: str) -> list[dict[str, Any]]:
        pages = self._dynamodb.get_paginator("query").paginate(
            TableName=self._table,
            KeyConditionExpression="pk = :kind",
            ExpressionAttributeValues=pack({":kind": kind}),
        )
        return [unpack(item) for page in pages for item in page["Items"]]


def _item(key: ApiKey) -> dict[str, Any]:
    return pack({"pk": _KEYS, "sk": key.id, **_attributes(key)})


def _attributes(key: ApiKey) -> dict[str, str | int]:
    """What is stored of a key: nothing for what it has not, and its hosts as one string."""
    values = {f.name: getattr(key, f.name) for f in fields(key)}
    values["callback_hosts"] = ",".join(key.callback_hosts) or None
    return {name: value for name, value in values.items() if value is not None}


def _key(item: dict[str, Any]) -> ApiKey:
    values = {f.name: item[f.name] for f in fields(ApiKey) if f.name in item}
    if "callback_hosts" in item:
        values["callback_hosts"] = tuple(item["callback_hosts"].split(","))
    return ApiKey(**values)
