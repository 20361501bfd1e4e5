"""The audio facts of the catalogue: sources, formats by model, and the URLs of audio operations."""

import re
from urllib.parse import urlsplit

import pytest

from aiserver.operations import OPERATIONS, SPEECH, TRANSCRIPTIONS, TRANSLATIONS
from aiserver.providers.adapters.openai.audio import FORMATS
from aiserver.providers.catalogue import (
    AUDIO_OPERATIONS,
    AUDIO_TO_TEXT,
    CATALOGUE,
    GENERIC,
    HOSTED,
    SELF_HOSTED,
    Preset,
    TranscriptFormats,
)
from aiserver.providers.provider import Provider

AUDIO_PRESETS = [name for name, preset in CATALOGUE.items() if set(preset.operations) & set(AUDIO_OPERATIONS)]
SPEECH_SERVERS = {"kokoro", "openedai-speech"}


def transcribes(preset: Preset) -> bool:
    return bool(set(preset.operations) & set(AUDIO_TO_TEXT))


@pytest.mark.parametrize("name", AUDIO_PRESETS)
def test_audio_operations_and_formats_have_https_sources(name: str) -> None:
    preset = CATALOGUE[name]
    sources = [preset.audio_source or preset.source, *(row.source for row in preset.transcript_formats)]
    assert [source for source in sources if not re.fullmatch(r"https://[\w.-]+/\S+", source)] == []


@pytest.mark.parametrize("name", CATALOGUE)
def test_formats_are_openai_formats_of_a_preset_that_transcribes(name: str) -> None:
    preset = CATALOGUE[name]
    assert transcribes(preset) or not preset.transcript_formats
    assert {format for row in preset.transcript_formats for format in row.formats} <= set(FORMATS)
    prefixes = [row.model_prefix for row in preset.transcript_formats]
    assert len(prefixes) == len(set(prefixes))


def test_formats_of_the_longest_matching_prefix_apply() -> None:
    source = "https://example.com/"
    rows = [TranscriptFormats((f"{len(prefix)}",), source, prefix) for prefix in ("a-b", "", "a-b-c", "a")]
    preset = Preset("p", "https://example.com/v1", source, transcript_formats=tuple(rows))
    models = ("a-b-c-2025", "a-b-c", "a-b", "a", "b")
    assert [preset.formats_of(model) for model in models] == [("5",), ("5",), ("3",), ("1",), ("0",)]
    assert GENERIC.formats_of("whisper-1") == ()


@pytest.mark.parametrize(
    ("preset", "model", "formats"),
    [
        ("openai", "whisper-1", {"json", "text", "srt", "vtt", "verbose_json"}),
        ("openai", "gpt-4o-transcribe", {"json", "text"}),
        ("openai", "gpt-4o-mini-transcribe-2025-12-15", {"json", "text"}),
        ("openai", "gpt-4o-transcribe-diarize", {"json", "text", "diarized_json"}),
        ("openai", "gpt-transcribe", set[str]()),  # its formats are not documented
        ("azure", "whisper-1", set[str]()),  # the name of a deployment
        ("deepinfra", "openai/whisper-large-v3", {"json", "text", "srt", "vtt", "verbose_json"}),
        ("deepinfra", "mistralai/Voxtral-Mini-3B-2507", set[str]()),
        ("groq", "whisper-large-v3-turbo", {"json", "text", "verbose_json"}),
        ("mistral", "voxtral-mini-latest", set[str]()),  # has no response_format
        ("together", "openai/whisper-large-v3", {"json", "verbose_json"}),
        ("vllm", "any", {"json", "text", "verbose_json"}),
        ("whisper-cpp", "any", {"json", "text", "srt", "vtt", "verbose_json"}),
    ],
)
def test_formats_of_known_models(preset: str, model: str, formats: set[str]) -> None:
    assert set(CATALOGUE[preset].formats_of(model)) == formats


@pytest.mark.parametrize("name", [name for name in AUDIO_PRESETS if name in HOSTED | SELF_HOSTED])
def test_urls_of_audio_operations_are_absolute(name: str) -> None:
    preset = CATALOGUE[name]
    base_url = re.sub(r"{\w+}", "8000", preset.base_url)
    provider = Provider.model_validate({"name": "p", "preset": name, "base_url": base_url, "models": {"m": ""}})
    assert set(preset.paths) <= set(preset.operations)
    assert not base_url.endswith("/")
    for operation in preset.operations:
        url = urlsplit(base_url + provider.path_of(OPERATIONS[operation]))
        assert (url.scheme in ("http", "https"), url.query, url.fragment) == (True, "", "")
        assert url.hostname
        assert re.fullmatch(r"(/[\w.-]+)+", url.path)


def test_whisper_cpp_has_its_own_path_for_transcriptions() -> None:
    fields = {"name": "p", "preset": "whisper-cpp", "base_url": "http://gpu:8080", "models": {"whisper": ""}}
    provider = Provider.model_validate(fields)
    assert (provider.operations, provider.queue) == ((TRANSCRIPTIONS.name,), "gpu")
    assert provider.base_url + provider.path_of(TRANSCRIPTIONS) == "http://gpu:8080/inference"


def test_a_provider_without_preset_has_no_audio_operations() -> None:
    assert not set(GENERIC.operations) & set(AUDIO_OPERATIONS)


def test_presets_offer_only_the_audio_operations_they_serve() -> None:
    operations = {name: set(CATALOGUE[name].operations) & set(AUDIO_OPERATIONS) for name in AUDIO_PRESETS}
    without_speech = {name for name, names in operations.items() if SPEECH.name not in names}
    without_translations = {name for name, names in operations.items() if TRANSLATIONS.name not in names}
    assert without_speech == {"mistral", "fireworks-audio", "fireworks-audio-turbo", "vllm", "whisper-cpp"}
    assert without_translations == {"mistral", "localai", "whisper-cpp", *SPEECH_SERVERS}
    assert {name for name in AUDIO_PRESETS if not transcribes(CATALOGUE[name])} == SPEECH_SERVERS
