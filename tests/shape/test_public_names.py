"""No public name is removed or renamed: `python -m tests.public_names` records new ones."""

import json

import pytest

from tests import public_names

RECORDED = json.loads(public_names.FILE.read_text())


@pytest.mark.parametrize("kind", RECORDED)
def test_no_public_name_is_removed(kind: str) -> None:
    assert set(RECORDED[kind]) - set(public_names.names()[kind]) == set()


def test_new_public_names_are_recorded() -> None:
    assert public_names.names() == RECORDED
