"""A job's request and result: items beside it in the table, or, where they are large, objects in S3."""

from typing import TYPE_CHECKING, Any, Literal

from aiserver.aws.items import pack, unpack
from aiserver.errors import AiServerError
from aiserver.jobs.job import Job

if TYPE_CHECKING:
    from mypy_boto3_dynamodb.client import DynamoDBClient
    from mypy_boto3_s3.client import S3Client

Kind = Literal["request", "result"]

INLINE_BYTES = 32 * 1024  # an item is one call less, an object cheaper: docs/decisions/0007
BODY_TTL_S = 60 * 86_400  # after the deadline: 3 days of callbacks, then at most 25 + 30 until the job is forgotten
ITEM = "item"  # where a body is that is no object


class BodyStore:
    """`s3` is None in a function that touches no large ones."""

    def __init__(self, table: str, bucket: str, dynamodb: "DynamoDBClient", s3: "S3Client | None") -> None:
        self._table = table
        self._bucket = bucket
        self._dynamodb = dynamodb
        self._s3 = s3

    def put(self, job: Job, kind: Kind, token: str, body: bytes) -> tuple[str, list[dict[str, Any]]]:
        """Where the body is, and what the transaction that refers to it must write, too.

        An object is written here and now; `token` makes its name nobody else's.
        """
        if len(body) <= INLINE_BYTES:
            item = {**_key(job, kind), "body": body, "ttl": job.deadline // 1000 + BODY_TTL_S}
            return ITEM, [{"Put": {"TableName": self._table, "Item": pack(item)}}]
        if self._s3 is None:
            raise AiServerError("This function writes no large bodies")
        key = f"jobs/{job.id}/{kind}-{token}"
        self._s3.put_object(Bucket=self._bucket, Key=key, Body=body, ContentType="application/json")
        return key, []

    def read(self, job: Job, kind: Kind, location: str) -> bytes | None:
        """None when it is no longer kept."""
        if location == ITEM:
            key = pack(_key(job, kind))
            found = self._dynamodb.get_item(TableName=self._table, Key=key, ConsistentRead=True)
            return bytes(unpack(found["Item"])["body"]) if "Item" in found else None
        if self._s3 is None:
            raise AiServerError("This function reads no large bodies")
        try:
            return self._s3.get_object(Bucket=self._bucket, Key=location)["Body"].read()
        except self._s3.exceptions.NoSuchKey:  # said only to who may list the bucket; others hear 403
            return None

    def presigned_url(self, location: str | None, *, seconds: int) -> str | None:
        """A signed link to an object; None for an item."""
        if location in (None, ITEM) or self._s3 is None:
            return None
        where = {"Bucket": self._bucket, "Key": location, "ResponseContentType": "application/json"}
        return self._s3.generate_presigned_url("get_object", Params=where, ExpiresIn=seconds)


def _key(job: Job, kind: Kind) -> dict[str, str | int | bytes]:
    return {"pk": f"JOB#{job.id}", "sk": kind.upper()}
