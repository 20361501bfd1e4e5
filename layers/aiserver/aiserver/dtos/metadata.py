"""The types as JSON, in the form of ServiceStack's metadata, which its user interfaces and IDE plugins read."""

from typing import Any

from aiserver.dtos.language import pascal_case
from aiserver.dtos.schema import Dto, DtoMember, DtoRequest, Enumeration, Shape, Table

NAMESPACE = "AiServer"
# Names of .NET types; a list and a map have type parameters.
SCALARS = {
    "string": "String",
    "int": "Int32",
    "long": "Int64",
    "double": "Double",
    "bool": "Boolean",
    "date": "DateTime",
    "duration": "String",
    "any": "Object",
}
NOT_NULLABLE = ("string", "duration", "any")


def types_metadata(table: Table, base_url: str) -> dict[str, Any]:
    """`{config, namespaces, types, operations}` of a deployment whose URL is `base_url`."""
    responses = {request.returns for request in table.requests}
    return {
        "config": {"baseUrl": base_url},
        "namespaces": [NAMESPACE],
        "types": [
            *(_enumeration(row) for row in table.enumerations),
            *(_type(dto) for dto in table.dtos if not isinstance(dto, DtoRequest) and dto.name not in responses),
        ],
        "operations": [_operation(table, request) for request in table.requests],
    }


def _operation(table: Table, request: DtoRequest) -> dict[str, Any]:
    response = table.find(request.returns)
    assert response, request.returns
    return {
        "request": _type(request),
        "response": _type(response),
        "method": request.method,
        "returnType": _reference(request.returns),
        "routes": [{"path": path, "verbs": request.method} for path in (f"/api/{request.name}", *request.routes)],
        "tags": [request.tag],
        "requiresApiKey": True,
    }


def _type(dto: Dto) -> dict[str, Any]:
    inherits = {"inherits": _reference(dto.base)} if dto.base else {}
    properties = [_property(member) for member in dto.members]
    return _reference(dto.name) | inherits | {"description": dto.doc, "properties": properties}


def _enumeration(row: Enumeration) -> dict[str, Any]:
    return _reference(row.name) | {"description": row.doc, "isEnum": True, "enumNames": list(row.values)}


def _reference(name: str) -> dict[str, Any]:
    return {"name": name, "namespace": NAMESPACE}


def _property(member: DtoMember) -> dict[str, Any]:
    name, arguments = _property_type(member)
    return {
        "name": pascal_case(member.name),
        "type": name,
        **({"genericArgs": arguments} if arguments else {}),
        "dataMember": {"name": member.name},
        "isRequired": member.is_required,
        "description": member.doc,
    }


def _property_type(member: DtoMember) -> tuple[str, list[str]]:
    """The name of the .NET type, and the names of its type parameters."""
    name = SCALARS.get(member.element, member.element)
    if member.shape is Shape.LIST:
        return "List`1", [name]
    if member.shape is Shape.MAP:
        return "Dictionary`2", ["String", name]
    is_nullable = member.element in SCALARS and member.element not in NOT_NULLABLE and not member.is_required
    return ("Nullable`1", [name]) if is_nullable else (name, [])
