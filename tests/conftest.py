"""Setup of all tests: no test connects to another machine or sees the developer's keys."""

import logging
import os
import random
import runpy
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import settings

GUARD = Path(__file__).parent / "guard"
# Run by path: a system Python may have imported its own sitecustomize (Debian and Ubuntu do).
runpy.run_path(str(GUARD / "sitecustomize.py"))

DEVELOPER_PREFIXES = ("AWS_", "OPENAI_", "OLLAMA_", "LANGCHAIN_", "LANGSMITH_")
for name in list(os.environ):
    if name.startswith(DEVELOPER_PREFIXES) or name in ("PROVIDERS", "STATE_DIR", "STRICT_CALLBACKS"):
        del os.environ[name]
os.environ["PYTHONPATH"] = str(GUARD)  # child processes install the guard, too
signal.signal(
    signal.SIGHUP, signal.SIG_DFL
)  # nohup ignores it, child processes inherit that, and tests end them by SIGHUP

from local.ministack import running  # noqa: E402  reads the environment above
from tests import examples  # noqa: E402
from tests.iam import recorder, simulator  # noqa: E402

# Fixtures with an expensive setup, most expensive first. Tests that share one run in one worker, so that it is set up
# once, and before all other tests, so that the longest group does not start last.
SHARED = ("started", "ministack")
SHARED_BY_PARAMETER = (
    "ministack",
    "cloud",
)  # parameters of contract and crash fixtures, which then request `ministack`


@pytest.hookimpl(tryfirst=True)
def pytest_configure(config: pytest.Config) -> None:
    """Select the profile and one seed for all randomized tests of this run, in all workers."""
    settings.load_profile(examples.FULL if examples.IS_FULL else examples.QUICK)
    if config.option.hypothesis_seed is None:
        config.option.hypothesis_seed = str(random.getrandbits(32))


def pytest_report_header(config: pytest.Config) -> list[str]:
    seed = f"reproduce randomized tests with --hypothesis-seed={config.option.hypothesis_seed}"
    return (
        [seed]
        if simulator.IS_INSTALLED
        else [seed, "IAM policies are NOT simulated: run `make test` with Node.js 18 or newer"]
    )


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter, config: pytest.Config) -> None:
    if terminalreporter.stats.get("failed") or terminalreporter.stats.get("error"):
        terminalreporter.write_line(pytest_report_header(config)[0])


@pytest.hookimpl(tryfirst=True)  # before pytest-xdist reads the groups
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Assign each test to the group of its shared fixture, or else of its file."""
    for item in items:
        if item.get_closest_marker("xdist_group") is None:
            item.add_marker(pytest.mark.xdist_group(_shared_fixture(item) or item.nodeid.partition("::")[0]))
    items.sort(key=_rank)


def _shared_fixture(item: pytest.Item) -> str | None:
    fixtures, parameters = getattr(item, "fixturenames", ()), getattr(item, "callspec", None)
    if parameters and set(SHARED_BY_PARAMETER) & {
        value for value in parameters.params.values() if isinstance(value, str)
    }:
        return "ministack"
    return next((name for name in SHARED if name in fixtures), None)


def _rank(item: pytest.Item) -> int:
    name = _shared_fixture(item)
    return SHARED.index(name) if name else len(SHARED)


@pytest.fixture(scope="session")
def ministack(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """Return the endpoint of an embedded cloud without a stack."""
    with running(tmp_path_factory.mktemp("ministack")) as endpoint_url:
        yield endpoint_url


recorder.install()


@pytest.fixture(autouse=True)
def least_privilege() -> Iterator[None]:
    """Check that the function's role allows every AWS request of its handler in the test."""
    yield
    requests, errors = set(recorder.recorded), list(recorder.errors)
    recorder.recorded.clear()
    recorder.errors.clear()
    assert errors == []
    if simulator.IS_INSTALLED:
        assert [(function, r) for function, r in requests if not simulator.is_allowed(function, r)] == []


@pytest.fixture
def quiet() -> Iterator[None]:
    """Disable logging: a simulation of hours would write 100,000 lines, which double its duration."""
    logging.disable()
    yield
    logging.disable(logging.NOTSET)
