"""Every event that the functions log, in one place; docs/operate.md lists them from here."""


class LogEvent(str):
    """The name of an event, with the fields logged beside it and its meaning: the text of the table in the docs."""

    fields: str
    meaning: str

    def __new__(cls, name: str, fields: str, meaning: str) -> "LogEvent":
        event = super().__new__(cls, name)
        event.fields, event.meaning = fields, meaning
        return event


REQUEST_COMPLETED = LogEvent(
    "request_completed",
    "`key_id`, `operation`, `model`, `served_model` (the provider's name of it), `provider`, `attempts`, `status`, "
    "`first_byte_ms`, `duration_ms`, `usage`, `stream`, `state` (of a stream), `replayed`, `error`, "
    "`tag` (with `LogTags`), `request_id`",
    "One for each synchronous request with a valid key and body, at its end: also for one that failed.",
)
REQUEST_REJECTED = LogEvent(
    "request_rejected", "`status`, `error`, `request_id`", "A request was answered with an error."
)
REQUEST_FAILED = LogEvent(
    "request_failed", "`request_id`, traceback", "An internal error: the caller received a 500 with this id."
)
MESSAGE_REJECTED = LogEvent(
    "message_rejected", "`error`, `message_id`", "A message of the intake queue became a dead letter."
)
RECORD_FAILED = LogEvent(
    "record_failed", "traceback", "A queue message or stream record failed; it is delivered again."
)
PROVIDER_CALL_FAILED = LogEvent(
    "provider_call_failed",
    "`provider`, `error`, `upstream_status`",
    "One provider call failed; the status of its response, if there was one.",
)
PROVIDER_SKIPPED = LogEvent(
    "provider_skipped",
    "`provider`, `error`, `upstream_status`",
    "A provider was not called: it is at its concurrency limit, or its circuit is open.",
)
PROVIDER_CONFIG_INVALID = LogEvent(
    "provider_config_invalid",
    "`provider`",
    "A stored provider cannot be parsed and is ignored: apply providers.yaml again.",
)
STALE_CONNECTION_RETRIED = LogEvent(
    "stale_connection_retried", "`host`", "A kept connection had been closed; the request was sent once more."
)
CIRCUIT_OPENED = LogEvent(
    "circuit_opened",
    "`provider`; `model` and `key_id` for a narrower gate",
    "Calls are skipped until a probe succeeds: see [circuits](providers.md#circuits).",
)
CIRCUIT_CLOSED = LogEvent(
    "circuit_closed", "`provider`; `model` and `key_id` for a narrower gate", "Calls are made again."
)
CIRCUIT_STILL_OPEN = LogEvent(
    "circuit_still_open", "`provider`", "Logged by the sweeper each minute while a circuit is open for every key."
)
CIRCUIT_READ_FAILED = LogEvent(
    "circuit_read_failed",
    "traceback",
    "The table is unavailable or access is denied: providers are called as if circuits were closed.",
)
CIRCUIT_WRITE_FAILED = LogEvent("circuit_write_failed", "`provider`, traceback", "As `circuit_read_failed`.")
LOAD_UNKNOWN = LogEvent(
    "load_unknown", "traceback", "Leases could not be counted: providers of equal priority take turns at random."
)
CONCURRENCY_CHECK_FAILED = LogEvent(
    "concurrency_check_failed",
    "`provider`, traceback",
    "No concurrency lease could be taken because the table is unavailable or access is denied: the "
    "provider is treated as busy.",
)
LEASE_RELEASE_FAILED = LogEvent(
    "lease_release_failed",
    "`lease`, traceback",
    "A concurrency lease was not released: it blocks one call or delivery until it expires.",
)
JOB_FIELDS = "`job_id`, `attempt`, `key_id`, `operation`, `model`, `tag` (with `LogTags`)"
JOB_COMPLETED = LogEvent(
    "job_completed",
    f"{JOB_FIELDS}, `provider`, `served_model`, `calls`, `duration_ms` (of the attempt), `usage`",
    "The job has its result.",
)
JOB_WAITING = LogEvent("job_waiting", f"{JOB_FIELDS}, `reason`", "The job waits for its next attempt.")
JOB_FAILED = LogEvent("job_failed", f"{JOB_FIELDS}, `error`, `duration_ms`", "The job failed permanently.")
JOB_CANCELLED = LogEvent("job_cancelled", JOB_FIELDS, "The job was cancelled while it ran.")
JOB_LEASE_LOST = LogEvent(
    "job_lease_lost", JOB_FIELDS, "Another worker has the job; this worker's outcome was discarded."
)
JOB_DEFERRED = LogEvent(
    "job_deferred",
    "`job_id`, traceback",
    "The table or the bucket is unavailable: the job waits, no provider was called.",
)
JOB_OUTCOME_WRITE_FAILED = LogEvent(
    "job_outcome_write_failed",
    "`job_id`, traceback",
    "The table or the bucket is unavailable: the outcome is written again.",
)
JOB_MESSAGE_SEND_FAILED = LogEvent("job_message_send_failed", "`job_id`, traceback", "The sweeper sends the message.")
JOB_SWEEP_FAILED = LogEvent("job_sweep_failed", "`job_id`, traceback", "The next sweep tries again.")
IMAGES_NOT_STORED = LogEvent(
    "images_not_stored",
    "`job_id`, traceback",
    "The images of a synchronous response could not be stored: the caller received a 502, and the call was paid for.",
)
SYNC_RESPONSE_RECORD_FAILED = LogEvent(
    "sync_response_record_failed",
    "`job_id`, traceback",
    "The caller received the response, which was not recorded. With a RefId, its job ends as Failed.",
)
STREAM_ENDED = LogEvent(
    "stream_ended",
    "`provider`, `state`, `error`, `content_events`",
    "A streamed response ended: completed, failed or cancelled.",
)
CALLBACK_ATTEMPTED = LogEvent(
    "callback_attempted",
    "`job_id`, `attempt`, `receiver` (its host), `status` or `error`, `duration_ms`",
    "One delivery attempt, also one that the URL policy refused.",
)
CALLBACK_DEAD = LogEvent(
    "callback_dead",
    "`job_id`, `attempt`",
    "No attempt is left: logged by `reply`, or by `sweep` if the last deliverer died.",
)
CALLBACK_MESSAGE_SEND_FAILED = LogEvent(
    "callback_message_send_failed", "`job_id`, traceback", "The sweeper sends the message."
)
WEBHOOK_SECRET_MISSING = LogEvent(
    "webhook_secret_missing",
    "`job_id`, `key_id`",
    "The callback cannot be signed and is dead: the key's item in partition `WEBHOOK_SECRET` is missing.",
)
