"""How every verb ends: its result on stdout, one line for an error, an exit code."""

from __future__ import annotations

import json
import os
import traceback
from collections.abc import Callable, Iterator, Mapping
from enum import IntEnum
from typing import Any

import typer

from eoray.errors import EorayError

Result = Mapping[str, Any]


class Exit(IntEnum):
    """Exit codes of the command line."""

    DONE = 0
    FAILED = 1
    USAGE = 2
    TIMEOUT = 3
    UNREACHABLE = 4
    CANCELLED = 5
    DETACHED = 130
    """Ctrl-C left what goes on: the shells' own code for it."""


class Detached(KeyboardInterrupt):
    """Ctrl-C, while what was followed goes on; its message says how to come back to it."""

    kind = "detached"


_BY_KIND = {
    "config": Exit.USAGE,
    "timeout": Exit.TIMEOUT,
    "cluster": Exit.UNREACHABLE,
    "access": Exit.UNREACHABLE,
}

_CANCELLED = "stopped; state kept; run the same command again to go on"


def run_verb(
    action: Callable[[], Result],
    *,
    text: Callable[[Result], str | None],
    as_json: bool,
    debug: bool = False,
    failed: Callable[[Result], bool] = lambda _: False,
    ends: Callable[[Result], Exit] = lambda _: Exit.DONE,
) -> None:
    """Carry out a verb and end the process as its outcome demands.

    Args:
        action: Does the work and returns plain JSON values.
        text: Writes the result for a reader; None where nothing is left to say.
        as_json: End stdout with the result, or the error, as one JSON object in one line.
        debug: Show the traceback of an error that eoray raises on purpose.
        failed: Tells a result that is bad news, such as a check that found faults.
        ends: The exit code of a result, where it is not the verb's own.

    Raises:
        typer.Exit: With the exit code, unless the verb is done.
    """
    _begin_logging(debug=debug)
    try:
        result = action()
    except Detached as error:
        _fail(error, str(error), as_json=as_json)
        raise typer.Exit(Exit.DETACHED) from error
    except KeyboardInterrupt as error:
        _fail(error, _CANCELLED, as_json=as_json)
        raise typer.Exit(Exit.CANCELLED) from error
    except Exception as error:
        if debug or not isinstance(error, (EorayError, OSError)):
            typer.echo(_masked(traceback.format_exc()), err=True)
        _fail(error, f"error: {type(error).__name__}: {error}", as_json=as_json)
        raise typer.Exit(resolve_exit(error)) from error
    said = json.dumps(result) if as_json else text(result)
    if said is not None:
        typer.echo(said)
    code = Exit.FAILED if failed(result) else ends(result)
    if code is not Exit.DONE:
        raise typer.Exit(code)


def resolve_exit(error: BaseException) -> Exit:
    """Choose the exit code of an error, looking through what caused it."""
    kind = getattr(error, "kind", None)
    if kind in _BY_KIND:
        return _BY_KIND[kind]
    for cause in _chain(error):
        if isinstance(cause, TimeoutError):
            return Exit.TIMEOUT
        if isinstance(cause, (ConnectionError, PermissionError)) or _is_http(cause):
            return Exit.UNREACHABLE
    return Exit.FAILED


def _begin_logging(*, debug: bool) -> None:
    from eoray.log import configure_logging
    from eoray.masking import secrets_of

    # in a pod the driver is a child of Ray: its own stderr is not what the cluster's logs show
    copy = os.environ.get("EORAY_LOG_COPY") or None
    level = "DEBUG" if debug else "INFO"
    configure_logging(level=level, copy=copy, secrets=secrets_of(os.environ))


def _fail(error: BaseException, line: str, *, as_json: bool) -> None:
    typer.echo(_masked(line), err=True)
    if as_json:
        kind = getattr(error, "kind", "defect" if isinstance(error, Exception) else "cancelled")
        message = _masked(str(error))
        described = {"type": type(error).__name__, "kind": kind, "message": message}
        typer.echo(json.dumps({"error": described}))


def _masked(text: str) -> str:
    from eoray.masking import mask, secrets_of

    return mask(text, secrets_of(os.environ))


def _chain(error: BaseException) -> Iterator[BaseException]:
    cause: BaseException | None = error
    while cause is not None:
        yield cause
        cause = cause.__cause__


def _is_http(error: BaseException) -> bool:
    """Tell errors of HTTP clients, without importing the clients."""
    return isinstance(error, OSError) and type(error).__module__.split(".")[0] in _HTTP_CLIENTS


_HTTP_CLIENTS = frozenset({"aiohttp", "requests", "urllib", "urllib3"})
