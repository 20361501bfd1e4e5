"""A job has just ended: tell its ReplyTo's deliverer, and whoever listens to events."""

from aiserver.jobs.job import Job
from aiserver.jobs.ports import Events, Messages
from aiserver.jobs.states import Callback
from aiserver.usecases.views import event


class Finished:
    def __init__(self, messages: Messages, events: Events) -> None:
        self._messages = messages
        self._events = events

    def tell(self, job: Job) -> None:
        """Both may be told twice: a delivery is claimed before it is made, and an event carries the job's id."""
        if job.cb == Callback.PENDING:
            self._messages.send_callback(job.id, due=job.cb_next_at)
        self._events.publish(f"Job{job.state}", event(job))
