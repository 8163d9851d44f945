"""The page's server: who is let in, what it reads and does, and how it refuses."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from typing import Any

import pytest

pytest.importorskip("starlette")
pytest.importorskip("nh3")

from starlette.testclient import TestClient

import llmcrdt
from llmcrdt import HiddenField, Text
from llmcrdt.page.access import CODE_SECONDS, OnlyWithToken, Tokens
from llmcrdt.page.actions import ACTIONS
from llmcrdt.page.app import PageApp
from llmcrdt.page.changes import library_changes, link_json

TOKEN = "t" * 32
BEARER = {"Authorization": f"Bearer {TOKEN}"}


@pytest.fixture
def client(repo: llmcrdt.Repo) -> Iterator[TestClient]:
    app = PageApp(repo, link=None, models={}, stopping=lambda: False)
    guarded = OnlyWithToken(app.routes(), Tokens(TOKEN), ["127.0.0.1:80", "127.0.0.1"])
    with TestClient(guarded, base_url="http://127.0.0.1", headers=BEARER, raise_server_exceptions=False) as made:  # type: ignore[arg-type]
        yield made


def test_a_request_needs_the_token_the_host_and_its_own_origin(client: TestClient) -> None:
    assert client.get("/api/library").status_code == 200
    assert client.get("/api/library", headers={"Authorization": "Bearer x"}).status_code == 401
    assert client.get("/api/library", headers={"Authorization": ""}).status_code == 401
    assert client.get("/api/library", headers={"Host": "evil.example"}).status_code == 421
    assert client.get("/api/library", headers={"Origin": "https://evil.example"}).status_code == 403
    assert client.get("/api/library", headers={"Origin": "http://127.0.0.1"}).status_code == 200
    assert client.get("/", headers={"Authorization": ""}).status_code == 200, "the page itself holds no secret"
    assert client.get("/", headers={"Host": "evil.example"}).status_code == 421


def test_a_code_gives_a_token_once_and_soon() -> None:
    now = [0.0]
    tokens = Tokens(TOKEN, clock=lambda: now[0])
    first, late = tokens.code(), tokens.code()
    given = tokens.exchange(first)
    assert given is not None and tokens.allows(given.encode()) and given != TOKEN
    assert tokens.exchange(first) is None and not tokens.allows(given.encode()), "two had the code: nobody stays"
    now[0] = CODE_SECONDS
    assert tokens.exchange(late) is None and tokens.exchange("") is None and tokens.exchange("none") is None
    assert tokens.allows(TOKEN.encode()) and not tokens.allows(b"")


def test_a_code_is_exchanged_by_the_page_itself_alone(repo: llmcrdt.Repo) -> None:
    tokens = Tokens(TOKEN)
    app = PageApp(repo, link=None, models={}, stopping=lambda: False)
    guarded = OnlyWithToken(app.routes(), tokens, ["127.0.0.1:80", "127.0.0.1"])
    code = {"Authorization": f"Code {tokens.code()}"}
    with TestClient(guarded, base_url="http://127.0.0.1", raise_server_exceptions=False) as client:  # type: ignore[arg-type]
        assert client.post("/api/token", headers={**code, "Origin": "https://evil.example"}).status_code == 403
        assert client.post("/api/token", headers={**code, "Host": "evil.example"}).status_code == 421
        assert client.get("/api/token", headers=code).status_code == 405
        assert client.post("/api/token", headers=BEARER).status_code == 401
        assert client.get("/api/library", headers=code).status_code == 401
        bearer = {"Authorization": f"Bearer {client.post('/api/token', headers=code).json()['token']}"}
        assert client.get("/api/library", headers=bearer).status_code == 200
        refused = client.post("/api/token", headers=code)
        assert refused.status_code == 401 and "llmcrdt open" in refused.json()["hint"]
        assert client.get("/api/library", headers=bearer).status_code == 401


def test_every_answer_forbids_what_comes_from_elsewhere(client: TestClient) -> None:
    for path, status in [("/", 200), ("/static/app.js", 200), ("/api/library", 200), ("/api/none", 404)]:
        answer = client.get(path)
        assert answer.status_code == status
        policy = answer.headers["content-security-policy"]
        assert "default-src 'none'" in policy and "unsafe" not in policy
        assert answer.headers["x-content-type-options"] == "nosniff"
        assert answer.headers["cache-control"] == "no-store"
    html = client.get("/").text
    assert "http:" not in html and "https:" not in html and "<style" not in html and "onclick" not in html


def do(client: TestClient, id: str, action: str, **given: object) -> Any:
    answer = client.post(f"/api/conversations/{id}/{action}", json=given)
    assert answer.status_code == 200, answer.text
    return answer.json()


def test_a_conversation_is_written_edited_walked_erased_and_deleted(client: TestClient, repo: llmcrdt.Repo) -> None:
    id = client.post("/api/conversations", json={}).json()["id"]
    entry = do(client, id, "say", text="Where to in May?", ask=False)["entry"]
    assert repo.get(id).title == "Where to in May?", "its first words are its title"
    edited = do(client, id, "edit", entry=entry, text="Where to in June?", ask=False)["entry"]
    turns = client.get(f"/api/conversations/{id}").json()["turns"]
    assert [turn["parts"][0]["text"] for turn in turns] == ["Where to in June?"]
    assert turns[0]["alternatives"] == [entry, edited] and turns[0]["place"] == 1
    do(client, id, "select", entry=entry)
    assert repo.get(id).transcript()[0].text == "Where to in May?"
    fork = do(client, id, "fork", entry=entry)["conversation"]
    assert client.get(f"/api/conversations/{fork}").json()["forked_from"] == id
    do(client, fork, "say", text="Said in the fork", ask=False)
    assert do(client, fork, "adopt")["conversation"] == id
    assert repo.get(id).transcript()[-1].text == "Said in the fork"
    erased = do(client, id, "erase", entry=entry)
    assert entry in erased["erased"] and {held["kind"] for held in erased["still_held"]} >= {"copy"}
    also = [held for held in erased["still_held"] if held["kind"] == "copy"]
    do(client, id, "erase", entry=entry, also=also)
    assert repo.get(fork).entry(entry).status == "erased"
    do(client, id, "rename", title="Trips")
    do(client, id, "archive")
    rows = {row["id"]: row for row in client.get("/api/library").json()["conversations"]}
    assert rows[id]["title"] == "Trips" and rows[id]["archived"]
    do(client, id, "delete")
    assert client.get(f"/api/conversations/{id}").status_code == 404


def test_an_ask_waits_and_is_taken_back(client: TestClient, repo: llmcrdt.Repo) -> None:
    conversation = repo.create()
    ask = do(client, conversation.id, "say", text="Anybody there?")["ask"]
    assert ask["state"] == "waiting"
    shown = client.get(f"/api/conversations/{conversation.id}").json()
    assert [each["id"] for each in shown["asks"]] == [ask["id"]]
    do(client, conversation.id, "stop", ask=ask["id"])
    assert conversation.asks()[0].state == "stopped"
    assert client.get(f"/api/conversations/{conversation.id}").json()["asks"] == []


def test_details_tell_the_frame_and_whether_hidden_fields_hold(client: TestClient, repo: llmcrdt.Repo) -> None:
    conversation = repo.create()
    conversation.append("user", "Where to?")
    answer = conversation.append(
        "assistant",
        "To Rome.",
        frame=conversation.transcript(),
        hidden={
            "good": HiddenField(b"abc!", {"provider": "p", "model": "m"}),
            "old": HiddenField(b"1", {"provider": "p", "expires": 1}),
        },
    )
    detail = do(client, conversation.id, "detail", entry=answer.id)
    assert [each["words"] for each in detail["frame"]["entries"]] == ["Where to?"]
    fields = {field["name"]: field for field in detail["hidden"]}
    assert fields["good"]["holds"] and fields["good"]["size"] == 4
    assert not fields["old"]["holds"] and fields["old"]["why"] == "it has expired"
    assert "abc!" not in json.dumps(client.get(f"/api/conversations/{conversation.id}").json())


def test_the_tree_holds_all_branches(client: TestClient, repo: llmcrdt.Repo) -> None:
    conversation = repo.create()
    first = conversation.append("user", "One")
    conversation.edit(first, "Two")
    tree = client.get(f"/api/conversations/{conversation.id}/tree").json()
    assert {(node["words"], node["shown"]) for node in tree["nodes"]} == {("One", False), ("Two", True)}
    other = client.get(f"/api/conversations/{conversation.id}/elsewhere").json()
    assert other["of"] == 1 and other["entries"][0]["id"] == first.id


def test_an_attachment_is_sent_and_shown_as_what_it_is(client: TestClient, repo: llmcrdt.Repo) -> None:
    conversation = repo.create()
    path = f"/api/conversations/{conversation.id}/attach?name=x.svg&text=Look"
    client.post(path, content=b"<svg onload='alert(1)'/>", headers={"Content-Type": "image/svg+xml"})
    entry = conversation.transcript()[0]
    assert entry.parts[0] == Text("Look")
    shown = client.get(f"/api/conversations/{conversation.id}").json()["turns"][0]["parts"][1]
    assert shown["name"] == "x.svg" and shown["here"] and not shown["picture"], "an SVG may hold a script"
    answer = client.get(f"/api/blobs/{shown['hash']}?type=image/svg%2Bxml")
    assert answer.content.startswith(b"<svg") and answer.headers["content-type"] == "application/octet-stream"
    assert client.get("/api/blobs/" + "0" * 64).status_code == 404
    assert client.get("/api/blobs/..%2F..%2Fetc%2Fpasswd").status_code == 404


def test_an_attachment_that_is_not_here_is_fetched(client: TestClient, repo: llmcrdt.Repo) -> None:
    conversation = repo.create()
    entry = conversation.append("user", [llmcrdt.Blob(b"content")])
    (blob,) = entry.parts
    assert isinstance(blob, llmcrdt.Blob) and blob.path is not None
    assert do(client, conversation.id, "fetch", hash=blob.hash) == {"here": True, "done": 7, "size": 7}
    blob.path.unlink()
    path = f"/api/conversations/{conversation.id}/fetch"
    refused = client.post(path, json={"hash": blob.hash})
    assert refused.status_code == 502 and "no link" in refused.json()["error"]
    assert client.post(path, json={"hash": "../../etc/passwd"}).status_code == 400


@pytest.mark.parametrize(
    "body", ["", "[]", "{", '{"entry": 5, "text": 5, "title": []}', '{"entry": "none", "also": 3}']
)
def test_a_bad_request_is_refused_with_words_and_changes_nothing(
    client: TestClient, repo: llmcrdt.Repo, body: str
) -> None:
    conversation = repo.create(title="Kept")
    conversation.append("user", "Hello")
    before = conversation.transcript().hash
    for action in sorted(ACTIONS.keys() - {"ask", "archive", "delete", "typing"}):
        answer = client.post(f"/api/conversations/{conversation.id}/{action}", content=body)
        assert answer.status_code in (400, 404), (action, answer.text)
        assert answer.json()["error"], action
    assert conversation.transcript().hash == before and conversation.title == "Kept"


def test_names_that_are_not_there_are_told(client: TestClient, repo: llmcrdt.Repo) -> None:
    id = repo.create().id
    assert client.post(f"/api/conversations/{id}/dance", json={}).status_code == 404
    assert client.get("/api/conversations/none").status_code == 404
    assert client.get(f"/api/conversations/{id}?last=many").status_code == 400
    assert client.get(f"/api/conversations/{id}?before=none").status_code == 404
    assert client.post("/api/conversations", json={"title": 5}).status_code == 400
    assert client.get("/static/../app.py").status_code == 404


async def _lines(repo: llmcrdt.Repo, count: int, between: Callable[[], object]) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = []
    async for line in library_changes(repo, None, lambda: len(found) >= count):
        value = json.loads(line)
        if value["type"] != "alive":
            found.append(value)
            if len(found) == 2:
                between()
    return found


def test_the_library_is_told_when_it_changes(repo: llmcrdt.Repo) -> None:
    import asyncio

    found = asyncio.run(_lines(repo, 3, lambda: repo.create(title="New")))
    assert [each["type"] for each in found] == ["library", "link", "library"]
    assert found[0]["conversations"] == [] and found[2]["conversations"][0]["title"] == "New"
    assert link_json(None) == {"state": "none"}
