"""What can go wrong with the test cluster: not possible here, or broken."""

from __future__ import annotations


class UnavailableError(RuntimeError):
    """This machine cannot run the cluster; the message names all that it lacks. Tests skip."""


class ClusterError(RuntimeError):
    """The cluster should run here but does not; the message says where its logs are. Tests fail."""
