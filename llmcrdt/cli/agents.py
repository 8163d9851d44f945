"""llmcrdt mcp: the library for agents that speak the Model Context Protocol."""

from __future__ import annotations

import click

from llmcrdt.exceptions import LLMCRDTError

from .options import Repos, find


@click.command()
@click.option(
    "--write",
    "writable",
    multiple=True,
    metavar="ID|all",
    help='a conversation that agents may write to; "all": any, and new ones; may be given again [default: none]',
)
@click.option("--name", default="agent", show_default=True, help="the author of what agents write")
@click.pass_obj
def mcp(repos: Repos, writable: tuple[str, ...], name: str) -> None:
    """Let an agent search and read all conversations here, over MCP on standard input and output; clients start this.

    It writes only to conversations that --write names. Hidden fields, reasoning and erased words are never told.
    """
    try:
        from llmcrdt.mcp.library import ALL, AgentLibrary
        from llmcrdt.mcp.server import serve
    except ImportError as error:
        raise LLMCRDTError(
            f"MCP needs packages that are not installed ({error.name}).", hint='pip install "llmcrdt[mcp]"'
        ) from None
    with repos() as repo:
        allowed = [each if each == ALL else find(repo, each).id for each in writable]
        serve(AgentLibrary(repo, writable=allowed, author=name))
