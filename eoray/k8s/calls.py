"""How a Kubernetes API is asked: tried again, told plainly, objects of any kind as dicts.

Reads are tried again when the server is busy, restarts or cuts the connection; an expired
credential is fetched anew once. Nothing that creates or changes is sent twice.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from eoray.k8s.refusals import BUSY, AbsentError, UnreachableError, to_error

if TYPE_CHECKING:
    from kubernetes.client import ApiClient

Group = tuple[str, str]
"""(API group, version)."""

TIMEOUT_S = (5.0, 30.0)
"""To connect, and to wait for an answer."""

_TRIES = 6


class Calls:
    """Calls to the API for objects of one namespace."""

    def __init__(
        self,
        connect: Callable[[], ApiClient],
        namespace: str,
        *,
        wait: Callable[[float], None] = time.sleep,
    ) -> None:
        """Keep how to reach it; nothing is asked yet.

        Args:
            connect: Makes a client with fresh credentials.
            namespace: Of all objects.
            wait: Called with seconds between attempts.
        """
        self.namespace = namespace
        self._connect, self._wait = connect, wait
        self._api: ApiClient | None = None

    def ask(self, verb: str, resource: str, path: str) -> dict[str, Any]:
        """GET a path of the API that has no call of its own here.

        Args:
            verb: For the error, as rights are called.
            resource: As ``verb``.
            path: Absolute, such as ``/version``.
        """

        def call() -> Any:
            api = self._client()
            request = api.param_serialize(
                "GET",
                path,
                header_params={"Accept": "application/json"},
                auth_settings=["BearerToken"],
            )
            answer = api.call_api(*request, _request_timeout=TIMEOUT_S)
            text = answer.read().decode()
            if not 200 <= answer.status < 300:
                from kubernetes.client.exceptions import ApiException

                raise ApiException(http_resp=answer, body=text, data=None)
            return json.loads(text)

        found: dict[str, Any] = self._read(verb, resource, call)
        return found

    def _list(self, plural: str, selector: str, group: Group) -> list[dict[str, Any]]:
        found = self._read(
            "list",
            plural,
            lambda: self._custom().list_namespaced_custom_object(
                *group,
                self.namespace,
                plural,
                label_selector=selector,
                _request_timeout=TIMEOUT_S,
            ),
        )
        items: list[dict[str, Any]] = found["items"]
        return items

    def _get(self, plural: str, name: str, group: Group) -> dict[str, Any] | None:
        try:
            found: dict[str, Any] = self._read(
                "get",
                plural,
                lambda: self._custom().get_namespaced_custom_object(
                    *group, self.namespace, plural, name, _request_timeout=TIMEOUT_S
                ),
            )
        except AbsentError:
            return None
        return found

    def _create(
        self, plural: str, body: dict[str, Any], group: Group, **how: Any
    ) -> dict[str, Any]:
        """Create an object, every field checked."""
        made: dict[str, Any] = self._write(
            "create",
            plural,
            lambda: self._custom().create_namespaced_custom_object(
                *group,
                self.namespace,
                plural,
                body,
                field_validation="Strict",
                _request_timeout=TIMEOUT_S,
                **how,
            ),
        )
        return made

    def _merge(
        self,
        plural: str,
        name: str,
        body: dict[str, Any],
        group: Group,
        **how: Any,
    ) -> None:
        """Merge some fields into an object."""
        self._write(
            "patch",
            plural,
            lambda: self._custom().patch_namespaced_custom_object(
                *group,
                self.namespace,
                plural,
                name,
                body,
                _request_timeout=TIMEOUT_S,
                _content_type="application/merge-patch+json",
                **how,
            ),
        )

    def _delete(self, plural: str, name: str, group: Group) -> bool:
        try:
            self._write(
                "delete",
                plural,
                lambda: self._custom().delete_namespaced_custom_object(
                    *group,
                    self.namespace,
                    plural,
                    name,
                    propagation_policy="Foreground",
                    _request_timeout=TIMEOUT_S,
                ),
            )
        except AbsentError:
            return False
        return True

    def _custom(self) -> Any:
        from kubernetes.client import CustomObjectsApi

        return CustomObjectsApi(self._client())

    def _core(self) -> Any:
        from kubernetes.client import CoreV1Api

        return CoreV1Api(self._client())

    def _policy(self) -> Any:
        from kubernetes.client import PolicyV1Api

        return PolicyV1Api(self._client())

    def _client(self) -> ApiClient:
        if self._api is None:
            self._api = self._connect()
        return self._api

    def _plain(self, model: Any) -> dict[str, Any]:
        plain: dict[str, Any] = self._client().sanitize_for_serialization(model)
        return plain

    def _write(self, verb: str, resource: str, call: Callable[[], Any]) -> Any:
        return self._call(verb, resource, call, tries=1)

    def _read(self, verb: str, resource: str, call: Callable[[], Any]) -> Any:
        return self._call(verb, resource, call, tries=_TRIES)

    def _call(self, verb: str, resource: str, call: Callable[[], Any], *, tries: int) -> Any:
        from kubernetes.client.exceptions import ApiException
        from urllib3.exceptions import HTTPError

        renewed = False
        for attempt in range(1, tries + 2):
            try:
                return call()
            except ApiException as error:
                if error.status == 401 and not renewed:
                    self._api, renewed = None, True
                    continue
                if error.status not in BUSY or attempt >= tries:
                    raise to_error(error, verb, resource, self.namespace) from error
                self._wait(_pause(attempt, error))
            except HTTPError as error:
                if attempt >= tries:
                    raise UnreachableError(
                        f"the Kubernetes API does not answer ({' '.join(str(error).split())[:200]})"
                        "; check the context (kubectl cluster-info) and the network"
                    ) from error
                self._wait(_pause(attempt))
        raise AssertionError  # pragma: no cover - the loop returns or raises


def _pause(attempt: int, error: Any = None) -> float:
    """Seconds until the next attempt; the server's own wish where it has one."""
    headers = getattr(error, "headers", None) or {}
    wish = str(headers.get("Retry-After", ""))
    return float(wish) if wish.isdigit() else min(8.0, 0.5 * 2 ** (attempt - 1))
