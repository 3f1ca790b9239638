"""The guide's table of known models is that of the catalogue."""

from pathlib import Path

from p2pnode.node.catalogue import KNOWN_MODELS, known_model
from p2pnode.node.disk import size_in_words

GUIDE = Path(__file__).parents[2] / "docs" / "guides" / "models.md"


def test_the_table_is_that_of_the_catalogue() -> None:
    section = GUIDE.read_text("utf-8").partition("## The catalogue")[2].partition("\n## ")[0]
    rows = [
        [cell.strip() for cell in line.strip("|").split("|")]
        for line in section.splitlines()
        if line.startswith("| ")
    ][1:]
    assert {row[0] for row in rows} == {*KNOWN_MODELS}
    for name, also, size, memory, licence, layers, context in rows:
        model = KNOWN_MODELS[name]
        about = "" if model.verified else "~"
        assert size == about + size_in_words(model.size), name
        assert memory == size_in_words(model.memory), name
        assert (licence, int(layers)) == (model.licence, model.layers)
        assert int(context.replace(",", "")) == model.context
        assert all(known_model(other) is model for other in also.split(", ") if other)
