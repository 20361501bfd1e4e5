"""The vendors that are translated, as tests know them: one more is one line."""

from tests.vendors.anthropic import AnthropicDialect
from tests.vendors.bedrock import BedrockDialect
from tests.vendors.dialect import Dialect
from tests.vendors.google import GoogleDialect

DIALECTS: list[Dialect] = [AnthropicDialect(), GoogleDialect(), BedrockDialect()]


def name(dialect: Dialect) -> str:
    return dialect.type
