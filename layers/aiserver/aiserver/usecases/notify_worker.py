"""Send the message that starts a job; if sending fails, the sweeper sends it."""

import logging

from aiserver import log_events
from aiserver.jobs.job import Job
from aiserver.jobs.ports import MessageSender

log = logging.getLogger("aiserver.notify_worker")


def notify_worker(messages: MessageSender, job: Job, *, delay_s: int = 0) -> None:
    """Never raises: the job is written, and the sweeper sends the message again at its `due_at`."""
    try:
        messages.send_job(job.queue, job.id, attempt=job.attempt, delay_s=delay_s)
    except Exception:
        log.exception(log_events.JOB_MESSAGE_SEND_FAILED, extra={"job_id": job.id})
