"""Chat bodies as trees that know their own text: what binding makes of one is told from the tree, without a parser."""

import json
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

from hypothesis import strategies as st

from aiserver.errors import FieldError, InvalidRequest
from aiserver.wire.schemas import CHAT, ObjectSchema

OWN = ("refId", "tag", "replyTo", "deadline", "provider")
ANYTHING = ObjectSchema(())
SPACE = st.sampled_from(["", "", "", " ", "\n  ", "\t\r\n"])
OTHERS = st.sampled_from(
    ["x", "nested", "model_", "MODEL", "role", "maxTokens", "refId", "provider", "u\u017fer", "語", ""]
)
SCALARS = st.sampled_from(
    [
        *("null", "true", "0", "-0", "2.50", "1e3", "1E400", "9" * 400, '""', '"語😀"', '"a\\/b"', '"\\ud83d\\ude00"'),
        *('"\\\\ud83d"', '"{\\"maxTokens\\": 1}"', '"maxTokens"', '"\\u006d"', '"[[[{\\n"', '","', '":"', '"\\\\"'),
    ]
)
VALID = {  # for the members whose types are checked
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
    """A JSON value: a scalar's text, or the items of an array, or the members of an object."""

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
            inside = ",".join(one.before + one.text() + one.after for one in self.members)
            return "{" + (inside or self.space) + "}"
        return self.scalar


@dataclass(frozen=True)
class Member:
    """A member of an object, its key as it is written, and the white space around it."""

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


def twice(name: str) -> InvalidRequest:
    problem = f"'{name}' is given more than once"
    return InvalidRequest(problem, param=name, fields=(FieldError("Duplicate", name, problem),))


def folded(name: str) -> str:
    return "".join(letter for letter in name if letter not in "_-").casefold()


def known_name(key: str, beside: Sequence[str], shape: ObjectSchema) -> str:
    """The name that the member `key` is known by among the keys `beside`, itself included."""
    if key in shape.names:
        return key
    alike = (name for name in shape.names if folded(name) == folded(key))
    return next((name for name in alike if name not in beside or name in shape.unique), key)


def renamed(tree: Tree, shape: ObjectSchema) -> Tree:
    """The tree with all that is known by its known name. Raises: InvalidRequest."""
    if tree.items is not None:
        return replace(tree, items=tuple(renamed(item, shape) for item in tree.items))
    if tree.members is None:
        return tree
    keys = [member.key for member in tree.members]
    names = [known_name(key, keys, shape) for key in keys]
    for name in shape.names:
        if names.count(name) > 1:
            raise twice(name)
    return replace(
        tree,
        members=tuple(
            replace(
                member,
                key_text=member.key_text if name == member.key else f'"{name}"',
                value=renamed(member.value, shape.nested[name]) if name in shape.nested else member.value,
            )
            for member, name in zip(tree.members, names, strict=True)
        ),
    )


def without(tree: Tree, unwanted: Sequence[bool]) -> Tree:
    """An object less its unwanted members: each goes with its comma, and what stands between it and the next one.

    The last ones go with what stands between them and the one before.
    """
    members = list(tree.members or ())
    if all(unwanted):
        return Tree(members=(), space=(members[0].before + members[-1].after) if members else tree.space)
    while unwanted and unwanted[-1]:
        last, unwanted = members.pop(), unwanted[:-1]
        members[-1] = replace(members[-1], after=last.after)
    kept: list[Member] = []
    before = None
    for member, goes in zip(members, unwanted, strict=True):
        before = member.before if before is None else before
        if not goes:
            kept.append(replace(member, before=before))
            before = None
    return replace(tree, members=tuple(kept))


def bound(tree: Tree, drop: Sequence[str] = ()) -> Tree:
    """What binding makes of a body. Raises: InvalidRequest."""
    members = tree.members or ()
    own = [next((name for name in OWN if folded(name) == folded(member.key)), "") for member in members]
    for name in own:
        if name and own.count(name) > 1:
            raise twice(name)
    told = renamed(tree, CHAT)
    goes = [
        (name != "" and (name != "provider" or isinstance(member.value.value, str | None))) or as_told.key in drop
        for name, member, as_told in zip(own, members, told.members or (), strict=True)
    ]
    return without(told, goes)


def with_model(tree: Tree, name: str) -> Tree:
    """A bound body that asks for the model `name`, its own text kept where it says so."""
    members = [
        replace(member, value=Tree(json.dumps(name)))
        if member.key == "model" and member.value.value != name
        else member
        for member in tree.members or ()
    ]
    return replace(tree, members=tuple(members))


@st.composite
def spelled(draw: st.DrawFn, name: str) -> str:
    """The text of a key that is known as `name`."""
    first, *words = name.split("_")
    camel = first + "".join(word.capitalize() for word in words)
    style = draw(st.sampled_from([name] * 6 + [camel, camel, camel[:1].upper() + camel[1:], name.replace("_", "-")]))
    is_escaped = draw(st.integers(0, 9)) == 0
    return json.dumps(style[:-1])[:-1] + f'\\u{ord(style[-1]):04x}"' if is_escaped else json.dumps(style)


@st.composite
def values(draw: st.DrawFn, name: str = "", shape: ObjectSchema = ANYTHING, depth: int = 3) -> Tree:
    """What may stand at the known place `name`; anything, where the place is not known or its type not checked."""
    if name in ("messages", "tools", "tool_calls"):
        always = ("role",) if name == "messages" else ()
        items = st.lists(objects(shape, always), min_size=len(always), max_size=3)
        return Tree(items=tuple(draw(items)), space=draw(SPACE))
    if shape.names or name == "logit_bias":
        return draw(objects(shape))
    if name in TEXTS:
        return Tree(draw(st.sampled_from(TEXTS[name])))
    kind = draw(st.sampled_from(["scalar", "scalar", "array", "object"] if depth else ["scalar"]))
    if kind == "array":
        return Tree(items=tuple(draw(st.lists(values(depth=depth - 1), max_size=3))), space=draw(SPACE))
    return draw(objects(ANYTHING, depth=depth - 1)) if kind == "object" else Tree(draw(SCALARS))


@st.composite
def objects(
    draw: st.DrawFn,
    shape: ObjectSchema,
    always: Sequence[str] = (),
    more: Sequence[str] = (),
    others: st.SearchStrategy[str] = OTHERS,
    depth: int = 2,
) -> Tree:
    """An object of members that `shape` knows, some given twice, of members named in `more`, and of others."""
    known = [*shape.names, *more]
    names = [*always, *draw(st.lists(st.sampled_from(known), max_size=3))] if known else []
    if draw(st.integers(0, 9)):
        names = list(dict.fromkeys(names))
    given = [(draw(spelled(name)), draw(values(name, shape.nested.get(name, ANYTHING)))) for name in names]
    given += [(json.dumps(other), draw(values(depth=depth))) for other in draw(st.lists(others, max_size=2))]
    members = [
        Member(key, value, draw(SPACE), draw(SPACE), draw(SPACE) + ":" + draw(SPACE))
        for key, value in draw(st.permutations(given))
    ]
    return Tree(members=tuple(members), space=draw(SPACE))


# A chat body. Our own members are always of the right type in it.
BODIES = objects(
    CHAT, ("model", "messages"), (*OWN, "stream", "stream_options"), OTHERS.filter(lambda name: name != "refId")
)
