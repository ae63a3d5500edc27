"""A network with nothing in it but this machine's loopback, and who tries to leave it.

Run as a program in a network namespace of its own, every packet for elsewhere ends at a listener,
and a command is carried out there: ``python -m tests.air_gap REPORT COMMAND...``. The report is a
JSON list of the addresses that packets were sent to; questions for names count too.
"""

from __future__ import annotations

import ipaddress
import json
import os
import shutil
import socket
import struct
import subprocess
import sys
import threading
from pathlib import Path

_ALL = 3
"""ETH_P_ALL: packets of every protocol."""

_IPV4, _IPV6 = 0x0800, 0x86DD
_NAMES = 53

_LINKS = """
ip link set lo up
ip link add out type veth peer name sink
ip address add 198.51.100.1/24 dev out
ip -6 address add 2001:db8::1/64 dev out nodad
ip link set sink arp off up
ip link set out arp off up
ip route add default dev out
ip -6 route add default dev out
"""
# 198.51.100.0/24 and 2001:db8::/32 are addresses of examples (RFC 5737, RFC 3849)


def refusal() -> str:
    """Why this machine has no such network; "" where it has."""
    if sys.platform != "linux" or os.geteuid() != 0:
        return "a network of one's own needs Linux and root"
    if shutil.which("unshare") is None or shutil.which("ip") is None:
        return "a network of one's own needs unshare (util-linux) and ip (iproute2)"
    done = subprocess.run(
        command_there(os.devnull, "true"), capture_output=True, text=True, check=False
    )
    return "" if done.returncode == 0 else f"no network namespace: {done.stderr.strip()[-200:]}"


def command_there(report: str, *command: str) -> list[str]:
    """A command as it is carried out there; all that it started ends with it."""
    alone = ["unshare", "--net", "--pid", "--fork", "--kill-child", "--mount-proc"]
    return [*alone, sys.executable, "-m", "tests.air_gap", report, *command]


def main(report: str, *command: str) -> int:
    """Carry out a command without a network and write where it wanted to."""
    for line in _LINKS.strip().splitlines():
        subprocess.run(line.split(), check=True)
    seen: list[str] = []
    ends = [_listen("sink", seen, everything=True), _listen("lo", seen, everything=False)]
    done = subprocess.run(command, check=False)
    for end in ends:
        end.close()
    Path(report).write_text(json.dumps(sorted(set(seen))))
    return done.returncode


def _listen(link: str, seen: list[str], *, everything: bool) -> socket.socket:
    """Note where packets of a link go; of loopback only questions for names."""
    end = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(_ALL))
    end.bind((link, 0))

    def note() -> None:
        while True:
            try:
                packet = end.recv(1 << 16)
            except OSError:
                return
            address, port = _target(packet)
            is_own = address is None or address.is_multicast  # the kernel looks for routers
            if not is_own and (everything or port == _NAMES):
                seen.append(f"name {_name(packet)}" if port == _NAMES else f"{address} port {port}")

    threading.Thread(target=note, daemon=True).start()
    return end


def _target(
    packet: bytes,
) -> tuple[ipaddress.IPv4Address | ipaddress.IPv6Address | None, int]:
    """(destination, port) of an Ethernet frame; None for what is no IP."""
    (kind,) = struct.unpack_from("!H", packet, 12)
    if kind == _IPV4:
        size = (packet[14] & 0x0F) * 4
        address = ipaddress.IPv4Address(packet[30:34])
        return address, _port(packet, 14 + size)
    if kind == _IPV6:
        return ipaddress.IPv6Address(packet[38:54]), _port(packet, 54)
    return None, 0


def _name(packet: bytes) -> str:
    """What a question for a name asks: labels behind the headers of IP, UDP and the question."""
    at = (14 + (packet[14] & 0x0F) * 4 if packet[12:14] == b"\x08\x00" else 54) + 8 + 12
    labels = []
    while at < len(packet) and packet[at]:
        labels.append(packet[at + 1 : at + 1 + packet[at]].decode(errors="replace"))
        at += 1 + packet[at]
    return ".".join(labels)


def _port(packet: bytes, at: int) -> int:
    return struct.unpack_from("!H", packet, at + 2)[0] if len(packet) >= at + 4 else 0


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
