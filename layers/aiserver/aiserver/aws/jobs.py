"""The job store on DynamoDB, with large bodies in S3.

Items of a job share the partition `JOB#<id>`: the job itself (`JOB`), its `REQUEST` and its `RESULT`; a RefId is an
item `REF#<owner>#<refId>`. Each write of state is one conditional call, made from the table of transitions.
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
from aiserver.errors import AiServerError
from aiserver.jobs.job import Job
from aiserver.jobs.ports import ConditionFailed, CreateResult, JobPage
from aiserver.jobs.transitions import AttributeValue, Transition, is_applied

if TYPE_CHECKING:
    from mypy_boto3_dynamodb.client import DynamoDBClient
    from mypy_boto3_s3.client import S3Client

REF_TTL_S = BODY_TTL_S  # a RefId leads to its job for as long as its bodies are kept
PAUSE_S = 0.02
MAX_WRITE_ATTEMPTS = 8  # of a write, each only after it met another one on the same item, or an id that was taken
DUE_PAGE = 100  # of the due index: few enough to be fresh when looked after
BATCH_GET = 100  # BatchGetItem takes no more keys
MAX_PAGE_BATCHES = 3  # batches one page reads: a state that few jobs are in must not have a caller read them all


class DynamoJobs:
    """jobs.ports.JobStore."""

    def __init__(
        self, table: str, bucket: str, dynamodb: "DynamoDBClient", s3: "S3Client | None", new_id: Callable[[], int]
    ) -> None:
        self._table = table
        self._dynamodb = dynamodb
        self._body_store = BodyStore(table, bucket, dynamodb, s3)
        self._new_id = new_id

    def create(self, job: Job, request: bytes, *, now_ms: int, result: bytes | None = None) -> CreateResult:
        lost: int | None = None  # the job a RefId still points at, though it has been deleted
        for attempt in range(MAX_WRITE_ATTEMPTS):
            _pause(attempt)
            token = secrets.token_hex(8)  # the id may turn out to be taken: an object's name is nobody else's
            at, bodies = self._body_store.put(job, "request", token, request)
            job = replace(job, request_location=at)
            if result is not None:
                at, more = self._body_store.put(job, "result", token, result)
                job, bodies = replace(job, result_location=at, result_bytes=len(result)), bodies + more
            reasons = self._transact([*self._create_writes(job, now_ms=now_ms, lost=lost), *bodies])
            if not reasons:
                return CreateResult(job, created=True)
            if ref := reasons[1].get("Item"):
                named = int(unpack(ref)["job_id"])
                there = self.get(named)
                if there and not there.is_past_ttl(now_ms):
                    return CreateResult(there, created=False)
                lost = named
            elif reasons[0].get("Code") == "ConditionalCheckFailed":
                job = replace(job, id=self._new_id())
            elif there := self.find_by_ref_id(job.owner, job.ref_id, now_ms=now_ms):  # met another of the same RefId
                return CreateResult(there, created=False)
        raise AiServerError("The job could not be written")

    def _create_writes(self, job: Job, *, now_ms: int, lost: int | None) -> list[dict[str, Any]]:
        ref = {
            "pk": f"REF#{job.owner}#{job.ref_id}",
            "sk": "REF",
            "job_id": job.id,
            "ttl": job.deadline // 1000 + REF_TTL_S,
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
                    "ExpressionAttributeValues": pack({":now": now_ms // 1000, ":lost": lost or 0}),
                    "ReturnValuesOnConditionCheckFailure": "ALL_OLD",
                }
            },
        ]

    def get(self, job_id: int) -> Job | None:
        found = self._dynamodb.get_item(TableName=self._table, Key=pack(_job_key(job_id)), ConsistentRead=True)
        return Job.from_item(unpack(found["Item"])) if "Item" in found else None

    def find_by_ref_id(self, owner: str, ref_id: str, *, now_ms: int) -> Job | None:
        key = pack({"pk": f"REF#{owner}#{ref_id}", "sk": "REF"})
        found = self._dynamodb.get_item(TableName=self._table, Key=key, ConsistentRead=True)
        if "Item" not in found:
            return None
        ref = unpack(found["Item"])
        job = self.get(ref["job_id"]) if ref["ttl"] > now_ms // 1000 else None
        return None if job is None or job.is_past_ttl(now_ms) else job

    def apply(self, transition: Transition, job_id: int, params: Mapping[str, AttributeValue]) -> Job | ConditionFailed:
        for attempt in range(MAX_WRITE_ATTEMPTS):
            _pause(attempt)
            try:
                answer = self._dynamodb.update_item(
                    TableName=self._table,
                    Key=pack(_job_key(job_id)),
                    ReturnValues="ALL_NEW",
                    **update_arguments(transition, params),
                )
            except self._dynamodb.exceptions.TransactionConflictException:  # boto3 does not try these again
                continue
            except self._dynamodb.exceptions.ConditionalCheckFailedException as error:
                return self._condition_failed(error.response.get("Item"), transition, params)  # pyright: ignore
            return Job.from_item(unpack(answer["Attributes"]))
        raise AiServerError(f"Job {job_id} is being written by others all the time")

    def complete(
        self, transition: Transition, job: Job, params: Mapping[str, AttributeValue], result: bytes
    ) -> ConditionFailed | None:
        token = str(params["lease_token"])  # again the same, when it is written again
        at, bodies = self._body_store.put(job, "result", token, result)
        params = {**params, "result_location": at, "result_bytes": len(result)}
        change = {"TableName": self._table, "Key": pack(_job_key(job.id)), **update_arguments(transition, params)}
        for attempt in range(MAX_WRITE_ATTEMPTS):
            _pause(attempt)
            reasons = self._transact([{"Update": change}, *bodies])
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

    def presigned_url(self, location: str | None, *, seconds: int) -> str | None:
        return self._body_store.presigned_url(location, seconds=seconds)

    def due_jobs(self, shard: str, *, now_ms: int) -> Iterator[tuple[int, int]]:
        more: dict[str, Any] = {}
        while True:
            found = self._dynamodb.query(
                TableName=self._table,
                IndexName="due",
                KeyConditionExpression="due_shard = :shard AND due_at <= :now",
                ExpressionAttributeValues=pack({":shard": shard, ":now": now_ms}),
                Limit=DUE_PAGE,
                **more,
            )
            for item in map(unpack, found["Items"]):
                yield int(item["pk"].removeprefix("JOB#")), item["due_at"]
            if "LastEvaluatedKey" not in found:
                return
            more = {"ExclusiveStartKey": found["LastEvaluatedKey"]}

    def list_page(self, owner: str, *, tag: str | None, state: str | None, take: int, cursor: int | None) -> JobPage:
        jobs: list[Job] = []
        for _ in range(MAX_PAGE_BATCHES):
            ids, more = self._query_owner(owner, tag, cursor)
            for job in self._batch_get(ids):
                if state in (None, job.state):
                    jobs.append(job)
                if len(jobs) == take:
                    return JobPage(jobs, job.id)
            if not more:
                return JobPage(jobs, None)
            cursor = more
        return JobPage(jobs, cursor)

    def _query_owner(self, owner: str, tag: str | None, cursor: int | None) -> tuple[list[int], int | None]:
        asked: dict[str, Any] = {":owner": owner}
        more: dict[str, Any] = {}
        if tag is not None:
            asked[":tag"] = tag
            more |= {"FilterExpression": "#tag = :tag", "ExpressionAttributeNames": {"#owner": "owner", "#tag": "tag"}}
        if cursor is not None:
            more["ExclusiveStartKey"] = pack({**_job_key(cursor), "owner": owner, "id": cursor})
        more.setdefault("ExpressionAttributeNames", {"#owner": "owner"})
        found = self._dynamodb.query(
            TableName=self._table,
            IndexName="by_owner",
            KeyConditionExpression="#owner = :owner",
            ExpressionAttributeValues=pack(asked),
            ScanIndexForward=False,
            Limit=BATCH_GET,
            **more,
        )
        last = found.get("LastEvaluatedKey")
        return [unpack(item)["id"] for item in found["Items"]], unpack(last)["id"] if last else None

    def _batch_get(self, ids: list[int]) -> list[Job]:
        """These jobs, in this order; those that are gone are left out."""
        found: dict[int, Job] = {}
        wanted: dict[str, Any] = {self._table: {"Keys": [pack(_job_key(i)) for i in ids]}} if ids else {}
        while wanted:
            answer = self._dynamodb.batch_get_item(RequestItems=wanted)
            for item in answer["Responses"].get(self._table, []):
                job = Job.from_item(unpack(item))
                found[job.id] = job
            wanted = dict(answer.get("UnprocessedKeys", {}))
        return [found[i] for i in ids if i in found]

    def _transact(self, writes: list[dict[str, Any]]) -> list[Any]:
        """Nothing when it was written, else a reason for each write. Two at once on one item is a reason, too."""
        try:
            self._dynamodb.transact_write_items(TransactItems=writes)  # pyright: ignore[reportArgumentType]
        except ClientError as error:
            if error.response.get("Error", {}).get("Code") != "TransactionCanceledException":
                raise
            return list(error.response["CancellationReasons"])  # pyright: ignore
        return []


def _pause(attempt: int) -> None:
    """Before every try but the first: lets the transaction that was met end."""
    if attempt:
        time.sleep(PAUSE_S * attempt * (1 + random.random()))


def _job_key(job_id: int) -> dict[str, str]:
    return {"pk": f"JOB#{job_id}", "sk": "JOB"}
