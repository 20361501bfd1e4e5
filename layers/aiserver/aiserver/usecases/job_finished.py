"""Notifications at the end of a job: the callback message and the event."""

from aiserver.jobs.job import Job
from aiserver.jobs.ports import EventPublisher, MessageSender
from aiserver.jobs.states import CallbackState
from aiserver.usecases.views import event_view


class JobFinishedNotifier:
    def __init__(self, messages: MessageSender, events: EventPublisher) -> None:
        self._messages = messages
        self._events = events

    def on_job_finished(self, job: Job) -> None:
        """Send both; duplicates are harmless: a delivery is claimed first, and an event contains the job's id."""
        if job.callback == CallbackState.PENDING:
            self._messages.send_callback(job.id, due=job.callback_next_at)
        self._events.publish(f"Job{job.state}", event_view(job))
