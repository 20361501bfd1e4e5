"""Conversion of Python values to DynamoDB attribute values, and back."""

from decimal import Decimal
from typing import Any

import pytest

from aiserver.aws.items import pack, unpack


def test_supported_values_survive_a_round_trip() -> None:
    values = {"text": "é", "empty": "", "number": -7, "large": 2**60, "bytes": b"\x00\xff"}
    assert unpack(pack(values)) == values


@pytest.mark.parametrize("value", [None, True, 1.5, Decimal(1), [], {}, ("a",)])
def test_unsupported_value_is_rejected(value: Any) -> None:
    with pytest.raises(TypeError, match=type(value).__name__):
        pack({"attribute": value})
