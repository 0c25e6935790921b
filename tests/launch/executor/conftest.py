"""Slurm's programs as shell scripts that say what a test lets them say."""

import shutil

import pytest


@pytest.fixture
def programs(tmp_path, monkeypatch):
    """`programs(squeue="echo ...")`: these programs and no other of Slurm's; what they were called with is in the list
    that is returned by `programs.calls()`."""
    folder = tmp_path / "programs"
    folder.mkdir()
    log = folder / "calls.txt"
    for name in ("cat", "sleep"):
        (folder / name).symlink_to(shutil.which(name) or "")
    monkeypatch.setenv("PATH", str(folder))
    for name in ("squeue", "sacct", "scancel", "scontrol"):  # none of this machine's
        (folder / name).write_text("#!/bin/sh\nexit 127\n")
        (folder / name).chmod(0o755)

    def make(**scripts: str) -> None:
        for name, body in scripts.items():
            (folder / name).write_text(f'#!/bin/sh\necho "{name} $*" >> {log}\n{body}\n')

    make.calls = lambda: log.read_text().splitlines() if log.exists() else []
    make.remove = lambda name: (folder / name).unlink()
    return make
