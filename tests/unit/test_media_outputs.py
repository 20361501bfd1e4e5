"""Outputs of media jobs in AI Server's format: a transcript, its times as a second text, and URLs of files."""

import json
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from aiserver.artifacts import ArtifactUrls, artifact_key
from aiserver.jobs.states import JobState
from aiserver.usecases.media_outputs import file_output, job_files, text_outputs
from aiserver.wire.render import render
from tests.app import TestApp
from tests.fakes import FakeArtifactSecrets, FakeClock

SRT = "1\n00:00:00,000 --> 00:00:01,500\nhéllo\n\n2\n00:00:02,000 --> 00:00:03,000\nyou\n"
VERBOSE: dict[str, Any] = {
    "task": "transcribe",
    "language": "english",
    "duration": 2.5,
    "text": "héllo you",
    "segments": [
        {"id": 0, "seek": 0, "start": 0.0, "end": 1.5, "text": " héllo", "tokens": [1, 2], "avg_logprob": -0.1},
        {"id": 1, "seek": 0, "start": 1.5, "end": 2.5, "text": " you", "tokens": [3], "no_speech_prob": 1e-9},
    ],
    "words": [{"word": "héllo", "start": 0.0, "end": 1.5}],
    "usage": {"type": "duration", "seconds": 3},
}
ANY_JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-9, 9) | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda values: st.lists(values, max_size=3) | st.dictionaries(st.text(max_size=5), values, max_size=3),
    max_leaves=8,
)
SEGMENTS = st.lists(
    ANY_JSON | st.dictionaries(st.sampled_from(["start", "end", "text", "speaker"]), ANY_JSON, max_size=4), max_size=4
)


def outputs(document: object, content_type: str | None = "application/json") -> list[dict[str, Any]]:
    return text_outputs(json.dumps(document).encode(), content_type)


@pytest.mark.parametrize("content_type", [None, "", "application/json", "Application/JSON; charset=utf-8"])
def test_text_of_json_is_the_only_output(content_type: str | None) -> None:
    assert outputs({"text": "héllo", "usage": {"seconds": 3}}, content_type) == [{"text": "héllo"}]


def test_transcript_with_segments_has_a_second_output_with_their_times() -> None:
    text, times = outputs(VERBOSE)
    assert text == {"text": "héllo you"}
    assert "héllo" in times["text"]
    assert json.loads(times["text"]) == {
        "text": "héllo you",
        "segments": [
            {"start": 0.0, "end": 1.5, "text": " héllo"},
            {"start": 1.5, "end": 2.5, "text": " you"},
        ],
    }


@pytest.mark.parametrize("content_type", ["text/plain", "text/plain; charset=utf-8", "text/vtt", "TEXT/PLAIN"])
@pytest.mark.parametrize("text", [SRT, "héllo", "", "\n", "WEBVTT\n\n00:00.000 --> 00:01.000\nhi\n", '{"text":"x"}'])
def test_text_format_is_the_only_output_line_by_line(content_type: str, text: str) -> None:
    """Issue: subtitles are put into JSON or lose their lines (LiteLLM #31457)."""
    assert text_outputs(text.encode(), content_type) == [{"text": text}]


def test_text_that_is_not_utf_8_has_replacement_characters() -> None:
    assert text_outputs(b"caf\xe9", "text/plain") == [{"text": "caf\ufffd"}]


def test_transcript_of_silence_is_an_empty_text() -> None:
    """Issues: silence is an error (speaches #608, nodejs-whisper #205)."""
    assert outputs({"text": ""}) == outputs({"text": "", "segments": []}) == [{"text": ""}]
    assert text_outputs(b"", "text/plain") == [{"text": ""}]


@pytest.mark.parametrize(
    "body",
    [
        *(b"", b"{}", b"[]", b"null", b'"text"', b"hello", b'{"text":', b'{"text":null}', b'{"text":1}'),
        *(b'{"text":["a"]}', b'{"text":{"text":"a"}}', b'{"segments":[{"text":"a"}]}', b'{"Text":"a"}'),
        *(b'[{"text":"a"}]', b'{"error":{"text":"a"}}'),
    ],
)
def test_json_without_a_transcript_has_no_output(body: bytes) -> None:
    assert text_outputs(body, "application/json") == []


@pytest.mark.parametrize("segments", [None, {}, {"text": "a"}, "[", 1, [], [1, None, "x", []], True])
def test_segments_of_another_type_are_left_out(segments: object) -> None:
    assert outputs({"segments": segments, "text": "hi"}) == [{"text": "hi"}]


def test_segment_without_times_has_nulls() -> None:
    _, times = outputs({"text": "hi", "segments": [1, {"text": "hi", "speaker": "A"}, {"start": "0.5", "end": None}]})
    assert json.loads(times["text"])["segments"] == [
        {"start": None, "end": None, "text": "hi"},
        {"start": "0.5", "end": None, "text": None},
    ]


@given(st.text(), SEGMENTS, st.sampled_from(["before", "after"]))
def test_outputs_of_any_transcript_are_json_with_its_texts(text: str, segments: list[Any], position: str) -> None:
    members = [("text", text), ("segments", segments)]
    texts = outputs({"x": {"text": 1}, **dict(members if position == "after" else members[::-1]), "words": [1]})
    assert json.loads(render({"results": texts}))["results"] == texts
    assert texts[0] == {"text": text}
    is_object = [isinstance(segment, dict) for segment in segments]
    assert len(texts) == 1 + any(is_object)
    for times in texts[1:]:
        document = json.loads(times["text"])
        assert (document["text"], len(document["segments"])) == (text, sum(is_object))


@given(st.binary(max_size=60), st.sampled_from(["text/plain", "text/vtt", "application/json"]))
def test_any_body_has_outputs_that_are_texts(body: bytes, content_type: str) -> None:
    for output in text_outputs(body, content_type):
        assert list(output) == ["text"]
        assert isinstance(output["text"], str)


# --- files ---


def test_file_output_has_a_signed_url_its_name_and_its_provider() -> None:
    urls = ArtifactUrls(FakeArtifactSecrets(), FakeClock(), hours=1)
    key = artifact_key("me", 0, b"ID3", "audio/mpeg")
    output = file_output(urls, "https://x.io/prod", key, "openai")
    assert output == {
        "url": urls.url("https://x.io/prod", key),
        "fileName": key.rpartition("/")[2],
        "provider": "openai",
    }
    assert output["fileName"].endswith(".mp3")


def test_completed_job_has_its_file_and_no_other_job_has_one() -> None:
    app = TestApp()
    urls = ArtifactUrls(FakeArtifactSecrets(), app.clock, hours=1)
    job = app.run(app.accept())
    assert (job.state, job_files(job, urls)) == (JobState.COMPLETED, [])
    key = artifact_key(job.owner, job.created_at, b"ID3", "audio/mpeg")
    speech = replace(job, result_location=key, result_type="audio/mpeg")
    assert job_files(speech, urls) == [file_output(urls, job.base_url, key, job.served_by)]
    assert job_files(speech, None) == []
    for without_file in (
        replace(speech, result_location=None),
        replace(speech, result_location="item", result_type=None),
    ):
        assert job_files(without_file, urls) == []
