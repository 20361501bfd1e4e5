"""The admin command line: API keys, providers, failed jobs, dead callbacks.

    python -m aiserver.admin keys create my-app       prints the key, once
    python -m aiserver.admin keys list
    python -m aiserver.admin keys revoke KEY_ID
    python -m aiserver.admin keys secret KEY_ID       prints the secrets that sign its callbacks
    python -m aiserver.admin keys rotate-secret KEY_ID
    python -m aiserver.admin keys migrate             after an upgrade; --back before a rollback (docs/operate.md)
    python -m aiserver.admin keys callback-hosts KEY_ID hooks.example.com '*.example.org'
    python -m aiserver.admin providers apply providers.yaml   prints the changes, asks to apply them (--yes, --dry-run)
    python -m aiserver.admin providers list
    python -m aiserver.admin providers show NAME      with its circuit state and active calls
    python -m aiserver.admin providers check [NAME …] lists their models, which is free
    python -m aiserver.admin providers disable NAME   stops calls to it; enable resumes them
    python -m aiserver.admin jobs redrive JOB_ID …    queues failed jobs again
    python -m aiserver.admin callbacks list           dead callbacks (filters: --key, --host, --since)
    python -m aiserver.admin callbacks redeliver JOB_ID …   or --dead with the same filters: sends them again

AWS_ENDPOINT_URL selects the embedded cloud; --stack selects the stack (default: aiserver).
"""

import argparse
import json
import os
import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

from aiserver.admin import changes, jobs, providers
from aiserver.admin.stack import AWS_ERRORS, Admin, AdminError, connect

Arguments = argparse.Namespace
Result = dict[str, Any]
Command = Callable[[Admin, Arguments], Iterable[Result]]
Subject = TypeVar("Subject")

COMMAND_ERRORS = (AdminError, *AWS_ERRORS)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command and print its results; return the exit status, which is 1 when anything failed."""
    args = _create_parser().parse_args(arguments)
    command: Command = args.command
    try:
        for result in command(connect(args.stack), args):
            print(json.dumps(result))
    except PartialFailure:
        return 1
    except COMMAND_ERRORS as error:
        _print_error(error)
        return 1
    return 0


class PartialFailure(Exception):
    """A command failed for some of its subjects; their errors are already printed."""


def _print_error(error: Exception) -> None:
    print(f"aiserver: {error}", file=sys.stderr)


def _create_parser() -> argparse.ArgumentParser:
    """Return the parser of all commands. Each verb sets `command` to its function."""
    parser = argparse.ArgumentParser(
        prog="python -m aiserver.admin",
        description="Manage the API keys, providers, failed jobs and dead callbacks of one stack",
    )
    parser.add_argument("--stack", default=os.environ.get("AISERVER_STACK", "aiserver"))
    resources = parser.add_subparsers(dest="resource", required=True)
    _add_key_commands(resources.add_parser("keys"))
    _add_job_commands(resources.add_parser("jobs"))
    _add_callback_commands(resources.add_parser("callbacks"))
    _add_provider_commands(resources.add_parser("providers"))
    return parser


def _add_key_commands(parser: argparse.ArgumentParser) -> None:
    verbs = parser.add_subparsers(dest="verb", required=True)
    create = verbs.add_parser("create")
    create.set_defaults(command=_create_key)
    _add_key_arguments(create)
    verbs.add_parser("list").set_defaults(command=_list_keys)
    revoke = verbs.add_parser("revoke")
    revoke.set_defaults(command=_revoke_key)
    revoke.add_argument("id")
    secret = verbs.add_parser("secret")
    secret.set_defaults(command=_show_secret)
    secret.add_argument("id")
    rotate = verbs.add_parser("rotate-secret")
    rotate.set_defaults(command=_rotate_secret)
    rotate.add_argument("id")
    rotate.add_argument("--overlap-hours", type=int, default=24, help="how long both secrets sign callbacks")
    migrate = verbs.add_parser("migrate")
    migrate.set_defaults(command=_migrate_keys)
    migrate.add_argument("--back", action="store_true", help="move webhook secrets to where earlier versions read them")
    hosts = verbs.add_parser("callback-hosts")
    hosts.set_defaults(command=_set_callback_hosts)
    hosts.add_argument("id")
    hosts.add_argument("host", nargs="*", help="hosts that ReplyTo may name; none: any public host")


def _add_key_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("name", help="name of the key's owner, shown by `keys list`")
    parser.add_argument("--expires-days", type=int)
    parser.add_argument(
        "--callback-host",
        metavar="HOST",
        action="append",
        default=[],
        help="a host that ReplyTo may name; repeat for more",
    )


def _add_job_commands(parser: argparse.ArgumentParser) -> None:
    verbs = parser.add_subparsers(dest="verb", required=True)
    redrive = verbs.add_parser("redrive")
    redrive.set_defaults(command=_redrive_jobs)
    redrive.add_argument("id", type=int, nargs="+")


def _add_callback_commands(parser: argparse.ArgumentParser) -> None:
    verbs = parser.add_subparsers(dest="verb", required=True)
    listing = verbs.add_parser("list")
    listing.set_defaults(command=_list_dead_callbacks)
    _add_callback_filter(listing)
    redeliver = verbs.add_parser("redeliver")
    redeliver.set_defaults(command=_redeliver_callbacks)
    _add_callback_filter(redeliver)
    redeliver.add_argument("--dead", action="store_true", help="all dead callbacks, as shown by `callbacks list`")
    redeliver.add_argument("id", type=int, nargs="*")


def _add_callback_filter(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--key", metavar="KEY_ID", help="only callbacks of jobs of this key")
    parser.add_argument("--host", help="only callbacks to this host")
    parser.add_argument(
        "--since", metavar="DATE", help="only callbacks of jobs that ended on or after DATE, for example 2026-11-25"
    )


def _add_provider_commands(parser: argparse.ArgumentParser) -> None:
    verbs = parser.add_subparsers(dest="verb", required=True)
    enable = verbs.add_parser("enable")
    enable.set_defaults(command=_enable_provider)
    enable.add_argument("name")
    disable = verbs.add_parser("disable")
    disable.set_defaults(command=_disable_provider)
    disable.add_argument("name")
    show = verbs.add_parser("show")
    show.set_defaults(command=_show_provider)
    show.add_argument("name")
    check = verbs.add_parser("check")
    check.set_defaults(command=_check_providers)
    check.add_argument("name", nargs="*", help="none: all enabled providers")
    apply = verbs.add_parser("apply")
    apply.set_defaults(command=_apply_providers)
    apply.add_argument("file", type=Path)
    apply.add_argument("--yes", action="store_true", help="apply without confirmation")
    apply.add_argument("--dry-run", action="store_true", help="print the changes without applying them")
    verbs.add_parser("list").set_defaults(command=_list_providers)


def _create_key(admin: Admin, args: Arguments) -> list[Result]:
    return [admin.create_key(args.name, expires_days=args.expires_days, callback_hosts=args.callback_host)]


def _list_keys(admin: Admin, args: Arguments) -> list[Result]:
    return admin.list_keys()


def _revoke_key(admin: Admin, args: Arguments) -> list[Result]:
    return [admin.revoke_key(args.id)]


def _show_secret(admin: Admin, args: Arguments) -> list[Result]:
    return [admin.show_secret(args.id)]


def _rotate_secret(admin: Admin, args: Arguments) -> list[Result]:
    return [admin.rotate_secret(args.id, overlap_hours=args.overlap_hours)]


def _migrate_keys(admin: Admin, args: Arguments) -> Iterator[Result]:
    return _run_for_each(partial(admin.migrate_key, back=args.back), admin.config.keys())


def _set_callback_hosts(admin: Admin, args: Arguments) -> list[Result]:
    return [admin.set_callback_hosts(args.id, args.host)]


def _apply_providers(admin: Admin, args: Arguments) -> list[Result]:
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


def _list_providers(admin: Admin, args: Arguments) -> list[Result]:
    return providers.list_providers(admin)


def _show_provider(admin: Admin, args: Arguments) -> list[Result]:
    return [providers.show_provider(admin, args.name)]


def _check_providers(admin: Admin, args: Arguments) -> Iterator[Result]:
    names = providers.providers_to_check(admin, args.name)
    check = partial(providers.check_provider, admin, lister=_create_model_lister(admin))
    return _run_for_each(check, names)


def _disable_provider(admin: Admin, args: Arguments) -> list[Result]:
    return [providers.set_enabled(admin, args.name, enabled=False)]


def _enable_provider(admin: Admin, args: Arguments) -> list[Result]:
    return [providers.set_enabled(admin, args.name, enabled=True)]


def _redrive_jobs(admin: Admin, args: Arguments) -> Iterator[Result]:
    return _run_for_each(partial(jobs.redrive_job, admin), args.id)


def _list_dead_callbacks(admin: Admin, args: Arguments) -> Iterator[Result]:
    for job in jobs.dead_callbacks(admin, _callback_filter(args)):
        yield jobs.dead_callback_view(job)


def _redeliver_callbacks(admin: Admin, args: Arguments) -> Iterator[Result]:
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
            _print_error(error)
            has_failed = True
        else:
            yield result
    if has_failed:
        raise PartialFailure


if __name__ == "__main__":
    sys.exit(main())
