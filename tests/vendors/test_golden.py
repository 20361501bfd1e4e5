"""The twenty conversations are translated as recorded in golden/."""

import json

import pytest

from tests.vendors.conversations import CONVERSATIONS, Conversation
from tests.vendors.dialect import Dialect
from tests.vendors.dialects import DIALECTS, dialect_type
from tests.vendors.golden import FOLDER, build_golden, golden_path


@pytest.mark.parametrize("conversation", CONVERSATIONS, ids=lambda conversation: conversation.name)
@pytest.mark.parametrize("dialect", DIALECTS, ids=dialect_type)
def test_conversation_matches_its_golden_file(dialect: Dialect, conversation: Conversation) -> None:
    assert build_golden(dialect, conversation) == json.loads(golden_path(dialect, conversation).read_text())


def test_each_golden_file_belongs_to_a_conversation() -> None:
    expected = {golden_path(dialect, conversation) for dialect in DIALECTS for conversation in CONVERSATIONS}
    assert set(FOLDER.rglob("*.json")) == expected
