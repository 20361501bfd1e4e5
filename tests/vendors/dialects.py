"""The dialects of all vendors with an adapter: add one line per vendor."""

from tests.vendors.anthropic import AnthropicDialect
from tests.vendors.bedrock import BedrockDialect
from tests.vendors.dialect import Dialect
from tests.vendors.google import GoogleDialect

DIALECTS: list[Dialect] = [AnthropicDialect(), GoogleDialect(), BedrockDialect()]


def dialect_type(dialect: Dialect) -> str:
    return dialect.type
