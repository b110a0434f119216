"""The report as a reader meets it, in a headless Chromium: 42 variants, 2 data sets, 2 runtimes, INVENTED numbers."""

from __future__ import annotations

import itertools
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from browser import Browser, found
from invented import WITHOUT_WEIGHTS, invent, invent_gallery, names

from sambench.results.drawing import write
from sambench.results.figure import all_figures, selected_figures
from sambench.results.report import Data, Page, render
from sambench.results.table import all_tables

pytestmark = [
    pytest.mark.xdist_group("layout"),
    pytest.mark.skipif(not found(), reason="no Chromium here: Debian's package `chromium` brings one"),
]
VARIANTS = [*names(41), "<script>window.broken=1</script> & \"quoted\" 'name'"]
DATASETS, RUNTIMES = ("scenes", "coco"), ("eager", "fast")
ODD = '<img src=x onerror="window.broken=1">'
DESKTOP, PHONE = (1280, 800), (390, 844)


@pytest.fixture(scope="module")
def page(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A report of everything that the registries know, but for figures of other authors."""
    tables = [
        (table, invent(table, VARIANTS, DATASETS, RUNTIMES))
        for name, table in all_tables().items()
        if name != "reproduction"
    ]
    figures = [(all_figures()[name], "<svg></svg>") for name in selected_figures([table.name for table, _ in tables])]
    data = [Data(name, 5000, 36781, ODD, ("sha256 0123456789ab",)) for name in DATASETS]
    path = tmp_path_factory.mktemp("layout") / "index.html"
    gallery = [invent_gallery(VARIANTS, name, RUNTIMES) for name in DATASETS]
    path.write_text(render(Page(f"INVENTED {ODD}", tables, figures, data, {"git_commit": ODD}, {"odd": ODD}, gallery)))
    return path


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    with Browser() as browser:
        yield browser


def first_column(browser: Browser, table: str, column: str) -> list[Any]:
    """The texts of a column of a table, by its name in the files."""
    return list(
        browser.run(
            f"""(() => {{
              const table = document.querySelector('[data-grid={table}] table');
              const at = [...table.tHead.rows[0].cells].findIndex(c => c.querySelector('button').title === {column!r});
              return [...table.tBodies[0].rows].map(row => row.cells[at].textContent);
            }})()"""
        )
    )


def test_the_file_is_small(page: Path) -> None:
    assert page.stat().st_size < 15e6


@pytest.mark.parametrize("dark", [False, True])
@pytest.mark.parametrize(("width", "height"), [DESKTOP, PHONE])
def test_the_first_screen_answers(browser: Browser, page: Path, width: int, height: int, dark: bool) -> None:
    browser.open(page, width, height, dark)
    browser.wait("document.querySelector('#summary .plot svg') !== null")
    assert browser.errors == [] and browser.requests == [page.resolve().as_uri()]
    assert browser.run("document.documentElement.scrollWidth") <= width, "nothing sticks out to the right"
    assert browser.run("document.documentElement.scrollHeight") < (3000 if width > 600 else 4500)
    bottom = "document.querySelector({!r}).getBoundingClientRect().bottom"
    assert browser.run(bottom.format("#summary .plot svg")) < height, "the figure is on the first screen"
    if width > 600:
        rows = browser.run(bottom.format("#summary .grid tbody tr:nth-child(2)"))
        assert rows < height, "so is the beginning of the summary"
    ground = browser.run("getComputedStyle(document.body).backgroundColor")
    assert (ground != "rgb(255, 255, 255)") == dark
    assert browser.run("window.broken") is None and ODD in browser.run("document.body.textContent")


def test_contrast_of_all_text(browser: Browser, page: Path) -> None:
    """4.5 to 1 at least, as WCAG 2.2 asks for (1.4.3), with its formula of relative luminance."""
    for dark in (False, True):
        browser.open(page, *DESKTOP, dark)
        colours = browser.run(
            """Object.fromEntries(['ground', 'soft', 'mark', 'ink', 'quiet', 'link'].map(name =>
              [name, getComputedStyle(document.documentElement).getPropertyValue('--' + name).trim()]))"""
        )
        light = {name: luminance(colour) for name, colour in colours.items()}
        for ground in ("ground", "soft", "mark"):
            for text in ("ink", "quiet", "link"):
                low, high = sorted((light[ground], light[text]))
                assert (high + 0.05) / (low + 0.05) >= 4.5, (dark, ground, text)


def luminance(colour: str) -> float:
    digits = colour.removeprefix("#")
    digits = digits if len(digits) == 6 else "".join(2 * digit for digit in digits)
    parts = [int(digits[at : at + 2], 16) / 255 for at in (0, 2, 4)]
    red, green, blue = (part / 12.92 if part <= 0.04045 else ((part + 0.055) / 1.055) ** 2.4 for part in parts)
    return 0.2126 * red + 0.7152 * green + 0.0722 * blue


def test_a_click_sorts_and_menus_and_words_filter(browser: Browser, page: Path) -> None:
    browser.open(page, *DESKTOP)
    click = "document.querySelector('[data-grid=summary] th button[title=miou_box]').click()"
    for order in ("descending", "ascending"):
        browser.run(click)
        shown = [re.match(r"[\d.]+", text) for text in first_column(browser, "summary", "miou_box")]
        values = [float(text[0]) for text in shown if text]
        assert values == sorted(values, reverse=order == "descending") and len(values) == 37 * 4
        assert all(text is None for text in shown[len(values) :]), "what has no number comes last"
        head = "document.querySelector('[data-grid=summary] th[aria-sort={}] button').title"
        assert browser.run(head.format(order)) == "miou_box"
    choose = """(() => {{ const menu = document.querySelector('[data-grid=summary] select[data-column={}]');
      menu.value = {!r}; menu.dispatchEvent(new Event('change')); }})()"""
    browser.run(choose.format("runtime", "=fast"))
    assert {*first_column(browser, "summary", "runtime")} == {"fast"}
    words = """(() => {{ const box = document.querySelector('[data-grid=summary] input');
      box.value = {!r}; box.dispatchEvent(new Event('input')); }})()"""
    browser.run(words.format("variant_07 COCO"))
    assert first_column(browser, "summary", "variant") == ["invented_variant_07"]
    assert browser.run("document.querySelector('[data-grid=summary] [role=status]').textContent") == "1 of 168 rows"
    browser.run(words.format(""))
    browser.run(choose.format("runtime", ""))
    assert len(first_column(browser, "summary", "variant")) == 168


def test_every_section_opens(browser: Browser, page: Path) -> None:
    browser.open(page, *DESKTOP)
    sections = browser.run("[...document.querySelectorAll('main > details')].map(section => section.id)")
    assert {"accuracy_boxes", "object_size", "selection_rules", "everything_time", "latency"} <= {*sections}
    for section in sections:
        browser.run(f"location.hash = {section!r}")
        one = f"document.getElementById({section!r})"
        browser.wait(f"{one}.open && [...{one}.querySelectorAll('.plot')].every(plot => plot.querySelector('svg'))")
        assert browser.errors == [], section
        if browser.run(f"{one}.querySelector('.grid') !== null"):
            assert browser.run(f"{one}.querySelectorAll('tbody tr').length") > 0
        browser.run(f"{one}.open = false")
    assert browser.requests == [page.resolve().as_uri()]
    levels = browser.run("[...document.querySelectorAll('h1, h2, h3')].map(heading => +heading.tagName[1])")
    assert levels[0] == 1 and levels.count(1) == 1
    assert all(after <= before + 1 for before, after in itertools.pairwise(levels)), "no level is left out"
    unnamed = (
        "[...document.querySelectorAll('select, input, button')].filter(e => !(e.labels?.length || e.textContent))"
    )
    assert browser.run(f"{unnamed}.length") == 0, "every control has a name"
    assert browser.run("window.broken") is None


@pytest.mark.parametrize(("width", "height"), [DESKTOP, PHONE])
def test_the_gallery_steps_through_variants_and_instances(
    browser: Browser, page: Path, width: int, height: int
) -> None:
    browser.open(page, width, height)
    browser.run("location.hash = 'gallery'")
    browser.wait("document.querySelectorAll('.strip').length === 6")
    with_masks = len(VARIANTS) - WITHOUT_WEIGHTS
    strips = browser.run(
        """[...document.querySelectorAll('.strip')].map(strip =>
          [...strip.querySelectorAll('button')].map(button => button.textContent))"""
    )
    # The first variant does not take points, which every second picture is prompted with.
    assert [len(strip) for strip in strips] == [1 + with_masks, with_masks] * 3
    for truth, *rest in strips:
        assert truth == "ground truth"
        ious = [float(text.rpartition(" ")[2]) for text in rest]
        assert ious == sorted(ious, reverse=True), "best first"
    text = browser.run("document.querySelector('.gallery').innerText")
    assert f"Without masks: no weights ({', '.join(VARIANTS[-WITHOUT_WEIGHTS:])})" in text
    assert text.count(f"without a mask: unsupported prompt ({VARIANTS[0]})") == 3
    drawn = browser.run(
        """(() => { const svg = document.querySelector('.strip button:nth-child(2) svg').getBoundingClientRect();
          return [svg.width, svg.height]; })()"""
    )
    assert drawn[1] == pytest.approx(150) and drawn[0] == pytest.approx(200), "480 x 360 pixels of the image"
    assert browser.run("document.documentElement.scrollWidth") <= width, "strips scroll, the page does not"

    caption = "document.querySelector('.viewer [role=status]').textContent"
    browser.run("document.querySelectorAll('.strip')[2].querySelectorAll('button')[1].click()")
    assert browser.run("document.querySelector('.viewer').open")
    best = strips[2][1].rpartition(" ")
    assert browser.run(caption).startswith(f"{best[0]} IoU {best[2]} % (1 of {with_masks})")
    browser.press("ArrowRight")
    assert browser.run(caption).startswith(strips[2][2].rpartition(" ")[0])
    browser.press("ArrowLeft")
    browser.press("ArrowLeft")
    assert browser.run(caption).startswith("ground truth (0 of")
    browser.press("ArrowLeft")
    assert browser.run(caption).startswith(strips[2][-1].rpartition(" ")[0]), "from the first to the last"
    name = strips[2][-1].rpartition(" ")[0]
    for key in ("ArrowDown", "ArrowUp", "ArrowUp", "ArrowUp"):
        browser.press(key)
    picture = browser.run("document.querySelector('.viewer use').getAttribute('href')")
    assert picture == "#picture-0" and browser.run(caption).startswith(name), "the same variant in another picture"
    browser.run("document.querySelector('.viewer button[title=\"next variant\"]').click()")
    assert not browser.run(caption).startswith(name)
    browser.press("Escape")
    assert not browser.run("document.querySelector('.viewer').open")

    choose = """(() => {{ const menu = document.querySelector('[data-choose="{}"]');
      menu.value = {!r}; menu.dispatchEvent(new Event('change')); }})()"""
    before = browser.run("document.querySelector('.strip button:nth-child(2)').textContent")
    browser.run(choose.format("runtime", RUNTIMES[1]))
    assert browser.run("document.querySelector('.strip button:nth-child(2)').textContent") != before
    first = browser.run("document.querySelector('#picture-0').getAttribute('href')")
    browser.run(choose.format("data set", DATASETS[1]))
    assert browser.run("document.querySelector('#picture-0').getAttribute('href')") != first
    assert browser.errors == [] and browser.requests == [page.resolve().as_uri()]


def test_figures_of_many_variants_stay_readable(tmp_path: Path) -> None:
    """Bounded height, and every variant named where each has its line."""
    tables = {name: invent(all_tables()[name], VARIANTS, DATASETS, RUNTIMES) for name in ("accuracy_points",)}
    path = tmp_path / "accuracy_points.svg"
    write(all_figures()["accuracy_points"].drawn(tables).static, [path])
    svg = path.read_text()
    size = re.search(r'width="([\d.]+)" height="([\d.]+)"', svg)
    assert size and float(size[1]) < 1800 and float(size[2]) < 1500
    assert all(f">{name}<" in svg for name in names(41)) and svg.count(">no weights<") >= 5
