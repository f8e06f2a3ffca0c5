"""Python started with this folder on its path cannot reach beyond loopback while FROZENKIT_BLOCK_NETWORK=1.

An audit hook sees every connection that Python code opens, whichever library asked for it, and cannot be taken out.
"""

import errno
import os
import socket
import sys

NAMES = {"", "localhost", "localhost.localdomain", "0.0.0.0", "::", "::1"}


def is_loopback(host: object) -> bool:
    """Whether `host` (a name or an address, str or bytes) stays on this machine."""
    if isinstance(host, bytes):
        host = host.decode(errors="replace")
    if not isinstance(host, str):
        return host is None
    name = host.lower().removeprefix("::ffff:")
    return name in NAMES or (name.startswith("127.") and name.replace(".", "").isdigit())


def guard(event: str, args: tuple) -> None:
    """Refuse connections, datagrams and look-ups that leave loopback."""
    if event in ("socket.connect", "socket.sendto", "socket.sendmsg"):
        address = args[1]
        if args[0].family not in (socket.AF_INET, socket.AF_INET6) or address is None:
            return
        host = address[0]
    elif event in ("socket.getaddrinfo", "socket.gethostbyname"):
        host = args[0]
        if host == socket.gethostname():  # servers look up their own name; connecting to it is judged by its address
            return
    else:
        return
    if not is_loopback(host):
        raise OSError(errno.ENETUNREACH, f"network is blocked in this run: {event} to {host!r}")


if os.environ.get("FROZENKIT_BLOCK_NETWORK") == "1":
    sys.addaudithook(guard)
