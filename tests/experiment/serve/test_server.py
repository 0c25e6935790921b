"""Addresses and their answers, and what the server refuses."""

from __future__ import annotations

import io
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path
from urllib.parse import quote

import pytest
from rich.console import Console

from jaxgpt.errors import UserError
from jaxgpt.experiment.serve import Server, serve
from jaxgpt.experiment.serve.server import PLOTLY, is_loopback
from tests.experiment.serve.conftest import Shelf, Visitor, write
from tests.experiment.serve.test_watch import BROKEN

RUN = "rope-seed0-0abc"
APIS = [
    "/api/experiments",
    "/api/experiment/trial",
    "/api/curves/trial?x=tokens&lines=runs",
    "/api/curves/trial?x=nonsense",
    f"/api/between/trial?a={RUN}&b=alibi-seed1-0abc",
    f"/api/run/trial/{RUN}?x=seconds",
    f"/api/log/trial/{RUN}",
    f"/api/log/trial/{RUN}?after=6",
    f"/api/log/trial/{RUN}?after=-1",
]
PAGES = ["/", "/experiment/trial", f"/run/trial/{RUN}", f"/run/trial/{RUN}?x=tokens", "/report/trial"]


# ------------------------------------------------------------------------------------------------------------- answers


def test_every_address_answers_and_everything_has_a_policy(full: Shelf, visit: Visitor):
    for path in [*APIS, *PAGES, f"/static/{PLOTLY}", "/static/style.css", "/static/run.js"]:
        asked = visit(path)
        assert asked.status == 200, path
        assert asked.headers["X-Content-Type-Options"] == "nosniff"
        assert asked.headers["Cross-Origin-Resource-Policy"] == "same-origin"
        policy = asked.headers["Content-Security-Policy"]
        if path == "/report/trial":
            assert policy.startswith("sandbox allow-scripts")
            assert "allow-same-origin" not in policy
            assert "connect-src" not in policy
        else:
            assert "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'" in policy
            assert "unsafe" not in policy
    assert visit("/report/trial").body == b"<h1>the report</h1>"
    assert visit(f"/api/log/trial/{RUN}?after=6").json() == {"text": "ended\n", "start": 6, "end": 12}


def test_what_has_not_changed_is_not_sent_again(full: Shelf, visit: Visitor):
    first = visit("/api/experiment/trial")
    assert visit("/api/experiment/trial", If_None_Match=first.headers["ETag"]).status == 304
    write(full.root / "trial" / RUN / "status.json", {"state": "failed", "message": "out of memory"})
    again = visit("/api/experiment/trial", If_None_Match=first.headers["ETag"])
    assert again.status == 200
    assert "out of memory" in again.body.decode()


def test_pages_name_nothing_outside(full: Shelf, visit: Visitor):
    for path in PAGES[:4]:
        text = visit(path).body.decode()
        assert "http:" not in text
        assert "https:" not in text
        assert "<script>" not in text


@pytest.mark.parametrize(("name", "content"), [(name, text) for name, texts in BROKEN.items() for text in texts])
def test_broken_files_are_never_an_error_of_the_server(full: Shelf, visit: Visitor, name: str, content: str):
    (full.root / "trial" / RUN / name).write_bytes(content.encode("latin-1"))
    for path in APIS:
        asked = visit(path)
        assert asked.status == 200, path
        asked.json()


def test_a_fault_of_the_server_is_said_and_ends_nothing(
    full: Shelf, visit: Visitor, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    monkeypatch.setattr("jaxgpt.experiment.serve.views.Views.experiments", lambda self: 1 / 0)
    asked = visit("/api/experiments")
    assert (asked.status, b"traceback" in asked.body) == (500, True)
    assert "ZeroDivisionError" in capsys.readouterr().err
    assert visit("/api/experiment/trial").status == 200


def test_a_broken_report_is_none(full: Shelf, visit: Visitor):
    report = full.root / "trial" / "report"
    for content in ("[", "[1]", '{"variants": 3, "labels": [], "title": {}}'):
        (report / "about.json").write_text(content)
        assert visit("/api/experiment/trial").status == 200
    (report / "index.html").unlink()
    assert visit("/report/trial").status == 404


def test_what_vanished_is_not_found(full: Shelf, visit: Visitor):
    shutil.rmtree(full.root / "trial" / RUN)
    assert [visit(path).status for path in APIS] == [200, 200, 200, 200, 404, 404, 404, 404, 404]
    shutil.rmtree(full.root)
    assert [visit(path).status for path in APIS] == [200] + [404] * 8
    assert visit("/").status == 200


# ------------------------------------------------------------------------------------------------------------ security


@pytest.mark.parametrize("method", ["POST", "PUT", "DELETE", "PATCH", "OPTIONS"])
def test_only_reading_is_answered(full: Shelf, visit: Visitor, method: str):
    asked = visit("/api/experiments", method)
    assert (asked.status, asked.headers["Allow"]) == (405, "GET, HEAD")


def test_head_has_the_headers_alone(full: Shelf, visit: Visitor):
    head, whole = visit("/api/experiments", "HEAD"), visit("/api/experiments")
    assert (head.status, head.body) == (200, b"")
    assert head.headers["Content-Length"] == str(len(whole.body))


@pytest.mark.parametrize(
    "path",
    [
        "/../secret.txt", "/static/../server.py", "/static/..%2fserver.py", "/static/frame.html", "/static/", "/static",
        "/experiment/..", "/experiment/%2e%2e", "/experiment/trial%2F..", "/run/trial/..", "/run/trial/%2e%2e%2fsecret",
        "/run/trial/report", "/report/..", "/report/trial/about.json", "/report/trial/..%2f..%2fsecret.txt",
        "/api/run/trial/..%2f..%2fsecret.txt", "/api/log/..%2f/x", "/api/log/trial/%00", "/api/experiment/.", "/api",
        "/api/", "/api/views", "/experiment/", "/run/trial", "/nothing", "//etc/passwd", "/%ff%fe",
        "/experiment/" + "a" * 5000,
    ],
)  # fmt: skip
def test_no_address_leads_out_of_the_store(full: Shelf, visit: Visitor, path: str):
    (full.root.parent / "secret.txt").write_text("hidden")
    (full.root / "secret.txt").write_text("hidden")
    asked = visit(path)
    assert asked.status == 404
    assert b"hidden" not in asked.body
    assert asked.headers["Content-Type"].startswith("text/plain")


@pytest.mark.parametrize(
    ("host", "status"),
    [
        ("localhost:8080", 200), ("127.0.0.1", 200), ("127.0.0.1:1", 200), ("[::1]:8080", 200), ("LOCALHOST", 200),
        ("evil.example", 403), ("evil.example:8080", 403), ("127.0.0.1.evil.example", 403), ("", 403),
        ("localhost@evil.example", 403), ("10.0.0.1", 403),
    ],
)  # fmt: skip
def test_other_names_for_this_machine_are_refused(full: Shelf, visit: Visitor, host: str, status: int):
    for path in ("/", "/api/experiments", f"/static/{PLOTLY}"):
        assert visit(path, Host=host).status == status


def test_a_request_that_is_none_is_not_quoted(full: Shelf, visit: Visitor):
    with socket.create_connection(("127.0.0.1", visit.server.port)) as connection:
        connection.sendall(b"<script>alert(1)</script> / HTTP/1.1\r\n\r\n")
        answer = connection.makefile("rb").read()
    assert b"501" in answer
    assert b"<script>" not in answer
    assert b"Content-Security-Policy" in answer


def test_names_in_pages_are_escaped(shelf: Shelf, visit: Visitor):
    name = '"><script>alert(1)<x' + "'&@MAIN@"
    shelf.run("rope", experiment=name)
    asked = visit(f"/experiment/{quote(name, safe='')}")
    assert asked.status == 200
    assert b"<script>alert" not in asked.body
    assert b"&quot;&gt;&lt;script&gt;alert(1)&lt;x&#x27;&amp;@MAIN@" in asked.body


# --------------------------------------------------------------------------------------------------- start and address


def test_a_port_in_use_is_named(tmp_path: Path):
    with Server(tmp_path, port=0) as server, pytest.raises(UserError, match=rf"port {server.port} .*--port"):
        Server(tmp_path, port=server.port)


@pytest.mark.parametrize(
    ("arguments", "words", "code"),
    [
        ({"port": 99999}, "--port 99999: must be 0 to 65535", 2),
        ({"host": "no.such.host.invalid"}, "--host no.such.host.invalid", 2),
        ({"host": "192.0.2.1", "port": 0}, "--host", 1),
    ],
)
def test_an_address_that_cannot_be_had(tmp_path: Path, arguments: dict, words: str, code: int):
    with pytest.raises(UserError, match=words) as raised:
        Server(tmp_path, **arguments)
    assert raised.value.exit_code == code


def test_no_folder_of_runs(tmp_path: Path):
    with pytest.raises(UserError, match="--runs-dir"):
        Server(tmp_path / "missing")


def test_which_addresses_are_of_this_machine_alone():
    assert all(map(is_loopback, ("localhost", "127.0.0.1", "127.8.8.8", "::1", "[::1]")))
    assert not any(map(is_loopback, ("0.0.0.0", "::", "10.1.2.3", "cluster-login", "")))


@pytest.mark.parametrize(("host", "warned"), [("127.0.0.1", False), ("0.0.0.0", True)])
def test_serving_to_others_is_warned_of_and_ctrl_c_ends(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, host: str, warned: bool
):
    def interrupted() -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("signal.pause", interrupted)
    out = io.StringIO()
    serve(tmp_path, host, 0, console=Console(file=out, width=200))
    text = out.getvalue()
    assert f"http://{host}:" in text
    assert ("whoever reaches port" in text) == warned
    assert text.endswith("stopped\n")


def test_it_starts_without_jax_and_ends_with_an_interrupt(full: Shelf):
    script = (
        "import sys; from pathlib import Path; from jaxgpt.experiment.serve import serve\n"
        f"serve(Path({str(full.root)!r}), port=0)\n"
        "print(sorted({'jax', 'matplotlib', 'scipy'} & set(sys.modules)))"
    )
    environment = {**os.environ, "PYTHONUNBUFFERED": "1"}
    process = subprocess.Popen([sys.executable, "-c", script], stdout=subprocess.PIPE, text=True, env=environment)
    assert process.stdout is not None
    assert "is shown at http://127.0.0.1:" in process.stdout.readline()
    time.sleep(0.2)
    process.send_signal(signal.SIGINT)
    out, _ = process.communicate(timeout=60)
    assert process.returncode == 0
    assert out.splitlines() == ["stopped", "[]"]


def test_answers_need_no_jax_either(full: Shelf):
    script = (
        "import sys; from pathlib import Path\n"
        "from jaxgpt.experiment.serve.views import Views; from jaxgpt.experiment.serve.watch import Store\n"
        f"assert Views(Store(Path({str(full.root)!r}))).experiment('trial')['comparison']\n"
        "assert 'jax' not in sys.modules and 'matplotlib.pyplot' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", script], check=True)
