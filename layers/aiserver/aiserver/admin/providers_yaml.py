"""Parse a providers.yaml; errors name the provider, the field and the fix."""

from collections.abc import Sequence
from difflib import get_close_matches
from typing import Any, cast

import yaml
from pydantic import TypeAdapter, ValidationError

from aiserver.admin.stack import AdminError
from aiserver.operations import OPERATIONS
from aiserver.providers.catalogue import CATALOGUE
from aiserver.providers.provider import Provider

# Messages by field and pydantic error type; other errors keep pydantic's message.
MESSAGES = {
    ("name", "string_pattern_mismatch"): "must be 1 to 63 characters of a-z, 0-9 and -, and must not begin with -",
    ("base_url", "string_pattern_mismatch"): "must begin with http:// or https://, without user, query or spaces",
    ("base_url", "missing"): "is required without a preset, for example https://gpu.example.com/v1",
    ("auth_header", "string_pattern_mismatch"): "must be a header name in lower case",
    ("api_key_secret", "string_pattern_mismatch"): "must be an SSM parameter name, for example /aiserver/my-key",
    ("models", "dict_type"): "must map model names to upstream names, for example {llama3:8b: meta/llama-3-8b}",
    ("operations", "value_error"): f"must be a list of {', '.join(OPERATIONS)}",
}


def parse_providers(text: str) -> list[Provider]:
    """The providers of a providers.yaml. Raises: AdminError, naming each field that is not valid."""
    try:
        document = yaml.safe_load(text)
    except yaml.YAMLError as error:
        raise AdminError(f"providers.yaml is not valid YAML: {error}") from error
    if not isinstance(document, dict) or set(document) != {"providers"}:  # pyright: ignore[reportUnknownArgumentType]
        raise AdminError("providers.yaml must contain one field, 'providers', with a list")
    entries = cast(Any, document["providers"])
    presets = {str(entry.get("preset") or "") for entry in _only_objects(entries)}
    if unknown := presets - {"", *CATALOGUE}:
        raise AdminError(f"unknown preset {', '.join(sorted(unknown))}; presets: {', '.join(sorted(CATALOGUE))}")
    try:
        providers = TypeAdapter(list[Provider]).validate_python(entries)
    except ValidationError as error:
        messages = {
            _location(entries, e["loc"]): _message(e["loc"], e["type"], e["msg"]) for e in reversed(error.errors())
        }
        raise AdminError("; ".join(f"{where} {text}" for where, text in reversed(messages.items()))) from error
    names = [provider.name for provider in providers]
    if duplicates := {name for name in names if names.count(name) > 1}:
        raise AdminError(f"provider names must be unique; duplicates: {', '.join(sorted(duplicates))}")
    return providers


def _location(entries: Any, path: Sequence[int | str]) -> str:
    """The provider, by name or else by index, and its field. Each location reports its first error only."""
    index, *fields = path or (0,)
    names = [entry.get("name") for entry in _only_objects(entries[index : index + 1])] if isinstance(index, int) else []
    return f"provider {(names and names[0]) or index}:" + (f" {fields[0]}" if fields else "")


def _only_objects(entries: Any) -> list[dict[str, Any]]:
    return [entry for entry in cast(list[Any], entries) if isinstance(entry, dict)] if isinstance(entries, list) else []


def _message(path: Sequence[int | str], kind: str, message: str) -> str:
    field = str(path[1]) if len(path) > 1 else ""
    if kind == "extra_forbidden":
        similar = "api_key_var" if field == "api_key" else "".join(get_close_matches(field, Provider.model_fields, 1))
        return "is not a provider field" + (f"; did you mean {similar}?" if similar else "")
    return MESSAGES.get((field, kind), message.removeprefix("Value error, ").replace("Input should", "should"))
