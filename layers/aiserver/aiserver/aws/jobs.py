"""The job store in DynamoDB, with large bodies in S3.

The items of a job share the partition `JOB#<id>`: the job itself (`JOB`), its `REQUEST` and its `RESULT`. A RefId is
an item `REF#<owner>#<refId>`. Each change of state is one conditional write, generated from the transition table.
"""

import random
import secrets
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from botocore.exceptions import ClientError

from aiserver.aws.bodies import BODY_TTL_S, BodyStore
from aiserver.aws.items import Item, pack, unpack, update_arguments
from aiserver.clock import MAX_JOB_ID, job_id
from aiserver.errors import AiServerError
from aiserver.jobs.job import Job
from aiserver.jobs.ports import ANY_JOB, ConditionFailed, CreateResult, JobFilter, JobPage
from aiserver.jobs.transitions import AttributeValue, Transition, is_applied
from aiserver.wire.render import JSON_MEDIA_TYPE

if TYPE_CHECKING:
    from mypy_boto3_dynamodb.client import DynamoDBClient
    from mypy_boto3_s3.client import S3Client

REF_ID_TTL_S = BODY_TTL_S  # a RefId finds its job for as long as the bodies are stored
PAUSE_S = 0.02
MAX_WRITE_ATTEMPTS = 8  # each after a conflict with another write on the same item, or an id that is in use
DUE_PAGE = 100  # of the due index: small enough to be current when processed
BATCH_GET = 100  # the most keys that BatchGetItem accepts
MAX_RECORD_DELAY_MS = 20 * 60 * 1000  # from a synchronous request, at most 15 minutes long, to the id of its job
MAX_PAGE_BATCHES = 3  # batches read for one page, so that a filter for a rare state does not read every job


class DynamoJobs:
    """Implements jobs.ports.JobStore."""

    def __init__(
        self, table: str, bucket: str, dynamodb: "DynamoDBClient", s3: "S3Client | None", new_id: Callable[[], int]
    ) -> None:
        self._table = table
        self._dynamodb = dynamodb
        self._body_store = BodyStore(table, bucket, dynamodb, s3)
        self._new_id = new_id

    def create(self, job: Job, request: bytes, *, now_ms: int, result: bytes | None = None) -> CreateResult:
        deleted_id: int | None = None  # a deleted job that the RefId still refers to
        for attempt in range(MAX_WRITE_ATTEMPTS):
            _pause(attempt)
            token = secrets.token_hex(8)  # makes the key of an object unique, because the id may be in use
            location, body_writes = self._body_store.put(job, "request", token, request)
            job = replace(job, request_location=location)
            if result is not None:
                location, result_writes = self._body_store.put(job, "result", token, result, job.result_type)
                job = replace(job, result_location=location, result_bytes=len(result))
                body_writes += result_writes
            reasons = self._transact([*self._create_writes(job, now_ms=now_ms, deleted_id=deleted_id), *body_writes])
            if not reasons:
                return CreateResult(job, created=True)
            if ref := reasons[1].get("Item"):
                existing_id = int(unpack(ref)["job_id"])
                existing = self.get(existing_id)
                if existing and not existing.is_past_ttl(now_ms):
                    return CreateResult(existing, created=False)
                deleted_id = existing_id
            elif reasons[0].get("Code") == "ConditionalCheckFailed":
                job = replace(job, id=self._new_id())
            elif existing := self.find_by_ref_id(job.owner, job.ref_id, now_ms=now_ms):  # a concurrent create won
                return CreateResult(existing, created=False)
        raise AiServerError("The job could not be written")

    def _create_writes(self, job: Job, *, now_ms: int, deleted_id: int | None) -> list[dict[str, Any]]:
        ref = {
            "pk": f"REF#{job.owner}#{job.ref_id}",
            "sk": "REF",
            "job_id": job.id,
            "ttl": job.deadline // 1000 + REF_ID_TTL_S,
        }
        return [
            {
                "Put": {
                    "TableName": self._table,
                    "Item": pack({**_job_key(job.id), **job.to_item()}),
                    "ConditionExpression": "attribute_not_exists(pk)",
                }
            },
            {
                "Put": {
                    "TableName": self._table,
                    "Item": pack(ref),
                    "ConditionExpression": "attribute_not_exists(pk) OR #ttl <= :now OR job_id = :lost",
                    "ExpressionAttributeNames": {"#ttl": "ttl"},
                    "ExpressionAttributeValues": pack({":now": now_ms // 1000, ":lost": deleted_id or 0}),
                    "ReturnValuesOnConditionCheckFailure": "ALL_OLD",
                }
            },
        ]

    def get(self, job_id: int) -> Job | None:
        response = self._dynamodb.get_item(TableName=self._table, Key=pack(_job_key(job_id)), ConsistentRead=True)
        return Job.from_item(unpack(response["Item"])) if "Item" in response else None

    def find_by_ref_id(self, owner: str, ref_id: str, *, now_ms: int) -> Job | None:
        key = pack({"pk": f"REF#{owner}#{ref_id}", "sk": "REF"})
        response = self._dynamodb.get_item(TableName=self._table, Key=key, ConsistentRead=True)
        if "Item" not in response:
            return None
        ref = unpack(response["Item"])
        job = self.get(ref["job_id"]) if ref["ttl"] > now_ms // 1000 else None
        return None if job is None or job.is_past_ttl(now_ms) else job

    def apply(self, transition: Transition, job_id: int, params: Mapping[str, AttributeValue]) -> Job | ConditionFailed:
        for attempt in range(MAX_WRITE_ATTEMPTS):
            _pause(attempt)
            try:
                response = self._dynamodb.update_item(
                    TableName=self._table,
                    Key=pack(_job_key(job_id)),
                    ReturnValues="ALL_NEW",
                    **update_arguments(transition, params),
                )
            except self._dynamodb.exceptions.TransactionConflictException:  # boto3 does not retry these
                continue
            except self._dynamodb.exceptions.ConditionalCheckFailedException as error:
                return self._condition_failed(error.response.get("Item"), transition, params)  # pyright: ignore
            return Job.from_item(unpack(response["Attributes"]))
        raise AiServerError(f"Job {job_id}: too many concurrent updates")

    def complete(
        self, transition: Transition, job: Job, params: Mapping[str, AttributeValue], result: bytes
    ) -> ConditionFailed | None:
        token = str(params["lease_token"])  # a repeated write uses the same object key
        content_type = str(params["result_type"]) if params["result_type"] else None
        location, body_writes = self._body_store.put(job, "result", token, result, content_type)
        params = {**params, "result_location": location, "result_bytes": len(result)}
        change = {"TableName": self._table, "Key": pack(_job_key(job.id)), **update_arguments(transition, params)}
        for attempt in range(MAX_WRITE_ATTEMPTS):
            _pause(attempt)
            reasons = self._transact([{"Update": change}, *body_writes])
            if not reasons:
                return None
            if reasons[0].get("Code") == "ConditionalCheckFailed":
                outcome = self._condition_failed(reasons[0].get("Item"), transition, params)
                return outcome if isinstance(outcome, ConditionFailed) else None
        raise AiServerError("The result could not be written")

    def _condition_failed(
        self, item: Item | None, transition: Transition, params: Mapping[str, AttributeValue]
    ) -> Job | ConditionFailed:
        if item is None:
            return ConditionFailed(None)
        job = Job.from_item(unpack(item))
        return job if is_applied(transition, vars(job), params) else ConditionFailed(job)

    def read_request(self, job: Job) -> bytes | None:
        return self._body_store.read(job, "request", job.request_location)

    def read_result(self, job: Job) -> bytes | None:
        return self._body_store.read(job, "result", job.result_location) if job.result_location else None

    def presigned_url(self, location: str | None, *, seconds: int, content_type: str | None = None) -> str | None:
        return self._body_store.presigned_url(location, seconds=seconds, content_type=content_type or JSON_MEDIA_TYPE)

    def due_jobs(self, shard: str, *, now_ms: int) -> Iterator[tuple[int, int]]:
        start: dict[str, Any] = {}
        while True:
            page = self._dynamodb.query(
                TableName=self._table,
                IndexName="due",
                KeyConditionExpression="due_shard = :shard AND due_at <= :now",
                ExpressionAttributeValues=pack({":shard": shard, ":now": now_ms}),
                Limit=DUE_PAGE,
                **start,
            )
            for item in map(unpack, page["Items"]):
                yield int(item["pk"].removeprefix("JOB#")), item["due_at"]
            if "LastEvaluatedKey" not in page:
                return
            start = {"ExclusiveStartKey": page["LastEvaluatedKey"]}

    def list_page(self, owner: str, filter: JobFilter = ANY_JOB, *, take: int, cursor: int | None = None) -> JobPage:
        jobs: list[Job] = []
        for _ in range(MAX_PAGE_BATCHES):
            ids, next_cursor = self._query_owner(owner, filter, cursor)
            for job in self._batch_get(ids):
                if filter.includes(job):
                    jobs.append(job)
                if len(jobs) == take:
                    return JobPage(jobs, job.id)
            if not next_cursor:
                return JobPage(jobs, None)
            cursor = next_cursor
        return JobPage(jobs, cursor)

    def _query_owner(self, owner: str, filter: JobFilter, cursor: int | None) -> tuple[list[int], int | None]:
        """The ids of one batch of the owner's jobs, newest first, and the cursor of the next batch."""
        first, last = _id_range(filter, cursor)
        if first > last:
            return [], None
        names = {"#owner": "owner", "#id": "id"}
        operands: dict[str, str | int] = {":owner": owner, ":first": first, ":last": last}
        arguments: dict[str, Any] = {}
        if filter.tag is not None:
            names["#tag"], operands[":tag"] = "tag", filter.tag
            arguments["FilterExpression"] = "#tag = :tag"
        page = self._dynamodb.query(
            TableName=self._table,
            IndexName="by_owner",
            KeyConditionExpression="#owner = :owner AND #id BETWEEN :first AND :last",
            ExpressionAttributeNames=names,
            ExpressionAttributeValues=pack(operands),
            ScanIndexForward=False,
            Limit=BATCH_GET,
            **arguments,
        )
        ids = [unpack(item)["id"] for item in page["Items"]]
        end = page.get("LastEvaluatedKey")
        return ids, unpack(end)["id"] if end else None

    def _batch_get(self, ids: list[int]) -> list[Job]:
        """The jobs with these ids, in the same order; deleted ones are omitted."""
        jobs: dict[int, Job] = {}
        unread: dict[str, Any] = {self._table: {"Keys": [pack(_job_key(i)) for i in ids]}} if ids else {}
        while unread:
            response = self._dynamodb.batch_get_item(RequestItems=unread)
            for item in response["Responses"].get(self._table, []):
                job = Job.from_item(unpack(item))
                jobs[job.id] = job
            unread = dict(response.get("UnprocessedKeys", {}))
        return [jobs[i] for i in ids if i in jobs]

    def _transact(self, writes: list[dict[str, Any]]) -> list[Any]:
        """[] when all were written, else one cancellation reason per write; a conflict on an item is also a reason."""
        try:
            self._dynamodb.transact_write_items(TransactItems=writes)  # pyright: ignore[reportArgumentType]
        except ClientError as error:
            if error.response.get("Error", {}).get("Code") != "TransactionCanceledException":
                raise
            return list(error.response["CancellationReasons"])  # pyright: ignore
        return []


def _pause(attempt: int) -> None:
    """Before every attempt except the first, so that the conflicting transaction can end."""
    if attempt:
        time.sleep(PAUSE_S * attempt * (1 + random.random()))


def _id_range(filter: JobFilter, cursor: int | None) -> tuple[int, int]:
    """The lowest and the highest id of a page: an id contains the time of its first write."""
    first = 0 if filter.since_ms is None else job_id(filter.since_ms)
    last = MAX_JOB_ID if filter.until_ms is None else job_id(filter.until_ms + MAX_RECORD_DELAY_MS)
    return max(0, first), min(last, MAX_JOB_ID if cursor is None else cursor - 1)


def _job_key(job_id: int) -> dict[str, str]:
    return {"pk": f"JOB#{job_id}", "sk": "JOB"}
