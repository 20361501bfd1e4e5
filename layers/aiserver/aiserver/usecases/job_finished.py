"""A job has just ended: tell its ReplyTo's deliverer, and whoever listens to events."""

from aiserver.jobs.job import Job
from aiserver.jobs.ports import EventPublisher, MessageSender
from aiserver.jobs.states import CallbackState
from aiserver.usecases.views import event_view


class JobFinishedNotifier:
    def __init__(self, messages: MessageSender, events: EventPublisher) -> None:
        self._messages = messages
        self._events = events

    def on_job_finished(self, job: Job) -> None:
        """Both may be told twice: a delivery is claimed before it is made, and an event carries the job's id."""
        if job.callback == CallbackState.PENDING:
            self._messages.send_callback(job.id, due=job.callback_next_at)
        self._events.publish(f"Job{job.state}", event_view(job))
