"""The steps in order: those that would invalidate all others first, the longest ones last."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from sgraf_deploy.bench.gpu.steps import MOST_SECONDS, PYTHON, Step
from sgraf_deploy.config import MODULES, Module, Precision
from sgraf_deploy.engines.policy import parse_request
from sgraf_deploy.engines.registry import ENGINES
from sgraf_deploy.errors import InputError

DEFAULT_ENGINES = ("fused", "torch", "trt", "ort-cuda")
BUDGETS = (8, 32, 1)
"""The memory budgets of a tile in GiB, those that are probably fastest first."""

COMPARED: tuple[Precision, ...] = ("fp32", "fp16")
HERE = "sgraf_deploy.bench.gpu"

_SANITIZER_ERROR = 86
"""The exit code of compute-sanitizer if it found an error."""


@dataclass(frozen=True)
class Sizes:
    """The sizes of the measurements, and the options for the random models and their plans."""

    images: int
    captions: int
    repeats: int
    queries: int
    evaluated_images: int
    profiled_images: int
    model: tuple[str, ...] = ()
    plan: tuple[str, ...] = ("--max-images", "128", "--max-captions", "128", "--max-words", "20")


FULL = Sizes(1000, 1000, repeats=3, queries=900, evaluated_images=5000, profiled_images=200)
SMALL = Sizes(
    *(20, 20),
    repeats=1,
    queries=6,
    evaluated_images=40,
    profiled_images=10,
    model=("--small",),
    plan=("--max-images", "8", "--max-captions", "8"),
)


@dataclass(frozen=True)
class PlanOptions:
    """The engines to measure, as `NAME` or `NAME:PRECISION`, and the folder of the run's files.

    `small` is a trial of the script, also on a CPU, whose sizes prove nothing. `prepared` is a
    folder of `prepare`, and `key` identifies its content; without it the embedded demo is used
    instead of real data.
    """

    work: Path
    engines: tuple[str, ...] = DEFAULT_ENGINES
    modules: tuple[Module, ...] = MODULES
    small: bool = False
    prepared: Path | None = None
    key: str = "demo"

    @property
    def data(self) -> Path:
        """The folder that the prepared data is unpacked into."""
        return self.work / f"data-{self.key}"

    @property
    def sizes(self) -> Sizes:
        """The sizes of the measurements."""
        return SMALL if self.small else FULL


@dataclass(frozen=True)
class _Engine:
    """An engine, the precisions in which it is compared, and the one in which it is timed."""

    name: str
    compared: tuple[Precision, ...]
    timed: Precision
    requires: tuple[str, ...]

    @property
    def label(self) -> str:
        """NAME:PRECISION of the timed precision."""
        return f"{self.name}:{self.timed}"


def make_plan(options: PlanOptions) -> list[Step]:
    """All steps in order. Raises InputError for an unknown engine."""
    engines = [_engine(text, small=options.small) for text in dict.fromkeys(options.engines)]
    return [
        *_setup(options),
        *_values_of_kernels(options, engines),
        *_recall(options, engines),
        *_portable(options, engines),
        *(step for module in options.modules for step in _speed(options, module, engines)),
        *_evaluations(options, engines),
        *_profiles(options, engines),
    ]


def _engine(text: str, *, small: bool) -> _Engine:
    request = parse_request(text, None, None)
    if request.engine not in ENGINES:
        raise InputError("--engine", expected=" or ".join(ENGINES), got=request.engine)
    entry = ENGINES[request.engine]
    precisions = [
        precision
        for precision in COMPARED
        if precision in entry.precisions and precision not in entry.by_name
    ]
    if request.precision is not None:
        if request.precision not in precisions:
            raise InputError(f"--engine {text}", expected=f"precision {' or '.join(precisions)}")
        precisions = [request.precision]
    on_a_gpu = "cuda" in entry.devices and not small
    timed: Precision = "fp16" if "fp16" in precisions and on_a_gpu else precisions[0]
    requires = f"{request.engine}@cuda" if on_a_gpu else request.engine
    return _Engine(request.engine, tuple(precisions), timed, (requires,))


def _setup(options: PlanOptions) -> Iterator[Step]:
    """Steps that unpack real data on this machine."""
    source = options.prepared
    needs: tuple[str, ...] = ()
    words: tuple[str, ...]
    if source is None:
        source, needs = options.work / "demo", ("prepare",)
        words = (PYTHON, "-m", "sgraf_deploy", "bench", "gpu", "prepare", "-o", str(source))
        few = ("--limit-images", "20") if options.small else ()
        yield Step("prepare", "setup", (*words, *few), 300, makes=source)
    words = (PYTHON, "-m", f"{HERE}.unpack", str(source), str(options.data))
    yield Step("unpack", "setup", words, 120, needs=needs, makes=options.data)


def _values_of_kernels(options: PlanOptions, engines: list[_Engine]) -> Iterator[Step]:
    """Steps that compare kernels with NumPy and float64, and run them under compute-sanitizer."""
    sanitizer = (
        "compute-sanitizer",
        "--tool",
        "memcheck",
        "--error-exitcode",
        str(_SANITIZER_ERROR),
    )
    report = _report(options, "kernels")
    kernels = (PYTHON, "-m", f"{HERE}.kernels", "--json", str(report))
    cuda = ("gpu", "cuda-bindings")
    yield Step("kernels", "kernels", kernels, 120, requires=cuda, report=report)
    fused = next((engine.requires for engine in engines if engine.name == "fused"), None)
    for module in options.modules if fused else ():
        name = f"fused-values-{module}"
        report = _report(options, name)
        words = _fused(module, *(["--small"] if options.small else ()), "--json", str(report))
        yield Step(
            *(name, "fused-values", words, 300),
            requires=("gpu", *(fused or ())),
            report=report,
            module=module,
            engine="fused",
        )
    program = ("gpu", "compute-sanitizer")
    yield Step(
        *("sanitize-kernels", "sanitizer", (*sanitizer, *kernels[:-2]), 240),
        requires=(*program, "cuda-bindings"),
        missed_exit=_SANITIZER_ERROR,
    )
    for module in options.modules if fused else ():
        yield Step(
            *(f"sanitize-fused-{module}", "sanitizer", (*sanitizer, *_fused(module, "--small"))),
            MOST_SECONDS,
            requires=(*program, *(fused or ())),
            module=module,
            engine="fused",
            missed_exit=_SANITIZER_ERROR,
            # PyTorch's cache gives out parts of large blocks, within which errors go unnoticed.
            environment=(("PYTORCH_NO_CUDA_MEMORY_CACHING", "1"),),
        )


def _fused(module: Module, *more: str) -> tuple[str, ...]:
    return (PYTHON, "-m", "sgraf_deploy.bench.fused_values", "--module", module, *more)


def _recall(options: PlanOptions, engines: list[_Engine]) -> Iterator[Step]:
    """Steps that compare R@K of every engine and precision with the literal loop on real data."""
    reference = options.work / f"reference-{options.key}.npz"
    module, data = (PYTHON, "-m", f"{HERE}.values"), str(options.data)
    words: tuple[str, ...]
    report = _report(options, "reference")
    words = (*module, "reference", data, "--output", str(reference), "--json", str(report))
    device = "torch" if options.small else "torch@cuda"
    yield Step(
        *("reference", "reference", words, 400),
        requires=(device,),
        needs=("unpack",),
        makes=reference,
        report=report,
    )
    for engine in engines:
        for precision in engine.compared:
            name = f"recall-{engine.name}-{precision}"
            needs: tuple[str, ...] = ("unpack", "reference")
            if ENGINES[engine.name].compiled:
                bundle = options.data / "model.sgraf"
                built = _compile(
                    f"compile-real-{precision}", bundle, precision, engine, ("unpack",)
                )
                yield built
                needs += (built.name,)
            report = _report(options, name)
            words = (*module, "compare", data, "--engine", engine.name, "--precision", precision)
            words += ("--reference", str(reference), "--json", str(report))
            yield Step(
                *(name, "recall", words, 400),
                requires=engine.requires,
                needs=needs,
                report=report,
                engine=f"{engine.name}:{precision}",
            )


def _portable(options: PlanOptions, engines: list[_Engine]) -> Iterator[Step]:
    """A step that tries whether a portable plan of TensorRT for RTX opens on this GPU."""
    if any(engine.name == "trt" for engine in engines):
        report = _report(options, "portable")
        words = (PYTHON, "-m", f"{HERE}.portable", "--json", str(report))
        requires = ("gpu", "cuda-bindings", "tensorrt-rtx")
        yield Step("portable", "portable", words, 120, requires=requires, report=report)


def _speed(options: PlanOptions, module: Module, engines: list[_Engine]) -> Iterator[Step]:
    """Steps that measure speed and latency of a random model and of the literal loop."""
    bundle, sizes = _bundle(options, module), options.sizes
    words = (PYTHON, "-m", f"{HERE}.random_bundle", module, str(bundle.parent), *sizes.model)
    yield Step(f"export-{module}", "setup", words, 400, makes=bundle, module=module)
    counts = ("--images", str(sizes.images), "--captions", str(sizes.captions))
    rounds = ("--repeats", str(sizes.repeats), "--queries", str(sizes.queries))
    for engine in engines:
        needs = _needs(module, engine)
        for name in needs[1:]:
            exported = needs[:1]
            yield _compile(name, bundle, engine.timed, engine, exported, *sizes.plan, module=module)
        name = f"speed-{module}-{engine.name}-{engine.timed}"
        report = _report(options, name)
        words = (PYTHON, "-m", "sgraf_deploy", "bench", str(bundle), "--engine", engine.label)
        yield Step(
            name,
            "speed",
            (*words, *counts, *rounds, "--json", str(report)),
            MOST_SECONDS,
            requires=engine.requires,
            needs=needs,
            report=report,
            module=module,
            engine=engine.label,
        )


@dataclass(frozen=True)
class _Job:
    """A module to run on every random bundle with every engine."""

    kind: str
    module: str
    arguments: tuple[str, ...]
    seconds: int
    gib: int | None = None

    def step(self, options: PlanOptions, module: Module, engine: _Engine) -> Step:
        """The step that runs it on one bundle with one engine."""
        budget = "" if self.gib is None else f"-{self.gib}GiB"
        name = f"{self.kind}-{module}-{engine.name}-{engine.timed}{budget}"
        report = _report(options, name)
        words = (PYTHON, "-m", f"{HERE}.{self.module}", str(_bundle(options, module)))
        runs = ("--engine", engine.name, "--precision", engine.timed, *self.arguments)
        return Step(
            *(name, self.kind, (*words, *runs, "--json", str(report)), self.seconds),
            requires=engine.requires,
            needs=_needs(module, engine),
            report=report,
            module=module,
            engine=engine.label,
            gib=self.gib,
        )


def _evaluations(options: PlanOptions, engines: list[_Engine]) -> Iterator[Step]:
    """Steps that run a whole evaluation in each memory budget."""
    images = ("--images", str(options.sizes.evaluated_images))
    for gib in BUDGETS:
        job = _Job("evaluation", "evaluation", (*images, "--gib", str(gib)), 400, gib)
        yield from (job.step(options, m, engine) for m in options.modules for engine in engines)


def _profiles(options: PlanOptions, engines: list[_Engine]) -> Iterator[Step]:
    """Steps that measure the time by kernel; the profiler sees only PyTorch and GPUs."""
    images = ("--images", str(options.sizes.profiled_images))
    job = _Job("profile", "largest_kernels", images, 300)
    on_gpus = [engine for engine in engines if "cuda" in ENGINES[engine.name].devices]
    yield from (job.step(options, m, engine) for m in options.modules for engine in on_gpus)


def _needs(module: Module, engine: _Engine) -> tuple[str, ...]:
    """The steps that an engine needs before it can run a random bundle."""
    compiled = (f"compile-{module}",) if ENGINES[engine.name].compiled else ()
    return (f"export-{module}", *compiled)


def _compile(
    name: str,
    bundle: Path,
    precision: Precision,
    engine: _Engine,
    needs: tuple[str, ...],
    *sizes: str,
    module: Module | None = None,
) -> Step:
    words = (PYTHON, "-m", "sgraf_deploy", "compile", str(bundle), "--precision", precision, *sizes)
    engines, requires = bundle / "engines", engine.requires
    return Step(
        *(name, "compile", words, MOST_SECONDS, requires, needs, engines),
        module=module,
        engine=f"{engine.name}:{precision}",
    )


def _bundle(options: PlanOptions, module: Module) -> Path:
    """The path where `random_bundle` writes it."""
    size = "small" if options.small else "paper"
    return options.work / f"{size}-{module}" / f"random-{module}.sgraf"


def _report(options: PlanOptions, name: str) -> Path:
    return options.work / "reports" / f"{name}.json"
