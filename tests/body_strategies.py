"""Hypothesis strategies for chat bodies as trees with their text: the expected binding needs no parser."""

import json
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

from hypothesis import strategies as st

from aiserver.errors import FieldError, InvalidRequest
from aiserver.wire.schemas import CHAT, ObjectSchema

GATEWAY_FIELDS = ("refId", "tag", "replyTo", "deadline", "provider")
ANY_OBJECT = ObjectSchema(())
SPACE = st.sampled_from(["", "", "", " ", "\n  ", "\t\r\n"])
UNKNOWN_NAMES = st.sampled_from(
    ["x", "nested", "model_", "MODEL", "role", "maxTokens", "refId", "provider", "u\u017fer", "語", ""]
)
SCALARS = st.sampled_from(
    [
        *("null", "true", "0", "-0", "2.50", "1e3", "1E400", "9" * 400, '""', '"語😀"', '"a\\/b"', '"\\ud83d\\ude00"'),
        *('"\\\\ud83d"', '"{\\"maxTokens\\": 1}"', '"maxTokens"', '"\\u006d"', '"[[[{\\n"', '","', '":"', '"\\\\"'),
    ]
)
VALID = {  # for the fields whose types are checked
    "frequency_penalty presence_penalty temperature top_p": ["2.50", "1E0", "0", "null"],
    "max_tokens max_completion_tokens n seed top_logprobs": ["0", "-7", "null"],
    "logprobs parallel_tool_calls stream include_usage": ["true", "false", "null"],
    "model role": ['"m"', '"a\\/b"', '"\\u006d"', '"語😀"'],
    "name tool_call_id user reasoning_effort stop": ['"x"', '"\\n"', "null"],
    "content tool_choice": ['"hi"', '""', '"語"', '"say \\"Role\\""', "null"],
    "refId tag replyTo deadline provider": ['"r"', '"\\u0072"', '"語"'],
}
TEXTS = {name: texts for names, texts in VALID.items() for name in names.split()}


@dataclass(frozen=True)
class Tree:
    """A JSON value: the text of a scalar, the items of an array, or the members of an object."""

    scalar: str = ""
    items: tuple["Tree", ...] | None = None
    members: tuple["Member", ...] | None = None
    space: str = ""

    @property
    def value(self) -> Any:
        return json.loads(self.text())

    def text(self) -> str:
        if self.items is not None:
            return "[" + ",".join(self.space + item.text() + self.space for item in self.items) + self.space + "]"
        if self.members is not None:
            inside = ",".join(member.before + member.text() + member.after for member in self.members)
            return "{" + (inside or self.space) + "}"
        return self.scalar


@dataclass(frozen=True)
class Member:
    """A member of an object: the text of its key, its value, and the white space around it."""

    key_text: str
    value: Tree
    before: str = ""
    after: str = ""
    colon: str = ":"

    @property
    def key(self) -> str:
        return json.loads(self.key_text)

    def text(self) -> str:
        return self.key_text + self.colon + self.value.text()


def duplicate_member_error(name: str) -> InvalidRequest:
    message = f"'{name}' is given more than once"
    return InvalidRequest(message, param=name, fields=(FieldError("Duplicate", name, message),))


def fold_name(name: str) -> str:
    return "".join(letter for letter in name if letter not in "_-").casefold()


def canonical_name(key: str, keys: Sequence[str], schema: ObjectSchema) -> str:
    """Return the canonical name of the member `key` in an object with `keys`."""
    if key in schema.names:
        return key
    matches = (name for name in schema.names if fold_name(name) == fold_name(key))
    return next((name for name in matches if name not in keys or name in schema.unique), key)


def rename_members(tree: Tree, schema: ObjectSchema) -> Tree:
    """Return the tree with canonical names of all known members. Raises: InvalidRequest."""
    if tree.items is not None:
        return replace(tree, items=tuple(rename_members(item, schema) for item in tree.items))
    if tree.members is None:
        return tree
    keys = [member.key for member in tree.members]
    names = [canonical_name(key, keys, schema) for key in keys]
    for name in schema.names:
        if names.count(name) > 1:
            raise duplicate_member_error(name)
    return replace(
        tree,
        members=tuple(
            replace(
                member,
                key_text=member.key_text if name == member.key else f'"{name}"',
                value=rename_members(member.value, schema.nested[name]) if name in schema.nested else member.value,
            )
            for member, name in zip(tree.members, names, strict=True)
        ),
    )


def drop_members(tree: Tree, is_dropped: Sequence[bool]) -> Tree:
    """Return an object without the dropped members, each with its comma and the white space before the next member.

    Dropped members at the end go with the white space after the previous member.
    """
    members = list(tree.members or ())
    if all(is_dropped):
        return Tree(members=(), space=(members[0].before + members[-1].after) if members else tree.space)
    while is_dropped and is_dropped[-1]:
        last, is_dropped = members.pop(), is_dropped[:-1]
        members[-1] = replace(members[-1], after=last.after)
    remaining: list[Member] = []
    before = None
    for member, drop in zip(members, is_dropped, strict=True):
        before = member.before if before is None else before
        if not drop:
            remaining.append(replace(member, before=before))
            before = None
    return replace(tree, members=tuple(remaining))


def expected_binding(tree: Tree, drop: Sequence[str] = ()) -> Tree:
    """Return the expected bound body. Raises: InvalidRequest."""
    members = tree.members or ()
    field_names = [
        next((name for name in GATEWAY_FIELDS if fold_name(name) == fold_name(member.key)), "") for member in members
    ]
    for name in field_names:
        if name and field_names.count(name) > 1:
            raise duplicate_member_error(name)
    renamed = rename_members(tree, CHAT)
    is_dropped = [
        (name != "" and (name != "provider" or isinstance(member.value.value, str | None)))
        or renamed_member.key in drop
        for name, member, renamed_member in zip(field_names, members, renamed.members or (), strict=True)
    ]
    return drop_members(renamed, is_dropped)


def with_model(tree: Tree, name: str) -> Tree:
    """Return a bound body for the model `name`; keep the text of a model member with that value."""
    members = [
        replace(member, value=Tree(json.dumps(name)))
        if member.key == "model" and member.value.value != name
        else member
        for member in tree.members or ()
    ]
    return replace(tree, members=tuple(members))


@st.composite
def key_spellings(draw: st.DrawFn, name: str) -> str:
    """Draw the text of a key with the canonical name `name`."""
    first, *words = name.split("_")
    camel = first + "".join(word.capitalize() for word in words)
    style = draw(st.sampled_from([name] * 6 + [camel, camel, camel[:1].upper() + camel[1:], name.replace("_", "-")]))
    is_escaped = draw(st.integers(0, 9)) == 0
    return json.dumps(style[:-1])[:-1] + f'\\u{ord(style[-1]):04x}"' if is_escaped else json.dumps(style)


@st.composite
def values(draw: st.DrawFn, name: str = "", schema: ObjectSchema = ANY_OBJECT, depth: int = 3) -> Tree:
    """Draw a value for the field `name`; any value for an unknown field or one whose type is not checked."""
    if name in ("messages", "tools", "tool_calls"):
        required = ("role",) if name == "messages" else ()
        items = st.lists(objects(schema, required), min_size=len(required), max_size=3)
        return Tree(items=tuple(draw(items)), space=draw(SPACE))
    if schema.names or name == "logit_bias":
        return draw(objects(schema))
    if name in TEXTS:
        return Tree(draw(st.sampled_from(TEXTS[name])))
    kind = draw(st.sampled_from(["scalar", "scalar", "array", "object"] if depth else ["scalar"]))
    if kind == "array":
        return Tree(items=tuple(draw(st.lists(values(depth=depth - 1), max_size=3))), space=draw(SPACE))
    return draw(objects(ANY_OBJECT, depth=depth - 1)) if kind == "object" else Tree(draw(SCALARS))


@st.composite
def objects(
    draw: st.DrawFn,
    schema: ObjectSchema,
    required: Sequence[str] = (),
    additional: Sequence[str] = (),
    unknown: st.SearchStrategy[str] = UNKNOWN_NAMES,
    depth: int = 2,
) -> Tree:
    """Draw an object with members of `schema`, some duplicated, with `additional` members, and with unknown ones."""
    known = [*schema.names, *additional]
    names = [*required, *draw(st.lists(st.sampled_from(known), max_size=3))] if known else []
    if draw(st.integers(0, 9)):
        names = list(dict.fromkeys(names))
    pairs = [(draw(key_spellings(name)), draw(values(name, schema.nested.get(name, ANY_OBJECT)))) for name in names]
    pairs += [(json.dumps(name), draw(values(depth=depth))) for name in draw(st.lists(unknown, max_size=2))]
    members = [
        Member(key, value, draw(SPACE), draw(SPACE), draw(SPACE) + ":" + draw(SPACE))
        for key, value in draw(st.permutations(pairs))
    ]
    return Tree(members=tuple(members), space=draw(SPACE))


# A chat body. The gateway's fields always have the right type in it.
BODIES = objects(
    CHAT,
    ("model", "messages"),
    (*GATEWAY_FIELDS, "stream", "stream_options"),
    UNKNOWN_NAMES.filter(lambda name: name != "refId"),
)
