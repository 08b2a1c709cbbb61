from __future__ import annotations

import typing

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lifelong.collector.config import MaskKind
from lifelong.collector.mask import Masker

ALL = typing.get_args(MaskKind)

# Put together here, so that no scanner of repositories takes them for real ones.
AWS = "AKIA" + "IOSFODNN7EXAMPLE"
GITHUB = "ghp_" + "a1B2" * 9
JWT = "eyJ" + "hbGciOiJIUzI1NiJ9" + ".eyJ" + "zdWIiOiIxMjM0NTY3ODkwIn0" + ".dozjgNryP4J3jVmNHl0w5N_XgL0n3I9PlFUP0THsR8U"
KEY = "-----BEGIN RSA PRIVATE KEY-----\nMIIEpAIBAAKCAQEA7\nq1w2e3r4\n-----END RSA PRIVATE KEY-----"


@pytest.mark.parametrize(
    ("text", "masked"),
    [
        ("write to ada.lovelace+x@mail.example.co.uk now", "write to [EMAIL] now"),
        ("<ada@example.com>", "<[EMAIL]>"),
        ("почта иван@пример.рф", "почта [EMAIL]"),
        ("call +49 30 901820 today", "call [PHONE] today"),
        ("(030) 901 82 00", "[PHONE]"),
        ("415-555-2671", "[PHONE]"),
        ("0171 123 4567.", "[PHONE]."),
        ("card 4111 1111 1111 1111, 12/27", "card [CARD], 12/27"),
        ("5500-0000-0000-0004", "[CARD]"),
        ("378282246310005", "[CARD]"),
        ("IBAN DE89 3704 0044 0532 0130 00 BIC", "IBAN [IBAN] BIC"),
        ("GB82WEST12345698765432", "[IBAN]"),
        ("from 93.184.216.34 at noon", "from [IP] at noon"),
        ("2606:2800:220:1:248:1893:25c8:1946", "[IP]"),
        (f"id {AWS} key", "id [SECRET] key"),
        (f"token: {GITHUB}", "token: [SECRET]"),
        (f"Bearer {JWT}", "Bearer [SECRET]"),
        (KEY, "[SECRET]"),
        ("postgres://ada:hunter2@db/x", "postgres://[SECRET]@db/x"),
        ('api_key = "x7Gq2pLm9Zt4Rw8Bv3Nc"', 'api_key = "[SECRET]"'),
    ],
)
def test_masked(text: str, masked: str) -> None:
    assert Masker(ALL).mask(text) == masked


@pytest.mark.parametrize(
    "text",
    [
        "meet @ada at 5",
        "a@b",
        "version 1.2.3.4 of it",
        "v10.4.5.1",
        "127.0.0.1 and 192.168.0.10 and ::1",
        "999.999.999.999",
        "at 12:30:45 on 2024-05-06",
        "2024-05-06T07:08:09",
        "ISBN 978-3-16-148410-0",
        "4111 1111 1111 1112",
        "order 1234567890123456",
        "0000 0000 0000 0000",
        "pi is 3.14159265358979",
        "3.1415926535897932384",
        "populations: 1000000 2000000",
        "DE00 3704 0044 0532 0130 00",
        "The token is a string of characters",
        "password: correct-horse-battery-staple",
        "secret = configuration_value_name_here",
        "the 5 GHz band, 802.11ac",
        "std::vector::iterator a::b",
        "https://example.com:8080/path",
        "10.1000/182",
        "page 1-2-3",
        "commit 0fcdec6",
        "SK-II is a brand",
    ],
)
def test_what_only_looks_like_it_stays(text: str) -> None:
    assert Masker(ALL).mask(text) == text


def test_only_what_was_asked_for_and_each_is_counted() -> None:
    masker = Masker(["card"])
    assert masker.mask("ada@example.com 4111111111111111 5500000000000004") == "ada@example.com [CARD] [CARD]"
    assert masker.counts == {"card": 2}
    assert Masker([]).mask("4111111111111111") == "4111111111111111"


@given(
    st.text(st.sampled_from(list("0123456789 -+().:@/=ABCDEFabcdef_\n")) | st.characters(codec="utf-8"), max_size=200)
)
def test_masking_is_final(text: str) -> None:
    """No text raises, and what is masked holds nothing more to mask."""
    masker = Masker(ALL)
    once = masker.mask(text)
    masker.counts.clear()
    masker.mask(once)
    assert masker.counts.total() == 0


@pytest.mark.parametrize(
    "piece", ["1 ", "1-", "a.", "a@", "+1 ", "A1", "sk-", "eyJ", "::", "token ", "-----BEGIN ", "(0"]
)
def test_no_quadratic_time(piece: str) -> None:
    Masker(ALL).mask(piece * (300_000 // len(piece)))
