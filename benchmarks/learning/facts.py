"""S3: facts about browsers, some of which change.

From two releases of MDN's browser compatibility data: since which version a browser supports a feature. First what
5.0.0 says (when Chrome 102, Firefox 100 and Safari 15.4 were out), then what 8.1.9 (November 2026) says otherwise or
anew. What changed is of two kinds, half and half: a feature *came* ("none yet", then a version that was not out yet at
5.0.0) or its version was *corrected* (another version). A change from "none yet" to a version that was out already is
neither, and is not asked for. A new fact is of a feature that 5.0.0 does not have and that came after it.

The facts that stay as they are, are neighbours of those that change as far as there are any: the same feature in
another browser, or a sibling in the same one; a fifth of them say "none yet" in both, so that this answer alone does
not give away what will change.
"""

from __future__ import annotations

import random
import re
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Sequence
from typing import Any, Literal, NamedTuple

import msgspec
from benchmarks.learning.data import npm
from benchmarks.learning.draws import evenly

from lifelong.collector.features import language
from lifelong.contracts.events import Message
from lifelong.contracts.samples import Sample

NAME = "@mdn/browser-compat-data"
FIRST = (NAME, "5.0.0", "21eede7c56e9526fc840902925b3ae18363826e531fa018a26dc29454556ea60")
SECOND = (NAME, "8.1.9", "c99eff2b2ebf5ead405de12ed3bd7f40534bcb9966ca4a7679b01335146b472c")

BROWSERS = {"chrome": "Chrome", "firefox": "Firefox", "safari": "Safari"}
NONE_YET = "none yet"
MAX_SIBLINGS = 3
"""Of one interface, property or element in one browser: Temporal alone came with two hundred members at once."""
UNSUPPORTED_SHARE = 0.2

_CONDITIONS = ("flags", "partial_implementation", "prefix", "alternative_name", "version_removed", "version_last")
_RELEASED = ("current", "retired", "esr")
_WORD = re.compile(r"[A-Za-z][A-Za-z0-9-]*")
_VERSION = re.compile(r"\d+(\.\d+)*")

Path = tuple[str, ...]


class Fact(NamedTuple):
    """``answer``: the value at the time when it is told. ``old``: of a changed fact told anew, the value before."""

    question: str
    answer: str
    old: str | None
    kind: Literal["kept", "changed", "new"]


class Feature(NamedTuple):
    """In one browser. ``first``, ``second``: a version, ``NONE_YET``, or None where a release has no plain answer."""

    path: Path
    browser: str
    question: str
    first: str | None
    second: str | None
    came: bool
    """The second is a version that was not out yet when the first release of the data was made."""

    @property
    def family(self) -> tuple[Path, str]:
        return self.path[:2] if self.path[0] == "api" else self.path[:3], self.browser

    @property
    def region(self) -> tuple[str, str]:
        return self.path[0], self.browser


def facts(num_first: int, num_changed: int, num_new: int, seed: int) -> tuple[list[Fact], list[Fact]]:
    """What is told first, ``num_changed`` of which change later and the others are kept; then what changed and what is
    new, mixed.

    Raises:
        DataError: the packages cannot be had.
        ValueError: the data has fewer facts of a kind.
    """
    first, second = (msgspec.json.decode(npm(*release, "package/data.json")) for release in (FIRST, SECOND))
    return choose(features(first, second), num_first, num_changed, num_new, seed)


def samples(facts: Sequence[Fact], partition: int, start: float = 0.0) -> list[Sample]:
    """As the collector makes them of ``lifelong.fact``. Times are seconds from ``start`` on."""
    made = []
    for offset, fact in enumerate(facts):
        messages = (Message(role="user", content=fact.question), Message(role="assistant", content=fact.answer))
        made.append(
            Sample(
                id=f"{partition}-{offset}-0",
                event_id=f"fact-{partition}-{offset}",
                event_time=start + offset,
                task="fact",
                messages=messages,
                until_known=True,
                language=language(f"{fact.answer} {fact.question}"),
                num_chars=sum(len(message.content) for message in messages),
            )
        )
    return made


def choose(
    features: Sequence[Feature], num_first: int, num_changed: int, num_new: int, seed: int
) -> tuple[list[Fact], list[Fact]]:
    rng = random.Random(f"facts {seed}")
    came, corrected, new, kept, unsupported = (
        [feature for feature in features if kind_of(feature) == kind]
        for kind in ("came", "corrected", "new", "kept", "unsupported")
    )
    num_came = num_changed // 2
    changed = _draw(came, num_came, rng) + _draw(corrected, num_changed - num_came, rng)
    num_kept = num_first - num_changed
    num_unsupported = round(num_kept * UNSUPPORTED_SHARE)
    stay = _neighbours(changed, kept, num_kept - num_unsupported, rng)
    stay += _neighbours(changed, unsupported, num_unsupported, rng)
    told_first = [Fact(each.question, _known(each.first), None, "changed") for each in changed]
    told_first += [Fact(each.question, _known(each.first), None, "kept") for each in stay]
    told_then = [Fact(each.question, _known(each.second), _known(each.first), "changed") for each in changed]
    told_then += [Fact(each.question, _known(each.second), None, "new") for each in _draw(new, num_new, rng)]
    rng.shuffle(told_first)
    rng.shuffle(told_then)
    return told_first, told_then


def kind_of(feature: Feature) -> str:
    if feature.second is None:
        return "unclear"
    if feature.first is None:
        return "new" if feature.came else "unclear"
    if feature.first == feature.second:
        return "unsupported" if feature.first == NONE_YET else "kept"
    if NONE_YET not in (feature.first, feature.second):
        return "corrected"
    return "came" if feature.first == NONE_YET and feature.came else "unclear"


def features(first: dict[str, Any], second: dict[str, Any]) -> list[Feature]:
    """Each feature of the second release that can be asked for in words, in each browser.

    ``first`` of a feature is None too if the first release has it under conditions (``kind_of`` must not take that for
    new), so such features are left out.
    """
    before = dict(_compat(first))
    made = []
    for path, compat in _compat(second):
        words = phrase(path, compat)
        if words is None or not compat.get("status", {}).get("standard_track"):
            continue
        for browser, name in BROWSERS.items():
            then = _plain(compat, browser)
            now = _plain(before[path], browser) if path in before else None
            if then is None or (path in before and now is None):
                continue
            release = first["browsers"][browser]["releases"].get(then, {})
            came = then != NONE_YET and release.get("status") not in _RELEASED
            made.append(Feature(path, browser, f"Since which version does {name} support {words}?", now, then, came))
    asked = Counter(feature.question for feature in made)
    return [feature for feature in made if asked[feature.question] == 1]


def phrase(path: Path, compat: dict[str, Any]) -> str | None:
    """How people call it; None for what is no thing of its own, such as one value of a property."""
    *_, name = path
    if path[0] == "api" and name.endswith("_event"):
        name, event = name.removesuffix("_event"), True
    else:
        event = False
    if not _WORD.fullmatch(name):
        return None
    match path[0], path[1], len(path):
        case "css", "properties", 3:
            return f"the CSS property {name}"
        case "css", "at-rules", 3:
            return f"the CSS at-rule @{name}"
        case "css", "selectors", 3:
            # The key has no colons; the address of its page ends with the selector as it is written.
            selector = str(compat.get("mdn_url", "")).rpartition("/")[2]
            return f"the CSS selector {selector}" if selector in (f":{name}", f"::{name}") else None
        case "html", "elements", 3:
            return f"the HTML element <{name}>"
        case "html", "elements", 4:
            return f"the attribute {name} of the HTML element <{path[2]}>"
        case "javascript", "builtins", 3:
            return f"the JavaScript object {name}"
        case "javascript", "builtins", 4 if name != path[2]:
            return f"{path[2]}.{name} in JavaScript"
        case "api", _, 2 if not event:
            return f"the web interface {name}"
        case "api", _, 3 if name != path[1]:
            return f"the event {name} of {path[1]}" if event else f"{path[1]}.{name}"
    return None


def _known(value: str | None) -> str:
    assert value is not None, "kind_of lets none through"
    return value


def _compat(node: dict[str, Any], path: Path = ()) -> Iterator[tuple[Path, dict[str, Any]]]:
    for name, inner in node.items():
        if name == "__meta" or name == "__compat" or (not path and name == "browsers"):
            continue
        if "__compat" in inner:
            yield (*path, name), inner["__compat"]
        yield from _compat(inner, (*path, name))


def _plain(compat: dict[str, Any], browser: str) -> str | None:
    """The first version that has it, without conditions; None if there is no such simple answer, or several."""
    statement = compat["support"].get(browser)
    if statement is None or isinstance(statement, list) or any(statement.get(condition) for condition in _CONDITIONS):
        return None
    version = statement.get("version_added")
    if version is False:
        return NONE_YET
    return version if isinstance(version, str) and _VERSION.fullmatch(version) else None


def _draw(features: Iterable[Feature], num: int, rng: random.Random) -> list[Feature]:
    """Of every part of the web and every browser alike, at most a few of a family."""
    in_family: Counter[tuple[Path, str]] = Counter()
    regions = defaultdict(list)
    pool = list(features)
    for feature in rng.sample(pool, len(pool)):
        in_family[feature.family] += 1
        if in_family[feature.family] <= MAX_SIBLINGS:
            regions[feature.region].append(feature)
    return evenly([regions[region] for region in sorted(regions)], num, rng)


def _neighbours(changed: Sequence[Feature], kept: Sequence[Feature], num: int, rng: random.Random) -> list[Feature]:
    """One for each that changes, nearest first, as far as there are; the others from anywhere."""
    same = defaultdict(list)
    family = defaultdict(list)
    for feature in rng.sample(kept, len(kept)):
        same[feature.path].append(feature)
        family[feature.family].append(feature)
    chosen: dict[str, Feature] = {}
    for each in rng.sample(changed, len(changed)):
        near = [*same[each.path], *family[each.family]]
        nearest = next((feature for feature in near if feature.question not in chosen), None)
        if nearest is not None and len(chosen) < num:
            chosen[nearest.question] = nearest
    others = [feature for feature in kept if feature.question not in chosen]
    return [*chosen.values(), *_draw(others, num - len(chosen), rng)]
