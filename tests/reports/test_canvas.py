"""What all figures share: fonts that are missing, characters that a font lacks, the user's own settings."""

from __future__ import annotations

import warnings

import matplotlib
import pytest
from matplotlib import font_manager
from matplotlib.figure import Figure

from reports import canvas


@pytest.fixture
def fresh():
    canvas._family.cache_clear()
    canvas._glyphs.cache_clear()
    yield
    canvas._family.cache_clear()
    canvas._glyphs.cache_clear()


def drawn(text: str) -> dict[str, bytes]:
    with canvas.sheet():
        figure = Figure(figsize=(2, 1))
        figure.add_subplot().set_title(canvas.legible(text))
        return canvas.save(figure)


def test_without_its_font_a_figure_takes_another_and_says_nothing(fresh, monkeypatch, caplog):
    others = [font for font in font_manager.fontManager.ttflist if font.name != "DejaVu Sans"]
    monkeypatch.setattr(font_manager.fontManager, "ttflist", others)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert drawn("hrnet")["png"][:4] == b"\x89PNG"
    assert canvas._family() != "DejaVu Sans" and not caplog.records


def test_a_character_that_the_font_lacks_is_its_code_point(fresh):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert drawn("姿势 $x$ ü")["pdf"][:4] == b"%PDF"
    assert canvas.legible("姿$") == r"(U+59FF)\$" and canvas.legible("ü_±") == "ü_±"


def test_the_settings_of_the_user_change_no_figure():
    plain = drawn("a")
    with matplotlib.rc_context({"axes.facecolor": "black", "font.size": 30, "lines.linewidth": 9}):
        assert drawn("a") == plain


def test_a_figure_is_laid_out_once_and_drawn_once_for_each_format(monkeypatch):
    draws, draw = [], Figure.draw
    monkeypatch.setattr(Figure, "draw", lambda self, renderer: (draws.append(type(renderer)), draw(self, renderer)))
    with canvas.sheet():
        figure = Figure(figsize=(2, 1), layout="constrained")
        figure.add_subplot().set_xlabel("gmacs")
        files = canvas.save(figure)
    assert len(draws) == 1 + len(files)
    assert canvas.save(figure) == files
