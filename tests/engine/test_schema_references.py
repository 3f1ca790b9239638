"""References of a schema that lead only to themselves allow no token: they are refused at once."""

import json

import pytest

from p2pnode.engine.sampling.schema_text import check_schema_text
from p2pnode.errors import ConfigError

LOOP = {"a": {"$ref": "#/$defs/b"}, "b": {"$ref": "#/$defs/a"}}


@pytest.mark.parametrize(
    "schema",
    [
        {"$ref": "#"},
        {"$ref": "#/$defs/a", "$defs": {"a": {"$ref": "#/$defs/a"}}},
        {"anyOf": [{"$ref": "#/$defs/a"}], "$defs": LOOP},
        {"items": {"$ref": "#/$defs/x~1y"}, "$defs": {"x/y": {"$ref": "#/$defs/x~1y"}}},
    ],
    ids=json.dumps,
)
def test_a_reference_that_leads_only_to_itself_is_refused(schema: dict[str, object]) -> None:
    with pytest.raises(ConfigError, match="leads only to itself"):
        check_schema_text(json.dumps(schema))


@pytest.mark.parametrize(
    "schema",
    [
        {"type": "object", "properties": {"next": {"$ref": "#"}}},  # a list of any length
        {"$defs": {"a": {"$ref": "#/$defs/b"}, "b": {"type": "string"}}, "$ref": "#/$defs/a"},
        {"items": {"$ref": "https://example.org/s"}},
        {"items": {"$ref": "#/nowhere"}},
        {"const": {"$ref": 7}},
    ],
    ids=json.dumps,
)
def test_other_references_are_left_alone(schema: dict[str, object]) -> None:
    check_schema_text(json.dumps(schema))


def test_a_long_way_is_none_that_leads_to_itself() -> None:
    chain = {f"n{number}": {"$ref": f"#/$defs/n{number + 1}"} for number in range(400)}
    check_schema_text(json.dumps({"$defs": {**chain, "n400": {"type": "string"}}}))
