"""Queue jobs submitted by message. Every sender is trusted; the key named in the message owns the job."""

from collections.abc import Collection
from dataclasses import replace

from aiserver.api_keys import Authenticator
from aiserver.errors import Forbidden
from aiserver.jobs.job import Job
from aiserver.usecases.enqueue import Caller, Enqueue
from aiserver.wire.requests import IntakeMessage, Options


class Intake:
    def __init__(self, enqueue: Enqueue, keys: Authenticator, *, key_ids: Collection[str], base_url: str) -> None:
        self._enqueue = enqueue
        self._keys = keys
        self._key_ids = frozenset(key_ids)
        self._base_url = base_url

    def accept(self, message: IntakeMessage, *, message_id: str) -> Job:
        """The job for the message's request. The default RefId is `message_id`, so a redelivered message is one job.

        Raises: Forbidden (key not in `key_ids`), Unauthorized (key revoked, expired or unknown), and as `Enqueue`.
        """
        if message.key_id not in self._key_ids:
            raise Forbidden(f"Key {message.key_id} may not submit jobs by message: it is not in IntakeKeyIds")
        key = self._keys.find_by_id(message.key_id)
        options = message.request.options.with_defaults(Options(ref_id=message_id))
        return self._enqueue.accept(
            replace(message.request, options=options), Caller(key.id, self._base_url, key.callback_hosts)
        )
