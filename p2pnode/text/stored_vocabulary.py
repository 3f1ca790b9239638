"""The vocabulary of a model on disk, whatever its format."""

from pathlib import Path
from typing import Final

from p2pnode.engine.gguf_file import GgufFile
from p2pnode.engine.stored_model import StoredModel, open_stored
from p2pnode.engine.word_files import WordFiles
from p2pnode.errors import ModelError
from p2pnode.text.checkpoint_vocabulary import checkpoint_vocabulary
from p2pnode.text.gguf_vocabulary import gguf_vocabulary
from p2pnode.text.pre_tokenizers import PRE_TOKENIZERS, SENTENCE_PIECES_CHECKED_AGAINST
from p2pnode.text.vocabulary import BYTE_LEVEL, SENTENCE_PIECES, Vocabulary

UNTESTED: Final = "untested: its tokens were compared with no real vocabulary's"
"""What a person is told of a pre-tokenizer that is known by its name alone."""


def vocabulary_of(model: StoredModel) -> Vocabulary:
    """Read the vocabulary of an open model.

    Raises:
        ModelError: It is missing, broken, or of an unknown kind.
    """
    try:
        match model.words:
            case GgufFile() as file:
                return gguf_vocabulary(file)
            case WordFiles() as files:
                return checkpoint_vocabulary(files)
    except ModelError as error:
        raise _named(model, error) from error


def read_vocabulary(path: Path) -> Vocabulary:
    """Read the vocabulary of the model at ``path``; raises as :func:`vocabulary_of`."""
    with open_stored(path) as model:
        return vocabulary_of(model)


def checked_against(kind: str, pre: str) -> str | None:
    """Return the real vocabularies that such a one was compared with; None where with none.

    Args:
        kind: Of the vocabulary.
        pre: Its pre-tokenizer, which pieces do not have.
    """
    if kind == SENTENCE_PIECES:
        return SENTENCE_PIECES_CHECKED_AGAINST
    known = PRE_TOKENIZERS.get(pre) if kind == BYTE_LEVEL else None
    return (known.checked_against or None) if known else None


def is_untested(kind: str, pre: str) -> bool:
    """Tell whether text is cut in a way that is known, and was compared with nothing."""
    return kind == BYTE_LEVEL and pre in PRE_TOKENIZERS and not checked_against(kind, pre)


def untested_cut(path: Path) -> str:
    """Return the untested pre-tokenizer of the model at ``path``; empty where there is none.

    Raises:
        ModelError: The model is broken, or its vocabulary of an unknown kind.
    """
    with open_stored(path) as model:
        if isinstance(model.words, GgufFile):  # of a GGUF the header tells, its words unread
            said = model.words.metadata
            kind, pre = (str(said.get(f"tokenizer.ggml.{key}", "")) for key in ("model", "pre"))
        else:
            words = vocabulary_of(model)
            kind, pre = words.kind, words.pre
    return pre if is_untested(kind, pre) else ""


def check_words(model: StoredModel) -> None:
    """Make sure that prompts can be made for an open model; cheap, before any comes.

    A model without a chat template passes: it can still continue plain text.

    Raises:
        ModelError: Tokens, types, merges or the pre-tokenizer are missing, contradict each other
            or are unknown, or the chat template is no jinja2.
    """
    from p2pnode.text.template import check_template

    vocabulary = vocabulary_of(model)
    try:
        check_template(vocabulary.template)
    except ModelError as error:
        raise _named(model, error) from error


def _named(model: StoredModel, error: ModelError) -> ModelError:
    """Return an error that says of which model it is."""
    if str(error).startswith(model.path.name):
        return error
    return ModelError(f"{model.path.name}: {error}", hint=error.hint)
