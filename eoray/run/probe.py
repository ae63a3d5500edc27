"""Access to outputs and inputs, tried before any work: a wrong right costs seconds, not hours."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

from eoray import storage
from eoray.errors import StoreError
from eoray.masking import mask

if TYPE_CHECKING:
    from eoray.catalog.scene import BandAsset, Scene
    from eoray.reading.requests import UnreachableError

_CONTENT = b"eoray was here\n"

_REFUSED_CODES = (
    "InvalidAccessKeyId", "SignatureDoesNotMatch", "ExpiredToken", "InvalidToken",
    "RequestTimeTooSkewed", "TokenRefreshRequired", "InvalidSecurity",
)  # fmt: skip
"""S3's words for credentials that are wrong, where it answers 403 to many things."""


_RETRIES = 3
"""Of a request: a server that does not answer is told within seconds, a busy one gets a moment."""


class AccessError(StoreError):
    """Outputs or inputs cannot be reached, or not in the way that a run needs."""

    kind = "access"


def probe_store(url: str) -> None:
    """Write, read and delete a small object where the outputs shall lie.

    Args:
        url: The store of a run; a local folder is made.

    Raises:
        AccessError: It cannot be reached, is read-only, refuses the credentials, or puts an object
            whatever the condition: then no lease could keep two runs apart.
    """
    name = f"probe-{os.urandom(6).hex()}"
    if storage.is_local(url):
        _probe_folder(url, name)
    else:
        _probe_objects(url, name)


def probe_inputs(rows: Sequence[Any]) -> None:
    """Read the header of a file of the first, the middle and the last of some rows.

    A file that is broken or missing is a hole that the run records; only where none of the three
    is given out at all, the run ends here.

    Args:
        rows: What is to be read, each with ``scenes``.

    Raises:
        AccessError: The credentials are refused, or the place cannot be reached.
    """
    chosen = {number: rows[number] for number in (0, len(rows) // 2, len(rows) - 1)}
    refusals = []
    for row in chosen.values():
        refusal = _refusal_of(row.scenes[0])
        if refusal is None:
            return
        refusals.append(refusal)
    raise AccessError(
        f"inputs cannot be read: {refusals[0]}; give the pods or this machine an identity that "
        "may read them (cluster.secrets, cluster.service_account, the environment), or correct "
        "source"
    )


def _probe_folder(url: str, name: str) -> None:
    path = storage.local_path(storage.join(url, "_eoray", name))
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(_CONTENT)
        found = path.read_bytes()
        path.unlink()
    except OSError as error:
        raise AccessError(
            f"store {url!r} cannot be written ({error.strerror}); choose another folder or its "
            "permissions"
        ) from error
    _check_same(url, found)


def _probe_objects(url: str, name: str) -> None:
    store: Any = storage.object_store(storage.join(url, "_eoray"), max_retries=_RETRIES)
    put: Any = _step(url, "written", lambda: store.put(name, _CONTENT, mode="create"))
    found: Any = _step(url, "read", lambda: store.get(name).bytes())
    again: Any = {key: value for key, value in put.items() if value}  # GCS goes by the version
    _step(url, "replaced", lambda: store.put(name, _CONTENT, mode=again))
    is_kept = _step(url, "replaced", lambda: _keeps(store, name))
    _step(url, "deleted from", lambda: store.delete(name))
    _check_same(url, bytes(found))
    if not is_kept:
        raise AccessError(
            f"store {url!r} puts an object though one is there and the request forbids it "
            "(If-None-Match), so two runs could write at once; upgrade its server, or choose a "
            "store with conditional puts"
        )


def _keeps(store: Any, name: str) -> bool:
    """Whether a put that must create something leaves alone what is there."""
    from obstore.exceptions import AlreadyExistsError, PreconditionError

    try:
        store.put(name, _CONTENT, mode="create")
    except (AlreadyExistsError, PreconditionError):
        return True
    return False


def _step(url: str, what: str, act: Callable[[], Any]) -> Any:
    from obstore.exceptions import BaseError

    try:
        return act()
    except (BaseError, OSError) as error:
        why, remedy = _explain(error, what)
        raise AccessError(
            f"store {url!r} cannot be {what}: {why} ({_short(error)}); {remedy}"
        ) from error


def _explain(error: BaseException, what: str) -> tuple[str, str]:
    """(what is wrong, how to mend it) by what the server answered."""
    from obstore.exceptions import PermissionDeniedError, UnauthenticatedError

    text = str(error)
    if isinstance(error, UnauthenticatedError) or any(code in text for code in _REFUSED_CODES):
        return (
            "its credentials are refused",
            "correct them (cluster.secrets, cluster.service_account, the environment)",
        )
    if isinstance(error, PermissionDeniedError):
        return (
            f"this identity has no right that it may be {what}",
            "a run needs to put, get and delete objects there: widen its policy",
        )
    if "501 Not Implemented" in text or "NotImplemented" in text:
        return (
            "its server knows no conditional put",
            "upgrade it, or choose another store: two runs could write at once",
        )
    if isinstance(error, FileNotFoundError):
        return "there is no such bucket or container", "make it, or correct `store`"
    return (
        "it cannot be reached",
        "check `store`, endpoint, region, network policies, proxy and certificates of this place",
    )


def _check_same(url: str, found: bytes) -> None:
    if found != _CONTENT:
        raise AccessError(
            f"store {url!r} gives back other bytes than were put; look for a proxy or cache in "
            "between, or another writer of `_eoray`"
        )


def _refusal_of(scene: Scene) -> str | None:
    """Why a scene's server gives nothing out; None where it does, or only this file is at fault."""
    places = [scene.assets, *(place.assets for place in scene.elsewhere)]
    refusals = [_refusal_at(scene.item_id, assets[0]) for assets in places]
    return None if None in refusals else refusals[0]


def _refusal_at(item_id: str, asset: BandAsset) -> str | None:
    from eoray.reading.cog import CogFile
    from eoray.reading.ranges import UnsupportedFileError
    from eoray.reading.requests import UnreachableError

    try:
        CogFile(asset.href)  # keeps the header for the tasks of this process
    except UnreachableError as error:
        if not _is_access(error):
            return None
        return f"{asset.band} of item {item_id} at {mask(asset.href)!r} ({_short(error)})"
    except (UnsupportedFileError, OSError):
        return None  # GDAL's, or broken: the tasks will tell
    return None


def _is_access(error: UnreachableError) -> bool:
    return error.status in (401, 403) or "error sending request" in str(error.__cause__)


def _short(error: BaseException) -> str:
    return mask(" ".join(str(error).split()))[:200]
