"""Events of OpenAI's streams at their limits: which are content, an end or an error, and which are buffered."""

from collections.abc import Sequence
from typing import Any

import pytest

from aiserver.errors import ProviderError, ProviderRateLimited
from aiserver.operations import CHAT, IMAGES, RESPONSES, TRANSCRIPTIONS, Operation
from aiserver.providers.adapters.openai import stream
from aiserver.providers.adapters.openai.stream import OpenAiEventMapper
from aiserver.providers.call import Upstream
from aiserver.wire import sse
from tests.app import load_providers

(PROVIDER,) = load_providers({"name": "p", "models": {"m": ""}})
COMMENT, DONE = b": wait\n\n", b"data: [DONE]\n\n"
LIMIT = 10


def make_mapper(operation: Operation = CHAT, *, hides_usage: bool = False, **options: Any) -> OpenAiEventMapper:
    upstream = Upstream(PROVIDER, "m", model_is_configured=True)
    return OpenAiEventMapper(upstream, operation, hides_usage=hides_usage, **options)


def event(text: str) -> bytes:
    return sse.format_event(text.encode())


def choice(index: str = "0", finish: str = "null", content: str = "x") -> str:
    return '{"index":%s,"delta":{"content":"%s"},"finish_reason":%s}' % (index, content, finish)


def chunk(*choices: str, usage: str = "") -> bytes:
    return event(f'{{"choices":[{",".join(choices)}]{usage and ","}{usage}}}')


def states(mapper: OpenAiEventMapper, events: Sequence[bytes]) -> list[tuple[bytes, int, bool, bool]]:
    """Return the client events, the number of content events, and whether it is complete and done, after each event."""
    return [(mapper.on_event(item), mapper.content_events, mapper.is_complete, mapper.is_done) for item in events]


# --- content and completion of a chat ---


def test_chat_is_complete_when_each_of_its_choices_has_finished() -> None:
    role, first, second = chunk(choice(content="")), chunk(choice()), chunk(choice("1"))
    first_end, ends = chunk(choice(finish='"stop"', content="")), chunk(choice("1", '"stop"'), choice(content=""))
    mapper = make_mapper()
    assert states(mapper, [role, first, second, first_end, ends, DONE]) == [
        (role, 0, False, False),
        (first, 1, False, False),
        (second, 2, False, False),
        (first_end, 2, False, False),
        (ends, 3, True, False),
        (DONE, 3, True, True),
    ]
    assert mapper.on_end() == b""


@pytest.mark.parametrize("finish", ["null", '""', "false"])
def test_empty_finish_reason_completes_no_choice(finish: str) -> None:
    assert states(make_mapper(), [chunk(choice(finish=finish))])[0][2:] == (False, False)


def test_new_choice_makes_a_complete_chat_incomplete() -> None:
    mapper = make_mapper()
    events = [chunk(choice(finish='"stop"')), chunk(), chunk(choice("1")), chunk(choice("1", '"stop"'))]
    assert [is_complete for _, _, is_complete, _ in states(mapper, events)] == [True, True, False, True]


def test_chat_without_any_choice_is_not_complete() -> None:
    empty = chunk()
    assert states(make_mapper(), [empty, COMMENT]) == [(b"", 0, False, False), (COMMENT, 0, False, False)]
    for events in ([], [empty], [COMMENT]):
        mapper = make_mapper()
        states(mapper, events)
        with pytest.raises(ProviderError) as raised:
            mapper.on_event(DONE)
        assert raised.value.may_be_billed
        assert (mapper.is_complete, mapper.is_done) == (False, False)


def test_message_of_the_first_event_without_choices_is_reported() -> None:
    mapper = make_mapper()
    states(mapper, [event('{"message":"first"}'), event('{"message":"second"}')])
    with pytest.raises(ProviderError, match="first"):
        mapper.on_event(event(" [DONE] "))


def test_indexes_of_choices_are_compared_in_their_first_32_bytes() -> None:
    for differs_at, is_complete in ((32, False), (33, True)):
        prefix = '"' + "x" * (differs_at - 2)
        mapper = make_mapper()
        mapper.on_event(chunk(choice(prefix + '1"'), choice(prefix + '2"', '"stop"')))
        assert mapper.is_complete == is_complete


@pytest.mark.parametrize(
    ("data", "is_content", "is_complete"),
    [
        ('{"choices":[{"logprobs":NaN,"delta":{}}]}', True, False),
        ('{"choices":[{"logprobs":NaN,"finish_reason": "stop"}]}', True, True),
        ('{"choices":[{"logprobs":NaN,"finish_reason":""}]}', True, False),
        ('{"type":"response.created","x":NaN}', True, False),
        ('{"type":"ping","x":NaN}', False, False),
        ("hello", False, False),
    ],
)
def test_event_that_is_not_json_is_content_by_its_members(data: str, is_content: bool, is_complete: bool) -> None:
    mapper = make_mapper()
    assert mapper.on_event(event(data)) == (event(data) if is_content else b"")
    assert mapper.is_complete == is_complete
    ended = make_mapper()
    ended.on_event(chunk(choice(finish='"stop"')))
    ended.on_event(event(data))
    assert ended.is_complete


@pytest.mark.parametrize(("choices", "is_error"), [(3, False), (4, True)])
def test_number_of_choices_is_limited(choices: int, is_error: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(stream, "MAX_CHOICES", 3)
    mapper = make_mapper()
    events = [chunk(*(choice(str(index)) for index in range(count))) for count in (1, choices)]
    if is_error:
        with pytest.raises(ProviderError, match="the response has too many choices"):
            states(mapper, events)
    else:
        states(mapper, events)


@pytest.mark.parametrize(("numbers", "is_error"), [(7, False), (8, True)])
def test_number_of_values_of_choices_is_limited(numbers: int, is_error: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    """The array, its object and the array within it are three values."""
    monkeypatch.setattr(stream, "MAX_EVENT_VALUES", LIMIT)
    data = event('{"choices":[{"x":[%s]}],"other":[1,2,3,4,5,6,7,8,9]}' % ",".join("1" * numbers))
    if is_error:
        with pytest.raises(ProviderError, match="the response has too many choices"):
            make_mapper().on_event(data)
    else:
        assert make_mapper().on_event(data) == data


# --- the buffer ---


def test_events_before_the_first_content_are_buffered_and_comments_pass() -> None:
    empty, content = chunk(), chunk(choice())
    sent = [sent for sent, *_ in states(make_mapper(), [empty, COMMENT, event("hello"), content, empty, content])]
    assert sent == [b"", COMMENT, b"", empty + event("hello") + content, empty, content]


def test_buffer_is_released_over_its_limit(monkeypatch: pytest.MonkeyPatch) -> None:
    first, second = chunk(), event('{"choices":[ ]}')
    monkeypatch.setattr(stream, "MAX_ERROR_BYTES", len(first + second))
    sent = [sent for sent, *_ in states(make_mapper(), [first, second, COMMENT, first, second, first])]
    assert sent == [b"", b"", COMMENT, first + second + first, b"", b""]
    monkeypatch.setattr(stream, "MAX_ERROR_BYTES", len(first + second) - 1)
    assert [sent for sent, *_ in states(make_mapper(), [first, second, COMMENT])] == [b"", first + second, COMMENT]


# --- usage ---

USAGE, LATER = '{"total_tokens":3}', '{"total_tokens":4}'


@pytest.mark.parametrize(
    ("data", "is_hidden"),
    [
        ('{"choices":[],"usage":%s}', True),
        ('{"choices":[ ],"usage":%s}', True),
        ('{"choices":null,"usage":%s}', True),
        ('{"usage":%s}', True),
        ('{"choices":[{"index":0}],"usage":%s}', False),
        ('{"choices":[],"usage":null,"x":%s}', False),
        ('{"choices":[],"x":%s}', False),
        ('{"choices":[],"usage":[%s]}', False),
    ],
)
def test_event_with_only_usage_is_hidden_if_not_requested(data: str, is_hidden: bool) -> None:
    for hides_usage in (True, False):
        mapper, usage = make_mapper(hides_usage=hides_usage), event(data % USAGE)
        mapper.on_event(chunk(choice(finish='"stop"')))
        assert mapper.on_event(usage) == (b"" if is_hidden and hides_usage else usage)


def test_usage_is_the_last_one_sent() -> None:
    mapper = make_mapper()
    usages: list[str | None] = [mapper.usage]
    for usage in (f'"usage":{USAGE}', f'"usage":{LATER}', '"usage":null', ""):
        mapper.on_event(chunk(choice(), usage=usage))
        usages.append(mapper.usage)
    assert usages == [None, USAGE, LATER, LATER, LATER]


@pytest.mark.parametrize(
    ("members", "usage"),
    [
        ('"response":{"usage":%s}' % USAGE, USAGE),
        ('"usage":%s,"response":{"usage":%s}' % (USAGE, LATER), USAGE),
        ('"response":{}', None),
        ('"response":1', None),
        ('"x":1', None),
    ],
)
def test_usage_of_a_response_is_within_its_object(members: str, usage: str | None) -> None:
    mapper = make_mapper(RESPONSES)
    mapper.on_event(event('{"type":"response.completed",%s}' % members))
    assert mapper.usage == usage


def text_or_none(data: bytes, end_events: int) -> str | None:
    return data.decode() or None


def test_usage_of_media_is_computed_from_the_last_event_with_usage() -> None:
    mapper = make_mapper(TRANSCRIPTIONS, media_usage=text_or_none)
    usages: list[str | None] = [mapper.usage]
    for data in ('{"usage":{"seconds":1}}', '{"text":"x"}', '{"usage":{"seconds":2}}'):
        mapper.on_event(event(data))
        usages.append(mapper.usage)
    assert usages == [None, '{"usage":{"seconds":1}}', '{"usage":{"seconds":1}}', '{"usage":{"seconds":2}}']


def test_usage_of_media_counts_the_events_that_completed_an_output() -> None:
    mapper = make_mapper(IMAGES, media_usage=lambda data, end_events: str(end_events))
    counts: list[str | None] = [mapper.usage]
    for type_name in ("partial_image", "completed", "partial_image", "completed"):
        mapper.on_event(event(f'{{"type":"image_generation.{type_name}"}}'))
        counts.append(mapper.usage)
    assert counts == ["0", "0", "1", "1", "2"]


# --- other operations ---


def test_response_is_complete_after_one_of_its_end_events() -> None:
    ping, created = event('{"type":"ping"}'), event('{"type":"response.created"}')
    delta, end = event('{"type":"response.output_text.delta","delta":"x"}'), event('{"type":"response.completed"}')
    assert states(make_mapper(RESPONSES), [ping, created, delta, end, delta]) == [
        (b"", 0, False, False),
        (ping + created, 0, False, False),
        (delta, 1, False, False),
        (end, 1, True, False),
        (delta, 2, True, False),
    ]
    chat_like = event('{"choices":[{"finish_reason":"stop","x":NaN}]}')
    assert states(make_mapper(RESPONSES), [chat_like])[0][2] is False


def test_media_event_of_any_form_is_content() -> None:
    end = event('{"type":"transcript.text.done","text":"x"}')
    events = [COMMENT, event(""), event("hello"), event('{"text":"x"}'), end, COMMENT]
    assert states(make_mapper(TRANSCRIPTIONS), events) == [
        (COMMENT, 0, False, False),
        (event(""), 0, False, False),
        (event("hello"), 1, False, False),
        (event('{"text":"x"}'), 2, False, False),
        (end, 2, True, False),
        (COMMENT, 2, True, False),
    ]
    for first in (event("hello"), event('{"text":"x"}'), end):
        assert make_mapper(TRANSCRIPTIONS).on_event(first) == first
    with pytest.raises(ProviderError):
        states(make_mapper(TRANSCRIPTIONS), [COMMENT, DONE])


# --- errors ---


@pytest.mark.parametrize(
    "data",
    [
        b'data: {"error":{"message":"broken"}}\n\n',
        b'data: [{"error":{"message":"broken"}}]\n\n',
        b'data: {"error":"broken"}\n\n',
        b'data: {"error":"broken","x":NaN}\n\n',
        b'data: {"object":"error","message":"broken"}\n\n',
        b'data: {"type":"error","message":"broken"}\n\n',
        b'event: error\ndata: {"message":"broken"}\n\n',
        b"event: error\ndata: broken\n\n",
        b'error: {"message":"broken"}\n\n',
        b'error: {"message":"broken"}\ndata: {"message":"other"}\n\n',
        b'data: {"choices":[{"finish_reason":"error","error":{"message":"broken"}}]}\n\n',
    ],
)
def test_error_event_of_each_form_raises_its_message(data: bytes) -> None:
    for preceding in ([], [chunk(choice(content=""))], [chunk(choice())]):
        mapper = make_mapper()
        states(mapper, preceding)
        with pytest.raises(ProviderError, match="broken") as raised:
            mapper.on_event(data)
        assert raised.value.may_be_billed == bool(mapper.content_events)


@pytest.mark.parametrize(
    "data",
    [
        b'data: {"error":null,"choices":[{"index":0}]}\n\n',
        b'data: {"error":{},"choices":[{"index":0}]}\n\n',
        b'data: {"choices":[{"index":0,"delta":{"content":"\\"error\\""}}]}\n\n',
        b'data: {"choices":[{"index":0}],"x":"error"}\n\n',
        b'data: {"choices":[{"index":0,"x":NaN}],"error":null}\n\n',
        b"event: error\n\n",
        b": error\n\n",
    ],
)
def test_event_that_only_contains_the_word_error_passes(data: bytes) -> None:
    assert make_mapper().on_event(data) == data


def test_error_event_has_the_status_of_its_code() -> None:
    with pytest.raises(ProviderRateLimited):
        make_mapper().on_event(event('{"error":{"message":"slow down","code":"rate_limit_exceeded"}}'))
