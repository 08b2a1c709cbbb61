"""The port of a process that serves no other HTTP: ``/metrics``, ``/health``, ``/ready``."""

from __future__ import annotations

import logging
import sys
import threading
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import msgspec
from prometheus_client import CONTENT_TYPE_LATEST, generate_latest

from lifelong.config.shared import MetricsSettings
from lifelong.errors import ConfigError
from lifelong.runtime.metrics import Metrics
from lifelong.runtime.process import App

log = logging.getLogger(__name__)


class Health:
    """What a process says of itself. ``ready`` turns true once it works; ``failure`` says why it is not well."""

    def __init__(self, process: str, details: Callable[[], dict[str, object]] = dict) -> None:
        self.process = process
        self.ready = False
        self.failure: str | None = None
        self.details = details

    def report(self) -> dict[str, object]:
        status = "failing" if self.failure else "ready" if self.ready else "starting"
        return {"process": self.process, "status": status, "failure": self.failure, **self.details()}


class _Server(ThreadingHTTPServer):
    def handle_error(self, request: object, client_address: object) -> None:
        """Who asks may be gone before the answer: a probe with a short patience, while the processor is busy."""
        is_gone = isinstance(sys.exception(), ConnectionError)
        log.log(logging.DEBUG if is_gone else logging.ERROR, "no answer to %s", client_address, exc_info=True)


class HealthServer:
    """Serves in a daemon thread until closed."""

    def __init__(self, settings: MetricsSettings, metrics: Metrics, health: Health) -> None:
        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                path = self.path.split("?")[0]
                if path == "/metrics":
                    self._answer(200, CONTENT_TYPE_LATEST, generate_latest(metrics.registry))
                elif path in ("/health", "/ready"):
                    well = health.failure is None and (path == "/health" or health.ready)
                    self._answer(200 if well else 503, "application/json", msgspec.json.encode(health.report()))
                else:
                    self._answer(404, "text/plain", b"/metrics, /health or /ready\n")

            def _answer(self, status: int, content_type: str, body: bytes) -> None:
                self.send_response(status)
                self.send_header("Content-Type", content_type)
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

            def log_message(self, format: str, *args: object) -> None:
                log.debug(format, *args)

        try:
            self._server = _Server((settings.host, settings.port), Handler)
        except OSError as error:
            raise ConfigError("metrics.port", f"cannot listen on {settings.host}:{settings.port}: {error}") from error
        self._thread = threading.Thread(target=self._server.serve_forever, name="health", daemon=True)
        self._thread.start()
        log.info("metrics on http://%s:%d/metrics", settings.host, self.port)

    @property
    def port(self) -> int:
        return int(self._server.server_address[1])

    def close(self) -> None:
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()


class AppWithHealth:
    """An app (see :mod:`lifelong.runtime.process`) whose health port opens before it and closes after it."""

    def __init__(self, app: App, server: HealthServer) -> None:
        self._app = app
        self._server = server

    def run(self, stop: threading.Event) -> None:
        self._app.run(stop)

    def close(self) -> None:
        self._app.close()
        self._server.close()
