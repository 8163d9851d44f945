"""Bad requests get an error in the shape of their API, say nothing in any conversation, and harm nobody else."""

from __future__ import annotations

import json
import socket
import threading
import time
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest

import llmcrdt
from llmcrdt.exceptions import InvalidContent
from llmcrdt.serve.http.keys import Caller, Keys, read_keys
from llmcrdt.serve.http.server import HttpServer, address

from .conftest import ALICE, Served, user

CHAT, MESSAGES, RESPONSES = "/v1/chat/completions", "/v1/messages", "/v1/responses"
GOOD: dict[str, dict[str, Any]] = {
    CHAT: {"model": "tiny", "messages": [user("x")], "max_tokens": 2},
    MESSAGES: {"model": "tiny", "messages": [user("x")], "max_tokens": 2},
    RESPONSES: {"model": "tiny", "input": "x", "max_output_tokens": 2},
}


def shaped(path: str, error: Any) -> str:
    """The words of an error, which has the shape of its API."""
    if path.startswith(MESSAGES):
        assert error["type"] == "error" and set(error["error"]) == {"type", "message"} and error["request_id"]
    else:
        assert set(error) == {"error"} and set(error["error"]) == {"message", "type", "param", "code"}
    assert isinstance(error["error"]["message"], str) and error["error"]["message"]
    return str(error["error"]["message"])


PICTURE = {"type": "image_url", "image_url": {"url": "data:image/png;base64,AAAA"}}
BAD: list[tuple[str, dict[str, Any], int, str]] = [
    (CHAT, {"model": None}, 400, "model"),
    (CHAT, {"model": 7}, 400, "model"),
    (CHAT, {"model": "gpt-9"}, 404, "does not exist"),
    (CHAT, {"messages": None}, 400, "messages"),
    (CHAT, {"messages": []}, 400, "messages"),
    (CHAT, {"messages": "hi"}, 400, "messages"),
    (CHAT, {"messages": [None]}, 400, "messages[0]"),
    (CHAT, {"messages": [{"role": "user", "content": None}]}, 400, "messages[0].content"),
    (CHAT, {"messages": [{"role": "wizard", "content": "x"}]}, 400, "messages[0].role"),
    (CHAT, {"messages": [{"role": "user", "content": [PICTURE]}]}, 400, "image_url"),
    (CHAT, {"messages": [user("x"), {"role": "tool", "tool_call_id": "c", "content": "y"}]}, 400, "tool_call_id"),
    (CHAT, {"messages": [{"role": "system", "content": ""}]}, 400, "No message says anything"),
    (CHAT, {"n": 2}, 400, "n:"),
    (CHAT, {"max_tokens": 0}, 400, "max_tokens"),
    (CHAT, {"max_tokens": "many"}, 400, "max_tokens"),
    (CHAT, {"max_tokens": 1e400}, 400, ""),
    (CHAT, {"temperature": -1}, 400, "temperature"),
    (CHAT, {"temperature": True}, 400, "temperature"),
    (CHAT, {"stream": "yes"}, 400, "stream"),
    (CHAT, {"stream_options": {"include_usage": True}}, 400, "stream_options"),
    (CHAT, {"stop": [1]}, 400, "stop"),
    (CHAT, {"logit_bias": {"a": 1}}, 400, "logit_bias"),
    (CHAT, {"logit_bias": {"999999999": 1}}, 400, ""),
    (CHAT, {"top_logprobs": 3}, 400, "top_logprobs"),
    (CHAT, {"colour": "red"}, 400, "colour"),
    (CHAT, {"audio": {}}, 400, "audio"),
    (CHAT, {"tools": [{"type": "web_search"}], "tool_choice": "auto"}, 400, ""),
    (CHAT, {"tools": [{"type": "function"}]}, 400, "tools"),
    (CHAT, {"tool_choice": "required"}, 400, "tool_choice"),
    (CHAT, {"response_format": {"type": "yaml"}}, 400, "response_format"),
    (CHAT, {"response_format": {"type": "json_schema", "json_schema": {}}}, 400, "schema"),
    (CHAT, {"response_format": {"type": "json_schema", "json_schema": {"schema": {"type": 7}}}}, 400, ""),
    (CHAT, {"grammar": "root ::= ("}, 400, ""),
    (CHAT, {"metadata": {"llmcrdt_conversation": 7}}, 400, "metadata"),
    (CHAT, {"messages": [user("word " * 3000)]}, 400, "context"),
    (MESSAGES, {"max_tokens": None}, 400, "max_tokens"),
    (MESSAGES, {"model": "claude"}, 404, "does not exist"),
    (MESSAGES, {"messages": [user("x"), {"role": "assistant", "content": "y"}]}, 400, "last message"),
    (MESSAGES, {"messages": [{"role": "user", "content": [{"type": "image", "source": {}}]}]}, 400, "image"),
    (MESSAGES, {"system": 7}, 400, "system"),
    (MESSAGES, {"top_p": 2}, 400, "top_p"),
    (MESSAGES, {"tool_choice": {"type": "tool", "name": "absent"}}, 400, "absent"),
    (MESSAGES, {"thread": {"type": "create"}}, 400, "thread: Extra inputs are not permitted"),
    (MESSAGES + "/count_tokens", {"messages": 7}, 400, "messages"),
    (RESPONSES, {"input": None}, 400, "input"),
    (RESPONSES, {"input": [{"type": "item_reference", "id": "x"}]}, 404, "Item with id 'x' not found"),
    (RESPONSES, {"input": [{"type": "item_reference"}]}, 404, "not found"),
    (RESPONSES, {"previous_response_id": "resp_1"}, 404, "not found"),
    (RESPONSES, {"previous_response_id": "resp_x", "conversation": "y"}, 400, "previous_response_id or conversation"),
    (RESPONSES, {"conversation": "conv_nobody"}, 404, "no conversation"),
    (RESPONSES, {"background": True, "store": False}, 400, "background"),
    (RESPONSES, {"truncation": "auto"}, 400, "truncation"),
    (RESPONSES, {"include": ["file_search_call.results"]}, 400, "include"),
    (RESPONSES, {"colour": "red"}, 400, "Unknown parameter: 'colour'."),
]


def test_bad_members_are_told_by_name_and_nothing_of_them_is_kept(served: Served) -> None:
    before = [(row.id, served.repo.get(row.id).version()) for row in served.repo.list(1000)]
    for path, change, expected, words in BAD:
        good = GOOD[MESSAGES if path.startswith(MESSAGES) else path]
        body = {key: value for key, value in {**good, **change}.items() if value is not None or key in change}
        if path.endswith("count_tokens"):
            del body["max_tokens"]
        status, error, headers = served.send("POST", path, body)
        assert (status, headers["content-type"]) == (expected, "application/json"), (path, change, error)
        assert words in shaped(path, error), (path, change, error)
        assert "Traceback" not in json.dumps(error)
    after = [(row.id, served.repo.get(row.id).version()) for row in served.repo.list(1000)]
    assert {id for id, _ in after} - {id for id, _ in before} <= _only_questions(served, before, after)
    for path, body in GOOD.items():
        assert served.send("POST", path, body)[0] == 200, "others are answered as before"


def _only_questions(served: Served, before: Any, after: Any) -> set[str]:
    """New conversations that hold a question alone: whoever asked sees the error, and may ask again."""
    new = {id for id, _ in after} - {id for id, _ in before}
    return {id for id in new if all(entry.role in ("user", "system") for entry in served.repo.get(id).transcript())}


@pytest.mark.parametrize("path", GOOD)
@pytest.mark.parametrize(
    "body",
    [b"", b"{", b"[]", b"null", b'{"model": "tiny", "model": "tiny"}', b"\xff\xfe", b"[" * 100_000, b'{"a": NaN}'],
    ids=["empty", "half", "a list", "null", "twice", "no UTF-8", "deep", "NaN"],
)
def test_what_is_no_json_object_is_refused(served: Served, path: str, body: bytes) -> None:
    status, error, _ = served.send("POST", path, body)
    assert status == 400 and shaped(path, error)


def test_deep_values_inside_are_refused_too(served: Served) -> None:
    deep = json.loads("[" * 90 + "]" * 90)
    for path, good in GOOD.items():
        body = {**good, "tools": [{"type": "function", "name": "f", "parameters": {"a": [[deep]]}, "x": deep}]}
        status, error, _ = served.send("POST", path, body)
        assert status in (200, 400), error


@pytest.mark.parametrize("path", GOOD)
def test_a_body_that_is_too_large_is_refused(served: Served, path: str) -> None:
    status, error, _ = served.send("POST", path, b" " * ((1 << 20) + 1))
    assert status == 413 and shaped(path, error)
    connection = served.connection()
    connection.request("POST", path, iter([b" " * 65_536] * 17), {"content-type": "application/json"})
    answer = connection.getresponse()
    assert answer.status == 413 and shaped(path, json.loads(answer.read()))
    connection.close()


def test_a_body_of_another_kind_is_refused(served: Served) -> None:
    status, error, _ = served.send("POST", CHAT, b"a=b", {"content-type": "application/x-www-form-urlencoded"})
    assert status == 415 and shaped(CHAT, error)


@pytest.mark.parametrize("path", [CHAT, MESSAGES])
def test_a_body_that_never_comes_is_not_waited_for(served: Served, path: str) -> None:
    host, port = urlsplit(served.url).netloc.split(":")
    with socket.create_connection((host, int(port)), timeout=20) as plain:
        head = (
            f"POST {path} HTTP/1.1\r\nHost: {host}\r\nContent-Type: application/json\r\nContent-Length: 100\r\n\r\n{{"
        )
        plain.sendall(head.encode())
        assert plain.recv(4096).startswith(b"HTTP/1.1 408")


def test_a_connection_on_which_nothing_comes_is_closed(served: Served) -> None:
    host, port = urlsplit(served.url).netloc.split(":")
    for head in (b"", b"POST /v1/messages HTTP/1.1\r\nHo"):
        with socket.create_connection((host, int(port)), timeout=20) as plain:
            plain.sendall(head)
            assert plain.recv(4096) == b""


def test_a_connection_that_asks_again_and_again_is_kept(served: Served) -> None:
    connection = served.connection()
    until, sockets = time.monotonic() + 1.9, set()
    while time.monotonic() < until:
        connection.request("GET", "/v1/models")
        assert connection.getresponse().read()
        sockets.add(id(connection.sock))
        time.sleep(0.02)
    connection.request("GET", "/v1/models")
    connection.getresponse().read()
    assert len(sockets) == 1
    # The rest of the head of another request never comes.
    connection.sock.sendall(b"GET /v1/models HT")
    assert connection.sock.recv(4096) == b""
    connection.close()


def test_every_path_is_described(served: Served) -> None:
    status, told, _ = served.send("GET", "/openapi.json")
    assert status == 200 and told["openapi"].startswith("3.")
    described = {(path.replace("{id}", "x"), method) for path, each in told["paths"].items() for method in each}
    for path, method in described:
        status, _, _ = served.send(method.upper(), path, b"{}" if method == "post" else None)
        assert status in (200, 400, 404), (path, method)
        status, error, headers = served.send("PATCH", path)
        assert status == 405 and shaped(path, error) and method.upper() in headers["allow"]
    paths = {path.replace("{model:path}", "{id}") for path in _routes(served)}
    assert {path for path, _ in described} | {"/openapi.json"} == {path.replace("{id}", "x") for path in paths}


def _routes(served: Served) -> list[str]:
    return [route.path for route in served.server._server.config.app.routes]


@pytest.mark.parametrize(
    ("method", "path", "status"),
    [
        ("GET", "/", 404),
        ("GET", "/v1/nothing", 404),
        ("GET", CHAT, 405),
        ("PUT", MESSAGES, 405),
        ("GET", MESSAGES, 405),
    ],
)
def test_unknown_paths_and_methods(served: Served, method: str, path: str, status: int) -> None:
    found, error, _ = served.send(method, path)
    assert found == status and shaped(path, error)


@pytest.mark.parametrize("id", ["x", "resp_", "resp_a_b", "resp_" + "1" * 500, "resp_..%2F.._x"])
def test_unknown_responses(served: Served, id: str) -> None:
    for method, more in (("GET", ""), ("DELETE", ""), ("POST", "/cancel"), ("GET", "/input_items")):
        status, error, _ = served.send(method, f"{RESPONSES}/{id}{more}")
        assert status == 404 and shaped(RESPONSES, error), (method, more)


def test_a_flood_is_told_to_come_again_and_the_others_are_answered(served: Served) -> None:
    found: list[tuple[int, Any]] = []

    def ask(number: int) -> None:
        body = {"model": "endless/tiny", "messages": [user(f"Flood {number}")], "max_tokens": 60}
        status, answer, _ = served.send("POST", CHAT, body)
        found.append((status, answer))

    threads = [threading.Thread(target=ask, args=[number]) for number in range(24)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert {status for status, _ in found} == {200, 429}
    assert sum(status == 200 for status, _ in found) >= 8
    assert all(shaped(CHAT, error) for status, error in found if status == 429)
    deadline = time.monotonic() + 20
    while served.send("POST", CHAT, GOOD[CHAT])[0] != 200:
        assert time.monotonic() < deadline


# keys, hosts, origins


def test_only_a_key_lets_in(guarded: Served) -> None:
    for path, headers in ((CHAT, {}), (MESSAGES, {"x-api-key": "wrong"}), ("/v1/models", {"Authorization": "Basic x"})):
        status, error, sent = guarded.send("GET" if "models" in path else "POST", path, None, headers)
        assert status == 401 and shaped(path, error) and sent["www-authenticate"] == "Bearer"
    for headers in ({"Authorization": f"Bearer {ALICE}"}, {"x-api-key": ALICE}, {"Authorization": f"bearer  {ALICE}"}):
        assert guarded.send("GET", "/v1/models", None, headers)[0] == 200


def test_another_name_than_this_machines_is_refused_where_no_key_is_asked(served: Served, guarded: Served) -> None:
    status, error, _ = served.send("GET", "/v1/models", None, {"Host": "evil.example"})
    assert status == 403 and shaped(CHAT, error)
    assert served.send("GET", "/v1/models", None, {"Host": "localhost:99"})[0] == 200
    named = {"Host": "llm.example", "x-api-key": ALICE}
    assert guarded.send("GET", "/v1/models", None, named)[0] == 200


def test_pages_in_a_browser_ask_only_where_they_may(served: Served, guarded: Served) -> None:
    for origin in ("https://evil.example", "null"):
        status, error, sent = served.send("POST", CHAT, GOOD[CHAT], {"Origin": origin})
        assert status == 403 and shaped(CHAT, error) and sent["access-control-allow-origin"] is None
    mine = {"Origin": "https://app.example"}
    status, _, sent = guarded.send("OPTIONS", CHAT, None, {**mine, "Access-Control-Request-Headers": "x-api-key"})
    assert status == 204 and sent["access-control-allow-headers"] == "x-api-key"
    status, _, sent = guarded.send("GET", "/v1/models", None, {**mine, "x-api-key": ALICE})
    assert status == 200 and sent["access-control-allow-origin"] == "https://app.example"


def test_a_key_sees_no_response_of_another_one(guarded: Served) -> None:
    alice, bob = {"x-api-key": ALICE}, {"x-api-key": "bob-has-that-key-"}
    _, response, _ = guarded.send("POST", RESPONSES, GOOD[RESPONSES], alice)
    path = f"{RESPONSES}/{response['id']}"
    assert guarded.send("GET", path, None, alice)[0] == 200
    for method, more in (("GET", ""), ("DELETE", ""), ("POST", "/cancel"), ("GET", "/input_items")):
        assert guarded.send(method, path + more, None, bob)[0] == 404
    body = {**GOOD[RESPONSES], "previous_response_id": response["id"]}
    assert guarded.send("POST", RESPONSES, body, bob)[0] == 404


def test_without_a_key_nothing_listens_beyond_this_machine(served: Served) -> None:
    models = {"tiny": served.engine}
    for host in ("0.0.0.0", "::", "192.0.2.1", "example.com"):
        with pytest.raises(InvalidContent, match="Without a key"):
            HttpServer(served.repo, models, host=host)
    with pytest.raises(InvalidContent, match="a model at least"):
        HttpServer(served.repo, {})
    with pytest.raises(InvalidContent, match="Nothing can listen"):
        HttpServer(served.repo, models, port=int(served.url.rsplit(":", 1)[1]))


def test_keys_are_read_from_a_file_and_the_environment(tmp_path: Path) -> None:
    file = tmp_path / "keys"
    file.write_text(f"# ours\n\nalice {ALICE}\nsomebody-elses-key  # no name\n")
    keys = read_keys(file, {"LLMCRDT_HTTP_KEY": "from-the-environment"})
    assert keys.caller(ALICE) == Caller("alice", only_own=True)
    assert keys.caller("somebody-elses-key") == keys.caller("from-the-environment") == Caller()
    assert keys.caller("x") is None and keys.caller(None) is None and keys.caller("") is None
    assert Keys().caller(None) == Caller()
    for text in ("short", "a b c", "bad/name and-a-long-enough-key", "# nothing"):
        file.write_text(text)
        with pytest.raises(InvalidContent):
            read_keys(file, {})
    with pytest.raises(InvalidContent, match="can't be read"):
        read_keys(tmp_path / "absent", {})


def test_addresses() -> None:
    assert address("8080") == ("127.0.0.1", 8080) and address("[::1]:1") == ("::1", 1)
    assert address("0.0.0.0:80") == ("0.0.0.0", 80)
    for wrong in ("", "x", "1:2:x", ":80", "70000"):
        with pytest.raises(InvalidContent):
            address(wrong)


def test_a_server_that_ends_keeps_what_was_said(tmp_path: Path, endless: llmcrdt.LlamaEngine) -> None:
    with llmcrdt.open(tmp_path / "x.db") as repo:
        with HttpServer(repo, {"tiny": endless}) as server:
            here = Served(server, repo, endless)
            connection = here.connection()
            body = {"model": "tiny", "messages": [user("Until the end")], "max_tokens": 1500, "stream": True}
            connection.request("POST", CHAT, json.dumps(body), {"content-type": "application/json"})
            response = connection.getresponse()
            response.read(500)
        connection.close()
        (row,) = repo.list()
        question, answer = repo.get(row.id).transcript()
        assert question.text == "Until the end" and answer.status == "stopped" and answer.text
