"""How buckets are reached: one description, four libraries.

obstore, Icechunk, GDAL and fsspec read different variables, and the same ones differently: GDAL
ignores ``AWS_ENDPOINT_URL``, obstore and Icechunk sign though ``AWS_NO_SIGN_REQUEST`` is set. A
variable also holds for every bucket of a process, and a run reads public scenes from one place
and writes to another. So each bucket is described once, by the run file's section ``storage`` or
else by the environment, and translated here.

Credentials are never part of it: all take them from the environment or from the pod's
identity, GDAL where it has other names for them after a translation. Proxies and certificates are
the process's; every library here reads their variables.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlparse

_TRUE = ("1", "true", "yes", "on")


@dataclass(frozen=True, slots=True)
class Bucket:
    """How one bucket is reached."""

    endpoint: str | None = None
    """Server of an S3 that is not Amazon's, such as ``https://minio.example:9000``."""
    region: str | None = None
    path_style: bool | None = None
    """The bucket stands in the path, not in the host's name; None: with an endpoint only."""
    anonymous: bool = False
    """Requests are not signed: public data."""
    requester_pays: bool = False
    tokens: str = ""
    """For a server of HTTP: where rights to read its files are given out, as Planetary Computer
    does; ``{account}`` and ``{container}`` are filled in."""

    @property
    def in_path(self) -> bool:
        """Whether the bucket's name stands in the path."""
        return self.endpoint is not None if self.path_style is None else self.path_style

    @property
    def is_plain_http(self) -> bool:
        """Whether requests travel unencrypted."""
        return self.endpoint is not None and self.endpoint.startswith("http://")


_PUBLIC = {"s3://eodata": Bucket(endpoint="https://eodata.dataspace.copernicus.eu")}
"""Buckets of archives whose server is a fact; the run file and the environment know better."""

_known: dict[str, Bucket] = {}


def use_buckets(buckets: Mapping[str, Bucket]) -> None:
    """Describe buckets for this process, in place of those described before.

    Args:
        buckets: By URL, such as ``s3://maps`` or ``https://files.example``. Tasks on other
            machines get them from the driver.
    """
    global _known  # noqa: PLW0603 - one description a process, replaced as a whole
    _known = dict(buckets)


def known_buckets() -> dict[str, Bucket]:
    """What :func:`use_buckets` described."""
    return dict(_known)


def bucket_of(url: str) -> Bucket:
    """How the bucket of a URL is reached, as far as is known; the environment fills gaps.

    Args:
        url: Of the bucket or of anything in it.
    """
    parsed = urlparse(url)
    bucket = f"{parsed.scheme}://{parsed.netloc}"
    known = _known.get(bucket)
    if known is not None:
        return known
    told = _of_environment()
    return told if told.endpoint else _PUBLIC.get(bucket, told)


def _of_environment() -> Bucket:
    unsigned = ("AWS_NO_SIGN_REQUEST", "AWS_SKIP_SIGNATURE")
    return Bucket(
        endpoint=os.environ.get("AWS_ENDPOINT_URL_S3") or os.environ.get("AWS_ENDPOINT_URL"),
        region=_region(),
        anonymous=any(map(_is_set, unsigned)),
        requester_pays=os.environ.get("AWS_REQUEST_PAYER", "") == "requester",
    )


def _region() -> str | None:
    return os.environ.get("AWS_REGION") or os.environ.get("AWS_DEFAULT_REGION")


def obstore_options(url: str) -> dict[str, Any]:
    """Keywords of ``obstore.store.from_url``, and of the same store behind fsspec."""
    bucket = bucket_of(url)
    found: dict[str, Any] = {
        "skip_signature": bucket.anonymous,
        "request_payer": bucket.requester_pays,
        "virtual_hosted_style_request": not bucket.in_path,
        "client_options": {"allow_http": bucket.is_plain_http},
    }
    if bucket.endpoint:
        found["endpoint"] = bucket.endpoint
    if bucket.region or _region():
        found["region"] = bucket.region or _region()
    return found


def icechunk_options(url: str) -> dict[str, Any]:
    """Keywords of ``icechunk.s3_storage`` beside bucket and prefix."""
    bucket = bucket_of(url)
    return {
        "endpoint_url": bucket.endpoint,
        "region": bucket.region or _region(),
        "allow_http": bucket.is_plain_http,
        "force_path_style": bucket.in_path,
        "requester_pays": bucket.requester_pays,
        **({"anonymous": True} if bucket.anonymous else {"from_env": True}),
    }


def gdal_options(url: str) -> dict[str, str]:
    """Options of GDAL's ``/vsis3/``, ``/vsigs/`` or ``/vsiaz/`` while a file is opened and read."""
    match urlparse(url).scheme:
        case "gs":
            return _gdal_google()
        case "az":
            return _gdal_azure()
        case _:
            return _gdal_s3(bucket_of(url))


def _gdal_s3(bucket: Bucket) -> dict[str, str]:
    found = {
        "AWS_NO_SIGN_REQUEST": "YES" if bucket.anonymous else "NO",
        "AWS_VIRTUAL_HOSTING": "NO" if bucket.in_path else "YES",
        "AWS_HTTPS": "NO" if bucket.is_plain_http else "YES",
    }
    if bucket.endpoint:
        found["AWS_S3_ENDPOINT"] = bucket.endpoint.split("://", 1)[-1].rstrip("/")
    if region := bucket.region or _region():
        # the second wins, and EKS sets it for the cluster's region
        found |= {"AWS_REGION": region, "AWS_DEFAULT_REGION": region}
    if bucket.requester_pays:
        found["AWS_REQUEST_PAYER"] = "requester"
    if sts := os.environ.get("AWS_ENDPOINT_URL_STS"):
        found["CPL_AWS_STS_ROOT_URL"] = sts.rstrip("/")
    return found


def _gdal_google() -> dict[str, str]:
    """GDAL asks for tokens only where the machine's firmware is Google's; pods may not see it."""
    found = {"CPL_GCE_CHECK_LOCAL_FILES": "NO"}
    if host := os.environ.get("GCE_METADATA_HOST"):
        found["CPL_GCE_CREDENTIALS_URL"] = f"http://{host}/{_GOOGLE_TOKENS}"
    file = _first_set("GOOGLE_APPLICATION_CREDENTIALS", *_GOOGLE_FILES) or _google_login()
    if file:
        found["GOOGLE_APPLICATION_CREDENTIALS"] = file
    if _is_set("GOOGLE_SKIP_SIGNATURE"):
        found["GS_NO_SIGN_REQUEST"] = "YES"
    return found


_GOOGLE_TOKENS = "computeMetadata/v1/instance/service-accounts/default/token"
_GOOGLE_FILES = ("GOOGLE_SERVICE_ACCOUNT", "GOOGLE_SERVICE_ACCOUNT_PATH")


def _google_login() -> str:
    """Where ``gcloud auth application-default login`` leaves what it was given."""
    file = Path.home() / ".config/gcloud/application_default_credentials.json"
    return str(file) if file.is_file() else ""


def _gdal_azure() -> dict[str, str]:
    found = {name: _first_set(*others) for name, others in _AZURE.items()}
    if _is_set("AZURE_SKIP_SIGNATURE"):
        found["AZURE_NO_SIGN_REQUEST"] = "YES"
    return {name: value for name, value in found.items() if value}


_AZURE = {
    "AZURE_STORAGE_ACCOUNT": ("AZURE_STORAGE_ACCOUNT_NAME",),
    "AZURE_STORAGE_ACCESS_KEY": ("AZURE_STORAGE_ACCOUNT_KEY", "AZURE_STORAGE_ACCESS_KEY"),
    "AZURE_STORAGE_SAS_TOKEN": ("AZURE_STORAGE_SAS_KEY", "AZURE_STORAGE_SAS_TOKEN"),
    "CPL_AZURE_ENDPOINT": ("AZURE_STORAGE_ENDPOINT", "AZURE_ENDPOINT"),
}
"""GDAL's names -> obstore's and Icechunk's."""


def _first_set(*names: str) -> str:
    return next((value for name in names if (value := os.environ.get(name))), "")


def _is_set(name: str) -> bool:
    return os.environ.get(name, "").lower() in _TRUE
