"""Commands that use a model: `predict` and `evaluate`."""

from __future__ import annotations

import difflib
import json
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Final

import typer

from loso.cli.console import hint, print_json, warn_all
from loso.cli.options import JsonOption, KeyOption
from loso.errors import BadInput, BadSettings
from loso.schema import ENCODER_VOCAB

if TYPE_CHECKING:
    import polars as pl

    from loso.evaluate import Agreement, Evaluation
    from loso.predict import Prediction

__all__ = ["evaluate", "predict"]

ModelOption = Annotated[
    Path, typer.Option("--model", metavar="DIR", help="A model folder.", show_default=False)
]
NameOption = Annotated[
    str | None,
    typer.Option("--name", help="Stem of the model, where the folder holds several."),
]
_VIDEOS: Final = "Two videos instead of rows"


def predict(
    model: ModelOption,
    features: Annotated[
        str | None,
        typer.Option(metavar="FILE", help="Rows: .jsonl, .jsonl.gz, .csv or .parquet; - is stdin."),
    ] = None,
    reference: Annotated[
        Path | None, typer.Option(help="The source clip.", rich_help_panel=_VIDEOS)
    ] = None,
    distorted: Annotated[
        Path | None,
        typer.Option(help="What was made of it, as many frames.", rich_help_panel=_VIDEOS),
    ] = None,
    encoder: Annotated[
        str | None, typer.Option(help="What coded it, libx264.", rich_help_panel=_VIDEOS)
    ] = None,
    cq: Annotated[
        float | None, typer.Option(help="At which quality setting.", rich_help_panel=_VIDEOS)
    ] = None,
    preset: Annotated[
        str | None, typer.Option(help="With which preset.", rich_help_panel=_VIDEOS)
    ] = None,
    width: Annotated[
        int | None, typer.Option(help="Of raw .yuv videos.", rich_help_panel=_VIDEOS)
    ] = None,
    height: Annotated[
        int | None, typer.Option(help="Of raw .yuv videos.", rich_help_panel=_VIDEOS)
    ] = None,
    pix_fmt: Annotated[
        str, typer.Option(help="Of raw .yuv videos.", rich_help_panel=_VIDEOS)
    ] = "yuv420p",
    ffmpeg: Annotated[
        str, typer.Option(help="The ffmpeg to use, with libvmaf.", rich_help_panel=_VIDEOS)
    ] = "",
    set_: Annotated[
        list[str] | None,
        typer.Option(
            "--set", metavar="COL=VALUE", help="A column with one value in every row; repeatable."
        ),
    ] = None,
    level: Annotated[
        float | None, typer.Option(help="Share of points that intervals are to cover.")
    ] = None,
    pooled: Annotated[bool, typer.Option("--pooled", help="One row a clip, not a frame.")] = False,
    key: KeyOption = None,
    name: NameOption = None,
    out: Annotated[
        Path | None, typer.Option(help="Write the rows here: .jsonl, .csv or .parquet.")
    ] = None,
    as_json: JsonOption = False,
) -> None:
    """Score frames and clips, each with its interval, from measured rows or from two videos.

    Prints a table of clips on a terminal, JSON lines elsewhere.

    Example: loso predict --model models --features rows.jsonl --pooled
    """
    videos = (reference, distorted, encoder, cq)
    if (features is None) == (videos == (None,) * 4) or (features is None and None in videos):
        raise BadSettings(
            "nothing to score, or too much",
            expected="--features, or --reference, --distorted, --encoder and --cq",
        )
    _refuse_misspelt(encoder)
    if (width is None) != (height is None):
        raise BadSettings("--width needs --height", fix="give both, or neither")
    if out is not None and out.suffix not in _WRITERS:
        raise BadSettings(
            "not a file of rows by its name",
            where="--out",
            expected=f"a name that ends in {', '.join(_WRITERS)}",
            found=out.name,
        )
    given = dict(map(_setting, set_ or []))
    from loso.model.feed import require_columns
    from loso.predict import MEASURED, Predictor, measure_rows

    predictor = Predictor.load(model, name)
    predictor.interval_of(level)  # a level that cannot be had is refused before the work
    if features is not None:
        import polars as pl

        rows = _read_rows(features).with_columns(pl.lit(v).alias(n) for n, v in given.items())
    elif reference is not None and distorted is not None and encoder is not None and cq is not None:
        require_columns(predictor.model.inputs, [*MEASURED, *given], key or ())
        hint("measuring with libvmaf ...")
        rows = measure_rows(
            reference,
            distorted,
            encoder=encoder,
            cq=cq,
            preset=preset,
            raw_size=None if width is None or height is None else (width, height),
            raw_pixel_format=pix_fmt,
            ffmpeg=ffmpeg,
            given=given,
        )
    prediction = predictor.predict(rows, level=level, key=key or ())
    warn_all(prediction.warnings)
    table = prediction.clips if pooled else prediction.frames
    if out is not None:
        _write(table, out)
    if as_json:
        of_clips = pooled or predictor.model.unit == "clip"
        print_json(_record(prediction, pooled=of_clips))
    elif out is None and sys.stdout.isatty():
        typer.echo("\n".join(_clip_lines(prediction)))
    elif out is None:
        sys.stdout.write(_to_lines(table))


def evaluate(
    model: ModelOption,
    corpus: Annotated[
        Path, typer.Option("--corpus", help="A corpus the model has not seen.", show_default=False)
    ],
    key: KeyOption = None,
    name: NameOption = None,
    as_json: JsonOption = False,
) -> None:
    """Hold a model against a corpus that it has not seen: agreement, coverage, drift of inputs.

    Example: loso evaluate --model models --corpus other.jsonl
    """
    from loso.corpus.load import load_corpus
    from loso.evaluate import evaluate_model
    from loso.predict import Predictor

    predictor = Predictor.load(model, name)
    evaluation = evaluate_model(predictor, load_corpus(corpus, key=key or ()))
    warn_all(evaluation.warnings)
    if as_json:
        print_json(evaluation.to_dict())
    else:
        typer.echo("\n".join(_evaluation_lines(evaluation)))


def _setting(text: str) -> tuple[str, float | str]:
    """Return the column and the value of `COL=VALUE`; BadSettings on anything else."""
    column, equals, value = text.partition("=")
    if not (column and equals and value):
        raise BadSettings("names no column", where="--set", expected="COL=VALUE", found=repr(text))
    try:
        return column, float(value)
    except ValueError:
        return column, value


# -- Rows in and out ------------------------------------------------------------------------------

_READERS: Final = (".jsonl", ".jsonl.gz", ".csv", ".parquet")
_WRITERS: Final = (".jsonl", ".csv", ".parquet")


def _refuse_misspelt(encoder: str | None) -> None:
    """Refuse a name that is nearly one of the vocabulary: as `unknown` it would score otherwise."""
    if encoder is None or encoder in ENCODER_VOCAB:
        return
    near = difflib.get_close_matches(encoder, ENCODER_VOCAB, n=1, cutoff=0.8)
    if near:
        raise BadSettings(
            "no such encoder", where="--encoder", found=encoder, fix=f"did you mean {near[0]}?"
        )


def _read_rows(name: str) -> pl.DataFrame:
    """Return the rows in a file of one of `_READERS`, or the JSON lines on stdin."""
    import gzip
    import io
    import zlib

    import polars as pl

    from loso.corpus.jsonl import read_jsonl

    if name == "-":
        return _whole_numbers(read_jsonl(sys.stdin.buffer.read(), "stdin"))
    if not name.endswith(_READERS):
        raise BadInput(
            "not a file of rows by its name",
            where=name,
            expected=f"a name that ends in {', '.join(_READERS)}, or - for JSON lines on stdin",
        )
    unreadable = (pl.exceptions.PolarsError, pl.exceptions.PanicException, OSError, EOFError)
    try:
        content = Path(name).read_bytes()
        if name.endswith(".gz"):
            content = gzip.decompress(content)
        if name.endswith(".csv"):
            return pl.read_csv(io.BytesIO(content), infer_schema_length=None)
        if name.endswith(".parquet"):
            return pl.read_parquet(io.BytesIO(content))
    except (*unreadable, zlib.error) as error:
        reason = getattr(error, "strerror", None) or str(error).partition("\n")[0]
        raise BadInput(f"cannot be read ({reason})", where=name) from None
    return _whole_numbers(read_jsonl(content, name))


def _whole_numbers(table: pl.DataFrame) -> pl.DataFrame:
    """Return `table` with whole numbers in `cq` and `frame_index` where a corpus has floats."""
    import polars as pl

    floats = (name for name in ("cq", "frame_index") if table.schema.get(name) == pl.Float64)
    whole = [n for n in floats if ((c := table[n]) == c.floor()).all() and (c.abs() < 2**53).all()]
    return table.with_columns(pl.col(whole).cast(pl.Int64))


def _write(table: pl.DataFrame, out: Path) -> None:
    from loso.files import write_atomic

    with write_atomic(out) as temporary:
        if out.suffix == ".parquet":
            table.write_parquet(temporary)
        elif out.suffix == ".csv":
            table.write_csv(temporary)
        else:
            temporary.write_text(_to_lines(table), encoding="utf-8")
    hint(f"wrote {table.height} rows to {out}")


def _to_lines(table: pl.DataFrame) -> str:
    return "".join(json.dumps(row, allow_nan=False) + "\n" for row in table.iter_rows(named=True))


def _record(prediction: Prediction, *, pooled: bool) -> dict[str, Any]:
    record: dict[str, Any] = {
        "level": prediction.level,
        "interval": prediction.interval,
        "warnings": list(prediction.warnings),
        "clips": prediction.clips.to_dicts(),
    }
    return record if pooled else record | {"frames": prediction.frames.to_dicts()}


# -- Text for people ------------------------------------------------------------------------------


def _clip_lines(prediction: Prediction) -> Iterator[str]:
    clips = prediction.clips
    names = clips.columns[: clips.columns.index("n_frames")]
    labels = [
        " ".join(f"{value}" for value in row if value is not None)
        for row in clips.select(names).iter_rows()
    ]
    width = max(map(len, ("clip", *labels)))
    at = "" if prediction.level is None else f" {100 * prediction.level:g} %"
    pools = {"mean": "mean_", "p5": "p5_", "hmean": "hmean_"}
    if "mu" in clips.columns:  # one score a clip
        pools = {"score": ""}
    yield f"{'clip':{width}}  frames" + "".join(f"  {pool + at:>22}" for pool in pools)
    for label, row in zip(labels, clips.iter_rows(named=True), strict=True):
        cells = "".join(f"  {_cell(row, prefix):>22}" for prefix in pools.values())
        yield f"{label:{width}}  {row['n_frames']:6}{cells}"
    yield f"intervals: {prediction.interval}"


def _cell(row: dict[str, Any], prefix: str) -> str:
    score = f"{row[f'{prefix}mu']:.2f}"
    if row[f"{prefix}lower"] is None:
        return score
    return f"{score} [{row[f'{prefix}lower']:.2f}, {row[f'{prefix}upper']:.2f}]"


def _evaluation_lines(evaluation: Evaluation) -> Iterator[str]:
    yield (
        f"{evaluation.model} on {evaluation.corpus}: {evaluation.rows} rows, {evaluation.clips} "
        f"clips, target {evaluation.target}"
    )
    titles = {"frame": "frames", "mean": "clips, mean of their frames", "clip": "clips"}
    for pool, title in titles.items():
        if pool not in evaluation.pools:
            continue
        judged = evaluation.pools[pool]
        seen = evaluation.trained_on
        by_source = ((f"{s} *" if s in seen else s, own) for s, own in judged.by_source.items())
        lines = [*by_source, ("together *" if seen else "together", judged.pooled)]
        if judged.mapped is not None:
            lines.append(("together, mapped *" if seen else "together, mapped", judged.mapped))
        width = max(len(source) for source, _ in lines)
        yield f"\n{title}"
        yield f"{'source':{width}}       n    PLCC   SROCC    RMSE  inside   width"
        for source, agreement in lines:
            yield f"{source:{width}}  {_agreement(agreement)}"
    if evaluation.trained_on:
        yield "\n*: of sources that the model was trained on, and says nothing about new ones"
    if any(judged.mapped for judged in evaluation.pools.values()):
        yield "\nmapped: by a rising cubic, fitted on the other sources each time"
    if evaluation.level is not None:
        yield f"\ninside: share within intervals of {100 * evaluation.level:g} %, mean over sources"
    yield f"intervals: {evaluation.interval}\n"
    width = max(12, *(len(drift.name) for drift in evaluation.inputs))
    yield f"{'input':{width}}  shift of the mean  outside of training"
    for drift in evaluation.inputs:
        shift = "-" if drift.mean_shift is None else f"{drift.mean_shift:+.2f} sd"
        yield f"{drift.name:{width}}  {shift:>17}  {_figure(drift.outside_share, '.1%'):>19}"


def _agreement(found: Agreement) -> str:
    return (
        f"{found.n:6}  {_figure(found.plcc, '.4f'):>6}  {_figure(found.srocc, '.4f'):>6}  "
        f"{found.rmse:6.2f}  {_figure(found.coverage, '.3f'):>6}  "
        f"{_figure(found.mean_width, '.2f'):>6}"
    )


def _figure(value: float | None, form: str) -> str:
    return "-" if value is None else format(value, form)
