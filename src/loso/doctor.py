"""What works on this machine, tried and not supposed, and which jobs can be done with it."""

from __future__ import annotations

import platform
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from importlib.metadata import version
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np

from loso.corpus.plan import BuildSettings
from loso.engine.network import first_network
from loso.engine.trial import EngineTrial, try_engines
from loso.errors import LosoError, MissingTool
from loso.extras import Extra, find_extras
from loso.machine import Cores, Memory, cores, memory
from loso.progress import Progress, silent
from loso.recipe import Recipe
from loso.schema import CANONICAL_6, CODEC_BLOCK_WIDTH, ENCODER_VOCAB
from loso.video.ffmpeg import FfmpegSession, find_ffmpeg
from loso.video.gpus import NvidiaGpu, RenderNode, nvidia_gpus, render_nodes
from loso.video.measure import VmafModel, probe_libvmaf
from loso.video.trial import TRIAL_TIMEOUT_S, EncoderTrial, try_every_encoder

__all__ = ["Checkup", "FfmpegTrial", "Gpus", "Job", "examine"]


@dataclass(frozen=True, kw_only=True)
class FfmpegTrial:
    """The ffmpeg that builds and predictions use; `problem` says why it does not serve, or none."""

    path: str | None = None
    origin: str | None = None
    version: str | None = None
    has_loopback: bool = False
    """It encodes, decodes and scores in one process; without, cells take two."""
    libvmaf: str | None = None
    """Its version, after it scored a frame with `vmaf_model`."""
    vmaf_model: str = VmafModel().identity()
    problem: str = ""
    fix: str = ""


@dataclass(frozen=True, kw_only=True)
class Gpus:
    """Graphics hardware; `nvidia_problem` says why no GPU of NVIDIA is listed, or is empty."""

    nvidia: tuple[NvidiaGpu, ...] = ()
    nvidia_problem: str = ""
    render_nodes: tuple[RenderNode, ...] = ()


@dataclass(frozen=True)
class Job:
    """Something a user wants to do; `problem` says why it cannot be done here, or is empty."""

    job: str
    problem: str = ""
    fix: str = ""


@dataclass(frozen=True, kw_only=True)
class Checkup:
    """All that was found out about a machine."""

    loso: str
    python: str
    platform: str
    cores: Cores
    memory: Memory
    engine: EngineTrial
    ffmpeg: FfmpegTrial
    encoders: tuple[EncoderTrial, ...]
    """None where there is no ffmpeg to try them with."""
    gpus: Gpus
    graphs_problem: str
    """Why ONNX graphs do not run, or empty."""
    extras: tuple[Extra, ...]

    @property
    def jobs(self) -> tuple[Job, ...]:
        """What a user may want to do, each with what stands in its way."""
        video = Job("predict from videos", self.ffmpeg.problem, self.ffmpeg.fix)
        rows = Job("predict from rows")
        if self.graphs_problem:
            fix = "pip install --force-reinstall onnx onnxruntime"
            rows = Job(rows.job, self.graphs_problem, fix)
            video = Job(video.job, video.problem or rows.problem, video.fix or fix)
        trains = self.engine.trains
        train = Job("train", *(() if trains else (self.engine.problem, self.engine.fix)))
        return self._build(), train, rows, video

    def _build(self) -> Job:
        job = "build a corpus"
        if self.ffmpeg.problem:
            return Job(job, self.ffmpeg.problem, self.ffmpeg.fix)
        working = [trial.encoder for trial in self.encoders if trial.state == "works"]
        if any(name in ENCODER_VOCAB and name.startswith("lib") for name in working):
            return Job(job)
        only = f", only {' '.join(working)}" if working else ""
        return Job(
            job,
            f"no software encoder of the vocabulary works{only}",
            "give another --ffmpeg, or pip install imageio-ffmpeg",
        )

    @property
    def ready(self) -> bool:
        """Whether every job can be done here."""
        return not any(job.problem for job in self.jobs)

    @property
    def answer(self) -> str:
        """In a sentence or two, what can be done here, what cannot, and what to do about that."""
        jobs = self.jobs
        able = [job.job for job in jobs if not job.problem]
        reasons = dict.fromkeys((job.problem, job.fix) for job in jobs if job.problem)
        sentences = [f"This machine can {_listed(able, 'and')}."] if able else []
        for problem, fix in reasons:
            unable = [job.job for job in jobs if job.problem == problem]
            subject = "It" if sentences else "This machine"
            way_out = f"; {fix}" if fix else ""
            sentences.append(f"{subject} cannot {_listed(unable, 'or')}: {problem}{way_out}.")
        return " ".join(sentences)

    @property
    def notes(self) -> tuple[str, ...]:
        """What else a user should know before the first run."""
        if self.engine.problem and self.engine.instead:
            return (f"train with {self.engine.instead}: {self.engine.problem}",)
        return ()

    def to_dict(self) -> dict[str, Any]:
        """Return everything as one JSON object."""
        encoders = [
            {**asdict(trial), "in_vocabulary": trial.encoder in ENCODER_VOCAB}
            for trial in self.encoders
        ]
        jobs = [{**asdict(job), "can": not job.problem} for job in self.jobs]
        return {
            **asdict(self),
            "encoders": encoders,
            "jobs": jobs,
            "ready": self.ready,
            "answer": self.answer,
            "notes": list(self.notes),
        }


def _listed(words: Sequence[str], conjunction: str) -> str:
    *most, last = words
    return f"{', '.join(most)} {conjunction} {last}" if most else last


def examine(
    ffmpeg: str = "",
    *,
    qsv_device: str = BuildSettings.qsv_device,
    vaapi_device: str = BuildSettings.vaapi_device,
    progress: Progress = silent,
) -> Checkup:
    """Return what works here: every encoder codes, libvmaf scores, an engine trains, a graph runs.

    Nothing is refused: what does not work is said in its place.
    """
    devices = {"qsv": qsv_device, "vaapi": vaapi_device}
    program, encoders = _try_video(ffmpeg, devices, progress)
    return Checkup(
        loso=version("loso"),
        python=platform.python_version(),
        platform=platform.platform(),
        cores=cores(),
        memory=memory(),
        engine=try_engines(),
        ffmpeg=program,
        encoders=encoders,
        gpus=_find_gpus(),
        graphs_problem=_try_graph(),
        extras=find_extras(),
    )


def _try_video(
    ffmpeg: str, devices: dict[str, str], progress: Progress
) -> tuple[FfmpegTrial, tuple[EncoderTrial, ...]]:
    try:
        program = find_ffmpeg(ffmpeg)
    except MissingTool as refusal:
        problem = str(refusal).removesuffix(f"; {refusal.fix}")
        return FfmpegTrial(problem=problem, fix=refusal.fix), ()
    libvmaf, problem = None, ""
    with TemporaryDirectory(prefix="loso-") as name, FfmpegSession(program) as session:
        folder = Path(name)
        try:
            libvmaf, _ = probe_libvmaf(
                VmafModel(), session, folder=folder, timeout_s=TRIAL_TIMEOUT_S
            )
        except LosoError as refusal:
            problem = refusal.problem
        encoders = try_every_encoder(session, devices=devices, folder=folder, progress=progress)
    found = FfmpegTrial(
        path=program.path,
        origin=program.origin,
        version=program.version,
        has_loopback=program.has_loopback,
        libvmaf=libvmaf,
        problem=problem,
        fix="give another --ffmpeg, or pip install imageio-ffmpeg" if problem else "",
    )
    return found, encoders


def _find_gpus() -> Gpus:
    try:
        return Gpus(nvidia=nvidia_gpus(), render_nodes=render_nodes())
    except MissingTool as failure:
        return Gpus(nvidia_problem=str(failure), render_nodes=render_nodes())


def _try_graph() -> str:
    """Return why a small graph does not run, or nothing."""
    features, block = np.zeros((1, len(CANONICAL_6))), np.zeros((1, CODEC_BLOCK_WIDTH))
    network = first_network(features.shape[1] + block.shape[1], Recipe(hidden=4), seed=0, fold=0)
    try:
        from loso.model.files import MEMBER_OUTPUTS
        from loso.model.onnx_build import member_graph
        from loso.model.onnx_graph import Session, check_graph

        content = member_graph(network)
        graph = check_graph(content, where="a graph made to try", outputs=MEMBER_OUTPUTS)
        Session(graph, threads=1).run(features, block)
    except (ImportError, OSError, LosoError) as failure:
        reason = str(failure).partition("\n")[0]
        return f"ONNX graphs do not run ({reason})"
    return ""
