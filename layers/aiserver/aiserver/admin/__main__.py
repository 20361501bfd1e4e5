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
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from aiserver.admin import changes, jobs, providers
from aiserver.admin.stack import AWS_ERRORS, Admin, AdminError, connect
from aiserver.api_keys import ApiKey

Command = Callable[[], Iterable[dict[str, Any]]]


def main(arguments: Sequence[str] | None = None) -> int:
    args = _parser().parse_args(arguments)
    failed = False
    try:
        commands = _commands(connect(args.stack), args)
    except (AdminError, *AWS_ERRORS) as error:
        return _print_error(error)
    for command in commands:  # a failed command does not stop the others
        try:
            for line in command():
                print(json.dumps(line))
        except (AdminError, *AWS_ERRORS) as error:
            failed = bool(_print_error(error))
    return int(failed)


def _print_error(error: Exception) -> int:
    print(f"aiserver: {error}", file=sys.stderr)
    return 1


def _commands(admin: Admin, args: argparse.Namespace) -> Iterable[Command]:
    match args.resource, args.verb:
        case "keys", "create":
            return [
                lambda: [admin.create_key(args.name, expires_days=args.expires_days, callback_hosts=args.callback_host)]
            ]
        case "keys", "revoke":
            return [lambda: [admin.revoke_key(args.id)]]
        case "keys", "secret":
            return [lambda: [admin.show_secret(args.id)]]
        case "keys", "rotate-secret":
            return [lambda: [admin.rotate_secret(args.id, overlap_hours=args.overlap_hours)]]
        case "keys", "callback-hosts":
            return [lambda: [admin.set_callback_hosts(args.id, args.host)]]
        case "keys", "migrate":
            return [partial(_migrate_key, admin, key, args.back) for key in admin.config.keys()]  # noqa: SIM118  not a dict
        case "keys", _:
            return [admin.list_keys]
        case "jobs", _:
            return [partial(_run_for_job, jobs.redrive_job, admin, job_id) for job_id in args.id]
        case "callbacks", "list":
            return [lambda: map(jobs.dead_callback_view, jobs.dead_callbacks(admin, _dead_filter(args)))]
        case "callbacks", _:
            return _redelivery_commands(admin, args)
        case "providers", "enable" | "disable":
            return [lambda: [providers.set_enabled(admin, args.name, enabled=args.verb == "enable")]]
        case "providers", "show":
            return [lambda: [providers.show_provider(admin, args.name)]]
        case "providers", "check":
            return [partial(_check_provider, admin, name) for name in providers.providers_to_check(admin, args.name)]
        case "providers", "apply":
            return [lambda: _apply(admin, args)]
        case _:
            return [lambda: providers.list_providers(admin)]


def _run_for_job(operation: Callable[[Admin, int], dict[str, Any]], admin: Admin, job_id: int) -> list[dict[str, Any]]:
    return [operation(admin, job_id)]


def _migrate_key(admin: Admin, key: ApiKey, back: bool) -> list[dict[str, Any]]:
    return [admin.migrate_key(key, back=back)]


def _check_provider(admin: Admin, name: str) -> list[dict[str, Any]]:
    return [providers.check_provider(admin, name, _model_listers(admin))]


def _apply(admin: Admin, args: argparse.Namespace) -> list[dict[str, Any]]:
    """Print the changes, ask for confirmation, apply them."""
    plan = changes.plan_changes(admin, _read_file(args.file))
    lines = [line for change in plan for line in change.lines()]
    print("\n".join(lines) or "no changes", file=sys.stderr)
    if args.dry_run:
        return []
    if lines and not args.yes:
        if not sys.stdin.isatty():
            raise AdminError("nothing was changed; add --yes to apply without confirmation")
        print("Apply these changes? [y/N] ", end="", file=sys.stderr, flush=True)
        if sys.stdin.readline().strip().lower() not in ("y", "yes"):
            raise AdminError("nothing was changed")
    changes.apply_changes(admin, plan)
    for line in providers.refresh_model_listings(admin, _model_listers(admin)):
        print(line, file=sys.stderr)
    return providers.list_providers(admin)


def _model_listers(admin: Admin) -> Mapping[str, providers.ModelLister]:
    from aiserver.aws.bedrock import BedrockWire
    from aiserver.providers.http import create_client
    from aiserver.providers.registry import AdapterRegistry

    return AdapterRegistry(create_client, admin.clock, BedrockWire)


def _dead_filter(args: argparse.Namespace) -> jobs.DeadCallbackFilter:
    return jobs.DeadCallbackFilter(args.key, args.host, args.since)


def _redelivery_commands(admin: Admin, args: argparse.Namespace) -> Iterable[Command]:
    if bool(args.id) == args.dead or (args.id and _dead_filter(args) != jobs.DeadCallbackFilter()):
        raise AdminError("callbacks redeliver requires job ids, or --dead with optional --key, --host and --since")
    job_ids = (job.id for job in jobs.dead_callbacks(admin, _dead_filter(args))) if args.dead else args.id
    return (partial(_run_for_job, jobs.redeliver_callback, admin, job_id) for job_id in job_ids)


def _read_file(file: Path) -> str:
    try:
        return file.read_text(encoding="utf-8")
    except OSError as error:
        raise AdminError(f"cannot read {file}: {error.strerror}") from error


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m aiserver.admin",
        description="Manage the API keys, providers, failed jobs and dead callbacks of one stack",
    )
    parser.add_argument("--stack", default=os.environ.get("AISERVER_STACK", "aiserver"))
    resources = parser.add_subparsers(dest="resource", required=True)
    verbs = resources.add_parser("keys").add_subparsers(dest="verb", required=True)
    create = verbs.add_parser("create")
    create.add_argument("name", help="name of the key's owner, shown by `keys list`")
    create.add_argument("--expires-days", type=int)
    create.add_argument(
        "--callback-host",
        metavar="HOST",
        action="append",
        default=[],
        help="a host that ReplyTo may name; repeat for more",
    )
    verbs.add_parser("list")
    verbs.add_parser("revoke").add_argument("id")
    verbs.add_parser("secret").add_argument("id")
    rotate = verbs.add_parser("rotate-secret")
    rotate.add_argument("id")
    rotate.add_argument("--overlap-hours", type=int, default=24, help="how long both secrets sign callbacks")
    migrate = verbs.add_parser("migrate")
    migrate.add_argument("--back", action="store_true", help="move webhook secrets to where earlier versions read them")
    hosts = verbs.add_parser("callback-hosts")
    hosts.add_argument("id")
    hosts.add_argument("host", nargs="*", help="hosts that ReplyTo may name; none: any public host")
    verbs = resources.add_parser("jobs").add_subparsers(dest="verb", required=True)
    verbs.add_parser("redrive").add_argument("id", type=int, nargs="+")
    verbs = resources.add_parser("callbacks").add_subparsers(dest="verb", required=True)
    for verb in (verbs.add_parser("list"), verbs.add_parser("redeliver")):
        verb.add_argument("--key", metavar="KEY_ID", help="only callbacks of jobs of this key")
        verb.add_argument("--host", help="only callbacks to this host")
        verb.add_argument(
            "--since", metavar="DATE", help="only callbacks of jobs that ended on or after DATE, for example 2026-11-25"
        )
    verb.add_argument("--dead", action="store_true", help="all dead callbacks, as shown by `callbacks list`")
    verb.add_argument("id", type=int, nargs="*")
    verbs = resources.add_parser("providers").add_subparsers(dest="verb", required=True)
    for verb in ("enable", "disable"):
        verbs.add_parser(verb).add_argument("name")
    verbs.add_parser("show").add_argument("name")
    verbs.add_parser("check").add_argument("name", nargs="*", help="none: all enabled providers")
    apply = verbs.add_parser("apply")
    apply.add_argument("file", type=Path)
    apply.add_argument("--yes", action="store_true", help="apply without confirmation")
    apply.add_argument("--dry-run", action="store_true", help="print the changes without applying them")
    verbs.add_parser("list")
    return parser


if __name__ == "__main__":
    sys.exit(main())
