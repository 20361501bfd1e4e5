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
        values = {f.name: value for f in fields(key) if (value := getattr(key, f.name)) is not None}
        self._dynamodb.put_item(TableName=self._table, Item=pack({"pk": _KEYS, "sk": key.id, **values}))

    def keys(self) -> list[ApiKey]:
        return [_key(item) for item in self._all(_KEYS)]

    def providers(self) -> list[Provider]:
        return [Provider.model_validate_json(item["provider"]) for item in self._all(_PROVIDERS)]

    def replace_providers(self, providers: list[Provider]) -> None:
        """Make these the providers: new and changed ones are written, others removed."""
        gone = {item["sk"] for item in self._all(_PROVIDERS)} - {provider.name for provider in providers}
        for provider in providers:
            item = {"pk": _PROVIDERS, "sk": provider.name, "provider": provider.model_dump_json()}
            self._dynamodb.put_item(TableName=self._table, Item=pack(item))
        for name in gone:
            self._dynamodb.delete_item(TableName=self._table, Key=pack({"pk": _PROVIDERS, "sk": name}))

    def _all(self, kind: str) -> list[dict[str, Any]]:
        pages = self._dynamodb.get_paginator("query").paginate(
            TableName=self._table,
            KeyConditionExpression="pk = :kind",
            ExpressionAttributeValues=pack({":kind": kind}),
        )
        return [unpack(item) for page in pages for item in page["Items"]]


def _key(item: dict[str, Any]) -> ApiKey:
    return ApiKey(**{f.name: item[f.name] for f in fields(ApiKey) if f.name in item})
