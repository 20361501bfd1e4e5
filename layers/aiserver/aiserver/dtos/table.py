"""The table of all types of the API. docs/api.md and `/types/{language}` are generated from it."""

from aiserver.dtos import chat, jobs, media
from aiserver.dtos.chat import STATUS
from aiserver.dtos.schema import Dto, DtoMember, DtoRequest, Table, required

MODELS = (
    DtoRequest(
        "ActiveAiModels",
        "List the names of all models.",
        returns="StringsResponse",
        method="GET",
        tag=chat.TAG,
    ),
    Dto("StringsResponse", "A list of texts.", (required("results", "string[]", "The texts"), STATUS)),
)

# Clients of ServiceStack bring these types with them.
ERROR_TYPES = (
    Dto(
        "ResponseStatus",
        "An error.",
        (
            required("errorCode", "string", "Its code, such as NotFound"),
            required("message", "string", "What is wrong, and what to do"),
            DtoMember("stackTrace", "string", "Never sent"),
            required("errors", "ResponseError[]", "The invalid members of the request"),
            DtoMember("meta", "{string}", "Further facts"),
        ),
    ),
    Dto(
        "ResponseError",
        "An invalid member of a request.",
        (
            required("errorCode", "string", "Its code, such as NotEmpty"),
            required("fieldName", "string", "The member, such as Messages[0].Role"),
            required("message", "string", "What is wrong"),
            DtoMember("meta", "{string}", "Further facts"),
        ),
    ),
)

TABLE = Table((jobs.JOB_STATE,), (*chat.TYPES, *jobs.TYPES, *media.TYPES, *MODELS, *ERROR_TYPES))
