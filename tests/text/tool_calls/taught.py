"""Templates that teach calls of tools: in our own words, what those of these families do."""

from dataclasses import dataclass

from p2pnode.text.tool_calls.formats import ToolFormat


@dataclass(frozen=True)
class Taught:
    kind: ToolFormat
    template: str


_QWEN_TOOLS = """{%- if tools %}{{- '<|im_start|>system\\n' }}
{%- if messages[0]['role'] == 'system' %}{{- messages[0]['content'] + '\\n\\n' }}{%- endif %}
{{- "# Tools\\n\\nYou are given signatures within <tools></tools>:\\n<tools>" }}
{%- for tool in tools %}{{- "\\n" }}{{- tool | tojson }}{%- endfor %}
{{- "\\n</tools>\\n\\nReturn each call within <tool_call></tool_call>:\\n<tool_call>\\n" }}
{{- "{\\"name\\": <function-name>, \\"arguments\\": <args-json-object>}\\n</tool_call>" }}
{{- "<|im_end|>\\n" }}{%- elif messages[0]['role'] == 'system' %}
{{- '<|im_start|>system\\n' + messages[0]['content'] + '<|im_end|>\\n' }}{%- endif %}"""

_QWEN_END = """{%- elif message.role == "tool" %}
{%- if loop.index0 == 0 or messages[loop.index0 - 1].role != "tool" %}
{{- '<|im_start|>user' }}{%- endif %}{{- '\\n<tool_response>\\n' }}{{- message.content }}
{{- '\\n</tool_response>' }}{%- if loop.last or messages[loop.index0 + 1].role != "tool" %}
{{- '<|im_end|>\\n' }}{%- endif %}{%- endif %}{%- endfor %}
{%- if add_generation_prompt %}{{- '<|im_start|>assistant\\n' }}{%- endif %}"""

_QWEN_2_5 = (
    _QWEN_TOOLS
    + """{%- for message in messages %}
{%- if message.role == "user" or (message.role == "system" and not loop.first)
    or (message.role == "assistant" and not message.tool_calls) %}
{{- '<|im_start|>' + message.role + '\\n' + message.content + '<|im_end|>' + '\\n' }}
{%- elif message.role == "assistant" %}{{- '<|im_start|>' + message.role }}
{%- if message.content %}{{- '\\n' + message.content }}{%- endif %}
{%- for tool_call in message.tool_calls %}{%- if tool_call.function is defined %}
{%- set tool_call = tool_call.function %}{%- endif %}
{{- '\\n<tool_call>\\n{"name": "' }}{{- tool_call.name }}{{- '", "arguments": ' }}
{{- tool_call.arguments | tojson }}{{- '}\\n</tool_call>' }}{%- endfor %}
{{- '<|im_end|>\\n' }}"""
    + _QWEN_END
)

_QWEN_3 = (
    _QWEN_TOOLS
    + """
{%- set ns = namespace(multi_step_tool=true, last_query_index=messages|length - 1) %}
{%- for message in messages[::-1] %}{%- set index = (messages|length - 1) - loop.index0 %}
{%- if ns.multi_step_tool and message.role == "user" and message.content is string
    and not (message.content.startswith('<tool_response>')
             and message.content.endswith('</tool_response>')) %}
{%- set ns.multi_step_tool = false %}{%- set ns.last_query_index = index %}{%- endif %}
{%- endfor %}{%- for message in messages %}
{%- if message.content is string %}{%- set content = message.content %}{%- else %}
{%- set content = '' %}{%- endif %}
{%- if message.role == "user" or (message.role == "system" and not loop.first) %}
{{- '<|im_start|>' + message.role + '\\n' + content + '<|im_end|>' + '\\n' }}
{%- elif message.role == "assistant" %}{%- set reasoning_content = '' %}
{%- if message.reasoning_content is string %}
{%- set reasoning_content = message.reasoning_content %}{%- elif '</think>' in content %}
{%- set reasoning_content = content.split('</think>')[0].rstrip('\\n').split('<think>')[-1] %}
{%- set content = content.split('</think>')[-1].lstrip('\\n') %}{%- endif %}
{%- if loop.index0 > ns.last_query_index and (loop.last or reasoning_content) %}
{{- '<|im_start|>' + message.role + '\\n<think>\\n' + reasoning_content.strip('\\n') }}
{{- '\\n</think>\\n\\n' + content.lstrip('\\n') }}{%- else %}
{{- '<|im_start|>' + message.role + '\\n' + content }}{%- endif %}
{%- if message.tool_calls %}{%- for tool_call in message.tool_calls %}
{%- if (loop.first and content) or not loop.first %}{{- '\\n' }}{%- endif %}
{%- if tool_call.function %}{%- set tool_call = tool_call.function %}{%- endif %}
{{- '<tool_call>\\n{"name": "' }}{{- tool_call.name }}{{- '", "arguments": ' }}
{%- if tool_call.arguments is string %}{{- tool_call.arguments }}{%- else %}
{{- tool_call.arguments | tojson }}{%- endif %}{{- '}\\n</tool_call>' }}{%- endfor %}
{%- endif %}{{- '<|im_end|>\\n' }}"""
    + _QWEN_END
)

_LLAMA_SAID = """{%- for message in messages %}
{%- if not (message.role == 'ipython' or message.role == 'tool' or 'tool_calls' in message) %}
{{- '<|start_header_id|>' + message['role'] + '<|end_header_id|>\\n\\n' }}
{{- message['content'] | trim + '<|eot_id|>' }}
{%- elif 'tool_calls' in message %}{%- if not message.tool_calls|length == 1 %}
{{- raise_exception("Only single tool-calls are supported!") }}{%- endif %}
{%- set tool_call = message.tool_calls[0].function %}"""

_LLAMA_CALL = """{{- '<|start_header_id|>assistant<|end_header_id|>\\n\\n' -}}
{{- '{"name": "' + tool_call.name + '", ' }}{{- '"parameters": ' }}
{{- tool_call.arguments | tojson }}{{- "}" }}"""

_LLAMA_END = """{%- elif message.role == "tool" or message.role == "ipython" %}
{{- "<|start_header_id|>ipython<|end_header_id|>\\n\\n" }}
{%- if message.content is mapping or message.content is iterable %}
{{- message.content | tojson }}{%- else %}{{- message.content }}{%- endif %}
{{- "<|eot_id|>" }}{%- endif %}{%- endfor %}
{%- if add_generation_prompt %}{{- '<|start_header_id|>assistant<|end_header_id|>\\n\\n' }}
{%- endif %}"""

_LLAMA_TOOLS = """{{- bos_token }}{%- if not tools_in_user_message is defined %}
{%- set tools_in_user_message = true %}{%- endif %}{%- if not date_string is defined %}
{%- set date_string = strftime_now("%d %b %Y") %}{%- endif %}{%- if not tools is defined %}
{%- set tools = none %}{%- endif %}{%- if messages[0]['role'] == 'system' %}
{%- set system_message = messages[0]['content']|trim %}{%- set messages = messages[1:] %}
{%- else %}{%- set system_message = "" %}{%- endif %}
{{- "<|start_header_id|>system<|end_header_id|>\\n\\n" }}ENVIRONMENT
{{- "Today Date: " + date_string + "\\n\\n" }}{{- system_message }}{{- "<|eot_id|>" }}
{%- if tools_in_user_message and not tools is none %}
{%- if messages | length != 0 %}{%- set first = messages[0]['content']|trim %}
{%- set messages = messages[1:] %}{%- else %}{{- raise_exception("No first message") }}
{%- endif %}{{- '<|start_header_id|>user<|end_header_id|>\\n\\n' -}}
{{- 'Respond as {"name": function name, "parameters": dictionary of names and values}.\\n\\n' }}
{%- for t in tools %}{{- t | tojson(indent=4) }}{{- "\\n\\n" }}{%- endfor %}
{{- first + "<|eot_id|>"}}{%- endif %}"""

_LLAMA_3_1 = (
    _LLAMA_TOOLS.replace(
        "ENVIRONMENT",
        """{%- if builtin_tools is defined or tools is not none %}{{- "Environment: ipython\\n" }}
{%- endif %}""",
    )
    + _LLAMA_SAID
    + """{%- if builtin_tools is defined and tool_call.name in builtin_tools %}
{{- "<|python_tag|>" + tool_call.name + ".call(" }}{%- for name, value in tool_call.arguments |
items %}{{- name + '="' + value + '"' }}{%- endfor %}{{- ")" }}{%- else %}"""
    + _LLAMA_CALL
    + """{%- endif %}{%- if builtin_tools is defined %}{{- "<|eom_id|>" }}{%- else %}
{{- "<|eot_id|>" }}{%- endif %}"""
    + _LLAMA_END
)
_LLAMA_3_2 = (
    _LLAMA_TOOLS.replace(
        "ENVIRONMENT", """{%- if tools is not none %}{{- "Environment: ipython\\n" }}{%- endif %}"""
    )
    + _LLAMA_SAID
    + _LLAMA_CALL
    + '{{- "<|eot_id|>" }}'
    + _LLAMA_END
)

_MISTRAL_TOOLS = """{%- if messages[0]["role"] == "system" %}
{%- set system_message = messages[0]["content"] %}{%- set loop_messages = messages[1:] %}
{%- else %}{%- set loop_messages = messages %}{%- endif %}
{%- if not tools is defined %}{%- set tools = none %}{%- endif %}
{%- set user_messages = loop_messages | selectattr("role", "equalto", "user") | list %}"""

_MISTRAL_AVAILABLE = """{%- if tools is not none and (message == user_messages[-1]) %}
{{- "[AVAILABLE_TOOLS] [" }}{%- for tool in tools %}{%- set tool = tool.function %}
{{- '{"type": "function", "function": {' }}
{%- for key, val in tool.items() if key != "return" %}{%- if val is string %}
{{- '"' + key + '": "' + val + '"' }}{%- else %}{{- '"' + key + '": ' + val|tojson }}{%- endif %}
{%- if not loop.last %}{{- ", " }}{%- endif %}{%- endfor %}{{- "}}" }}
{%- if not loop.last %}{{- ", " }}{%- else %}{{- "]" }}{%- endif %}{%- endfor %}
{{- "[/AVAILABLE_TOOLS]" }}{%- endif %}"""

_MISTRAL_V3 = (
    _MISTRAL_TOOLS
    + """{%- set ns = namespace() %}{%- set ns.index = 0 %}
{%- for message in loop_messages %}{%- if not (message.role == "tool" or
    message.role == "tool_results" or
    (message.tool_calls is defined and message.tool_calls is not none)) %}
{%- if (message["role"] == "user") != (ns.index % 2 == 0) %}
{{- raise_exception("Roles must alternate") }}{%- endif %}
{%- set ns.index = ns.index + 1 %}{%- endif %}{%- endfor %}
{{- bos_token }}{%- for message in loop_messages %}{%- if message["role"] == "user" %}
"""
    + _MISTRAL_AVAILABLE
    + """
{%- if loop.last and system_message is defined %}
{{- "[INST] " + system_message + "\\n\\n" + message["content"] + "[/INST]" }}{%- else %}
{{- "[INST] " + message["content"] + "[/INST]" }}{%- endif %}
{%- elif message.tool_calls is defined and message.tool_calls is not none %}
{{- "[TOOL_CALLS] [" }}{%- for tool_call in message.tool_calls %}
{%- set out = tool_call.function|tojson %}{{- out[:-1] }}
{%- if not tool_call.id is defined or tool_call.id|length != 9 %}
{{- raise_exception("Tool call IDs should have 9 letters!") }}{%- endif %}
{{- ', "id": "' + tool_call.id + '"}' }}{%- if not loop.last %}{{- ", " }}{%- else %}
{{- "]" + eos_token }}{%- endif %}{%- endfor %}
{%- elif message["role"] == "assistant" %}
{{- " " + message["content"]|trim + eos_token }}
{%- elif message["role"] == "tool_results" or message["role"] == "tool" %}
{%- if message.content is defined and message.content.content is defined %}
{%- set content = message.content.content %}{%- else %}
{%- set content = message.content %}{%- endif %}
{{- '[TOOL_RESULTS] {"content": ' + content|string + ", " }}
{%- if not message.tool_call_id is defined or message.tool_call_id|length != 9 %}
{{- raise_exception("Tool call IDs should have 9 letters!") }}{%- endif %}
{{- '"call_id": "' + message.tool_call_id + '"}[/TOOL_RESULTS]' }}{%- else %}
{{- raise_exception("Only user and assistant roles") }}{%- endif %}{%- endfor %}"""
)

_MISTRAL_SMALL = (
    _MISTRAL_TOOLS
    + """{{- bos_token }}{%- if system_message is defined %}
{{- '[SYSTEM_PROMPT]' + system_message + '[/SYSTEM_PROMPT]' }}{%- endif %}
{%- set filtered_messages = [] %}{%- for message in loop_messages %}
{%- if message["role"] not in ["tool", "tool_results"] and not message.get("tool_calls") %}
{%- set filtered_messages = filtered_messages + [message] %}{%- endif %}{%- endfor %}
{%- for message in filtered_messages %}
{%- if (message["role"] == "user") != (loop.index0 % 2 == 0) %}
{{- raise_exception("Roles must alternate") }}{%- endif %}{%- endfor %}
{%- for message in loop_messages %}{%- if message["role"] == "user" %}"""
    + _MISTRAL_AVAILABLE
    + """
{{- '[INST]' + message['content'] + '[/INST]' }}
{%- elif message["role"] == "tool_calls" or message.tool_calls is defined %}
{{- "[TOOL_CALLS]" }}{%- for tool_call in message.tool_calls %}
{{- tool_call.function.name + "[CALL_ID]" + tool_call.id[-9:] }}
{{- "[ARGS]" + tool_call.function.arguments|tojson }}{%- if not loop.last %}
{{- "[TOOL_CALLS]" }}{%- endif %}{%- endfor %}{{- eos_token }}
{%- elif message['role'] == 'assistant' %}{{- message['content'] + eos_token }}
{%- elif message["role"] == "tool_results" or message["role"] == "tool" %}
{{- '[TOOL_RESULTS]' + message.tool_call_id[-9:] + '[TOOL_CONTENT]' }}
{{- message.content|string + '[/TOOL_RESULTS]' }}{%- endif %}{%- endfor %}"""
)

TAUGHT = {
    "Qwen 2.5": Taught(ToolFormat.HERMES, _QWEN_2_5),
    "Qwen 3": Taught(ToolFormat.HERMES, _QWEN_3),
    "Llama 3.1": Taught(ToolFormat.LLAMA, _LLAMA_3_1),
    "Llama 3.2": Taught(ToolFormat.LLAMA, _LLAMA_3_2),
    "Mistral v3": Taught(ToolFormat.MISTRAL, _MISTRAL_V3),
    "Mistral v11": Taught(ToolFormat.MISTRAL, _MISTRAL_SMALL),
}
