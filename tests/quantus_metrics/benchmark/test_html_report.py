"""The page, in a real browser."""

import re
from pathlib import Path

import pytest
from accelerate import PartialState

from quantus_metrics.benchmark.html_report import report
from quantus_metrics.benchmark.rows import Key, Row, read_rows
from quantus_metrics.benchmark.runner import Bench, bench_of, run
from quantus_metrics.benchmark.table import table_of
from quantus_metrics.benchmark.toml_spec import spec_of
from tests.chromium import Chromium, needs_browser

READY = "document.readyState == 'complete' && document.querySelector('table.sortable')"
ENTER = {"key": "Enter", "code": "Enter", "windowsVirtualKeyCode": 13}
NASTY = '<script>document.title = "broken into"</script>'


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> tuple[Bench, dict[Key, Row]]:
    """A run whose names and errors would be markup, if a page let them."""
    spec = spec_of(
        {
            "title": f"Title {NASTY}",
            "source": NASTY,
            "batch_size": 8,
            "data": {"use": "digits", "options": {"scenes": 6}},
            "model": [{"name": f"model {NASTY}", "load": "demo:digits"}],
            "method": [{"name": f"good {NASTY}", "use": "GenAtt"}, {"name": "random", "use": "RandomAttribution"}],
            "metric": [{"name": "Fidelity", "options": {"fractions": [0.0, 0.5, 1.0]}}, {"name": "Compactness"}],
        }
    )
    bench, folder = bench_of(spec), tmp_path_factory.mktemp("run")
    run(bench, folder, PartialState(cpu=True))
    rows = read_rows(folder, spec.hash)
    torn = Row(
        spec.hash, 0, "", spec.model[0].name, "random", "Fidelity", f"{NASTY}.png", None, {}, f"OSError: {NASTY}"
    )
    return bench, rows | {torn.key: torn}


@pytest.fixture(scope="module")
def page(finished: tuple[Bench, dict[Key, Row]], tmp_path_factory: pytest.TempPathFactory) -> Path:
    bench, rows = finished
    path = tmp_path_factory.mktemp("page") / "report.html"
    path.write_text(report(bench, table_of(bench, rows), rows, PartialState(cpu=True).device), encoding="utf-8")
    return path


@pytest.mark.slow
def test_the_page_holds_everything_and_loads_nothing(page: Path) -> None:
    html = page.read_text("utf-8")
    assert html.count("<script>") == 1 and NASTY not in html and "&lt;script&gt;" in html
    assert not re.search(r"""(src|href|srcset)=["']?(https?:)?//""", html)
    assert html.count("data:image/png;base64,") == 2 * 6 and html.count("data:image/svg+xml") == 2 * 3
    assert "prefers-color-scheme: dark" in html and 'name="viewport"' in html


@pytest.mark.slow
@needs_browser
def test_it_opens_without_errors_and_names_stay_text(page: Path) -> None:
    with Chromium(page.as_uri()) as browser:
        browser.wait_for(READY)
        assert browser.run("document.title").startswith("Title <script>"), "nothing that came from outside ran"
        assert browser.run("document.scripts.length") == 1
        assert not browser.errors()


@pytest.mark.slow
@needs_browser
def test_headings_sort(page: Path) -> None:
    """By a click, there and back; and by the keyboard, since a heading is a button."""
    order = "[...document.querySelector('table.sortable').tBodies[0].rows].map((r) => r.cells[0].innerText.slice(0, 4))"
    heading = "document.querySelector('table.sortable').tHead.rows[0].cells[1]"
    with Chromium(page.as_uri()) as browser:
        browser.wait_for(READY)
        assert browser.run(order) == ["good", "rand"]
        browser.run(f"{heading}.querySelector('button').click()")
        assert browser.run(f"{heading}.getAttribute('aria-sort')") == "descending"
        browser.run(f"{heading}.querySelector('button').focus()")
        for way in ("keyDown", "keyUp"):
            browser.ask("Input.dispatchKeyEvent", type=way, text="\r", **ENTER)
        assert browser.run(f"{heading}.getAttribute('aria-sort')") == "ascending"
        assert browser.run(order) == ["rand", "good"]
        assert not browser.errors()


@pytest.mark.slow
@needs_browser
@pytest.mark.parametrize("width", [390, 500])
def test_it_fits_a_phone(page: Path, width: int) -> None:
    with Chromium(page.as_uri(), width=width) as browser:
        browser.wait_for(READY)
        assert browser.run("document.documentElement.scrollWidth <= window.innerWidth")
        assert not browser.errors()
