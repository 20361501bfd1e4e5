"""Generates the tables of provider presets in docs/providers.md: `python -m docs.catalogue`.

`--check` writes nothing and exits 1 when the page is stale; used by `make check`.
"""

import re
import sys
from collections.abc import Iterable
from pathlib import Path

from aiserver.providers.catalogue import (
    AUDIO_OPERATIONS,
    AUDIO_TO_TEXT,
    CATALOGUE,
    IMAGE_OPERATIONS,
    ImageFacts,
    Preset,
    TranscriptFormats,
)
from docs.generate import write

PAGE = Path(__file__).parent / "providers.md"
IMAGES_TEXT = (
    "Image operations. Optional members are those of AI Server's requests that OpenAI's API does not have. The gateway"
    " leaves out those that a provider does not support, and `x-ignored` names them. A mask that a provider would read"
    " differently from its caller is a 400."
)
SHORT = {
    "chat.completions": "chat",
    **{name: name.removeprefix("audio.") for name in AUDIO_OPERATIONS},
    **{name: name.removeprefix("images.") for name in IMAGE_OPERATIONS},
}


def main(arguments: list[str]) -> int:
    parts = [
        preset_table(CATALOGUE.items()),
        "### Audio",
        "Audio operations, and the formats of transcripts and translations by model, or by the start of its name:",
        audio_table(CATALOGUE.items()),
        "### Images",
        IMAGES_TEXT,
        image_table(CATALOGUE.items()),
        "### Differences from OpenAI",
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


def image_table(presets: Iterable[tuple[str, Preset]]) -> str:
    """One row for each preset with image operations, and model."""
    columns = (
        "preset",
        "model",
        "image operations",
        "size",
        "edited pixels of a mask",
        "optional members",
        "largest `n`",
    )
    rows = [_image_row(name, preset, facts) for name, preset in presets for facts in preset.image_facts]
    return "\n".join([f"| {' | '.join(columns)} |", "|---" * len(columns) + "|", *rows])


def quirk_list() -> str:
    """One line for each quirk."""
    quirks = [(name, quirk) for name, preset in CATALOGUE.items() for quirk in preset.quirks]
    return "\n".join(f"- `{name}`: {quirk.text} ({_link(quirk.source)})" for name, quirk in quirks)


def _link(source: str) -> str:
    """A link to a source. A thread is a user report, not documentation of the vendor."""
    is_thread = re.search(r"/(issues|pull|discussions)/\d+$|^https://discuss\.", source)
    return f"[{'user report' if is_thread else 'source'}]({source})"


def _row(name: str, preset: Preset) -> str:
    media = {"audio": AUDIO_OPERATIONS, "images": IMAGE_OPERATIONS}
    others = [name for name in preset.operations if not any(name in names for names in media.values())]
    operations = [SHORT.get(operation, operation) for operation in others]
    operations += [kind for kind, names in media.items() if set(preset.operations) & set(names)]
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


def _image_row(name: str, preset: Preset, facts: ImageFacts) -> str:
    paths = {operation: f" at `{path}`" for operation, path in preset.paths.items()}
    operations = [operation for operation in preset.operations if operation in IMAGE_OPERATIONS]
    names = [SHORT[operation] + paths.get(operation, "") for operation in operations]
    members = sorted([*facts.optional.values(), *(("negative prompt",) if facts.negative_separator else ())])
    cells = [
        f"`{name}`",
        f"`{facts.model_prefix}…`" if facts.model_prefix else "all",
        f"{', '.join(names)} ({_link(facts.source)})",
        f"`{facts.size}`",
        (facts.mask or "not known") if "images.edits" in preset.operations else "no edits",
        f"all, in `<{facts.prompt_element}>`" if facts.prompt_element else ", ".join(members) or "none",
        str(facts.max_images or "not known"),
    ]
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
