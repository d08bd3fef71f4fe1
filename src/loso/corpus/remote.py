"""A build's cells on a cluster: planned from what its workers say, each sent to one that can.

One corpus is measured by one set of tools: by the ffmpeg and libvmaf that the client has, and for
each kind of command line by encoders that make the same of three frames. Workers that differ are
left out, or get no cells of that kind, and it is said why.
"""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Future
from contextlib import AbstractContextManager, contextmanager, suppress
from functools import cached_property, partial
from pathlib import Path
from tempfile import TemporaryDirectory, mkstemp
from typing import TypeVar

from loso.corpus.cells import Method
from loso.corpus.parts import Parts
from loso.corpus.place import Kind, Looked, Place, here, kind_of
from loso.corpus.plan import BuildSettings, Cell
from loso.corpus.prepare import refuse_names, trials_of
from loso.corpus.worker import (
    Errand,
    Survey,
    look_at_clip,
    measure_for,
    resource_of,
    scan_for,
    survey,
)
from loso.errors import BadSettings, LosoError, MissingTool
from loso.executors import Cluster, Crew, ended
from loso.progress import Progress
from loso.video.clips import Clip, ClipSettings, identity_of
from loso.video.ffmpeg import Ffmpeg, FfmpegSession
from loso.video.measure import Encode, probe_libvmaf
from loso.video.scan import Scan
from loso.video.trial import TRIAL_TIMEOUT_S

__all__ = ["place_of"]

_T = TypeVar("_T")


def place_of(
    cluster: Cluster | None,
    ffmpeg: Ffmpeg,
    settings: BuildSettings,
    store: Parts,
    *,
    clips: Sequence[Path],
    two_step: bool,
    jobs: int,
    progress: Progress,
    say: Callable[[str], None],
) -> AbstractContextManager[Place]:
    """Return where the work is done: by a cluster's workers, or here, on `jobs` cells at a time.

    BadSettings where that is below 1, BadClip for names that cannot be those of sources.
    """
    if jobs < 1:
        raise BadSettings("--jobs must be at least 1", found=f"{jobs}")
    refuse_names(clips)
    method = Method(model=settings.model, timeout_s=settings.timeout_s, two_step=two_step)
    trials = trials_of(settings)
    if cluster is None:
        return here(ffmpeg, method, store, trials=trials, jobs=jobs)
    return _on_cluster(
        *(cluster, ffmpeg, method, store), clips=clips, trials=trials, progress=progress, say=say
    )


@contextmanager
def _on_cluster(
    cluster: Cluster,
    ffmpeg: Ffmpeg,
    method: Method,
    store: Parts,
    *,
    clips: Sequence[Path],
    trials: Mapping[Kind, Encode],
    progress: Progress,
    say: Callable[[str], None],
) -> Iterator[Place]:
    """Yield the workers of a cluster as the place of a build; an error cancels what is at work.

    They are asked to see `clips`, to have the client's tools, and to try `trials`. A file in the
    folder of parts, there for as long as the build, shows whether they see that one too.
    """
    libvmaf, scores = _probe(ffmpeg, method)
    with _sign_in(store.folder) as sign:
        errand = Errand(
            parts=store.folder.absolute(),
            sign=sign.name,
            ffmpeg=ffmpeg.path,
            version=ffmpeg.version,
            configuration=ffmpeg.configuration,
            libvmaf=libvmaf,
            scores=scores,
            method=method,
        )
        by_skill = {_skill(kind): encode for kind, encode in trials.items()}
        paths = tuple(path.absolute() for path in clips)
        # Where the client's ffmpeg lacks an encoder, that of every worker does.
        has_all = all(encode.encoder.name in ffmpeg.encoders for encode in trials.values())
        lacks = partial(_lacking, trials if has_all else ())
        with cluster.crew(survey, errand, paths, by_skill, lacks=lacks) as crew:
            yield _OnCluster(crew, errand, trials, progress, say)


@contextmanager
def _sign_in(folder: Path) -> Iterator[Path]:
    """Yield a new file, gone afterwards; where its folder went first, nothing is said of that."""
    number, name = mkstemp(dir=folder, prefix=".", suffix=".tmp")
    os.close(number)
    sign = Path(name)
    try:
        yield sign
    finally:
        with suppress(OSError):
            sign.unlink(missing_ok=True)


def _probe(ffmpeg: Ffmpeg, method: Method) -> tuple[str, str]:
    with FfmpegSession(ffmpeg) as session, TemporaryDirectory(prefix="loso-") as name:
        return probe_libvmaf(method.model, session, folder=Path(name), timeout_s=TRIAL_TIMEOUT_S)


def _size_of(path: Path) -> int | None:
    identity = identity_of(path)
    return identity[2] if identity else None


def _skill(kind: Kind) -> str:
    return " ".join(kind)


def _lacking(kinds: Collection[Kind], surveys: Collection[Survey]) -> dict[str, str]:
    """Return the encoders that none of these workers can use, each with the reason.

    Nothing where arguments are wrong: nobody can then, and the build is refused for it.
    """
    lacking: dict[str, str] = {}
    for kind in kinds:
        skill = _skill(kind)
        refusals = [one.refusals[skill] for one in surveys if skill in one.refusals]
        if len(refusals) == len(surveys):
            if any(isinstance(refusal, BadSettings) for refusal in refusals):
                return {}
            lacking[kind[0]] = _reasons(refusals)
    return lacking


def _reasons(refusals: Iterable[LosoError]) -> str:
    return "; ".join(dict.fromkeys(refusal.problem for refusal in refusals))


class _OnCluster(Place):
    """Workers that see the same clips and the same folder of finished cells."""

    def __init__(
        self,
        crew: Crew,
        errand: Errand,
        trials: Mapping[Kind, Encode],
        progress: Progress,
        say: Callable[[str], None],
    ) -> None:
        self._crew, self._errand, self._trials = crew, errand, trials
        self._progress, self._say = progress, say
        self._hashes: dict[Kind, str] = {}

    def look(self, paths: Sequence[Path], settings: ClipSettings) -> Looked:
        """Hear what the workers say of themselves, then let them open the clips."""
        mustered = self._crew.muster()
        for answered in self.follow([mustered]):
            if answered is None:
                self._progress(0, 1, self.remark)
        surveys: list[Survey] = list(mustered.result().values())
        self._hashes = {kind: self._agreed(kind, surveys) for kind in self._trials}
        self._tell(surveys)
        wanted = {_skill(kind): value for kind, value in self._hashes.items()}

        late: set[tuple[str, str]] = set()

        def judge(report: Survey) -> frozenset[str]:
            if not any(report is one for one in surveys):
                for encoder, reason in sorted(self._lacks(report) - late):
                    self._crew.tell(f"a late worker gets no {encoder} cells: {reason}")
                late.update(self._lacks(report))
            same = {skill for skill, value in report.hashes.items() if value == wanted[skill]}
            return frozenset({"", *same})

        self._crew.admit(judge)
        futures = [
            self._crew.submit(look_at_clip, self._errand, path.absolute(), settings, _size_of(path))
            for path in paths
        ]
        done = 0
        for future in self.follow(futures):
            if future is not None:
                future.result()
                done += 1
            self._progress(done, len(futures), f"{done} of {len(futures)} clips, {self.remark}")
        clips: list[Clip] = [future.result() for future in futures]
        return Looked(libvmaf=self._errand.libvmaf, hashes=self._hashes, clips=clips)

    def _agreed(self, kind: Kind, surveys: Sequence[Survey]) -> str:
        """Return what a kind's trial is to become; refuse where no worker can do it.

        Where workers differ it is what finished cells were coded by, so that they stay of use; else
        what most make.
        """
        skill = _skill(kind)
        hashes = Counter(s.hashes[skill] for s in surveys if skill in s.hashes)
        if hashes:
            kept = self._finished if len(hashes) > 1 else Counter[str]()
            return min(hashes, key=lambda value: (-kept[value], -hashes[value], value))
        refusals = [s.refusals[skill] for s in surveys]
        for refusal in refusals:
            if isinstance(refusal, BadSettings):
                raise refusal
        raise MissingTool(
            "no worker can encode this",
            where=kind[0],
            found=_reasons(refusals),
            fix="leave this encoder out, or start a worker that can",
        )

    @cached_property
    def _finished(self) -> Counter[str]:
        return Parts(self._errand.parts).trials()

    def _tell(self, surveys: Sequence[Survey]) -> None:
        """Say which encoders some workers get no cells of, and why."""
        found: Counter[tuple[str, str]] = Counter()
        for one in surveys:
            found.update(self._lacks(one))
        for (encoder, reason), count in sorted(found.items()):
            whom = f"{count} of {len(surveys)} workers get no {encoder} cells"
            self._say(f"warning: {whom}: {reason}")

    def _lacks(self, one: Survey) -> set[tuple[str, str]]:
        """Return the encoders that a worker gets no cells of, each with the reason."""
        lacks: set[tuple[str, str]] = set()
        for kind, agreed in self._hashes.items():
            skill = _skill(kind)
            if skill in one.refusals:
                lacks.add((kind[0], one.refusals[skill].problem))
            elif one.hashes[skill] != agreed:
                lacks.add((kind[0], "it codes otherwise there than for this corpus"))
        return lacks

    def measure(self, mark: str, cell: Cell) -> Future[None]:
        """Return the future of a cell that a worker measures and keeps."""
        kind = kind_of(cell.encode)
        resource = resource_of(cell.encode.encoder)
        executor = self._crew.get_executor(
            skill=_skill(kind), units={resource: 1} if resource else {}
        )
        return executor.submit(
            measure_for, self._errand, self._trials[kind], self._hashes[kind], mark, cell
        )

    def scan(self, clip: Clip) -> Future[Scan]:
        """Return the future of a look that a worker takes."""
        return self._crew.submit(scan_for, self._errand, clip)

    def follow(self, futures: Collection[Future[_T]]) -> Iterator[Future[_T] | None]:
        """Yield each future as it ends, and None now and then; say what there is to say."""
        for future in ended(futures):
            for line in self._crew.news():
                self._say(f"warning: {line}")
            yield future

    @property
    def patience_s(self) -> float:
        """A minute and a half: NFS caches folders for a minute."""
        return 90.0

    @property
    def remark(self) -> str:
        """How many workers there are, or what is waited for."""
        return self._crew.remark

    @property
    def size(self) -> tuple[int, int]:
        """The most workers that took cells, and the most cells at a time."""
        return self._crew.most_workers, self._crew.most_tasks
