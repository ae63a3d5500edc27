"""The Kubernetes API as plain dictionaries, and Ray's Jobs API behind a token."""

from __future__ import annotations

import json
import ssl
import urllib.error
import urllib.request
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlencode

Object = dict[str, Any]

_FOLDERS = {
    "rayjobs": "apis/ray.io/v1",
    "rayclusters": "apis/ray.io/v1",
    "roles": "apis/rbac.authorization.k8s.io/v1",
    "rolebindings": "apis/rbac.authorization.k8s.io/v1",
}
_MERGE = "application/merge-patch+json"


class ApiError(Exception):
    """An answer that is not 2xx, or none."""

    def __init__(self, status: int, message: str) -> None:
        super().__init__(f"{status}: {message}")
        self.status, self.message = status, message


@dataclass(frozen=True, slots=True)
class Api:
    """An API server as one account sees it."""

    server: str
    authority: Path
    token: str

    def list(self, plural: str, namespace: str = "", **labels: str) -> list[Object]:
        """Objects of one namespace, or of all, with some labels."""
        chosen = ",".join(f"{key}={value}" for key, value in labels.items())
        query = f"?{urlencode({'labelSelector': chosen})}" if chosen else ""
        items: list[Object] = self._ask("GET", _path(plural, namespace) + query)["items"]
        return items

    def get(self, plural: str, namespace: str, name: str) -> Object | None:
        """One object; None where there is none."""
        try:
            return self._ask("GET", _path(plural, namespace, name))
        except ApiError as error:
            if error.status == 404:
                return None
            raise

    def create(self, plural: str, namespace: str, body: Object) -> Object:
        return self._ask("POST", _path(plural, namespace), body)

    def ensure(self, plural: str, namespace: str, body: Object) -> None:
        """Create what is not there."""
        if self.get(plural, namespace, body["metadata"]["name"]) is None:
            self.create(plural, namespace, body)

    def patch(self, plural: str, namespace: str, name: str, body: Object) -> None:
        self._ask("PATCH", _path(plural, namespace, name), body)

    def patch_status(self, plural: str, namespace: str, name: str, status: Object) -> None:
        self._ask("PATCH", _path(plural, namespace, name) + "/status", {"status": status})

    def delete(self, plural: str, namespace: str, name: str) -> bool:
        """Delete an object; False where there was none."""
        try:
            self._ask("DELETE", _path(plural, namespace, name))
        except ApiError as error:
            if error.status == 404:
                return False
            raise
        return True

    def _ask(self, method: str, path: str, body: Object | None = None) -> Object:
        kind = _MERGE if method == "PATCH" else "application/json"
        headers = {"Authorization": f"Bearer {self.token}", "Content-Type": kind}
        context = ssl.create_default_context(cafile=str(self.authority))
        return ask(method, f"{self.server}/{path}", headers, body, context=context)


def ask(
    method: str,
    url: str,
    headers: dict[str, str],
    body: Object | None = None,
    *,
    context: ssl.SSLContext | None = None,
    timeout_s: float = 10,
) -> Object:
    """Send JSON and take JSON.

    Raises:
        ApiError: Another status, no answer (status 0), or an answer that is no JSON.
    """
    data = None if body is None else json.dumps(body).encode()
    request = urllib.request.Request(url, data, headers, method=method)
    handlers: list[urllib.request.BaseHandler] = [urllib.request.ProxyHandler({})]
    if context is not None:
        handlers.append(urllib.request.HTTPSHandler(context=context))
    try:
        with urllib.request.build_opener(*handlers).open(request, timeout=timeout_s) as answer:
            found: Object = json.loads(answer.read() or b"{}")
    except urllib.error.HTTPError as error:
        raise ApiError(error.code, _message(error.read())) from error
    except (OSError, ValueError) as error:
        raise ApiError(0, str(error)) from error
    return found


def _message(body: bytes) -> str:
    try:
        return str(json.loads(body)["message"])
    except (ValueError, KeyError, TypeError):
        return body.decode(errors="replace")[:500]


def _path(plural: str, namespace: str, name: str = "") -> str:
    folder = _FOLDERS.get(plural, "api/v1")
    place = f"{folder}/namespaces/{namespace}" if namespace else folder
    return f"{place}/{plural}/{name}".rstrip("/")
