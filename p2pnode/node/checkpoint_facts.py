"""What the files of a checkpoint say of its model."""

from p2pnode.engine.stored_checkpoint import StoredCheckpoint
from p2pnode.errors import ModelError
from p2pnode.node.model_facts import KV_NUMBER, ModelFacts
from p2pnode.text.stored_vocabulary import check_words, vocabulary_of


def checkpoint_facts(model: StoredCheckpoint, *, with_words: bool) -> ModelFacts:
    """Read it; shards that are not here are reckoned from config.json."""
    config, checkpoint = model.config(), model.checkpoint
    layers, other, kinds = checkpoint.tensor_bytes()
    of_layer, of_none = checkpoint.numbers
    words, problem, hint = None, "", ""
    if with_words:
        try:
            words = vocabulary_of(model)
            check_words(model)
        except ModelError as error:
            problem, hint = str(error), error.hint
    return ModelFacts(
        title=checkpoint.name,
        architecture=checkpoint.model.model_type,
        licence=model.licence(),
        layers=config.n_layers,
        d_model=config.d_model,
        context=config.context_length,
        vocabulary=words.kind if words else "",
        pre_tokenizer=words.pre if words else "",
        tokens=len(words.tokens) if words else None,
        has_template=bool(words and words.template),
        quantisation=dict(sorted(kinds.items(), key=lambda one: -one[1])),
        layer_bytes=tuple(layers),
        layer_second_bytes=(0,) * len(layers),
        other_bytes=other,
        kv_bytes_per_token=2 * KV_NUMBER * config.head_dim * config.n_kv_heads * config.n_layers,
        layer_numbers=(of_layer,) * config.n_layers,
        other_numbers=of_none,
        problem=problem,
        hint=hint,
    )
