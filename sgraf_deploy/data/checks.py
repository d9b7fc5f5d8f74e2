"""Checks for suspicious data: a wrong vocabulary, malformed captions, features that are zero.

None of these is an error, because each can be legitimate: every command that reads such data prints
the findings. Data that cannot be used at all is refused where it is read.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sgraf_deploy.data.captions import CaptionStats, encode_captions
from sgraf_deploy.data.findings import Finding
from sgraf_deploy.data.foreign_channels import channel_findings
from sgraf_deploy.data.precomp import PrecompSplit
from sgraf_deploy.data.regions import RegionSurvey, check_regions
from sgraf_deploy.data.tokenizer import Tokenizer
from sgraf_deploy.data.vocabulary import SPECIAL_WORDS, UNKNOWN, Vocabulary
from sgraf_deploy.errors import BundleError

UNKNOWN_SHARE = 0.05
"""The share of unknown words above which there is a warning; Flickr30K, Flickr8K and MSCOCO have
0.8 to 1.9 % with their own vocabularies."""

FEWEST_WORDS = 100
"""With fewer words the share means nothing: three captions may well contain two rare words."""

FORM_SHARE = 0.01
"""The share of malformed captions above which there is a warning: a person quotes a single caption,
a program all of them."""

FOREIGN_NORM_RATIO = 2.0
"""Regions whose mean norm differs by more than this factor were likely extracted differently."""

_SHOWN = 60
"""The number of characters of an example that a message shows."""


@dataclass(frozen=True, eq=False)
class CheckedSplit:
    """A split that was checked: its captions as ids (words,) int32 each, and the findings."""

    token_ids: list[NDArray[np.int32]]
    words: CaptionStats
    findings: tuple[Finding, ...]


@dataclass(frozen=True)
class _Form:
    """A way in which programs, not people, write captions: a description, and its likely cause."""

    description: str
    pattern: re.Pattern[str]
    cause: str


_FORMS = tuple(
    _Form(description, re.compile(pattern, re.DOTALL), cause)
    for description, pattern, cause in (
        (
            "begin with a file name",
            r"\S+\.(?i:jpe?g|png|gif|bmp|tiff?|webp)(?:#\d+)?(?:[\s,;|].*)?",
            "a list of images and captions, like Flickr's .token files; keep only the caption",
        ),
        (
            "are Python's text of bytes",
            r"""[bB](?:'.*'|".*")""",
            "written by str() of bytes; decode them",
        ),
        (
            "are JSON",
            r"\{.*\}|\[.*\]",
            "a dump of records or lists; keep only the caption",
        ),
        (
            "begin with a number and a separator",
            r"\d+\s*[,;|\t].*",
            "a table whose first column is a number; keep only the caption",
        ),
        (
            "have several columns",
            r"[^\t]*\t.*",
            "a table; keep only the caption",
        ),
        (
            "contain special words such as <start>",
            r".*<(?i:start|end|pad|unk)>.*",
            "already prepared for a model; remove the special words",
        ),
        (
            "contain HTML",
            r".*(?:&(?:#\d+|#x[0-9a-fA-F]+|[a-zA-Z]{2,8});|</?[a-zA-Z]+ ?/?>).*",
            "from a web page; use html.unescape and remove the tags",
        ),
        (
            "contain escape sequences",
            r""".*\\(?:["'ntr]|u[0-9a-fA-F]{4}|x[0-9a-fA-F]{2}).*""",
            "written as string literals of a program; decode them",
        ),
        (
            "are in quotes",
            r"""".*"|'.*'|“.*”|\u2018.*\u2019|``.*''""",
            "fields of a CSV table; remove the quotes",
        ),
        (
            "are numbers",
            r"[\s,.\[\]]*\d[\d\s,.\[\]]*",
            "token ids or labels; give the words",
        ),
        (
            "say that the caption is missing",
            r"(?i:nan|none|null|n/?a|<na>|nil|undefined)",
            "missing values that were written out; leave out their images",
        ),
        (
            "contain signs of a wrong encoding",
            r".*(?:Ã[\x80-\xbf]|â€|Â[\x80-\xbf]).*",
            "UTF-8 that was read as Latin-1 and written again; read it as UTF-8",
        ),
    )
)


def check_split(
    split: PrecompSplit,
    dimensions: tuple[int, int],
    tokenizer: Tokenizer,
    vocabulary: Vocabulary,
    statistics: Mapping[str, Any] | None = None,
) -> CheckedSplit:
    """Check a whole split before any long work begins; its features are read once.

    `dimensions` are the model's (regions, img_dim), `statistics` the bundle's `region_statistics`,
    if known. Raises DataError for regions that do not fit the model or are not finite, and
    for a caption without words.
    """
    survey = check_regions(split.regions, *dimensions, f"regions of split {split.name}")
    token_ids, words, found = check_captions(split.captions, tokenizer, vocabulary)
    findings = (*split.findings, *region_findings(survey, statistics), *found)
    return CheckedSplit(token_ids, words, findings)


def check_captions(
    captions: Sequence[str], tokenizer: Tokenizer, vocabulary: Vocabulary
) -> tuple[list[NDArray[np.int32]], CaptionStats, tuple[Finding, ...]]:
    """Captions as token ids (words,) each, their words counted, and what is suspicious of them.

    Raises DataError for a caption without words.
    """
    token_ids, words = encode_captions(captions, tokenizer, vocabulary)
    unknown = word_findings(captions, token_ids, words, vocabulary)
    return token_ids, words, (*caption_findings(captions), *unknown)


def region_findings(
    survey: RegionSurvey, statistics: Mapping[str, Any] | None = None
) -> tuple[Finding, ...]:
    """Findings about features that are zero, or unlike those that a bundle keeps, `statistics`."""
    findings = []
    if survey.zero_images:
        findings.append(
            Finding(
                "zero-images",
                f"{survey.zero_images:,} of {survey.images:,} images are all zero: did the "
                "extraction of their features fail?",
            )
        )
    per_image = survey.regions // survey.images
    padding = survey.zero_regions - survey.zero_images * per_image
    if padding:
        findings.append(
            Finding(
                "zero-regions",
                f"{padding:,} of {survey.regions:,} regions are all zero, as for images with fewer "
                f"than {per_image} boxes; they are scored as the reference scores them",
                is_warning=False,
            )
        )
    actual, exported = survey.mean_norm, _mean_norm(statistics)
    low, high = exported / FOREIGN_NORM_RATIO, exported * FOREIGN_NORM_RATIO
    if actual and exported and not low <= actual <= high:
        findings.append(
            Finding(
                "foreign-regions",
                f"the regions' mean norm is {actual:.3g}, but the bundle keeps {exported:.3g}, of "
                "the training or of --gate-data: were these features extracted in the same way?",
            )
        )
    return (*findings, *channel_findings(survey.channels, statistics))


def _mean_norm(statistics: Mapping[str, Any] | None) -> float:
    """The regions' mean norm that a bundle keeps; 0 if it keeps none."""
    if statistics is None:
        return 0.0
    norm: Any = statistics.get("mean_norm")
    if type(norm) not in (int, float) or not 0 <= norm < math.inf:
        raise BundleError(
            "manifest: region_statistics.mean_norm",
            expected="a number that is not negative",
            got=repr(norm)[:_SHOWN],
            hint="export again with `sgraf-deploy export`",
        )
    return float(norm)


def caption_findings(captions: Sequence[str]) -> tuple[Finding, ...]:
    """Findings about captions that no person writes this way, by form, with an example each."""
    by_form: dict[_Form, list[str]] = {}
    for caption in captions:
        form = next((form for form in _FORMS if form.pattern.fullmatch(caption.strip())), None)
        if form is not None:
            by_form.setdefault(form, []).append(caption)
    return tuple(
        Finding(
            "caption-form",
            f"{len(examples):,} of {len(captions):,} captions {form.description}, for example "
            f"{_shown(examples[0])}: {form.cause}",
        )
        for form, examples in by_form.items()
        if len(examples) > FORM_SHARE * len(captions)
    )


def word_findings(
    captions: Sequence[str],
    token_ids: Sequence[NDArray[np.int32]],
    words: CaptionStats,
    vocabulary: Vocabulary,
) -> tuple[Finding, ...]:
    """Findings about too many unknown words, and captions with only unknown words."""
    findings = []
    if words.tokens >= FEWEST_WORDS and words.unknown_rate > UNKNOWN_SHARE:
        findings.append(
            Finding(
                "unknown-words",
                f"{words.unknown_rate:.1%} of the words are not in the vocabulary, where 1 to 2 % "
                "are usual: is it the vocabulary that the model was trained with, and are the "
                "captions in its language and split by its tokenizer?",
            )
        )
    unknown = [row for row, ids in enumerate(token_ids) if _wholly_unknown(ids, vocabulary)]
    if unknown:
        findings.append(
            Finding(
                "unknown-captions",
                f"{len(unknown):,} of {len(captions):,} captions have no word that is in the "
                f"vocabulary, for example {_shown(captions[unknown[0]])}: the model sees only "
                "their length",
                is_warning=len(captions) == 1,
            )
        )
    return tuple(findings)


def member_findings(data_names: Mapping[str, str | None]) -> tuple[Finding, ...]:
    """Findings about members of a bundle that were trained on different data.

    `data_names` maps a member to its checkpoint's `opt.data_name`, or None if it has none.
    """
    known = {name: data for name, data in data_names.items() if data is not None}
    if len(set(known.values())) < 2:
        return ()
    listed = ", ".join(f"{name} on {data}" for name, data in known.items())
    return (
        Finding(
            "members-of-other-data",
            f"the members were trained on different data ({listed}): do they have the same "
            "vocabulary, word by word?",
        ),
    )


def vocabulary_findings(path: Path, data_names: Sequence[str | None]) -> tuple[Finding, ...]:
    """Findings about a vocabulary whose name the authors' code would not give it for this data."""
    expected = dict.fromkeys(f"{data}_vocab.json" for data in data_names if data is not None)
    if not expected or path.name in expected:
        return ()
    return (
        Finding(
            "vocabulary-name",
            f"vocabulary {path} is not named {' or '.join(expected)}, which the checkpoint's data "
            "name suggests: is it the vocabulary that the model was trained with? The same words "
            "in another order would pass the gate",
        ),
    )


def special_word_findings(path: Path, vocabulary: Vocabulary) -> tuple[Finding, ...]:
    """A finding about special words that do not have the ids of the authors' code."""
    if vocabulary.words[: len(SPECIAL_WORDS)] == SPECIAL_WORDS:
        return ()
    ids = ", ".join(f"{word} {vocabulary.id(word)}" for word in SPECIAL_WORDS)
    return (
        Finding(
            "special-words",
            f"vocabulary {path} has {ids}, where the authors' code gives them 0 to 3: are its "
            "words in the order of the training?",
        ),
    )


def _wholly_unknown(token_ids: NDArray[np.int32], vocabulary: Vocabulary) -> bool:
    """Whether there is only `<unk>` between `<start>` and `<end>`."""
    return bool((token_ids[1:-1] == vocabulary.id(UNKNOWN)).all())


def _shown(text: str) -> str:
    return repr(text if len(text) <= _SHOWN else f"{text[:_SHOWN]}…")
