"""The vocabulary of a model on disk, whatever its format."""

from pathlib import Path

from p2pnode.engine.gguf_file import GgufFile
from p2pnode.engine.stored_model import StoredModel, open_stored
from p2pnode.engine.word_files import WordFiles
from p2pnode.errors import ModelError
from p2pnode.text.checkpoint_vocabulary import checkpoint_vocabulary
from p2pnode.text.gguf_vocabulary import gguf_vocabulary
from p2pnode.text.vocabulary import Vocabulary


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
