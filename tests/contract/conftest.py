"""The stores of the contract suite: the in-memory fake, DynamoDB as moto plays it, and as MiniStack does."""

from collections.abc import Iterator
from typing import Any

import boto3
import moto
import pytest

from aiserver.aws.jobs import DynamoJobs
from aiserver.jobs.ports import JobStore
from local import aws
from local.template import read_template
from tests.fakes import FakeClock, FakeJobs


def table_properties() -> dict[str, Any]:
    """The jobs table as the template declares it."""
    properties = dict(read_template().transformed["Resources"]["JobsTable"]["Properties"])
    for later in ("PointInTimeRecoverySpecification", "TimeToLiveSpecification", "StreamSpecification"):
        properties.pop(later)
    return properties | {"TableName": "jobs"}


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
        with moto.mock_aws():
            credentials = {"aws_access_key_id": "test", "aws_secret_access_key": "test", "region_name": "us-east-1"}
            yield dynamo_jobs(boto3.client("dynamodb", **credentials), boto3.client("s3", **credentials), clock)
    else:
        yield request.getfixturevalue("ministack_jobs")


@pytest.fixture
def ministack_jobs(ministack: str, clock: FakeClock) -> Iterator[JobStore]:
    dynamodb, s3 = aws.client("dynamodb", ministack), aws.client("s3", ministack)
    yield dynamo_jobs(dynamodb, s3, clock)
    dynamodb.delete_table(TableName="jobs")
