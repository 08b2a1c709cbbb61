"""Secrets and personal data replaced by what they were: [EMAIL], [CARD] …

Regular expressions with a check behind each, so that what only looks like one stays: cards must pass Luhn's test,
bank accounts ISO 7064's, addresses must be public ones, unnamed secrets must be random. The prefixes of keys are those
that their issuers publish, as gitleaks lists them (https://github.com/gitleaks/gitleaks). A text in which nobody
thought of hiding them loses nearly all; one written to hide them, in words or in pictures, does not.
"""

from __future__ import annotations

import ipaddress
import math
import re
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from functools import partial

from lifelong.collector.config import MaskKind

_PREFIXED_SECRET = re.compile(
    r"-----BEGIN [A-Z0-9 ]{0,40}PRIVATE KEY-----[^-]{1,20000}(?:-----END [A-Z0-9 ]{0,40}PRIVATE KEY-----)?"
    r"|\b(?:AKIA|ASIA|ABIA|ACCA)[A-Z2-7]{16}\b"  # Amazon
    r"|\bgh[pousr]_[A-Za-z0-9]{36,255}\b|\bgithub_pat_[A-Za-z0-9_]{22,255}\b"
    r"|\bglpat-[A-Za-z0-9_-]{20,64}"
    r"|\bsk-[A-Za-z0-9_-]{20,255}"  # OpenAI, Anthropic
    r"|\b[sr]k_(?:live|test)_[A-Za-z0-9]{16,255}\b"  # Stripe
    r"|\bxox[abeoprs]-[A-Za-z0-9-]{10,255}"  # Slack
    r"|\bAIza[A-Za-z0-9_-]{35}"  # Google
    r"|\bhf_[A-Za-z]{34}\b|\bnpm_[A-Za-z0-9]{36}\b|\bpypi-[A-Za-z0-9_-]{50,255}"
    r"|\bSG\.[A-Za-z0-9_-]{16,32}\.[A-Za-z0-9_-]{32,64}"  # SendGrid
    r"|\beyJ[A-Za-z0-9_-]{8,2000}\.eyJ[A-Za-z0-9_-]{8,4000}\.[A-Za-z0-9_-]{16,1000}"  # JSON Web Token
)
_URL_PASSWORD = re.compile(r"(?<=://)[^\s/:@]{1,128}:[^\s/@]{1,256}(?=@)")
_NAMED_SECRET = re.compile(
    r"(?i:api[_ -]?key|access[_ -]?key|secret[_ -]?key|client[_ -]?secret|auth[_ -]?token|access[_ -]?token|passwd"
    r"|password|private[_ -]?key|secret|token|bearer)"
    r"[\"']?[ \t]{0,3}(?:[:=]{1,2}|=>|\bis\b)?[ \t]{0,3}[\"']?(?P<value>[A-Za-z0-9+/_=.~-]{16,512})"
)
_CARD = re.compile(r"(?<![\w.,-])\d(?:[ -]?\d){12,18}(?![\w-])(?![.,]\d)")
_IBAN = re.compile(r"\b[A-Z]{2}\d{2}(?: ?[A-Z0-9]){11,30}")
_EMAIL = re.compile(r"(?<![\w.+-])[\w.+-]{1,64}@(?:[^\W_](?:[\w-]{0,61}[^\W_])?\.){1,8}[^\W\d_]{2,24}\b")
_PHONE = re.compile(
    r"(?<![\w.+-])(?<!\d )(?:"
    r"\+\d{1,3}(?:[ ./-]?\(?\d{1,4}\)?){2,6}"  # with country code
    r"|\(0?\d{2,5}\)[ ./-]?\d{3,4}(?:[ ./-]?\d{2,5}){1,3}"  # area code in brackets
    r"|[2-9]\d{2}[-.]\d{3}[-.]\d{4}"  # North America
    r"|0\d{1,4}[ /-]\d{2,4}(?:[ -]?\d{2,4}){1,3}"  # national, with the leading zero
    r")(?![\w-])(?!\.\d)"
)
_IP = re.compile(
    r"(?<![\w.:-])(?:(?:\d{1,3}\.){3}\d{1,3}|(?:[0-9A-Fa-f]{0,4}:){2,7}[0-9A-Fa-f]{0,4})(?![\w:-])(?!\.\d)"
)

# What a secret cannot do without: most texts have none of it, and looking for it is ten times as quick as the patterns.
_SIGNS = (
    *("-----BEGIN", "AKIA", "ASIA", "ABIA", "ACCA", "ghp_", "gho_", "ghu_", "ghs_", "ghr_", "github_pat_", "glpat-"),
    *("sk-", "k_live_", "k_test_", "xox", "AIza", "hf_", "npm_", "pypi-", "SG.", "eyJ", "://"),
)
_NAMES = ("key", "secret", "token", "passw", "bearer")

MIN_ENTROPY_BITS = 3.5
"""Per character. Words and identifiers lie below, random base64 of 20 characters or more lies above."""

# Lengths by country, from the SWIFT registry (ISO 13616).
_IBAN_LENGTHS = {
    country: length
    for length, countries in {
        15: "NO", 16: "BE", 18: "DK FI FO GL NL SD FK", 19: "MK SI", 20: "AT BA EE KZ LT LU XK MN",
        21: "CH CR HR LI LV", 22: "BG BH DE GB GE IE ME RS VA", 23: "AE GI IL IQ TL OM SO",
        24: "AD CZ ES MD PK RO SA SE SK TN VG", 25: "PT ST LY", 26: "IS TR", 27: "FR GR IT MC MR SM BI DJ",
        28: "AL AZ BY CY DO GT HU LB NI PL SV", 29: "BR EG PS QA UA", 30: "JO KW MU YE", 31: "MT SC", 32: "LC",
        33: "RU",
    }.items()
    for country in countries.split()
}  # fmt: skip


class Masker:
    """Replaces the kinds asked for. ``counts`` grows with every replacement, by kind."""

    def __init__(self, kinds: Sequence[MaskKind]) -> None:
        self._steps = [(kind, _STEPS[kind]) for kind in _ORDER if kind in kinds]
        self.counts: Counter[str] = Counter()

    def mask(self, text: str) -> str:
        for kind, steps in self._steps:
            if kind == "secret" and not _may_hold_secrets(text):
                continue
            for pattern, covered in steps:
                text = pattern.sub(partial(self._replace, kind, covered), text)
        return text

    def _replace(self, kind: MaskKind, covered: Callable[[re.Match[str]], int], match: re.Match[str]) -> str:
        length = covered(match)
        if length == 0:
            return match[0]
        self.counts[kind] += 1
        # A secret after its name: the name stays, and so does what follows a number that was found too long.
        start = match.start("value") - match.start() if "value" in match.re.groupindex else 0
        return f"{match[0][:start]}[{kind.upper()}]{match[0][start + length :]}"


def _may_hold_secrets(text: str) -> bool:
    lowered = text.lower()
    return any(map(text.__contains__, _SIGNS)) or any(map(lowered.__contains__, _NAMES))


def _whole(match: re.Match[str]) -> int:
    return len(match[0])


def _random(match: re.Match[str]) -> int:
    """Enough different characters, of at least two classes, to be made by a machine."""
    value = match["value"]
    classes = sum(any(map(test, value)) for test in (str.islower, str.isupper, str.isdigit))
    counts = Counter(value)
    entropy = -sum(n / len(value) * math.log2(n / len(value)) for n in counts.values())
    return len(value) if classes >= 2 and any(map(str.isdigit, value)) and entropy >= MIN_ENTROPY_BITS else 0


def _card(match: re.Match[str]) -> int:
    digits = [int(c) for c in match[0] if c.isdigit()]
    # 2: Mastercard, 3: American Express and others, 4: Visa, 5: Mastercard, 6: Discover, UnionPay and others.
    if digits[0] not in (2, 3, 4, 5, 6) or len(set(digits)) == 1:
        return 0
    doubled = [digit * 2 - 9 * (digit > 4) for digit in digits[-2::-2]]
    return len(match[0]) if (sum(doubled) + sum(digits[-1::-2])) % 10 == 0 else 0


def _iban(match: re.Match[str]) -> int:
    """The pattern may run on into the words behind, so the country says how long it is."""
    text = match[0]
    wanted = _IBAN_LENGTHS.get(text[:2], 0)
    end = solid = 0
    while end < len(text) and solid < wanted:
        solid += text[end] != " "
        end += 1
    compact = text[:end].replace(" ", "")
    following = match.string[match.start() + end : match.start() + end + 1]
    if wanted == 0 or solid < wanted or following.isalnum():
        return 0
    number = "".join(str(int(c, 36)) for c in compact[4:] + compact[:4])
    return end if int(number) % 97 == 1 else 0


def _phone(match: re.Match[str]) -> int:
    return len(match[0]) if 8 <= sum(map(str.isdigit, match[0])) <= 15 else 0


def _ip(match: re.Match[str]) -> int:
    """Public ones only: a loopback or private address says nothing of anybody."""
    try:
        public = ipaddress.ip_address(match[0]).is_global
    except ValueError:
        return 0
    # "a::b" is an address by the letter and a name in a program by all experience.
    if ":" in match[0] and sum(map(bool, match[0].split(":"))) < 3:
        return 0
    before = match.string[max(0, match.start() - 8) : match.start()].lower().rstrip(" v")
    return len(match[0]) if public and not before.endswith(("version", "release")) else 0


_Step = tuple[re.Pattern[str], Callable[[re.Match[str]], int]]
_STEPS: Mapping[MaskKind, tuple[_Step, ...]] = {
    "secret": ((_PREFIXED_SECRET, _whole), (_URL_PASSWORD, _whole), (_NAMED_SECRET, _random)),
    "email": ((_EMAIL, _whole),),
    "iban": ((_IBAN, _iban),),
    "card": ((_CARD, _card),),
    "ip": ((_IP, _ip),),
    "phone": ((_PHONE, _phone),),
}
# The more certain first: a card number holds what looks like a telephone number.
_ORDER: tuple[MaskKind, ...] = ("secret", "email", "iban", "card", "ip", "phone")
