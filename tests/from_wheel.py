"""What a user gets who has only the wheel: in an empty environment it runs the README's code and the examples.

    python tests/from_wheel.py [--keep FOLDER]

Takes some twenty minutes and installs several gigabytes; run it before a release. Only examples/ is copied beside the
environment, so that nothing is read from the tree. Weights are not fetched: commands that need some from a hub read
those that ship with the package.
"""

from __future__ import annotations

import argparse
import os
import re
import shlex
import shutil
import subprocess
import sys
import time
import venv
from pathlib import Path
from tempfile import TemporaryDirectory

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text(encoding="utf-8")
BERT = "{site}/captum_vit/demo/reviews/weights"
COMMANDS = (  # those of README and docs, on few inputs and on weights that are here
    "captum-vit demo --scenes 2 --reviews 2 --captions 2",
    f"captum-vit explain 'The plot was hardly a triumph.' --model hf:{BERT} --target negative",
    f"captum-vit doctor --model hf:{BERT}",
    "captum-vit methods",
    "captum-vit benchmark examples/tables/demo/all.toml --limit 1 --out one",
    "torchrun --nproc_per_node 2 -m quantus_metrics.benchmark examples/tables/demo/all.toml --limit 2 --out two",
)


def main(folder: Path) -> int:
    """Build, install, run; the number of failures."""
    wheel(folder)
    shutil.copytree(ROOT / "examples", folder / "examples", ignore=shutil.ignore_patterns("__pycache__"))
    site = next((folder / "venv").rglob("site-packages"))
    blocks = re.findall(r"```python\n(.*?)```", README, re.DOTALL)
    (folder / "readme.py").write_text("\n".join(blocks), encoding="utf-8")

    names = sorted(path.name for path in (folder / "examples").glob("*.py") if not path.name.startswith("app"))
    scripts = [f"python examples/{name}" for name in names]
    commands = [*(command.format(site=site) for command in COMMANDS), "python readme.py", *scripts]
    failed = [command for command in commands if not run(command, folder)]
    if not opens("python examples/app.py --port 7869", folder):
        failed.append("examples/app.py")
    print(f"{len(commands) + 1 - len(failed)} of {len(commands) + 1} ran", *failed, sep="\n")
    return len(failed)


def wheel(folder: Path) -> None:
    """An environment that holds the wheel, what it asks for, and nothing else."""
    subprocess.run([sys.executable, "-m", "pip", "wheel", "-q", "--no-deps", "-w", folder, ROOT], check=True)
    (built,) = folder.glob("*.whl")
    venv.create(folder / "venv", with_pip=True)
    subprocess.run([folder / "venv/bin/pip", "install", "-q", f"{built}[all,app]"], check=True)


def environment(folder: Path) -> dict[str, str]:
    own = {"PATH": f"{folder / 'venv/bin'}:{os.environ['PATH']}", "MPLBACKEND": "Agg", "HF_HUB_OFFLINE": "1"}
    return {name: value for name, value in os.environ.items() if name != "PYTHONPATH"} | own


def run(command: str, folder: Path) -> bool:
    """Whether it ends well; its last lines if it does not."""
    start = time.monotonic()
    done = subprocess.run(shlex.split(command), cwd=folder, env=environment(folder), capture_output=True, text=True)
    print(f"{'ok  ' if done.returncode == 0 else 'FAIL'} {time.monotonic() - start:4.0f} s  {command}", flush=True)
    if done.returncode:
        print(*done.stderr.splitlines()[-12:], sep="\n", flush=True)
    return done.returncode == 0


def opens(command: str, folder: Path) -> bool:
    """Whether the page is there; it does not end by itself."""
    app = subprocess.Popen(
        shlex.split(command),
        cwd=folder,
        env=environment(folder) | {"PYTHONUNBUFFERED": "1"},
        stdout=subprocess.PIPE,
        text=True,
    )
    assert app.stdout is not None
    line = app.stdout.readline()  # its address, or nothing where it failed
    app.terminate()
    app.wait()
    print(f"{'ok  ' if 'http://127.0.0.1' in line else 'FAIL'}         {command}", flush=True)
    return "http://127.0.0.1" in line


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    parser.add_argument("--keep", type=Path, help="work in this new folder and leave it there")
    args = parser.parse_args()
    if args.keep:
        args.keep.mkdir(parents=True)
        sys.exit(main(args.keep.resolve()))
    with TemporaryDirectory() as scratch:
        sys.exit(main(Path(scratch)))
