"""The page, in a real browser."""

import re
import shutil
import subprocess
from pathlib import Path

import pytest
from accelerate import PartialState

from quantus_metrics.benchmark.report import report
from quantus_metrics.benchmark.rows import Key, Row, read_rows
from quantus_metrics.benchmark.runner import Bench, bench_of, run
from quantus_metrics.benchmark.spec import spec_of
from quantus_metrics.benchmark.table import table_of

BROWSER = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
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


def test_the_page_holds_everything_and_loads_nothing(page: Path) -> None:
    html = page.read_text("utf-8")
    assert html.count("<script>") == 1 and NASTY not in html and "&lt;script&gt;" in html
    assert not re.search(r"""(src|href|srcset)=["']?(https?:)?//""", html)
    assert html.count("data:image/png;base64,") == 2 * 6 and html.count("data:image/svg+xml") == 2 * 2
    assert "prefers-color-scheme: dark" in html and 'name="viewport"' in html


def in_browser(page: Path, script: str = "", width: int = 1000) -> tuple[str, str]:
    """The page's DOM after a script ran in it, and what the browser logged."""
    assert BROWSER is not None
    visited = page.with_name("visited.html")
    visited.write_text(
        page.read_text("utf-8").replace("</body>", f"<script>{script}</script></body>"), encoding="utf-8"
    )
    options = ["--headless", "--no-sandbox", "--disable-gpu", "--enable-logging=stderr", f"--window-size={width},900"]
    done = subprocess.run(
        [BROWSER, *options, "--dump-dom", visited.as_uri()], capture_output=True, text=True, timeout=120, check=True
    )
    return done.stdout, done.stderr


needs_browser = pytest.mark.skipif(BROWSER is None, reason="no Chromium here")


@needs_browser
def test_it_opens_without_errors_and_names_stay_text(page: Path) -> None:
    dom, log = in_browser(page)
    assert "CONSOLE" not in log, log
    title = re.search(r"<title>(.*?)</title>", dom)
    assert title and title[1].startswith("Title &lt;script&gt;"), "nothing that came from outside ran"


@needs_browser
def test_headings_sort(page: Path) -> None:
    """By a click, there and back; and by the keyboard, since a heading is a button."""
    script = """
      const table = document.querySelector("table.sortable");
      const order = () => [...table.tBodies[0].rows].map((row) => row.cells[0].textContent.slice(0, 4)).join();
      const button = table.tHead.rows[0].cells[1].querySelector("button");
      const seen = [order()];
      button.click(); seen.push(order(), table.tHead.rows[0].cells[1].getAttribute("aria-sort"));
      button.focus(); document.activeElement.click(); seen.push(order());
      document.body.dataset.seen = seen.join(" ");
    """
    dom, log = in_browser(page, script)
    assert "CONSOLE" not in log, log
    assert 'data-seen="good,rand good,rand descending rand,good"' in dom


@needs_browser
def test_it_fits_a_phone(page: Path) -> None:
    script = "document.body.dataset.wide = String(document.documentElement.scrollWidth <= window.innerWidth);"
    dom, _ = in_browser(page, script, width=500)
    assert 'data-wide="true"' in dom
