"""Send the message that a job can be worked on; one that cannot be sent now is sent by the sweeper."""

import logging

from aiserver.jobs.job import Job
from aiserver.jobs.ports import MessageSender

log = logging.getLogger("aiserver.hint")


def notify_worker(messages: MessageSender, job: Job, *, delay_s: int = 0) -> None:
    """Never raises: the job is written, and its `due_at` has the sweeper send again."""
    try:
        messages.send_job(job.queue, job.id, attempt=job.attempt, delay_s=delay_s)
    except Exception:
        log.exception("job message not sent; the sweeper will", extra={"job_id": job.id})
