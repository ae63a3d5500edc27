"""Fixtures of all tests: where real data lies, and no network beyond this machine."""

from __future__ import annotations

import ipaddress
import logging
import os
import signal
import socket
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, settings

# Busy machines miss deadlines, so none is set; the same examples every time make a failure the
# change's own. `--hypothesis-profile=search` looks for new ones.
settings.register_profile(
    "same",
    deadline=None,
    derandomize=True,
    max_examples=40,
    suppress_health_check=[HealthCheck.too_slow],
)
settings.register_profile("search", deadline=None, max_examples=1000)
settings.load_profile("same")

# A shell that starts tests in the background has Ctrl-C ignored, by all that they start too.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)

REPOSITORY = Path(__file__).resolve().parent.parent
InnerNetwork = ipaddress.IPv4Network | ipaddress.IPv6Network
LOCAL_FAMILIES = {socket.AF_UNIX} if hasattr(socket, "AF_UNIX") else set()


def _is_loopback(host: object) -> bool:
    if host in ("", "localhost", None):
        return True
    try:
        address = ipaddress.ip_address(str(host).split("%", maxsplit=1)[0])
    except ValueError:
        return False
    return address.is_loopback or address.is_unspecified


class NetworkBlockedError(RuntimeError):
    """A test tried to leave this machine."""


def _check_address(family: int, address: Any, inner: set[InnerNetwork]) -> None:
    if family in LOCAL_FAMILIES or _is_loopback(address[0]) or _is_own_address(address[0]):
        return
    if _is_inner(address[0], inner):
        return
    raise NetworkBlockedError(
        f"a test asked for {address!r}; tests reach this machine only: serve it on 127.0.0.1"
    )


def _is_inner(host: object, inner: set[InnerNetwork]) -> bool:
    try:
        address = ipaddress.ip_address(str(host))
    except ValueError:
        return False
    return any(address in network for network in inner)


def _is_own_address(host: object) -> bool:
    """Tell whether the address is this machine's own: Ray talks to itself through it."""
    try:
        literal = str(ipaddress.ip_address(str(host)))
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
            probe.bind((literal, 0))
    except (ValueError, OSError):
        return False
    return True


@pytest.fixture(scope="session")
def inner_networks() -> set[InnerNetwork]:
    """Networks that end within this machine; who makes one (the test cluster) adds it here."""
    return set()


@pytest.fixture(scope="session", autouse=True)
def _loopback_only(inner_networks: set[InnerNetwork]) -> Iterator[None]:
    """Refuse connections and name look-ups that leave this machine, in this process."""
    connect, connect_ex, resolve = (
        socket.socket.connect,
        socket.socket.connect_ex,
        socket.getaddrinfo,
    )

    def guarded_connect(self: socket.socket, address: Any) -> None:
        _check_address(self.family, address, inner_networks)
        connect(self, address)

    def guarded_connect_ex(self: socket.socket, address: Any) -> int:
        _check_address(self.family, address, inner_networks)
        return connect_ex(self, address)

    def guarded_resolve(host: Any, *args: Any, **kwargs: Any) -> Any:
        name = host.decode() if isinstance(host, bytes) else host
        here = _is_loopback(name) or _is_inner(name, inner_networks)
        if not (here or name == socket.gethostname() or _is_own_address(name)):
            raise NetworkBlockedError(
                f"a test asked for the address of {name!r}; tests reach this machine only: "
                "serve it on 127.0.0.1"
            )
        return resolve(host, *args, **kwargs)

    patch = pytest.MonkeyPatch()
    patch.setattr(socket.socket, "connect", guarded_connect)
    patch.setattr(socket.socket, "connect_ex", guarded_connect_ex)
    patch.setattr(socket, "getaddrinfo", guarded_resolve)
    yield
    patch.undo()


@pytest.fixture(autouse=True)
def _own_logger() -> Iterator[None]:
    """Put eoray's logger back, so that no test writes to the closed stream of another."""
    logger = logging.getLogger("eoray")
    handlers, level, propagate = logger.handlers, logger.level, logger.propagate
    yield
    logger.handlers, logger.propagate = handlers, propagate
    logger.setLevel(level)


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """Folder of real samples: ``EORAY_SHARED_DATA``, else ``shared/data`` beside the checkout."""
    named = os.environ.get("EORAY_SHARED_DATA")
    folder = Path(named) if named else REPOSITORY.parent / "shared" / "data"
    if not folder.is_dir():
        pytest.skip(f"no real samples: {folder} is no folder; name one in EORAY_SHARED_DATA")
    return folder
