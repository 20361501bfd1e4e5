"""The types of /types with the real clients: PyPI's servicestack, and npm's @servicestack/client."""

import shutil
import sys
from pathlib import Path

import httpx
import pytest

from tests.flow.conftest import Product
from tests.flow.test_npm_clients import NODE, needs_node
from tests.languages.harness import PROGRAMS, check_outcome, run_program, save_types


def test_python_types_work_with_the_typed_client(product: Product, tmp_path: Path) -> None:
    save_types(product, "python", tmp_path / "dtos.py")
    shutil.copy(PROGRAMS / "client.py", tmp_path)
    check_outcome(run_program(product, [sys.executable, "client.py"], tmp_path), product, tmp_path)


@needs_node
def test_javascript_types_work_with_the_npm_client(product: Product, tmp_path: Path) -> None:
    (tmp_path / "node_modules").symlink_to(NODE / "node_modules")
    save_types(product, "js/", tmp_path / "dtos.mjs")
    shutil.copy(PROGRAMS / "client.mjs", tmp_path)
    check_outcome(run_program(product, ["node", "client.mjs"], tmp_path), product, tmp_path)


@pytest.mark.parametrize(
    ("path", "status"),
    [("types", 200), ("types/", 200), ("types/dart", 200), ("types/metadata", 200), ("types/nope", 404)],
)
def test_types_are_served_without_a_key(product: Product, path: str, status: int) -> None:
    response = httpx.get(f"{product.url}/{path}", trust_env=False)
    assert response.status_code == status
    if status == 200:
        assert response.headers["cache-control"] == "public, max-age=300"
        assert product.url in response.text
    else:
        assert "use one of csharp" in response.json()["responseStatus"]["message"]


def test_invalid_option_is_a_400_and_unknown_type_a_404(product: Product) -> None:
    invalid = httpx.get(f"{product.url}/types/java", params={"Package": "a;*/"}, trust_env=False)
    assert (invalid.status_code, invalid.json()["responseStatus"]["errors"][0]["fieldName"]) == (400, "Package")
    unknown = httpx.get(f"{product.url}/types/java", params={"IncludeTypes": "OpenAiChatt"}, trust_env=False)
    assert (unknown.status_code, "OpenAiChat" in unknown.text) == (404, True)
