"""The image facts of the catalogue, and the requests that are rejected by them before a call."""

import json
import re

import pytest

from aiserver.errors import InvalidRequest
from aiserver.operations import OPERATIONS
from aiserver.providers.adapters.openai.images import field_changes
from aiserver.providers.call import ProviderCall
from aiserver.providers.catalogue import (
    CATALOGUE,
    IMAGE_OPERATIONS,
    UNKNOWN_IMAGE_FACTS,
    ImageFacts,
    Preset,
)
from aiserver.providers.catalogue import GENERIC as GENERIC_PRESET
from aiserver.wire.aiserver_images import HINTS
from tests.providers.image_calls import (
    EDIT_SUBJECTS,
    EDITS,
    GENERIC,
    IMAGE_PRESETS,
    IMAGES,
    KONTEXT,
    PNG,
    SCHNELL,
    SUBJECTS,
    TRANSPARENT_PNG,
    Subject,
    check,
    edit_call,
    generation_call,
    image_bytes,
    image_file,
    json_edit_call,
)

SOURCE = "https://example.com/"
each_subject = pytest.mark.parametrize("subject", SUBJECTS, ids=str)
each_edit_subject = pytest.mark.parametrize("subject", EDIT_SUBJECTS, ids=str)


def rejection(subject: Subject, call: ProviderCall) -> InvalidRequest | None:
    """The error for one member of a request; None for a request that is accepted."""
    try:
        check(subject, call)
    except InvalidRequest as error:
        return error
    return None


def rejected_param(subject: Subject, call: ProviderCall) -> str | None:
    error = rejection(subject, call)
    return error.param if error else None


# --- rows ---


def test_image_presets_are_those_that_serve_images() -> None:
    operations = {name: {*CATALOGUE[name].operations} & {*IMAGE_OPERATIONS} for name in IMAGE_PRESETS}
    with_edits = {"openai", "azure", "deepinfra", "localai", "stable-diffusion-cpp", "vllm-omni"}
    expected = {name: {IMAGES, EDITS} if name in with_edits else {IMAGES} for name in (*with_edits, "together", "xai")}
    assert operations == expected
    assert not {*GENERIC_PRESET.operations} & {*IMAGE_OPERATIONS}


@pytest.mark.parametrize("name", CATALOGUE)
def test_preset_has_facts_exactly_if_it_serves_images(name: str) -> None:
    """Every model of it has a row: the rows with a prefix are exceptions."""
    preset = CATALOGUE[name]
    assert {*preset.operations, *preset.paths} <= OPERATIONS.keys()
    prefixes = [row.model_prefix for row in preset.image_facts]
    assert ("" in prefixes) == (name in IMAGE_PRESETS) == bool(prefixes)
    assert len(prefixes) == len(set(prefixes))


@pytest.mark.parametrize("name", IMAGE_PRESETS)
def test_facts_have_https_sources_and_known_members(name: str) -> None:
    for row in CATALOGUE[name].image_facts:
        assert re.fullmatch(r"https://[\w.-]+/\S+", row.source)
        assert row.optional.keys() <= HINTS.keys()
        assert row.size in ("size", "width, height", "aspect_ratio")
        assert row.base64_format in ("", "b64_json", "base64")
        assert not (row.prompt_element and (row.optional or row.negative_separator))
        assert not (row.negative_separator and "negative_prompt" in row.optional)


@pytest.mark.parametrize("name", IMAGE_PRESETS)
def test_facts_of_forms_belong_to_a_preset_with_edits(name: str) -> None:
    has_edits = EDITS in CATALOGUE[name].operations
    assert has_edits or EDITS not in CATALOGUE[name].paths
    for row in CATALOGUE[name].image_facts:
        form_facts = (row.image_part, row.mask_part, row.mask, row.needs_mask, row.accepts_json)
        assert has_edits or form_facts == ("", "mask", "", False, True)
        assert re.fullmatch(r"(image(\[\])?)?", row.image_part)
        assert not (row.needs_mask and row.mask in ("", "none"))


def test_facts_of_the_longest_matching_prefix_apply() -> None:
    rows = [ImageFacts(SOURCE, prefix, max_images=len(prefix) + 1) for prefix in ("a-b", "", "a-b-c", "a")]
    preset = Preset("p", SOURCE, SOURCE, image_facts=tuple(rows))
    models = ("a-b-c-2026", "a-b-c", "a-b", "a", "b", "x-a-b")
    assert [preset.image_facts_of(model).max_images for model in models] == [6, 6, 4, 2, 1, 1]
    assert Preset("p", SOURCE, SOURCE, image_facts=(rows[0],)).image_facts_of("b") is UNKNOWN_IMAGE_FACTS
    assert GENERIC_PRESET.image_facts_of("gpt-image-2") is UNKNOWN_IMAGE_FACTS


# --- the number of images ---

MAX_IMAGES = {"openai": 10, "azure": 10, "together": 4, "xai": 10, "vllm-omni": 10}


@each_subject
@pytest.mark.parametrize(("is_aiserver", "name"), [(False, "n"), (True, "batchSize")])
def test_number_of_images_is_limited_where_the_limit_is_known(subject: Subject, is_aiserver: bool, name: str) -> None:
    limit = MAX_IMAGES.get(subject.preset)
    for count in (1, 4, 5, 10, 11, 1000):
        error = rejection(subject, generation_call(n=count, is_aiserver=is_aiserver))
        assert (error is not None) == (limit is not None and count > limit)
        if error:
            expected = f"'{name}' must be at most {limit} for model {subject.model} of provider p"
            assert (error.param, error.message) == (name, expected)


@pytest.mark.parametrize("subject", [Subject("openai"), Subject("azure"), Subject("vllm-omni")], ids=str)
def test_number_of_images_in_a_form_is_limited(subject: Subject) -> None:
    for is_aiserver, name in ((False, "n"), (True, "batchSize")):
        calls = [edit_call(n=count, is_aiserver=is_aiserver) for count in (10, 11)]
        assert [rejected_param(subject, call) for call in calls] == [None, name]


@each_subject
@pytest.mark.parametrize("count", [None, 0, -1, 2.5, "x", "", True, [11], {"a": 11}])
def test_number_of_images_that_is_no_number_is_left_to_the_provider(subject: Subject, count: object) -> None:
    assert rejection(subject, generation_call(n=count)) is None


@pytest.mark.parametrize("count", ["²", "9" * 5000], ids=["superscript", "5000 digits"])
def test_number_in_a_form_that_int_cannot_parse_is_no_crash(count: str) -> None:
    assert rejected_param(Subject("openai"), edit_call(n=count)) in (None, "n")


def test_number_of_the_settings_is_limited_unless_the_caller_gives_one() -> None:
    for call in (generation_call(), edit_call()):
        with pytest.raises(InvalidRequest, match="'n' must be at most 10"):
            check(Subject("openai"), call, n=11)
    check(Subject("openai"), generation_call(n=1), n=11)
    check(Subject("openai"), edit_call(n=1), n=11)


# --- the size ---

WITHOUT_SIZE = {("together", "m"), ("together", SCHNELL), ("together", KONTEXT), ("xai", "m")}


@each_subject
@pytest.mark.parametrize(
    "size", ["1024\u00d71024", "0x0", "abc", "1024", "1024x", "1024x1024 ", "4:3", "-1x5", "100000x1"]
)
def test_size_that_is_not_two_numbers_is_rejected_where_it_is_converted(subject: Subject, size: str) -> None:
    error = rejection(subject, generation_call(size=size))
    assert (error is not None) == (subject in WITHOUT_SIZE)
    if error:
        assert (error.param, error.fields[0].error_code) == ("size", "InvalidRange")
        assert error.message == "'size' must be two numbers such as 1024x768, for provider p"


@each_subject
@pytest.mark.parametrize("size", ["auto", "1024x1536", "1792x1024", "1x1", None, ""])
def test_size_of_two_numbers_or_auto_is_accepted(subject: Subject, size: object) -> None:
    assert rejection(subject, generation_call(size=size)) is None


# --- edits and masks ---


@each_edit_subject
def test_edits_as_json_are_rejected_where_only_forms_are_accepted(subject: Subject) -> None:
    error = rejection(subject, json_edit_call())
    if subject.preset in ("localai", "stable-diffusion-cpp", "vllm-omni"):
        assert error
        assert (error.param, error.message) == ("image", "Edits by provider p need a form with files")
    else:
        assert error is None


OPAQUE, JPEG_MASK, WEBP_MASK = PNG, image_bytes(image_format="JPEG"), image_bytes("RGBA", "WEBP")
TRANSPARENT_ONLY, WHITE = ("openai", "azure"), ("localai", "stable-diffusion-cpp", "vllm-omni")


@each_edit_subject
@pytest.mark.parametrize("is_aiserver", [False, True])
@pytest.mark.parametrize("mask", [OPAQUE, JPEG_MASK, TRANSPARENT_PNG, WEBP_MASK], ids=["RGB", "JPEG", "RGBA", "WebP"])
def test_mask_is_rejected_where_other_pixels_of_it_are_edited(subject: Subject, is_aiserver: bool, mask: bytes) -> None:
    """AI Server's masks are white where the image changes, whether they are transparent or not."""
    error = rejection(subject, edit_call(image_file("image"), image_file("mask", mask), is_aiserver=is_aiserver))
    has_alpha = mask in (TRANSPARENT_PNG, WEBP_MASK)
    if subject.preset in TRANSPARENT_ONLY and not has_alpha:
        expected = "'mask' has no transparency: provider p edits the transparent pixels of a mask"
    elif subject.preset in WHITE and has_alpha and not is_aiserver:
        expected = "'mask' has transparency: provider p edits the white pixels of a mask"
    else:
        expected = None
    assert (error and error.message) == expected
    assert error is None or (error.param, error.fields[0].error_code) == ("mask", "InvalidImage")


@each_edit_subject
@pytest.mark.parametrize("is_aiserver", [False, True])
def test_edit_without_a_mask_is_rejected_by_localai_only(subject: Subject, is_aiserver: bool) -> None:
    error = rejection(subject, edit_call(is_aiserver=is_aiserver))
    expected = "'mask' is required: provider p edits only the area of a mask"
    assert (error and error.message) == (expected if subject.preset == "localai" else None)


@pytest.mark.parametrize("mask", [None, OPAQUE, TRANSPARENT_PNG], ids=["without", "RGB", "RGBA"])
@pytest.mark.parametrize("is_aiserver", [False, True])
def test_mask_that_a_provider_would_ignore_is_rejected(
    mask: bytes | None, is_aiserver: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    facts = ImageFacts(SOURCE, mask="none")
    monkeypatch.setattr(Preset, "image_facts_of", lambda _preset, _model: facts)  # pyright: ignore[reportUnknownLambdaType, reportUnknownArgumentType]
    files = [image_file("image"), *([image_file("mask", mask)] if mask else [])]
    error = rejection(Subject(GENERIC), edit_call(*files, is_aiserver=is_aiserver))
    assert (error and error.message) == ("'mask' is not supported: provider p ignores it" if mask else None)


# --- optional members of AI Server's requests ---


def test_optional_members_have_the_provider_names() -> None:
    facts = ImageFacts(SOURCE, optional={"seed": "random_seed", "strength": "image_strength"})
    hints = {"seed": 5, "strength": 0.5, "negative_prompt": "dark"}
    changes = field_changes(facts, {"prompt": "A fox", **hints}, hints)
    assert changes.fields == dict.fromkeys(hints) | {"random_seed": 5, "image_strength": 0.5}
    assert changes.ignored == ("negativePrompt",)
    assert field_changes(facts, {"prompt": "A fox", **hints}, {}).fields == {}


def test_prompt_element_is_json_without_the_end_of_an_element() -> None:
    hints = {"negative_prompt": '</x> \u00e9\n"<x>', "seed": 5}
    changes = field_changes(ImageFacts(SOURCE, prompt_element="x"), {"prompt": "A fox", **hints}, hints)
    prompt = changes.fields["prompt"]
    assert (prompt[:8], prompt[-4:], prompt.count("<"), changes.ignored) == ("A fox<x>", "</x>", 2, ())
    assert json.loads(prompt[8:-4]) == hints
