"""Generates docs/use/quick-starts.md from the tested programs of each language: `python -m docs.quick_starts`.

`--check` writes nothing and exits 1 when the page is stale; used by `make check`.
"""

import sys
import textwrap
from dataclasses import dataclass
from pathlib import Path

from docs.generate import write

ROOT = Path(__file__).parent.parent
PAGE, PROGRAMS = ROOT / "docs/use/quick-starts.md", ROOT / "tests/languages/programs"
START = "Quick start."


@dataclass(frozen=True)
class QuickStart:
    """A section of the page. `path` and `file` are those of the types, `client` is how the client is installed."""

    name: str
    syntax: str
    path: str
    file: str
    program: str
    client: str


SECTIONS = (
    QuickStart("Python", "python", "python", "dtos.py", "client.py", 'pip install servicestack "dataclasses<0.7"'),
    QuickStart("TypeScript", "ts", "typescript", "dtos.ts", "client.ts", "npm install @servicestack/client"),
    QuickStart("JavaScript", "js", "mjs", "dtos.mjs", "client.mjs", "npm install @servicestack/client"),
    QuickStart("C#", "csharp", "csharp", "dtos.cs", "Client.cs", "dotnet add package ServiceStack.Client"),
    QuickStart("F#", "fsharp", "fsharp", "dtos.fs", "Client.fs", "dotnet add package ServiceStack.Client"),
    QuickStart("VB.NET", "vb", "vbnet", "dtos.vb", "Client.vb", "dotnet add package ServiceStack.Client"),
    QuickStart("Java", "java", "java", "dtos.java", "java/Client.java", "net.servicestack:client"),
    QuickStart("Kotlin", "kotlin", "kotlin", "dtos.kt", "Client.kt", "net.servicestack:client"),
    QuickStart("Swift", "swift", "swift", "dtos.swift", "client.swift", "github.com/ServiceStack/ServiceStack.Swift"),
    QuickStart("Dart", "dart", "dart", "dtos.dart", "client.dart", "dart pub add servicestack"),
    QuickStart("PHP", "php", "php", "dtos.php", "client.php", "composer require servicestack/client"),
)


def main(arguments: list[str]) -> int:
    return write(PAGE, "docs/quick_starts.py", [section(row) for row in SECTIONS], arguments)


def section(row: QuickStart) -> str:
    return "\n".join(
        [
            f"## {row.name}",
            "",
            f"Types: `curl -s $B/types/{row.path} -o {row.file}`. Client: `{row.client}`.",
            "",
            f"```{row.syntax}",
            quick_start((PROGRAMS / row.program).read_text(encoding="utf-8")),
            "```",
        ]
    )


def quick_start(program: str) -> str:
    """The lines after the comment `Quick start.`, up to the first empty line."""
    _, _, after = program.partition(START)
    block, _, _ = after.partition("\n\n")
    return textwrap.dedent(block.strip("\n"))


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
