"""The stores of the contract suite: the in-memory fake, and DynamoDB in moto and in MiniStack."""

from collections.abc import Iterator
from functools import cache
from typing import Any

import pytest

from aiserver.api_keys import KeyStore
from aiserver.aws.config import DynamoConfig
from aiserver.aws.jobs import DynamoJobs
from aiserver.jobs.ports import JobStore
from local import aws
from local.template import read_template
from tests import moto_stack
from tests.fakes import FakeClock, FakeJobs, FakeKeyStore


def table_properties(logical_id: str = "JobsTable") -> dict[str, Any]:
    """Return the properties of a table in the template, without those that moto does not support."""
    properties = dict(read_template().transformed["Resources"][logical_id]["Properties"])
    for name in moto_stack.UNSUPPORTED_PROPERTIES:
        properties.pop(name, None)
    return properties | {"TableName": logical_id.removesuffix("Table").lower()}


def dynamo_jobs(dynamodb: Any, s3: Any, clock: FakeClock) -> DynamoJobs:
    dynamodb.create_table(**table_properties())
    s3.create_bucket(Bucket="bodies")
    return DynamoJobs("jobs", "bodies", dynamodb, s3, clock.job_id)


@pytest.fixture
def clock() -> FakeClock:
    return FakeClock()


@pytest.fixture(params=["fake", "moto", "ministack"])
def jobs(request: pytest.FixtureRequest, clock: FakeClock) -> Iterator[JobStore]:
    if request.param == "fake":
        yield FakeJobs(clock)
    elif request.param == "moto":
        with moto_stack.mock_aws():
            yield dynamo_jobs(moto_stack.client("dynamodb"), moto_stack.client("s3"), clock)
    else:
        yield request.getfixturevalue("ministack_jobs")


@cache
def ministack_clients(endpoint_url: str) -> tuple[Any, Any]:
    return aws.client("dynamodb", endpoint_url), aws.client("s3", endpoint_url)


@pytest.fixture
def ministack_jobs(ministack: str, clock: FakeClock) -> Iterator[JobStore]:
    dynamodb, s3 = ministack_clients(ministack)
    yield dynamo_jobs(dynamodb, s3, clock)
    dynamodb.delete_table(TableName="jobs")


def dynamo_config(dynamodb: Any) -> DynamoConfig:
    dynamodb.create_table(**table_properties("ConfigTable"))
    return DynamoConfig("config", dynamodb)


@pytest.fixture
def moto_config() -> Iterator[DynamoConfig]:
    with moto_stack.mock_aws():
        yield dynamo_config(moto_stack.client("dynamodb"))


@pytest.fixture
def ministack_config(ministack: str) -> Iterator[DynamoConfig]:
    dynamodb, _ = ministack_clients(ministack)
    yield dynamo_config(dynamodb)
    dynamodb.delete_table(TableName="config")


@pytest.fixture(params=["fake", "moto", "ministack"])
def key_store(request: pytest.FixtureRequest) -> KeyStore:
    return FakeKeyStore() if request.param == "fake" else request.getfixturevalue(f"{request.param}_config")
