"""Energy counters on made-up /sys folders: nothing here needs a machine that has one."""

from __future__ import annotations

import builtins

import pytest

from harness.cost import energy
from harness.cost.energy import NoCounter, NvmlCounter, RaplCounter, find_counter, joules_per_call


def _package(root, name: str, microjoules: int, most: int = 1_000_000):
    folder = root / name
    folder.mkdir()
    (folder / "energy_uj").write_text(f"{microjoules}\n")
    (folder / "max_energy_range_uj").write_text(f"{most}\n")
    return folder


def test_all_packages_are_added_and_their_parts_are_not_counted_twice(tmp_path):
    first, second = _package(tmp_path, "intel-rapl:0", 100), _package(tmp_path, "intel-rapl:1", 700)
    cores = _package(tmp_path, "intel-rapl:0:0", 50)
    counter = RaplCounter(tmp_path)
    for folder, value in ((first, 2_100), (second, 3_700), (cores, 900_000)):
        (folder / "energy_uj").write_text(str(value))
    assert counter.read() == pytest.approx(0.005)


def test_a_counter_that_begins_again_at_zero_goes_on(tmp_path):
    folder = _package(tmp_path, "intel-rapl:0", 900_000)
    counter = RaplCounter(tmp_path)
    readings = []
    for value in (950_000, 10_000, 990_000, 5_000):
        (folder / "energy_uj").write_text(str(value))
        readings.append(counter.read())
    assert readings == pytest.approx([0.05, 0.11, 1.09, 1.105])
    assert readings == sorted(readings)


def test_no_counter_and_one_that_cannot_be_read_say_why(tmp_path, monkeypatch):
    with pytest.raises(NoCounter, match="no RAPL"):
        RaplCounter(tmp_path)
    folder = _package(tmp_path, "intel-rapl:0", 0)
    (folder / "energy_uj").write_text("nonsense")
    with pytest.raises(NoCounter, match="energy_uj"):
        RaplCounter(tmp_path)

    def forbidden(self, *_, **__):
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(type(tmp_path), "read_text", forbidden)
    with pytest.raises(NoCounter, match="root only"):
        RaplCounter(tmp_path)


def test_a_gpu_without_the_package_has_no_counter(monkeypatch):
    real = builtins.__import__

    def without(name, *rest, **more):
        if name == "pynvml":
            raise ImportError(name)
        return real(name, *rest, **more)

    monkeypatch.setattr(builtins, "__import__", without)
    with pytest.raises(NoCounter, match="nvidia-ml-py"):
        NvmlCounter("cuda:0")


def test_the_processor_has_rapl_and_the_folder_decides(tmp_path, monkeypatch):
    _package(tmp_path, "intel-rapl:0", 0)
    monkeypatch.setattr(energy, "POWERCAP", tmp_path)
    assert "RAPL" in find_counter("cpu").source


class _Scripted:
    """A counter and a clock: a call takes 0.1 s and 3 J."""

    source, step_s = "scripted", 0.1

    def __init__(self) -> None:
        self.calls = 0

    def read(self) -> float:
        return 7.0 + 3.0 * self.calls

    def clock(self) -> float:
        return 0.1 * self.calls

    def call(self) -> None:
        self.calls += 1


def test_energy_is_the_mean_of_calls_over_many_steps_of_the_counter():
    made = _Scripted()
    found = joules_per_call(made.call, made, clock=made.clock)
    assert found.joules_per_call == pytest.approx(3.0)
    assert found.watts == pytest.approx(30.0)
    assert found.calls == made.calls >= 20
