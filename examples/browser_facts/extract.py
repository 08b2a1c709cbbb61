"""Make the facts that the demo teaches from MDN's browser compatibility data.

    npm pack @mdn/browser-compat-data@8.1.9 && tar xzf mdn-browser-compat-data-8.1.9.tgz
    python examples/browser_facts/extract.py package/data.json > services/lifelong/demo/browser_facts.jsonl

The data is in the public domain (CC0 1.0). Chosen are features that came to browsers in 2023 or later, so that a model
trained before does not know them: one fact for each feature, about the browser that got it last.
"""

import json
import sys
from pathlib import Path
from typing import Any

SINCE = "2023-01-01"
BROWSERS = {"chrome": "Chrome", "firefox": "Firefox", "safari": "Safari"}
# Where the features that developers ask about are, and how they are called there.
KINDS = {
    ("css", "properties"): "the CSS property {}",
    ("css", "selectors"): "the CSS selector :{}",
    ("css", "at-rules"): "the CSS at-rule @{}",
    ("css", "types"): "the CSS function {}()",
    ("javascript", "builtins"): "the JavaScript method {}",
    ("html", "elements"): "the HTML element <{}>",
}


def released(data: dict[str, Any], browser: str, version: str) -> str:
    release = data["browsers"][browser]["releases"].get(version, {})
    return str(release.get("release_date", "")) if release.get("status") in ("current", "retired", "esr") else ""


def plain_version(support: Any) -> str | None:
    """The version of a support statement without conditions."""
    statement = support[0] if isinstance(support, list) else support
    conditions = ("flags", "partial_implementation", "prefix", "alternative_name", "version_removed", "notes")
    if statement is None or any(statement.get(condition) for condition in conditions):
        return None
    version = statement.get("version_added")
    return version if isinstance(version, str) and version.replace(".", "").isdigit() else None


def features(data: dict[str, Any]) -> Any:
    for (top, group), words in KINDS.items():
        for name, node in sorted(data[top][group].items()):
            if top == "javascript":
                for method, inner in sorted(node.items()):
                    if "__compat" in inner and method not in ("@@iterator", name):
                        yield words.format(f"{name}.{method}()"), inner["__compat"]
            elif "__compat" in node and (group != "types" or not name.endswith("-type")):
                yield words.format(name), node["__compat"]


def main() -> None:
    data = json.loads(Path(sys.argv[1]).read_text())
    for feature, compat in features(data):
        if not compat.get("status", {}).get("standard_track") or "mdn_url" not in compat:
            continue
        versions = {browser: plain_version(compat["support"].get(browser)) for browser in BROWSERS}
        if not all(versions.values()):
            continue
        dates = {browser: released(data, browser, version) for browser, version in versions.items() if version}
        last = max(dates, key=lambda browser: dates[browser])
        if all(dates.values()) and dates[last] >= SINCE:
            fact = {
                "question": f"Which version of {BROWSERS[last]} was the first to support {feature}?",
                "answer": f"{BROWSERS[last]} {versions[last]}.",
                "text": f"{BROWSERS[last]} {versions[last]}, released on {dates[last]}, was the first version of "
                f"{BROWSERS[last]} to support {feature}.",
                "url": compat["mdn_url"],
            }
            print(json.dumps(fact))


if __name__ == "__main__":
    main()
