"""The relay over TLS: who trusts its certificate gets in, who doesn't is told, and a new certificate is taken up."""

from __future__ import annotations

import datetime
import os
import socket
import ssl
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest
import trustme
from cryptography import x509

import llmcrdt
from llmcrdt.cli import main as sync_command
from llmcrdt.exceptions import RelayUnreachable
from sync_server.__main__ import ARGUMENTS, main
from sync_server.net.tls import Certificate
from sync_server.thread import RelayThread

from ...waiting import eventually

OpenRepo = Callable[..., llmcrdt.Repo]


class Authority:
    """A certificate authority of the test, and what it issued last."""

    def __init__(self, folder: Path) -> None:
        self.authority = trustme.CA()
        self.trusted, self.chain, self.key = folder / "ca.pem", folder / "chain.pem", folder / "key.pem"
        self.authority.cert_pem.write_to_path(self.trusted)
        self.issue()

    def issue(self) -> int:
        """Put another certificate in place; its serial number."""
        issued = self.authority.issue_cert("127.0.0.1", "localhost")
        self.key.write_bytes(issued.private_key_pem.bytes())
        self.chain.write_bytes(b"".join(pem.bytes() for pem in issued.cert_chain_pems))
        return x509.load_pem_x509_certificate(self.chain.read_bytes()).serial_number


@pytest.fixture
def authority(tmp_path: Path) -> Authority:
    return Authority(tmp_path)


def serial(port: int, trusted: Path) -> int:
    """The serial number of the certificate that a server shows."""
    context = ssl.create_default_context(cafile=str(trusted))
    with (
        socket.create_connection(("127.0.0.1", port), 10) as plain,
        context.wrap_socket(plain, server_hostname="localhost") as wrapped,
    ):
        shown = wrapped.getpeercert()
    assert shown is not None
    return int(str(shown["serialNumber"]), 16)


def test_two_devices_meet_over_tls(open_repo: OpenRepo, authority: Authority, tmp_path: Path) -> None:
    with RelayThread(tmp_path / "relay", certificate=Certificate(authority.chain, authority.key)) as relay:
        assert relay.url.startswith("wss://")
        laptop = open_repo("laptop")
        conversation = laptop.create()
        conversation.append("user", "x" * 200_000)
        phone = open_repo("phone", laptop.library)
        with laptop.connect(relay.url, tls=authority.trusted) as one:
            one.wait_synced(30)
        with phone.connect(relay.url, tls=ssl.create_default_context(cafile=str(authority.trusted))) as two:
            two.wait_synced(30)
        assert phone.get(conversation.id).transcript()[0].text == "x" * 200_000


def refusal(link: llmcrdt.Link) -> pytest.ExceptionInfo[RelayUnreachable]:
    """The error that one gets who waits for this link, once it has tried."""
    eventually(lambda: link.last_error)
    with pytest.raises(RelayUnreachable) as said:
        link.wait_synced(0.1)
    return said


def test_who_does_not_trust_it_is_told(open_repo: OpenRepo, authority: Authority, tmp_path: Path) -> None:
    with RelayThread(tmp_path / "relay", certificate=Certificate(authority.chain, authority.key)) as relay:
        repo = open_repo("laptop")
        with repo.connect(relay.url) as link:
            said = refusal(link)
        assert "does not pass" in said.value.message
        assert "--ca FILE" in said.value.hint and 'tls="ca.pem"' in said.value.hint
        plain = relay.url.replace("wss:", "ws:")
        with repo.connect(plain) as link:
            refusal(link)


PAST = datetime.datetime.now(datetime.UTC) - datetime.timedelta(days=2)


@pytest.mark.parametrize(
    ("name", "until", "hint"),
    [("relay.example", None, "name that the certificate is for"), ("127.0.0.1", PAST, "new certificate")],
    ids=["for another name", "expired"],
)
def test_a_certificate_that_is_wrong_in_itself_is_no_matter_of_trust(
    open_repo: OpenRepo, authority: Authority, tmp_path: Path, name: str, until: datetime.datetime | None, hint: str
) -> None:
    issued = authority.authority.issue_cert(name, not_after=until)
    authority.key.write_bytes(issued.private_key_pem.bytes())
    authority.chain.write_bytes(b"".join(pem.bytes() for pem in issued.cert_chain_pems))
    with (
        RelayThread(tmp_path / "relay", certificate=Certificate(authority.chain, authority.key)) as relay,
        open_repo("laptop").connect(relay.url, tls=authority.trusted) as link,
    ):
        said = refusal(link)
        assert "does not pass" in said.value.message
        assert hint in said.value.hint and "--ca" not in said.value.hint


def test_the_sync_command_says_what_to_do_and_no_more_than_is_true(
    authority: Authority, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    llmcrdt.open(tmp_path / "a.db").close()
    with RelayThread(tmp_path / "relay", certificate=Certificate(authority.chain, authority.key)) as relay:
        arguments = ["--db", str(tmp_path / "a.db"), "sync", relay.url, "--timeout", "5"]
        with pytest.raises(SystemExit) as ended:
            sync_command(arguments)
        said = capsys.readouterr().err
        assert ended.value.code == 1 and "certificate does not pass" in said and "--ca FILE" in said
        assert "goes on" not in said and "sync again" in said
        with pytest.raises(SystemExit) as ended:
            sync_command([*arguments, "--ca", str(authority.trusted)])
        assert ended.value.code == 0


def test_a_file_that_holds_no_certificates(open_repo: OpenRepo, tmp_path: Path) -> None:
    (tmp_path / "empty.pem").write_text("nothing")
    with pytest.raises(RelayUnreachable, match="holds no certificates"):
        open_repo("laptop").connect("wss://127.0.0.1:1", tls=tmp_path / "empty.pem")


def test_a_new_certificate_is_used_without_a_restart(authority: Authority, tmp_path: Path) -> None:
    with RelayThread(tmp_path / "relay", certificate=Certificate(authority.chain, authority.key)) as relay:
        before = serial(relay.port, authority.trusted)
        authority.chain.write_text("half")  # as a tool does that writes one file after the other
        time.sleep(0.7)
        assert serial(relay.port, authority.trusted) == before
        after = authority.issue()
        deadline = time.monotonic() + 30
        while serial(relay.port, authority.trusted) != after:
            assert time.monotonic() < deadline
            time.sleep(0.05)


@pytest.mark.parametrize("which", ["missing", "swapped"])
def test_a_certificate_that_can_t_be_used_is_said_at_once(
    authority: Authority, tmp_path: Path, capsys: pytest.CaptureFixture[str], which: str
) -> None:
    files = {"missing": (tmp_path / "no.pem", authority.key), "swapped": (authority.key, authority.chain)}[which]
    flags = ["--tls-cert", str(files[0]), "--tls-key", str(files[1])]
    assert main(["--data", str(tmp_path / "relay"), "--port", "0", *flags]) == ARGUMENTS
    assert "no certificate and its key" in capsys.readouterr().err


def test_flags_come_together(tmp_path: Path) -> None:
    with pytest.raises(SystemExit):
        main(["--data", str(tmp_path / "relay"), "--tls-key", "key.pem"])


def test_the_command_listens_with_tls(authority: Authority, tmp_path: Path) -> None:
    line = [sys.executable, "-m", "sync_server", "--data", str(tmp_path / "relay"), "--port", "0"]
    settings = {"LLMCRDT_RELAY_TLS_CERT": str(authority.chain), "LLMCRDT_RELAY_TLS_KEY": str(authority.key)}
    process = subprocess.Popen(line, env={**os.environ, **settings}, stdout=subprocess.PIPE, text=True)
    try:
        assert process.stdout is not None
        said = process.stdout.readline()
        assert said.startswith("listening on wss://127.0.0.1:")
        assert serial(int(said.rsplit(":", 1)[1]), authority.trusted)
    finally:
        process.terminate()
        process.wait(30)
        process.stdout.close()
