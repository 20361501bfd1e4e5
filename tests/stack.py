"""What tests read of the transformed template.yaml, and the handlers it names."""

import importlib.util
import re
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from types import ModuleType
from typing import Any

from local.template import REPOSITORY, read_template, resolved

TEMPLATE = read_template()
RESOURCES: dict[str, Any] = TEMPLATE.transformed["Resources"]
PARAMETERS: dict[str, Any] = TEMPLATE.transformed["Parameters"]
FUNCTIONS = sorted(name for name, one in RESOURCES.items() if one["Type"] == "AWS::Lambda::Function")
SUBSTITUTED = re.compile(r"\$\{([^!}][^}]*)\}")


def properties(logical_id: str) -> dict[str, Any]:
    return RESOURCES[logical_id].get("Properties", {})


def of_type(kind: str) -> dict[str, dict[str, Any]]:
    """Logical ids and properties of every resource of that type."""
    return {name: properties(name) for name, one in RESOURCES.items() if one["Type"] == kind}


def parameter(value: Any) -> str | None:
    """The parameter a value is the `Ref` of; None for anything else."""
    name = value.get("Ref") if isinstance(value, dict) else None
    return name if name in PARAMETERS else None


def number(value: Any) -> int:
    """A number as written, or as the parameters' defaults have it."""
    return int(resolved(TEMPLATE, value, {}))


def references(value: Any) -> Iterator[tuple[str, str | None]]:
    """Every name, and attribute of it, that `Ref`, `GetAtt` or `Sub` asks for below `value`."""
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
                text, given = (inner, {}) if isinstance(inner, str) else inner
                for found in SUBSTITUTED.findall(text):
                    name, _, attribute = found.partition(".")
                    if name not in given:
                        yield name, attribute or None
                yield from references(list(given.values()))
            else:
                yield from references(inner)


def resources_in(value: Any) -> set[str]:
    """The resources that are referred to below `value`."""
    return {name for name, _ in references(value) if name in RESOURCES}


def the_one(value: Any) -> str:
    """The one resource a value refers to."""
    (name,) = resources_in(value)
    return name


def folder(function: str) -> Path:
    """Where a function's code is."""
    return REPOSITORY / TEMPLATE.source["Resources"][function]["Properties"]["CodeUri"]


def module(function: str) -> ModuleType:
    """The module of a function's handler, by its path: each function's own is called handler.py."""
    name = properties(function)["Handler"].rpartition(".")[0]
    loaded_as = f"functions_{folder(function).name}_{name}"
    if loaded_as not in sys.modules:
        spec = importlib.util.spec_from_file_location(loaded_as, folder(function) / f"{name}.py")
        if spec is None or spec.loader is None:
            raise FileNotFoundError(f"{function}: {folder(function) / name}.py")
        made = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(made)
        sys.modules[loaded_as] = made
    return sys.modules[loaded_as]


def variables(function: str) -> Mapping[str, Any]:
    """The environment variables the template declares for a function, unresolved."""
    return properties(function)["Environment"]["Variables"]
