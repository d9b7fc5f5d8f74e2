"""A server under load: throughput, latency and the server's CPU time, with and without batching.

The demo's model, 10 images a request by id, every query another one. Clients send their next
request when the last is answered. All servers run during the whole of it, and take turns in an
order of chance.

    python benchmarks/serve.py --json benchmarks/results/serve_demo.json
"""

from __future__ import annotations

import asyncio
import json
import os
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import click
import numpy as np
import uvloop

from sgraf_deploy.bench.run import processor
from sgraf_deploy.demo.assets import demo_split, export_demo
from sgraf_deploy.files.writer import write_json
from sgraf_deploy.gallery.rows import Batch
from sgraf_deploy.gallery.store import Gallery
from sgraf_deploy.runtime.scorer import load
from sgraf_deploy.versions import tool_versions

CANDIDATES = 10
TURNS = {1: 3, 16: 1, 64: 1}
"""By the number of clients, how often each server is loaded in a round: a single client's latency
scatters most, and its ratio is bounded most narrowly."""
MODES = {
    "batched, 1 engine thread": ("batched", 1),
    "batched, 2 engine threads": ("batched", 2),
    "one at a time, 1 engine thread": ("single", 1),
    "one at a time, 2 engine threads": ("single", 2),
    "8 callers, 1 engine thread": ("callers", 1),
    "8 callers, 2 engine threads": ("callers", 2),
    "HTTP alone": ("stub", 1),
}
HTTP = "HTTP alone"
SEED = 0
THROUGHPUT, CPU, LATENCY, HTTP_US = 2.0, 0.5, 1.1, 200.0
"""At 64 clients at least so many times the best unbatched throughput, at most this share of its CPU
a request; at 1 client at most so many times its median latency; at most so many µs of CPU a request
without a scorer."""

SERVER = Path(__file__).with_name("serve_server.py")


@dataclass
class Measured:
    """What was measured of one server at one number of clients, over all rounds."""

    latencies: list[float] = field(default_factory=list)
    seconds: float = 0.0
    cpu: float = 0.0

    def summary(self) -> dict[str, float]:
        """Requests a second, percentiles in ms, the server's CPU µs a request."""
        count = len(self.latencies)
        p50, p95, p99 = (1e3 * np.percentile(self.latencies, at) for at in (50, 95, 99))
        return {
            "requests": count,
            "per_second": count / self.seconds,
            "p50_ms": float(p50),
            "p95_ms": float(p95),
            "p99_ms": float(p99),
            "cpu_us": 1e6 * self.cpu / count,
        }


class Client(asyncio.Protocol):
    """A connection that asks again as soon as it is answered, until `until`."""

    def __init__(self, bodies: Any, until: float, latencies: list[float]) -> None:
        self._bodies, self._until, self._latencies = bodies, until, latencies
        self._read = b""
        self.ended: asyncio.Future[None] = asyncio.get_running_loop().create_future()

    def connection_made(self, transport: Any) -> None:
        """Ask."""
        self._transport = transport
        self._ask()

    def data_received(self, data: bytes) -> None:
        """Ask again once the answer is whole."""
        self._read += data
        head, found, body = self._read.partition(b"\r\n\r\n")
        if not found:
            return
        size = int(head.lower().partition(b"content-length:")[2].split(b"\r\n", 1)[0])
        if len(body) < size:
            return
        if not head.startswith(b"HTTP/1.1 200"):
            self.ended.set_exception(RuntimeError(self._read.decode()))
            return
        now = time.perf_counter()
        self._latencies.append(now - self._sent)
        self._read = b""
        if now < self._until:
            self._ask()
        else:
            self._transport.close()

    def connection_lost(self, exc: Exception | None) -> None:
        """Nothing more is asked."""
        if not self.ended.done():
            self.ended.set_result(None)

    def _ask(self) -> None:
        body = next(self._bodies)
        self._sent = time.perf_counter()
        self._transport.write(
            b"POST /rerank HTTP/1.1\r\nHost: here\r\nContent-Type: application/json\r\n"
            b"Content-Length: %d\r\n\r\n%s" % (len(body), body)
        )


class Server:
    """A server's process."""

    def __init__(self, bundle: Path, gallery: Path, mode: str, threads: int) -> None:
        command = [sys.executable, SERVER, bundle, gallery, mode, threads]
        self.process = subprocess.Popen(list(map(str, command)), stdout=subprocess.PIPE, text=True)
        line = self.process.stdout.readline() if self.process.stdout else ""
        self.port = int(line.rsplit(":", 1)[1])

    def cpu(self) -> float:
        """CPU seconds so far."""
        stat = Path(f"/proc/{self.process.pid}/stat").read_text(encoding="utf-8")
        user, system = stat.rpartition(")")[2].split()[11:13]
        return (int(user) + int(system)) / os.sysconf("SC_CLK_TCK")

    async def load(self, clients: int, bodies: Any, seconds: float, found: Measured) -> None:
        """Have so many clients ask for so long."""
        loop = asyncio.get_running_loop()
        cpu, start = self.cpu(), time.perf_counter()
        made = [
            await loop.create_connection(
                lambda: Client(bodies, start + seconds, found.latencies), "127.0.0.1", self.port
            )
            for _ in range(clients)
        ]
        await asyncio.gather(*(client.ended for _, client in made))
        found.seconds += time.perf_counter() - start
        found.cpu += self.cpu() - cpu

    def end(self) -> None:
        """Have it stop."""
        self.process.terminate()
        self.process.wait(30)


@click.command()
@click.option("--rounds", default=8, show_default=True)
@click.option("--seconds", default=0.6, show_default=True, help="Of each server in each round.")
@click.option("--json", "json_file", type=click.Path(path_type=Path))
def main(*, rounds: int, seconds: float, json_file: Path | None) -> None:
    """Measure, print, and fail unless every bound is kept."""
    with tempfile.TemporaryDirectory() as folder:
        bundle, gallery, ids = _inputs(Path(folder))
        servers: dict[str, Server] = {}
        try:
            for name, (mode, threads) in MODES.items():
                servers[name] = Server(bundle, gallery, mode, threads)
            found = uvloop.run(_measure(servers, ids, rounds, seconds))
        finally:
            for server in servers.values():
                server.end()
    report = {
        "command": f"python benchmarks/serve.py --rounds {rounds} --seconds {seconds}",
        "machine": {
            "processor": processor(),
            "cores": os.cpu_count(),
            "load": os.getloadavg(),
            "versions": tool_versions(),
        },
        "candidates": CANDIDATES,
        "seed": SEED,
        "clients": {
            str(clients): {name: one.summary() for name, one in each.items()}
            for clients, each in found.items()
        },
    }
    report |= _verdict(report["clients"])
    click.echo(json.dumps(report, indent=1))
    if json_file is not None:
        write_json(json_file, report)
    raise SystemExit(1 if report["missed"] else 0)


def _inputs(folder: Path) -> tuple[Path, Path, list[str]]:
    """The demo's bundle, a gallery of its 500 scenes, and their ids."""
    bundle, path = export_demo(folder / "demo.sgraf").bundle.path, folder / "scenes.gallery"
    regions = demo_split().regions
    ids = [str(row) for row in range(len(regions))]
    with load(bundle) as scorer, Gallery.create(path, scorer) as gallery:
        gallery.write(Batch.of(ids, scorer.encode_images(regions)))
    return bundle, path, ids


async def _measure(
    servers: dict[str, Server], ids: list[str], rounds: int, seconds: float
) -> dict[int, dict[str, Measured]]:
    """Rounds over all numbers of clients and all servers, after one that does not count."""
    bodies, rng = _bodies(ids), np.random.default_rng(SEED)
    names = list(servers)
    found = {clients: {name: Measured() for name in servers} for clients in TURNS}
    for server in servers.values():
        await server.load(max(TURNS), bodies, 0.3, Measured())
    for _ in range(rounds):
        for clients in [clients for clients, turns in TURNS.items() for _ in range(turns)]:
            rng.shuffle(names)
            for name in names:
                await servers[name].load(clients, bodies, seconds, found[clients][name])
    return found


def _bodies(ids: list[str]) -> Any:
    """Requests without end, each with a query that was never asked before."""
    rng = np.random.default_rng(SEED)
    words = sorted({word for text in demo_split().captions for word in text.split()})
    while True:
        query = " ".join(rng.choice(words, 12))
        documents = [f"image:{id_}" for id_ in rng.choice(ids, CANDIDATES)]
        yield json.dumps({"query": query, "documents": documents}).encode()


def _verdict(found: dict[str, dict[str, dict[str, float]]]) -> dict[str, Any]:
    """The ratios that are bounded, and which of them miss their bounds."""
    many, one = found["64"], found["1"]

    def best(mode: str, of: dict[str, dict[str, float]], key: str, pick: Any = max) -> str:
        names = [name for name in of if name.startswith("batched") == (mode == "batched")]
        return str(pick((name for name in names if name != HTTP), key=lambda name: of[name][key]))

    batched, other = best("batched", many, "per_second"), best("other", many, "per_second")
    alone = best("batched", one, "p50_ms", min), best("other", one, "p50_ms", min)
    ratios = {
        "throughput at 64": many[batched]["per_second"] / many[other]["per_second"],
        "CPU at 64": many[batched]["cpu_us"] / many[other]["cpu_us"],
        "p50 at 1": one[alone[0]]["p50_ms"] / one[alone[1]]["p50_ms"],
        "HTTP alone, µs": min(each[HTTP]["cpu_us"] for each in (found["16"], found["64"])),
    }
    kept = {
        "throughput at 64": ratios["throughput at 64"] >= THROUGHPUT,
        "CPU at 64": ratios["CPU at 64"] <= CPU,
        "p50 at 1": ratios["p50 at 1"] <= LATENCY,
        "HTTP alone, µs": ratios["HTTP alone, µs"] <= HTTP_US,
    }
    compared = {"at 64": [batched, other], "at 1": list(alone)}
    return {
        "compared": compared,
        "ratios": ratios,
        "missed": [name for name, well in kept.items() if not well],
    }


if __name__ == "__main__":
    main()
