"""What is read of the machine, on made-up file systems."""

from __future__ import annotations

import json

from harness.cost.machine import clocks, passing


def _cpufreq(root, kilohertz: dict[int, str]) -> None:
    for cpu, text in kilohertz.items():
        folder = root / f"sys/devices/system/cpu/cpu{cpu}/cpufreq"
        folder.mkdir(parents=True)
        (folder / "scaling_cur_freq").write_text(text + "\n")


def _cpuinfo(root, text: str) -> None:
    (root / "proc").mkdir()
    (root / "proc/cpuinfo").write_text(text)


def test_frequencies_are_megahertz_by_core(tmp_path):
    _cpufreq(tmp_path, {10: "800000", 2: "3200500", 0: "2600000"})
    assert clocks(tmp_path) == ([2600.0, 3200.5, 800.0], "cpufreq")


def test_a_virtual_machine_has_only_cpuinfo(tmp_path):
    _cpuinfo(tmp_path, "processor : 0\ncpu MHz\t\t: 2596.122\n\nprocessor : 1\ncpu MHz\t\t: 1200.000\n")
    assert clocks(tmp_path) == ([2596.122, 1200.0], "cpuinfo")


def test_frequencies_that_make_no_sense_are_none_with_a_reason(tmp_path):
    _cpufreq(tmp_path, {0: "<unknown>"})
    _cpuinfo(tmp_path, "processor : 0\nBogoMIPS : 50.00\n")
    found, reason = clocks(tmp_path)
    assert found is None and reason


def test_what_passes_can_be_written_down():
    found = json.loads(json.dumps(passing()))
    assert {"load", "mhz", "mhz_source", "cpus", "omp"} <= found.keys()
