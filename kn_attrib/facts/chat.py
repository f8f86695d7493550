"""The chat template of a tokenizer: a text as the user's message, with the assistant's turn begun."""

from __future__ import annotations

from transformers import PreTrainedTokenizerBase

from kn_attrib.errors import ModelError, PromptError
from kn_attrib.facts.prompts import Kind

PLACEHOLDER = "[text]"
LONGEST = 200


def user_turn(tokenizer: PreTrainedTokenizerBase, message: str) -> str:
    """The conversation of one message of the user's, up to where the assistant's answer begins.

    Raises
    ------
    PromptError : the template cannot be filled.
    """
    conversation = [{"role": "user", "content": message}]
    try:
        return str(tokenizer.apply_chat_template(conversation, tokenize=False, add_generation_prompt=True))
    # Templates are programs of the model's makers, and fail as these like.
    except Exception as error:
        reason = " ".join(str(error).split())[:LONGEST]
        raise PromptError(
            f"the tokenizer's chat template cannot be filled with {message[:60]!r} ({reason}).", cause="chat template"
        ) from error


def check_chat(tokenizer: PreTrainedTokenizerBase, kind: Kind, name: str) -> None:
    """Raise ModelError if a model cannot be asked as a chat model."""
    otherwise = "Load it without chat, or take a model that is trained to chat."
    if kind != "causal":
        raise ModelError(f"{name!r} is a {kind} model; chat is for causal models. {otherwise}")
    if not tokenizer.chat_template:
        raise ModelError(f"{name!r}: its tokenizer has no chat template, so it cannot be asked as a chat. {otherwise}")
    try:
        frame = user_turn(tokenizer, PLACEHOLDER)
    except PromptError as error:
        raise ModelError(f"{name!r}: {error} {otherwise}") from error
    if PLACEHOLDER not in frame:
        raise ModelError(f"{name!r}: its chat template leaves the user's message out (it makes {frame!r}). {otherwise}")
