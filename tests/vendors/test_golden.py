"""The twenty conversations are what they were: whoever changes one sees it in golden/."""

import json

import pytest

from tests.vendors.conversations import CONVERSATIONS, Conversation
from tests.vendors.dialect import Dialect
from tests.vendors.dialects import DIALECTS, name
from tests.vendors.golden import FOLDER, made, place


@pytest.mark.parametrize("conversation", CONVERSATIONS, ids=lambda conversation: conversation.name)
@pytest.mark.parametrize("dialect", DIALECTS, ids=name)
def test_a_conversation_is_translated_as_it_was(dialect: Dialect, conversation: Conversation) -> None:
    assert made(dialect, conversation) == json.loads(place(dialect, conversation).read_text())


def test_each_file_belongs_to_a_conversation() -> None:
    expected = {place(dialect, conversation) for dialect in DIALECTS for conversation in CONVERSATIONS}
    assert set(FOLDER.rglob("*.json")) == expected
