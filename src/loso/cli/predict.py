"""The command that scores: `predict`."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Final

import typer

from loso.cli.console import hint, print_json, print_line, print_table, warn_all
from loso.cli.options import JsonOption, KeyOption, ModelOption, StemOption, one_of, presets
from loso.errors import BadInput, BadSettings
from loso.schema import ENCODER_VOCAB
from loso.spelling import nearest

if TYPE_CHECKING:
    import polars as pl

    from loso.predict import Prediction

__all__ = ["predict"]

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
        str | None,
        typer.Option(
            metavar="NAME",
            help="What coded it, libx264.",
            rich_help_panel=_VIDEOS,
            autocompletion=one_of("loso.schema:ENCODER_VOCAB"),
        ),
    ] = None,
    cq: Annotated[
        float | None, typer.Option(help="At which quality setting.", rich_help_panel=_VIDEOS)
    ] = None,
    preset: Annotated[
        str | None,
        typer.Option(help="With which preset.", rich_help_panel=_VIDEOS, autocompletion=presets),
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
    name: StemOption = None,
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
        _print_clips(prediction)
    elif out is None:
        sys.stdout.write(_to_lines(table))


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
    near = nearest(encoder, ENCODER_VOCAB, least=0.8)
    if near:
        raise BadSettings(
            "no such encoder", where="--encoder", found=encoder, fix=f"did you mean {near}?"
        )


def _read_rows(name: str) -> pl.DataFrame:
    """Return the rows in a file of one of `_READERS`, or the JSON lines on stdin."""
    import io

    import polars as pl

    from loso.corpus.jsonl import read_jsonl
    from loso.stored import read_parquet, unpack

    if name == "-":
        return _whole_numbers(read_jsonl(sys.stdin.buffer.read(), "stdin"))
    if not name.endswith(_READERS):
        raise BadInput(
            "not a file of rows by its name",
            where=name,
            expected=f"a name that ends in {', '.join(_READERS)}, or - for JSON lines on stdin",
        )
    unreadable = (pl.exceptions.PolarsError, pl.exceptions.PanicException, OSError, ValueError)
    try:
        content = Path(name).read_bytes()
        if name.endswith(".gz"):
            content = unpack(content)
        if name.endswith(".csv"):
            return pl.read_csv(io.BytesIO(content), infer_schema_length=None)
        if name.endswith(".parquet"):
            return read_parquet(content)
    except unreadable as error:
        reason = getattr(error, "strerror", None) or str(error).partition("\n")[0]
        fix = getattr(error, "fix", "")
        raise BadInput(f"cannot be read ({reason})", where=name, fix=fix) from None
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


def _print_clips(prediction: Prediction) -> None:
    """Print each clip's scores with their intervals; what all clips share is said once, above."""
    clips = prediction.clips
    names = clips.columns[: clips.columns.index("n_frames")]
    others = [name for name in names if name != "clip"]
    if clips.select(others).n_unique() == clips.height:  # a corpus' name of a clip joins the others
        names = others
    varying = [name for name in names if clips[name].n_unique() > 1]
    shared = {name: _name(clips[name][0]) for name in names if name not in varying and clips.height}
    if told := ", ".join(f"{name} {value}" for name, value in shared.items() if value != "-"):
        print_line(f"every clip: {told}" if varying else told)
        print_line()
    at = "" if prediction.level is None else f" {100 * prediction.level:g} %"
    pools = {"mean": "mean_", "p5": "p5_", "hmean": "hmean_"}
    if "mu" in clips.columns:  # one score a clip
        pools = {"score": ""}
    rows = [
        (
            *(_name(row[name]) for name in varying),
            f"{row['n_frames']}",
            *(_cell(row, prefix) for prefix in pools.values()),
        )
        for row in clips.iter_rows(named=True)
    ]
    titles = (*varying, "frames", *(pool + at for pool in pools))
    align = "".join(">" if clips[name].dtype.is_numeric() else "<" for name in varying)
    print_table(titles, rows, align=align.ljust(len(titles), ">"))
    print_line(f"intervals: {prediction.interval}")


def _name(value: Any) -> str:
    """Return what names a clip as people write it, `-` where that is not known."""
    if value is None:
        return "-"
    return f"{value:.10g}" if isinstance(value, float) else f"{value}"


def _cell(row: dict[str, Any], prefix: str) -> str:
    """Return a score and its interval, whose ends are shown to about three figures."""
    score = f"{row[f'{prefix}mu']:.2f}"
    if row[f"{prefix}lower"] is None:
        return score
    ends = (row[f"{prefix}{end}"] for end in ("lower", "upper"))
    return f"{score} " + "..".join(f"{end:.{1 if abs(end) >= 10 else 2}f}" for end in ends)
