"""Accept what other services send: whoever may send is trusted, and the key it names decides whose job it is."""

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

    def accept(self, sent: IntakeMessage, *, message_id: str) -> Job:
        """The job that will run it. Without a RefId its message's id is the RefId: the same message again is one job.

        Raises: Forbidden (a key that is not on the list), Unauthorized (one that is not in force), and as `Enqueue`.
        """
        if sent.key_id not in self._key_ids:
            raise Forbidden(f"Key {sent.key_id} is not one that the intake may queue jobs for")
        key = self._keys.find_by_id(sent.key_id)
        options = sent.request.options.with_defaults(Options(ref_id=message_id))
        return self._enqueue.accept(
            replace(sent.request, options=options), Caller(key.id, self._base_url, key.callback_hosts)
        )
