"""What a provider has by its preset, and that each row of the catalogue is whole."""

import re

import pytest
from pydantic import ValidationError

from aiserver.providers.catalogue import CATALOGUE, UNKNOWN
from aiserver.providers.provider import Provider


def provider(**more: object) -> Provider:
    return Provider.model_validate({"name": "p", "models": {"m": ""}} | more)


def written_out(base_url: str) -> str:
    """The base URL as an operator of the row writes it."""
    return re.sub(r"{\w+}", "8000", base_url)


@pytest.mark.parametrize("preset", CATALOGUE)
def test_a_preset_says_what_its_operator_does_not(preset: str) -> None:
    row = CATALOGUE[preset]
    given = {"base_url": written_out(row.base_url)} if "{" in row.base_url else {}
    made = provider(preset=preset, **given)
    assert made.base_url == written_out(row.base_url)
    assert (made.queue, made.auth_header, made.operations) == (row.queue, row.auth_header, row.operations)
    assert made.row is row


@pytest.mark.parametrize("preset", [name for name, row in CATALOGUE.items() if "{" in row.base_url])
def test_a_part_of_the_base_url_that_only_the_operator_knows_is_asked_for(preset: str) -> None:
    with pytest.raises(ValidationError, match="needs a base_url, as in"):
        provider(preset=preset)


def test_what_the_operator_says_stands_before_the_preset() -> None:
    said = {"base_url": "http://x/v1", "queue": "hosted", "auth_header": "x-key", "operations": ["embeddings"]}
    made = provider(preset="ollama", **said)
    assert made.model_dump(include=set(said), mode="json") == said


def test_a_preset_that_nobody_knows_means_nothing() -> None:
    made = provider(preset="of-next-year", base_url="http://x/v1")
    assert made == provider(preset="of-next-year", base_url="http://x/v1", **UNKNOWN.defaults)
    assert made.row is UNKNOWN


def test_every_fact_of_the_catalogue_names_its_source() -> None:
    rows = CATALOGUE.values()
    sources = [row.source for row in rows] + [fact.source for row in rows for fact in (*row.refusals, *row.quirks)]
    assert all(re.fullmatch(r"https://[\w.-]+/\S*", source) for source in sources)
