"""The vocabulary and chat template of the tiny models. Any UTF-8 text makes the round trip, byte by byte if need be."""

from __future__ import annotations

from dataclasses import dataclass

_NORMAL, _UNKNOWN, _CONTROL, _UNUSED, _BYTE = 1, 2, 3, 5, 6
_SPACE = "\u2581"  # how a sentencepiece vocabulary writes a space

CHAT_TEMPLATE = """\
{%- macro call_text(call) -%}
{%- set f = call.function if call.function is defined else call -%}
<tool_call>
{"name": {{ f.name | tojson }}, "arguments": {{ f.arguments if f.arguments is string else f.arguments | tojson }}}
</tool_call>
{%- endmacro -%}
{%- set first = messages[0] if messages and messages[0].role == 'system' else none -%}
{%- if tools or first -%}
{{- '<|im_start|>system\\n' -}}
{{- first.content if first else '' -}}
{%- if tools -%}
{{- ('\\n\\n' if first and first.content else '') + 'You can call these tools:\\n<tools>' -}}
{%- for tool in tools -%}{{- '\\n' + (tool | tojson) -}}{%- endfor -%}
{{- '\\n</tools>\\nTo call one, answer with its name and arguments as JSON in <tool_call></tool_call>.' -}}
{%- endif -%}
{{- '<|im_end|>\\n' -}}
{%- endif -%}
{%- for message in messages -%}
{%- if message.role == 'tool' -%}
{{- '<|im_start|>user\\n<tool_response>\\n' + message.content + '\\n</tool_response><|im_end|>\\n' -}}
{%- elif message.role == 'assistant' -%}
{{- '<|im_start|>assistant\\n' + (message.content or '') -}}
{%- for call in message.tool_calls or [] -%}
{{- '\\n' if message.content or not loop.first else '' -}}{{- call_text(call) -}}
{%- endfor -%}
{{- '<|im_end|>\\n' -}}
{%- elif not (loop.first and first) -%}
{{- '<|im_start|>' + message.role + '\\n' + message.content + '<|im_end|>\\n' -}}
{%- endif -%}
{%- endfor -%}
{%- if add_generation_prompt -%}{{- '<|im_start|>assistant\\n' -}}{%- endif -%}
"""


@dataclass(frozen=True)
class Vocabulary:
    """Parallel lists by token id. ``voice``: the weight of each in the noise. Syllables are common, words begin
    often, the end of a turn comes now and then, lone bytes never."""

    texts: list[str]
    scores: list[float]
    types: list[int]
    voice: list[float]
    bos: int
    start: int
    end: int


def vocabulary() -> Vocabulary:
    """1024 tokens: control tokens, 256 bytes, ASCII, common English pieces, and some hundreds of syllables."""
    rows: list[tuple[str, float, int, float]] = [("<unk>", 0.0, _UNKNOWN, 0.0)]
    rows += [(text, 0.0, _CONTROL, 0.0) for text in ("<s>", "</s>")]
    rows += [(f"<0x{byte:02X}>", 0.0, _BYTE, 0.0) for byte in range(256)]
    start = len(rows)
    rows += [("<|im_start|>", 0.0, _CONTROL, 0.0), ("<|im_end|>", 0.0, _CONTROL, 4.0)]
    rows.append((_SPACE, -1.0, _NORMAL, 0.0))
    rows += [(chr(code), -2.0, _NORMAL, 3.0 if chr(code) in ".," else 0.0) for code in range(33, 127)]
    known = {text for text, *_ in rows}
    for i, text in enumerate(piece for piece in dict.fromkeys(_pieces()) if piece not in known):
        rows.append((text, -0.01 * (i + 1), _NORMAL, 4.0 if text.startswith(_SPACE) else 3.0))
    rows += [(f"[PAD{i}]", 0.0, _UNUSED, 0.0) for i in range(len(rows), 1024)]
    texts, scores, types, voice = ([row[i] for row in rows] for i in range(4))
    return Vocabulary(texts, scores, types, voice, bos=1, start=start, end=start + 1)  # type: ignore[arg-type]


def _pieces() -> list[str]:
    """Pieces in the order in which they win. Each can be reached by joining two shorter ones, as the tokenizer does."""
    english = f"th he in er an {_SPACE}t {_SPACE}a {_SPACE}th {_SPACE}the ing us user ass".split(" ")
    opening = [consonant + vowel for consonant in "bdfgklmnprstvz" for vowel in "aeiou"]
    closed = [syllable + end for syllable in opening for end in "nrls"]
    return english + opening + [_SPACE + syllable for syllable in opening] + closed
