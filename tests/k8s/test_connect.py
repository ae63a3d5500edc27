"""Reaching a Ray cluster that stays: ports, token, versions."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator

import pytest

from eoray.errors import ClusterError
from eoray.k8s.client import Cluster
from eoray.k8s.connect import (
    CLIENT_PORT,
    _ray_environment,
    connect,
    open_tunnel,
)
from eoray.k8s.forward import forward_port
from eoray.k8s.head import DASHBOARD_PORT
from eoray.k8s.refusals import ForbiddenError
from tests.k8s.fake_api import FakeApi
from tests.k8s.fake_head import TOKEN, Dashboard, put_cluster


@pytest.fixture
def echo() -> Iterator[int]:
    """A TCP server that says what it hears."""
    with socket.create_server(("127.0.0.1", 0)) as server:

        def answer(end: socket.socket) -> None:
            with end:
                while piece := end.recv(1 << 16):
                    end.sendall(piece)

        def serve() -> None:
            while True:
                try:
                    end, _ = server.accept()
                except OSError:
                    return
                threading.Thread(target=answer, args=(end,), daemon=True).start()

        thread = threading.Thread(target=serve, daemon=True)
        thread.start()
        yield int(server.getsockname()[1])
        server.shutdown(socket.SHUT_RDWR)
        thread.join()


@pytest.fixture
def staying(api: FakeApi, echo: int, dashboard: Dashboard) -> FakeApi:
    """A cluster that stays, whose client port leads to the echo."""
    put_cluster(api, {CLIENT_PORT: echo, DASHBOARD_PORT: dashboard.port})
    return api


def say(port: int, data: bytes) -> bytes:
    """Send, and read as much as was sent."""
    with socket.create_connection(("127.0.0.1", port), timeout=10) as end:
        sender = threading.Thread(target=end.sendall, args=(data,))
        sender.start()
        heard = b""
        while len(heard) < len(data) and (piece := end.recv(1 << 20)):
            heard += piece
        sender.join()
        return heard


def test_bytes_come_back_as_they_were_sent(staying: FakeApi, cluster: Cluster) -> None:
    data = bytes(range(256)) * 8_000  # more than one frame of each length
    with forward_port(lambda: cluster.dial("eoray-head-x", CLIENT_PORT), CLIENT_PORT) as forward:
        assert say(forward.port, b"short") == b"short"
        assert say(forward.port, data) == data
        assert forward.error == ""


def test_connections_beside_each_other_do_not_mix(staying: FakeApi, cluster: Cluster) -> None:
    with forward_port(lambda: cluster.dial("eoray-head-x", CLIENT_PORT), CLIENT_PORT) as forward:
        ends = [socket.create_connection(("127.0.0.1", forward.port), timeout=10) for _ in "abc"]
        for number, end in enumerate(ends):
            end.sendall(bytes([number]) * 3)
        assert [_exactly(end, 3) for end in ends] == [bytes([n]) * 3 for n in range(3)]
        for end in ends:
            end.close()


def _exactly(end: socket.socket, size: int) -> bytes:
    return b"".join(end.recv(1) for _ in range(size))


def test_cut_connection_ends_and_the_next_one_is_dialled(
    staying: FakeApi, cluster: Cluster
) -> None:
    with forward_port(lambda: cluster.dial("eoray-head-x", CLIENT_PORT), CLIENT_PORT) as forward:
        with socket.create_connection(("127.0.0.1", forward.port), timeout=10) as end:
            end.sendall(b"x")
            assert end.recv(1) == b"x"
            staying.forwards.cut()
            assert _ends(end)
        assert say(forward.port, b"again") == b"again"
    assert staying.forwards.dialled == 2


def _ends(end: socket.socket) -> bool:
    try:
        return end.recv(1) == b""
    except ConnectionResetError:
        return True


def test_leaving_ends_what_is_open_and_the_port(staying: FakeApi, cluster: Cluster) -> None:
    with forward_port(lambda: cluster.dial("eoray-head-x", CLIENT_PORT), CLIENT_PORT) as forward:
        end = socket.create_connection(("127.0.0.1", forward.port), timeout=10)
        end.sendall(b"x")
        assert end.recv(1) == b"x"
    with end:
        assert _ends(end)
    with pytest.raises(ConnectionRefusedError):
        socket.create_connection(("127.0.0.1", forward.port), timeout=10)


def test_port_that_nobody_listens_at_is_told(staying: FakeApi, cluster: Cluster) -> None:
    with forward_port(lambda: cluster.dial("eoray-head-x", 7), 7) as forward:
        with socket.create_connection(("127.0.0.1", forward.port), timeout=10) as end:
            assert _ends(end)
        assert "nothing listens at 7" in forward.error


def test_tunnel_leads_to_the_head_with_its_token(staying: FakeApi, cluster: Cluster) -> None:
    with open_tunnel("maps/eoray", cluster=cluster) as tunnel:
        port = int(tunnel.address.removeprefix("ray://127.0.0.1:"))
        assert say(port, b"hello") == b"hello"
        assert tunnel.environment == {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": TOKEN}


def test_head_that_was_replaced_is_found_by_the_next_connection(
    staying: FakeApi, cluster: Cluster, echo: int
) -> None:
    with open_tunnel("maps/eoray", cluster=cluster) as tunnel:
        pod = staying.objects.pop(("pods", "maps", "eoray-head-x"))
        pod["metadata"]["name"] = "eoray-head-y"
        staying.put("pods", pod)
        staying.forwards.ports = {("eoray-head-y", CLIENT_PORT): echo}
        assert say(int(tunnel.address.rpartition(":")[2]), b"new") == b"new"


def test_token_lies_where_the_cluster_says(
    api: FakeApi, cluster: Cluster, dashboard: Dashboard
) -> None:
    put_cluster(api, {DASHBOARD_PORT: dashboard.port}, secretName="ours")
    with open_tunnel("maps/eoray", cluster=cluster) as tunnel:
        assert tunnel.environment["RAY_AUTH_TOKEN"] == TOKEN


def test_open_cluster_is_spoken_to_without_a_token(
    staying: FakeApi, cluster: Cluster, dashboard: Dashboard
) -> None:
    staying.objects["rayclusters", "maps", "eoray"]["spec"]["authOptions"] = {}
    dashboard.token = None
    with open_tunnel("maps/eoray", cluster=cluster) as tunnel:
        assert tunnel.environment == {"RAY_AUTH_MODE": "disabled"}
    assert not any("secrets" in path for _, path in staying.requests)


@pytest.mark.parametrize(
    ("ray", "python", "message"),
    [
        ("2.1.0", None, r"Ray is 2\.1\.0 at 'maps/eoray' and 2\.\d+\.\d+ here.*submit --cluster"),
        (None, "3.9.1", r"Python is 3\.9 at 'maps/eoray' and 3\.1\d here"),
    ],
)
def test_other_versions_are_refused_before_ray_is_asked(
    staying: FakeApi,
    cluster: Cluster,
    dashboard: Dashboard,
    ray: str | None,
    python: str | None,
    message: str,
) -> None:
    dashboard.ray, dashboard.python = ray or dashboard.ray, python or dashboard.python
    with (
        pytest.raises(ClusterError, match=message),
        open_tunnel("maps/eoray", cluster=cluster),
    ):
        pass


def test_other_patch_of_python_is_taken(
    staying: FakeApi, cluster: Cluster, dashboard: Dashboard
) -> None:
    dashboard.python = ".".join(map(str, sys.version_info[:2])) + ".99"
    with open_tunnel("maps/eoray", cluster=cluster) as tunnel:
        assert tunnel.dashboard.startswith("http://127.0.0.1:")


def test_wrong_token_is_told_at_once(
    staying: FakeApi, cluster: Cluster, dashboard: Dashboard
) -> None:
    dashboard.token = "another"
    with (
        pytest.raises(ClusterError, match="refuses the token of its Secret"),
        open_tunnel("maps/eoray", cluster=cluster),
    ):
        pass


def test_dashboard_that_is_not_there_is_told(staying: FakeApi, cluster: Cluster) -> None:
    del staying.forwards.ports["eoray-head-x", DASHBOARD_PORT]
    with (
        pytest.raises(
            ClusterError, match=r"does not answer .*nothing listens at 8265.*ray\[default\]"
        ),
        open_tunnel("maps/eoray", cluster=cluster),
    ):
        pass


def test_cluster_that_is_not_there_is_named(api: FakeApi, cluster: Cluster) -> None:
    with (
        pytest.raises(ClusterError, match=r"no RayCluster 'eoray' in namespace 'maps'; the chart"),
        open_tunnel("maps/eoray", cluster=cluster),
    ):
        pass


def test_head_that_does_not_run_is_named(staying: FakeApi, cluster: Cluster) -> None:
    staying.objects["pods", "maps", "eoray-head-x"]["status"]["phase"] = "Pending"
    with (
        pytest.raises(ClusterError, match=r"does not run \(eoray-head-x: Pending\)"),
        open_tunnel("maps/eoray", cluster=cluster),
    ):
        pass


@pytest.mark.parametrize("place", ["", "maps/", "a/b/c"])
def test_place_that_names_no_cluster_is_refused(place: str, cluster: Cluster) -> None:
    with (
        pytest.raises(ClusterError, match="names no cluster; write namespace/name"),
        open_tunnel(place, cluster=cluster),
    ):
        pass


def test_missing_right_to_forward_names_the_role(staying: FakeApi, cluster: Cluster) -> None:
    staying.refuse["GET", "pods"] = (403, "pods is forbidden")
    with pytest.raises(ForbiddenError, match=r"you may not get pods/portforward.*eoray-user"):
        cluster.dial("eoray-head-x", CLIENT_PORT)


def test_process_gets_the_token_and_its_own_back(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RAY_AUTH_TOKEN", "mine")
    monkeypatch.delenv("RAY_AUTH_MODE", raising=False)
    monkeypatch.setenv("RAY_AUTH_TOKEN_PATH", "/mine")
    names = ("RAY_AUTH_MODE", "RAY_AUTH_TOKEN", "RAY_AUTH_TOKEN_PATH")
    with _ray_environment({"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": TOKEN}):
        assert [os.environ.get(name) for name in names] == ["token", TOKEN, None]
    assert [os.environ.get(name) for name in names] == [None, "mine", "/mine"]


def test_ray_that_is_imported_already_takes_the_token() -> None:
    script = (
        "import ray, os\n"
        "from ray._raylet import AuthenticationMode, AuthenticationTokenLoader\n"
        "from ray._raylet import get_authentication_mode\n"
        "from eoray.k8s.connect import _ray_environment\n"
        "def seen():\n"
        "    headers = AuthenticationTokenLoader.instance().get_token_for_http_header()\n"
        "    return get_authentication_mode() == AuthenticationMode.TOKEN, list(headers.values())\n"
        "before = seen()\n"
        "with _ray_environment({'RAY_AUTH_MODE': 'token', 'RAY_AUTH_TOKEN': 'a' * 64}):\n"
        "    print(seen() == (True, ['Bearer ' + 'a' * 64]))\n"
        "print(seen() == before, before)\n"
    )
    environment = {**os.environ, "RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": "b" * 64}
    done = subprocess.run(
        [sys.executable, "-c", script],
        capture_output=True, text=True, check=False, env=environment,
    )  # fmt: skip
    assert done.stdout == f"True\nTrue (True, ['Bearer {'b' * 64}'])\n", done.stderr[-2000:]


def test_connect_is_public() -> None:
    import eoray

    assert eoray.connect is connect
