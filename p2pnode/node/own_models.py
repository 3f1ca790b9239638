"""The models of one node, by what the core and the engines, files and people know them by."""

from collections.abc import Iterator
from pathlib import Path
from typing import Final

from p2pnode.errors import ModelError
from p2pnode.node.model_names import labels, meant
from p2pnode.node.own_model import OwnModel
from p2pnode.wire.ad import MAX_OFFERS

MOST_MODELS: Final = MAX_OFFERS
"""Models of a node; of long names an ad has room for fewer."""


class OwnModels:
    """Those that are there, in the order in which they came: the first is meant by no name."""

    def __init__(self) -> None:
        self._models: dict[int, OwnModel] = {}

    def __iter__(self) -> Iterator[OwnModel]:
        return iter(self._models.values())

    def __len__(self) -> int:
        return len(self._models)

    @property
    def first(self) -> OwnModel | None:
        """What is meant where no model is named."""
        return next(iter(self), None)

    @property
    def pinned(self) -> int:
        """Bytes of the layers that their owner chose."""
        return sum(one.room.pinned for one in self if one.room is not None)

    def refuse_more(self) -> None:
        """Refuse one more where there are too many.

        Raises:
            ModelError: There are.
        """
        if len(self) >= MOST_MODELS:
            raise ModelError(
                f"a node holds {MOST_MODELS} models at the most",
                hint="unload one: p2pnode models unload NAME",
            )

    def of_path(self, path: Path) -> OwnModel | None:
        """Return the one that was read from here."""
        return next((one for one in self if one.choice.path == path), None)

    def same_as(self, one: OwnModel) -> OwnModel:
        """Take a model, and return it; or the very same one that is here.

        Raises:
            ModelError: Another one of its space is.
        """
        same = self._models.setdefault(one.space, one)
        if same.info.data_sig != one.info.data_sig:
            raise ModelError(
                f"{one.info.name} and {same.info.name} say of themselves that their hidden states "
                f"are alike (space {one.space:08x}), and they are not",
                hint="hold one of them",
            )
        return same

    def remove(self, one: OwnModel) -> None:
        """Forget it: nobody can ask for it any more."""
        self._models.pop(one.space, None)

    def of_space(self, space: int) -> OwnModel | None:
        """Return the one of a space; 0 means the first."""
        return self._models.get(space) if space else self.first

    def meant(self, name: str) -> OwnModel:
        """Return the model that a name means; an empty one means the first.

        Raises:
            UnknownModelError: It means none, or several.
        """
        models = list(self)
        return models[meant(name, [one.name for one in models])]

    def called(self) -> dict[int, str]:
        """Return what each is called, by space: its root beside its name where two share that."""
        models = list(self)
        shown = labels([one.name for one in models])
        return {one.space: label for one, label in zip(models, shown, strict=True)}
