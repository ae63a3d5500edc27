"""stac-fastapi on PostgreSQL and PostGIS, on loopback, for as long as a block lasts."""

from __future__ import annotations

import json
import os
import pwd
import shutil
import signal
import socket
import subprocess
import tempfile
import time
import urllib.error
import urllib.request
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

REPOSITORY = Path(__file__).resolve().parents[2]

_PATIENCE_S = 120.0


def python_of_services() -> Path | None:
    """The interpreter that has the API: ``EORAY_SERVICES_PYTHON``, else ``.venv-services``."""
    named = os.environ.get("EORAY_SERVICES_PYTHON")
    path = Path(named) if named else REPOSITORY / ".venv-services" / "bin" / "python"
    return path if path.is_file() else None


def postgres_folder() -> Path | None:
    """Programs of a PostgreSQL that has PostGIS."""
    for folder in sorted(Path("/usr/lib/postgresql").glob("*/bin"), reverse=True):
        extensions = Path("/usr/share/postgresql") / folder.parent.name / "extension"
        if (folder / "initdb").is_file() and (extensions / "postgis.control").is_file():
            return folder
    return None


@contextmanager
def stac_api(collections: Sequence[Any], items: Sequence[Any]) -> Iterator[str]:
    """Serve collections and items; gives the address of the landing page.

    Args:
        collections: STAC collections as JSON values.
        items: STAC items as JSON values, of those collections.
    """
    python, programs = python_of_services(), postgres_folder()
    assert python is not None
    assert programs is not None
    with tempfile.TemporaryDirectory(prefix="eoray-pg-", dir="/tmp") as name:
        folder = Path(name)
        folder.chmod(0o755)
        port = _free_port()
        with _postgres(programs, folder / "data", port):
            environment = {
                **os.environ,
                "PYTHONPATH": "",
                "PGHOST": "127.0.0.1",
                "PGPORT": str(port),
                "PGUSER": "pgstac",
                "PGPASSWORD": "none",
                "PGDATABASE": "pgstac",
            }
            _load(python, programs, folder, environment, collections, items)
            with _served(python, environment, folder / "api.log") as url:
                yield url


def _as_postgres() -> dict[str, Any]:
    """PostgreSQL refuses to run as root; its package brings a user."""
    return {"user": pwd.getpwnam("postgres").pw_uid} if os.getuid() == 0 else {}


@contextmanager
def _postgres(programs: Path, data: Path, port: int) -> Iterator[None]:
    data.mkdir()
    if os.getuid() == 0:
        shutil.chown(data, "postgres")
    options: dict[str, Any] = {"stdout": subprocess.DEVNULL, "cwd": "/", **_as_postgres()}
    made: list[str | Path] = [
        programs / "initdb",
        "-A",
        "trust",
        "-U",
        "pgstac",
        "--no-sync",
        "-D",
        data,
    ]
    subprocess.run(made, check=True, **options)
    settings = (
        f"-p {port} -c listen_addresses=127.0.0.1 -c unix_socket_directories={data} "
        "-c fsync=off -c max_locks_per_transaction=256"
    )
    log = data / "server.log"
    control: list[str | Path] = [programs / "pg_ctl", "-w", "-t", "100", "-D", data]
    subprocess.run([*control, "-l", log, "-o", settings, "start"], check=True, **options)
    try:
        yield
    finally:
        subprocess.run([*control, "-m", "immediate", "stop"], check=False, **options)


def _load(
    python: Path,
    programs: Path,
    folder: Path,
    environment: dict[str, str],
    collections: Sequence[Any],
    items: Sequence[Any],
) -> None:
    def run(*command: str | Path) -> None:
        done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr[-3000:]

    pypgstac = python.parent / "pypgstac"
    run(programs / "createdb", "pgstac")
    run(pypgstac, "migrate")
    for kind, documents in (("collections", collections), ("items", items)):
        path = folder / f"{kind}.ndjson"
        path.write_text("".join(json.dumps(one) + "\n" for one in documents))
        run(pypgstac, "load", kind, path, "--method", "upsert")


@contextmanager
def _served(python: Path, environment: dict[str, str], log: Path) -> Iterator[str]:
    port = _free_port()
    command: list[str | Path] = [
        python,
        "-m",
        "uvicorn",
        "--factory",
        "stac_fastapi.pgstac.app:create_app",
    ]
    with log.open("wb") as output:
        server = subprocess.Popen(
            [*command, "--host", "127.0.0.1", "--port", str(port)],
            env=environment,
            stdout=output,
            stderr=output,
        )
        try:
            _wait_for(f"http://127.0.0.1:{port}/_mgmt/ping", server, log)
            yield f"http://127.0.0.1:{port}"
        finally:
            server.send_signal(signal.SIGTERM)
            try:
                server.wait(20)
            except subprocess.TimeoutExpired:
                server.kill()
                server.wait()


def _wait_for(url: str, server: subprocess.Popen[bytes], log: Path) -> None:
    deadline = time.monotonic() + _PATIENCE_S
    while time.monotonic() < deadline:
        assert server.poll() is None, log.read_text()[-3000:]
        try:
            with urllib.request.urlopen(url, timeout=5):
                return
        except (urllib.error.URLError, OSError):
            time.sleep(0.1)
    raise AssertionError(log.read_text()[-3000:])


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port
