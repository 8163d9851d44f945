"""A plugin for the command line tool and library ``llm``: ``llm crdt ...``, fragments ``crdt:ID``, and models
``crdt/NAME`` that answer in a conversation of the repo.

``llm`` loads it whenever it starts, so it loads nothing of this library before it is used (docs/llm.md).
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
import llm

if TYPE_CHECKING:
    from .document.conversation import Conversation
    from .repo.repo import Repo

PREFIX = "crdt"
MODELS = "crdt-models.json"
"""The file in llm's folder that names models: ``{"NAME": "FILE.gguf or PROVIDER/MODEL"}``."""

_PLACE = "llm:"
"""With the id of llm's conversation, the setting that names the one of the repo."""

_FLAGS = frozenset({"--json", "--local"})


@llm.hookimpl
def register_commands(cli: click.Group) -> None:
    """``llm crdt ...``: the commands of ``llmcrdt``."""

    @cli.command(
        PREFIX,
        context_settings={"ignore_unknown_options": True, "allow_interspersed_args": False, "help_option_names": []},
    )
    @click.argument("arguments", nargs=-1, type=click.UNPROCESSED)
    def crdt(arguments: tuple[str, ...]) -> None:
        """Conversations as replicated documents: list, show, search, import ... (llm crdt --help)"""
        from .cli import main

        main([*arguments, *_own_logs(arguments)], prog_name=f"llm {PREFIX}")


@llm.hookimpl
def register_fragment_loaders(register: Callable[[str, Callable[[str], llm.Fragment]], None]) -> None:
    """``-f crdt:ID``: the words of a conversation."""
    register(PREFIX, fragment)


@llm.hookimpl
def register_models(register: Callable[..., None]) -> None:
    """``crdt/default``, and one ``crdt/NAME`` for each name in the file of models."""
    for name, model in named_models().items():
        register(RepoModel(f"{PREFIX}/{name}", model))


def named_models() -> dict[str, str]:
    """The names of models, and what each stands for: a GGUF file, or a provider's model; "" is the one that the
    commands use where none is named. Raises ClickException where the file of models is none."""
    file = Path(llm.user_dir()) / MODELS
    if not file.exists():
        return {"default": ""}
    try:
        found = json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise click.ClickException(f"{file} can't be read: {error}") from None
    if not isinstance(found, dict) or not all(isinstance(value, str) for value in found.values()):
        raise click.ClickException(f'{file} is no JSON object like {{"smol": "smol.gguf"}}.')
    return {"default": "", **found}


def fragment(argument: str) -> llm.Fragment:
    """The words of the conversation whose id begins so: who said what, in order. Raises ValueError."""
    from .cli.options import find
    from .exceptions import LLMCRDTError

    try:
        with _repo() as repo:
            conversation = find(repo, argument)
            said = [f"{entry.role}: {entry.text}" for entry in conversation.transcript() if entry.text]
            return llm.Fragment("\n\n".join(said), source=f"{PREFIX}:{conversation.id}")
    except LLMCRDTError as error:
        raise ValueError(str(error)) from None


class RepoModel(llm.Model):
    """A model that answers in a conversation of the default repo: what is asked and answered stands there, is synced,
    and an engine computes only what is new. ``model``: its file, or a provider's name for it."""

    can_stream = True

    class Options(llm.Options):
        """Given with ``-o``. ``conversation``: the one that goes on, by the beginning of its id."""

        conversation: str | None = None
        max_tokens: int | None = None
        temperature: float | None = None
        seed: int | None = None
        local: bool | None = None

    def __init__(self, model_id: str, model: str) -> None:
        self.model_id, self._model = model_id, model
        self._engine: Any = None

    def execute(
        self,
        prompt: llm.Prompt,
        stream: bool,
        response: llm.Response,
        conversation: llm.Conversation | None,
    ) -> Iterator[str]:
        """Append the prompt, and yield the answer while it is computed; it stands in the conversation too, stopped
        where nobody reads on. Raises ModelError."""
        from .exceptions import LLMCRDTError
        from .generation.generate import generate

        options: Any = prompt.options
        try:
            with _repo() as repo:
                talk = self._conversation(repo, options, prompt, conversation)
                chosen = {name: getattr(options, name) for name in ("max_tokens", "temperature", "seed")}
                answer = generate(talk, self._opened(), **{k: v for k, v in chosen.items() if v is not None})
                yield from answer
                entry = answer.result()
                response.response_json = {"conversation": talk.id, "entry": entry.id}
                response.set_usage(input=answer.stats.get("total"), output=answer.stats.get("sampled"))
        except LLMCRDTError as error:
            raise llm.ModelError(str(error)) from error

    def _opened(self) -> Any:
        """The engine, which stays for the next prompt; or a provider."""
        from . import providers
        from .cli.models import needed_model
        from .engine.llama.engine import LlamaEngine

        if self._model and providers.is_named(self._model) and not Path(self._model).exists():
            return providers.named(self._model)
        if self._engine is None:
            self._engine = LlamaEngine(needed_model(Path(self._model) if self._model else None))
        return self._engine

    def _conversation(
        self, repo: Repo, options: Any, prompt: llm.Prompt, before: llm.Conversation | None
    ) -> Conversation:
        """The conversation to answer in, with the prompt at its end."""
        from .cli.options import find
        from .repo.repo import repo_core
        from .repo.titles import title_from

        settings = repo_core(repo).store.settings
        place = f"{_PLACE}{before.id}" if before is not None else None
        known = settings.get(place) if place is not None else None

        def say(made: Conversation) -> None:
            if prompt.system and prompt.system != _system(made):
                made.append("system", prompt.system)
            made.append("user", prompt.prompt)

        wanted = options.conversation or known
        if wanted:
            found = find(repo, wanted)
            with found.batch():
                say(found)
            return found

        def begin(made: Conversation) -> None:
            for message in prompt.messages:  # also what other models said before
                text = "".join(getattr(part, "text", "") for part in message.parts)
                if message.role == "assistant":
                    made.append("assistant", text, frame=made.transcript(), assumed=True, author="")
                elif text and message.role in ("system", "user"):
                    made.append("system" if message.role == "system" else "user", text)

        new = repo.create(title_from(prompt.prompt), fill=begin, local=bool(options.local))
        if place is not None:
            settings.put(place, new.id)
        return new


def _system(conversation: Conversation) -> str:
    """The system prompt that counts there."""
    return next((e.text for e in reversed(conversation.transcript()) if e.role == "system"), "")


def _own_logs(arguments: tuple[str, ...]) -> list[str]:
    """For an import that names nothing: the logs of llm itself."""
    command, *rest = arguments or ("",)
    return [str(Path(llm.user_dir()) / "logs.db")] if command == "import" and _FLAGS.issuperset(rest) else []


@contextmanager
def _repo() -> Iterator[Repo]:
    """The repo of ``$LLMCRDT_DB``, or the default one, as the commands use it."""
    from .cli.group import OpenRepos

    with OpenRepos(None, None, "llm")(create=True) as repo:
        yield repo
