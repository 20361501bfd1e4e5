"""The vendors that are translated, as tests know them: one more is one line."""

from tests.vendors.anthropic import AnthropicDialect
from tests.vendors.dialect import Dialect

DIALECTS: list[Dialect] = [AnthropicDialect()]


def name(dialect: Dialect) -> str:
    return dialect.type
