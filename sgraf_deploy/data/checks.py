"""What is suspicious in data that may be used: another vocabulary, captions that are none, zeros.

Nothing here is an error, for each has an innocent form. Every command that reads such data prints
what is found; what cannot be used at all is refused where it is read.
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
from sgraf_deploy.data.precomp import PrecompSplit
from sgraf_deploy.data.regions import RegionSurvey, check_regions
from sgraf_deploy.data.tokenizer import Tokenizer
from sgraf_deploy.data.vocabulary import UNKNOWN, Vocabulary
from sgraf_deploy.errors import BundleError

UNKNOWN_SHARE = 0.05
"""Of the words; Flickr30K, Flickr8K and MSCOCO have 0.8 to 1.9 % with their own vocabularies."""

FEWEST_WORDS = 100
"""Below these a share says nothing: two rare words in three captions are no sign of anything."""

FORM_SHARE = 0.01
"""Of the captions: a person puts one of them in quotes, a program all of them."""

FOREIGN_NORM_RATIO = 2.0
"""Regions whose mean norm is off by more than this factor were likely extracted differently."""

_SHOWN = 60
"""How much of an example a message shows, in characters."""


@dataclass(frozen=True, eq=False)
class CheckedSplit:
    """A split whose regions fit, its captions as ids (words,) int32 each, and what was found."""

    token_ids: list[NDArray[np.int32]]
    words: CaptionStats
    findings: tuple[Finding, ...]


@dataclass(frozen=True)
class _Form:
    """A way of writing captions that no person has: what it looks like, and where it comes from."""

    looks: str
    pattern: re.Pattern[str]
    cause: str


_FORMS = tuple(
    _Form(looks, re.compile(pattern, re.DOTALL), cause)
    for looks, pattern, cause in (
        (
            "begin with a file's name",
            r"\S+\.(?i:jpe?g|png|gif|bmp|tiff?|webp)(?:#\d+)?(?:[\s,;|].*)?",
            "a list of images and captions, as Flickr's .token files; keep the caption alone",
        ),
        (
            "are Python's text of bytes",
            r"""[bB](?:'.*'|".*")""",
            "written by str() of bytes; decode them",
        ),
        (
            "are JSON",
            r"\{.*\}|\[.*\]",
            "a dump of records or lists; keep the caption alone",
        ),
        (
            "begin with a number and a separator",
            r"\d+\s*[,;|\t].*",
            "a table with a number first; keep the caption alone",
        ),
        (
            "have several columns",
            r"[^\t]*\t.*",
            "a table; keep the caption alone",
        ),
        (
            "hold words that a program adds",
            r".*<(?i:start|end|pad|unk)>.*",
            "made ready for a model already; leave out what was added",
        ),
        (
            "hold HTML",
            r".*(?:&(?:#\d+|#x[0-9a-fA-F]+|[a-zA-Z]{2,8});|</?[a-zA-Z]+ ?/?>).*",
            "from a web page; use html.unescape and leave out the tags",
        ),
        (
            "hold escapes",
            r""".*\\(?:["'ntr]|u[0-9a-fA-F]{4}|x[0-9a-fA-F]{2}).*""",
            "written as in a program's source; decode them",
        ),
        (
            "are in quotes",
            r"""".*"|'.*'|“.*”|\u2018.*\u2019|``.*''""",
            "fields of a table in CSV; take the quotes away",
        ),
        (
            "are numbers",
            r"[\s,.\[\]]*\d[\d\s,.\[\]]*",
            "token ids or labels; give the words",
        ),
        (
            "say that nothing is there",
            r"(?i:nan|none|null|n/?a|<na>|nil|undefined)",
            "missing values that were written out; leave out their images",
        ),
        (
            "hold the marks of a wrong encoding",
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
    """Look at all of a split before anything long begins; its features are read once.

    `dimensions` are the model's (regions, img_dim), `statistics` those of `region_statistics` at
    export, if known. Raises DataError for regions that do not fit or are not finite, and for a
    caption without words.
    """
    survey = check_regions(split.regions, *dimensions, f"regions of split {split.name}")
    token_ids, words = encode_captions(split.captions, tokenizer, vocabulary)
    findings = (
        *split.findings,
        *region_findings(survey, statistics),
        *caption_findings(split.captions),
        *word_findings(split.captions, token_ids, words, vocabulary),
    )
    return CheckedSplit(token_ids, words, findings)


def region_findings(
    survey: RegionSurvey, statistics: Mapping[str, Any] | None = None
) -> tuple[Finding, ...]:
    """Zeros in place of features, and features of another scale than those at export."""
    found = []
    if survey.zero_images:
        found.append(
            Finding(
                "zero-images",
                f"{survey.zero_images:,} of {survey.images:,} images are all zero: did the "
                "extraction of their features fail?",
            )
        )
    per_image = survey.regions // survey.images
    padding = survey.zero_regions - survey.zero_images * per_image
    if padding:
        found.append(
            Finding(
                "zero-regions",
                f"{padding:,} of {survey.regions:,} regions are all zero, as where an image has "
                f"fewer boxes than {per_image}; they are scored as the reference scores them",
                is_warning=False,
            )
        )
    here, there = survey.mean_norm, _mean_norm(statistics)
    if here and there and not there / FOREIGN_NORM_RATIO <= here <= there * FOREIGN_NORM_RATIO:
        found.append(
            Finding(
                "foreign-regions",
                f"the regions' mean norm is {here:.3g}, at export it was {there:.3g}: "
                "were these features extracted in the same way?",
            )
        )
    return tuple(found)


def _mean_norm(statistics: Mapping[str, Any] | None) -> float:
    """What a bundle says of the regions at its export; 0 where it says nothing."""
    if statistics is None:
        return 0.0
    found: Any = statistics.get("mean_norm")
    if type(found) not in (int, float) or not 0 <= found < math.inf:
        raise BundleError(
            "manifest: region_statistics.mean_norm",
            expected="a number that is not negative",
            got=repr(found)[:_SHOWN],
            hint="export again with `sgraf-deploy export`",
        )
    return float(found)


def caption_findings(captions: Sequence[str]) -> tuple[Finding, ...]:
    """Captions that are written as no person writes them, by form, each with an example."""
    examples: dict[_Form, list[str]] = {}
    for caption in captions:
        form = next((form for form in _FORMS if form.pattern.fullmatch(caption.strip())), None)
        if form is not None:
            examples.setdefault(form, []).append(caption)
    return tuple(
        Finding(
            "caption-form",
            f"{len(like):,} of {len(captions):,} captions {form.looks}, for example "
            f"{_shown(like[0])}: {form.cause}",
        )
        for form, like in examples.items()
        if len(like) > FORM_SHARE * len(captions)
    )


def word_findings(
    captions: Sequence[str],
    token_ids: Sequence[NDArray[np.int32]],
    words: CaptionStats,
    vocabulary: Vocabulary,
) -> tuple[Finding, ...]:
    """Too many words that the vocabulary does not have, and captions of nothing else."""
    found = []
    if words.tokens >= FEWEST_WORDS and words.unknown_rate > UNKNOWN_SHARE:
        found.append(
            Finding(
                "unknown-words",
                f"{words.unknown_rate:.1%} of the words are unknown, where 1 to 2 % are usual: is "
                "this the vocabulary of the training, and were these captions in its language and "
                "split by its tokenizer?",
            )
        )
    lost = [row for row, ids in enumerate(token_ids) if _wholly_unknown(ids, vocabulary)]
    if lost:
        found.append(
            Finding(
                "unknown-captions",
                f"{len(lost):,} of {len(captions):,} captions have no word that the vocabulary "
                f"knows, for example {_shown(captions[lost[0]])}: the model sees nothing of them "
                "but their length",
                is_warning=len(captions) == 1,
            )
        )
    return tuple(found)


def member_findings(data_names: Mapping[str, str | None]) -> tuple[Finding, ...]:
    """Members of a bundle that were trained on other data; `data_names` is `opt.data_name` by
    member, None where a checkpoint does not say."""
    known = {name: data for name, data in data_names.items() if data is not None}
    if len(set(known.values())) < 2:
        return ()
    said = ", ".join(f"{name} on {data}" for name, data in known.items())
    return (
        Finding(
            "members-of-other-data",
            f"the members were trained on different data ({said}): is their vocabulary the same, "
            "word by word?",
        ),
    )


def vocabulary_findings(path: Path, data_names: Sequence[str | None]) -> tuple[Finding, ...]:
    """A vocabulary that is not named as the authors' code names that of the training's data."""
    known = dict.fromkeys(f"{data}_vocab.json" for data in data_names if data is not None)
    if not known or path.name in known:
        return ()
    return (
        Finding(
            "vocabulary-name",
            f"vocabulary {path} is not named {' or '.join(known)}, as the checkpoint says: is it "
            "that of the training? The same words in another order would pass the gate",
        ),
    )


def _wholly_unknown(token_ids: NDArray[np.int32], vocabulary: Vocabulary) -> bool:
    """Whether nothing but `<unk>` stands between `<start>` and `<end>`."""
    return bool((token_ids[1:-1] == vocabulary.id(UNKNOWN)).all())


def _shown(text: str) -> str:
    return repr(text if len(text) <= _SHOWN else f"{text[:_SHOWN]}…")
