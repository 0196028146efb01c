"""The model card of a repository: README.md, filled from a model's configuration and from results of ``eval``."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from huggingface_hub import EvalResult, ModelCardData

from mote_fast.clip.prompts import PAPER_PROMPTS
from mote_fast.clip.published import tag_config
from mote_fast.errors import ConfigError, one_line
from mote_fast.model.model_config import ModelConfig
from mote_fast.model.model_defaults import HUB_SCHEMA
from mote_fast.runtime.text import markdown, visible
from mote_fast.version import __version__

CARD_FILE = "README.md"

# The hub's name of the task; it has none for open label sets.
_TASK = "video-classification"
_TAGS = ("clip", "video", "zero-shot", "open-vocabulary")
# Class names that a card shows; config.json has all.
_SHOWN_CLASSES = 100
# The scores of `eval`, the one of the paper first, and what each number of a result is called.
_SCORES = ("running", "full_class", "cosine")
_MEASURES = {"top1": "top-1 accuracy", "top5": "top-5 accuracy", "map": "mean average precision"}


def model_card(
    config: ModelConfig,
    repository: str,
    *,
    license: str | None = None,
    results: Sequence[Mapping[str, Any]] = (),
    caution: str | None = None,
) -> str:
    """Return the text of a card.

    Args:
        config: the model's configuration.
        repository: "ORGANIZATION/NAME".
        license: the licence of the weights, in the hub's spelling ("apache-2.0"); None states none.
        results: documents of ``result.json``, as ``mote-fast eval --output`` writes them.
        caution: why the model's ranking means nothing, see ``VideoClassifier.caution``.

    Raises:
        ConfigError: a result is no document of ``eval``.
    """
    rows = [row for result in results for row in _rows(result)]
    data = ModelCardData(
        license=None if license is None else visible(license),
        library_name="mote_fast",
        pipeline_tag=_TASK,
        tags=[*(["mote"] if _has_experts(config) else []), *_TAGS],
        base_model=_base_model(config),
        model_name=repository.rpartition("/")[2],
        eval_results=[row.as_metadata() for row in rows] or None,
    )
    parts = [
        f"---\n{data.to_yaml()}\n---",
        f"# {markdown(repository)}",
        f"A video classifier for open sets of labels: {_kind(config)}, in the format of mote_fast {__version__}.",
        *([f"**Caution:** {markdown(caution)}."] if caution else []),
        _use(config, repository),
        "\n".join(("## Model", "", *_table(("", ""), _facts(config)))),
    ]
    if rows:
        head = ("protocol", "data set", "classes", "videos", "views and settings", "measure", "%", "deviation")
        explained = "Written by `mote-fast eval`; the deviation is that over the splits."
        parts.append("\n".join(("## Results", "", *_table(head, (row.cells() for row in rows)), "", explained)))
    if config.classes is not None:
        shown = ", ".join(markdown(name) for name in config.classes[:_SHOWN_CLASSES])
        more = len(config.classes) - _SHOWN_CLASSES
        rest = f", and {more} more in `config.json`" if more > 0 else ""
        parts.append(f"## Classes of the training\n\n{shown}{rest}.")
    stated = f"`{markdown(license)}`." if license else "None is stated for these weights."
    parts.append(f"## Licence\n\n{stated}")
    return "\n\n".join(parts) + "\n"


class _Row:
    """One number of a result."""

    def __init__(self, result: Mapping[str, Any], score: str, measure: str, found: Mapping[str, Any]) -> None:
        splits = result["splits"]
        self.protocol, self.data_set, self.views = (str(result[key]) for key in ("protocol", "dataset", "views"))
        self.views += _settings(result)
        self.classes = max(int(split["classes"]) for split in splits)
        self.videos = sum(int(split["videos"]) for split in splits)
        self.failed = sum(int(split["failed"]) for split in splits)
        self.name = f"{_MEASURES[measure]} ({score} score)"
        self.value = float(found["mean"])
        self.deviation = float(found["deviation"])
        self.splits = len(splits)

    def cells(self) -> tuple[str, ...]:
        videos = f"{self.videos}" + (f", {self.failed} of them unreadable" if self.failed else "")
        deviation = f"{self.deviation:.2f}, {self.splits} splits" if self.splits > 1 else ""
        texts = (self.protocol, self.data_set, str(self.classes), videos, self.views, self.name)
        return (*texts, f"{self.value:.2f}", deviation)

    def as_metadata(self) -> EvalResult:
        return EvalResult(
            task_type=_TASK,
            dataset_type="".join(letter if letter.isalnum() else "-" for letter in self.data_set.lower()),
            dataset_name=visible(self.data_set),
            dataset_config=visible(self.protocol),
            metric_type="accuracy" if "accuracy" in self.name else "mean_average_precision",
            metric_name=visible(f"{self.name}, {self.protocol}, {self.views} views"),
            metric_value=round(self.value, 2),
        )


def _rows(result: Mapping[str, Any]) -> Iterator[_Row]:
    """Yield the rows of a document: of its first score, over the videos that could be read."""
    try:
        score = next(score for score in _SCORES if score in result["mean"])
        found = [
            _Row(result, score, measure, each)
            for measure, each in result["mean"][score]["readable"].items()
            if each["mean"] is not None
        ]
    except (KeyError, TypeError, ValueError, AttributeError, StopIteration) as error:
        raise ConfigError(
            f"results must be documents of result.json, as `mote-fast eval --output` writes them ({one_line(error)})"
        ) from error
    yield from found


def _has_experts(config: ModelConfig) -> bool:
    return config.head.header == "mote"


def _kind(config: ModelConfig) -> str:
    if _has_experts(config):
        return "MoTE on CLIP ([paper](https://arxiv.org/abs/2410.10589))"
    return "CLIP with temporal layers" if config.head.layers else "CLIP with the mean over frames"


def _settings(result: Mapping[str, Any]) -> str:
    """How the model was used, beside its defaults."""
    share = result.get("tuned_share", 1.0)
    found = (
        (result.get("dtype", "float32") != "float32", str(result.get("dtype"))),
        (bool(result.get("without_modulation")), "without modulation"),
        (share != 1.0, f"{share} of the tuned image tower"),
        (bool(result.get("templates")), "other templates"),
        (bool(result.get("descriptions")), "descriptions"),
    )
    return "".join(f", {text}" for used, text in found if used)


def _base_model(config: ModelConfig) -> str | None:
    """The repository of the CLIP that the model starts from, where the configuration names one."""
    name, tag = config.clip.name or "", config.original.tag if config.original is not None else None
    if name.startswith(HUB_SCHEMA):
        return name.removeprefix(HUB_SCHEMA)
    return tag_config(name, tag).get("hf_hub", "").rstrip("/") or None if tag is not None else None


def _use(config: ModelConfig, repository: str) -> str:
    labels = '["archery", "playing the cello"]'
    lines = [f'clf = mote_fast.load("{HUB_SCHEMA}{repository}")']
    if config.classes is not None:
        lines.append(f'clf.classify("video.mp4")  # ranks the {len(config.classes)} classes of the training')
    lines.append(f'clf.classify("video.mp4", {labels})  # ranks any labels')
    program = "\n".join(("import mote_fast", "", *lines))
    return f"## Use\n\n```python\n{program}\n```"


def _facts(config: ModelConfig) -> Iterator[tuple[str, str]]:
    head, frames = config.head, config.clip.preprocessing
    yield "CLIP", config.clip.name or "of its own configuration"
    if config.original is not None and config.original.tag is not None:
        yield "tuned from", f"open_clip's tag {config.original.tag}"
    yield (
        "frames",
        f"{config.frames} of {frames.size} x {frames.size} pixels, {frames.resize_mode}, {frames.interpolation}",
    )
    if head.layers:
        yield "head", f"{head.header}, {head.layers} layers, {head.experts} experts each, {head.heads} heads"
    else:
        yield "head", "mean over frames"
    yield "width of features", str(config.clip.embed_dim)
    yield "activation", config.clip.activation.replace("_", " ")
    if config.tuned_share != 1.0:
        yield "share of the tuned image tower", f"{config.tuned_share:g}"
    own = config.prompts
    texts = f"{len(own.templates)} of its own, and descriptions of {len(own.descriptions)} classes"
    yield "prompts", "the paper's 28" if own == PAPER_PROMPTS else texts


def _table(head: Sequence[str], rows: Any) -> list[str]:
    lines = [f"| {' | '.join(head)} |", f"|{'---|' * len(head)}"]
    return [*lines, *(f"| {' | '.join(markdown(cell) for cell in row)} |" for row in rows)]
