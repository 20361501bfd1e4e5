"""The admin command line: API keys, providers, failed jobs, dead callbacks, artifacts.

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
    python -m aiserver.admin artifacts rotate-secret  a new secret for the URLs of generated files

AWS_ENDPOINT_URL selects the embedded cloud; --stack selects the stack (default: aiserver).
"""

import argparse
import json
import os
import sys
from collections.abc import Sequence
from pathlib import Path

from aiserver.admin import commands
from aiserver.admin.stack import connect


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command and print its results; return the exit status, which is 1 when anything failed."""
    args = _create_parser().parse_args(arguments)
    command: commands.Command = args.command
    try:
        for result in command(connect(args.stack), args):
            print(json.dumps(result))
    except commands.PartialFailure:
        return 1
    except commands.COMMAND_ERRORS as error:
        commands.print_error(error)
        return 1
    return 0


def _create_parser() -> argparse.ArgumentParser:
    """Return the parser of all commands. Each verb sets `command` to its function."""
    parser = argparse.ArgumentParser(
        prog="python -m aiserver.admin",
        description="Manage the API keys, providers, failed jobs, dead callbacks and artifacts of one stack",
    )
    parser.add_argument("--stack", default=os.environ.get("AISERVER_STACK", "aiserver"))
    resources = parser.add_subparsers(dest="resource", required=True)
    _add_key_commands(resources.add_parser("keys"))
    _add_job_commands(resources.add_parser("jobs"))
    _add_callback_commands(resources.add_parser("callbacks"))
    _add_provider_commands(resources.add_parser("providers"))
    _add_artifact_commands(resources.add_parser("artifacts"))
    return parser


def _add_key_commands(parser: argparse.ArgumentParser) -> None:
    verbs = parser.add_subparsers(dest="verb", required=True)
    create = verbs.add_parser("create")
    create.set_defaults(command=commands.create_api_key)
    _add_key_arguments(create)
    verbs.add_parser("list").set_defaults(command=commands.list_keys)
    revoke = verbs.add_parser("revoke")
    revoke.set_defaults(command=commands.revoke_key)
    revoke.add_argument("id")
    secret = verbs.add_parser("secret")
    secret.set_defaults(command=commands.show_secret)
    secret.add_argument("id")
    rotate = verbs.add_parser("rotate-secret")
    rotate.set_defaults(command=commands.rotate_secret)
    rotate.add_argument("id")
    rotate.add_argument("--overlap-hours", type=int, default=24, help="how long both secrets sign callbacks")
    migrate = verbs.add_parser("migrate")
    migrate.set_defaults(command=commands.migrate_keys)
    migrate.add_argument("--back", action="store_true", help="move webhook secrets to where earlier versions read them")
    hosts = verbs.add_parser("callback-hosts")
    hosts.set_defaults(command=commands.set_callback_hosts)
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
    redrive.set_defaults(command=commands.redrive_jobs)
    redrive.add_argument("id", type=int, nargs="+")


def _add_callback_commands(parser: argparse.ArgumentParser) -> None:
    verbs = parser.add_subparsers(dest="verb", required=True)
    listing = verbs.add_parser("list")
    listing.set_defaults(command=commands.list_dead_callbacks)
    _add_callback_filter(listing)
    redeliver = verbs.add_parser("redeliver")
    redeliver.set_defaults(command=commands.redeliver_callbacks)
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
    enable.set_defaults(command=commands.enable_provider)
    enable.add_argument("name")
    disable = verbs.add_parser("disable")
    disable.set_defaults(command=commands.disable_provider)
    disable.add_argument("name")
    show = verbs.add_parser("show")
    show.set_defaults(command=commands.show_configured)
    show.add_argument("name")
    check = verbs.add_parser("check")
    check.set_defaults(command=commands.check_providers)
    check.add_argument("name", nargs="*", help="none: all enabled providers")
    apply = verbs.add_parser("apply")
    apply.set_defaults(command=commands.apply_providers)
    apply.add_argument("file", type=Path)
    apply.add_argument("--yes", action="store_true", help="apply without confirmation")
    apply.add_argument("--dry-run", action="store_true", help="print the changes without applying them")
    verbs.add_parser("list").set_defaults(command=commands.list_configured)


def _add_artifact_commands(parser: argparse.ArgumentParser) -> None:
    verbs = parser.add_subparsers(dest="verb", required=True)
    rotate = verbs.add_parser("rotate-secret")
    rotate.set_defaults(command=commands.rotate_artifact_secret)
    rotate.add_argument(
        "--overlap-hours", type=int, default=168, help="how long URLs that the current secret signed still work"
    )


if __name__ == "__main__":
    sys.exit(main())
