"""Programs in the languages whose compilers are installed, with the types that the gateway serves.

`make test-languages` runs them. With REQUIRE_TOOLS=1 a missing tool is a failure.
"""

import json
import os
import shutil
import subprocess
from pathlib import Path

import pytest

from tests.flow.conftest import Product, product, running_product
from tests.flow.test_npm_clients import NODE
from tests.languages.harness import PROGRAMS, check_outcome, run_program, save_types

__all__ = ["product", "running_product"]  # fixtures

pytestmark = pytest.mark.skipif(
    os.environ.get("LANGUAGES") != "1", reason="compilers of other languages: `make test-languages` runs them"
)


def require(program: str, package: str) -> str:
    """The path of a program. Skips the test, or fails it with REQUIRE_TOOLS=1, where it is missing."""
    path = shutil.which(program)
    if path is None:
        reason = f"{program} is not installed: {package}"
        (pytest.fail if os.environ.get("REQUIRE_TOOLS") == "1" else pytest.skip)(reason)
    return path


def copy(folder: Path, *names: str) -> None:
    for name in names:
        shutil.copy(PROGRAMS / name, folder)


def test_php_types_run(product: Product, tmp_path: Path) -> None:
    php = require("php", "apt-get install php-cli")
    copy(tmp_path, "ServiceStack.php", "client.php")
    save_types(product, "php", tmp_path / "dtos.php")
    check_outcome(run_program(product, [php, "client.php"], tmp_path), product, tmp_path)


GSON = Path("/usr/share/java/gson.jar")
JVM_CLIENT = PROGRAMS / "java"


def require_gson() -> str:
    if not GSON.exists():
        reason = "gson is not installed: apt-get install libgoogle-gson-java"
        (pytest.fail if os.environ.get("REQUIRE_TOOLS") == "1" else pytest.skip)(reason)
    return str(GSON)


def compile_java(folder: Path, *sources: str) -> str:
    """Compile sources with the stand-in of the client; returns the class path."""
    javac, gson = require("javac", "apt-get install default-jdk-headless"), require_gson()
    client = [str(path) for path in sorted(JVM_CLIENT.glob("net/**/*.java"))]
    run([javac, "-encoding", "UTF-8", "-cp", gson, "-d", "classes", *client, *sources], folder)
    return f"{gson}:classes"


def run(command: list[str], folder: Path) -> None:
    completed = subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=120, check=False)
    assert completed.returncode == 0, completed.stderr + completed.stdout


def test_java_types_run(product: Product, tmp_path: Path) -> None:
    java = require("java", "apt-get install default-jdk-headless")
    save_types(product, "java", tmp_path / "dtos.java")
    shutil.copy(JVM_CLIENT / "Client.java", tmp_path)
    class_path = compile_java(tmp_path, "dtos.java", "Client.java")
    check_outcome(run_program(product, [java, "-cp", class_path, "Client"], tmp_path), product, tmp_path)


def test_kotlin_types_run(product: Product, tmp_path: Path) -> None:
    java, kotlinc = require("java", "apt-get install default-jdk-headless"), require_kotlin()
    save_types(product, "kotlin", tmp_path / "dtos.kt")
    copy(tmp_path, "Client.kt")
    class_path = compile_java(tmp_path)
    run(
        [kotlinc, "-nowarn", "-cp", class_path, "-include-runtime", "-d", "client.jar", "dtos.kt", "Client.kt"],
        tmp_path,
    )
    command = [java, "-cp", f"{class_path}:client.jar", "ClientKt"]
    check_outcome(run_program(product, command, tmp_path), product, tmp_path)


def require_kotlin() -> str:
    return require(str(TOOLS / "kotlin/node_modules/kotlin-compiler/bin/kotlinc"), "make test-languages, with Node.js")


TOOLS = Path(__file__).parent / "tools"


TSCONFIG = {
    "compilerOptions": {
        "strict": True,
        "target": "es2022",
        "module": "nodenext",
        "moduleResolution": "nodenext",
        "skipLibCheck": True,
        "outDir": "out",
    },
    "include": ["client.ts", "dtos.ts"],
}


def test_typescript_types_compile_and_run(product: Product, tmp_path: Path) -> None:
    node = require("node", "Node.js 18 or newer")
    tsc = require(str(TOOLS / "typescript/node_modules/.bin/tsc"), "make test-languages, with Node.js")
    (tmp_path / "node_modules").symlink_to(NODE / "node_modules")
    save_types(product, "typescript", tmp_path / "dtos.ts")
    source = (PROGRAMS / "client.ts").read_text().replace('"./dtos"', '"./dtos.js"')
    (tmp_path / "client.ts").write_text(source)
    (tmp_path / "tsconfig.json").write_text(json.dumps(TSCONFIG))
    (tmp_path / "package.json").write_text('{"type": "module"}')
    run([tsc, "--project", "."], tmp_path)
    check_outcome(run_program(product, [node, "out/client.js"], tmp_path), product, tmp_path)


def test_csharp_types_compile_and_run(product: Product, tmp_path: Path) -> None:
    mcs, mono = (require(program, "apt-get install mono-mcs mono-runtime") for program in ("mcs", "mono"))
    copy(tmp_path, "ServiceStack.cs", "Client.cs")
    save_types(product, "csharp", tmp_path / "dtos.cs", "?AddServiceStackTypes=True")
    references = [f"-r:{name}.dll" for name in ("System.Runtime.Serialization", "System.Web.Extensions")]
    run([mcs, "-nologo", *references, "-out:client.exe", "dtos.cs", "ServiceStack.cs", "Client.cs"], tmp_path)
    check_outcome(run_program(product, [mono, "client.exe"], tmp_path), product, tmp_path)


FSHARP_SOURCES = ("ServiceStack.fs", "JsonApiClient.fs", "Client.fs")
FSHARP_FILES = ("ServiceStack.fs", "dtos.fs", "JsonApiClient.fs", "Client.fs")


def test_fsharp_types_pass_the_type_checker(product: Product, tmp_path: Path) -> None:
    node = require("node", "Node.js 18 or newer")
    copy(tmp_path, "check_fsharp.mjs", *FSHARP_SOURCES)
    save_types(product, "fsharp", tmp_path / "dtos.fs", "?AddServiceStackTypes=True")
    run([node, "check_fsharp.mjs", str(require_tools("fsharp")), *FSHARP_FILES], tmp_path)


def test_dart_types_are_parsed_by_the_formatter(product: Product, tmp_path: Path) -> None:
    node = require("node", "Node.js 18 or newer")
    copy(tmp_path, "check_dart.mjs", "client.dart")
    save_types(product, "dart", tmp_path / "dtos.dart")
    for name in ("dtos.dart", "client.dart"):
        run([node, "check_dart.mjs", str(require_tools("dart")), name], tmp_path)


def require_tools(language: str) -> Path:
    folder = TOOLS / language
    if not (folder / "node_modules").is_dir():
        reason = f"the tools of {language} are not installed: make test-languages, with Node.js"
        (pytest.fail if os.environ.get("REQUIRE_TOOLS") == "1" else pytest.skip)(reason)
    return folder


def test_each_check_finds_a_broken_file(product: Product, tmp_path: Path) -> None:
    """A check that passes for any file would prove nothing."""
    node = require("node", "Node.js 18 or newer")
    copy(tmp_path, "check_fsharp.mjs", "check_dart.mjs", *FSHARP_SOURCES)
    save_types(product, "fsharp", tmp_path / "dtos.fs", "?AddServiceStackTypes=True")
    source = (tmp_path / "dtos.fs").read_text()
    (tmp_path / "dtos.fs").write_text(source.replace("member val MaxTokens", "member val MaxToken"))
    command = [node, "check_fsharp.mjs", str(require_tools("fsharp")), *FSHARP_FILES]
    assert subprocess.run(command, cwd=tmp_path, capture_output=True, timeout=60, check=False).returncode == 1
    save_types(product, "dart", tmp_path / "dtos.dart")
    (tmp_path / "dtos.dart").write_text((tmp_path / "dtos.dart").read_text().replace(");", ";", 1))
    command = [node, "check_dart.mjs", str(require_tools("dart")), "dtos.dart"]
    assert subprocess.run(command, cwd=tmp_path, capture_output=True, timeout=60, check=False).returncode == 1
