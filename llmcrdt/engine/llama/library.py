"""The door to llama-cpp-python: its low-level module, which all else here is handed, and its grammars."""

from __future__ import annotations

import ctypes
import os
from typing import Any

from ...at_exit import end_at_exit
from ...exceptions import EngineError, EngineMissing
from ..base import Sampling
from .model import keep_log

_log_functions: list[Any] = []  # llama.cpp, one for each process, calls the last of them


def library() -> Any:
    """The low-level module, with llama.cpp's log kept instead of printed. Raises EngineMissing."""
    try:
        import numpy  # noqa: F401
        from llama_cpp import llama_cpp as lib
    except (ImportError, OSError, RuntimeError) as error:
        raise EngineMissing(
            f"llama-cpp-python can't be used: {error}.", hint="Install it: pip install 'llmcrdt[llama]'"
        ) from error
    if not _log_functions:
        _log_functions.append(lib.llama_log_callback(keep_log))
        lib.llama_backend_init()
        end_at_exit(lib, finish=_end_log)
    lib.llama_log_set(_log_functions[-1], None)  # each time: others in the process may have set their own
    return lib


def grammar(sampling: Sampling) -> str:
    """The grammar that a run must follow; "" for none. Raises EngineError, also for references to elsewhere."""
    if not sampling.json_schema:
        return sampling.grammar
    if sampling.grammar:
        raise EngineError("An answer follows a grammar or a JSON schema, not both.")
    from llama_cpp.llama_grammar import json_schema_to_gbnf

    try:
        return str(json_schema_to_gbnf(sampling.json_schema))
    except Exception as error:
        raise EngineError(f"The JSON schema can't be made into a grammar: {error!r}.") from error


def _end_log(lib: Any, seconds: float) -> None:
    """llama.cpp outlives the interpreter, and may log to its last moment: not through Python any more.

    C's own ``abs`` does nothing with the first argument, a number, and doesn't look at the others.
    """
    nothing = (ctypes.cdll.msvcrt if os.name == "nt" else ctypes.CDLL(None)).abs
    _log_functions.append(ctypes.cast(nothing, lib.llama_log_callback))
    lib.llama_log_set(_log_functions[-1], None)
