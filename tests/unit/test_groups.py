"""Tests that share a running cloud run in one worker: grouping them fails silently where versions do not fit."""

import os

import pytest

pytestmark = pytest.mark.xdist_group("a-group")


@pytest.mark.skipif("PYTEST_XDIST_WORKER" not in os.environ, reason="one process runs all tests")
def test_workers_are_told_the_group_of_a_test(request: pytest.FixtureRequest) -> None:
    assert request.node.nodeid.endswith("@a-group")
