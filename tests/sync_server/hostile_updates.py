"""Bytes that made a CRDT core panic, go wrong without a word, or eat memory (yrs 0.28), by name."""

from __future__ import annotations

from collections.abc import Mapping

from ..crdt.yjs.hostile_nesting import deep, delete_all

GOOD = bytes.fromhex("01020700040101740161440700016200")
"""The text "ba" in the root "t", by client 7."""

_DEEP = deep(100_000)

UPDATES: Mapping[str, bytes] = {
    "A: a start clock near 2^32": bytes.fromhex("010207feffffff0f040101740161440700016200"),
    "B: applies, then good updates panic": bytes.fromhex("010107ffffffff0f04010174016100"),
    "C: a start clock of 2^31": bytes.fromhex("0102078080808008040101740161440700016200"),
    "C2: a start clock of 2^31-1": bytes.fromhex("010207ffffffff07040101740161440700016200"),
    "bad-0": bytes.fromhex(
        "011207c680808dff00070101610128000700026964017701302700070001630204000702036865790401017402780181070001000584070702"
        "783187070801280007100269640177013227000710016302040007120368657984070f02783287071001280007180269640177013327000718"
        "0163020400071a036865798407170278330107010806"
    ),
    "bad-1": bytes.fromhex(
        "011207ffedff80ff00070101610128000700026964017701302700070001630204000702036865790401017402783081070001000584070702"
        "783187070801280007100269640177013227000710016302040007120368657984070f02783287071001280007180269640177013327000718"
        "0163020400071a036865798407170278330107010806"
    ),
    "bad-2": bytes.fromhex(
        "011207ffffffffff80ff8080000701016101280007000269640177013027000700016302040007020368657904010174027830810700010005"
        "84070702783187070801280007100269640177013227000710016302040007120368657984070f027832870710012800071802696401770133"
        "2700071801630204000"
        "71a036865798407170278330107010806"
    ),
    "bad-3": bytes.fromhex(
        "011207f4ffff97ff80800007010161012800070002696401770130270007000163020400070203686579040101740278308107000100058407"
        "0702783187070801280007"
        "7f0269640177013227000710016302040007120368657984070f0278328707100128000718026964017701332700071801630204000"
        "71a036865798407170278330107010806"
    ),
    "a count of 155 million": bytes.fromhex("ffff804a"),
    "a count of ten million": bytes.fromhex("80ade204"),
    "a truncated update": bytes.fromhex("010101"),
    "bytes that are none": b"no update",
    "a hundred thousand maps inside each other": _DEEP,
    "the same, and a delete of the first": _DEEP[:-1] + delete_all()[1:],
}

STATE_VECTORS: Mapping[str, bytes] = {
    "a count of 155 million": bytes.fromhex("ffff804a"),
    "bytes that are none": bytes.fromhex("ffffffffff"),
}

FRAMES: Mapping[str, bytes] = {
    "an empty one": b"",
    "an unknown type": bytes.fromhex("6301"),
    "a truncated one": bytes.fromhex("00"),
    "an unknown step": bytes.fromhex("000300"),
    "a length above what is there": bytes.fromhex("000205aa"),
    "awareness with broken JSON": bytes.fromhex("01060101010 37b7b7b".replace(" ", "")),
    "awareness that is no object": bytes.fromhex("0105010101 0131".replace(" ", "")),
    "bytes left over": bytes.fromhex("0301"),
    "an auth message": bytes.fromhex("020000"),
    "a number of nine bytes": b"\x00\x02" + b"\xff" * 9,
}
