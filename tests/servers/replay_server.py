"""A server that answers with the recorded bytes of another, and ends its connections as that one did.

Run as a program it prints its port as one line of JSON, and it ends when its standard input closes. The path before
`/v1/` names the reply, a file of `tests/data/recorded`. llama.cpp's server closes 0.04 ms after a stream or an error;
LiteLLM's proxy keeps the connection.
"""

from __future__ import annotations

import socket
import time
from pathlib import Path

from .closing_server import CLOSES_AFTER_S, read_request, serve_until_input_ends

RECORDED = Path(__file__).parents[1] / "data" / "recorded"


def serve(connection: socket.socket) -> None:
    """One connection to its end."""
    with connection, connection.makefile("rb") as reader:
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        while (request := read_request(reader)) is not None:
            name = request[0].split("/")[1]
            reply = (RECORDED / f"{name}.http").read_bytes()
            connection.sendall(reply)
            if name.startswith("llama_cpp") and not name.endswith("whole"):
                time.sleep(CLOSES_AFTER_S)
                return


if __name__ == "__main__":
    serve_until_input_ends(serve)
