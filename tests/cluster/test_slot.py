from __future__ import annotations

import ipaddress
import itertools
from pathlib import Path

import pytest

from tests.cluster.slot import Slot


def test_ten_slots_share_no_address() -> None:
    slots = [Slot(number, Path("/tmp/x")) for number in range(10)]
    networks = [
        ipaddress.IPv4Network(network)
        for slot in slots
        for network in (slot.link_network, slot.pods, slot.services)
    ]
    assert not any(one.overlaps(other) for one, other in itertools.combinations(networks, 2))


def test_names_of_links_fit_the_kernel() -> None:
    slot = Slot(9, Path("/tmp/x"))
    assert max(len(slot.host_link), len(slot.node_link)) < 16


def test_an_eleventh_slot_is_refused() -> None:
    with pytest.raises(ValueError, match="choose 0 to 9"):
        Slot(10, Path("/tmp/x"))


def test_a_state_folder_that_the_cluster_cannot_see_is_refused() -> None:
    with pytest.raises(ValueError, match="EORAY_CLUSTER_STATE"):
        Slot(0, Path("/var/lib/eoray"))
