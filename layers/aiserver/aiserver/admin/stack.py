"""Connect to a stack's tables and queues; manage its API keys and webhook secrets."""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import boto3
from botocore.exceptions import BotoCoreError, ClientError

from aiserver import api_keys
from aiserver.api_keys import ApiKey, WebhookSecrets
from aiserver.aws.circuits import DynamoCircuits
from aiserver.aws.config import DynamoConfig
from aiserver.aws.jobs import DynamoJobs
from aiserver.aws.leases import DynamoConcurrencyLeases
from aiserver.aws.messages import SqsMessageSender
from aiserver.circuit_breaker.circuit import CircuitStore
from aiserver.clock import Clock, SystemClock
from aiserver.concurrency import ConcurrencyLeaseStore
from aiserver.jobs.ports import JobStore, MessageSender
from aiserver.webhooks.url_policy import host_pattern
from aiserver.wire.render import format_iso

if TYPE_CHECKING:
    from mypy_boto3_ssm.client import SSMClient

HOUR_MS = 3_600_000
DAY_MS = 24 * HOUR_MS
MAX_OVERLAP_HOURS = 30 * 24  # a previous secret that signs for more than a month would defeat the rotation
MAX_UPDATE_TRIES = 5  # of a key update; each retry follows a concurrent update


AWS_ERRORS = (ClientError, BotoCoreError)


class AdminError(Exception):
    """An error for the operator to correct; printed as one line."""


@dataclass(frozen=True)
class Admin:
    """A stack's stores and clients, and the operations on its API keys."""

    stack: str
    config: DynamoConfig
    ssm: "SSMClient"
    jobs: JobStore
    messages: MessageSender
    clock: Clock
    circuits: CircuitStore
    leases: ConcurrencyLeaseStore

    def create_key(
        self, name: str, *, expires_days: int | None = None, callback_hosts: Iterable[str] = ()
    ) -> dict[str, Any]:
        """A new key: its id, text and webhook secret. The text is not stored.

        Raises: AdminError, when an option is not valid.
        """
        if expires_days is not None and expires_days < 1:
            raise AdminError("--expires-days must be at least 1")
        now = self.clock.now_ms()
        expires_at = now + expires_days * DAY_MS if expires_days else None
        hosts = _patterns(callback_hosts)
        text, key, secrets = api_keys.create_key(name, now_ms=now, expires_at=expires_at, callback_hosts=hosts)
        self.config.put_key(key, secrets)
        return {"id": key.id, "name": name, "key": text, "webhookSecret": secrets.current}

    def list_keys(self) -> list[dict[str, Any]]:
        return [
            {
                "id": key.id,
                "name": key.name,
                "created": format_iso(key.created_at),
                "expires": format_iso(key.expires_at),
                "revoked": format_iso(key.revoked_at),
                "callbackHosts": list(key.callback_hosts),
            }
            for key in sorted(self.config.keys(), key=lambda key: key.created_at)
        ]

    def revoke_key(self, key_id: str) -> dict[str, Any]:
        """Revoke a key; containers that have cached it reject it within 30 s.

        Raises: AdminError, when the key does not exist.
        """
        now = self.clock.now_ms()
        key = self._update_key(key_id, lambda key: replace(key, revoked_at=key.revoked_at or now))
        return {"id": key.id, "name": key.name, "revoked": format_iso(key.revoked_at)}

    def show_secret(self, key_id: str) -> dict[str, Any]:
        """The secrets that sign the key's callbacks now. Raises: AdminError, when the key does not exist."""
        return self._secret_view(self._key(key_id), self._secrets(key_id))

    def rotate_artifact_secret(self, *, overlap_hours: int) -> dict[str, Any]:
        """A new secret for the URLs of artifacts; URLs signed with the current one work until the overlap ends.

        Raises: AdminError, when the secret is being rotated.
        """
        if not 0 <= overlap_hours <= MAX_OVERLAP_HOURS:
            raise AdminError(f"--overlap-hours must be 0 to {MAX_OVERLAP_HOURS}")
        now, stored = self.clock.now_ms(), self.config.artifact_secrets()
        if stored is None:
            return {"rotated": False, "note": "no URL has been signed yet"}
        if overlap_hours and len(stored.active(now)) > 1:
            raise AdminError(
                f"the secret is being rotated: URLs signed with the previous one work until "
                f"{format_iso(stored.previous_until)}; wait until then, or end it now with --overlap-hours 0"
            )
        new = stored.rotate(now_ms=now, overlap_ms=overlap_hours * HOUR_MS)
        if not self.config.replace_artifact_secrets(stored, new):
            raise AdminError("the secret was changed by someone else at the same time; try again")
        return {"rotated": True, "previousUntil": format_iso(new.previous_until)}

    def rotate_secret(self, key_id: str, *, overlap_hours: int) -> dict[str, Any]:
        """A new webhook secret; the previous secret also signs until the overlap ends.

        Raises: AdminError, when the key is unknown, revoked or being rotated.
        """
        if not 0 <= overlap_hours <= MAX_OVERLAP_HOURS:
            raise AdminError(f"--overlap-hours must be 0 to {MAX_OVERLAP_HOURS}")
        now = self.clock.now_ms()
        for _ in range(MAX_UPDATE_TRIES):
            self._move_secrets(key_id)
            key, secrets = self._key(key_id), self._secrets(key_id)
            if key.revoked_at is not None:
                raise AdminError(f"key {key_id} is revoked; create a new key instead")
            if overlap_hours and len(secrets.active(now)) > 1:
                until = format_iso(secrets.previous_until)
                raise AdminError(
                    f"key {key_id} is being rotated: its previous secret signs until {until}; "
                    "wait until then, or replace both secrets now with --overlap-hours 0"
                )
            new = secrets.rotate(now_ms=now, overlap_ms=overlap_hours * HOUR_MS)
            if self.config.replace_webhook_secrets(key_id, secrets, new):
                return self._secret_view(key, new)
        raise _conflict_error(key_id)

    def migrate_key(self, key: ApiKey, *, back: bool = False) -> dict[str, Any]:
        """Move the key's webhook secrets from their location in earlier versions, or `back` for a rollback.

        It may be interrupted and run again.
        Raises: AdminError, when concurrent changes prevent it.
        """
        return {"id": key.id, "name": key.name, "migrated": self._move_secrets(key.id, back=back)}

    def set_callback_hosts(self, key_id: str, hosts: Iterable[str]) -> dict[str, Any]:
        """Replace the hosts that ReplyTo may name; none: any public host.

        Raises: AdminError, when a host or the key is not valid.
        """
        patterns = _patterns(hosts)
        key = self._update_key(key_id, lambda key: replace(key, callback_hosts=patterns))
        return {"id": key.id, "name": key.name, "callbackHosts": list(key.callback_hosts)}

    def _move_secrets(self, key_id: str, *, back: bool = False) -> bool:
        for _ in range(MAX_UPDATE_TRIES):
            try:
                return self.config.move_webhook_secrets(key_id, back=back)
            except ClientError as error:
                response: Any = error.response
                reasons = {reason.get("Code") for reason in response.get("CancellationReasons", [])}
                if not reasons & {"ConditionalCheckFailed", "TransactionConflict"}:
                    raise
        raise AdminError(f"key {key_id} was not migrated: concurrent changes, or webhook secrets in both locations")

    def _secrets(self, key_id: str) -> WebhookSecrets:
        secrets = self.config.webhook_secrets(key_id)
        if secrets is None:
            raise AdminError(f"key {key_id} has no webhook secret; create a new key instead")
        return secrets

    def _secret_view(self, key: ApiKey, secrets: WebhookSecrets) -> dict[str, Any]:
        current, *previous = secrets.active(self.clock.now_ms())
        return {
            "id": key.id,
            "name": key.name,
            "webhookSecret": current,
            "previousWebhookSecret": previous[0] if previous else None,
            "previousSignsUntil": format_iso(secrets.previous_until) if previous else None,
        }

    def _key(self, key_id: str) -> ApiKey:
        key = self.config.key(key_id)
        if key is None:
            raise _unknown_key_error(key_id)
        return key

    def _update_key(self, key_id: str, change: Callable[[ApiKey], ApiKey]) -> ApiKey:
        """Apply `change` to the stored key with a conditional write, and retry after a concurrent update.

        Raises: AdminError, when the key does not exist or all tries fail.
        """
        for _ in range(MAX_UPDATE_TRIES):
            key = self._key(key_id)
            new = change(key)
            if self.config.replace_key(key, new):
                return new
        raise _conflict_error(key_id)


def _unknown_key_error(key_id: str) -> AdminError:
    return AdminError(f"key {key_id} does not exist; see `keys list`")


def _conflict_error(key_id: str) -> AdminError:
    return AdminError(f"key {key_id}: too many concurrent updates; nothing was changed, try again")


def _patterns(hosts: Iterable[str]) -> tuple[str, ...]:
    try:
        return tuple(dict.fromkeys(map(host_pattern, hosts)))
    except ValueError as error:
        raise AdminError(str(error)) from error


def connect(stack: str) -> Admin:
    """Connect to a stack by its outputs. Raises: AdminError, when the stack cannot be read."""
    clients: Any = boto3
    try:
        stacks = clients.client("cloudformation").describe_stacks(StackName=stack)["Stacks"]
    except AWS_ERRORS as error:
        raise AdminError(f"cannot read stack {stack}: {error}") from error
    outputs = {output["OutputKey"]: output["OutputValue"] for output in stacks[0].get("Outputs", [])}
    return create_admin(stack, outputs, clients.client)


def create_admin(stack: str, outputs: Mapping[str, str], client: Callable[[str], Any]) -> Admin:
    """An Admin for a stack with these outputs; `client` creates the AWS clients."""
    clock = SystemClock()
    dynamodb = client("dynamodb")
    return Admin(
        stack,
        DynamoConfig(outputs["ConfigTable"], dynamodb),
        client("ssm"),
        DynamoJobs(outputs["JobsTable"], outputs["BodiesBucket"], dynamodb, client("s3"), clock.job_id),
        SqsMessageSender(
            client("sqs"),
            hosted=outputs["HostedQueueUrl"],
            gpu=outputs["GpuQueueUrl"],
            callback=outputs["CallbackQueueUrl"],
        ),
        clock,
        DynamoCircuits(outputs["JobsTable"], dynamodb, clock),
        DynamoConcurrencyLeases(outputs["JobsTable"], dynamodb),
    )
