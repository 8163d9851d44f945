"""The page in a browser, with two devices and a relay: all that a person sees and does there."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import llmcrdt
from llmcrdt import HiddenField
from llmcrdt.serve import Worker
from sync_server.thread import RelayThread

OpenRepo = Callable[..., llmcrdt.Repo]
WAIT = 30_000  # milliseconds; a busy machine takes its time


def said(tab: Any) -> list[str]:
    """The words of the turns that are shown."""
    return [words.strip() for words in tab.locator(".turn .parts").all_inner_texts()]


def expect(tab: Any, script: str, argument: object = None) -> None:
    """Wait until this is true on the page."""
    tab.wait_for_function(script, arg=argument, timeout=WAIT)


def shows(tab: Any, words: str) -> None:
    expect(tab, "words => document.getElementById('log').innerText.includes(words)", words)


def write(tab: Any, words: str) -> None:
    tab.fill("#composer-text", words)
    tab.keyboard.press("Enter")


@pytest.fixture
def home(repo: llmcrdt.Repo, serve_page: Any, visit: Any) -> Any:
    """The tab of a page over a repo in which nothing was said."""
    return visit(serve_page(repo).url)


def test_the_first_visit_says_where_one_is_and_hides_the_token(home: Any) -> None:
    home.get_by_role("heading", name="Welcome").wait_for(timeout=WAIT)
    assert "token" not in home.url
    home.reload()
    home.get_by_role("heading", name="Welcome").wait_for(timeout=WAIT)


def test_without_the_token_the_page_tells_nothing(repo: llmcrdt.Repo, serve_page: Any, visit: Any) -> None:
    repo.create(title="A secret")
    tab = visit(serve_page(repo).url.partition("#")[0])
    tab.get_by_role("alert").get_by_text("llmcrdt open").wait_for(timeout=WAIT)
    assert "A secret" not in tab.content()


def test_a_code_opens_it_once(repo: llmcrdt.Repo, serve_page: Any, visit: Any) -> None:
    """It is in the tab's history no more, and a reload needs none."""
    address = serve_page(repo).opening_url()
    first = visit(address)
    first.get_by_role("heading", name="Welcome").wait_for(timeout=WAIT)
    assert "code" not in first.url
    first.reload()
    first.get_by_role("heading", name="Welcome").wait_for(timeout=WAIT)


def test_words_branches_and_an_erase_by_mouse_and_keyboard(home: Any, repo: llmcrdt.Repo, small_engine: Any) -> None:
    home.click("#new")
    home.wait_for_selector("#composer-text", timeout=WAIT)
    home.keyboard.type("line one")
    home.keyboard.press("Shift+Enter")
    home.keyboard.type("line two")
    home.keyboard.press("Enter")
    shows(home, "line two")
    home.get_by_text("Waits for a model").wait_for(timeout=WAIT)
    conversation = repo.get(repo.list()[0].id)
    assert conversation.title == "line one line two" and conversation.transcript()[0].text == "line one\nline two"
    with Worker(repo, {"small": small_engine}, most_tokens=12):
        expect(home, "() => document.querySelectorAll('.turn.assistant').length === 1")
        conversation.asks()[0].result(30)
        home.click(".turn.user >> text=Edit")
        home.fill("dialog textarea", "another question")
        home.click("dialog .primary")
        shows(home, "another question")
        expect(home, "() => document.querySelector('.turn.user .walk')?.innerText.includes('2/2')")
        conversation.asks()[1].result(30)
    home.locator(".turn.user").focus()
    home.keyboard.press("ArrowLeft")
    shows(home, "line two")
    home.click("#back")
    shows(home, "another question")
    home.keyboard.press("Escape")
    home.locator("#turns").focus()
    home.keyboard.press("b")
    expect(home, "() => document.querySelectorAll('#tree circle').length === 4")
    assert home.locator("#tree circle.shown").count() == 2
    home.click("#tree button:has-text('line one')")
    shows(home, "line two")
    home.click(".turn.user >> text=Erase")
    home.click("dialog .danger")
    shows(home, "The words were erased.")
    assert all("line two" not in entry.text for entry in conversation.transcript())


def test_another_device_is_seen_as_it_writes(
    repo: llmcrdt.Repo, open_repo: OpenRepo, relay_url: str, serve_page: Any, visit: Any
) -> None:
    conversation = repo.create(title="Together")
    conversation.append("user", "Said here")
    phone = open_repo("phone", repo.library)
    with repo.connect(relay_url) as link, phone.connect(relay_url) as other_link:
        link.wait_synced(30)
        other_link.wait_synced(30)
        tab = visit(serve_page(repo, link=link).url)
        tab.get_by_role("button", name=re.compile("^Together")).click()
        expect(tab, "() => document.getElementById('link').textContent === 'online'")
        expect(tab, "() => document.querySelector('.sync')?.textContent === '●'")
        there = phone.get(conversation.id)
        there.present({"typing": True})
        expect(tab, "() => document.getElementById('present').textContent.includes('phone is writing')")
        with there.stream("assistant", frame=there.transcript()) as stream:
            stream.write("It grows ")
            stream.flush()
            shows(tab, "It grows")
            assert tab.locator(".growing").count() == 1
            stream.write("to its **end**")
        shows(tab, "It grows to its end")
        expect(tab, "() => !document.querySelector('.growing')")
        assert tab.locator(".turn.new").count() == 1, "what another device brought is marked"
        tab.fill("#composer-text", "half-typed")
        there.append("user", "From the phone")
        shows(tab, "From the phone")
        assert tab.input_value("#composer-text") == "half-typed"
        link.close()
        expect(tab, "() => document.getElementById('link').textContent.startsWith('offline')")
        write(tab, "Said offline")
        shows(tab, "Said offline")


def test_details_show_frames_and_hidden_fields_and_a_models_html_stays_text(
    repo: llmcrdt.Repo, serve_page: Any, visit: Any
) -> None:
    conversation = repo.create(title="Details")
    conversation.append("user", "Where to?")
    conversation.append(
        "assistant",
        "<img src=x onerror=alert(1)> **Rome** [a](javascript:alert(1))",
        frame=conversation.transcript(),
        hidden={"old": HiddenField(b"x", {"provider": "p", "expires": 1})},
    )
    tab = visit(serve_page(repo).url)
    tab.get_by_role("button", name=re.compile("^Details")).click()
    shows(tab, "<img src=x onerror=alert(1)> Rome")
    assert tab.locator("#log img").count() == 0 and tab.locator("#log a").count() == 0
    tab.click(".turn.assistant .fold")
    tab.get_by_text("would not go out: it has expired").wait_for(timeout=WAIT)
    assert "Where to?" not in tab.inner_text(".turn.assistant .detail")
    tab.click(".turn.assistant .detail summary >> nth=0")
    assert "user: Where to?" in tab.inner_text(".turn.assistant .detail")


def test_a_picture_is_attached_and_shown(home: Any, repo: llmcrdt.Repo) -> None:
    pixel = bytes.fromhex(
        "89504e470d0a1a0a0000000d4948445200000001000000010802000000907753de0000000c4944415408d763f8cfc0000003010100"
        "18dd8db00000000049454e44ae426082"
    )
    home.click("#new")
    home.wait_for_selector("#composer-text", timeout=WAIT)
    home.set_input_files("#file", [{"name": "dot.png", "mimeType": "image/png", "buffer": pixel}])
    home.check("#note")
    write(home, "Look at this")
    expect(home, "() => document.querySelector('img.picture')?.naturalWidth === 1")
    entry = repo.get(repo.list()[0].id).transcript()[0]
    assert entry.text == "Look at this" and entry.parts[1].name == "dot.png"  # type: ignore[union-attr]


def test_an_attachment_from_elsewhere_is_fetched_by_a_button(
    repo: llmcrdt.Repo, serve_page: Any, visit: Any, tmp_path: Path
) -> None:
    with RelayThread(tmp_path / "relay") as relay, llmcrdt.open(tmp_path / "other.db") as other:
        conversation = other.create(title="Trip")
        conversation.append("user", [llmcrdt.Blob(b"a page of notes", "text/plain", "notes.txt")])
        with other.connect(relay.url) as link, llmcrdt.open(tmp_path / "here.db", library=other.library) as here:
            link.wait_synced(30)
            other.attachments.wait_sent(30)
            with here.connect(relay.url) as mine:
                mine.wait_synced(30)
                tab = visit(serve_page(here).url)
                tab.get_by_role("button", name=re.compile("^Trip")).click()
                tab.get_by_role("button", name="not on this device; fetch it").click()
                tab.get_by_role("button", name=re.compile("^notes.txt, 15 B[^:]*$")).wait_for(timeout=WAIT)
            assert here.attachments.list(conversation.id)[0].blob.read() == b"a page of notes"
            tab.close()  # before its repo


def test_a_long_conversation_opens_at_its_end_and_a_search_goes_far_back(
    repo: llmcrdt.Repo, serve_page: Any, visit: Any
) -> None:
    conversation = repo.create(title="Long")
    with conversation.batch():
        for number in range(300):
            conversation.append("user", f"Line {number} " + ("needle" if number == 7 else "hay"))
    tab = visit(serve_page(repo).url)
    tab.get_by_role("button", name=re.compile("^Long")).click()
    shows(tab, "Line 299")
    assert tab.locator(".turn").count() == 60
    tab.click("#older")
    expect(tab, "() => document.querySelectorAll('.turn').length === 160")
    tab.fill("#search", "needle")
    tab.locator("#list button", has_text="needle").click()
    expect(tab, "() => document.querySelector('.turn.found')?.innerText.includes('Line 7 needle')")


def test_a_narrow_screen_has_a_drawer_and_nothing_sticks_out(repo: llmcrdt.Repo, serve_page: Any, visit: Any) -> None:
    conversation = repo.create(title="Narrow")
    conversation.append("user", "x" * 300 + " " + "`code` " * 40)
    tab = visit(serve_page(repo).url, width=360)
    assert not tab.is_visible("#list")
    tab.click("#menu")
    tab.get_by_role("button", name=re.compile("^Narrow")).click()
    shows(tab, "code")
    tab.wait_for_selector("#list", state="hidden", timeout=WAIT)
    assert tab.evaluate("document.documentElement.scrollWidth") <= 360


def test_every_control_has_a_name_for_screen_readers(home: Any, repo: llmcrdt.Repo) -> None:
    home.click("#new")
    home.check("#note")
    write(home, "Said")
    shows(home, "Said")
    unnamed = home.evaluate(
        """() => [...document.querySelectorAll("button, input, textarea, select")]
            .filter((each) => each.checkVisibility())
            .filter((each) => !(each.innerText || each.ariaLabel || each.labels?.length))
            .map((each) => each.outerHTML)"""
    )
    assert unnamed == []


def test_a_server_that_ends_is_told_and_half_typed_words_stay(repo: llmcrdt.Repo, serve_page: Any, visit: Any) -> None:
    repo.create(title="Mine")
    page = serve_page(repo)
    tab = visit(page.url)
    tab.get_by_role("button", name=re.compile("^Mine")).click()
    tab.wait_for_selector("#composer-text", timeout=WAIT)
    page.close()
    expect(tab, "() => document.getElementById('link').textContent.startsWith('offline')")
    write(tab, "kept?")
    tab.get_by_role("alert").wait_for(timeout=WAIT)
    assert tab.input_value("#composer-text") == "kept?"
    visit.complaints.clear()  # the browser's own, about connections that were refused
