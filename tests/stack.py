"""The transformed template.yaml as tests read it, and its handlers."""

import importlib.util
import re
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from types import ModuleType
from typing import Any

from local.template import REPOSITORY, read_template, resolve

TEMPLATE = read_template()
RESOURCES: dict[str, Any] = TEMPLATE.transformed["Resources"]
PARAMETERS: dict[str, Any] = TEMPLATE.transformed["Parameters"]
FUNCTIONS = sorted(name for name, resource in RESOURCES.items() if resource["Type"] == "AWS::Lambda::Function")
SUBSTITUTION = re.compile(r"\$\{([^!}][^}]*)\}")


def properties(logical_id: str) -> dict[str, Any]:
    return RESOURCES[logical_id].get("Properties", {})


def of_type(kind: str) -> dict[str, dict[str, Any]]:
    """Return the logical ids and properties of every resource of that type."""
    return {name: properties(name) for name, resource in RESOURCES.items() if resource["Type"] == kind}


def parameter(value: Any) -> str | None:
    """Return the parameter that a value references by `Ref`, or None."""
    name = value.get("Ref") if isinstance(value, dict) else None
    return name if name in PARAMETERS else None


def number(value: Any) -> int:
    """Return a literal number, or the default of the parameter it references."""
    return int(resolve(TEMPLATE, value, {}))


def references(value: Any) -> Iterator[tuple[str, str | None]]:
    """Yield every (name, attribute) that `Ref`, `GetAtt` or `Sub` references below `value`."""
    if isinstance(value, list):
        for item in value:
            yield from references(item)
    elif isinstance(value, dict):
        for key, inner in value.items():
            if key == "Ref":
                yield inner, None
            elif key == "Fn::GetAtt":
                name, _, attribute = inner.partition(".") if isinstance(inner, str) else (inner[0], "", inner[1])
                yield name, attribute
            elif key == "Fn::Sub":
                text, variables = (inner, {}) if isinstance(inner, str) else inner
                for reference in SUBSTITUTION.findall(text):
                    name, _, attribute = reference.partition(".")
                    if name not in variables:
                        yield name, attribute or None
                yield from references(list(variables.values()))
            else:
                yield from references(inner)


def resources_in(value: Any) -> set[str]:
    """Return the resources referenced below `value`."""
    return {name for name, _ in references(value) if name in RESOURCES}


def single_resource(value: Any) -> str:
    """Return the only resource that a value references."""
    (name,) = resources_in(value)
    return name


def folder(function: str) -> Path:
    """Return the folder of a function's code."""
    return REPOSITORY / TEMPLATE.source["Resources"][function]["Properties"]["CodeUri"]


def module(function: str) -> ModuleType:
    """Load the module of a function's handler by path: every function has a handler.py."""
    name = properties(function)["Handler"].rpartition(".")[0]
    module_name = f"functions_{folder(function).name}_{name}"
    if module_name not in sys.modules:
        spec = importlib.util.spec_from_file_location(module_name, folder(function) / f"{name}.py")
        if spec is None or spec.loader is None:
            raise FileNotFoundError(f"{function}: {folder(function) / name}.py")
        loaded = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(loaded)
        sys.modules[module_name] = loaded
    return sys.modules[module_name]


def variables(function: str) -> Mapping[str, Any]:
    """Return the environment variables that the template declares for a function, unresolved."""
    return properties(function)["Environment"]["Variables"]
