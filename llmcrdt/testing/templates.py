"""Chat templates of the styles that models bring, each with a tokenizer to match. Written for tests; no model's own."""

from __future__ import annotations

from .tokenizer import ByteTokenizer

WORDS = ("the", "th", "he", "ing", "and", "an", "is", " a", "  ", "assistant", "user")

CHATML = """\
{%- if tools %}<|im_start|>system
Tools: {{ tools | tojson }}<|im_end|>
{% endif %}
{%- for m in messages %}<|im_start|>{{ m.role }}
{{ m.content }}
{%- for c in m.tool_calls or [] %}
<tool_call>{{ c.function | tojson }}</tool_call>
{%- endfor %}<|im_end|>
{% endfor %}
{%- if add_generation_prompt %}<|im_start|>assistant
{% endif %}"""

HEADERS = """\
{{- bos_token }}
{%- for m in messages %}
{%- set content = m.content | trim %}
{%- if m.tool_calls %}
{%- if m.tool_calls | length != 1 %}{{ raise_exception("only one tool call at once") }}{% endif %}
{{- '<|start_header_id|>assistant<|end_header_id|>\\n\\n' + (m.tool_calls[0].function | tojson) + '<|eot_id|>' }}
{%- else %}
{{- '<|start_header_id|>' + ('ipython' if m.role == 'tool' else m.role) + '<|end_header_id|>\\n\\n' }}
{{- (content | tojson if m.role == 'tool' else content) + '<|eot_id|>' }}
{%- endif %}
{%- endfor %}
{%- if add_generation_prompt %}{{ '<|start_header_id|>assistant<|end_header_id|>\\n\\n' }}{% endif %}"""

INST = """\
{{- bos_token }}
{%- set users = messages | selectattr("role", "equalto", "user") | list %}
{%- set ns = namespace(turn=0) %}
{%- for m in messages %}
{%- if m.role == "user" or (m.role == "assistant" and not m.tool_calls) %}
{%- if (m.role == "user") != (ns.turn % 2 == 0) %}{{ raise_exception("roles must alternate") }}{% endif %}
{%- set ns.turn = ns.turn + 1 %}
{%- endif %}
{%- if m.role == "user" %}
{%- if tools and m == users[-1] %}{{ "[TOOLS]" + (tools | tojson) + "[/TOOLS]" }}{% endif %}
{{- "[INST] " + m.content + "[/INST]" }}
{%- elif m.role == "system" %}
{%- if not loop.first %}{{ raise_exception("system first") }}{% endif %}
{{- "[INST] " + m.content + "[/INST] " + eos_token }}
{%- elif m.role == "tool" %}
{%- if m.tool_call_id | length != 9 %}{{ raise_exception("call ids have nine characters") }}{% endif %}
{{- "[RESULT]" + m.content + m.tool_call_id + "[/RESULT]" }}
{%- elif m.tool_calls %}
{{- "[CALLS]" }}{% for c in m.tool_calls %}{{ c.function | tojson }}{{ c.id }}{% endfor %}{{ eos_token }}
{%- else %}{{ " " + m.content + eos_token }}{% endif %}
{%- endfor %}"""

TURNS = """\
{{ bos_token }}
{%- if messages[0].role == 'system' %}{{ raise_exception('System role not supported') }}{% endif %}
{%- for m in messages %}
{%- if (m.role == 'user') != (loop.index0 % 2 == 0) %}{{ raise_exception('Roles must alternate') }}{% endif %}
{{- '<start_of_turn>' + ('model' if m.role == 'assistant' else m.role) + '\\n' }}
{{- (m.content | trim) + '<end_of_turn>\\n' }}
{%- endfor %}
{%- if add_generation_prompt %}{{ '<start_of_turn>model\\n' }}{% endif %}"""

STRIPS = """\
{%- set ns = namespace(last=-1) %}
{%- for m in messages %}{% if m.role == 'user' %}{% set ns.last = loop.index0 %}{% endif %}{% endfor %}
{%- for m in messages %}
{{- '<|im_start|>' + m.role + '\\n' }}
{%- if m.role == 'assistant' and loop.index0 > ns.last %}
{{- '<think>\\n' + (m.reasoning_content or '') + '\\n</think>\\n\\n' }}{% endif %}
{{- m.content.split('</think>')[-1].lstrip('\\n') }}
{%- for c in m.tool_calls or [] %}{{ '\\n<tool_call>' ~ c.function ~ '</tool_call>' }}{% endfor %}
{{- '<|im_end|>\\n' }}
{%- endfor %}
{%- if add_generation_prompt %}{{ '<|im_start|>assistant\\n<think>\\n' }}{% endif %}"""

DATED = """\
{{- bos_token + '<|im_start|>system\\nToday is ' + strftime_now('%d %b %Y') + '.\\n' }}
{%- if messages[0].role == 'system' %}{{ messages[0].content }}{% endif %}
{{- '<|im_end|>\\n' }}
{%- for m in (messages[1:] if messages[0].role == 'system' else messages) %}
{{- '<|im_start|>' + m.role + '\\n' + m.content + '<|im_end|>\\n' }}
{%- endfor %}
{%- if add_generation_prompt %}{{ '<|im_start|>assistant\\n' }}{% endif %}"""

CALLS = """\
{%- for m in messages %}
{%- if m.role == 'tool' %}
{%- if loop.first or not (loop.previtem.tool_calls or loop.previtem.role == 'tool') %}
{{- raise_exception('a tool result without a call') }}
{%- endif %}
{{- '<|start|>result ' + m.name + '<|message|>' + m.content + '<|end|>' }}
{%- elif m.tool_calls %}
{{- '<|start|>assistant<|message|>' + m.content }}
{%- for c in m.tool_calls %}{{ '<|call|>' + (c.function | tojson) }}{% endfor %}{{ '<|end|>' }}
{%- else %}{{ '<|start|>' + m.role + '<|message|>' + m.content + '<|end|>' }}{% endif %}
{%- endfor %}
{%- if add_generation_prompt %}{{ '<|start|>assistant<|message|>' }}{% endif %}"""

CLOSES = """\
{%- for m in messages %}{{ '<turn>' + m.role + '\\n' + m.content }}
{%- for c in m.tool_calls or [] %}{{ '\\n<call>' + (c.function | tojson) + '</call>' }}{% endfor %}
{{- '\\n</turn>\\n' }}
{%- endfor %}
{%- if add_generation_prompt %}{{ '<turn>assistant\\n' }}{% endif %}"""

RETURNS = """\
{%- for m in messages %}{{ '<|start|>' + m.role + '<|message|>' + m.content }}
{%- for c in m.tool_calls or [] %}{{ '<|call|>' + (c.function | tojson) }}{% endfor %}
{{- '<|return|>' if loop.last and m.role == 'assistant' and not m.tool_calls else '<|end|>' }}
{%- endfor %}
{%- if add_generation_prompt %}{{ '<|start|>assistant' }}{% endif %}"""

FOLLOWS = """\
{%- for m in messages %}
{%- if m.role == 'tool' %}
{%- if loop.previtem and (loop.previtem.tool_calls or loop.previtem.role == 'tool') %}
{{- m.content + '</result>' + ('<result>' if loop.nextitem and loop.nextitem.role == 'tool' else '') }}
{%- endif %}
{%- else %}
{%- if loop.previtem and loop.previtem.role == 'tool' %}{{ '</turn>\\n' }}{% endif %}
{{- '<turn>' + m.role + '\\n' + m.content }}
{%- for c in m.tool_calls or [] %}{{ '<call>' + (c.function | tojson) + '</call>' }}{% endfor %}
{{- '<result>' if m.tool_calls and not loop.last else '</turn>\\n' }}
{%- endif %}
{%- endfor %}
{%- if add_generation_prompt and messages[-1].role != 'tool' %}{{ '<turn>assistant\\n' }}{% endif %}"""

_IM = ("<|im_start|>", "<|im_end|>", "<|endoftext|>", "<s>")
_HEADER = ("<|begin|>", "<|start_header_id|>", "<|end_header_id|>", "<|eot_id|>")
_INST = ("<s>", "</s>", "[INST]", "[/INST]", "[TOOLS]", "[/TOOLS]", "[CALLS]", "[RESULT]", "[/RESULT]")
_IM_END = ("<|im_end|>", "<|endoftext|>")


def tokenizers() -> dict[str, ByteTokenizer]:
    """A tokenizer with its template for each style."""
    return {
        "chatml": ByteTokenizer(CHATML, _IM, end=_IM_END, eos="<|im_end|>", words=WORDS),
        "headers": ByteTokenizer(
            HEADERS, _HEADER, end=("<|eot_id|>",), bos="<|begin|>", eos="<|eot_id|>", add_bos=True, words=WORDS
        ),
        "inst": ByteTokenizer(INST, _INST, end=("</s>",), bos="<s>", eos="</s>", add_bos=True, words=WORDS),
        "turns": ByteTokenizer(
            TURNS, ("<bos>", "<start_of_turn>", "<end_of_turn>"), end=("<end_of_turn>",), bos="<bos>", words=WORDS
        ),
        "strips": ByteTokenizer(STRIPS, _IM, end=_IM_END, bos="<s>", add_bos=True, words=WORDS),
        "dated": ByteTokenizer(DATED, _IM, end=_IM_END, bos="<s>", add_bos=True, words=WORDS),
        "calls": ByteTokenizer(
            CALLS, ("<|start|>", "<|message|>", "<|call|>", "<|end|>"), end=("<|end|>",), words=WORDS
        ),
        "closes": ByteTokenizer(CLOSES, ("<turn>", "</turn>", "<call>", "</call>"), end=("</turn>",), words=WORDS),
        "returns": ByteTokenizer(
            RETURNS, ("<|start|>", "<|message|>", "<|call|>", "<|end|>", "<|return|>"), end=("<|return|>",), words=WORDS
        ),
        "follows": ByteTokenizer(
            FOLLOWS,
            ("<turn>", "</turn>", "<call>", "</call>", "<result>", "</result>"),
            end=("</turn>", "<result>"),
            words=WORDS,
        ),
        "plain": ByteTokenizer("", ("<eos>",), end=("<eos>",), eos="<eos>", words=WORDS),
    }
