"""Everything that only a GPU can show, in one command: values, speed, latency, memory.

    python benchmarks/gpu.py --data f8k_precomp --split dev --checkpoint sgr.pth.tar \
        --checkpoint saf.pth.tar --vocab vocab.json

Every step is a command of its own, so that an engine which fails takes nothing along: it is left
out of what follows, and the summary says why. Reports go to benchmarks/results/gpu/, what was
built to --work, where a second run finds it again. On a machine without a GPU the whole can be
tried with `--engine ort --engine torch --small`.
"""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import click

from sgraf_deploy.bench.random_model import export_random, model_config, random_checkpoint
from sgraf_deploy.bench.run import processor
from sgraf_deploy.config import MODULES, Module
from sgraf_deploy.files import write_json
from sgraf_deploy.runtime.engine import ENGINES
from sgraf_deploy.versions import tool_versions

HERE = Path(__file__).resolve().parent
ENGINES_OF_A_GPU = ("trt", "ort-cuda", "fused", "torch")
COMMAND = (sys.executable, "-m", "sgraf_deploy")

TIMES_LITERAL = {"trt": 10.0, "ort-cuda": 10.0, "fused": 30.0}
"""How many times the literal loop an engine must reach, in shards of 100."""

FUSED_PERCENT = 25.0
"""Of the float16 matrix-product rate."""

QUERY_SECONDS = 2e-3
"""p99 of one caption against 1,000 images."""

EVALUATION_SECONDS = {"SAF": 15.0, "SGR": 25.0}
"""For 5,000 x 25,000 with R@K."""


@dataclass(frozen=True)
class Sizes:
    """How much is measured."""

    images: int
    captions: int
    repeats: int
    queries: int
    evaluated_images: int
    model: dict[str, int] = field(default_factory=dict)
    limit: tuple[str, ...] = ()


FULL = Sizes(1000, 1000, repeats=9, queries=900, evaluated_images=5000)
SMALL = Sizes(
    *(20, 20),
    repeats=2,
    queries=6,
    evaluated_images=40,
    model={"embed": 64, "sim_dim": 32, "word_dim": 24, "img_dim": 64},
    limit=("--limit-images", "20"),
)


@dataclass
class Run:
    """The steps so far; `working` are the engines that no step has refused."""

    work: Path
    results: Path
    working: list[str]
    sizes: Sizes
    steps: list[dict[str, Any]] = field(default_factory=list)

    def step(self, name: str, *command: object, python: Path | None = None) -> bool:
        """Run one command and remember how it ended; whether it ended well."""
        words = [*map(str, (sys.executable, python) if python else COMMAND), *map(str, command)]
        if "--json" in words:  # What an earlier run found must not be taken for this one's.
            Path(words[words.index("--json") + 1]).unlink(missing_ok=True)
        click.echo(f"== {name}")
        start = time.perf_counter()
        done = subprocess.run(words, capture_output=True, text=True, check=False)
        seconds = time.perf_counter() - start
        click.echo(done.stdout)
        errors = [line for line in done.stderr.splitlines() if line.strip()][-8:]
        click.echo("\n".join(errors))
        self.steps.append(
            {"step": name, "exit": done.returncode, "seconds": round(seconds, 1)}
            | ({"error": errors[-3:]} if done.returncode else {})
        )
        return done.returncode == 0

    def report(self, name: str) -> dict[str, Any] | None:
        """What a step wrote, if it did."""
        path = self.results / name
        return json.loads(path.read_text()) if path.is_file() else None

    def engines(self) -> list[str]:
        """As options."""
        return [word for name in self.working for word in ("--engine", name)]

    def keep_working(self, bundle: Path, *more: object) -> None:
        """Leave out engines that cannot score a little of a bundle."""
        few = ("--repeats", 1, "--queries", 3, *more)
        self.working = [
            name
            for name in self.working
            if self.step(f"{name} runs at all", "bench", bundle, "--engine", name, *few)
        ]


@click.command()
@click.option("--data", type=click.Path(path_type=Path, exists=True), help="Precomp data.")
@click.option("--split", default="dev", show_default=True)
@click.option("--checkpoint", "checkpoints", type=click.Path(path_type=Path), multiple=True)
@click.option("--vocab", type=click.Path(path_type=Path))
@click.option("--engine", "engines", type=click.Choice(list(ENGINES)), multiple=True)
@click.option("--work", type=click.Path(path_type=Path), help="Bundles; if absent, forgotten.")
@click.option("--results", type=click.Path(path_type=Path), default=HERE / "results" / "gpu")
@click.option("--small", is_flag=True, help="A trial of the script: sizes that prove nothing.")
def main(
    *,
    data: Path | None,
    split: str,
    checkpoints: tuple[Path, ...],
    vocab: Path | None,
    engines: tuple[str, ...],
    work: Path | None,
    results: Path,
    small: bool,
) -> None:
    """Measure every engine that works and compare it with the bounds."""
    results.mkdir(parents=True, exist_ok=True)
    with _folder(work) as folder:
        run = Run(folder, results, list(engines or ENGINES_OF_A_GPU), SMALL if small else FULL)
        run.step("doctor", "doctor")
        if data is not None and checkpoints:
            _values(run, checkpoints, vocab, ("--data", data, "--split", split, *run.sizes.limit))
        for module in MODULES:
            _speed(run, module)
    summary = {
        "command": " ".join(["python", "benchmarks/gpu.py", *_options(sys.argv[1:])]),
        "small": small,
        "gpu": _gpu(),
        "processor": processor(),
        "versions": tool_versions(),
        "steps": run.steps,
        "bounds": [*_value_bounds(run), *_speed_bounds(run)],
    }
    if small:
        for bound in summary["bounds"]:
            bound["met"] = f"trial of the script, {bound['met']}"
    write_json(results / "summary.json", summary)
    for bound in summary["bounds"]:
        click.echo("{met}: {what}, wanted {wanted}, found {found}".format(**bound))


def _values(
    run: Run, checkpoints: tuple[Path, ...], vocab: Path | None, data: tuple[object, ...]
) -> None:
    """R@K of every engine on real data, against the literal loop on the same device."""
    bundle = run.work / "real.sgraf"
    if not bundle.exists():
        vocabulary = () if vocab is None else ("--vocab", vocab)
        if not run.step("export", "export", *checkpoints, *vocabulary, "-o", bundle):
            return
    _compile(run, bundle, *data)
    run.keep_working(bundle, "--data", data[1], "--split", data[3], "--limit-images", 20)
    if run.working:
        output = run.results / "real.json"
        few = ("--repeats", 3, "--queries", 30)
        run.step("R@K", "bench", bundle, *run.engines(), *data, *few, "--json", output)


def _speed(run: Run, module: Module) -> None:
    """Pairs per second, latency, memory, and a whole evaluation at the paper's dimensions."""
    folder = run.work / module
    bundle = folder / f"random-{module}.sgraf"
    if not bundle.exists():
        folder.mkdir(exist_ok=True)
        config = model_config(module, **run.sizes.model)
        export_random(random_checkpoint(config), folder, ("fp32", "fp16"))
    _compile(run, bundle)
    sizes = run.sizes
    run.keep_working(bundle, "--images", 4, "--captions", 4)
    if not run.working:
        return
    counts = ("--images", sizes.images, "--captions", sizes.captions)
    often = ("--repeats", sizes.repeats, "--queries", sizes.queries)
    output = run.results / f"speed_{module}.json"
    run.step(
        f"speed of {module}", "bench", bundle, *run.engines(), *counts, *often, "--json", output
    )
    for engine in run.working:
        output = run.results / f"evaluation_{module}_{engine}.json"
        wanted = ("--engine", engine, "--images", sizes.evaluated_images, "--json", output)
        run.step(
            f"evaluation of {module} by {engine}",
            bundle,
            *wanted,
            python=HERE / "evaluation.py",
        )


def _compile(run: Run, bundle: Path, *data: object) -> None:
    if "trt" not in run.working:
        return
    sizes: tuple[object, ...] = ("--max-images", 8, "--max-captions", 8)
    if run.sizes is FULL and data:
        sizes = ()
    elif run.sizes is FULL:  # Random captions have at most 20 words.
        sizes = ("--max-images", 128, "--max-captions", 128, "--max-words", 20)
        sizes += ("--workspace-gb", 8)
    if not run.step(f"compile {bundle.name}", "compile", bundle, *sizes, *data):
        run.working.remove("trt")


def _value_bounds(run: Run) -> Iterator[dict[str, Any]]:
    report = run.report("real.json")
    if report is None:
        yield _bound("R@K on real data", "within the design's bounds", None)
        return
    for engine, parities in report["parity"].items():
        for parity in parities:
            missed = [bound["name"] for bound in parity["bounds"] if not bound["met"]]
            what = f"{parity['model']} by {engine} on real data"
            yield _bound(what, "no bound missed", missed or "none missed", met=not missed)


def _speed_bounds(run: Run) -> Iterator[dict[str, Any]]:
    def met(found: float | None, wanted: float) -> bool:
        return found is not None and found >= wanted  # None: withheld as unstable

    for module in MODULES:
        report = run.report(f"speed_{module}.json")
        if report is None:
            yield _bound(f"speed of {module}", "a report", None)
            continue
        for speed in report["throughput"]["engines"]:
            name = speed["engine"].split()[0]
            if name in TIMES_LITERAL:
                times, wanted = speed["times_literal"], TIMES_LITERAL[name]
                yield _bound(
                    f"{module} by {name}", f"≥ {wanted} × literal", times, met(times, wanted)
                )
            if name == "fused":
                percent = speed["percent_of_product_rate"]
                wanted = f"≥ {FUSED_PERCENT} % of products"
                yield _bound(f"{module} by fused", wanted, percent, met(percent, FUSED_PERCENT))
        for latency in report["latency"]:
            if latency["candidates"] == 1000 and latency["engine"].split()[0] in TIMES_LITERAL:
                p99 = latency["score_ms"]["p99"]
                what = f"{module} by {latency['engine']}, 1 × 1,000, p99"
                yield _bound(what, f"≤ {1e3 * QUERY_SECONDS} ms", p99, p99 <= 1e3 * QUERY_SECONDS)
        for engine in run.working:
            found = run.report(f"evaluation_{module}_{engine}.json")
            seconds = None if found is None else found["seconds"]["score"]
            limit = EVALUATION_SECONDS[module]
            images = run.sizes.evaluated_images
            what = f"{module} by {engine}, {images:,} × {5 * images:,} with R@K"
            yield _bound(what, f"≤ {limit} s", seconds, seconds is not None and seconds <= limit)


def _bound(what: str, wanted: str, found: object, met: bool = False) -> dict[str, Any]:
    state = "not run" if found is None else "met" if met else "MISSED"
    return {"what": what, "wanted": wanted, "found": found, "met": state}


@contextmanager
def _folder(work: Path | None) -> Iterator[Path]:
    if work is not None:
        work.mkdir(parents=True, exist_ok=True)
        yield work
        return
    with tempfile.TemporaryDirectory() as name:
        yield Path(name)


def _options(arguments: list[str]) -> list[str]:
    """Without the folders of this machine."""
    return [Path(word).name if "/" in word else word for word in arguments]


def _gpu() -> str | None:
    from sgraf_deploy.errors import UnavailableError
    from sgraf_deploy.runtime.gpu import find_driver

    try:
        driver = find_driver()
    except UnavailableError:
        return None
    names = ", ".join(f"{gpu.name} ({gpu.compute_capability})" for gpu in driver.gpus)
    return f"{names}; CUDA {driver.cuda}"


if __name__ == "__main__":
    main()
