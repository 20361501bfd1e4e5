"""Requests and responses about jobs: queue, status, records, lists, callbacks and events."""

from aiserver.dtos.chat import OPTIONS, REF_ID, STATUS
from aiserver.dtos.schema import Dto, DtoMember, DtoRequest, Enumeration, required
from aiserver.jobs.states import JobState

TAG = "Jobs"

JOB_STATE = Enumeration("BackgroundJobState", "The state of a job.", tuple(JobState))

REPLY_TO = DtoMember("replyTo", "string", "The URL that receives the result by POST")
DEADLINE = DtoMember("deadline", "string", "When the job expires: seconds from now, or a date; at most 14 days")
QUEUE_OPTIONS = (*OPTIONS, REPLY_TO, DEADLINE)
JOB_ID = DtoMember("id", "long", "The job's id")

TIMES = (
    DtoMember("attempts", "int", "Passes over the providers"),
    DtoMember("createdDate", "date", "When the job was accepted"),
    DtoMember("startedDate", "date", "When its latest attempt began"),
    DtoMember("completedDate", "date", "When it ended"),
    DtoMember("duration", "duration", "From its start to its end"),
)
STATE_MEMBERS = (
    required("jobId", "long", "The job's id"),
    required("refId", "string", "Your id of the job, or a generated one"),
    DtoMember("tag", "string", "Its label"),
    required("jobState", "BackgroundJobState", "Its state"),
    required("status", "string", "The state, or the error, as one line for people"),
    *TIMES,
    DtoMember("waitReason", "string", "Why a queued job waits, such as provider_rate_limited"),
    DtoMember("maybeBilled", "int", "Calls whose outcome is unknown, and which may have been billed"),
    DtoMember("provider", "string", "The provider that responded"),
    DtoMember("usage", "OpenAiUsage", "What the call used"),
    DtoMember("callback", "JobCallback", "The callback to replyTo"),
    DtoMember("resultUrl", "string", "The URL of the result, for the job's API key"),
    DtoMember("ignored", "string[]", "Members of the request that had no effect"),
    STATUS,
)
JOB_REFERENCE = (JOB_ID, REF_ID)
STATUS_REFERENCE = (DtoMember("jobId", "long", "The job's id"), REF_ID)

TYPES: tuple[Dto, ...] = (
    DtoRequest(
        "QueueOpenAiChatCompletion",
        "Queue a chat.",
        (*QUEUE_OPTIONS, required("request", "OpenAiChat", "The chat")),
        returns="QueueOpenAiChatResponse",
        tag=TAG,
    ),
    Dto(
        "QueueOpenAiChatResponse",
        "The accepted job.",
        (
            required("id", "long", "The job's id"),
            required("refId", "string", "Your id of the job, or a generated one"),
            required("statusUrl", "string", "The URL of its status"),
            STATUS,
        ),
    ),
    DtoRequest(
        "GetOpenAiChatStatus",
        "The state of a job, with its result once it has completed.",
        STATUS_REFERENCE,
        returns="GetOpenAiChatStatusResponse",
        method="GET",
        tag=TAG,
    ),
    Dto(
        "GetOpenAiChatStatusResponse",
        "The state of a chat's job.",
        (
            *STATE_MEMBERS,
            DtoMember("result", "OpenAiChatResponse", "The completion, if it is small enough"),
            DtoMember("chatResponse", "OpenAiChatResponse", "The same, for older clients"),
        ),
    ),
    Dto(
        "JobCallback",
        "The state of a job's callback.",
        (
            required("state", "string", "None, Pending, Delivering, Delivered or Dead"),
            required("attempts", "int", "Attempts to deliver it"),
            DtoMember("waits", "int", "How often it waited because the receiver was at its concurrency limit"),
            DtoMember("lastStatus", "int", "The HTTP status of the last attempt"),
            DtoMember("lastError", "string", "Why the last attempt failed"),
            DtoMember("nextAttemptAt", "date", "When the next attempt is due"),
        ),
    ),
    DtoRequest(
        "GetOpenAiChat",
        "The record of a job.",
        JOB_REFERENCE,
        returns="GetOpenAiChatResponse",
        method="GET",
        tag=TAG,
    ),
    DtoRequest(
        "WaitForOpenAiChat",
        "The record of a job once it has ended, or its state after about 27 seconds.",
        JOB_REFERENCE,
        returns="GetOpenAiChatResponse",
        method="GET",
        tag=TAG,
    ),
    Dto(
        "GetOpenAiChatResponse",
        "The record of a job.",
        (required("result", "OpenAiJob", "The record"), STATUS),
    ),
    Dto(
        "OpenAiJob",
        "The record of a job.",
        (
            required("id", "long", "The job's id"),
            required("refId", "string", "Your id of the job, or a generated one"),
            DtoMember("tag", "string", "Its label"),
            required("state", "BackgroundJobState", "Its state"),
            required("model", "string", "The requested model"),
            DtoMember("provider", "string", "The provider that responded"),
            *TIMES,
            DtoMember("durationMs", "long", "From its start to its end, in milliseconds"),
            DtoMember("usage", "OpenAiUsage", "What the call used"),
            DtoMember("replyTo", "string", "The URL that receives the result"),
            DtoMember("requestBody", "string", "The request, as JSON"),
            DtoMember("requestUrl", "string", "A link to a large request, valid for five minutes"),
            DtoMember("responseBody", "string", "The result, as JSON or text"),
            DtoMember("resultUrl", "string", "The URL of a large result, for the job's API key"),
            DtoMember("errorCode", "string", "The code of the error"),
            DtoMember("error", "string", "The error"),
        ),
    ),
    DtoRequest(
        "QueryJobs",
        "List jobs, the newest first.",
        (
            DtoMember("tag", "string", "Only jobs with this label"),
            DtoMember("state", "BackgroundJobState", "Only jobs in this state"),
            DtoMember("since", "string", "Only jobs created at or after this ISO date or date-time, in UTC"),
            DtoMember("until", "string", "Only jobs created before this ISO date or date-time, in UTC"),
            DtoMember("take", "int", "The most jobs of a page: 50 if absent, at most 200"),
            DtoMember("cursor", "long", "The cursor of the page before"),
        ),
        returns="QueryJobsResponse",
        method="GET",
        tag=TAG,
    ),
    Dto(
        "QueryJobsResponse",
        "A page of jobs.",
        (
            required("results", "OpenAiJob[]", "The jobs, without bodies"),
            DtoMember("cursor", "long", "For the next page; absent on the last one"),
            STATUS,
        ),
    ),
    DtoRequest("CancelJob", "Cancel a job.", JOB_REFERENCE, returns="JobStateResponse", tag=TAG),
    DtoRequest(
        "RedeliverCallback",
        "Start the delivery of an ended callback again.",
        JOB_REFERENCE,
        returns="JobStateResponse",
        tag=TAG,
    ),
    Dto(
        "JobStateResponse",
        "The state of a job after a request.",
        (
            required("id", "long", "The job's id"),
            required("refId", "string", "Your id of the job, or a generated one"),
            required("jobState", "BackgroundJobState", "Its state"),
            DtoMember("callback", "JobCallback", "Its callback"),
            STATUS,
        ),
    ),
    DtoRequest(
        "TestCallback",
        "Send a signed sample to a receiver.",
        (required("replyTo", "string", "The URL of the receiver"),),
        returns="TestCallbackResponse",
        tag=TAG,
    ),
    Dto(
        "TestCallbackResponse",
        "The receiver's response to a sample.",
        (
            required("webhookId", "string", "The id of the message"),
            required("delivered", "bool", "Whether the status was 2xx"),
            DtoMember("status", "int", "The receiver's status"),
            DtoMember("error", "string", "Why it failed"),
            required("durationMs", "long", "How long the receiver took, in milliseconds"),
            STATUS,
        ),
    ),
    Dto(
        "JobEvent",
        "The detail of the event of an ended job, as Amazon EventBridge sends it.",
        (
            required("id", "long", "The job's id"),
            required("refId", "string", "Your id of the job, or a generated one"),
            DtoMember("tag", "string", "Its label"),
            required("keyId", "string", "The id of its API key"),
            required("operation", "string", "What was requested, such as chat.completions"),
            required("model", "string", "The requested model"),
            DtoMember("provider", "string", "The provider that responded"),
            required("state", "BackgroundJobState", "Its state"),
            *TIMES,
            DtoMember("usage", "OpenAiUsage", "What the call used"),
            DtoMember("errorCode", "string", "The code of the error"),
        ),
    ),
)
