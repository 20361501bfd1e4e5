"""The files of /types: headers as the clients' tools read them, options, closures, names that are keywords."""

import re
from collections.abc import Mapping

import pytest

from aiserver.dtos.language import Language
from aiserver.dtos.schema import Dto, DtoMember, DtoRequest, Enumeration, Table
from aiserver.dtos.types import LANGUAGES, find_language, language_file, language_list
from aiserver.errors import InvalidRequest, NotFound

BASE_URL = "https://a1b2c3d4e5.execute-api.us-east-1.amazonaws.com/Prod"
ENDS = ("*/", "*)", '"""')
STARTS = {"python": '""" Options:', "fsharp": "(* Options:", "vbnet": "'Options:"}


def by_name(language: Language) -> str:
    return language.name


def file_of(name: str, **query: str) -> str:
    return language_file(find_language(name), query, BASE_URL)


def read_header(text: str) -> tuple[str, dict[str, str]]:
    """The base URL and the options that the tools send when they update a file."""
    url, options = "", dict[str, str]()
    lines = text.split("\n")
    start = next(index for index, line in enumerate(lines) if "Options:" in line)
    prefix = "'" if lines[start].startswith("'") else ""
    for line in lines[start + 1 :]:
        if line.startswith(ENDS) or (prefix and not line):
            break
        line = line.removeprefix(prefix)
        if line.startswith("BaseUrl: "):
            url = line.removeprefix("BaseUrl: ")
        elif url and (match := re.fullmatch(r"(\w+): (.*)", line)):
            options[match[1]] = match[2]
    return url, options


@pytest.mark.parametrize("language", LANGUAGES, ids=by_name)
def test_header_starts_the_file_and_names_the_base_url(language: Language) -> None:
    lines = language_file(language, {}, BASE_URL).split("\n")
    first = 1 if language.name == "php" else 0  # after <?php
    assert lines[first] == STARTS.get(language.name, "/* Options:")
    keys = [re.split(r":", line.lstrip("'"))[0] for line in lines[first + 1 : first + 6]]
    expected = ["Date", "Version", "Tip", "BaseUrl"]
    assert [key for key in keys if key != "SwiftVersion"][:4] == expected
    assert read_header("\n".join(lines)) == (BASE_URL, {})


@pytest.mark.parametrize("language", LANGUAGES, ids=by_name)
def test_an_update_with_the_options_of_the_header_gives_the_same_file(language: Language) -> None:
    query = {"IncludeTypes": "OpenAiChatCompletion.*"}
    if "Package" in language.options:
        query["Package"] = "org.example"
    if "GlobalNamespace" in language.options:
        query["GlobalNamespace"] = "Example"
    text = language_file(language, query, BASE_URL)
    url, options = read_header(text)
    assert (url, options) == (BASE_URL, query)
    assert language_file(language, options, url) == text


@pytest.mark.parametrize("language", LANGUAGES, ids=by_name)
@pytest.mark.parametrize("include", ["OpenAiChatCompletion", "OpenAiChatCompletion.*"])
def test_included_types_bring_those_that_they_refer_to(language: Language, include: str) -> None:
    text = language_file(language, {"includetypes": include}, BASE_URL)
    for name in ("OpenAiChat", "OpenAiMessage", "ToolFunction", "OpenAiChatResponse", "OpenAiUsage"):
        assert re.search(rf"\b{name}\b", text)
    assert "QueueOpenAiChatCompletion" not in text
    assert "BackgroundJobState" not in text


@pytest.mark.parametrize("language", LANGUAGES, ids=by_name)
def test_every_member_of_the_status_is_in_every_language(language: Language) -> None:
    text = language_file(language, {}, BASE_URL)
    for name in ("jobState", "maybeBilled", "waitReason", "resultUrl", "chatResponse", "max_tokens", "finish_reason"):
        assert name in text or (language.name == "python" and re.sub("([A-Z])", r"_\1", name).lower() in text)


def test_tags_include_their_requests() -> None:
    text = file_of("csharp", IncludeTypes="{Media,Jobs}")
    assert "class TextToImage" in text
    assert "class CancelJob" in text
    assert "class ActiveAiModels" not in text


def test_excluded_types_are_left_out() -> None:
    assert "class CancelJob" not in file_of("csharp", ExcludeTypes="CancelJob,QueryJobs")
    assert "IReturn<" not in file_of("typescript", ExcludeTypes="services", AddServiceStackTypes="False")
    assert "class OpenAiMessage" not in file_of("csharp", ExcludeTypes="types")


@pytest.mark.parametrize(
    ("name", "query", "expected"),
    [
        ("java", {"Package": "a.b"}, "package a.b;"),
        ("kotlin", {"Package": "a.b"}, "package a.b"),
        ("java", {"GlobalNamespace": "models"}, "public class models"),
        ("csharp", {"GlobalNamespace": "My.Models"}, "namespace My.Models"),
        ("typescript", {"GlobalNamespace": "models"}, "export namespace models {"),
        ("php", {"GlobalNamespace": "models"}, "<?php namespace models;"),
        ("csharp", {"AddServiceStackTypes": "True"}, "class ResponseStatus"),
        ("typescript", {"ExportAsTypes": "False"}, "\nclass OpenAiChat"),
    ],
)
def test_option_has_its_effect(name: str, query: Mapping[str, str], expected: str) -> None:
    assert expected in language_file(find_language(name), query, BASE_URL)
    assert expected not in file_of(name)


def test_unknown_options_and_another_base_url_are_ignored() -> None:
    assert file_of("swift", BaseUrl="https://evil.example", MakeVirtual="True") == file_of("swift")


@pytest.mark.parametrize("name", ["Package", "GlobalNamespace", "package"])
@pytest.mark.parametrize("value", ["a b", "a;*/", "a\nb", "ü", "a-b", "*/"])
def test_name_that_could_leave_the_comment_is_rejected(name: str, value: str) -> None:
    with pytest.raises(InvalidRequest, match="may contain only letters"):
        file_of("java", **{name: value})


@pytest.mark.parametrize("option", ["IncludeTypes", "ExcludeTypes"])
@pytest.mark.parametrize("value", ["OpenAiChatCompletio", "*/", "A\n*/ class X", "{Nope}"])
def test_unknown_type_is_not_found(option: str, value: str) -> None:
    with pytest.raises(NotFound):
        file_of("java", **{option: value})


def test_unknown_type_suggests_similar_names() -> None:
    with pytest.raises(NotFound, match="did you mean OpenAiChatCompletion"):
        file_of("java", IncludeTypes="OpenAiChatComplete")


@pytest.mark.parametrize(
    ("name", "language"), [("js", "mjs"), ("MJS", "mjs"), ("swift4", "swift"), ("typescript.d", "typescript.d")]
)
def test_language_has_aliases(name: str, language: str) -> None:
    assert find_language(name).name == language


def test_unknown_language_is_not_found_and_names_the_languages() -> None:
    with pytest.raises(NotFound, match=r"cobol.*csharp, fsharp, vbnet.*swift"):
        find_language("cobol")


def test_list_has_the_url_of_each_language() -> None:
    urls = language_list(BASE_URL)
    assert urls["CSharp"] == f"{BASE_URL}/types/csharp"
    assert {"Python", "Mjs", "TypeScript", "Php", "Java", "Kotlin", "Swift", "Dart", "FSharp", "VbNet"} <= set(urls)


@pytest.mark.parametrize("language", LANGUAGES, ids=by_name)
def test_file_contains_no_other_host_or_path_of_this_machine(language: Language) -> None:
    text = language_file(language, {}, BASE_URL)
    assert set(re.findall(r"https?://[^\s\"'/]+", text)) <= {"https://a1b2c3d4e5.execute-api.us-east-1.amazonaws.com"}
    assert not re.search(r"/home/|/tmp/|/work/|ak-", text)


def test_base_members_are_in_the_closure_of_a_table() -> None:
    table = Table(
        (Enumeration("Color", "A color.", ("Red",)),),
        (
            Dto("Base", "A base.", (DtoMember("color", "Color", "Its color"),)),
            DtoRequest(
                "Derived", "A request.", (DtoMember("object", "string", "Its object"),), base="Base", returns="Other"
            ),
            Dto("Other", "A response."),
        ),
    )
    derived = table.find("Derived")
    assert derived
    assert [member.name for member in table.all_members(derived)] == ["color", "object"]
    assert set(table.references(derived)) == {"Base", "Other"}
