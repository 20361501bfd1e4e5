"""Tests that share a running cloud run in one worker. Grouping fails silently with incompatible versions."""

import os

import pytest

pytestmark = pytest.mark.xdist_group("a-group")


@pytest.mark.skipif("PYTEST_XDIST_WORKER" not in os.environ, reason="one process runs all tests")
def test_workers_receive_the_group_of_a_test(request: pytest.FixtureRequest) -> None:
    assert request.node.nodeid.endswith("@a-group")
