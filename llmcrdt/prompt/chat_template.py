"""A model's own chat template, run in a sandbox. The only module that imports jinja2.

The environment is the one templates are written for (Hugging Face's ``apply_chat_template``): trimmed blocks,
loop controls, ``raise_exception``, ``tojson`` that escapes nothing and keeps the order of keys, ``strftime_now``,
``generation`` blocks. Two things differ: no template reads a clock, and what a render may cost is bounded. Each turn of
a loop and each call of a macro is counted, and text may only grow so far. A template still is code of the model's file:
the bounds stop a broken or hostile one, they don't make it trustworthy.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from datetime import datetime
from functools import lru_cache, wraps
from typing import Any

from ..exceptions import EngineMissing, TemplateFailed
from .dates import strftime

try:
    import jinja2
    from jinja2 import meta, nodes
    from jinja2.ext import Extension, LoopControlExtension
    from jinja2.parser import Parser
    from jinja2.runtime import Context
    from jinja2.sandbox import ImmutableSandboxedEnvironment
    from jinja2.visitor import NodeTransformer
except ImportError:  # pragma: no cover - exercised in a process of its own
    raise EngineMissing(
        "Chat templates need jinja2, which is not installed.", hint="Run: pip install 'llmcrdt[llama]'."
    ) from None

MAX_STEPS = 2_000_000
"""Turns of loops and calls of macros in one render."""
MAX_CHARACTERS = 32 << 20
"""Of one rendered prompt, and of any text on the way to it."""
MAX_SOURCE = 1 << 20

_METER, _BOUND = "__llmcrdt_meter", "__llmcrdt_bound"
_RESERVED = frozenset(("messages", "tools", "documents", "add_generation_prompt", "bos_token", "eos_token"))
_HINT = "Use a model with another template, or pass arguments it accepts in a config part: template={...}."
_WIDE = re.compile(r"\d{6,}|\*")
_PADDING = frozenset(("center", "ljust", "rjust", "zfill", "expandtabs"))


def render(
    source: str,
    messages: Sequence[Mapping[str, Any]],
    *,
    tools: Sequence[Any] | None = None,
    arguments: Mapping[str, Any] | None = None,
    date: datetime,
    add_generation_prompt: bool,
    bos: str = "",
    eos: str = "",
    max_steps: int = MAX_STEPS,
    max_characters: int = MAX_CHARACTERS,
) -> str:
    """The text that the template ``source`` makes of ``messages``. Pure: the same arguments give the same text.

    Raises TemplateFailed where the template refuses the messages, is broken, or costs more than the limits allow.
    """
    template = _compiled(source)
    meter = _Meter(max_steps, max_characters)
    taken = _RESERVED | template.globals.keys()  # ``namespace`` and the like: a stranger's argument may be called so
    values = {
        **{key: value for key, value in (arguments or {}).items() if key.isidentifier() and key not in taken},
        "messages": list(messages),
        "tools": None if tools is None else list(tools),
        "documents": None,
        "add_generation_prompt": add_generation_prompt,
        "bos_token": bos,
        "eos_token": eos,
        "strftime_now": lambda form: strftime(date, form),
        "raise_exception": _refuse,
        _METER: meter,
    }
    pieces: list[str] = []
    try:
        for piece in template.generate(values):
            meter.printed(piece)
            pieces.append(piece)
    except TemplateFailed:
        raise
    except RecursionError:
        raise TemplateFailed("The model's chat template nests too deeply.", hint=_HINT) from None
    except MemoryError:
        raise TemplateFailed("The model's chat template needs too much memory.", hint=_HINT) from None
    except Exception as error:  # a template is foreign code: whatever it raises is its failure
        raise TemplateFailed(f"The model's chat template failed: {_first_line(error)}.", hint=_HINT) from error
    return "".join(pieces)


@lru_cache(maxsize=16)
def takes_tools(source: str) -> bool:
    """Whether the template ``source`` looks at the tools it is given. Raises TemplateFailed where it can't be read."""
    try:
        return "tools" in meta.find_undeclared_variables(_environment().parse(source))
    except (jinja2.TemplateError, RecursionError, SyntaxError, ValueError) as error:
        raise _unreadable(error) from None


class _Meter:
    """Counts one render. Its truth value is one step: the cheapest thing that compiled templates can do."""

    def __init__(self, max_steps: int, max_characters: int) -> None:
        self._steps, self._room, self._most = max_steps, max_characters, max_characters

    def __bool__(self) -> bool:
        self.spend(1)
        return True

    def spend(self, steps: int) -> None:
        self._steps -= steps
        if self._steps < 0:
            raise TemplateFailed("The model's chat template doesn't come to an end.", hint=_HINT)

    def weigh(self, length: int) -> None:
        """Something of this length was made: it must fit a prompt, and copying costs steps."""
        _fits(length, self._most)
        self.spend(length >> 10)

    def printed(self, piece: str) -> None:
        self._room -= len(piece)
        _fits(0, self._room)


@jinja2.pass_context
def _bound(context: Context, value: Any) -> Any:
    if isinstance(value, (str, list, tuple)) and len(value) > 1000:
        context.resolve(_METER).weigh(len(value))
    return value


def _fits(length: int, most: int = MAX_CHARACTERS) -> None:
    if length > most:
        raise TemplateFailed("The model's chat template makes too much text.", hint=_HINT)


class _Environment(ImmutableSandboxedEnvironment):
    """Jinja's sandbox, which keeps templates from the interpreter; here also from endless loops and huge texts."""

    intercepted_binops = frozenset(("*", "**", "%"))

    def _parse(self, source: str, name: str | None, filename: str | None) -> nodes.Template:
        tree = super()._parse(source, name, filename)
        _Metered().visit(tree)
        tree.set_environment(self)
        return tree

    def call_binop(self, context: Context, operator: str, left: Any, right: Any) -> Any:
        if operator == "*":
            for text, times in ((left, right), (right, left)):
                if isinstance(text, (str, list, tuple)) and isinstance(times, int):
                    _fits(len(text) * times)
        if operator == "**" or (operator == "*" and isinstance(left, int) and isinstance(right, int)):
            _fits(max(abs(left).bit_length() * (abs(right) if operator == "**" else 1), 0), 1 << 16)
        if operator == "%" and isinstance(left, str):
            _bounded_format(left)
        return super().call_binop(context, operator, left, right)

    def is_safe_attribute(self, obj: Any, attr: str, value: Any) -> bool:
        """Lists may change, an item a call: what a template is given are copies."""
        return (isinstance(obj, list) and attr in ("append", "pop")) or super().is_safe_attribute(obj, attr, value)

    def wrap_str_format(self, value: Any) -> Callable[..., str] | None:
        owner = getattr(value, "__self__", None)
        if isinstance(owner, str) and getattr(value, "__name__", "") in ("format", "format_map"):
            _bounded_format(owner)
        return super().wrap_str_format(value)

    def call(self, context: Context, function: Any, *args: Any, **kwargs: Any) -> Any:
        owner = getattr(function, "__self__", None)
        if isinstance(owner, str):
            _bounded_method(owner, getattr(function, "__name__", ""), args)
        return super().call(context, function, *args, **kwargs)


def _bounded_method(owner: str, name: str, args: tuple[Any, ...]) -> None:
    """Refuses calls of str methods whose result would be far longer than what goes in."""
    if name in _PADDING and args and isinstance(args[0], int):
        _fits(args[0] * (owner.count("\t") if name == "expandtabs" else 1))
    elif name == "replace" and len(args) >= 2 and all(isinstance(arg, str) for arg in args[:2]):
        _fits(len(owner) + owner.count(args[0]) * len(args[1]))
    elif name == "join" and args and isinstance(args[0], (list, tuple)):
        _fits(sum(len(item) + len(owner) for item in args[0] if isinstance(item, str)))


def _bounded_format(form: str) -> None:
    if _WIDE.search(form):
        raise TemplateFailed("The model's chat template pads text too widely.", hint=_HINT)


class _Metered(NodeTransformer):
    """Puts a count into every loop and macro, and a bound around what makes text longer."""

    def visit_For(self, node: nodes.For) -> nodes.Node:
        self.generic_visit(node)
        node.body.insert(0, _count(node.lineno))
        if node.test is not None:  # a filtered loop counts what it filters out, too
            node.test = nodes.And(_meter(node.lineno), node.test, lineno=node.lineno)
        return node

    def visit_Macro(self, node: nodes.Macro) -> nodes.Node:
        self.generic_visit(node)
        node.body.insert(0, _count(node.lineno))
        return node

    def visit_Concat(self, node: nodes.Concat) -> nodes.Node:
        self.generic_visit(node)
        return nodes.Filter(node, _BOUND, [], [], None, None, lineno=node.lineno)

    def visit_Add(self, node: nodes.Add) -> nodes.Node:
        self.generic_visit(node)
        return nodes.Filter(node, _BOUND, [], [], None, None, lineno=node.lineno)

    def visit_Filter(self, node: nodes.Filter) -> nodes.Node:
        self.generic_visit(node)
        bounded = nodes.Filter(node, _BOUND, [], [], None, None, lineno=node.lineno)
        return bounded if node.node is not None else node


def _count(line: int) -> nodes.Node:
    return nodes.ExprStmt(nodes.Not(_meter(line), lineno=line), lineno=line)


def _meter(line: int) -> nodes.Name:
    return nodes.Name(_METER, "load", lineno=line)


class _Generation(Extension):
    """``{% generation %}...{% endgeneration %}``, which marks what a model said; here it only prints it."""

    tags = {"generation"}  # noqa: RUF012 - the attribute is Jinja's

    def parse(self, parser: Parser) -> list[nodes.Node]:
        next(parser.stream)
        return parser.parse_statements(("name:endgeneration",), drop_needle=True)


def _environment() -> _Environment:
    environment = _Environment(trim_blocks=True, lstrip_blocks=True, extensions=[LoopControlExtension, _Generation])
    environment.filters |= {"tojson": _tojson, _BOUND: _bound}
    del environment.globals["lipsum"], environment.filters["random"]  # two devices must make the same text
    for name, check in _FILTERS.items():
        environment.filters[name] = _checked(environment.filters[name], check)
    return environment


@lru_cache(maxsize=16)
def _compiled(source: str) -> jinja2.Template:
    if len(source) > MAX_SOURCE:
        raise TemplateFailed("The model's chat template is too long.", hint=_HINT)
    try:
        return _environment().from_string(source)
    except (jinja2.TemplateError, RecursionError, SyntaxError, ValueError) as error:
        raise _unreadable(error) from None


def _unreadable(error: BaseException) -> TemplateFailed:
    return TemplateFailed(f"The model's chat template can't be read: {_first_line(error)}.", hint=_HINT)


def _tojson(
    value: Any,
    ensure_ascii: bool = False,
    indent: int | str | None = None,
    separators: tuple[str, str] | None = None,
    sort_keys: bool = False,
) -> str:
    if isinstance(indent, int) and indent > 64:
        _fits(indent, 64)
    return json.dumps(
        value, ensure_ascii=ensure_ascii, indent=indent, separators=separators, sort_keys=sort_keys, default=_listed
    )


def _listed(value: object) -> list[Any]:
    """Jinja's filters give generators; some templates print them as the lists they stand for."""
    if isinstance(value, Iterator):
        return list(value)
    raise TypeError(f"Object of type {type(value).__name__} is not JSON serializable")


def _check_width(value: Any, width: Any = 0, *rest: Any, **named: Any) -> None:
    width = named.get("width", width)
    if isinstance(width, int):
        _fits(width * (str(value).count("\n") + 1))


def _check_replace(value: Any, old: Any = "", new: Any = "", *rest: Any, **named: Any) -> None:
    _bounded_method(str(value), "replace", (str(old), str(new)))


def _check_format(value: Any, *rest: Any, **named: Any) -> None:
    _bounded_format(str(value))


_FILTERS: dict[str, Callable[..., None]] = {
    "center": _check_width,
    "indent": _check_width,
    "format": _check_format,
    "replace": _check_replace,
}


def _checked(original: Callable[..., Any], check: Callable[..., None]) -> Callable[..., Any]:
    takes_context = getattr(original, "jinja_pass_arg", None) is not None

    @wraps(original)  # keeps Jinja's mark of a filter that is given its context first
    def run(*args: Any, **kwargs: Any) -> Any:
        check(*args[takes_context:], **kwargs)
        return original(*args, **kwargs)

    return run


def _refuse(message: object = "") -> str:
    raise jinja2.TemplateError(str(message))


def _first_line(error: BaseException) -> str:
    text = str(error).strip().split("\n")[0][:300].rstrip(".")
    return text or type(error).__name__
