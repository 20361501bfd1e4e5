"""What all tests share: no test reaches beyond this machine, or sees the developer's keys."""

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
# Run by its path: a system's Python may have imported a sitecustomize of its own (Debian's and Ubuntu's do).
runpy.run_path(str(GUARD / "sitecustomize.py"))

DEVELOPERS = ("AWS_", "OPENAI_", "OLLAMA_", "LANGCHAIN_", "LANGSMITH_")
for name in list(os.environ):
    if name.startswith(DEVELOPERS) or name in ("PROVIDERS", "STATE_DIR", "STRICT_CALLBACKS"):
        del os.environ[name]
os.environ["PYTHONPATH"] = str(GUARD)  # children install the guard, too
signal.signal(signal.SIGHUP, signal.SIG_DFL)  # nohup ignores it, children inherit that, and tests end them by it

from local.ministack import running  # noqa: E402  reads the environment above
from tests import examples  # noqa: E402
from tests.iam import recorder, simulator  # noqa: E402

# Fixtures that are dear to set up, dearest first. Tests that share one run in one worker, so that it is set up once,
# and before all others, so that the longest group does not begin last.
SHARED = ("started", "ministack")
SHARED_BY_PARAMETER = ("ministack", "cloud")  # of the fixtures of contract and crash tests, which then ask for it


@pytest.hookimpl(tryfirst=True)
def pytest_configure(config: pytest.Config) -> None:
    """Choose the profile and one seed for all randomized tests of this run; workers are handed the same."""
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
    """Give each test its group, which is its file's unless it uses a shared fixture."""
    for item in items:
        if item.get_closest_marker("xdist_group") is None:
            item.add_marker(pytest.mark.xdist_group(_shared(item) or item.nodeid.partition("::")[0]))
    items.sort(key=_rank)


def _shared(item: pytest.Item) -> str | None:
    fixtures, parameters = getattr(item, "fixturenames", ()), getattr(item, "callspec", None)
    if parameters and set(SHARED_BY_PARAMETER) & {one for one in parameters.params.values() if isinstance(one, str)}:
        return "ministack"
    return next((name for name in SHARED if name in fixtures), None)


def _rank(item: pytest.Item) -> int:
    name = _shared(item)
    return SHARED.index(name) if name else len(SHARED)


@pytest.fixture(scope="session")
def ministack(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The endpoint of an embedded cloud without a stack."""
    with running(tmp_path_factory.mktemp("ministack")) as endpoint_url:
        yield endpoint_url


recorder.install()


@pytest.fixture(autouse=True)
def least_privilege() -> Iterator[None]:
    """What a handler asked of AWS in the test must be allowed by its function's role."""
    yield
    recorded, errors = set(recorder.recorded), list(recorder.errors)
    recorder.recorded.clear()
    recorder.errors.clear()
    assert errors == []
    if simulator.IS_INSTALLED:
        assert [(function, r) for function, r in recorded if not simulator.is_allowed(function, r)] == []


@pytest.fixture
def quiet() -> Iterator[None]:
    """Nothing is logged: a simulation of hours would write 100,000 lines, which take as long as all else."""
    logging.disable()
    yield
    logging.disable(logging.NOTSET)
