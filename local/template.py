"""Reads routes, gateway responses and functions from template.yaml, so that nothing here repeats them.

They come from the TRANSFORMED template: what CloudFormation receives after the SAM transform.
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
    """One method of one path; `function` is the logical id of the Lambda function behind it.

    `binary_media_types` are those of the API: API Gateway converts their bodies from and to base64.
    """

    method: str
    path: str
    function: str
    timeout_s: float
    is_streamed: bool
    binary_media_types: tuple[str, ...] = ()


@dataclass(frozen=True)
class GatewayResponse:
    """A response of API Gateway itself. `headers` hold quoted literals or `method.request.…` expressions."""

    status: int | None
    headers: Mapping[str, str]
    templates: Mapping[str, str]


@dataclass(frozen=True)
class Function:
    """One Lambda function as written in the template; the stack holds the resolved values."""

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
    """A template before the transform, its short tags in their long form."""
    return cast(dict[str, Any], yaml.load(path.read_text(), _Tags))  # noqa: S506  _Tags is a SafeLoader


def transform(source: Mapping[str, Any]) -> dict[str, Any]:
    """Run Amazon's SAM translator. Local folders get a placeholder S3 URI: the translator accepts nothing else."""
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
    """Every method of every path of the REST API, resolved with `parameters`."""
    api_routes: list[Route] = []
    body = _api_body(template)
    binary_media_types = tuple(body.get("x-amazon-apigateway-binary-media-types", []))
    for path, methods in body["paths"].items():
        for method, operation in methods.items():
            unresolved = operation["x-amazon-apigateway-integration"]
            integration = {name: resolve(template, value, parameters or {}) for name, value in unresolved.items()}
            uri = integration["uri"]["Fn::Sub"]
            function = _FUNCTION_OF_URI.search(uri)
            if function is None:
                raise ValueError(f"{method} {path}: no function in {uri}")
            api_routes.append(
                Route(
                    method=method.upper(),
                    path=path,
                    function=function[1],
                    timeout_s=integration.get("timeoutInMillis", INTEGRATION_TIMEOUT_MS) / 1000,
                    is_streamed=integration.get("responseTransferMode") == "STREAM" and "-streaming-" in uri,
                    binary_media_types=binary_media_types,
                )
            )
    return api_routes


def gateway_responses(template: Template) -> dict[str, GatewayResponse]:
    """The responses of API Gateway itself by type, e.g. `MISSING_AUTHENTICATION_TOKEN`."""
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
    return _single_resource(template, "AWS::ApiGateway::Stage")["StageName"]


def functions(template: Template, parameters: Mapping[str, str] | None = None) -> list[Function]:
    """Every function of the template, timeout and memory size resolved with `parameters` or their defaults."""
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
    return int(resolve(template, value, parameters))


def resolve(template: Template, value: Any, parameters: Mapping[str, str]) -> Any:
    """Resolve `Ref` to a parameter and `Fn::If`; other values are returned as written."""
    match value:
        case {"Ref": str(name)} if name in template.source["Parameters"]:
            return parameters.get(name, template.source["Parameters"][name]["Default"])
        case {"Fn::If": [str(condition), if_true, if_false]}:
            is_true = _evaluate(template, template.source["Conditions"][condition], parameters)
            return resolve(template, if_true if is_true else if_false, parameters)
        case _:
            return value


def _evaluate(template: Template, condition: Any, parameters: Mapping[str, str]) -> bool:
    match condition:
        case {"Fn::Not": [operand]}:
            return not _evaluate(template, operand, parameters)
        case {"Fn::Equals": [left, right]}:
            return resolve(template, left, parameters) == resolve(template, right, parameters)
        case _:
            raise ValueError(f"Unsupported condition: {condition}")


def _api_body(template: Template) -> dict[str, Any]:
    return _single_resource(template, "AWS::ApiGateway::RestApi")["Body"]


def _single_resource(template: Template, kind: str) -> dict[str, Any]:
    (properties,) = [r["Properties"] for r in template.transformed["Resources"].values() if r["Type"] == kind]
    return properties
