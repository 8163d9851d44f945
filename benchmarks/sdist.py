"""Files that llama-cpp-python's source package has, but not its wheel: chat templates and vocabularies of real models.

Their licences are the models' own, so they stay outside the project: in the user's cache folder, or where
``$LLMCRDT_SDIST`` says.
"""

from __future__ import annotations

import contextlib
import os
import subprocess
import sys
import tarfile
import tempfile
from collections.abc import Iterator
from importlib.metadata import version
from pathlib import Path

from llmcrdt.engine.llama.gguf_header import tokenizer_hash
from llmcrdt.engine.llama.library import library
from llmcrdt.engine.llama.tokenizer import LlamaTokenizer
from llmcrdt.exceptions import NotAModel
from llmcrdt.kvcache.paths import user_cache

_INSIDE = Path("vendor/llama.cpp/models")


class NoSdist(Exception):
    """The source package isn't here, and can't be fetched."""


def models_folder(given: Path | None = None, *, fetch: bool = False) -> Path:
    """The folder with ``templates/*.jinja`` and ``ggml-vocab-*.gguf``.

    ``given``: the archive, or a folder it was unpacked to; else ``$LLMCRDT_SDIST``, else what was fetched before.
    ``fetch``: have pip download the package of the installed version, once. Raises NoSdist.
    """
    named = os.environ.get("LLMCRDT_SDIST")
    place = given or (Path(named) if named else None)
    kept = user_cache().parent / "sdist" / f"llama-cpp-python-{version('llama-cpp-python')}"
    if place is not None and place.is_file():
        _unpack(place, kept)
        place = kept
    if place is None and not kept.is_dir() and fetch:
        _fetch(kept)
    for folder in (place or kept, (place or kept) / _INSIDE, *(place or kept).glob(f"*/{_INSIDE}")):
        if (folder / "templates").is_dir():
            return folder
    raise NoSdist(
        f"llama-cpp-python's source package is not in {place or kept}: run 'python -m benchmarks templates' once to "
        "fetch it, or set LLMCRDT_SDIST to the archive or its unpacked folder"
    )


def vocabularies(folder: Path) -> list[Path]:
    """The vocabulary files: models without weights."""
    return sorted(folder.glob("ggml-vocab-*.gguf"))


@contextlib.contextmanager
def vocabulary(file: Path) -> Iterator[LlamaTokenizer]:
    """The tokenizer of a vocabulary file. Raises NotAModel where llama.cpp doesn't take it."""
    lib = library()
    parameters = lib.llama_model_default_params()
    parameters.vocab_only = True
    model = lib.llama_model_load_from_file(os.fsencode(file), parameters)
    if not model:
        raise NotAModel(f"llama.cpp can't load {file}.")
    tokenizer = LlamaTokenizer(lib, model, tokenizer_hash(file))
    try:
        yield tokenizer
    finally:
        tokenizer.close()
        lib.llama_model_free(model)


def _fetch(kept: Path) -> None:
    """By its name, through pip, which asks the index that the machine is set up for."""
    wanted = f"llama-cpp-python=={version('llama-cpp-python')}"
    with tempfile.TemporaryDirectory() as made:
        command = [sys.executable, "-m", "pip", "download", "-q", "--no-deps", "--no-binary", ":all:", "-d", made]
        done = subprocess.run([*command, wanted], capture_output=True, text=True)
        archives = list(Path(made).glob("*.tar.gz"))
        if done.returncode or not archives:
            raise NoSdist(f"pip could not download {wanted}: {done.stderr.strip().splitlines()[-1:]}")
        _unpack(archives[0], kept)


def _unpack(archive: Path, kept: Path) -> None:
    """Only what is wanted of it, whole or not at all."""
    kept.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=kept.parent) as made, tarfile.open(archive) as tar:
        for member in tar:
            inside = Path(*Path(member.name).parts[1:])
            if inside.is_relative_to(_INSIDE) and member.isfile():
                tar.extract(member, made, filter="data")
        (found,) = Path(made).iterdir()
        if not kept.exists():
            found.rename(kept)
