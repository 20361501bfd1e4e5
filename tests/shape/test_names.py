"""Names say what things are: limits on the shares of names that do not, as CONTRIBUTING.md explains."""

from collections import defaultdict
from pathlib import Path

import pytest

from local.template import REPOSITORY
from tests import names

PACKAGE = REPOSITORY / "layers" / "aiserver" / "aiserver"
STRICT = names.Names(
    participle_functions=1.5, vague_locals=0.5, vague_parameters=1, generic_locals=8, one_letter_locals=4
)
RELAXED = names.Names(
    participle_functions=3, vague_locals=1, vague_parameters=2, generic_locals=16, one_letter_locals=8
)
MAX_TEST_NAME_CHARS = 70
# Names that mean the same in several modules: what each vendor's adapter defines, and entry points.
SHARED_NAMES = {
    *("PartialBlock", "TokenUsage", "build_request", "content_blocks", "list_models_request", "main", "map_error"),
    *("map_response", "map_usage", "normalize_call_id", "parse_models", "vendor_extensions"),
}


@pytest.mark.parametrize(
    ("directory", "limits"),
    [
        (PACKAGE, STRICT),
        (REPOSITORY / "functions", STRICT),
        (REPOSITORY / "local", RELAXED),
        (REPOSITORY / "docs", RELAXED),
        (REPOSITORY / "benchmarks", RELAXED),
        (REPOSITORY / "tests", RELAXED),
    ],
    ids=lambda value: value.name if isinstance(value, Path) else "",
)
def test_shares_of_unclear_names_stay_below_their_limits(directory: Path, limits: names.Names) -> None:
    shares, maximum = vars(names.measure(directory)), vars(limits)
    assert {kind: share for kind, share in shares.items() if share > maximum[kind]} == {}


def test_public_names_are_unique_in_the_package() -> None:
    modules: defaultdict[str, list[str]] = defaultdict(list)
    for path in names.python_files(PACKAGE):
        for name in names.public_names(path) - SHARED_NAMES:
            modules[name].append(path.name)
    assert {name: paths for name, paths in modules.items() if len(paths) > 1} == {}


def test_names_of_tests_have_at_most_70_characters() -> None:
    tests = names.names_of_tests(REPOSITORY / "tests")
    assert [name for name in tests if len(name) > MAX_TEST_NAME_CHARS] == []
