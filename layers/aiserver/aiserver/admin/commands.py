"""The commands of the admin command line: each takes the stack and its arguments, and returns its results."""

import argparse
import sys
from collections.abc import Callable, Iterable, Iterator
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

from aiserver.admin import changes, jobs, providers
from aiserver.admin.stack import AWS_ERRORS, Admin, AdminError

Arguments = argparse.Namespace
Result = dict[str, Any]
Command = Callable[[Admin, Arguments], Iterable[Result]]
Subject = TypeVar("Subject")

COMMAND_ERRORS = (AdminError, *AWS_ERRORS)


class PartialFailure(Exception):
    """A command failed for some of its subjects; their errors are already printed."""


def print_error(error: Exception) -> None:
    print(f"aiserver: {error}", file=sys.stderr)


def create_api_key(admin: Admin, args: Arguments) -> list[Result]:
    return [admin.create_key(args.name, expires_days=args.expires_days, callback_hosts=args.callback_host)]


def list_keys(admin: Admin, args: Arguments) -> list[Result]:
    return admin.list_keys()


def revoke_key(admin: Admin, args: Arguments) -> list[Result]:
    return [admin.revoke_key(args.id)]


def show_secret(admin: Admin, args: Arguments) -> list[Result]:
    return [admin.show_secret(args.id)]


def rotate_secret(admin: Admin, args: Arguments) -> list[Result]:
    return [admin.rotate_secret(args.id, overlap_hours=args.overlap_hours)]


def rotate_artifact_secret(admin: Admin, args: Arguments) -> list[Result]:
    return [admin.rotate_artifact_secret(overlap_hours=args.overlap_hours)]


def migrate_keys(admin: Admin, args: Arguments) -> Iterator[Result]:
    return _run_for_each(partial(admin.migrate_key, back=args.back), admin.config.keys())


def set_callback_hosts(admin: Admin, args: Arguments) -> list[Result]:
    return [admin.set_callback_hosts(args.id, args.host)]


def apply_providers(admin: Admin, args: Arguments) -> list[Result]:
    """Print the changes, ask for confirmation, apply them; return the providers.

    Raises: AdminError, when the file is not valid or the operator does not confirm.
    """
    plan = changes.plan_changes(admin, _read_file(args.file))
    lines = [line for change in plan for line in change.lines()]
    print("\n".join(lines) or "no changes", file=sys.stderr)
    if args.dry_run:
        return []
    if lines and not args.yes:
        _ask_for_confirmation()
    changes.apply_changes(admin, plan)
    for line in providers.refresh_model_listings(admin, _create_model_lister(admin)):
        print(line, file=sys.stderr)
    return providers.list_providers(admin)


def _read_file(file: Path) -> str:
    try:
        return file.read_text(encoding="utf-8")
    except OSError as error:
        raise AdminError(f"cannot read {file}: {error.strerror}") from error


def _ask_for_confirmation() -> None:
    """Raises: AdminError, unless the operator answers yes at a terminal."""
    if not sys.stdin.isatty():
        raise AdminError("nothing was changed; add --yes to apply without confirmation")
    print("Apply these changes? [y/N] ", end="", file=sys.stderr, flush=True)
    answer = sys.stdin.readline().strip().lower()
    if answer not in ("y", "yes"):
        raise AdminError("nothing was changed")


def _create_model_lister(admin: Admin) -> providers.ModelLister:
    from aiserver.aws.bedrock import bedrock_transport
    from aiserver.providers.dispatch import Dispatcher
    from aiserver.providers.http import create_client
    from aiserver.providers.registry import AdapterRegistry

    return Dispatcher(create_client(), AdapterRegistry(admin.clock, bedrock_transport), admin.clock)


def list_configured(admin: Admin, args: Arguments) -> list[Result]:
    return providers.list_providers(admin)


def show_configured(admin: Admin, args: Arguments) -> list[Result]:
    return [providers.show_provider(admin, args.name)]


def check_providers(admin: Admin, args: Arguments) -> Iterator[Result]:
    names = providers.providers_to_check(admin, args.name)
    check = partial(providers.check_provider, admin, lister=_create_model_lister(admin))
    return _run_for_each(check, names)


def disable_provider(admin: Admin, args: Arguments) -> list[Result]:
    return [providers.set_enabled(admin, args.name, enabled=False)]


def enable_provider(admin: Admin, args: Arguments) -> list[Result]:
    return [providers.set_enabled(admin, args.name, enabled=True)]


def redrive_jobs(admin: Admin, args: Arguments) -> Iterator[Result]:
    return _run_for_each(partial(jobs.redrive_job, admin), args.id)


def list_dead_callbacks(admin: Admin, args: Arguments) -> Iterator[Result]:
    for job in jobs.dead_callbacks(admin, _callback_filter(args)):
        yield jobs.dead_callback_view(job)


def redeliver_callbacks(admin: Admin, args: Arguments) -> Iterator[Result]:
    """Raises: AdminError, when there are neither job ids nor --dead, or job ids with --dead or a filter."""
    criteria = _callback_filter(args)
    if args.dead and not args.id:
        job_ids = (job.id for job in jobs.dead_callbacks(admin, criteria))
    elif args.id and not args.dead and criteria == jobs.DeadCallbackFilter():
        job_ids = args.id
    else:
        raise AdminError("callbacks redeliver requires job ids, or --dead with optional --key, --host and --since")
    return _run_for_each(partial(jobs.redeliver_callback, admin), job_ids)


def _callback_filter(args: Arguments) -> jobs.DeadCallbackFilter:
    return jobs.DeadCallbackFilter(args.key, args.host, args.since)


def _run_for_each(operation: Callable[[Subject], Result], subjects: Iterable[Subject]) -> Iterator[Result]:
    """Yield the result for each subject. An error is printed and does not stop the others.

    Raises: PartialFailure, at the end, when there was an error.
    """
    has_failed = False
    for subject in subjects:
        try:
            result = operation(subject)
        except COMMAND_ERRORS as error:
            print_error(error)
            has_failed = True
        else:
            yield result
    if has_failed:
        raise PartialFailure
