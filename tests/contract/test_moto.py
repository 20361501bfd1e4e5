"""moto as the tests use it: its calls do not overlap, as if each were DynamoDB's own atomic write."""

import threading
from concurrent.futures import ThreadPoolExecutor
from typing import Any
from unittest import mock

from moto.dynamodb.models import DynamoDBBackend

from tests import moto_stack
from tests.contract.conftest import table_properties

MEETING_S = 0.5  # for which a call waits within moto for another to come in


def test_calls_of_many_threads_to_moto_are_made_one_at_a_time() -> None:
    meeting, met = threading.Barrier(2), threading.Event()
    get_item = DynamoDBBackend.get_item

    def slow(backend: Any, *given: Any, **more: Any) -> Any:
        try:
            meeting.wait(MEETING_S)
            met.set()
        except threading.BrokenBarrierError:  # nobody came: as it should be
            pass
        return get_item(backend, *given, **more)

    def read(_: int) -> Any:
        key = {"pk": {"S": "a"}, "sk": {"S": "b"}}
        return moto_stack.client("dynamodb").get_item(TableName="jobs", Key=key)

    with moto_stack.mock_aws():
        moto_stack.client("dynamodb").create_table(**table_properties())
        with mock.patch.object(DynamoDBBackend, "get_item", slow), ThreadPoolExecutor(2) as pool:
            list(pool.map(read, range(2)))
    assert not met.is_set()
