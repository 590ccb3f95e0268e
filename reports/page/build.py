"""Data, script and style -> one HTML file. What comes from a record is data only, never HTML or script."""

from __future__ import annotations

import base64
import hashlib
import json
import re
from collections.abc import Mapping, Sequence
from functools import lru_cache
from pathlib import Path
from typing import Any

from harness.errors import MissingPackage, told
from harness.records.store import Store
from reports.page.content import Picture, content
from reports.report import table_of
from reports.rows import load_rows, plain_text

__all__ = ["build_page", "page_data"]

_FOLDER = Path(__file__).resolve().parent
# plotly.js ends by starting its forty other kinds of traces (maps, 3D, ...) in one call. Points and lines are part of
# its core: without the others a browser has it ready in half the time. A bundle that ends otherwise stays as it is.
_OTHER_TRACES = re.compile(r"\.register\(\[(?:[\w$]+\(\),?)+\]\)")
_SCRIPTS = ("base", "explain", "table", "panel", "plot", "budget", "compare", "pictures", "main")


def build_page(
    store: Store, manifest: Mapping[str, Any], *, pictures: Sequence[Picture] = (), remarks: Sequence[str] = ()
) -> str:
    """The page of a run. The same manifest, records and pictures give the same bytes.

    Raises UserError for what is no run manifest, MissingPackage without plotly.
    """
    from jinja2 import Environment, StrictUndefined

    data = page_data(store, manifest, pictures=pictures, remarks=remarks)
    plotly, script = _plotly(), _script()
    template = Environment(autoescape=True, undefined=StrictUndefined).from_string(_read("page.html"))
    return template.render(
        title=data["title"],
        style=_read("page.css"),
        policy=_policy(script, plotly),
        data=embedded(data),
        script=script,
        plotly=plotly,
    )


def page_data(
    store: Store, manifest: Mapping[str, Any], *, pictures: Sequence[Picture] = (), remarks: Sequence[str] = ()
) -> dict[str, Any]:
    """What the page of a run shows, JSON-ready."""
    rows = load_rows(store, manifest)
    suite = manifest.get("suite") or {}
    made = {
        "description": plain_text(suite.get("description") or ""),
        "created": plain_text(manifest.get("created") or ""),
        "command": plain_text(manifest.get("command") or ""),
    }
    with told("the run or one of its records does not hold what a page is made of"):
        return {**made, **content(rows, table_of(rows, manifest), pictures, remarks)}


def embedded(data: Mapping[str, Any]) -> str:
    """JSON that cannot end the script element it stands in, or begin a comment there."""
    text = json.dumps(data, ensure_ascii=False, separators=(",", ":"), allow_nan=False)
    for character in "<>&\u2028\u2029":
        text = text.replace(character, f"\\u{ord(character):04x}")
    return text


def _policy(*scripts: str) -> str:
    """A content security policy: these scripts and nothing else; no request of any kind."""
    hashes = " ".join(f"'sha256-{base64.b64encode(hashlib.sha256(s.encode()).digest()).decode()}'" for s in scripts)
    return (
        f"default-src 'none'; script-src {hashes}; style-src 'unsafe-inline'; img-src data:; base-uri 'none'; "
        "form-action 'none'"
    )


@lru_cache(maxsize=1)
def _plotly() -> str:
    try:
        from plotly.offline import get_plotlyjs
    except ImportError:
        raise MissingPackage("the interactive page", "plotly", "pip install plotly") from None
    return _inline(_OTHER_TRACES.sub(".register([])", get_plotlyjs()))


def _script() -> str:
    parts = "\n".join(_read(f"{name}.js") for name in _SCRIPTS)
    return _inline(f'"use strict";\n(() => {{\n{parts}}})();\n')


def _inline(script: str) -> str:
    """A script as it stands in an element: line ends as a browser reads them, so that its hash is the policy's."""
    return script.replace("\r\n", "\n").replace("\r", "\n").replace("</script", "<\\/script")


def _read(name: str) -> str:
    return (_FOLDER / name).read_text(encoding="utf-8")
