"""Section ``storage``: how the buckets of a run are reached."""

from __future__ import annotations

from typing import Annotated

from pydantic import AfterValidator
from pydantic.json_schema import WithJsonSchema

from eoray.buckets import Bucket
from eoray.config.section import Section
from eoray.errors import ConfigError

_BUCKET = r"^s3://[a-z0-9][a-z0-9.-]{1,61}[a-z0-9]$"
_SERVER = r"^https?://[^/@?#]+$"
_TOKENS = r"^https?://[^@?#]+$"
_ENDPOINT = r"^https?://[^/@?#]+/?$"


def _check_bucket(text: str) -> str:
    import re

    if not (re.match(_BUCKET, text) or re.match(_SERVER, text)):
        raise ConfigError(
            f"{text!r} is no bucket of S3; write it like 's3://maps', without a path (gs:// and "
            "az:// are reached as the environment says), or a server of files like "
            "'https://files.example'"
        )
    return text


def _check_tokens(text: str) -> str:
    import re

    if not re.match(_TOKENS, text):
        raise ConfigError(
            f"{text!r} is no address of tokens; write it like "
            "'https://proxy.example/token/{account}/{container}', without a password or a query"
        )
    return text


def _check_endpoint(text: str) -> str:
    import re

    if not re.match(_ENDPOINT, text):
        raise ConfigError(
            f"{text!r} is no server; write it like 'https://minio.example:9000', without a path "
            "and without a password"
        )
    return text.rstrip("/")


BucketUrl = Annotated[
    str,
    AfterValidator(_check_bucket),
    WithJsonSchema({"type": "string", "pattern": f"{_BUCKET}|{_SERVER}"}),
]
TokenUrl = Annotated[
    str, AfterValidator(_check_tokens), WithJsonSchema({"type": "string", "pattern": _TOKENS})
]
Endpoint = Annotated[
    str, AfterValidator(_check_endpoint), WithJsonSchema({"type": "string", "pattern": _ENDPOINT})
]


class BucketSection(Section):
    """How one bucket, or server of files, is reached; credentials come from the environment."""

    endpoint: Endpoint | None = None
    """Server of an S3 that is not Amazon's, such as ``https://minio.example:9000``."""
    region: str | None = None
    path_style: bool | None = None
    """The bucket stands in the path, not in the host's name; null: where endpoint is given."""
    anonymous: bool = False
    """Requests are not signed: public data."""
    requester_pays: bool = False
    tokens: TokenUrl | None = None
    """Of a server of files: where rights to read them are given out in place of the provider's
    own service; ``{account}`` and ``{container}`` are filled in."""

    def bucket(self) -> Bucket:
        """The section as what the libraries' options are made of."""
        return Bucket(**{**self.model_dump(), "tokens": self.tokens or ""})
