"""Generates the tables of provider presets in docs/providers.md: `python -m docs.catalogue`.

`--check` writes nothing and exits 1 when the page is stale; used by `make check`.
"""

import re
import sys
from collections.abc import Iterable
from pathlib import Path

from aiserver.providers.catalogue import AUDIO_OPERATIONS, AUDIO_TO_TEXT, CATALOGUE, Preset, TranscriptFormats
from docs.generate import write

PAGE = Path(__file__).parent / "providers.md"
SHORT = {"chat.completions": "chat", **{name: name.removeprefix("audio.") for name in AUDIO_OPERATIONS}}


def main(arguments: list[str]) -> int:
    parts = [
        preset_table(CATALOGUE.items()),
        "Audio operations, and the formats of transcripts and translations by model, or by the start of its name:",
        audio_table(CATALOGUE.items()),
        "Differences from OpenAI, with sources:",
        quirk_list(),
    ]
    return write(PAGE, "docs/catalogue.py", parts, arguments)


def preset_table(presets: Iterable[tuple[str, Preset]]) -> str:
    """One row for each preset."""
    head = "| preset | provider | `base_url` | API key header | operations | lists models | stream usage | queue |"
    return "\n".join([head, "|---" * 8 + "|", *(_row(name, preset) for name, preset in presets)])


def audio_table(presets: Iterable[tuple[str, Preset]]) -> str:
    """One row for each preset with audio operations."""
    head = "| preset | audio operations | `response_format` |"
    rows = [_audio_row(name, preset) for name, preset in presets if set(preset.operations) & set(AUDIO_OPERATIONS)]
    return "\n".join([head, "|---" * 3 + "|", *rows])


def quirk_list() -> str:
    """One line for each quirk."""
    quirks = [(name, quirk) for name, preset in CATALOGUE.items() for quirk in preset.quirks]
    return "\n".join(f"- `{name}`: {quirk.text} ({_link(quirk.source)})" for name, quirk in quirks)


def _link(source: str) -> str:
    """A link to a source. A thread is a user report, not documentation of the vendor."""
    is_thread = re.search(r"/(issues|pull|discussions)/\d+$|^https://discuss\.", source)
    return f"[{'user report' if is_thread else 'source'}]({source})"


def _row(name: str, preset: Preset) -> str:
    operations = [
        SHORT.get(operation, operation) for operation in preset.operations if operation not in AUDIO_OPERATIONS
    ]
    if set(preset.operations) & set(AUDIO_OPERATIONS):
        operations.append("audio")
    cells = [
        f"`{name}`",
        f"[{preset.title}]({preset.source})",
        f"`{preset.base_url}`",
        f"`{preset.auth_header}`",
        ", ".join(operations),
        "yes" if preset.lists_models else "no",
        f"yes ({_link(preset.stream_usage)})" if preset.stream_usage else "no",
        preset.queue,
    ]
    return f"| {' | '.join(cells)} |"


def _audio_row(name: str, preset: Preset) -> str:
    operations = [operation for operation in preset.operations if operation in AUDIO_OPERATIONS]
    paths = [f"`{preset.paths[operation]}`" for operation in operations if operation in preset.paths]
    names = ", ".join(SHORT[operation] for operation in operations) + (f" at {', '.join(paths)}" if paths else "")
    cells = [f"`{name}`", f"{names} ({_link(preset.audio_source or preset.source)})", _formats(preset)]
    return f"| {' | '.join(cells)} |"


def _formats(preset: Preset) -> str:
    if not set(preset.operations) & set(AUDIO_TO_TEXT):
        return "no transcripts"
    return "; ".join(map(_model_formats, preset.transcript_formats)) or "not checked"


def _model_formats(row: TranscriptFormats) -> str:
    model = f"`{row.model_prefix}`: " if row.model_prefix else ""
    return f"{model}{', '.join(row.formats)} ({_link(row.source)})"


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
