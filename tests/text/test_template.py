"""Templates as people ship them: what is said never becomes control, whatever the template does."""

import datetime
from typing import Any

import pytest
from hypothesis import given, settings, strategies as st
from jinja2 import Environment

from p2pnode.errors import ModelError, UserError
from p2pnode.text.template import check_template
from p2pnode.text.tokenizer import Tokenizer, byte_alphabet

CONTROL = (
    *("<s>", "</s>", "<|im_start|>", "<|im_end|>", "<|begin_of_text|>", "<|start_header_id|>"),
    *("<|end_header_id|>", "<|eot_id|>", "[INST]", "[/INST]", "<start_of_turn>", "<end_of_turn>"),
    *("<|user|>", "<|assistant|>", "<|system|>", "<|end|>", "<|tool|>", "[AVAILABLE_TOOLS]"),
    *("[/AVAILABLE_TOOLS]", "<\uff5cUser\uff5c>", "<\uff5cAssistant\uff5c>", "<\uff5cend\uff5c>"),
)
USERS = ("<think>", "</think>", "<tool_call>")
LETTERS = {value: letter for letter, value in byte_alphabet().items()}
TOKENS = (*(LETTERS[bytes([byte])] for byte in range(256)), *CONTROL, *USERS)
KINDS = (*[1] * 256, *[3] * len(CONTROL), *[4] * len(USERS))

# In our own words, what the templates of these families do.
SHIPPED = {
    "chatml": """{% for message in messages %}{% if loop.first and message['role'] != 'system' %}
{{- '<|im_start|>system\\nYou help.<|im_end|>\\n' }}{% endif %}
{{- '<|im_start|>' + message['role'] + '\\n' + message['content'] + '<|im_end|>' + '\\n' }}
{%- endfor %}{% if add_generation_prompt %}{{ '<|im_start|>assistant\\n' }}{% endif %}""",
    "llama 3": """{% set loop_messages = messages %}{% for message in loop_messages %}
{%- set content = '<|start_header_id|>' + message['role'] + '<|end_header_id|>\\n\\n'
    + message['content'] | trim + '<|eot_id|>' %}
{%- if loop.index0 == 0 %}{% set content = bos_token + content %}{% endif %}{{- content -}}
{%- endfor %}{% if add_generation_prompt %}
{{- '<|start_header_id|>assistant<|end_header_id|>\\n\\n' }}{% endif %}""",
    "mistral": """{%- if messages[0]['role'] == 'system' %}{% set system = messages[0]['content'] %}
{%- set turns = messages[1:] %}{% else %}{% set turns = messages %}{% endif %}{{ bos_token }}
{%- for message in turns %}{% if message['role'] == 'user' %}
{%- if tools is not none and loop.last %}{{ '[AVAILABLE_TOOLS] [' }}{% for tool in tools %}
{{- tool | tojson }}{% if not loop.last %}{{ ', ' }}{% endif %}{% endfor %}
{{- ']' }}{{ '[/AVAILABLE_TOOLS]' }}{% endif %}
{%- if loop.last and system is defined %}{{ '[INST] ' + system + '\\n\\n' }}{% else %}
{{- '[INST] ' }}{% endif %}{{ message['content'] + ' [/INST]' }}
{%- elif message['role'] == 'assistant' %}{{ ' ' + message['content']|trim + eos_token }}
{%- endif %}{% endfor %}""",
    "gemma": """{{ bos_token }}{% if messages[0]['role'] == 'system' %}
{%- set prefix = messages[0]['content'] ~ '\\n\\n' %}{% set rest = messages[1:] %}{% else %}
{%- set prefix = '' %}{% set rest = messages %}{% endif %}{% for message in rest %}
{%- set role = 'model' if message['role'] == 'assistant' else message['role'] %}
{{- '<start_of_turn>' + role + '\\n' + (prefix if loop.first else '') }}
{%- if message['content'] is string %}{{ message['content'] | trim }}{% else %}
{%- for item in message['content'] %}{% if item['type'] == 'text' %}{{ item['text'] | trim }}
{%- endif %}{% endfor %}{% endif %}{{ '<end_of_turn>\\n' }}{% endfor %}
{%- if add_generation_prompt %}{{ '<start_of_turn>model\\n' }}{% endif %}""",
    "phi": """{% for message in messages %}
{{- '<|' + message['role'] + '|>' + '\\n' + message['content'] + '<|end|>\\n' }}{% endfor %}
{%- if add_generation_prompt %}{{ '<|assistant|>\\n' }}{% else %}{{ eos_token }}{% endif %}""",
    "zephyr": """{% for message in messages %}
{% if message['role'] == 'user' %}
{{ '<|user|>\\n' + message['content'] + eos_token }}
{% elif message['role'] == 'system' %}
{{ '<|system|>\\n' + message['content'] + eos_token }}
{% elif message['role'] == 'assistant' %}
{{ '<|assistant|>\\n'  + message['content'] + eos_token }}
{% endif %}
{% if loop.last and add_generation_prompt %}
{{ '<|assistant|>' }}
{% endif %}
{% endfor %}""",
    "qwen": """{%- if tools %}{{- '<|im_start|>system\\n' }}
{%- if messages[0].role == 'system' %}{{- messages[0].content + '\\n\\n' }}{%- endif %}
{{- "# Tools\\n<tools>" }}{%- for tool in tools %}{{- "\\n" }}{{- tool | tojson }}{%- endfor %}
{{- "\\n</tools><|im_end|>\\n" }}{%- else %}{%- if messages[0].role == 'system' %}
{{- '<|im_start|>system\\n' + messages[0].content + '<|im_end|>\\n' }}{%- endif %}{%- endif %}
{%- set ns = namespace(multi_step_tool=true, last=messages|length - 1) %}
{%- for message in messages[::-1] %}{%- set index = (messages|length - 1) - loop.index0 %}
{%- if ns.multi_step_tool and message.role == "user" and message.content is string %}
{%- set ns.multi_step_tool = false %}{%- set ns.last = index %}{%- endif %}{%- endfor %}
{%- for message in messages %}{%- set content = message.content or '' %}
{%- if message.role == "user" or (message.role == "system" and not loop.first) %}
{{- '<|im_start|>' + message.role + '\\n' + content + '<|im_end|>' + '\\n' }}
{%- elif message.role == "assistant" %}{%- set reasoning = '' %}{%- if '</think>' in content %}
{%- set reasoning = content.split('</think>')[0].rstrip('\\n').split('<think>')[-1] %}
{%- set content = content.split('</think>')[-1].lstrip('\\n') %}{%- endif %}
{{- '<|im_start|>' + message.role }}{% generation %}{{ '\\n' + content.lstrip('\\n') }}
{%- for call in message.tool_calls or [] %}{% set call = call.function or call %}
{{- '\\n<tool_call>\\n{"name": "' }}{{- call.name }}{{- '", "arguments": ' }}
{%- if call.arguments is string %}{{- call.arguments }}{%- else %}{{- call.arguments | tojson }}
{%- endif %}{{- '}\\n</tool_call>' }}{%- endfor %}{{- '<|im_end|>' }}{% endgeneration %}{{ '\\n' }}
{%- elif message.role == "tool" %}{{- '<|im_start|>user\\n<tool_response>\\n' + content }}
{{- '\\n</tool_response><|im_end|>\\n' }}{%- endif %}{%- endfor %}
{%- if add_generation_prompt %}{{- '<|im_start|>assistant\\n' }}{%- endif %}""",
    "deepseek": """{% if not add_generation_prompt is defined %}
{%- set add_generation_prompt = false %}{%- endif %}{% set ns = namespace(system='') %}
{%- for message in messages %}
{%- if message['role'] == 'system' %}{% set ns.system = message['content'] %}{% endif %}
{%- endfor %}{{ bos_token }}{{ ns.system }}{%- for message in messages %}
{%- if message['role'] == 'user' %}{{ '<\uff5cUser\uff5c>' + message['content'] }}{% endif %}
{%- if message['role'] == 'assistant' and message['content'] is not none %}
{%- set content = message['content'] %}{% if '</think>' in content %}
{%- set content = content.split('</think>')[-1] %}{% endif %}
{{- '<\uff5cAssistant\uff5c>' + content + '<\uff5cend\uff5c>' }}{% endif %}{% endfor %}
{%- if add_generation_prompt %}{{ '<\uff5cAssistant\uff5c>' }}{% endif %}""",
    "role by role": """{% for m in messages %}{% if m.role not in ['system', 'user', 'assistant',
'tool'] %}{% continue %}{% endif %}<|im_start|>{{ m.role | upper }}: {{ "%s" % m.content }}
{{- '{}{}'.format('<|im_end|>', '\\n') }}{% endfor %}{{ ['<|im_start|>', 'a'] | join('') }}""",
    "macros": """{% macro turn(role, content) -%}<|im_start|>{{ role }}
{{ caller() }}<|im_end|>{% endmacro %}{% for m in messages %}{% call turn(m.role, m.content) %}
{{- m.content | replace('x', 'yy') | indent(2) }}{% endcall %}{% endfor %}
{%- filter trim %} <|im_start|>assistant {% endfilter %}""",
}
END = {
    "chatml": "<|im_end|>",
    "llama 3": "<|eot_id|>",
    "mistral": "</s>",
    "gemma": "<end_of_turn>",
    "phi": "<|end|>",
    "zephyr": "</s>",
    "qwen": "<|im_end|>",
    "deepseek": "<\uff5cend\uff5c>",
    "role by role": "<|im_end|>",
    "macros": "<|im_end|>",
}


def with_template(template: str, **given: Any) -> Tokenizer:
    return Tokenizer(
        tokens=TOKENS,
        merges=[],
        kinds=KINDS,
        pre="gpt-2",
        template=template,
        bos=TOKENS.index("<s>"),
        eos=TOKENS.index("</s>"),
        **given,
    )


SHIPPED_TOKENIZERS = {name: with_template(template) for name, template in SHIPPED.items()}


def control(tokenizer: Tokenizer, messages: list[dict[str, Any]], **given: Any) -> list[str]:
    """Return the control tokens of a conversation, in order."""
    ids = tokenizer.encode(tokenizer.chat(messages, **given))
    return [TOKENS[token] for token in ids if KINDS[token] == 3]


def as_written_out(text: str) -> list[int]:
    """Cut ``text`` with every special token recognised, wherever it stands."""
    ids, at, special = [], 0, sorted((*CONTROL, *USERS), key=len, reverse=True)
    while at < len(text):
        found = next((one for one in special if text.startswith(one, at)), None)
        if found:
            ids.append(TOKENS.index(found))
            at += len(found)
        else:
            ids += [TOKENS.index(LETTERS[bytes([byte])]) for byte in text[at].encode()]
            at += 1
    return ids


pieces = st.sampled_from(
    [
        *CONTROL,
        *(one[:cut] for one in CONTROL for cut in (1, 2, len(one) // 2, len(one) - 1)),
        *(one[cut:] for one in CONTROL for cut in (1, 2, len(one) // 2, len(one) - 1)),
        *("a", "x", "\n", " ", "system", "im_end", "</think>", "{", '"', "%s", "{}", "\u00df"),
    ]
)
hostile = st.lists(pieces, max_size=6).map("".join)
TOOL = {"type": "function", "function": {"name": "f", "parameters": {"b": ["c"]}}}


@pytest.mark.parametrize("name", SHIPPED)
@settings(deadline=None)  # the first example compiles the template
@given(
    said=st.lists(hostile, min_size=3, max_size=3), words=st.lists(hostile, min_size=4, max_size=4)
)
def test_nothing_said_becomes_control(name: str, said: list[str], words: list[str]) -> None:
    tokenizer = SHIPPED_TOKENIZERS[name]
    roles = ("system", "user", "assistant", "user")

    def conversation(contents: list[str], tool: list[str]) -> tuple[list[Any], list[Any]]:
        call = {"function": {"name": tool[0], "arguments": {tool[1]: tool[2]}}}
        turns: list[Any] = [
            {"role": role, "content": content, tool[3] or "more": tool[2]}
            for role, content in zip(roles, (*contents, "x"), strict=True)
        ]
        turns[2]["tool_calls"] = [call]
        return turns, [{**TOOL, tool[0]: [tool[1]], "description": tool[2]}]

    turns, tools = conversation(said, words)
    plain, plain_tools = conversation(["a", "b", "c"], ["d", "e", "f", "g"])
    assert control(tokenizer, turns, tools=tools) == control(tokenizer, plain, tools=plain_tools)
    assert control(tokenizer, turns) == control(tokenizer, plain)


@settings(deadline=None)
@given(roles=st.lists(hostile, min_size=1, max_size=3))
def test_no_role_becomes_control(roles: list[str]) -> None:
    turns = [{"role": role, "content": "x"} for role in roles]
    plain = [{"role": "other", "content": "x"} for _ in roles]
    for name in ("phi", "llama 3"):
        tokenizer = SHIPPED_TOKENIZERS[name]
        assert control(tokenizer, turns) == control(tokenizer, plain)


@pytest.mark.parametrize("name", SHIPPED)
def test_an_ordinary_conversation_is_cut_as_ever(name: str) -> None:
    tokenizer = SHIPPED_TOKENIZERS[name]
    turns = [
        {"role": "system", "content": "Be brief."},
        {"role": "user", "content": "Why is <b>2 | 3</b> 3?"},
        {"role": "assistant", "content": "It is or. <think>\u00e9\u6f22</think>"},
        {"role": "user", "content": " x\n"},
    ]
    for tools in (None, [TOOL]):
        text = tokenizer.chat(turns, tools=tools)
        assert tokenizer.encode(text) == as_written_out(str.__str__(text))
        assert control(tokenizer, turns, tools=tools)


@pytest.mark.parametrize("name", SHIPPED)
def test_the_end_of_a_turn_is_found(name: str) -> None:
    assert SHIPPED_TOKENIZERS[name].stop_ids == {TOKENS.index(END[name])}
    other = with_template(SHIPPED[name], ends=(TOKENS.index("<s>"),))
    assert other.stop_ids == {TOKENS.index(END[name]), TOKENS.index("<s>")}


def test_an_end_of_turn_written_only_before_the_next_turn_counts() -> None:
    between = (
        "{% for m in messages %}{{ m.content }}{% if not loop.last %}<|end|>{% endif %}{% endfor %}"
    )
    assert with_template(between).stop_ids == {TOKENS.index("<|end|>")}
    assert with_template("{{ messages[0].content }}").stop_ids == frozenset()
    assert with_template("{{ raise_exception('no') }}").stop_ids == frozenset()


def test_an_end_of_turn_that_the_file_calls_user_defined_counts() -> None:
    tokens = [*TOKENS[:256], "\n\n", "<|im_end|>"]
    template = "{{ messages[-1].content + '\n\n<|im_end|>' }}"
    tokenizer = Tokenizer(
        tokens=tokens, merges=[], kinds=[1] * 256 + [4, 4], pre="gpt-2", template=template
    )
    assert tokenizer.stop_ids == {257}


M = [{"role": "user", "content": "hi"}]


@pytest.mark.parametrize(
    ("template", "expected"),
    [
        ("{{ strftime_now('%Y-%m') }}", "2031-05"),
        ("{% for m in messages %}{{ m.content }}{% break %}{% endfor %}", "hi"),
        ("{% for m in messages %}{% if m.role %}{% continue %}{% endif %}no{% endfor %}y", "y"),
        ("{% generation %}{{ messages[0].content }}{% endgeneration %}", "hi"),
        ("{% if tools is not none %}no{% endif %}{% if documents is not none %}no{% endif %}", ""),
        ("{{ messages | tojson }}", '[{"role": "user", "content": "hi"}]'),
        ("{{ '<\u00e9>' | tojson }}{{ '\u00e9' | tojson(ensure_ascii=true) }}",
         '"<\u00e9>""\\u00e9"'),
        ("{{ {'b': [1, none], 'a': {}} | tojson(indent=1, sort_keys=true) }}",
         '{\n "a": {},\n "b": [\n  1,\n  null\n ]\n}'),
        ("{{ {'b': [1, true]} | tojson(separators=(',', ':')) }}", '{"b":[1,true]}'),
        ("{% for part in messages[0].content %}{{ part.text }}{% endfor %}", "hi"),
        ("{% set ns = namespace(x=1) %}{% set ns.x = 2 %}{{ ns.x }}", "2"),
        ("{{ messages[0].content.strip().upper()[:1] ~ 1 }}", "H1"),
        ("{{ '{0}-{x:>3}'.format(messages[0].content, x=1) }}", "hi-  1"),
        ("{{ messages | map(attribute='content') | list }}", "['hi']"),
        ("hi\n", "hi"),
        ("{{ messages[0].content.__class__ }}{{ '{x.__class__}'.format_map({'x': 1}) }}", ""),
    ],
)  # fmt: skip
def test_what_templates_expect(template: str, expected: str) -> None:
    tokenizer = with_template(template, clock=lambda: datetime.datetime(2031, 5, 4))
    assert tokenizer.chat(M) == expected


@pytest.mark.parametrize(
    "template",
    [
        "{{ raise_exception('roles must alternate') }}",
        "{% for %}",
        "{{ messages[7].content }}",
        "{{ messages.append(1) }}",
        "{{ ''.__class__.__mro__[1].__subclasses__() }}",
        "{{ messages[0].content._marks.decode() }}",
        "{{ '{0.__class__.__mro__}'.format(messages) }}",
        "{{ (messages[0].content.format)(1).__class__() }}",
        "{% for i in range(10**9) %}{% endfor %}",
        "{{ 1 / 0 }}",
        "{% macro f() %}{{ f() }}{% endmacro %}{{ f() }}",
        "{{ " + "(" * 3000 + ")" * 3000 + " }}",
    ],
)
def test_a_template_that_fails_or_reaches_out_is_refused(template: str) -> None:
    with pytest.raises(ModelError, match="chat template cannot be used") as caught:
        with_template(template).chat(M)
    assert "--raw" in caught.value.hint
    assert len(str(caught.value)) < 400


def test_a_template_with_a_mistake_is_named_with_its_line() -> None:
    with pytest.raises(ModelError, match="line 2"):
        check_template("{{ messages }}\n{% for m in %}")
    for template in ("", *SHIPPED.values()):
        check_template(template)


def test_a_control_token_made_in_a_way_not_followed_is_refused_by_name() -> None:
    made = with_template("{{ ('<|im_end|>' ~ messages[0].content) | title }}")
    with pytest.raises(ModelError, match=r"<\|im_end\|>.*filter 'title'"):
        made.chat([{"role": "user", "content": "<|im_end|>"}])
    harmless = with_template("{{ messages[0].content | title }}<|im_end|>{{ 12 }}")
    assert control(harmless, M) == ["<|im_end|>"]
    assert control(harmless, [{"role": "user", "content": "<|im_start|>"}]) == ["<|im_end|>"]


@pytest.mark.parametrize("text", ["", "a", "a\nb", "a\n\nb\n", "\n", "a\r\nb"])
@pytest.mark.parametrize("how", ["2", "'--'", "2, true", "2, true, true", "width=3, blank=true"])
def test_indenting_is_that_of_jinja2(text: str, how: str) -> None:
    template = f"{{{{ messages[0].content | indent({how}) }}}}"
    expected = Environment().from_string(template).render(messages=[{"content": text}])
    assert with_template(template).chat([{"role": "user", "content": text}]) == expected


@pytest.mark.parametrize(
    "template",
    [
        "{{ messages[0].content | title }}",
        "{{ messages[0].content | wordwrap(3) }}",
        "{{ messages[0].content | center(80) }}",
        "{{ messages[0].content | truncate(30) }}",
        "{{ messages[0].content | urlize }}",
        "{{ messages[0].content.center(80) }}",
        "{{ messages[0].content.ljust(80).zfill(90) }}",
        "{{ '' ~ messages[0] }}{{ messages }}",
        "{{ messages | map(attribute='content') | map('title') | join(' ') }}",
        "{{ messages | map(attribute='content') | sort | list | pprint }}",
        "{{ messages[0].content.splitlines() | join(messages[0].content) }}",
    ],
)
@settings(deadline=None)
@given(said=hostile)
def test_what_is_made_of_data_alone_is_data(template: str, said: str) -> None:
    assert control(with_template(template), [{"role": "user", "content": said}]) == []


def test_what_an_operation_gives_is_no_literal_because_it_is_constant() -> None:
    with pytest.raises(ModelError, match="cannot follow"):
        with_template("{{ '<|im_e%cd|>' % 110 }}").chat(M)


@pytest.mark.parametrize("name", ["chatml", "gemma"])
def test_a_list_of_parts_reaches_a_template_that_reads_text(name: str) -> None:
    parts = [{"type": "text", "text": "one"}, {"type": "text", "text": "two"}]
    tokenizer = SHIPPED_TOKENIZERS[name]
    text = tokenizer.chat([{"role": "user", "content": parts}])
    assert text == tokenizer.chat([{"role": "user", "content": "one\ntwo"}])
    assert "one\ntwo" in text


def test_a_template_that_writes_lists_out_gets_text() -> None:
    shown = with_template("{{ messages[0].content }}")
    assert shown.chat([{"role": "user", "content": [{"type": "text", "text": "hi"}]}]) == "hi"


@pytest.mark.parametrize(
    "message",
    [
        "hi",
        {"content": "hi"},
        {"role": "user"},
        {"role": "user", "content": 7},
        {"role": 7, "content": "hi"},
        {"role": "user", "content": [{"type": "image_url", "image_url": "x"}]},
        {"role": "user", "content": [7]},
    ],
)
def test_a_message_that_is_none_is_refused(message: Any) -> None:
    with pytest.raises(UserError, match="message 1") as caught:
        SHIPPED_TOKENIZERS["chatml"].chat([message])
    assert not isinstance(caught.value, ModelError)


def test_a_model_without_template_says_so() -> None:
    with pytest.raises(ModelError, match="no chat template") as caught:
        with_template("").chat([])
    assert "--raw" in caught.value.hint


def test_half_a_surrogate_pair_is_no_failure() -> None:
    tokenizer = SHIPPED_TOKENIZERS["chatml"]
    ids = tokenizer.encode(tokenizer.chat([{"role": "user", "content": "a\ud800<|im_end|>"}]))
    assert "a\ufffd<|im_end|>" in tokenizer.decode(ids, control=True)
    assert tokenizer.encode("\ud800") == tokenizer.encode("\ufffd")
