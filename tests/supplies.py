"""The files that the documents' commands take for granted, small and made up.

Clips are real video of a few frames. Corpora are
made up so that a few hundred rows teach a model all: VMAF is a smooth function of what is measured,
and the scores of people one of VMAF and bitrate.
"""

import csv
import gzip
import io
import json
import math
import subprocess
from itertools import product

import numpy as np
import polars as pl

from loso import pipeline
from loso.corpus.load import load_corpus
from loso.export import export_model
from loso.video.ffmpeg import find_ffmpeg

SOURCES = (
    *("BigBuckBunny_25fps", "BirdsInCage_30fps", "CrowdRun_25fps"),
    *("ElFuente1_30fps", "ElFuente2_30fps", "Tennis_24fps"),
)
"""Some of the public Netflix set, whose clips the runbook names."""

ELSEWHERE = ("aspen", "birch", "cedar", "maple")
"""Sources of another site, of which a model of the others knows nothing."""

TOUR = (
    *("clips/openh264_flower_720p.264", "clips/openh264_street_1080p.264"),
    "tomorrow/moviepy_chaplin_360p.mp4",
)
"""Clips that the tour names."""

SOFTWARE = ("libx264", "libsvtav1")
QUALITIES = (15, 22, 30, 38, 46)
FRAMES = 4


def rows(sources=SOURCES, encoders=SOFTWARE, *, qualities=QUALITIES, frames=FRAMES, scored=False):
    """Rows of made-up encodes, the same for the same source, encoder and quality wherever asked.

    With `scored` they have what a panel said of each clip, and the bitrate that it depends on.
    """
    made = []
    for src, encoder, cq in product(sources, encoders, qualities):
        hardness, height, fps = of_source(src)
        noise = np.random.default_rng([*src.encode(), *encoder.encode(), cq])
        loss = hardness * (cq / 40) ** 2
        kbps = 6000 * height / 1080 * math.exp(-cq / 12) * hardness
        clip = {"src": src, "encoder": encoder, "cq": cq, "clip": f"{src}_{encoder}_{cq}"}
        clip |= {"test": "1", "width": height * 16 // 9, "height": height, "fps": fps}
        if scored:
            clip |= {"mos": score(loss, kbps, height), "bitrate_kbps": round(kbps, 3)}
        for frame in range(frames):
            jitter = noise.normal(0, 0.001, 5)
            made.append(
                {
                    **clip,
                    "frame_index": frame,
                    "vmaf": float(np.clip(98 - 40 * loss + 200 * jitter[0], 0, 100)),
                    "adm2": float(1 - 0.3 * loss + jitter[0]),
                    "vif_scale0": float(0.9 - 0.5 * loss + jitter[1]),
                    "vif_scale1": float(0.95 - 0.4 * loss + jitter[2]),
                    "vif_scale2": float(0.97 - 0.3 * loss + jitter[3]),
                    "vif_scale3": float(0.98 - 0.2 * loss + jitter[4]),
                    "motion2": motion(src, frame),
                }
            )
    return made


def of_source(src):
    """How hard a source is to code, its height and its rate."""
    drawn = np.random.default_rng([*src.encode()])
    return drawn.uniform(0.85, 1.15), int(drawn.choice([720, 1080])), float(drawn.choice([25, 30]))


def motion(src, frame):
    """Of the reference alone: the same in every encode of it."""
    drawn = np.random.default_rng([*src.encode(), frame])
    return float(drawn.uniform(1, 5)) if frame else 0.0


def score(loss, kbps, height):
    """What a panel makes of a clip, on its scale of 1 to 5: half of it VMAF cannot know."""
    return round(float(np.clip(4.6 - 1.1 * loss + 0.3 * math.log2(kbps / height), 1, 5)), 4)


def clips_of(made):
    """One row for each clip, in order."""
    return list({row["clip"]: row for row in made}.values())


# -- Files ----------------------------------------------------------------------------------------


def write_rows(path, made):
    """Write rows in the format that the name of `path` says."""
    path.parent.mkdir(parents=True, exist_ok=True)
    if path.suffix == ".parquet":
        pl.DataFrame(made).write_parquet(path)
        return
    text = "".join(json.dumps(row) + "\n" for row in made).encode()
    path.write_bytes(gzip.compress(text, mtime=0) if path.suffix == ".gz" else text)


def write_table(path, made, columns):
    text = io.StringIO()
    writer = csv.DictWriter(text, columns, extrasaction="ignore")
    writer.writeheader()
    writer.writerows(made)
    path.write_text(text.getvalue(), encoding="utf-8")


X265 = ("-c:v", "libx265", "-x265-params", "log-level=none")


def write_clip(path, picture, *coding):
    """Write eight frames of one of ffmpeg's pictures, lossless unless `coding` says otherwise."""
    path.parent.mkdir(parents=True, exist_ok=True)
    source = ["-f", "lavfi", "-i", f"{picture}=size=96x64:rate=25", "-frames:v", "8"]
    coding = coding or ("-c:v", "libx264", "-preset", "ultrafast", "-qp", "0")
    command = [find_ffmpeg().path, "-v", "error", "-y", *source, "-pix_fmt", "yuv420p", *coding]
    subprocess.run([*command, path], check=True)


def write_raw(path, number):
    """Write two frames of 1920x1080, 8 bit 4:2:0: a ramp of its own that moves by a few pixels."""
    path.parent.mkdir(parents=True, exist_ok=True)
    across, down = np.meshgrid(np.arange(1920), np.arange(1080))
    with path.open("wb") as file:
        for frame in range(2):
            luma = (across * (number + 1) // 8 + down * number // 8 + frame * 9) % 256
            file.write(luma.astype(np.uint8).tobytes() + b"\x80" * (1920 * 1080 // 2))


def write_logs(folder, made):
    """Write libvmaf's log of each clip, named after its source, bitrate, size, rate and encoder."""
    folder.mkdir()
    scores = []
    for clip in clips_of(made):
        name = "{src}_{bitrate_kbps:.0f}kbps_{height}p_{fps}fps_h264".format_map(clip)
        features = [
            {key: row[key] for key in row if key == "vmaf" or key[:3] in ("adm", "vif", "mot")}
            for row in made
            if row["clip"] == clip["clip"]
        ]
        frames = [{"frameNum": i, "metrics": metrics} for i, metrics in enumerate(features)]
        log = {"version": "3.0.0", "frames": frames}
        (folder / f"{name}.json").write_text(json.dumps(log), encoding="utf-8")
        scores.append({"clip": name, "mos": clip["mos"]})
    write_table(folder.parent / "mos.csv", scores, ["clip", "mos"])


# -- All of them ----------------------------------------------------------------------------------


def supply(folder, text):
    """Put into `folder` what the commands of a document take for granted; `text` is all of it."""
    for name, picture in (("harbour", "testsrc2"), ("meadow", "mandelbrot")):
        write_clip(folder / "clips" / f"{name}.mp4", picture)
    for name in ("clip.mp4", "source.mkv"):
        write_clip(folder / name, "testsrc2")
    if "tomorrow/" in text:
        for number, name in enumerate(TOUR):
            write_clip(folder / name, "testsrc2" if number else "mandelbrot")
    write_clip(folder / "encode.mp4", "testsrc2", *X265, "-crf", "28")
    write_clip(folder / "coded.mp4", "testsrc2", "-c:v", "libx264", "-crf", "28")
    if "/data/netflix" in text:
        for number, src in enumerate(SOURCES):
            write_raw(folder / "data" / "netflix" / "ref" / f"{src}.yuv", number)

    write_rows(folder / "corpus.jsonl", rows())
    write_rows(folder / "software.jsonl", rows())
    write_rows(folder / "nvenc.jsonl", rows(encoders=["h264_nvenc"]))
    write_rows(folder / "site_b" / "corpus.jsonl.gz", rows(ELSEWHERE[:2]))
    write_rows(folder / "other.jsonl", rows(ELSEWHERE))
    write_rows(folder / "rows.jsonl", rows(ELSEWHERE[:1]))
    if "runs/second" in text or "models/fr" in text:
        corpus = load_corpus(folder / "corpus.jsonl")
        pipeline.run(corpus.path, folder / "runs" / "second")
        export_model(folder / "runs" / "second", corpus, folder / "models" / "fr")

    write_table(
        folder / "clips.csv", clips_of(rows(scored=True)), ["test", "clip", "mos", "bitrate_kbps"]
    )
    write_logs(folder / "logs", rows(scored=True, encoders=["libx264"]))
    panel = rows((*SOURCES, *ELSEWHERE, "fjord", "ridge"), ["h264", "hevc"], scored=True)
    asked = ["test", "clip", "bitrate_kbps", "mos_ci"]
    known = [{name: row.get(name, 0.2) for name in asked} for row in clips_of(panel)]
    write_rows(folder / "clips.jsonl", known)
    for row in panel:
        del row["bitrate_kbps"]
    write_rows(folder / "frames.parquet", panel)
