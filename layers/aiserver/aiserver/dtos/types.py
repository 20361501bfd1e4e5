"""The answers of `/types`: the list of languages, the file of each, and the metadata."""

from collections.abc import Mapping
from functools import lru_cache

from aiserver.dtos.language import Language, render_file
from aiserver.dtos.languages.csharp import CSHARP
from aiserver.dtos.languages.dart import DART
from aiserver.dtos.languages.fsharp import FSHARP
from aiserver.dtos.languages.java import JAVA
from aiserver.dtos.languages.kotlin import KOTLIN
from aiserver.dtos.languages.php import PHP
from aiserver.dtos.languages.python import PYTHON
from aiserver.dtos.languages.swift import SWIFT
from aiserver.dtos.languages.typescript import DECLARATIONS, MJS, TYPESCRIPT
from aiserver.dtos.languages.vbnet import VBNET
from aiserver.dtos.metadata import types_metadata
from aiserver.dtos.options import TypeOptions, parse_type_options, select_types
from aiserver.dtos.table import TABLE
from aiserver.errors import NotFound
from aiserver.wire.render import JSON_TYPE, render

LANGUAGES = (CSHARP, FSHARP, VBNET, TYPESCRIPT, DECLARATIONS, MJS, PYTHON, PHP, DART, JAVA, KOTLIN, SWIFT)


def render_types(name: str, query: Mapping[str, str], base_url: str) -> tuple[bytes, str]:
    """The body and content type of `/types/{name}`; of `/types` for an empty name. Raises: as `language_file`."""
    if not name:
        return render(language_list(base_url)), JSON_TYPE
    if name == "metadata":
        return render(types_metadata(TABLE, base_url)), JSON_TYPE
    language = find_language(name)
    return language_file(language, query, base_url).encode(), language.content_type


def find_language(name: str) -> Language:
    """The language of a path under /types, in any case. Raises: NotFound, which names the languages."""
    for language in LANGUAGES:
        if name.lower() in (language.name, *language.aliases):
            return language
    names = ", ".join(language.name for language in LANGUAGES)
    raise NotFound(f"There are no types for '{name}': use one of {names}")


def language_file(language: Language, query: Mapping[str, str], base_url: str) -> str:
    """The types in a language. Raises: InvalidRequest (options), NotFound (types)."""
    return _render_file(language, parse_type_options(query), base_url)


@lru_cache(maxsize=16)  # files of up to 150 KB, which clients' tools request again
def _render_file(language: Language, options: TypeOptions, base_url: str) -> str:
    return render_file(language, TABLE, select_types(TABLE, options), options, base_url)


def language_list(base_url: str) -> dict[str, str]:
    """The URL of each language's file."""
    return {
        "Metadata": f"{base_url}/types/metadata",
        **{language.label: f"{base_url}/types/{language.name}" for language in LANGUAGES},
    }
