"""Keys and providers on DynamoDB: what an operator sets, and every function reads."""

import json
import logging
from dataclasses import fields
from typing import TYPE_CHECKING, Any

from pydantic import ValidationError

from aiserver.aws.items import pack, unpack
from aiserver.keys import ApiKey
from aiserver.providers.provider import Listing, Provider

log = logging.getLogger("aiserver.config")

if TYPE_CHECKING:
    from mypy_boto3_dynamodb.client import DynamoDBClient

_KEYS, _PROVIDERS, _LISTINGS = "KEY", "PROVIDER", "LISTING"


class DynamoConfig:
    """keys.KeyStore, the providers, and what they said of their models."""

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
        """Every one that is stored, by name. What is not known of one, of a later version, is passed by.

        One that cannot be read at all is left out: the others must go on answering.
        """
        found: list[Provider] = []
        for name, text in self.provider_texts().items():
            try:
                found.append(Provider.model_validate_json(text, extra="ignore"))
            except ValidationError:
                log.error("provider not readable", extra={"provider": name})
        return found

    def provider_texts(self) -> dict[str, str]:
        """Each provider as it is stored, by name: what `replace_provider` compares with."""
        return {item["sk"]: item["provider"] for item in self._all(_PROVIDERS)}

    def replace_provider(self, name: str, old: str | None, new: Provider | None) -> bool:
        """Store `new` if `old` is still what is stored (None: nothing); whether `new` is stored now."""
        key = pack({"pk": _PROVIDERS, "sk": name})
        text = new.model_dump_json() if new else None
        only_if: dict[str, Any] = {"ConditionExpression": "attribute_not_exists(pk)"}
        if old is not None:
            only_if = {
                "ConditionExpression": "provider = :old",
                "ExpressionAttributeValues": pack({":old": old}),
            }
        try:
            if text is None:
                self._dynamodb.delete_item(TableName=self._table, Key=key, **only_if)
            else:
                self._dynamodb.put_item(TableName=self._table, Item=key | pack({"provider": text}), **only_if)
        except self._dynamodb.exceptions.ConditionalCheckFailedException:
            return self.provider_texts().get(name) == text  # ours, sent twice by boto3: its answer got lost
        return True

    def listings(self) -> dict[str, Listing]:
        """What providers have last said of the models they have, by provider."""
        return {item["sk"]: Listing(tuple(json.loads(item["ids"])), item["listed_at"]) for item in self._all(_LISTINGS)}

    def put_listing(self, name: str, listing: Listing | None) -> None:
        key = pack({"pk": _LISTINGS, "sk": name})
        if listing is None:
            self._dynamodb.delete_item(TableName=self._table, Key=key)
            return
        told = pack({"ids": json.dumps(listing.ids), "listed_at": listing.listed_at})
        self._dynamodb.put_item(TableName=self._table, Item=key | told)

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
