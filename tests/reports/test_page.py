"""The interactive page as a file: what is in it, what may not be in it, that it is the same twice."""

from __future__ import annotations

import base64
import hashlib
import json
import re
import subprocess
import sys
from html.parser import HTMLParser
from pathlib import Path

import pytest
from typer.testing import CliRunner

from harness.cli.main import app
from harness.errors import UserError
from harness.records.store import Store
from reports.page import Picture, build_page, page_data
from reports.page.build import embedded
from reports.rows import load_rows

pytest.importorskip("plotly")
HOSTILE = "</script><img src=x onerror=alert(1)>&amp;\"'`$\u2028$(rm -rf) \\textbf{x} <!-- "


class Elements(HTMLParser):
    """Every element with its attributes, and the text of scripts."""

    def __init__(self) -> None:
        super().__init__()
        self.found: list[tuple[str, dict]] = []
        self.scripts: list[str] = []
        self.inside = False

    def handle_starttag(self, tag, attrs):
        self.found.append((tag, dict(attrs)))
        self.inside = tag == "script"
        if self.inside:
            self.scripts.append("")

    def handle_data(self, data):
        if self.inside:
            self.scripts[-1] += data

    def handle_endtag(self, tag):
        self.inside = False


def parsed(page: str) -> Elements:
    elements = Elements()
    elements.feed(page)
    return elements


def data_of(page: str) -> dict:
    return json.loads(parsed(page).scripts[0])


@pytest.fixture
def rows(made) -> list[dict]:
    return [
        made.row("hrnet_w32", gmacs=7.1, ap=0.744, ms={1: 30.0, 32: 400.0}),
        made.row("sharpose_b", method="sharpose", gmacs=5.0, sd=1.5, ap=0.75, note="a note"),
        made.row("no_weights", gmacs=1.0, reasons={"accuracy": "no weights"}),
    ]


def test_the_page_holds_every_row_and_every_field_of_its_records(made, rows):
    data = data_of(build_page(made.store, made.manifest(rows)))
    assert [row["label"] for row in data["rows"]] == ["hrnet_w32", "sharpose_b", "no_weights"]
    assert [axis["key"] for axis in data["axes"]] == ["gmacs", "gflops", "params", "latency_b1", "latency_b32"]
    assert data["rows"][0]["x"]["latency_b32"] == [400.0, 360.0, 480.0] and data["rows"][2]["y"]["AP"] is None
    name, at = data["rows"][0]["records"][1]
    record = data["records"][at]
    fields = {f"{s}/{n}": data["texts"][v] for (s, n), v in zip(data["shapes"][record["shape"]], record["values"])}
    assert name == "accuracy" and fields["figures/stats.AP.value"] == "0.744"
    assert fields["boxes/box_source"] == "ground-truth (hrnet)" and "command/command" in fields


def test_a_number_leads_to_its_record_and_field(made, rows):
    data = data_of(build_page(made.store, made.manifest(rows)))
    at = [c["key"] for c in data["columns"]].index("ap")
    text, origin = data["rows"][0]["cells"][at]
    assert data["texts"][text] == "74.4 [73.2, 75.6]"
    assert data["origins"][origin][:2] == ["accuracy", "stats.AP.value"]
    text, _, reason = data["rows"][2]["cells"][at]
    assert data["texts"][text] == "no weights" and data["texts"][reason] == "no weights"


def test_the_same_records_give_the_same_bytes(made, rows):
    picture = Picture("hrnet_w32", "best", "OKS 0.9", b"\xff\xd8jpeg")
    pages = [build_page(made.store, made.manifest(rows), pictures=[picture]) for _ in range(2)]
    assert pages[0] == pages[1]


def test_hostile_names_stay_text(made):
    rows = [made.row(HOSTILE, method=HOSTILE, gmacs=1.0, ap=0.5, note=HOSTILE, protocol={"codec": HOSTILE})]
    manifest = made.manifest(rows, title=HOSTILE)
    manifest["suite"]["description"], manifest["command"] = HOSTILE, HOSTILE
    label = load_rows(made.store, manifest)[0].label
    page = build_page(made.store, manifest, pictures=[Picture(label, HOSTILE, HOSTILE, b"x")])
    elements = parsed(page)
    assert [tag for tag, _ in elements.found].count("script") == 3
    assert not [tag for tag, attrs in elements.found if tag == "img" or any(name.startswith("on") for name in attrs)]
    assert "onerror=alert(1)" in data_of(page)["rows"][0]["label"]
    assert "<img" not in page.replace(parsed(page).scripts[2], "")


def test_embedded_json_cannot_leave_its_element_and_comes_back_equal():
    text = embedded({"a": HOSTILE})
    assert not set("<>&\u2028\u2029") & set(text) and json.loads(text) == {"a": HOSTILE}


def test_the_policy_allows_these_scripts_and_no_request(made, rows):
    elements = parsed(build_page(made.store, made.manifest(rows)))
    policy = next(a["content"] for _, a in elements.found if "Content-Security" in a.get("http-equiv", ""))
    for script in elements.scripts[1:]:
        assert base64.b64encode(hashlib.sha256(script.encode()).digest()).decode() in policy
    assert policy.startswith("default-src 'none'") and "connect-src" not in policy
    assert "'unsafe-inline'" not in policy.partition("script-src")[2].partition(";")[0]


def test_the_plotting_library_starts_points_and_lines_alone(made, rows):
    from plotly.offline import get_plotlyjs

    library = parsed(build_page(made.store, made.manifest(rows))).scripts[-1]
    assert get_plotlyjs().count(".register([])") == 0 and library.count(".register([])") == 1


def test_nothing_is_loaded_from_elsewhere(made, rows):
    for tag, attrs in parsed(build_page(made.store, made.manifest(rows))).found:
        for name in ("src", "href", "action", "data"):
            assert not re.match(r"(https?:)?//", attrs.get(name) or ""), (tag, attrs)
        assert not (tag == "script" and "src" in attrs) and not (tag == "link" and attrs.get("rel") == "stylesheet")


def test_every_control_has_a_name(made, rows):
    page = build_page(made.store, made.manifest(rows))
    controls = [(t, a) for t, a in parsed(page).found if t in ("input", "select", "aside", "section", "dialog")]
    assert len(controls) > 10
    for tag, attrs in controls:
        inside = re.search(rf'<label[^>]*>[^<]*(<[^>]*> ?)?<{tag}[^>]*id="{attrs.get("id")}"', page)
        named = {"aria-label", "aria-labelledby"} & set(attrs) or f'for="{attrs.get("id")}"' in page or inside
        assert named or attrs.get("id") == "limit-number", (tag, attrs)


def test_no_records_at_all_is_a_page_that_says_so(made):
    page = build_page(made.store, made.manifest([]))
    data = data_of(page)
    assert data["rows"] == [] and data["axes"] == [] and "paretopose run" in page


def test_rows_on_other_persons_are_on_other_ground(made):
    rows = [made.row("a", gmacs=1, ap=0.5), made.row("b", gmacs=1, ap=0.5, more={"box_source": "detector.json"})]
    data = page_data(made.store, made.manifest(rows))
    assert [row["ground"] for row in data["rows"]] == [0, 1] and len(set(data["grounds"])) == 2


def test_a_published_ap_stands_beside_a_row_of_the_same_images_and_boxes_alone(made):
    boxes = {"box_source": "COCO_val2017_detections_AP_H_56_person.json"}
    rows = [
        made.row("a", variant="hrnet_w32", gmacs=7.1, ap=0.74, data="coco_val2017", more=boxes),
        made.row("b", variant="hrnet_w32", gmacs=7.1, ap=0.74, more=boxes),
    ]
    found = page_data(made.store, made.manifest(rows))["rows"]
    assert found[0]["published"] == 74.4 and "published" not in found[1]


def test_times_of_two_machines_are_not_called_comparable(made):
    rows = [made.row("a", gmacs=1, ap=0.5, ms={1: 3.0}), made.row("b", gmacs=1, ap=0.5)]
    other = made.latency(5.0, 1) | {"machine": {"cpu": "Another CPU"}}
    rows[1]["records"]["latency_b1"] = made.put("latency", "b", other, batch=1, machine="m2")
    axis = next(a for a in page_data(made.store, made.manifest(rows))["axes"] if a["key"] == "latency_b1")
    assert "NOT comparable" in axis["note"]


def test_pictures_are_inside_and_only_of_rows_that_are_there(made, rows):
    pictures = [Picture("hrnet_w32", "worst", "OKS 0.1", b"\xff\xd8"), Picture("gone", "best", "x", b"y")]
    found = page_data(made.store, made.manifest(rows), pictures=pictures)["pictures"]
    assert [p["row"] for p in found] == [0] and found[0]["src"] == "data:image/jpeg;base64,/9g="


def report(*arguments: str):
    done = CliRunner().invoke(app, ["report", *arguments])
    if done.exception and not isinstance(done.exception, SystemExit):
        raise done.exception
    return done


def test_the_verb_writes_a_page_of_a_run_and_of_a_folder_of_records(two_exits, tmp_path):
    records = two_exits / "records"
    data = ["--data", f"people={two_exits / 'people'}"]
    assert "wrote" in report("two", "--store", str(records), "--html", str(tmp_path / "a" / "run.html"), *data).stderr
    run = data_of((tmp_path / "a" / "run.html").read_text())
    assert [p["kind"] for p in run["pictures"]] == ["worst", "worst", "worst", "middle", "best", "best"]
    report(str(two_exits), "--html", str(tmp_path / "all.html"))
    whole = data_of((tmp_path / "all.html").read_text())
    assert len(whole["rows"]) == 1 and whole["rows"][0]["y"] == run["rows"][0]["y"] and not whole["pictures"]


def test_half_written_and_outdated_records_are_counted_on_the_page(two_exits, tmp_path):
    folder = two_exits / "records" / "records"
    (folder / "cost-0123456789abcdef.json").write_text('{"half":')
    old = next(folder.glob("accuracy-*.json"))
    old.write_text(old.read_text().replace('"schema_version": 1', '"schema_version": 0'))
    done = report(str(two_exits / "records"), "--html", str(tmp_path / "p.html"))
    remarks = data_of((tmp_path / "p.html").read_text())["remarks"]
    assert len(remarks) == 2 and "cost-0123456789abcdef" in remarks[0] and "older schema" in remarks[1]
    assert "wrote" in done.stderr


@pytest.mark.parametrize("name", ["page.txt", "page"])
def test_a_page_that_is_no_html_file_is_refused(two_exits, name):
    with pytest.raises(UserError, match="cannot write a page"):
        report("two", "--store", str(two_exits / "records"), "--html", name)


def test_a_page_with_pictures_is_made_without_torch(two_exits, tmp_path):
    arguments = ["report", "two", "--store", str(two_exits / "records"), "--html", str(tmp_path / "p.html")]
    arguments += ["--data", f"people={two_exits / 'people'}"]
    code = (
        "import sys\nfrom harness.cli.main import app\n"
        f"app({arguments!r}, standalone_mode=False)\nassert 'torch' not in sys.modules"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert data_of(Path(tmp_path / "p.html").read_text())["pictures"]


def test_a_folder_joins_the_measurements_of_one_network(made):
    key = {"variant": "n", "input_size": [4, 3], "build": {}, "joints": 17, "settings": {}}
    protocol = {"flip": True}
    for threshold, ap in (("never", 0.5), ("always", 0.7)):
        scored = {"stats": {"AP": {"value": ap, "interval": None}}, "quality_threshold": threshold}
        select = {"quality_threshold": threshold}
        made.put("accuracy", "n", scored, **key, select=select, protocol=protocol, weights="w" * 64)
        settings = {"quality_threshold": threshold}
        made.put("latency", "n", made.latency(10 * ap, 1), **{**key, "settings": settings, "weights": "w" * 64})
    made.put("cost", "n", {"gmacs": 3.0}, **key)
    from reports.joined import joined_manifest

    rows = load_rows(Store(made.store.folder), joined_manifest(made.store, "all"))
    ap = [r.result("accuracy")["stats"]["AP"]["value"] for r in rows]
    told = {r.label: (a, r.result("latency_b1")["median"]["value"]) for r, a in zip(rows, ap)}
    assert told == {"n quality_threshold=never": (0.5, 5.0), "n quality_threshold=always": (0.7, 7.0)}
    assert all("cost" in row.records for row in rows)
