"""Prompts are made in a process of their own, which ends when it must, and takes nobody with it."""

import os
import signal
import threading
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from typing import Any

import psutil
import pytest
import trio

from p2pnode.errors import ModelError, UserError
from p2pnode.node import text_worker
from p2pnode.node.stamp import Stamp
from p2pnode.node.text_requests import Request, body_of
from p2pnode.node.text_worker import TextWorker
from p2pnode.testing.tiny_gguf import write_tiny_gguf
from p2pnode.text.tokenizer import Tokenizer

ENDLESS = "{% for a in range(99999) %}{% for b in range(99999) %}{% endfor %}{% endfor %}"
ENDLESS_LATER = "{% if messages | length > 3 %}" + ENDLESS + "{% endif %}<|end|>"
LARGE = "{% set x = 'a' * (10 ** 10) %}{{ x | length }}"
POWER = "{{ 9 ** (9 ** 9) }}"
SAID = {"messages": [{"role": "user", "content": "hello"}], "max_tokens": 8}
CONTEXT = 256

Start = Callable[..., Awaitable[TextWorker]]


@pytest.fixture
async def start(tmp_path: Path) -> AsyncIterator[Start]:
    """Start workers for a tiny model, perhaps with another template."""
    workers: list[TextWorker] = []

    async def started(template: str | None = None) -> TextWorker:
        path = tmp_path / f"{len(workers)}.gguf"
        write_tiny_gguf(path, context_length=CONTEXT, template=template)
        workers.append(TextWorker(path, "tiny", CONTEXT))
        return workers[-1]

    yield started
    for worker in workers:
        await worker.close()


def children() -> list[psutil.Process]:
    return [one for one in psutil.Process().children() if "text_process" in "".join(one.cmdline())]


async def test_a_prompt_is_what_the_tokenizer_makes_of_it(start: Start, tmp_path: Path) -> None:
    worker = await start()
    tokenizer = Tokenizer.from_model(tmp_path / "0.gguf")
    prompt = await worker.prompt(SAID)
    assert list(prompt.ids) == tokenizer.encode(tokenizer.chat(SAID["messages"]))  # type: ignore[arg-type]
    assert prompt.stop_ids == {257}
    assert prompt.left_out == 0
    plain = await worker.prompt({"text": "a<|end|>"})
    assert list(plain.ids) == list(b"a<|end|>")
    assert (await worker.detokenizer()).decode(plain.ids) == "a<|end|>"
    assert worker.counters == {"text processes started": 1}


async def test_what_is_counted_is_the_whole_prompt(start: Start) -> None:
    worker = await start()
    assert await worker.count(SAID) == len((await worker.prompt(SAID)).ids)
    assert await worker.count({"text": "abc"}) == 3
    long = [{"role": "user", "content": "a" * CONTEXT}] * 3
    assert await worker.count({"messages": long, "max_tokens": 8}) > 3 * CONTEXT


async def test_a_prompt_ends_with_the_beginning_of_its_answer(start: Start) -> None:
    worker = await start()
    plain = await worker.prompt(SAID)
    begun = [*SAID["messages"], {"role": "assistant", "content": "I <|end|>"}]  # type: ignore[misc]
    prompt = await worker.prompt({**SAID, "messages": begun, "goes_on": True})
    assert prompt.ids == plain.ids + tuple(b"I <|end|>")  # spelled out: nobody ends a turn so


async def test_a_quoted_answer_keeps_the_tokens_that_it_was_made_of(
    start: Start, tmp_path: Path
) -> None:
    worker = await start()
    tokenizer = Tokenizer.from_model(tmp_path / "0.gguf")
    first, answer = await worker.prompt(SAID), (*b"a tea", 257)  # " t" is one token where it is cut
    worker.note_answer(first, answer)
    said = [
        *SAID["messages"],
        {"role": "assistant", "content": "a tea"},
        {"role": "user", "content": "?"},
    ]  # type: ignore[misc]
    following = await worker.prompt({**SAID, "messages": said})
    assert following.ids[: len(first.ids) + len(answer)] == (*first.ids, *answer)
    cut = tokenizer.encode(tokenizer.chat(said))
    assert tokenizer.decode(following.ids, control=True) == tokenizer.decode(cut, control=True)
    assert following.ids != tuple(cut)


async def test_one_process_serves_many_at_once(start: Start) -> None:
    worker = await start()
    answers: list[tuple[int, ...]] = []

    async def ask(text: str) -> None:
        answers.append((await worker.prompt({"text": text})).ids)

    async with trio.open_nursery() as nursery:
        for number in range(10):
            nursery.start_soon(ask, str(number))
    assert sorted(answers) == [tuple(str(number).encode()) for number in range(10)]
    assert len(children()) == 1


@pytest.mark.parametrize(
    ("template", "what"),
    [
        (ENDLESS, "did not end within 2 s of CPU time"),
        (POWER, "did not end within 2 s of CPU time"),
        (LARGE, "more memory"),
    ],
)
async def test_a_template_that_overruns_is_ended_and_named(
    start: Start, template: str, what: str
) -> None:
    worker = await start(template)
    with pytest.raises(ModelError, match=what) as caught:
        await worker.prompt(SAID)
    assert "--raw" in caught.value.hint
    assert not children()
    prompt = await worker.prompt({"text": "ab"})  # by another process
    assert prompt.ids == (97, 98)
    assert prompt.stop_ids == {257}  # the file's own end, then
    assert worker.counters["text processes started"] >= 2


async def test_who_hangs_up_ends_the_process_at_once(start: Start) -> None:
    worker = await start(ENDLESS_LATER)
    await worker.prompt({"text": "ab"})
    with trio.move_on_after(0.1) as gave_up:
        await worker.prompt({**SAID, "messages": 4 * [{"role": "user", "content": "hello"}]})
    assert gave_up.cancelled_caught
    assert not children()


async def test_a_process_that_somebody_killed_is_replaced(start: Start) -> None:
    worker = await start()
    await worker.prompt({"text": "ab"})
    (process,) = children()
    process.kill()
    psutil.wait_procs([process])
    assert (await worker.prompt({"text": "ab"})).ids == (97, 98)


async def test_closing_leaves_no_process(start: Start) -> None:
    worker = await start()
    await worker.prompt({"text": "ab"})
    assert len(children()) == 1
    with trio.fail_after(0.5):  # a Ctrl-C does not wait for it
        await worker.close()
    assert not children()


async def test_a_ctrl_c_at_the_terminal_is_not_for_it(start: Start) -> None:
    worker = await start()
    await worker.prompt({"text": "ab"})
    (process,) = children()
    assert os.getpgid(process.pid) != os.getpgid(0)
    process.send_signal(signal.SIGINT)
    await worker.prompt({"text": "ab"})
    assert children() == [process]


async def test_text_that_cannot_fit_is_refused_before_it_is_read(start: Start) -> None:
    worker = await start()
    with pytest.raises(UserError, match=r"3500000 characters.*tiny ends at 256"):
        await worker.prompt({"text": "word " * 700_000})
    assert not children()
    said = [{"role": "user", "content": "word " * 10_000}]
    with pytest.raises(UserError, match=r"at least \d+ tokens.*tiny ends at 256") as caught:
        await worker.prompt({**SAID, "messages": said})
    assert caught.value.hint
    with pytest.raises(UserError, match=r"has 300 tokens.*tiny ends at 256"):
        await worker.prompt({"text": "a" * 300})


async def test_the_oldest_turns_leave_a_conversation_that_outgrew_the_context(start: Start) -> None:
    worker = await start()
    turns: list[dict[str, Any]] = [{"role": "system", "content": "s" * 10}]
    for number in range(8):
        turns += [
            {"role": "user", "content": f"{number}" * 30},
            {"role": "assistant", "content": "a" * 30},
        ]
    turns.append({"role": "user", "content": "q" * 30})
    prompt = await worker.prompt({"messages": turns, "max_tokens": 64})
    words = (await worker.detokenizer()).decode(prompt.ids)
    assert prompt.left_out == 12
    assert words == "s" * 10 + "6" * 30 + "a" * 30 + "7" * 30 + "a" * 30 + "q" * 30
    assert len(prompt.ids) <= CONTEXT - 64
    with pytest.raises(UserError, match="last message alone has"):
        await worker.prompt(
            {"messages": [*turns[:-1], {"role": "user", "content": "q" * 280}], "max_tokens": 1}
        )


async def test_a_file_that_was_only_touched_is_read_once_that_is_known(tmp_path: Path) -> None:
    path = tmp_path / "touched.gguf"
    write_tiny_gguf(path, context_length=CONTEXT)
    stamps = [Stamp.of(path)]
    worker = TextWorker(path, "tiny", CONTEXT, lambda: stamps[-1])
    os.utime(path, ns=(1, 1))
    with pytest.raises(ModelError, match="changed since"):
        await worker.prompt(SAID)
    stamps.append(Stamp.of(path))  # as the watch does once it has hashed the file
    assert (await worker.prompt(SAID)).ids
    await worker.close()


async def test_a_file_that_changed_is_refused(start: Start, tmp_path: Path) -> None:
    worker = await start()
    write_tiny_gguf(tmp_path / "1.gguf", seed=1)
    (tmp_path / "1.gguf").replace(tmp_path / "0.gguf")
    with pytest.raises(ModelError, match="changed since"):
        await worker.prompt(SAID)


async def test_a_broken_file_is_named(start: Start, tmp_path: Path) -> None:
    worker = await start("{% for %}")
    with pytest.raises(ModelError, match="line 1"):
        await worker.prompt(SAID)
    assert (await worker.prompt({"text": "ab"})).stop_ids == {257}


async def test_too_many_at_once_are_refused(start: Start, monkeypatch: pytest.MonkeyPatch) -> None:
    worker = await start()
    monkeypatch.setattr(text_worker, "WAITING", 2)
    refused: list[str] = []

    async def ask() -> None:
        try:
            await worker.prompt({"text": "ab"})
        except UserError as error:
            refused.append(str(error))

    await worker.stop_ids()
    async with trio.open_nursery() as nursery:
        for _ in range(6):
            nursery.start_soon(ask)
    assert 1 <= len(refused) <= 4
    assert set(refused) == {"too many prompts wait to be read here"}
    assert worker.counters["prompts refused: too many at once"] == len(refused)


async def test_the_file_s_ends_serve_while_a_busy_machine_says_nothing(
    start: Start, monkeypatch: pytest.MonkeyPatch
) -> None:
    worker = await start("{% for m in messages %}{{ m.content }}<|user|>{% endfor %}")
    with monkeypatch.context() as busy:
        busy.setattr(text_worker, "PATIENCE", 0.0)
        assert await worker.stop_ids() == {257}
    assert worker.counters["end of a turn not known yet: the file's ends used"] == 1
    before = worker.counters["text processes started"]
    assert await worker.stop_ids() == {257, 258}  # asks again, and knows from then on
    assert await worker.stop_ids() == {257, 258}
    assert worker.counters["text processes started"] == before + 1
    assert worker.counters["end of a turn not known yet: the file's ends used"] == 1


async def test_a_template_that_overran_is_asked_for_its_end_once(start: Start) -> None:
    worker = await start(ENDLESS)
    assert await worker.stop_ids() == {257}
    (process,) = children()
    process.kill()
    psutil.wait_procs([process])
    assert (await worker.prompt({"text": "ab"})).stop_ids == {257}
    assert worker.counters["end of a turn not found: the chat template overran"] == 1
    assert worker.counters["text processes started"] == 3


async def test_memory_is_bounded_from_outside_where_the_process_cannot(
    start: Start, monkeypatch: pytest.MonkeyPatch
) -> None:
    unbounded = (
        "from p2pnode.node import text_process; text_process.limit_memory = lambda more: False; "
    )
    monkeypatch.setattr(
        text_worker, "_START", text_worker._START.replace("; from", "; " + unbounded + "from", 1)
    )
    worker = await start(ENDLESS_LATER)
    said = {**SAID, "messages": 4 * [{"role": "user", "content": "hello"}]}
    monkeypatch.setattr(text_worker, "MEMORY", -(1 << 20))  # less than it has
    with pytest.raises(ModelError, match="needs more than"):
        await worker.prompt(said)
    assert not children()


async def test_a_long_message_in_parts_is_refused_before_it_is_read(start: Start) -> None:
    worker = await start()
    parts = [{"type": "text", "text": "word " * 10_000}] * 50
    with pytest.raises(UserError, match=r"2500000 characters.*tiny ends at 256"):
        await worker.prompt({**SAID, "messages": [{"role": "user", "content": parts}]})
    assert not children()


@pytest.mark.parametrize(("tool", "by_thread"), [("y" * 70_000, True), (["y"] * 9000, True),
                                                 ({"y": ["z", 1, None]}, False)])  # fmt: skip
async def test_a_long_request_is_written_out_by_a_thread(
    start: Start, monkeypatch: pytest.MonkeyPatch, tool: object, by_thread: bool
) -> None:
    worker = await start()
    writers: list[int] = []
    body = body_of

    def write(request: Request) -> bytes:
        writers.append(threading.get_ident())
        return body(request)

    monkeypatch.setattr(text_worker, "body_of", write)
    assert (await worker.prompt({**SAID, "tools": [tool]})).ids
    assert [writer != threading.get_ident() for writer in writers] == [by_thread]
