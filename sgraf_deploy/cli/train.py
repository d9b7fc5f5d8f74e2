"""`sgraf-deploy train`."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import click

from sgraf_deploy.cli.common import CAPTION_COUNT, CAPTION_WORDS, PATH, count, show_finding
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
_LEAST_ONE = click.IntRange(min=1)


def _number(name: str, kind: Any, default: Any, text: str) -> Callable[[F], F]:
    shown = {int: "N", float: "X", str: "NAME"}[type(default)]
    return click.option(
        name, type=kind, default=default, show_default=True, metavar=shown, help=text
    )


def _model_options(command: F) -> F:
    """The dimensions of the model."""
    for option in (
        click.option("--no-txtnorm", is_flag=True, help="Leave the words unnormalised."),
        click.option("--no-imgnorm", is_flag=True, help="Leave the regions unnormalised."),
        click.option("--uni-gru", is_flag=True, help="A GRU in one direction."),
        _number("--num-layers", _LEAST_ONE, 1, "Layers of the GRU."),
        _number("--sgr-steps", _LEAST_ONE, 3, "Steps of graph reasoning (SGR)."),
        _number("--word-dim", _LEAST_ONE, 300, "Size of the word embeddings."),
        _number("--sim-dim", _LEAST_ONE, 256, "Size of the alignments."),
        _number("--embed", _LEAST_ONE, 1024, "Size of the joint space."),
    ):
        command = option(command)
    return command


def _schedule_options(command: F) -> F:
    """Loss, optimiser and schedule."""
    for option in (
        _number("--seed", int, 0, "Seed of the initial weights, dropout and order."),
        click.option("--summed", is_flag=True, help="Sum over all negatives to the end."),
        _number(
            "--warmup-epochs",
            click.IntRange(min=0),
            0,
            "First epochs that sum over all negatives; 1 or 2 keep the loss from collapsing.",
        ),
        _number("--grad-clip", float, 2.0, "Largest norm of the gradient."),
        _number("--margin", float, 0.2, "Margin of the hinge loss."),
        _number("--lr-update", _LEAST_ONE, 30, "Epochs until the rate is divided by ten."),
        _number("--learning-rate", float, 2e-4, "Adam's learning rate."),
        _number("--batch-size", click.IntRange(min=2), 128, "Captions, with an image each."),
        _number("--epochs", _LEAST_ONE, 40, "Passes over the captions."),
    ):
        command = option(command)
    return command


@click.command(short_help="Train an SGR or SAF checkpoint on a precomp folder.")
@click.argument("data", type=PATH)
@click.option("--module", type=click.Choice(MODULES), required=True, help="What to train.")
@click.option("-o", "--output", type=PATH, required=True, metavar="FILE", help="The checkpoint.")
@click.option(
    "--vocab",
    type=PATH,
    metavar="FILE",
    help="An existing vocabulary; if absent one is built and written beside the checkpoint.",
)
@_number("--min-count", _LEAST_ONE, 4, "How often a word must be seen to be in the vocabulary.")
@_number("--split", str, "train", "The split to train on.")
@_number("--val-split", str, "dev", "The split to validate on.")
@click.option("--val-images", type=_LEAST_ONE, metavar="K", help="Validate on the first K images.")
@CAPTION_COUNT
@CAPTION_WORDS
@_model_options
@_schedule_options
@click.option("--threads", type=_LEAST_ONE, metavar="N", help="CPU threads.")
@_number("--device", str, "cpu", "cpu, cuda or cuda:N.")
@click.option(
    "--force", is_flag=True, help="Replace an existing FILE, and the vocabulary beside it."
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
    """Train SGR or SAF on a precomp folder DATA, keeping the best checkpoint by validation.

    The checkpoint has the authors' format, and is written whenever the validation's rsum is the
    best so far: what is there after an interruption is whole.
    """
    from sgraf_deploy.data.precomp import open_precomp
    from sgraf_deploy.data.tokenizer import UNTRAINED, VOCABULARY, Tokenizer
    from sgraf_deploy.data.vocabulary import Vocabulary

    built = output.parent / f"{output.name.split('.')[0]}_vocab.json"
    _check_output(output, None if vocab else built, force=force)
    _check_packages()
    schedule = _options(data, options)
    training = open_precomp(data, split, captions_per_image=captions_per_image)
    regions, img_dim = training.regions.shape[1:]
    validation = open_precomp(
        data,
        val_split,
        captions_per_image=captions_per_image,
        model=(regions, img_dim),
        limit_images=val_images,
        authors_dev=val_split == "dev",
    )
    if vocab is None:
        splits = Tokenizer(UNTRAINED, max_caption_words)
        vocabulary = Vocabulary.build(training.captions, splits, min_count=min_count)
    else:
        vocabulary = Vocabulary.load(vocab)
    tokenizer = Tokenizer(VOCABULARY, max_caption_words, vocabulary)  # as `export` takes it
    images, captions = count(training.images, "image"), count(len(training.captions), "caption")
    echo(f"training {schedule.model.module} on {data}: {images}, {captions}")
    echo(
        f"validating on {count(validation.images, 'image')} of {val_split}; "
        f"vocabulary of {vocabulary.size:,} words"
    )
    data_of = _checked((training, validation), tokenizer, vocabulary, built=vocab is None)
    schedule = replace(schedule, vocab_sha256=vocabulary.sha256)
    files = _Files(output, None if vocab else built, force)
    _run(schedule, data_of, vocabulary, files, threads, device)
    echo(f"wrote {output}" + ("" if vocab else f" and {built}"))
    echo(f"next: sgraf-deploy export {output} --vocab {vocab or built}")


@dataclass(frozen=True)
class _Files:
    """What a training writes: without `force` nothing that is there, or appears meanwhile."""

    checkpoint: Path
    vocabulary: Path | None
    force: bool


def _checked(
    splits: tuple[PrecompSplit, PrecompSplit],
    tokenizer: Tokenizer,
    vocabulary: Vocabulary,
    *,
    built: bool,
) -> tuple[TrainingData, TrainingData]:
    """Both splits as a training reads them, the validation's features beside the training's.

    What is suspicious is shown, but for words that are too rare to be in a vocabulary `built` here.
    """
    from sgraf_deploy.data.checks import check_split
    from sgraf_deploy.data.regions import region_statistics
    from sgraf_deploy.train.batches import TrainingData

    training, validation = splits
    dimensions = training.regions.shape[1:]
    checked = (
        check_split(training, dimensions, tokenizer, vocabulary),
        check_split(
            validation, dimensions, tokenizer, vocabulary, region_statistics(training.regions)
        ),
    )
    for split, one in zip(splits, checked, strict=True):
        for finding in one.findings:
            rare = built and split is training and finding.code == "unknown-words"
            if not rare:
                show_finding(replace(finding, message=f"split {split.name}: {finding.message}"))
    return (
        TrainingData.of(training, checked[0].token_ids),
        TrainingData.of(validation, checked[1].token_ids),
    )


def _run(
    options: TrainOptions,
    data: tuple[TrainingData, TrainingData],
    vocabulary: Vocabulary,
    files: _Files,
    threads: int | None,
    device: str,
) -> None:
    """Train, printing a line per epoch and saving what is best."""
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
        replace = True  # From now on it is this training's own.

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
    """One line, aligned with those above."""
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
    """Refuse a result that could not be written, or that is there, before the training."""
    from sgraf_deploy.cli.common import check_result_file
    from sgraf_deploy.data.vocabulary import Vocabulary
    from sgraf_deploy.errors import DataError, InputError

    for path in filter(None, (output, built)):
        check_result_file(path, "-o" if path is output else "the vocabulary beside it")
        if path.exists() and not force:
            hint = "--force replaces it, or choose another -o"
            raise InputError(f"{path} exists already", hint=hint)
    if built is not None and built.exists():
        # It was not named: --force means a vocabulary, not whatever has the name of one.
        try:
            Vocabulary.load(built)
        except DataError as error:
            hint = "move it away, or choose another -o"
            raise InputError(f"{built} is not replaced", got=error.reason, hint=hint) from error


def _check_packages() -> None:
    from sgraf_deploy.errors import UnavailableError

    try:
        import torch  # noqa: F401
    except ImportError as error:
        hint = "pip install 'sgraf-deploy[torch]'"
        raise UnavailableError(f"train needs {error.name}", hint=hint) from error
