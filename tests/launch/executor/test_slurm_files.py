"""The records that jobs and those who follow them exchange."""

import dataclasses

from jaxgpt.launch.executor.slurm_files import (
    Attempt,
    Submitted,
    all_submitted,
    attempt_path,
    job_path,
    read_attempt,
    read_submitted,
    write,
)

FIRST = Attempt("one", "7_1", restart=0, number=1, node="n0", started=100.0)


def test_what_is_written_is_read_whatever_the_name(tmp_path):
    for name in ("rope-seed0", "a/b c", "..", ".hidden"):
        attempt = dataclasses.replace(FIRST, name=name, code=-9, ended=130.5, final=True, message="wörter")
        write(attempt_path(tmp_path, name), attempt)
        assert read_attempt(attempt_path(tmp_path, name)) == attempt
        assert attempt_path(tmp_path, name).parent == tmp_path / "slurm" / "attempts"


def test_jobs_on_record_come_in_the_order_of_submission(tmp_path):
    jobs = [Submitted("b", "7_0", 1.0), Submitted("a", "7_1", 2.0, retries=1, cancelled=True)]
    for one in jobs:
        write(job_path(tmp_path, one.name), one)
    assert all_submitted(tmp_path) == jobs
    assert all_submitted(tmp_path / "nothing") == []


def test_what_cannot_be_read_is_not_there(tmp_path):
    path = job_path(tmp_path, "one")
    assert read_submitted(path) is None
    path.parent.mkdir(parents=True)
    for text in ("", "{", "[]", '{"name": "one"}', '{"of": "another version"}'):
        path.write_text(text)
        assert read_submitted(path) is None
        assert all_submitted(tmp_path) == []


def test_seconds_add_up_over_attempts():
    assert FIRST.seconds == 0.0
    assert dataclasses.replace(FIRST, ended=130.5).seconds == 30.5
    assert dataclasses.replace(FIRST, before=9.5, ended=130.5).seconds == 40.0
    assert dataclasses.replace(FIRST, before=9.5, ended=99.0).seconds == 9.5  # a clock that was set back


def test_starts_of_a_job_are_told_apart():
    assert FIRST.same_start(dataclasses.replace(FIRST, code=3, final=True))
    assert not FIRST.same_start(dataclasses.replace(FIRST, restart=1))
    assert not FIRST.same_start(dataclasses.replace(FIRST, job="8"))
    assert not FIRST.same_start(None)
