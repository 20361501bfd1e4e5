"""Storage of a job's request and result: small bodies as items of the table, large ones and files as S3 objects."""

from typing import TYPE_CHECKING, Any, Literal

from aiserver.aws.items import pack, unpack
from aiserver.errors import AiServerError
from aiserver.jobs.job import FILE_PREFIX, Job
from aiserver.wire.media_types import is_file

if TYPE_CHECKING:
    from mypy_boto3_dynamodb.client import DynamoDBClient
    from mypy_boto3_s3.client import S3Client

Kind = Literal["request", "result"]

MAX_ITEM_BODY_BYTES = 32 * 1024  # an item saves one call, an object is cheaper: docs/decisions/0007
BODY_TTL_S = 60 * 86_400  # after the deadline: 3 days of callbacks, then at most 25 + 30 until the job is deleted
ITEM = "item"  # the location of a body stored in the table


class BodyStore:
    """Stores and reads bodies; `s3` is None in a function that does not use large bodies."""

    def __init__(self, table: str, bucket: str, dynamodb: "DynamoDBClient", s3: "S3Client | None") -> None:
        self._table = table
        self._bucket = bucket
        self._dynamodb = dynamodb
        self._s3 = s3

    def put(
        self, job: Job, kind: Kind, token: str, body: bytes, content_type: str | None = None
    ) -> tuple[str, list[dict[str, Any]]]:
        """The location of the body, and the writes to add to the transaction that refers to it.

        A large body is written to S3 before this returns; `token` makes its key unique. A result that is not text is an
        artifact, whatever its size. `content_type` is None for JSON.
        """
        is_artifact = kind == "result" and is_file(content_type)
        if len(body) <= MAX_ITEM_BODY_BYTES and not is_artifact:
            item = {**_key(job, kind), "body": body, "ttl": job.deadline // 1000 + BODY_TTL_S}
            return ITEM, [{"Put": {"TableName": self._table, "Item": pack(item)}}]
        if self._s3 is None:
            raise AiServerError("This function cannot write large bodies: it has no S3 client")
        if is_artifact:
            from aiserver.aws.artifacts import put_artifact  # functions without files start faster without it

            key = put_artifact(
                self._s3,
                self._bucket,
                owner=job.owner,
                created_at=job.created_at,
                content=body,
                content_type=content_type or "",
            )
            return key, []
        key = f"jobs/{job.id}/{kind}-{token}"
        self._s3.put_object(Bucket=self._bucket, Key=key, Body=body)
        return key, []

    def read(self, job: Job, kind: Kind, location: str) -> bytes | None:
        """The body; None when it is no longer stored."""
        if location == ITEM:
            key = pack(_key(job, kind))
            response = self._dynamodb.get_item(TableName=self._table, Key=key, ConsistentRead=True)
            return bytes(unpack(response["Item"])["body"]) if "Item" in response else None
        if self._s3 is None:
            raise AiServerError("This function cannot read large bodies: it has no S3 client")
        try:
            return self._s3.get_object(Bucket=self._bucket, Key=location)["Body"].read()
        except self._s3.exceptions.NoSuchKey:  # needs the permission to list the bucket; without it S3 returns 403
            return None

    def presigned_url(self, location: str | None, *, seconds: int, content_type: str) -> str | None:
        """A signed URL of an S3 object; None for an item."""
        if location is None or location == ITEM or self._s3 is None:
            return None
        if location.startswith(FILE_PREFIX):
            from aiserver.aws.artifacts import presign_artifact

            return presign_artifact(self._s3, self._bucket, location, seconds=seconds)
        params = {"Bucket": self._bucket, "Key": location, "ResponseContentType": content_type}
        return self._s3.generate_presigned_url("get_object", Params=params, ExpiresIn=seconds)


def _key(job: Job, kind: Kind) -> dict[str, str | int | bytes]:
    return {"pk": f"JOB#{job.id}", "sk": kind.upper()}
