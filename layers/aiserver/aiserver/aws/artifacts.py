"""Artifacts as S3 objects."""

from typing import TYPE_CHECKING

from botocore.exceptions import ClientError

from aiserver.artifacts import artifact_key, file_name, file_type

if TYPE_CHECKING:
    from mypy_boto3_s3.client import S3Client

MISSING = ("404", "NoSuchKey", "NotFound")


def put_artifact(s3: "S3Client", bucket: str, *, owner: str, created_at: int, content: bytes, content_type: str) -> str:
    """Store a file and return its key. The same file of the same owner and day is stored once."""
    key = artifact_key(owner, created_at, content, content_type)
    s3.put_object(Bucket=bucket, Key=key, Body=content, ContentType=file_type(key).media_type)
    return key


def presign_artifact(s3: "S3Client", bucket: str, key: str, *, seconds: int, is_head: bool = False) -> str:
    """A presigned URL for GET or HEAD. S3 answers with the type of the extension, and with the file's name."""
    kind = file_type(key)
    disposition = "inline" if kind.is_inline else "attachment"
    params = {
        "Bucket": bucket,
        "Key": key,
        "ResponseContentType": kind.media_type,
        "ResponseContentDisposition": f'{disposition}; filename="{file_name(key)}"',
    }
    return s3.generate_presigned_url("head_object" if is_head else "get_object", Params=params, ExpiresIn=seconds)


class S3Artifacts:
    """Implements usecases.media_outputs.ArtifactStore."""

    def __init__(self, bucket: str, s3: "S3Client") -> None:
        self._bucket = bucket
        self._s3 = s3

    def put(self, owner: str, created_at: int, content: bytes, content_type: str) -> str:
        return put_artifact(
            self._s3, self._bucket, owner=owner, created_at=created_at, content=content, content_type=content_type
        )

    def link(self, key: str, *, seconds: int, is_head: bool = False) -> str | None:
        """A presigned URL for GET or HEAD; None if the file is missing."""
        try:
            self._s3.head_object(Bucket=self._bucket, Key=key)
        except ClientError as error:
            if error.response.get("Error", {}).get("Code") in MISSING:
                return None
            raise
        return presign_artifact(self._s3, self._bucket, key, seconds=seconds, is_head=is_head)
