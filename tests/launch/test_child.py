"""The program that ties a task to its launcher, run as the launcher runs it."""

import os
import subprocess
import sys

import pytest

from jaxgpt.launch import child


def run(parent, cpus, *command):
    argv = [sys.executable, "-I", "-S", child.__file__, str(parent), cpus, *command]
    return subprocess.run(argv, capture_output=True, text=True, timeout=30)


def test_becomes_the_command_with_its_exit_code():
    result = run(os.getpid(), "", sys.executable, "-S", "-c", "print('here'); raise SystemExit(7)")
    assert (result.returncode, result.stdout) == (7, "here\n")


def test_pins_to_the_cores_given():
    first = min(os.sched_getaffinity(0))
    result = run(os.getpid(), str(first), sys.executable, "-S", "-c", "import os; print(os.sched_getaffinity(0))")
    assert result.stdout.strip() == str({first})


def test_leaves_when_the_launcher_is_already_gone():
    result = run(1 if os.getpid() != 1 else 2, "", sys.executable, "-c", "print('ran')")
    assert result.returncode == 1
    assert "launcher is gone" in result.stderr
    assert "ran" not in result.stdout


def test_a_command_that_does_not_exist_is_one_line():
    result = run(os.getpid(), "", "no-such-command")
    assert result.returncode == 1
    assert result.stderr == "no-such-command: cannot be started (No such file or directory)\n"


def test_in_this_process(monkeypatch):
    """The same steps where coverage sees them, with the parts that would change this process replaced."""
    calls = []
    monkeypatch.setattr(os, "execvp", lambda name, argv: calls.append((name, argv)))
    monkeypatch.setattr(os, "sched_setaffinity", lambda pid, cpus: calls.append(cpus))
    monkeypatch.setattr(child.ctypes, "CDLL", lambda *_, **__: type("C", (), {"prctl": lambda self, *a: 0})())
    child.main([str(os.getppid()), "0,1", "echo", "x"])
    assert calls == [{0, 1}, ("echo", ["echo", "x"])]
    with pytest.raises(SystemExit, match="launcher is gone"):
        child.main(["999999999", "", "echo"])
    monkeypatch.setattr(child.ctypes, "CDLL", lambda *_, **__: type("C", (), {"prctl": lambda self, *a: -1})())
    with pytest.raises(OSError, match="prctl"):
        child.tie_to_parent(os.getppid())
