"""`make test-api`: serves a small bundle on loopback, and has schemathesis send what it likes.

    python tests/api/run.py SCHEMATHESIS [EXAMPLES]

Fails unless every check holds, and at least 2,000 requests were sent.
"""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import tempfile
from pathlib import Path

HERE = Path(__file__).parent
LEAST = 2000
SEED = "20"


def main(schemathesis: str, examples: str) -> int:
    """Run both; returns the exit code."""
    with tempfile.TemporaryDirectory() as folder:
        server = subprocess.Popen(
            [sys.executable, str(HERE / "server.py"), folder], stdout=subprocess.PIPE, text=True
        )
        try:
            url = (server.stdout or sys.stdin).readline().strip()
            found = subprocess.run(
                [
                    *(schemathesis, "--config-file", str(HERE / "schemathesis.toml")),
                    *("run", f"{url}/openapi.json", "--checks", "all", "--seed", SEED),
                    *("--max-examples", examples, "--no-color", "--workers", "1"),
                    *("--generation-database", "none", "--continue-on-failure"),
                ],
                cwd=folder,
                env={**os.environ, "SCHEMATHESIS_HOOKS": str(HERE / "hooks.py")},
                stdout=subprocess.PIPE,
                text=True,
                check=False,
            )
        finally:
            server.send_signal(signal.SIGTERM)
            ended = server.wait(60)
    sys.stdout.write(found.stdout)
    cases = re.search(r"([\d,]+) generated", found.stdout)
    count = int(cases[1].replace(",", "")) if cases else 0
    sys.stdout.write(f"{count} requests, at least {LEAST}; the server ended with {ended}\n")
    return int(found.returncode != 0 or count < LEAST or ended != 0)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1], sys.argv[2] if len(sys.argv) > 2 else "150"))
