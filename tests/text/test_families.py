"""Chats of the families that people use: turns end where they end, and nothing said forges one.

The templates are written in the shape of the families' own, which no package carries.
"""

from dataclasses import dataclass
from typing import Any

import pytest
from hypothesis import given, settings, strategies as st

from p2pnode.errors import ModelError
from p2pnode.text.detokenizer import byte_alphabet
from p2pnode.text.tokenizer import Tokenizer
from tests.text import small_pieces
from tests.text.nasty import texts

_LETTERS = {value[0]: letter for letter, value in byte_alphabet().items()}
LETTERS = [_LETTERS[byte] for byte in range(256)]


@dataclass(frozen=True)
class Family:
    """A template, its control tokens (begin and end of text first), and what ends a turn."""

    pre: str  # "" is SentencePiece
    control: tuple[str, ...]
    template: str
    end: str
    turns: str  # the control tokens of a question, an answer and another question
    fields: tuple[tuple[str, Any], ...] = ()

    def tokenizer(self) -> Tokenizer:
        given = dict(self.fields) | {"template": self.template}
        if self.pre:
            return Tokenizer(
                tokens=[*self.control, *LETTERS],
                kinds=[3] * len(self.control) + [1] * 256,
                merges=[],
                pre=self.pre,
                bos=0,
                eos=1,
                ends=(1,),
                **given,
            )
        plain = small_pieces.FIRST
        tokens = [*self.control, "<unk>", *small_pieces.TOKENS[plain:]]
        kinds = [3] * len(self.control) + [2, *small_pieces.KINDS[plain:]]
        scores = [-float(token) for token in range(len(tokens))]
        given |= {"tokens": tokens, "kinds": kinds, "scores": scores, "bos": 0, "eos": 1}
        return Tokenizer(**small_pieces.fields(**given, ends=(1,)))


HEADERS = ("<|start_header_id|>", "<|end_header_id|>", "<|eot_id|>")
LLAMA_3 = Family(
    "llama-bpe",
    ("<|begin_of_text|>", "<|end_of_text|>", *HEADERS),
    "{{- bos_token }}{%- if messages[0]['role'] == 'system' %}"
    "{%- set said = messages[0]['content'] | trim %}{%- set messages = messages[1:] %}"
    "{%- else %}{%- set said = '' %}{%- endif %}"
    "{{- '<|start_header_id|>system<|end_header_id|>\\n\\n' }}"
    "{{- 'Today Date: ' + strftime_now('%d %b %Y') + '\\n\\n' }}{{- said }}{{- '<|eot_id|>' }}"
    "{%- for m in messages %}{{- '<|start_header_id|>' + m['role'] + '<|end_header_id|>\\n\\n' + "
    "m['content'] | trim + '<|eot_id|>' }}{%- endfor %}{%- if add_generation_prompt %}"
    "{{- '<|start_header_id|>assistant<|end_header_id|>\\n\\n' }}{%- endif %}",
    "<|eot_id|>",
    "<|begin_of_text|>" + "".join(HEADERS) * 4 + "".join(HEADERS[:2]),
    (("add_bos", True),),
)
_QWEN_TURNS = "<|im_start|><|im_end|>" * 3 + "<|im_start|>"
QWEN_2 = Family(
    "qwen2",
    ("<|endoftext|>", "<|im_end|>", "<|im_start|>"),
    "{%- if messages[0]['role'] != 'system' %}"
    "{{- '<|im_start|>system\\nYou are a helpful assistant.<|im_end|>\\n' }}{%- endif %}"
    "{%- for m in messages %}{{- '<|im_start|>' + m.role + '\\n' + m.content + '<|im_end|>' + "
    "'\\n' }}{%- endfor %}"
    "{%- if add_generation_prompt %}{{- '<|im_start|>assistant\\n' }}{%- endif %}",
    "<|im_end|>",
    "<|im_start|><|im_end|>" + _QWEN_TURNS,
)
QWEN_3 = Family(
    "qwen2",
    ("<|endoftext|>", "<|im_end|>", "<|im_start|>"),
    "{%- set ns = namespace(last=messages | length - 1, seeking=true) %}"
    "{%- for m in messages[::-1] %}{%- set at = (messages | length - 1) - loop.index0 %}"
    "{%- if ns.seeking and m.role == 'user' and m.content is string and not "
    "(m.content.startswith('<tool_response>') and m.content.endswith('</tool_response>')) %}"
    "{%- set ns.seeking = false %}{%- set ns.last = at %}{%- endif %}{%- endfor %}"
    "{%- for m in messages %}{%- set content = m.content if m.content is string else '' %}"
    "{%- if m.role == 'assistant' %}{%- set thought = '' %}{%- if '</think>' in content %}"
    "{%- set thought = content.split('</think>')[0].rstrip('\\n').split('<think>')[-1]"
    ".lstrip('\\n') %}{%- set content = content.split('</think>')[-1].lstrip('\\n') %}{%- endif %}"
    "{%- if loop.index0 > ns.last and thought %}{{- '<|im_start|>' + m.role + "
    "'\\n<think>\\n' + thought.strip('\\n') + '\\n</think>\\n\\n' + content.lstrip('\\n') }}"
    "{%- else %}{{- '<|im_start|>' + m.role + '\\n' + content }}{%- endif %}{{- '<|im_end|>\\n' }}"
    "{%- else %}{{- '<|im_start|>' + m.role + '\\n' + content + '<|im_end|>' + '\\n' }}"
    "{%- endif %}{%- endfor %}{%- if add_generation_prompt %}{{- '<|im_start|>assistant\\n' }}"
    "{%- if enable_thinking is defined and enable_thinking is false %}"
    "{{- '<think>\\n\\n</think>\\n\\n' }}{%- endif %}{%- endif %}",
    "<|im_end|>",
    _QWEN_TURNS,
)
GEMMA_3 = Family(
    "",
    ("<bos>", "<eos>", "<start_of_turn>", "<end_of_turn>"),
    "{{ bos_token }}\n{%- if messages[0]['role'] == 'system' -%}"
    "{%- set before = messages[0]['content'] + '\\n\\n' -%}{%- set rest = messages[1:] -%}"
    "{%- else -%}{%- set before = '' -%}{%- set rest = messages -%}{%- endif -%}"
    "{%- for m in rest -%}{%- if (m['role'] == 'user') != (loop.index0 % 2 == 0) -%}"
    "{{ raise_exception('Roles must alternate user/assistant/user/assistant/...') }}{%- endif -%}"
    "{%- set role = 'model' if m['role'] == 'assistant' else m['role'] -%}"
    "{{ '<start_of_turn>' + role + '\n' + (before if loop.first else '') }}"
    "{%- if m['content'] is string -%}{{ m['content'] | trim }}{%- else -%}"
    "{%- for part in m['content'] -%}{{ part['text'] | trim }}{%- endfor -%}{%- endif -%}"
    "{{ '<end_of_turn>\n' }}{%- endfor -%}"
    "{%- if add_generation_prompt -%}{{ '<start_of_turn>model\n' }}{%- endif -%}",
    "<end_of_turn>",
    "<bos>" + "<start_of_turn><end_of_turn>" * 3 + "<start_of_turn>",
    (("space_prefix", False), ("add_bos", True)),
)
_INSTRUCT = (
    "{{ bos_token }}{% for m in messages %}{% if m['role'] == 'user' %}{{ '[INST]SPACE' + "
    "m['content'] + '[/INST]' }}{% elif m['role'] == 'assistant' %}{{ 'SPACE' + m['content'] + "
    "eos_token }}{% else %}{{ raise_exception('Only user and assistant roles are supported!') }}"
    "{% endif %}{% endfor %}"
)
MISTRAL = Family(
    "",
    ("<s>", "</s>", "[INST]", "[/INST]"),
    _INSTRUCT.replace("SPACE", " "),
    "</s>",
    "<s>[INST][/INST]</s>[INST][/INST]",
    (("add_bos", True),),
)
TEKKEN = Family(
    "tekken",
    ("<s>", "</s>", "[INST]", "[/INST]"),
    _INSTRUCT.replace("SPACE", ""),
    "</s>",
    "<s>[INST][/INST]</s>[INST][/INST]",
    (("add_bos", True),),
)
PHI_3 = Family(
    "",
    ("<s>", "<|endoftext|>", "<|system|>", "<|user|>", "<|assistant|>", "<|end|>"),
    "{% for m in messages %}{% if m['role'] == 'system' %}{{ '<|system|>\n' + m['content'] + "
    "'<|end|>\n' }}{% elif m['role'] == 'user' %}{{ '<|user|>\n' + m['content'] + '<|end|>\n' }}"
    "{% elif m['role'] == 'assistant' %}{{ '<|assistant|>\n' + m['content'] + '<|end|>\n' }}"
    "{% endif %}{% endfor %}{% if add_generation_prompt %}{{ '<|assistant|>\n' }}{% else %}"
    "{{ eos_token }}{% endif %}",
    "<|end|>",
    "<s><|user|><|end|><|assistant|><|end|><|user|><|end|><|assistant|>",
    (("strips", True), ("add_bos", True)),
)
PHI_4_MINI = Family(
    "gpt-4o",
    ("<|endoftext|>", "<|endofprompt|>", "<|system|>", "<|user|>", "<|assistant|>", "<|end|>"),
    "{% for m in messages %}{% if m['role'] == 'system' and 'tools' in m and m['tools'] is not "
    "none %}{{ '<|' + m['role'] + '|>' + m['content'] + '<|tool|>' + m['tools'] + '<|/tool|>' + "
    "'<|end|>' }}{% else %}{{ '<|' + m['role'] + '|>' + m['content'] + '<|end|>' }}{% endif %}"
    "{% endfor %}{% if add_generation_prompt %}{{ '<|assistant|>' }}{% else %}{{ eos_token }}"
    "{% endif %}",
    "<|end|>",
    "<|user|><|end|><|assistant|><|end|><|user|><|end|><|assistant|>",
)
PHI_4 = Family(
    "dbrx",
    ("<|endoftext|>", "<|im_end|>", "<|im_start|>", "<|im_sep|>"),
    "{% for m in messages %}{% if m['role'] == 'user' %}{{ '<|im_start|>user<|im_sep|>' + "
    "m['content'] + '<|im_end|>' }}{% elif m['role'] == 'assistant' %}{{ "
    "'<|im_start|>assistant<|im_sep|>' + m['content'] + '<|im_end|>' }}{% endif %}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|im_start|>assistant<|im_sep|>' }}{% endif %}",
    "<|im_end|>",
    "<|im_start|><|im_sep|><|im_end|>" * 3 + "<|im_start|><|im_sep|>",
)

FAMILIES = {
    "llama-3": LLAMA_3,
    "qwen2.5": QWEN_2,
    "qwen3": QWEN_3,
    "gemma3": GEMMA_3,
    "mistral v0.3": MISTRAL,
    "tekken": TEKKEN,
    "phi-3": PHI_3,
    "phi-4-mini": PHI_4_MINI,
    "phi-4": PHI_4,
}
TOKENIZERS = {name: family.tokenizer() for name, family in FAMILIES.items()}


def control(name: str, question: str, answer: str, next_one: str) -> str:
    """Return the control tokens of a conversation, as they are spelled."""
    made, family = TOKENIZERS[name], FAMILIES[name]
    known = len(family.control) + (not family.pre)  # pieces have <unk> as well
    said = (("user", question), ("assistant", answer), ("user", next_one))
    ids = made.encode(made.chat([{"role": role, "content": text} for role, text in said]))
    return made.decode([token for token in ids if token < known], control=True)


@pytest.mark.parametrize("name", FAMILIES)
def test_turns_begin_and_end_with_control_tokens(name: str) -> None:
    assert control(name, "hello", "the world", "and?") == FAMILIES[name].turns


@pytest.mark.parametrize("name", FAMILIES)
def test_the_end_of_a_turn_is_found(name: str) -> None:
    end = FAMILIES[name].control.index(FAMILIES[name].end)
    assert end in TOKENIZERS[name].stop_ids


@pytest.mark.parametrize("name", FAMILIES)
@settings(max_examples=40)
@given(
    words=st.lists(
        st.lists(
            st.sampled_from([*{token for one in FAMILIES.values() for token in one.control}])
            | texts,
            max_size=4,
        ).map("".join),
        min_size=3,
        max_size=3,
    )
)
def test_nothing_said_makes_a_control_token(name: str, words: list[str]) -> None:
    question, answer, next_one = words
    assert control(name, question, answer, next_one) == FAMILIES[name].turns


@pytest.mark.parametrize("name", FAMILIES)
def test_a_model_without_a_template_continues_plain_text(name: str) -> None:
    made = Family(FAMILIES[name].pre, FAMILIES[name].control, "", "", "").tokenizer()
    with pytest.raises(ModelError, match="no chat template"):
        made.chat([{"role": "user", "content": "hello"}])
    ids = made.encode("hello the world")
    assert made.decode(ids) == "hello the world"
    assert made.stop_ids == {1}


def test_the_words_of_an_answer_begin_without_the_space_of_the_vocabulary() -> None:
    made = TOKENIZERS["mistral v0.3"]
    prompt = made.encode(made.chat([{"role": "user", "content": "hello"}]))
    answer = made.encode("the world")[1:]
    decoder = made.decoder(after=prompt[-1])
    assert "".join(map(decoder.push, answer)) == "the world"


def test_gemma_refuses_turns_that_do_not_alternate() -> None:
    said = [{"role": "user", "content": "a"}] * 2
    with pytest.raises(ModelError, match="alternate"):
        TOKENIZERS["gemma3"].chat(said)
