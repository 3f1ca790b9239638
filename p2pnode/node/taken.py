"""Which names of the cache are taken: no model takes another's name, nor the place of its files."""

from pathlib import Path

from p2pnode.engine.gguf_split import whole_name
from p2pnode.errors import UserError
from p2pnode.node.catalogue import KNOWN_MODELS, Wheels, known_model
from p2pnode.node.entries import read_entries
from p2pnode.node.model_list import listed


def refuse_taken(folder: Path, name: str, origin: str, *, linked: bool = False) -> None:
    """Make sure that a model may be called ``name``, and that its files take nobody's place.

    A model owns each file that is called as it is, with the number of a part or without, in
    whatever case. So no two names share a file, and the lock of a name is that of its files.

    Args:
        folder: Where the cache keeps models.
        name: What the model is to be called.
        origin: What to pull to have it again; the name itself, of a known model.
        linked: Whether its files stay where they are, outside the cache.

    Raises:
        UserError: The name or a file is another model's, or a file is there that nobody noted.
    """
    known, noted = known_model(name), read_entries(folder)
    if known is not None and origin != known.name:
        raise UserError(
            f"{name} is the name of a known model, {known.name}",
            hint=f"choose another one with --name, or p2pnode models pull {known.name}",
        )
    mine = noted.get(name.casefold())
    if mine is not None and (mine.source != origin or mine.is_fetched_checkpoint):
        raise UserError(
            f"there is another model called {mine.name} already, from {mine.source}",
            hint=f"choose another name with --name, or remove it: p2pnode models rm {mine.name}",
        )
    stem = _stem(known.file if known else f"{name}.gguf")
    owners = (model for model in KNOWN_MODELS.values() if _stem(model.file) == stem)
    owner = next((model for model in owners if model is not known), None)
    if owner is not None and not linked:
        raise UserError(
            f"{owner.file} is the file of a known model, {owner.name}",
            hint=f"choose another name with --name, or p2pnode models pull {owner.name}",
        )
    if owner is not None:
        return
    removed = "remove it: p2pnode models rm"
    choice = removed if known is not None else f"choose another name with --name, or {removed}"
    for other in noted.values():
        if other is not mine and not other.linked and stem in map(_stem, other.files):
            raise UserError(
                f"{other.files[0]} is the file of another model, {other.name}",
                hint=f"{choice} {other.name}",
            )
    if known is not None and isinstance(known.source, Wheels):
        return  # nobody notes these: the hash in the catalogue tells whose file it is
    own = () if mine is None or mine.linked else mine.files
    for one in listed(folder):
        names = [path.name for path in one.paths if not one.linked and path.name not in own]
        if stem in map(_stem, names):
            raise UserError(
                f"{folder} has a file {names[0]} already, which was not pulled",
                hint=f"{choice} {one.name}",
            )


def _stem(file: str) -> str:
    return whole_name(file).casefold()
