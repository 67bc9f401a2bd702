"""Files are refused before the work and written whole or not at all."""

from pathlib import Path

import pytest

from captum_vit.errors import InputError
from captum_vit.viz.files import check_target, write_whole


def test_a_good_name_passes(tmp_path: Path):
    assert check_target(str(tmp_path / "map.PNG"), {".png"}) == tmp_path / "map.PNG"


def test_bad_names_are_refused(tmp_path: Path):
    (tmp_path / "old.png").write_text("old")
    (tmp_path / "folder.png").mkdir()
    for name in ("map.gif", "map", "missing/map.png", "old.png", "folder.png"):
        with pytest.raises(InputError):
            check_target(tmp_path / name, {".png"})
    assert check_target(tmp_path / "old.png", {".png"}, overwrite=True)


def test_a_failure_leaves_the_old_file_and_no_other(tmp_path: Path):
    path = tmp_path / "old.png"
    path.write_text("old")

    def fail(draft: Path) -> None:
        draft.write_text("half")
        raise RuntimeError("stop")

    with pytest.raises(RuntimeError):
        write_whole(path, fail)
    assert path.read_text() == "old"
    assert list(tmp_path.iterdir()) == [path]


def test_a_success_replaces(tmp_path: Path):
    path = write_whole(tmp_path / "map.txt", lambda draft: draft.write_text("whole"))
    assert path.read_text() == "whole"
    assert list(tmp_path.iterdir()) == [path]
