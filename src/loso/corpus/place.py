"""Where a build looks at clips, tries encoders and measures cells: this machine, or a cluster."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Collection, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from tempfile import TemporaryDirectory, mkdtemp
from typing import TypeVar

from loso.corpus.cells import Method, measure_cell
from loso.corpus.choices import Choice
from loso.corpus.parts import Parts
from loso.corpus.plan import Cell
from loso.executors import ended
from loso.video.clips import Clip, ClipSettings, open_clip
from loso.video.ffmpeg import Ffmpeg, FfmpegSession
from loso.video.measure import Encode, probe_libvmaf
from loso.video.scan import Scan, scan_clip
from loso.video.trial import TRIAL_TIMEOUT_S, try_encoder

__all__ = ["Kind", "Looked", "Place", "here", "kind_of"]

_T = TypeVar("_T")

Kind = tuple[str, str, str]
"""Encoder, preset and rate control: command lines of one kind differ by numbers alone."""


def kind_of(way: Choice | Encode) -> Kind:
    """Return of which kind a way of coding is."""
    return way.encoder.name, way.preset, way.rate.control


@dataclass(frozen=True, kw_only=True)
class Looked:
    """What a look at everything showed, before anything is measured."""

    libvmaf: str
    hashes: Mapping[Kind, str]
    """Of what each kind of command line makes of three trial frames."""
    clips: Sequence[Clip]


class Place(ABC):
    """Where the work of a build is done."""

    @abstractmethod
    def look(self, paths: Sequence[Path], settings: ClipSettings) -> Looked:
        """Return what libvmaf, encoders and clips are; what refuses, raises."""

    @abstractmethod
    def measure(self, mark: str, cell: Cell) -> Future[None]:
        """Return the future of a cell that is measured and kept."""

    @abstractmethod
    def scan(self, clip: Clip) -> Future[Scan]:
        """Return the future of a look at every frame of a clip."""

    @abstractmethod
    def follow(self, futures: Collection[Future[_T]]) -> Iterator[Future[_T] | None]:
        """Yield each future as it ends, and None now and then while none does."""

    @property
    @abstractmethod
    def patience_s(self) -> float:
        """How long a part that was just made may stay hidden from this machine."""

    @property
    @abstractmethod
    def remark(self) -> str:
        """What a user should know of the workers just now, or nothing."""

    @property
    @abstractmethod
    def size(self) -> tuple[int, int]:
        """The most workers that took cells, 0 without a cluster, and the most cells at a time."""


@contextmanager
def here(
    ffmpeg: Ffmpeg, method: Method, store: Parts, *, trials: Mapping[Kind, Encode], jobs: int
) -> Iterator[Place]:
    """Yield this machine, working on `jobs` cells at a time; an error ends what is at work."""
    with FfmpegSession(ffmpeg) as session, session.pool(jobs) as pool:
        yield _Here(session, pool, method, store, trials, jobs)


@dataclass(frozen=True)
class _Here(Place):
    """Threads of this process, each of which waits for an ffmpeg."""

    session: FfmpegSession
    pool: ThreadPoolExecutor
    method: Method
    store: Parts
    trials: Mapping[Kind, Encode]
    jobs: int
    hashes: dict[Kind, str] = field(default_factory=dict)

    def look(self, paths: Sequence[Path], settings: ClipSettings) -> Looked:
        """Try the model, then every kind of command line, then open the clips."""
        # Threads of its own: where one refuses, the others end before their folder goes.
        with TemporaryDirectory(prefix="loso-") as name, self.session.pool(self.jobs) as pool:
            folder = Path(name)

            def attempt(encode: Encode) -> str:
                own = Path(mkdtemp(dir=folder))
                return try_encoder(encode, self.session, folder=own, timeout_s=TRIAL_TIMEOUT_S)

            def look(path: Path) -> Clip:
                return open_clip(path, settings, self.session, timeout_s=self.method.timeout_s)

            libvmaf, _ = probe_libvmaf(
                self.method.model, self.session, folder=folder, timeout_s=TRIAL_TIMEOUT_S
            )
            hashes = pool.map(attempt, self.trials.values())
            self.hashes.update(zip(self.trials, hashes, strict=True))
            return Looked(
                libvmaf=libvmaf,
                hashes=self.hashes,
                clips=list(pool.map(look, paths)),
            )

    def measure(self, mark: str, cell: Cell) -> Future[None]:
        """Return the future of a cell that a thread measures and keeps."""
        store = replace(self.store, trial=self.hashes[kind_of(cell.encode)])
        return self.pool.submit(measure_cell, mark, cell, self.method, self.session, store)

    def scan(self, clip: Clip) -> Future[Scan]:
        """Return the future of a look that a thread takes."""

        def work() -> Scan:
            with self.store.work_folder() as folder:
                return scan_clip(clip, self.session, folder=folder, timeout_s=self.method.timeout_s)

        return self.pool.submit(work)

    def follow(self, futures: Collection[Future[_T]]) -> Iterator[Future[_T] | None]:
        """Yield each future as it ends, and None now and then while none does."""
        return ended(futures)

    @property
    def patience_s(self) -> float:
        """No time: this machine has made it."""
        return 0.0

    @property
    def remark(self) -> str:
        """Nothing: there are no workers."""
        return ""

    @property
    def size(self) -> tuple[int, int]:
        """No workers, and the cells at a time."""
        return 0, self.jobs
