"""A page over a repo, and a browser that opens it."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from typing import TYPE_CHECKING, Any

import pytest

import llmcrdt

if TYPE_CHECKING:
    from llmcrdt.page import Page

NAMES = "chromium", "chromium-browser", "google-chrome"
REQUIRED = "LLMCRDT_BROWSER"
"""Set to ``required`` where a missing browser is a failure, and no reason to skip."""


@pytest.fixture
def serve_page() -> Iterator[Callable[..., Page]]:
    """``serve_page(repo, **more)`` starts a page, which ends with the test."""
    page = pytest.importorskip("llmcrdt.page", exc_type=ImportError)
    with ExitStack() as stack:
        yield lambda repo, **more: stack.enter_context(page.Page(repo, **more))


def _missing(words: str) -> Any:
    if os.environ.get(REQUIRED) == "required":
        pytest.fail(words)
    pytest.skip(words)


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    """Headless Chromium, as the system has it. Playwright's loop runs meanwhile, so it ends with the module: others run
    loops of their own."""
    try:
        from playwright.sync_api import sync_playwright
    except ImportError:
        _missing("Playwright is not installed: the page is not tried in a browser")
    found = next((path for name in NAMES if (path := shutil.which(name))), None)
    if found is None:
        _missing("Chromium is not installed: the page is not tried in a browser")
    with sync_playwright() as playwright:
        launched = playwright.chromium.launch(executable_path=found, args=["--no-sandbox", "--disable-gpu"])
        yield launched
        launched.close()


@pytest.fixture
def visit(browser: Any) -> Iterator[Callable[..., Any]]:
    """``visit(address, width=1280)`` opens a tab. Any complaint of its console fails the test."""
    complaints: list[str] = []
    contexts = []

    def open_tab(address: str, width: int = 1280, **more: Any) -> Any:
        context = browser.new_context(viewport={"width": width, "height": 860}, **more)
        contexts.append(context)
        tab = context.new_page()
        tab.on("pageerror", lambda error: complaints.append(str(error)))
        tab.on("console", lambda told: complaints.append(told.text) if told.type == "error" else None)
        tab.goto(address)
        return tab

    open_tab.complaints = complaints  # type: ignore[attr-defined]
    yield open_tab
    for context in contexts:
        context.close()
    assert complaints == []


@pytest.fixture
def small_engine() -> Iterator[Any]:
    """An engine that costs nothing, and says nothing that means anything."""
    from llmcrdt.kvcache import NullCache
    from llmcrdt.testing.engine import MemoryEngine
    from llmcrdt.testing.tokenizer import ByteTokenizer

    template = "{% for m in messages %}{{ m.role }}: {{ m.content }}\n{% endfor %}assistant: "
    made = MemoryEngine(ByteTokenizer(template), NullCache())
    yield made
    made.close()


@pytest.fixture
def repo(open_repo: Callable[..., llmcrdt.Repo]) -> llmcrdt.Repo:
    return open_repo("laptop")
