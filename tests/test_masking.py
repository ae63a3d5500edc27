"""What gives a right to whoever reads it is masked; the rest stays as it was."""

from __future__ import annotations

import io
import json

import pytest

from eoray.log import configure_logging, get_logger
from eoray.masking import is_secret_name, is_signed, mask, secrets_of

SECRET = "kE7/Zq+very-secret=="


@pytest.mark.parametrize(
    ("text", "masked"),
    [
        (
            "GET https://b/x.tif?X-Amz-Date=2026&X-Amz-Signature=0af3&X-Amz-Expires=60 403",
            "GET https://b/x.tif?X-Amz-Date=2026&X-Amz-Signature=***&X-Amz-Expires=60 403",
        ),
        (
            "'https://a.blob/x.tif?sv=2024&sig=aB%2Fc%3D' refused",
            "'https://a.blob/x.tif?sv=2024&sig=***' refused",
        ),
        ("https://g/x?X-Goog-Signature=77aa&b=1", "https://g/x?X-Goog-Signature=***&b=1"),
        ("x-amz-security-token in ?X-Amz-Security-Token=FQo/=", None),
        ("Authorization: Bearer eyJhbGciOi.J9-x_y", "Authorization: Bearer ***"),
        ('{"authorization": "Basic dXNlcjpwYXNz"}', '{"authorization": "Basic ***"}'),
        ("sent bearer 0123456789abcdef to it", "sent bearer *** to it"),
        ("http://ada:lovelace@proxy:3128", "http://ada:***@proxy:3128"),
        ('{"href": "https://b/x?sig=abc", "n": 1}', '{"href": "https://b/x?sig=***", "n": 1}'),
        (f"key {SECRET} in use", "key *** in use"),
    ],
)
def test_rights_are_masked(text: str, masked: str | None) -> None:
    found = mask(text, (SECRET,))
    assert found == (masked if masked is not None else text.partition("FQo")[0] + "***")
    assert mask(found, (SECRET,)) == found


@pytest.mark.parametrize(
    "text",
    [
        "https://b/x.tif?version=3&part=2",
        "token authentication is set alike on both sides",
        "time 03:00:12@z32, s3://maps/slovenia, ray://head:10001",
        "the bearer of it",
        "design=open signature of a method",
    ],
)
def test_what_gives_no_right_stays(text: str) -> None:
    assert mask(text, (SECRET,)) == text
    assert not is_signed(text)


@pytest.mark.parametrize(
    ("name", "secret"),
    [
        ("AWS_SECRET_ACCESS_KEY", True),
        ("AZURE_STORAGE_ACCOUNT_KEY", True),
        ("RAY_AUTH_TOKEN", True),
        ("PGPASSWORD", True),
        ("AWS_WEB_IDENTITY_TOKEN_FILE", False),
        ("AWS_CONTAINER_CREDENTIALS_FULL_URI", False),
        ("RAY_AUTH_MODE", False),
        ("HOME", False),
    ],
)
def test_variables_that_hold_a_secret_are_known_by_name(name: str, secret: bool) -> None:
    assert is_secret_name(name) is secret
    assert secrets_of({name: f" {SECRET}\n"}) == ((SECRET,) if secret else ())


def test_short_values_are_no_secrets_and_long_ones_come_first() -> None:
    found = secrets_of({"A_TOKEN": "true", "B_TOKEN": "12345678", "C_TOKEN": "123456789"})
    assert found == ("123456789", "12345678")


def test_log_lines_and_tracebacks_are_masked_on_their_way_out() -> None:
    stream = io.StringIO()
    quoted = 'a"b-secret'
    configure_logging(stream=stream, secrets=(quoted,))
    try:
        raise ValueError(f"no https://b/x?sig=abcd with {quoted}")
    except ValueError:
        get_logger().exception("failed", href="https://b/x?X-Amz-Signature=ff", key=quoted)
    line = json.loads(stream.getvalue())
    assert line["href"] == "https://b/x?X-Amz-Signature=***"
    assert line["key"] == "***"
    assert "no https://b/x?sig=*** with ***" in line["exception"]
