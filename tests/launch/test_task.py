from pathlib import Path

from jaxgpt.launch.task import Outcome, Task, tail

TASK = Task("t", ("true",), Path("log"))


def test_outcomes_say_how_a_task_ended():
    assert Outcome(TASK, 0).ok
    assert not Outcome(TASK, None).ok
    assert Outcome(TASK, None).describe() == "was not started"
    assert Outcome(TASK, 3).describe() == "exit code 3"
    assert Outcome(TASK, -15).describe() == "killed by SIGTERM"
    assert "out of memory" in Outcome(TASK, -9).describe()
    assert Outcome(TASK, -250).describe() == "killed by signal 250"
    assert Outcome(TASK, 28).describe() == "no space was left on the disk"
    assert Outcome(TASK, 1, message="no such file").describe() == "no such file"


def test_tail_reads_the_end_of_a_long_log(tmp_path):
    log = tmp_path / "log.txt"
    log.write_text("\n".join(f"line {i}" for i in range(10000)))
    assert tail(log, 2) == "line 9998\nline 9999"
    assert tail(tmp_path / "missing") == ""
