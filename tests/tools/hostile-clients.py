#!/usr/bin/env python3
"""Clients that hold up a web server: hostile-clients.py HOST:PORT KIND N SECONDS

Prints `ready` when N connections were made, goes on for SECONDS, then prints what became of them. Connections that
the server closes are made anew, as a patient attacker would.
"""
import resource, socket, sys, time

host, port = sys.argv[1].rsplit(":", 1)
kind, n, seconds = sys.argv[2], int(sys.argv[3]), float(sys.argv[4])
hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
resource.setrlimit(resource.RLIMIT_NOFILE, (min(hard, 8192), hard))

HEAD = b"POST /hook HTTP/1.1\r\nHost: crowsnest\r\n"
FIRST = {
    "slow-head": b"POST /ho",
    "slow-body": HEAD + b"Content-Length: 1000000\r\n\r\n" + b"x" * 100_000,
    "endless-head": HEAD,
    "endless-line": b"GET /",
    "large-body": HEAD + b"Content-Length: 104857600\r\n\r\n",
    "chunked-body": HEAD + b"Transfer-Encoding: chunked\r\n\r\n",
    "no-answer-read": b"GET /healthz HTTP/1.1\r\n\r\n" * 50,
    "garbage": b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" * 20 + b"\r\n\r\n" + b"GET / HTTP/9.9\r\n\r\n" * 20,
}
MORE = {
    "slow-head": b"o",
    "slow-body": b"y",
    "endless-head": b"X-Filling: " + b"a" * 4000 + b"\r\n",
    "endless-line": b"a" * 4000,
    "large-body": b"z" * 65536,
    "chunked-body": b"ffff\r\n" + b"c" * 65535 + b"\r\n",
    "no-answer-read": b"GET /healthz HTTP/1.1\r\n\r\n" * 50,
    "garbage": b"\r\n\r\n\0\0\0 / \r\nPOST\r\n\r\n",
}
made = closed = 0


def connect():
    global made
    s = socket.socket()
    s.setblocking(False)
    try:
        s.connect((host, int(port)))
    except BlockingIOError:
        pass
    made += 1
    return [s, FIRST[kind]]


sockets = [connect() for _ in range(n)]
print("ready", flush=True)
end = time.time() + seconds
while time.time() < end:
    for entry in sockets:
        s, rest = entry
        try:
            if rest:
                entry[1] = rest[s.send(rest):]
            else:
                s.send(MORE[kind])
            if kind != "no-answer-read":
                if s.recv(4096) == b"":
                    raise ConnectionError
        except BlockingIOError:
            pass
        except OSError:
            closed += 1
            s.close()
            entry[:] = connect()
    time.sleep(0.5 if kind.startswith("slow") else 0.005)
print(f"made {made} closed {closed}")
