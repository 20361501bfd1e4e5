"""What template.yaml says, read from it after the SAM transform, so that nothing here repeats it.

The routes, gateway responses and functions come from the TRANSFORMED template: what CloudFormation would be given.
"""

from __future__ import annotations

import copy
import logging
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import yaml

REPOSITORY = Path(__file__).resolve().parents[1]
REGION = "us-east-1"
# Amazon's default; a method may set its own. https://docs.aws.amazon.com/apigateway/latest/developerguide/limits.html
INTEGRATION_TIMEOUT_MS = 29_000
_FUNCTION_OF_URI = re.compile(r"\$\{(\w+)\.Arn\}")


@dataclass(frozen=True)
class Route:
    """One method of one path; `function` is the logical id of the Lambda function behind it."""

    method: str
    path: str
    function: str
    timeout_s: float
    streamed: bool


@dataclass(frozen=True)
class GatewayResponse:
    """An answer API Gateway gives itself. `headers` hold quoted literals or `method.request.…` expressions."""

    status: int | None
    headers: Mapping[str, str]
    templates: Mapping[str, str]


@dataclass(frozen=True)
class Function:
    """One Lambda function as written; what the deployed one resolved to is asked of the stack."""

    logical_id: str
    name: str
    folder: Path
    handler: str
    timeout_s: int
    memory_mb: int


@dataclass(frozen=True)
class Template:
    """template.yaml before (`source`) and after (`transformed`) the SAM transform."""

    root: Path
    source: dict[str, Any]
    transformed: dict[str, Any]


class _Tags(yaml.SafeLoader):
    """YAML with CloudFormation's short tags (`!Ref`, `!GetAtt`, …)."""


def _long_form(loader: yaml.SafeLoader, tag: str, node: yaml.Node) -> dict[str, Any]:
    if isinstance(node, yaml.ScalarNode):
        value: Any = loader.construct_scalar(node)
    elif isinstance(node, yaml.SequenceNode):
        value = loader.construct_sequence(node, deep=True)
    else:
        value = loader.construct_mapping(cast(yaml.MappingNode, node), deep=True)
    if tag in ("Ref", "Condition"):
        return {tag: value}
    if tag == "GetAtt" and isinstance(value, str):
        value = value.split(".", 1)
    return {f"Fn::{tag}": value}


cast(Any, _Tags).add_multi_constructor("!", _long_form)


def read_template(path: Path = REPOSITORY / "template.yaml") -> Template:
    """Load and transform the template at `path`; its CodeUri folders are relative to it."""
    source = read_yaml(path)
    return Template(path.parent, source, transform(source))


def read_yaml(path: Path) -> dict[str, Any]:
    """A template as it is written, its short tags in their long form."""
    return cast(dict[str, Any], yaml.load(path.read_text(), _Tags))  # noqa: S506  _Tags is a SafeLoader


def transform(source: Mapping[str, Any]) -> dict[str, Any]:
    """Run Amazon's own SAM translator. Local folders get a made-up S3 address, since it accepts nothing else."""
    import boto3
    from samtranslator.parser.parser import Parser  # pyright: ignore[reportMissingTypeStubs]
    from samtranslator.translator.translator import Translator  # pyright: ignore[reportMissingTypeStubs]

    logging.getLogger("samtranslator").setLevel(logging.ERROR)  # it warns of a feature table it does not ship
    packaged = copy.deepcopy(dict(source))
    for resource in packaged["Resources"].values():
        properties = resource.get("Properties", {})
        for key in ("CodeUri", "ContentUri"):
            if key in properties and not str(properties[key]).startswith("s3://"):
                properties[key] = f"s3://not-uploaded/{properties[key]}"
    # `transform.transform()` offers no session and would look for a region in the developer's environment.
    translator = Translator(None, cast(Any, Parser)(), boto_session=boto3.session.Session(region_name=REGION))
    managed_policies: dict[str, str] = {}
    return cast(Any, translator).translate(packaged, {}, get_managed_policy_map=lambda: managed_policies)


def routes(template: Template, parameters: Mapping[str, str] | None = None) -> list[Route]:
    """Every method of every path of the REST API, as a stack of these parameters has them."""
    found: list[Route] = []
    for path, methods in _api_body(template)["paths"].items():
        for method, operation in methods.items():
            written = operation["x-amazon-apigateway-integration"]
            integration = {name: resolved(template, value, parameters or {}) for name, value in written.items()}
            uri = integration["uri"]["Fn::Sub"]
            function = _FUNCTION_OF_URI.search(uri)
            if function is None:
                raise ValueError(f"{method} {path}: no function in {uri}")
            found.append(
                Route(
                    method=method.upper(),
                    path=path,
                    function=function[1],
                    timeout_s=integration.get("timeoutInMillis", INTEGRATION_TIMEOUT_MS) / 1000,
                    streamed=integration.get("responseTransferMode") == "STREAM" and "-streaming-" in uri,
                )
            )
    return found


def gateway_responses(template: Template) -> dict[str, GatewayResponse]:
    """API Gateway's own answers by type, e.g. `MISSING_AUTHENTICATION_TOKEN`."""
    prefix = "gatewayresponse.header."
    return {
        kind: GatewayResponse(
            status=int(response["statusCode"]) if "statusCode" in response else None,
            headers={
                name.removeprefix(prefix): value
                for name, value in response.get("responseParameters", {}).items()
                if name.startswith(prefix)
            },
            templates=response.get("responseTemplates", {}),
        )
        for kind, response in _api_body(template).get("x-amazon-apigateway-gateway-responses", {}).items()
    }


def stage(template: Template) -> str:
    """The name of the API's stage."""
    return _only(template, "AWS::ApiGateway::Stage")["StageName"]


def functions(template: Template, parameters: Mapping[str, str] | None = None) -> list[Function]:
    """Every function of the template, sizes resolved with `parameters` or their defaults."""
    return [
        _function(template, logical_id, resource["Properties"], parameters or {})
        for logical_id, resource in template.transformed["Resources"].items()
        if resource["Type"] == "AWS::Lambda::Function"
    ]


def _function(
    template: Template, logical_id: str, properties: Mapping[str, Any], parameters: Mapping[str, str]
) -> Function:
    return Function(
        logical_id=logical_id,
        name=logical_id.removesuffix("Function").lower(),
        folder=template.root / template.source["Resources"][logical_id]["Properties"]["CodeUri"],
        handler=properties["Handler"],
        timeout_s=_number(template, properties["Timeout"], parameters),
        memory_mb=_number(template, properties["MemorySize"], parameters),
    )


def _number(template: Template, value: Any, parameters: Mapping[str, str]) -> int:
    return int(resolved(template, value, parameters))


def resolved(template: Template, value: Any, parameters: Mapping[str, str]) -> Any:
    """What a parameter, or a choice by one, comes to; anything else as it is written."""
    match value:
        case {"Ref": str(name)} if name in template.source["Parameters"]:
            return parameters.get(name, template.source["Parameters"][name]["Default"])
        case {"Fn::If": [str(condition), yes, no]}:
            holds = _holds(template, template.source["Conditions"][condition], parameters)
            return resolved(template, yes if holds else no, parameters)
        case _:
            return value


def _holds(template: Template, condition: Any, parameters: Mapping[str, str]) -> bool:
    match condition:
        case {"Fn::Not": [other]}:
            return not _holds(template, other, parameters)
        case {"Fn::Equals": [one, other]}:
            return resolved(template, one, parameters) == resolved(template, other, parameters)
        case _:
            raise ValueError(f"a condition of another kind: {condition}")


def _api_body(template: Template) -> dict[str, Any]:
    return _only(template, "AWS::ApiGateway::RestApi")["Body"]


def _only(template: Template, kind: str) -> dict[str, Any]:
    (found,) = [r["Properties"] for r in template.transformed["Resources"].values() if r["Type"] == kind]
    return found
