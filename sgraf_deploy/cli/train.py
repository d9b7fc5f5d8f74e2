"""`sgraf-deploy train`: trains an SGR or SAF checkpoint."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import click

from sgraf_deploy.cli.common import (
    CAPTION_COUNT,
    CAPTION_WORDS,
    PATH,
    count,
    show_finding,
)
from sgraf_deploy.cli.option_types import THREADS
from sgraf_deploy.cli.terminal import echo, progress_bars, warn
from sgraf_deploy.config import MODULES, Module

if TYPE_CHECKING:
    from sgraf_deploy.data.precomp import PrecompSplit
    from sgraf_deploy.data.tokenizer import Tokenizer
    from sgraf_deploy.data.vocabulary import Vocabulary
    from sgraf_deploy.evaluation.recall import RecallReport
    from sgraf_deploy.model.checkpoint import Checkpoint
    from sgraf_deploy.train.batches import TrainingData
    from sgraf_deploy.train.options import TrainOptions
    from sgraf_deploy.train.trainer import Epoch

F = TypeVar("F", bound=Callable[..., Any])
_COUNT = click.IntRange(min=1)


def _number(name: str, kind: Any, default: Any, text: str) -> Callable[[F], F]:
    metavar = {int: "N", float: "X", str: "NAME"}[type(default)]
    return click.option(
        name, type=kind, default=default, show_default=True, metavar=metavar, help=text
    )


def _model_options(command: F) -> F:
    """Add the options for the model's dimensions."""
    for option in (
        click.option("--no-txtnorm", is_flag=True, help="Do not l2-normalise the word embeddings."),
        click.option(
            "--no-imgnorm", is_flag=True, help="Do not l2-normalise the region embeddings."
        ),
        click.option(
            "--uni-gru", is_flag=True, help="Use a GRU in one direction. Default: in both."
        ),
        _number("--num-layers", _COUNT, 1, "Number of layers of the GRU."),
        _number("--sgr-steps", _COUNT, 3, "Number of graph reasoning steps, for SGR."),
        _number("--word-dim", _COUNT, 300, "Dimension of the words that the GRU reads."),
        _number("--sim-dim", _COUNT, 256, "Dimension of the alignments."),
        _number("--embed", _COUNT, 1024, "Dimension of the joint embedding space."),
    ):
        command = option(command)
    return command


def _schedule_options(command: F) -> F:
    """Add the options for the loss, the optimiser and the schedule."""
    for option in (
        _number(
            "--seed", int, 0, "Random seed of the initial weights, the dropout and the data order."
        ),
        click.option(
            "--summed",
            is_flag=True,
            help="Sum the loss over all negatives in every epoch. Default: only the hardest "
            "negatives count, after the warm-up.",
        ),
        _number(
            "--warmup-epochs",
            click.IntRange(min=0),
            0,
            "Number of first epochs that sum the loss over all negatives; 1 or 2 keep the loss "
            "from collapsing.",
        ),
        _number("--grad-clip", float, 2.0, "Norm that the gradient is clipped to."),
        _number("--margin", float, 0.2, "Margin of the hinge loss."),
        _number("--lr-update", _COUNT, 30, "Divide the learning rate by ten every N epochs."),
        _number("--learning-rate", float, 2e-4, "Initial learning rate of Adam."),
        _number(
            "--batch-size",
            click.IntRange(min=2),
            128,
            "Number of captions in a batch, each with its image.",
        ),
        _number("--epochs", _COUNT, 40, "Number of passes over the captions."),
    ):
        command = option(command)
    return command


@click.command(short_help="Train an SGR or SAF checkpoint on a precomp folder.")
@click.argument("data", type=PATH)
@click.option("--module", type=click.Choice(MODULES), required=True, help="Model to train.")
@click.option(
    "-o",
    "--output",
    type=PATH,
    required=True,
    metavar="FILE",
    help="File to write the checkpoint to.",
)
@click.option(
    "--vocab",
    type=PATH,
    metavar="FILE",
    help="Existing vocabulary to use. Default: one is built from the training captions and written "
    "next to the checkpoint.",
)
@_number(
    "--min-count", _COUNT, 4, "Occurrences that a word needs to be in a vocabulary built here."
)
@_number("--split", str, "train", "Name of the split to train on.")
@_number("--val-split", str, "dev", "Name of the split to validate on.")
@click.option(
    "--val-images",
    type=_COUNT,
    metavar="K",
    help="Validate on only the first K images. Default: all of them.",
)
@CAPTION_COUNT
@CAPTION_WORDS
@_model_options
@_schedule_options
@click.option(
    "--threads",
    type=THREADS,
    metavar="N",
    help="Number of CPU threads. Default: PyTorch's own choice.",
)
@_number("--device", str, "cpu", "Device to train on: cpu, cuda or cuda:N.")
@click.option(
    "--force",
    is_flag=True,
    help="Replace an existing checkpoint FILE and the vocabulary next to it.",
)
def train(
    *,
    data: Path,
    output: Path,
    vocab: Path | None,
    min_count: int,
    split: str,
    val_split: str,
    val_images: int | None,
    captions_per_image: int,
    max_caption_words: int | None,
    threads: int | None,
    device: str,
    force: bool,
    **options: Any,
) -> None:
    """Train SGR or SAF on a precomp folder DATA, and keep the checkpoint that validates best.

    The checkpoint has the authors' format. It is written whenever the rsum on the validation split
    is the best so far, so the file is complete even after an interruption.
    """
    from sgraf_deploy.data.tokenizer import VOCABULARY, Tokenizer
    from sgraf_deploy.features.trained import Trained, folder_recipe

    built = output.parent / f"{output.name.split('.')[0]}_vocab.json"
    _check_output(output, None if vocab else built, force=force)
    _check_packages()
    schedule = _options(data, options)
    training = _open(data, split, "--split", captions_per_image=captions_per_image)
    regions, img_dim = training.regions.shape[1:]
    validation = _open(
        data,
        val_split,
        "--val-split",
        captions_per_image=captions_per_image,
        model=(regions, img_dim),
        limit_images=val_images,
        authors_dev=val_split == "dev",
    )
    vocabulary = _vocabulary(vocab, training.captions, max_caption_words, min_count)
    tokenizer = Tokenizer(VOCABULARY, max_caption_words, vocabulary)  # as `export` takes it
    images, captions = count(training.images, "image"), count(len(training.captions), "caption")
    echo(f"training {schedule.model.module} on {data}: {images}, {captions}")
    echo(
        f"validating on {count(validation.images, 'image')} of {val_split}; "
        f"vocabulary of {vocabulary.size:,} words"
    )
    recipe = folder_recipe(data, (regions, img_dim))
    splits = training, validation
    checked, statistics = _checked(splits, tokenizer, vocabulary, built=vocab is None)
    trained = Trained(statistics, recipe).to_opt()
    schedule = replace(schedule, vocab_sha256=vocabulary.sha256, features=trained)
    files = _Files(output, None if vocab else built, force)
    _run(schedule, checked, vocabulary, files, threads, device)
    echo(f"wrote {output}" + ("" if vocab else f" and {built}"))
    echo(f"next: sgraf-deploy export {output} --vocab {vocab or built}")


def _vocabulary(
    path: Path | None, captions: list[str], max_words: int | None, min_count: int
) -> Vocabulary:
    """The vocabulary of a file, or else one of the captions' words."""
    from sgraf_deploy.data.tokenizer import UNTRAINED, Tokenizer
    from sgraf_deploy.data.vocabulary import Vocabulary

    if path is not None:
        return Vocabulary.load(path)
    return Vocabulary.build(captions, Tokenizer(UNTRAINED, max_words), min_count=min_count)


def _open(data: Path, split: str, option: str, **more: Any) -> PrecompSplit:
    """Open a split; if it is not there, the DataError says how to get one."""
    from sgraf_deploy.data.precomp import open_precomp
    from sgraf_deploy.data.split_files import list_splits
    from sgraf_deploy.errors import DataError

    try:
        return open_precomp(data, split, **more)
    except DataError as error:
        there = data.is_dir() and split in list_splits(data)
        if there or error.hint is not None:
            raise
        hint = f"name one with {option}, or write synthetic scenes with `sgraf-deploy synth -o DIR`"
        raise DataError(error.what, expected=error.expected, got=error.got, hint=hint) from error


@dataclass(frozen=True)
class _Files:
    """The files that training writes; without `force`, an existing file is never replaced."""

    checkpoint: Path
    vocabulary: Path | None
    force: bool


def _checked(
    splits: tuple[PrecompSplit, PrecompSplit],
    tokenizer: Tokenizer,
    vocabulary: Vocabulary,
    *,
    built: bool,
) -> tuple[tuple[TrainingData, TrainingData], dict[str, Any]]:
    """Both splits as training data, and the statistics of the training features.

    The validation features are compared with these.

    Suspicious data print a warning, except for words that are too rare to be in a vocabulary
    `built` here.
    """
    from sgraf_deploy.data.checks import check_split
    from sgraf_deploy.data.regions import region_statistics
    from sgraf_deploy.train.batches import TrainingData

    training, validation = splits
    dimensions = training.regions.shape[1:]
    first = check_split(training, dimensions, tokenizer, vocabulary)
    statistics = region_statistics(training.regions)
    checked = first, check_split(validation, dimensions, tokenizer, vocabulary, statistics)
    for split, result in zip(splits, checked, strict=True):
        for finding in result.findings:
            rare = built and split is training and finding.code == "unknown-words"
            if not rare:
                show_finding(replace(finding, message=f"split {split.name}: {finding.message}"))
    data = (
        TrainingData.of(training, checked[0].token_ids),
        TrainingData.of(validation, checked[1].token_ids),
    )
    return data, statistics


def _run(
    options: TrainOptions,
    data: tuple[TrainingData, TrainingData],
    vocabulary: Vocabulary,
    files: _Files,
    threads: int | None,
    device: str,
) -> None:
    """Train, print a line per epoch and save the best checkpoint."""
    import torch

    from sgraf_deploy.engines.torch.engine import parse_device
    from sgraf_deploy.evaluation.chance import chance_findings
    from sgraf_deploy.model.checkpoint import write_checkpoint
    from sgraf_deploy.train.trainer import Hooks, train

    parse_device(device)
    if threads is not None:
        torch.set_num_threads(threads)
    replace = files.force

    def save(checkpoint: Checkpoint) -> None:
        nonlocal replace
        if files.vocabulary is not None:
            vocabulary.save(files.vocabulary, replace=replace)
        write_checkpoint(files.checkpoint, checkpoint, replace=replace)
        replace = True  # From now on the file is one that this training wrote.

    best: dict[str, RecallReport] = {}

    def show(epoch: Epoch) -> None:
        _print_epoch(epoch)
        if epoch.best:
            best[options.model.module] = epoch.report

    with progress_bars() as bars:
        hooks = Hooks(save=save, epoch=show, stage=bars, warn=warn)
        train(options, vocabulary.size, *data, hooks, device)
    for finding in chance_findings(best):
        show_finding(finding)


def _print_epoch(epoch: Epoch) -> None:
    """Print one line, aligned with those above."""
    report = epoch.report
    if epoch.number == 1:
        echo("epoch      loss  rate      rsum  R@1 i→t  R@1 t→i  seconds")
    echo(
        f"{epoch.number:>5}  {epoch.loss:>8.3f}  {epoch.learning_rate:.0e}  {report.rsum:>6.2f}"
        f"  {report.image_to_text.r1:>7.2f}  {report.text_to_image.r1:>7.2f}"
        f"  {epoch.seconds:>7.1f}" + ("  best, saved" if epoch.best else "")
    )


def _options(data: Path, given: dict[str, Any]) -> TrainOptions:
    from sgraf_deploy.train.options import ModelOptions, TrainOptions

    module: Module = given["module"]
    model = ModelOptions(
        module=module,
        bidirectional=not given["uni_gru"],
        image_norm=not given["no_imgnorm"],
        text_norm=not given["no_txtnorm"],
        **{name: given[name] for name in ("embed", "sim_dim", "word_dim", "num_layers")},
        sgr_steps=given["sgr_steps"],
    )
    names = ("epochs", "batch_size", "learning_rate", "lr_update", "margin", "grad_clip")
    return TrainOptions(
        model=model,
        **{name: given[name] for name in (*names, "warmup_epochs", "seed")},
        hardest=not given["summed"],
        data_name=data.resolve().name,
    )


def _check_output(output: Path, built: Path | None, *, force: bool) -> None:
    """Raise InputError, before the training, for a file that exists or could not be written."""
    from sgraf_deploy.cli.common import check_result_file
    from sgraf_deploy.data.vocabulary import Vocabulary
    from sgraf_deploy.errors import DataError, InputError

    for path in filter(None, (output, built)):
        check_result_file(path, "-o" if path is output else "the vocabulary next to it")
        if path.exists() and not force:
            hint = "use --force to replace it, or choose another file with -o"
            raise InputError(f"{path} exists already", hint=hint)
    if built is not None and built.exists():
        # The user did not name this file: --force allows replacing a vocabulary, nothing else.
        try:
            Vocabulary.load(built)
        except DataError as error:
            hint = "move it away, or choose another file with -o"
            raise InputError(f"{built} is not replaced", got=error.reason, hint=hint) from error


def _check_packages() -> None:
    from sgraf_deploy.errors import UnavailableError

    try:
        import torch  # noqa: F401
    except ImportError as error:
        hint = "pip install 'sgraf-deploy[torch]'"
        raise UnavailableError(f"train needs {error.name}", hint=hint) from error
