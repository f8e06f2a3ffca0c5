"""The Hugging Face hub, as far as several libraries share it."""

import os
import socket
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def quick_when_offline(host: str) -> Iterator[None]:
    """Spares people without a network the hub's retries, which take most of a minute; local copies are still used."""
    from huggingface_hub import constants

    before = constants.HF_HUB_OFFLINE
    try:
        if not any(os.environ.get(name) for name in ("HTTPS_PROXY", "https_proxy", "ALL_PROXY", "HF_ENDPOINT")):
            socket.create_connection((host, 443), timeout=5).close()
    except OSError:
        constants.HF_HUB_OFFLINE = True
    try:
        yield
    finally:
        constants.HF_HUB_OFFLINE = before
