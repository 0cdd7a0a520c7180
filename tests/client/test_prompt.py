"""What is asked for, as PROMPT's elements and as the labels of the answer."""

import pytest

from gdino_client.prompt import parse_prompt
from gdino_core.errors import PromptError


def test_a_caption_is_sent_as_written_and_its_phrases_are_its_labels() -> None:
    prompt = parse_prompt(" Red circle . blue star.. ")
    assert prompt.elements == (b" Red circle . blue star.. ",)
    assert prompt.labels == ("Red circle", "blue star")
    assert not prompt.single_label


def test_labels_are_sent_verbatim() -> None:
    prompt = parse_prompt(["St. Bernard", " cat"])
    assert prompt.elements == (b"St. Bernard", b" cat")
    assert prompt.labels == ("St. Bernard", " cat")
    assert not prompt.single_label


def test_one_label_in_a_sequence_is_a_label() -> None:
    prompt = parse_prompt(("St. Bernard",))
    assert (prompt.labels, prompt.single_label) == (("St. Bernard",), True)


@pytest.mark.parametrize("empty", ["", "  ", " . .", [], [""], ["", " . "]])
def test_asking_for_nothing_is_refused_with_an_example(empty: str | list[str]) -> None:
    with pytest.raises(PromptError, match="the prompt is empty\n  fix: give a caption, such as"):
        parse_prompt(empty)


def test_a_label_that_is_no_text_is_named() -> None:
    with pytest.raises(PromptError, match="prompt element 1 is bytes b'dog', not a text\n  fix: give one str"):
        parse_prompt(["cat", b"dog"])  # type: ignore[list-item]  # what this is about


def test_a_lone_surrogate_is_refused_before_it_is_sent() -> None:
    with pytest.raises(PromptError, match="prompt element 1 has a lone surrogate at character 2"):
        parse_prompt(["cat", "do\udce9g"])
