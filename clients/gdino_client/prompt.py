"""Turn what a user asks for into the elements of the PROMPT tensor.

The contract calls one element a caption and several a list of labels, so a list of one label has no form of
its own. It is sent as a caption, which has the same tokens as the label, and every box that comes back is the
label's: there is no other phrase it could belong to. Its score is then the best token's, at least as high as
the mean over the label's tokens that several labels are scored by. The other ways were worse: sending the
label twice changes what the model sees, and a request parameter would be an input that the contract does not
name.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from gdino_core.errors import PromptError


@dataclass(frozen=True, kw_only=True)
class Prompt:
    """What is asked for.

    Attributes:
        elements: UTF-8 texts for the PROMPT tensor.
        labels: the labels, or the phrases of the caption.
        single_label: whether the only element is a label and not a caption.
    """

    elements: tuple[bytes, ...]
    labels: tuple[str, ...]
    single_label: bool


def parse_prompt(prompt: str | Sequence[str]) -> Prompt:
    """Read a caption ("cat . remote control .") or a sequence of labels (["cat", "remote control"]).

    Raises:
        PromptError: there is nothing to look for, or an element is no text. What the model's tokenizer thinks
            of it is for the server to say.
    """
    texts = (prompt,) if isinstance(prompt, str) else tuple(prompt)
    elements = tuple(_utf8(text, index) for index, text in enumerate(texts))
    if not any(text.strip(" .") for text in texts):
        raise PromptError(
            "the prompt is empty", fix='give a caption, such as "cat . remote control .", or a list of labels'
        )
    if isinstance(prompt, str):
        labels = tuple(phrase for part in prompt.split(".") if (phrase := part.strip()))
    else:
        labels = texts
    return Prompt(
        elements=elements,
        labels=labels,
        single_label=not isinstance(prompt, str) and len(texts) == 1,
    )


def _utf8(text: object, index: int) -> bytes:
    if not isinstance(text, str):
        raise PromptError(
            f"prompt element {index} is {type(text).__name__} {text!r}, not a text",
            fix="give one str, or a sequence of str",
        )
    try:
        return text.encode("utf-8")
    except UnicodeEncodeError as error:
        raise PromptError(
            f"prompt element {index} has a lone surrogate at character {error.start}, which is no text",
            fix="write it in UTF-8",
        ) from error
