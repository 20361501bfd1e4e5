"""moto as the tests use it: its calls do not overlap, so that each is atomic like a DynamoDB write."""

import threading
from concurrent.futures import ThreadPoolExecutor
from typing import Any
from unittest import mock

from moto.dynamodb.models import DynamoDBBackend

from tests import moto_stack
from tests.contract.conftest import table_properties

OVERLAP_WAIT_S = 0.5  # how long a call within moto waits for another to overlap


def test_calls_of_many_threads_to_moto_are_serialized() -> None:
    barrier, overlapped = threading.Barrier(2), threading.Event()
    get_item = DynamoDBBackend.get_item

    def slow(backend: Any, *args: Any, **kwargs: Any) -> Any:
        try:
            barrier.wait(OVERLAP_WAIT_S)
            overlapped.set()
        except threading.BrokenBarrierError:  # no overlap, as expected
            pass
        return get_item(backend, *args, **kwargs)

    def read(_: int) -> Any:
        key = {"pk": {"S": "a"}, "sk": {"S": "b"}}
        return moto_stack.client("dynamodb").get_item(TableName="jobs", Key=key)

    with moto_stack.mock_aws():
        moto_stack.client("dynamodb").create_table(**table_properties())
        with mock.patch.object(DynamoDBBackend, "get_item", slow), ThreadPoolExecutor(2) as pool:
            list(pool.map(read, range(2)))
    assert not overlapped.is_set()
