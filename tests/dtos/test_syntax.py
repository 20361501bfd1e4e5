"""Swift, Dart and VB.NET, which cannot be compiled here: their files parse, and declare what the table contains.

A parser proves the grammar of a template, not its types: so each class, member, type and name on the wire is read from
the syntax tree and compared with the table.
"""

import re
from collections.abc import Iterator
from pathlib import Path

import pytest
import tree_sitter
import tree_sitter_dart
import tree_sitter_swift
import tree_sitter_vb_dotnet

from aiserver.dtos.language import ERROR_TYPES, pascal_case
from aiserver.dtos.schema import DtoMember, Shape
from aiserver.dtos.table import TABLE
from aiserver.dtos.types import find_language, language_file

GRAMMARS = {"swift": tree_sitter_swift, "dart": tree_sitter_dart, "vbnet": tree_sitter_vb_dotnet}
CLASS = {"swift": "class_declaration", "dart": "class_definition", "vbnet": "class_block"}
NAMES = ("string", "int", "long", "double", "bool", "date", "duration")
SCALARS = {
    "swift": dict(zip(NAMES, ("String", "Int", "Int", "Double", "Bool", "Date", "String"), strict=True)),
    "dart": dict(zip(NAMES, ("String", "int", "int", "double", "bool", "DateTime", "String"), strict=True)),
    "vbnet": dict(zip(NAMES, ("String", "Integer", "Long", "Double", "Boolean", "Date", "String"), strict=True)),
}
ANY = {"swift": "JsonValue", "dart": "dynamic", "vbnet": "Object"}
VALUES = {"int", "long", "double", "bool", "date", *TABLE.enumeration_names}
# `content` of a message is a text or parts.
SPECIAL = {("swift", "OpenAiMessage", "content"): "String?"}


def text(node: tree_sitter.Node) -> str:
    assert node.text is not None
    return node.text.decode()


def parse(language: str) -> tree_sitter.Node:
    source = language_file(find_language(language), {}, "https://x.example/Prod").encode()
    parser = tree_sitter.Parser(tree_sitter.Language(GRAMMARS[language].language()))
    return parser.parse(source).root_node


def descendants(node: tree_sitter.Node, kind: str) -> Iterator[tree_sitter.Node]:
    for child in node.children:
        if child.type == kind:
            yield child
        yield from descendants(child, kind)


def classes(language: str, root: tree_sitter.Node) -> dict[str, dict[str, str]]:
    """The type of each member of each class."""
    return {
        text(name): dict(declared_members(language, node))
        for node in descendants(root, CLASS[language])
        if (name := node.child_by_field_name("name")) and not re.match(r"\w+ (?:indirect )?enum", text(node))
    }


def declared_members(language: str, node: tree_sitter.Node) -> Iterator[tuple[str, str]]:
    if language == "dart":
        for name in descendants(node, "initialized_identifier"):
            declaration = name.parent and name.parent.parent
            assert declaration
            identifier = text(name.children[0])
            yield identifier, re.sub(rf"\s*\b{identifier}\b.*", "", text(declaration)).strip()
        return
    for declaration in descendants(node, "property_declaration"):
        if text(declaration).startswith(("let ", "var ")):  # within a function
            continue
        name = declaration.child_by_field_name("name")
        assert name
        type = text(declaration).partition(" As " if language == "vbnet" else ":")[2]
        if language == "vbnet":
            type = text(next(descendants(declaration, "as_clause"))).removeprefix("As ")
        yield text(name).strip("[]`"), type.strip()


def expected_type(language: str, class_name: str, member: DtoMember) -> str:
    if special := SPECIAL.get((language, class_name, member.name)):
        return special
    name = ANY[language] if member.element == "any" else SCALARS[language].get(member.element, member.element)
    if language == "vbnet":
        is_nullable = member.element in VALUES and not member.is_required
        value = f"{name}?" if is_nullable else name
        return {Shape.VALUE: value, Shape.LIST: f"List(Of {name})", Shape.MAP: f"Dictionary(Of String, {name})"}[
            member.shape
        ]
    if language == "swift":
        return {Shape.VALUE: name, Shape.LIST: f"[{name}]", Shape.MAP: f"[String:{name}]"}[member.shape] + "?"
    optional = "" if name == "dynamic" and member.shape is Shape.VALUE else "?"
    return {Shape.VALUE: name, Shape.LIST: f"List<{name}>", Shape.MAP: f"Map<String,{name}>"}[member.shape] + optional


@pytest.mark.parametrize("language", GRAMMARS)
def test_file_parses(language: str) -> None:
    assert not parse(language).has_error


@pytest.mark.parametrize("language", GRAMMARS)
def test_file_declares_the_types_of_the_table(language: str) -> None:
    declared = classes(language, parse(language))
    own = [dto for dto in TABLE.dtos if dto.name not in ERROR_TYPES]
    assert set(declared) == {dto.name for dto in own}
    for dto in own:
        members = {name: type for name, type in declared[dto.name].items() if name not in ("context", "contentParts")}
        expected = {
            pascal_case(member.name) if language == "vbnet" else member.name: expected_type(language, dto.name, member)
            for member in dto.members
        }
        assert members == expected


def test_dart_reads_and_writes_each_name_once() -> None:
    for node in descendants(parse("dart"), CLASS["dart"]):
        name = node.child_by_field_name("name")
        dto = TABLE.find(text(name)) if name else None
        assert dto
        for member in dto.members:
            assert text(node).count(f"json['{member.name}']") == 1
            assert text(node).count(f"'{member.name}': ") == 1


def test_vbnet_states_each_name_on_the_wire() -> None:
    for node in descendants(parse("vbnet"), CLASS["vbnet"]):
        name = node.child_by_field_name("name")
        dto = TABLE.find(text(name)) if name else None
        assert dto
        assert re.findall(r'DataMember\(Name:="(\w+)"', text(node)) == [member.name for member in dto.members]


def test_swift_codes_each_member_of_a_subclass() -> None:
    source = language_file(find_language("swift"), {}, "https://x.example")
    body = source.partition("public class OpenAiChatCompletion ")[2].partition("\npublic class ")[0]
    assert "case refId, provider, tag" in body
    for name in ("refId", "provider", "tag"):
        assert f"forKey: .{name})" in body
        assert body.count(f"forKey: .{name})") == 2


PROGRAMS = {"swift": "client.swift", "dart": "client.dart", "vbnet": "Client.vb"}
# Of the client and the language.
OTHER_NAMES = {"bearerToken", "post", "get", "postToUrl", "postAsync", "getAsync", "fromJson", "first", "Completed"}
OTHER_NAMES |= {"Post", "Get", "BearerToken", "Collections", "Generic", "dart"}


@pytest.mark.parametrize("language", PROGRAMS)
def test_program_parses_and_uses_members_of_the_table(language: str) -> None:
    source = (Path(__file__).parents[1] / "languages/programs" / PROGRAMS[language]).read_text()
    parser = tree_sitter.Parser(tree_sitter.Language(GRAMMARS[language].language()))
    assert not parser.parse(source.encode()).root_node.has_error
    known = {member.name for dto in TABLE.dtos for member in dto.members} | TABLE.enumeration_names
    if language == "vbnet":
        known = {pascal_case(name) for name in known}
    code = re.sub(r'(?://|^\s*\'|^import|^Imports).*|"[^"]*"', "", source, flags=re.MULTILINE)
    used = set(re.findall(r"(?<!\w\s)\.([A-Za-z_]\w*)", code))
    assert used - OTHER_NAMES <= known
