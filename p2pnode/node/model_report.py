"""What faces in other processes are told of the model that a node asks for."""

from typing import Any

from p2pnode.node.model_facts import facts_of
from p2pnode.node.model_file import ModelFile
from p2pnode.node.models import files_of
from p2pnode.text.stored_vocabulary import read_vocabulary


def model_report(file: ModelFile) -> dict[str, Any]:
    """Read it off the model's file; a large vocabulary takes half a second.

    Raises:
        ModelError: The file is broken by now.
    """
    info, facts = file.info, facts_of(file.path, with_words=False)
    return {
        "name": info.name,
        "title": facts.title,
        "architecture": info.arch,
        "layers": info.n_layers,
        "d_model": info.d_model,
        "context_length": info.context_length,
        "vocabulary": info.vocab_size,
        "parameters": facts.numbers,
        "quantisation": next(iter(facts.quantisation), ""),
        "licence": facts.licence,
        "bytes": sum(one.stat().st_size for one in files_of(file.path)),
        "root": info.data_sig,
        "space_hash32": info.space_hash32,
        "modified": file.path.stat().st_mtime,
        "template": read_vocabulary(file.path).template,
    }
