"""URLs of stores: local folders and object stores behind a few plain functions.

Files beside the repository (item snapshots, records, leases) are small; they are put whole, so
that a reader sees the old content or the new, never a part.
"""

from __future__ import annotations

import io
import json
import os
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import unquote, urlparse

from eoray.errors import StoreError
from eoray.masking import mask

if TYPE_CHECKING:
    import fsspec
    import icechunk
    import obstore

REPOSITORY = "cube.icechunk"
"""Name of the Icechunk repository inside a store."""

_OBJECT_SCHEMES = ("s3", "gs", "az", "memory")


def is_local(url: str) -> bool:
    """Tell a folder of this machine from an object store."""
    return urlparse(url).scheme in ("", "file")


def local_path(url: str) -> Path:
    """Turn a local URL or path into a path.

    Raises:
        StoreError: The URL names an object store.
    """
    parsed = urlparse(url)
    if parsed.scheme not in ("", "file"):
        raise StoreError(f"{url!r} is no local folder; give a path or file:// URL here")
    return Path(unquote(parsed.path) if parsed.scheme == "file" else url)


def join(url: str, *parts: str) -> str:
    """Append path segments to a URL or a local path."""
    return "/".join([url.rstrip("/"), *(part.strip("/") for part in parts)])


def exists(url: str) -> bool:
    """Tell whether an object or a local file is there."""
    if is_local(url):
        return local_path(url).exists()
    try:
        object_store(_parent(url)).head(_name(url))
    except FileNotFoundError:
        return False
    return True


def read_bytes(url: str) -> bytes:
    """Read an object or a local file whole.

    Raises:
        FileNotFoundError: There is none.
    """
    if is_local(url):
        return local_path(url).read_bytes()
    return bytes(object_store(_parent(url)).get(_name(url)).bytes())


def list_names(url: str) -> list[str]:
    """Names of what lies right below a folder or prefix, folders too, in order; none is fine."""
    if is_local(url):
        folder = local_path(url)
        return sorted(path.name for path in folder.iterdir()) if folder.is_dir() else []
    found = object_store(url).list_with_delimiter()
    paths = [*found["common_prefixes"], *(entry["path"] for entry in found["objects"])]
    return sorted(_name(str(path)) for path in paths)


def delete(url: str) -> None:
    """Delete an object or a local file; none is fine."""
    if is_local(url):
        local_path(url).unlink(missing_ok=True)
    elif exists(url):
        object_store(_parent(url)).delete(_name(url))


@contextmanager
def local_copy(url: str) -> Iterator[Path]:
    """Lend a file for libraries that read files only: a local one itself, else a copy of it.

    Args:
        url: A path, an object, or a file behind HTTP. It is read whole, so it should be small.

    Raises:
        FileNotFoundError: There is none.
        StoreError: It cannot be read.
    """
    if is_local(url):
        yield local_path(url)
        return
    with tempfile.TemporaryDirectory(prefix="eoray-copy-") as folder:
        path = Path(folder) / unquote(urlparse(_name(url)).path)
        path.write_bytes(_read_any(url))
        yield path


def open_ranged(url: str) -> io.RawIOBase:
    """Open a file of which only the parts that are read travel, such as a large Parquet.

    Args:
        url: A path, an object, or a file behind HTTP.

    Raises:
        FileNotFoundError: There is none.
        StoreError: It cannot be read.
    """
    if is_local(url):
        return io.FileIO(local_path(url))
    return _RangedFile(url)


class _RangedFile(io.RawIOBase):
    """Reads of an object as requests for ranges."""

    def __init__(self, url: str) -> None:
        super().__init__()
        self._url, self._at = url, 0
        self._store, self._key = _place_of(url)
        self._size = int(self._try(lambda: self._store.head(self._key))["size"])

    def _try(self, ask: Callable[[], Any]) -> Any:
        from obstore.exceptions import BaseError

        try:
            return ask()
        except FileNotFoundError:
            raise
        except BaseError as error:
            raise StoreError(
                f"{self._url!r} cannot be read ({_short(error)}); correct the address"
            ) from error

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def tell(self) -> int:
        return self._at

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        begin = {io.SEEK_SET: 0, io.SEEK_CUR: self._at, io.SEEK_END: self._size}[whence]
        self._at = max(0, begin + offset)
        return self._at

    def readinto(self, buffer: Any) -> int:
        target = memoryview(buffer).cast("B")
        length = max(0, min(len(target), self._size - self._at))
        if length:
            data = self._try(
                lambda: self._store.get_range(self._key, start=self._at, length=length)
            )
            target[:length] = memoryview(data)
            self._at += length
        return length


def _place_of(url: str) -> tuple[Any, str]:
    """The store that an object lies in, and its name there."""
    if urlparse(url).scheme not in ("http", "https"):
        return object_store(_parent(url)), _name(url)
    from obstore.store import HTTPStore

    store = HTTPStore.from_url(_parent(url), client_options={"allow_http": True})
    return store, unquote(_name(url))


def _short(error: BaseException) -> str:
    return mask(" ".join(str(error).split()))[:200]


def _read_any(url: str) -> bytes:
    if urlparse(url).scheme not in ("http", "https"):
        return read_bytes(url)
    from obstore.exceptions import BaseError

    try:
        store, key = _place_of(url)
        return bytes(store.get(key).bytes())
    except BaseError as error:
        raise StoreError(
            f"{url!r} cannot be read ({_short(error)}); correct the address"
        ) from error


def write_bytes(url: str, data: bytes) -> None:
    """Put an object or a local file whole, replacing what was there.

    Raises:
        StoreError: The disk is full, or the place may not be written.
    """
    if not is_local(url):
        object_store(_parent(url)).put(_name(url), data)
        return
    path = local_path(url)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        handle, temporary = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
        try:
            with os.fdopen(handle, "wb") as file:
                file.write(data)
                file.flush()
                os.fsync(file.fileno())
            Path(temporary).replace(path)
        except BaseException:
            Path(temporary).unlink(missing_ok=True)
            raise
    except OSError as error:
        raise StoreError(
            f"cannot write {str(path)!r}: {error.strerror or error}; free space or choose "
            "another store"
        ) from error


def write_json(url: str, value: Any) -> None:
    """Put a JSON document whole, keys in order."""
    write_bytes(url, (json.dumps(value, indent=1, sort_keys=True) + "\n").encode())


def read_json(url: str) -> Any:
    """Read a JSON document."""
    return json.loads(read_bytes(url))


def object_store(
    url: str, *, max_retries: int | None = None, timeout_s: float | None = None
) -> obstore.store.ObjectStore:
    """Open an object store by URL; credentials come from the environment, as obstore reads it.

    Args:
        url: Bucket or container, and a prefix.
        max_retries: Of a request; None takes obstore's, which tries for minutes.
        timeout_s: Of a request, its bytes included; None takes obstore's, 30 s.
    """
    from obstore.store import from_url

    from eoray.buckets import obstore_options

    if urlparse(url).scheme in ("http", "https"):
        raise StoreError(
            f"{url!r} can only be read; write outputs to a folder, s3://, gs:// or az://"
        )
    if urlparse(url).scheme not in _OBJECT_SCHEMES:
        raise StoreError(
            f"store {url!r} has no scheme that eoray knows; use a folder, s3://, gs:// or az://"
        )
    options: Any = obstore_options(url) if urlparse(url).scheme == "s3" else {}
    if max_retries is not None and urlparse(url).scheme != "memory":
        patience = timedelta(seconds=20)
        options["retry_config"] = {"max_retries": max_retries, "retry_timeout": patience}
    if timeout_s is not None and urlparse(url).scheme != "memory":
        options.setdefault("client_options", {})["timeout"] = timedelta(seconds=timeout_s)
    return from_url(url, **options)


def filesystem(url: str) -> fsspec.AbstractFileSystem:
    """Open a store as fsspec's filesystem, for pandas, xarray, geopandas and the like.

    Objects are reached by the same client as eoray's own, so no s3fs, gcsfs or adlfs is needed.
    """
    import fsspec

    if is_local(url):
        return fsspec.filesystem("file")
    from obstore import fsspec as behind

    from eoray.buckets import obstore_options

    scheme = urlparse(url).scheme
    options = obstore_options(url) if scheme == "s3" else {}
    client = options.pop("client_options", None)
    filesystem: Any = behind.FsspecStore  # its overloads want a literal scheme
    found: fsspec.AbstractFileSystem = filesystem(scheme, config=options, client_options=client)
    return found


def icechunk_storage(url: str) -> icechunk.Storage:
    """Describe where an Icechunk repository lies."""
    import icechunk

    from eoray.buckets import icechunk_options

    parsed = urlparse(url)
    if is_local(url):
        return icechunk.local_filesystem_storage(str(local_path(url)))
    bucket, prefix = parsed.netloc, parsed.path.strip("/")
    if parsed.scheme == "s3":
        return icechunk.s3_storage(bucket=bucket, prefix=prefix, **icechunk_options(url))
    if parsed.scheme in ("http", "https"):
        return icechunk.http_storage(url)  # to be read only
    if parsed.scheme == "gs":
        return icechunk.gcs_storage(bucket=bucket, prefix=prefix, from_env=True)
    if parsed.scheme == "az":
        account = os.environ.get("AZURE_STORAGE_ACCOUNT_NAME", "")
        if not account:
            raise StoreError(f"{url!r} needs AZURE_STORAGE_ACCOUNT_NAME in the environment; set it")
        return icechunk.azure_storage(
            account=account, container=bucket, prefix=prefix, from_env=True
        )
    raise StoreError(
        f"a repository cannot lie at {url!r}; use a folder, s3://, gs:// or az://, or https:// for "
        "one that is only read"
    )


def _parent(url: str) -> str:
    return url.rstrip("/").rsplit("/", 1)[0]


def _name(url: str) -> str:
    return url.rstrip("/").rpartition("/")[2]
