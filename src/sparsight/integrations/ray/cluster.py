"""Ray clusters: the user's, or one started here with a token, without dashboard and usage statistics."""

from __future__ import annotations

import os
import secrets
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from sparsight.runs.study.local import available_cores

OURS = {
    "RAY_AUTH_MODE": "token",
    "RAY_USAGE_STATS_ENABLED": "0",
    "RAY_enable_metrics_collection": "0",
    "RAY_worker_niceness": "0",  # a trial is as urgent as it is without Ray
}
"""Settings of a cluster started here, which Ray reads when it is imported."""


def ray() -> Any:
    """The library. Raises: ModuleNotFoundError with the command to install it."""
    try:
        import ray as library
    except ModuleNotFoundError as error:
        raise ModuleNotFoundError("--engine ray needs Ray: pip install sparsight[ray]") from error
    return library


@contextmanager
def attached(address: str | None, say: Callable[[str], None]) -> Iterator[None]:
    """A block with a Ray cluster: the one at `address` ("auto": on this machine), otherwise one started here.

    A cluster started here has this machine's cores, requires a token, and ends with the block; `say` gets its open
    ports. If the caller is already attached to a cluster, that one is used.
    """
    if "ray" in sys.modules and ray().is_initialized():
        yield
        return
    if address is None and "ray" in sys.modules and os.environ.get("RAY_AUTH_MODE") != "token":
        raise RuntimeError(
            "Ray reads its settings when it is imported, so a cluster with a token cannot be started any more: set "
            "RAY_AUTH_MODE=token before import ray, or attach to a cluster first"
        )
    before = dict(os.environ)
    quiet = {"log_to_driver": False, "configure_logging": False}
    try:
        if address is None:
            os.environ.update(OURS, RAY_AUTH_TOKEN=secrets.token_hex(32))
            ray().init(include_dashboard=False, num_cpus=available_cores(), **quiet)
            say(f"started Ray on this machine; it lets in who has its token, and listens on {', '.join(open_ports())}")
        else:
            os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
            ray().init(address=address, **quiet)
        yield
    finally:
        if "ray" in sys.modules:
            ray().shutdown()
        for name in (*OURS, "RAY_AUTH_TOKEN"):
            os.environ.pop(name, None)
            if name in before:
                os.environ[name] = before[name]


def open_ports() -> list[str]:
    """The open ports of processes started by this one: "gcs_server [::]:41365"."""
    import psutil

    found = []
    for process in psutil.Process().children(recursive=True):
        try:
            listening = [c.laddr for c in process.net_connections("inet") if c.status == psutil.CONN_LISTEN]
        except psutil.Error:  # it has ended
            continue
        found += [f"{process.name()} {f'[{at.ip}]' if ':' in at.ip else at.ip}:{at.port}" for at in listening]
    return found


__all__ = ["attached", "open_ports", "ray"]
