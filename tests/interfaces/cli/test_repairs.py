"""What an asker is told of repairs, of waiting, and of an answer that was cut."""

from p2pnode.interfaces.cli import repairs


def test_a_loss_names_who_why_and_until_when() -> None:
    event = {"names": ["b", "c"], "layers": [[2, 4], [4, 6]], "reason": "silent", "wait": 20.4}
    assert repairs.lost(event) == (
        "[lost b [2, 4) and c [4, 6): silent; looking for others, 20 s at most]"
    )
    assert repairs.lost({**event, "names": [], "layers": []}).startswith("[lost a stage: silent")


def test_a_repair_names_who_took_over() -> None:
    event = {"seconds": 0.21, "instead": [{"name": "spare", "layers": [2, 4]}]}
    assert (
        repairs.mended(event)
        == "[the answer goes on, 210 ms after that was noticed: spare [2, 4) took over]"
    )
    assert (
        repairs.mended({**event, "instead": []})
        == "[the answer goes on, 210 ms after that was noticed]"
    )


def test_a_repair_says_that_the_answer_is_no_longer_bit_reproducible() -> None:
    facts = {"bit_reproducible": False, "bit_reproducible_why": "spare computes as numpy"}
    event = {"seconds": 0.21, "instead": [{"name": "spare", "layers": [2, 4]}], **facts}
    said = "[no longer bit-reproducible: spare computes as numpy]"
    assert repairs.mended(event).splitlines()[1:] == [said]
    assert repairs.changed(facts) == said
    assert "\n" not in repairs.mended({**event, "bit_reproducible": True})


def test_waiting_names_the_layers_and_the_limit() -> None:
    assert repairs.waiting({"layers": [[0, 2], [4, 6]], "wait": 3.0}) == (
        "[nobody serves layers [0, 2), [4, 6): waiting for them, 3 s more at most]"
    )


def test_a_cut_answer_says_at_which_limit() -> None:
    assert repairs.cut(256, 256) == "[the answer was cut at 256 tokens: --max-tokens N for more]"
    assert repairs.cut(100, 256).endswith("100 tokens: the model's context is full]")
