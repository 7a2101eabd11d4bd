"""Whether a broker listens at all: one clear line at once, where librdkafka would try for half a minute."""

from __future__ import annotations

import socket

from headwater.core.errors import LogInterruptedError, MisuseError

CONNECT_S = 3.0
PORT = 9092


def addresses(servers: str) -> list[tuple[str, int]]:
    """Return hosts and ports of `HOST[:PORT][,…]`. Raises MisuseError."""
    found = []
    for server in servers.split(","):
        host, colon, port = server.strip().rpartition(":")
        if not colon:
            host, port = port, str(PORT)
        host = host.strip("[]")
        if not host or not (port.isascii() and port.isdigit() and 0 < int(port) < 65536):
            raise MisuseError(f"{server!r} is no broker's address; write kafka://HOST:PORT[,HOST:PORT]")
        found.append((host, int(port)))
    return found


def reach(url: str, servers: str) -> None:
    """Return where one of the brokers accepts a connection. Raises LogInterruptedError where none does."""
    reasons = []
    for host, port in addresses(servers):
        try:
            socket.create_connection((host, port), CONNECT_S).close()
            return
        except OSError as error:
            reasons.append(f"{host}:{port} ({error.strerror or error})")
    raise LogInterruptedError(
        f"no Kafka broker answers at {url}: {', '.join(reasons)}; start the brokers, or name others with --log "
        "(`headwater doctor` looks closer)"
    )
