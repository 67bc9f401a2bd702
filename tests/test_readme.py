"""The README's code runs as it is written."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text(encoding="utf-8")
BLOCKS = re.findall(r"```python\n(.*?)```", README, re.DOTALL)


def test_it_is_short() -> None:
    assert len(README.split()) < 900
    assert len(BLOCKS) >= 4
    assert max(len(block.strip().splitlines()) for block in BLOCKS) < 8


@pytest.mark.slow
def test_the_blocks_run_in_turn_and_save_again_in_the_same_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    names: dict[str, object] = {}
    for number, block in enumerate([*BLOCKS, *(block for block in BLOCKS if ".save(" in block)], 1):
        exec(compile(block, f"README.md, block {number}", "exec"), names)
    assert names["maps"].shape == (8, 1, 8, 8)  # type: ignore[attr-defined]
    saved = re.findall(r'\.save\("(.+?)"\)', "".join(BLOCKS))
    assert len(saved) >= 3
    assert all((tmp_path / name).stat().st_size > 1000 for name in saved)
    assert capsys.readouterr().out.count("(n = 8)") == 3


def test_two_commands_and_their_pictures() -> None:
    assert 'pip install ".[demo]" && .venv/bin/captum-vit demo\n' in README
    assert 'pip install -c constraints.txt -e ".[dev]" && .venv/bin/python -m pytest -n 2\n' in README
    pictures = re.findall(r"!\[[^]]*\]\((docs/.*?)\)", README)
    assert pictures and all((ROOT / picture).is_file() for picture in pictures)
