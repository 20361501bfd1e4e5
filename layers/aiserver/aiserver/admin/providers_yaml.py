"""Reads a providers.yaml; what is wrong with it is told in words that help to mend it."""

from collections.abc import Sequence
from difflib import get_close_matches
from typing import Any, cast

import yaml
from pydantic import TypeAdapter, ValidationError

from aiserver.admin.stack import AdminError
from aiserver.providers.catalogue import ALL_OPERATIONS, CATALOGUE
from aiserver.providers.provider import Provider

# What to say of a member, by it and the kind of the problem; else pydantic's own words.
MESSAGES = {
    ("name", "string_pattern_mismatch"): "must be 1 to 63 of a-z, 0-9 and -, and not begin with -",
    ("base_url", "string_pattern_mismatch"): "must begin with http:// or https://, without user, query or spaces",
    ("base_url", "missing"): "is required, as in https://gpu.example.com/v1, where no preset says it",
    ("auth_header", "string_pattern_mismatch"): "must be the name of a header in lower case",
    ("api_key_secret", "string_pattern_mismatch"): "must be the name of an SSM parameter, as in /aiserver/my-key",
    ("models", "dict_type"): "must be names, as in {llama3:8b: the provider's own name, or nothing}",
    ("operations", "literal_error"): f"must be a list of {', '.join(ALL_OPERATIONS)}",
}


def parse_providers(text: str) -> list[Provider]:
    """The providers of a providers.yaml. Raises: Problem, naming each member that is wrong."""
    try:
        document = yaml.safe_load(text)
    except yaml.YAMLError as error:
        raise AdminError(f"not YAML: {error}") from error
    if not isinstance(document, dict) or set(document) != {"providers"}:  # pyright: ignore[reportUnknownArgumentType]
        raise AdminError("a providers.yaml holds one member, 'providers': a list")
    rows = cast(Any, document["providers"])
    presets = {str(row.get("preset") or "") for row in _only_objects(rows)}
    if unknown := presets - {"", *CATALOGUE}:
        raise AdminError(f"no such preset: {', '.join(sorted(unknown))}; there are {', '.join(sorted(CATALOGUE))}")
    try:
        providers = TypeAdapter(list[Provider]).validate_python(rows)
    except ValidationError as error:
        told = {_location(rows, e["loc"]): _message(e["loc"], e["type"], e["msg"]) for e in reversed(error.errors())}
        raise AdminError("; ".join(f"{where} {words}" for where, words in reversed(told.items()))) from error
    names = [provider.name for provider in providers]
    if twice := {name for name in names if names.count(name) > 1}:
        raise AdminError(f"each provider needs its own name; given twice: {', '.join(sorted(twice))}")
    return providers


def _location(rows: Any, place: Sequence[int | str]) -> str:
    """The provider, by its name if it has one, and its member; only one problem of each is told, the first."""
    index, *inside = place or (0,)
    named = [row.get("name") for row in _only_objects(rows[index : index + 1])] if isinstance(index, int) else []
    return f"provider {(named and named[0]) or index}:" + (f" {inside[0]}" if inside else "")


def _only_objects(rows: Any) -> list[dict[str, Any]]:
    """Those of the list's elements that are objects."""
    return [row for row in cast(list[Any], rows) if isinstance(row, dict)] if isinstance(rows, list) else []


def _message(place: Sequence[int | str], kind: str, message: str) -> str:
    member = str(place[1]) if len(place) > 1 else ""
    if kind == "extra_forbidden":
        near = "api_key_var" if member == "api_key" else "".join(get_close_matches(member, Provider.model_fields, 1))
        return "is no member of a provider" + (f"; did you mean {near}?" if near else "")
    return MESSAGES.get((member, kind), message.removeprefix("Value error, ").replace("Input should", "should"))
