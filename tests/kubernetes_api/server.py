"""The API of the cluster over HTTP."""

import http.server
import json
import re
import socket
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, ClassVar
from urllib.parse import parse_qs, urlsplit

from tests.kubernetes_api import schema, statuses
from tests.kubernetes_api.controllers import delete_job, delete_pod
from tests.kubernetes_api.kubelet import Kubelet
from tests.kubernetes_api.state import Object, State
from tests.kubernetes_api.statuses import Refusal

_PATHS = (
    re.compile(r"/apis/batch/v1/namespaces/(?P<namespace>[^/]+)/(?P<resource>jobs)(/(?P<name>[^/]+))?"),
    re.compile(r"/api/v1/namespaces/(?P<namespace>[^/]+)/(?P<resource>pods)(/(?P<name>[^/]+)(?P<log>/log)?)?"),
    re.compile(r"/api/v1/(?P<resource>nodes)(/(?P<name>[^/]+))?"),
)
_LISTS = {"jobs": ("JobList", "batch/v1"), "pods": ("PodList", "v1"), "nodes": ("NodeList", "v1")}


@dataclass(frozen=True)
class Asked:
    """A request."""

    method: str
    path: str
    query: dict[str, str]
    body: bytes = b""

    def __str__(self) -> str:
        return f"{self.method} {self.path}{'?continue' if 'continue' in self.query else ''}"


@dataclass
class Fault:
    """What becomes of requests that begin with some words, so many times."""

    begins: str
    does: Callable[[], Refusal] | float | None
    """A refusal, a delay in seconds, or None: the answer is lost, after all was done."""
    times: int = 1


@dataclass
class Api:
    """What the API does, whoever asks by whatever wire."""

    state: State
    kubelet: Kubelet
    token: str
    faults: list[Fault] = field(default_factory=list)
    asked: list[Asked] = field(default_factory=list)
    forbidden: set[str] = field(default_factory=set)
    """Verbs and resources that the account may not, such as `list nodes`."""
    quota: int | None = None
    """How many Jobs the namespace may have."""

    def fault(self, asked: Asked) -> Fault | None:
        with self.state.lock:
            self.asked.append(asked)
            for one in self.faults:
                if one.times and str(asked).startswith(one.begins):
                    one.times -= 1
                    return one
        return None

    def answer(self, asked: Asked, *, authorization: str | None) -> tuple[int, Object | str]:
        """Status and content of the answer. Raises Refusal."""
        if authorization != f"Bearer {self.token}":
            raise statuses.unauthorized()
        found = next((one for one in (path.fullmatch(asked.path) for path in _PATHS) if one), None)
        if found is None:
            raise Refusal(404, "NotFound", "the server could not find the requested resource")
        parts = found.groupdict()
        resource, name = str(parts["resource"]), parts["name"]
        verb = {"POST": "create", "DELETE": "delete"}.get(asked.method, "get" if name else "list")
        self._authorize(verb, resource, name or "")
        namespace = parts.get("namespace") or self.state.namespace
        if namespace != self.state.namespace:
            return self._elsewhere(verb, resource, namespace, name)
        if verb == "create":
            return 201, self._create(asked.body)
        if verb == "list":
            return 200, self._list(resource, asked.query)
        if verb == "delete":
            return 200, self._delete(resource, str(name), asked)
        if parts.get("log"):
            return 200, self._log(str(name), asked.query)
        return 200, self.state.get(resource, str(name))

    def _authorize(self, verb: str, resource: str, name: str) -> None:
        if f"{verb} {resource}" in self.forbidden:
            why = f'User "system:serviceaccount:ccat:worker" cannot {verb} resource "{resource}"'
            raise statuses.forbidden(resource, name, why)

    def _elsewhere(self, verb: str, resource: str, namespace: str, name: str | None) -> tuple[int, Object]:
        """Of a namespace that is not there, lists are empty, and nothing can be made in it."""
        if verb == "create":
            raise statuses.not_found("namespaces", namespace)
        if name:
            raise statuses.not_found(resource, name)
        kind, version = _LISTS[resource]
        return 200, {"kind": kind, "apiVersion": version, "metadata": {"resourceVersion": "1"}, "items": []}

    def _create(self, body: bytes) -> Object:
        job = schema.admit(body)
        name = job["metadata"]["name"]
        with self.state.lock:
            count = len(self.state.all("jobs"))
            if self.quota is not None and count >= self.quota:
                used, limited = f"count/jobs.batch={count}", f"count/jobs.batch={self.quota}"
                why = f"exceeded quota: compute, requested: count/jobs.batch=1, used: {used}, limited: {limited}"
                raise statuses.forbidden("jobs", name, why)
            stored = self.state.add("jobs", {**job, "status": {}})
            labels = {
                "batch.kubernetes.io/controller-uid": stored["metadata"]["uid"],
                "batch.kubernetes.io/job-name": name,
            }
            with self.state.changed("jobs", name) as found:
                found["metadata"]["generation"] = 1
                found["spec"]["selector"] = {
                    "matchLabels": {"batch.kubernetes.io/controller-uid": stored["metadata"]["uid"]}
                }
                about = found["spec"]["template"]["metadata"]
                about["labels"] = {**about.get("labels", {}), **labels, "job-name": name}
            return self.state.get("jobs", name)

    def _list(self, resource: str, query: dict[str, str]) -> Object:
        kind, version = _LISTS[resource]
        items, about = self.state.page(
            resource, query.get("labelSelector", ""), limit=int(query.get("limit", 0)), rest=query.get("continue", "")
        )
        return {"kind": kind, "apiVersion": version, "metadata": about, "items": items}

    def _delete(self, resource: str, name: str, asked: Asked) -> Object:
        options = json.loads(asked.body) if asked.body else {}
        value = self.state.get(resource, name)
        if resource == "pods":
            grace = options.get("gracePeriodSeconds", asked.query.get("gracePeriodSeconds"))
            delete_pod(self.state, name, grace=None if grace is None else int(grace))
            return value
        policy = options.get("propagationPolicy", asked.query.get("propagationPolicy"))
        if policy not in {None, "Foreground", "Background", "Orphan"}:
            raise statuses.bad_request(f"propagationPolicy: Unsupported value: {policy}")
        left = delete_job(self.state, name, policy=policy)
        return left or statuses.success("jobs", name, value["metadata"]["uid"])

    def _log(self, name: str, query: dict[str, str]) -> str:
        pod = self.state.get("pods", name)
        text = self.kubelet.log(pod["metadata"]["uid"])
        if text is None:
            container = pod["spec"]["containers"][0]["name"]
            why = "is waiting to start: ContainerCreating"
            raise statuses.bad_request(f'container "{container}" in pod "{name}" {why}')
        lines = text.splitlines(keepends=True)
        return "".join(lines[-int(query["tailLines"]) :]) if "tailLines" in query else text


class Server:
    """Serves an API on a port of this host, until it is stopped; it may be started again on the same port."""

    def __init__(self, api: Api) -> None:
        self._api = api
        self._server: _Http | None = None
        self.port = 0

    def start(self) -> None:
        handler = type("Handler", (_Handler,), {"api": self._api})
        self._server = _Http(("127.0.0.1", self.port), handler)
        self.port = self._server.server_address[1]
        threading.Thread(target=self._server.serve_forever, args=(0.02,), daemon=True).start()

    def stop(self) -> None:
        """End all connections too, as when its process ends."""
        if self._server is not None:
            self._server.shutdown()
            self._server.server_close()
            self._server.end_connections()
            self._server = None


class _Http(http.server.ThreadingHTTPServer):
    allow_reuse_address = True
    daemon_threads = True
    block_on_close = False

    def __init__(self, *arguments: Any) -> None:
        super().__init__(*arguments)
        self.connections = set[socket.socket]()

    def end_connections(self) -> None:
        for one in list(self.connections):
            try:
                one.shutdown(socket.SHUT_RDWR)
            except OSError:  # its other end was quicker
                continue


class _Handler(http.server.BaseHTTPRequestHandler):
    api: ClassVar[Api]
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True

    def setup(self) -> None:
        super().setup()
        self._http.connections.add(self.connection)

    def finish(self) -> None:
        self._http.connections.discard(self.connection)
        super().finish()

    def log_message(self, *_: object) -> None:
        """Say nothing of each request."""

    def do_GET(self) -> None:
        self._serve()

    def do_POST(self) -> None:
        self._serve()

    def do_DELETE(self) -> None:
        self._serve()

    @property
    def _http(self) -> _Http:
        assert isinstance(self.server, _Http)
        return self.server

    def _serve(self) -> None:
        parts = urlsplit(self.path)
        query = {name: values[-1] for name, values in parse_qs(parts.query).items()}
        body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        asked = Asked(self.command, parts.path, query, body)
        fault = self.api.fault(asked)
        does = fault.does if fault else None
        try:
            if isinstance(does, float):
                time.sleep(does)
            elif does is not None:
                raise does()
            code, content = self.api.answer(asked, authorization=self.headers.get("Authorization"))
        except Refusal as error:
            code, content = error.code, error.status
        if fault is not None and fault.does is None:
            self.close_connection = True
            return
        self._send(code, content)

    def _send(self, code: int, content: Object | str) -> None:
        is_text = isinstance(content, str)
        body = content.encode() if isinstance(content, str) else json.dumps(content).encode()
        self.send_response(code)
        self.send_header("Content-Type", "text/plain" if is_text else "application/json")
        self.send_header("Content-Length", str(len(body)))
        if code == 429:
            self.send_header("Retry-After", "1")
        self.end_headers()
        self.wfile.write(body)
