"""A few of the requests that `make http` asks for longer."""

from __future__ import annotations

import json
import random

import pytest

from . import fuzz
from .conftest import Served


@pytest.mark.parametrize("path", [*fuzz.GOOD, "/v1/messages/count_tokens"])
def test_a_bent_request_is_answered_or_refused_as_the_clients(served: Served, path: str) -> None:
    chance = random.Random(path)
    good = fuzz.GOOD["/v1/messages" if path.endswith("tokens") else path]
    for number in range(25):
        body = fuzz.bent(good, chance, 0.04 if number else 0)
        connection = served.connection()
        connection.request("POST", path, json.dumps(body), {"content-type": "application/json"})
        response = connection.getresponse()
        fuzz.check(path, response.status, response.headers["content-type"], response.read())
        connection.close()
        assert number or response.status == 200 or path.endswith("tokens")


def test_what_is_checked_is_seen() -> None:
    with pytest.raises(AssertionError):
        fuzz.check("/v1/responses", 500, "application/json", b"{}")
    for path, body in (("/v1/messages", b'{"error": {"message": "x"}}'), ("/v1/responses", b'{"type": "error"}')):
        with pytest.raises((AssertionError, KeyError)):
            fuzz.check(path, 400, "application/json", body)
