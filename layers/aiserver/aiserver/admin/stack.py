"""One stack: the way to its tables and queues, and its keys, as its operator sees and changes them."""

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
from aiserver.aws.leases import DynamoLeases
from aiserver.aws.messages import SqsMessageSender
from aiserver.clock import Clock, SystemClock
from aiserver.jobs.ports import JobStore, LeaseStore, MessageSender
from aiserver.providers.circuit import CircuitStore
from aiserver.webhooks.url_policy import host_pattern
from aiserver.wire.render import format_iso

if TYPE_CHECKING:
    from mypy_boto3_ssm.client import SSMClient

HOUR_MS = 3_600_000
DAY_MS = 24 * HOUR_MS
MAX_OVERLAP_HOURS = 30 * 24  # a secret that signs for longer than a month has not been rotated
CHANGE_TRIES = 5  # of a change to a key, each only after somebody else changed it in between


AWS_ERRORS = (ClientError, BotoCoreError)


class AdminError(Exception):
    """What the operator must put right; shown as one line."""


@dataclass(frozen=True)
class Admin:
    """One stack, and what is done with its keys."""

    stack: str
    config: DynamoConfig
    ssm: "SSMClient"
    jobs: JobStore
    messages: MessageSender
    clock: Clock
    circuits: CircuitStore
    leases: LeaseStore

    def create_key(
        self, name: str, *, expires_days: int | None = None, callback_hosts: Iterable[str] = ()
    ) -> dict[str, Any]:
        """The new key, its id and its webhook secret; the key itself is nowhere else. Raises: Problem."""
        if expires_days is not None and expires_days < 1:
            raise AdminError("--expires-days is 1 or more")
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
        """From now, and within 30 s in containers that have read it, the key opens nothing. Raises: Problem."""
        now = self.clock.now_ms()
        key = self._update_key(key_id, lambda key: replace(key, revoked_at=key.revoked_at or now))
        return {"id": key.id, "name": key.name, "revoked": format_iso(key.revoked_at)}

    def show_secret(self, key_id: str) -> dict[str, Any]:
        """The secrets that sign the key's callbacks now. Raises: Problem."""
        return self._secret_view(self._key(key_id), self._secrets(key_id))

    def rotate_secret(self, key_id: str, *, overlap_hours: int) -> dict[str, Any]:
        """A new webhook secret; the one before signs, too, until the overlap ends. Raises: Problem."""
        if not 0 <= overlap_hours <= MAX_OVERLAP_HOURS:
            raise AdminError(f"--overlap-hours is 0 to {MAX_OVERLAP_HOURS}")
        now = self.clock.now_ms()
        for _ in range(CHANGE_TRIES):
            self._move_secrets(key_id)
            key, secrets = self._key(key_id), self._secrets(key_id)
            if key.revoked_at is not None:
                raise AdminError(f"key {key_id} is revoked: make a new key instead")
            if overlap_hours and len(secrets.active(now)) > 1:
                until = format_iso(secrets.previous_until)
                raise AdminError(
                    f"key {key_id} is being rotated: its previous secret signs until {until}; "
                    "wait until then, or end both at once with --overlap-hours 0"
                )
            new = secrets.rotate(now_ms=now, overlap_ms=overlap_hours * HOUR_MS)
            if self.config.replace_webhook_secrets(key_id, secrets, new):
                return self._secret_view(key, new)
        raise _conflict_error(key_id)

    def migrate_key(self, key: ApiKey, *, back: bool = False) -> dict[str, Any]:
        """Move its webhook secrets from where earlier versions stored them, or `back` for a rollback. Raises: Problem.

        It may be interrupted and run again.
        """
        return {"id": key.id, "name": key.name, "migrated": self._move_secrets(key.id, back=back)}

    def set_callback_hosts(self, key_id: str, hosts: Iterable[str]) -> dict[str, Any]:
        """Make these the hosts that ReplyTo may name; none: any public host. Raises: Problem."""
        patterns = _patterns(hosts)
        key = self._update_key(key_id, lambda key: replace(key, callback_hosts=patterns))
        return {"id": key.id, "name": key.name, "callbackHosts": list(key.callback_hosts)}

    def _move_secrets(self, key_id: str, *, back: bool = False) -> bool:
        for _ in range(CHANGE_TRIES):
            try:
                return self.config.move_webhook_secrets(key_id, back=back)
            except ClientError as error:
                response: Any = error.response
                reasons = {reason.get("Code") for reason in response.get("CancellationReasons", [])}
                if not reasons & {"ConditionalCheckFailed", "TransactionConflict"}:
                    raise
        raise AdminError(
            f"key {key_id} was not migrated: others are changing it, or it has webhook secrets in both places"
        )

    def _secrets(self, key_id: str) -> WebhookSecrets:
        secrets = self.config.webhook_secrets(key_id)
        if secrets is None:
            raise AdminError(f"key {key_id} has no webhook secret; make a new key instead")
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
        """Write what `change` makes of the key as it is stored, and of no older one. Raises: Problem."""
        for _ in range(CHANGE_TRIES):
            key = self._key(key_id)
            changed = change(key)
            if self.config.replace_key(key, changed):
                return changed
        raise _conflict_error(key_id)


def _unknown_key_error(key_id: str) -> AdminError:
    return AdminError(f"There is no key {key_id}; `keys list` shows them")


def _conflict_error(key_id: str) -> AdminError:
    return AdminError(f"key {key_id}: too many concurrent changes; nothing was changed")


def _patterns(hosts: Iterable[str]) -> tuple[str, ...]:
    try:
        return tuple(dict.fromkeys(map(host_pattern, hosts)))
    except ValueError as error:
        raise AdminError(str(error)) from error


def connect(stack: str) -> Admin:
    """The stack's tables, found by its outputs. Raises: Problem."""
    clients: Any = boto3
    try:
        found = clients.client("cloudformation").describe_stacks(StackName=stack)["Stacks"]
    except AWS_ERRORS as error:
        raise AdminError(f"stack {stack} cannot be read: {error}") from error
    outputs = {output["OutputKey"]: output["OutputValue"] for output in found[0].get("Outputs", [])}
    return create_admin(stack, outputs, clients.client)


def create_admin(stack: str, outputs: Mapping[str, str], client: Callable[[str], Any]) -> Admin:
    """The admin of a stack with these outputs, over clients made by `client`."""
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
        DynamoLeases(outputs["JobsTable"], dynamodb),
    )
