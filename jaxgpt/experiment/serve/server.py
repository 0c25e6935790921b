"""Addresses, headers, and who may ask.

Only GET and HEAD are answered. A name in an address is looked up among what was found in the runs folder and never made
part of a path. Bound to loopback, the server answers only to loopback's names, so that no page of another site can
reach it by a name of its own that resolves to this machine (DNS rebinding).
"""

from __future__ import annotations

import functools
import hashlib
import ipaddress
import json
import math
import re
import signal
import socket
import sys
import threading
import traceback
from collections.abc import Callable
from html import escape
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from socketserver import TCPServer
from types import TracebackType
from typing import TYPE_CHECKING, Any
from urllib.parse import parse_qs, unquote

from rich.console import Console
from rich.text import Text

from jaxgpt.errors import ConfigError, UserError
from jaxgpt.experiment.serve.watch import NotFound, Store

if TYPE_CHECKING:
    from jaxgpt.experiment.serve.views import Views

_STATIC = Path(__file__).parent / "static"
_TYPES = {".css": "text/css", ".js": "text/javascript"}
_HTML = "text/html"
PLOTLY = "plotly.js"

_OWN = (
    "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; img-src 'self' data: blob:; "
    "base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)
# A report is one file with its scripts inside. It gets no origin, so that nothing in it can ask this server anything.
_REPORT = (
    "sandbox allow-scripts allow-downloads; default-src 'none'; script-src 'unsafe-inline'; style-src 'unsafe-inline'; "
    "img-src data: blob:; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)


class Server:
    """A dashboard of the runs in a folder.

    Args:
      runs_dir: holds EXPERIMENT/RUN/.
      host: the address to listen on; other machines reach it only where this is not loopback.
      port: 0 takes a free one.
      refresh: seconds between two looks of an open page.

    Raises:
      UserError: no such folder, or the address cannot be had.
    """

    def __init__(self, runs_dir: Path, host: str = "127.0.0.1", port: int = 8080, refresh: float = 3.0):
        if not runs_dir.is_dir():
            raise UserError(f"{runs_dir}: is no folder of runs; name the one that holds them with --runs-dir")
        self.runs_dir, self.refresh, self.loopback = runs_dir, refresh, is_loopback(host)
        self.store, self.lock = Store(runs_dir), threading.Lock()
        self._http = _listen(host, port, self)
        self._host, self.port = host, self._http.server_address[1]

    @property
    def url(self) -> str:
        return f"http://{f'[{self._host}]' if ':' in self._host else self._host}:{self.port}/"

    @functools.cached_property
    def views(self) -> Views:
        """Made when first asked, for the statistics take a second to import."""
        from jaxgpt.experiment.serve.views import Views

        return Views(self.store)

    def serve_forever(self) -> None:
        """Answer until `close`."""
        self._http.serve_forever(poll_interval=0.1)

    def close(self) -> None:
        """Stop answering, and give the port back."""
        self._http.shutdown()
        self._http.server_close()

    def __enter__(self) -> Server:
        threading.Thread(target=self.serve_forever, daemon=True).start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


def serve(
    runs_dir: Path, host: str = "127.0.0.1", port: int = 8080, refresh: float = 3.0, console: Console | None = None
) -> None:
    """Show the runs in a folder until Ctrl-C. Arguments and errors as of `Server`."""
    console = console or Console()
    with Server(runs_dir, host, port, refresh) as server:
        try:
            console.print(Text(f"{runs_dir} is shown at {server.url} (Ctrl-C ends)"), soft_wrap=True)
            if not server.loopback:
                warning = (
                    f"warning: whoever reaches port {server.port} of this machine can read all runs and their logs"
                )
                console.print(Text(warning, "yellow"), soft_wrap=True)
            while True:
                signal.pause()  # until any signal
        except KeyboardInterrupt:
            console.print("stopped")


def is_loopback(host: str) -> bool:
    """Whether only this machine reaches an address."""
    try:
        return ipaddress.ip_address(host.strip("[]")).is_loopback
    except ValueError:
        return host.lower() == "localhost"


class _Listener(ThreadingHTTPServer):
    daemon_threads = True

    def server_bind(self) -> None:
        """Without the library's look-up of this machine's name, which waits where no name server answers."""
        TCPServer.server_bind(self)

    def handle_error(self, request: Any, client_address: Any) -> None:
        if not isinstance(sys.exception(), OSError):  # a browser that went away is no fault
            traceback.print_exc()


def _listen(host: str, port: int, server: Server) -> ThreadingHTTPServer:
    class Handler(_Handler):
        owner = server

    class Listener(_Listener):
        address_family = socket.AF_INET6 if ":" in host else socket.AF_INET

    try:
        return Listener((host, port), Handler)
    except socket.gaierror:
        raise ConfigError(
            f"--host {host}: is no address of this machine; leave it out to serve this machine alone"
        ) from None
    except OverflowError:
        raise ConfigError(f"--port {port}: must be 0 to 65535") from None
    except OSError as error:
        way_out = "choose another with --port, or an address of this machine with --host"
        raise UserError(f"port {port} of {host} cannot be had ({error.strerror}); {way_out}") from None


# ------------------------------------------------------------------------------------------------------------- answers


class _Handler(BaseHTTPRequestHandler):
    """One connection."""

    owner: Server
    protocol_version = "HTTP/1.1"
    timeout = 60  # seconds that an idle connection is kept
    server_version, sys_version = "jaxgpt", ""

    def do_GET(self) -> None:
        if not self._is_meant():
            self._say(HTTPStatus.FORBIDDEN, "this server answers to names of this machine alone")
            return
        path, _, query = self.path.partition("?")
        parts = [unquote(part) for part in path.split("/")[1:]] or [""]
        try:
            self._answer(parts, {name: values[-1] for name, values in parse_qs(query).items()})
        except NotFound:
            self._say(HTTPStatus.NOT_FOUND, "there is nothing here: the run or experiment may be gone")
        except OSError:  # the browser went away
            raise
        except Exception:
            traceback.print_exc()
            self._say(HTTPStatus.INTERNAL_SERVER_ERROR, "a fault of this server: its terminal has the traceback")

    do_HEAD = do_GET

    def _refuse(self) -> None:
        self.close_connection = True  # what follows may be a body
        self._say(
            HTTPStatus.METHOD_NOT_ALLOWED, "only GET and HEAD: nothing can be changed from here", allow="GET, HEAD"
        )

    do_POST = do_PUT = do_DELETE = do_PATCH = do_OPTIONS = do_TRACE = do_CONNECT = _refuse

    def _is_meant(self) -> bool:
        """Whether the Host header names this machine, where nobody else is served."""
        if not self.owner.loopback:
            return True
        hosts = self.headers.get_all("Host", [])
        return len(hosts) == 1 and is_loopback(re.sub(r":\d*$", "", hosts[0].strip()))

    def _answer(self, parts: list[str], query: dict[str, str]) -> None:
        if parts[0] == "api":
            with self.owner.lock:
                found = _found(self.owner.views, parts[1:], query)
            self._send(json.dumps(_finite(found), allow_nan=False).encode(), "application/json")
        elif parts[0] == "static" and len(parts) == 2:
            content, kind = _static(parts[1])
            self._send(content, kind, keep="max-age=86400" if parts[1] == PLOTLY else "no-cache")
        elif parts[0] == "report" and len(parts) == 2:
            page = self.owner.store.report(parts[1])
            if page is None:
                raise NotFound
            try:
                self._send(page.read_bytes(), _HTML, policy=_REPORT)
            except OSError:
                raise NotFound from None
        else:
            self._send(self._page(parts).encode(), _HTML)

    def _page(self, parts: list[str]) -> str:
        """A page's frame; its script fills it."""
        store = self.owner.store
        if parts == [""]:
            return _page("experiments", self.owner.refresh)
        if parts[0] == "experiment" and len(parts) == 2 and parts[1] in store.experiments():
            return _page("experiment", self.owner.refresh, parts[1])
        if parts[0] == "run" and len(parts) == 3 and store.has_run(parts[1], parts[2]):
            return _page("run", self.owner.refresh, parts[1], parts[2])
        raise NotFound

    def _say(self, status: HTTPStatus, message: str, **headers: str) -> None:
        self._send(f"{message}\n".encode(), "text/plain", status=status, **headers)

    def send_error(self, code: int, message: str | None = None, explain: str | None = None) -> None:
        """What the library says of requests it does not understand, without quoting them."""
        self.close_connection = True
        self._say(HTTPStatus(code), HTTPStatus(code).phrase)

    def _send(
        self,
        content: bytes,
        kind: str,
        status: HTTPStatus = HTTPStatus.OK,
        policy: str = _OWN,
        keep: str = "no-cache",
        **headers: str,
    ) -> None:
        tag = f'"{hashlib.sha256(content).hexdigest()[:20]}"'
        if status == HTTPStatus.OK and self.headers.get("If-None-Match") == tag:
            status, content = HTTPStatus.NOT_MODIFIED, b""
        self.send_response(status)
        for name, value in {
            "Content-Type": f"{kind}; charset=utf-8",
            "Content-Length": str(len(content)),
            "Cache-Control": keep,
            "ETag": tag,
            "Content-Security-Policy": policy,
            "Cross-Origin-Resource-Policy": "same-origin",
            "Referrer-Policy": "no-referrer",
            "X-Content-Type-Options": "nosniff",
            **headers,
        }.items():
            if status != HTTPStatus.NOT_MODIFIED or name not in ("Content-Type", "Content-Length"):
                self.send_header(name, value)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(content)

    def log_message(self, format: str, *args: Any) -> None:
        """Requests are not worth a line each."""


def _found(views: Views, parts: list[str], query: dict[str, str]) -> dict[str, Any]:
    """The answer to an address below /api/. Raises NotFound."""
    from jaxgpt.experiment.serve.views import AXES, Axis

    axes: dict[str, Axis] = {axis: axis for axis in AXES}
    axis = axes.get(query.get("x", ""), "step")
    after = query.get("after", "")
    answers: dict[tuple[str, int], Callable[..., dict[str, Any]]] = {
        ("experiments", 0): views.experiments,
        ("experiment", 1): views.experiment,
        ("curves", 1): lambda name: views.curves(name, axis, query.get("lines") == "runs"),
        ("between", 1): lambda name: views.between(name, query.get("a", ""), query.get("b", "")),
        ("run", 2): lambda name, run: views.run(name, run, axis, query.get("show", "loss")),
        ("log", 2): lambda name, run: views.log(name, run, int(after) if after.isdecimal() else None),
    }
    answer = answers.get((parts[0], len(parts) - 1)) if parts else None
    if answer is None:
        raise NotFound
    return answer(*parts[1:])


def _finite(value: Any) -> Any:
    """The same without numbers that JSON does not have."""
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, dict):
        return {str(key): _finite(one) for key, one in value.items()}
    return [_finite(one) for one in value] if isinstance(value, list | tuple) else value


# --------------------------------------------------------------------------------------------------------------- files


@functools.cache
def _plotly() -> str:
    import plotly.offline

    return plotly.offline.get_plotlyjs()


def _static(name: str) -> tuple[bytes, str]:
    """A file of the pages and its type, looked up by name."""
    if name == PLOTLY:
        return _plotly().encode(), _TYPES[".js"]
    known = {path.name: path for path in _STATIC.iterdir() if path.suffix in _TYPES}
    if name not in known:
        raise NotFound
    return known[name].read_bytes(), _TYPES[known[name].suffix]


@functools.cache
def _plotly_styles() -> str:
    """Elements by which plotly.js takes its styles for written: it would write them into the page, which the policy
    forbids. The first is a style sheet that takes the rules plotly.js adds; the others are of maps, not used here."""
    names = re.findall(r'getElementById\("([0-9a-f]{64})"\)', _plotly())
    used = '<link id="plotly.js-style-global" rel="stylesheet" href="/static/plotly.css">'
    return used + "".join(f'<meta id="{name}">' for name in names)


def _page(kind: str, refresh: float, experiment: str = "", run: str = "") -> str:
    """One of the pages, with what it is about in the attributes of its body."""
    about = {"experiment": experiment, "run": run, "refresh": str(refresh)}
    text = (_STATIC / "frame.html").read_text(encoding="utf-8")
    main = (_STATIC / f"{kind}.html").read_text(encoding="utf-8")
    data = "".join(f' data-{name}="{escape(value)}"' for name, value in about.items())
    title = escape(" - ".join(part for part in (run, experiment, "jaxgpt runs") if part))
    values = {"TITLE": title, "KIND": kind, "DATA": data, "STYLES": _plotly_styles(), "MAIN": main}
    return re.sub("@([A-Z]+)@", lambda match: values[match[1]], text)
