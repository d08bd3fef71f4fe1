"""Where probes are made and kept: clips that were opened, encoders that were tried, a part store.

A probe is a cell of a corpus: what a build has measured is found here, and the other way round.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import Future
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from loso.corpus.choices import Choice
from loso.corpus.parts import Parts
from loso.corpus.place import Looked, Place
from loso.corpus.plan import BuildSettings, Cell, cell_of
from loso.corpus.prepare import mark_of, tools_of, warnings_of
from loso.corpus.remote import place_of
from loso.errors import CannotRun, LostCluster
from loso.executors import Cluster
from loso.files import read_hashed, write_hashed
from loso.progress import Progress, silent
from loso.recommend.segments import Sampling, Segment, choose_segments, cut_out, seek_to
from loso.video.clips import Clip
from loso.video.encoders import Rate
from loso.video.ffmpeg import Ffmpeg
from loso.video.measure import Measurement
from loso.video.scan import Scan

__all__ = ["Desk", "Probe", "at_desk"]


@dataclass(frozen=True, kw_only=True)
class Probe:
    """One encode that was measured; `stored` where it was there before this call."""

    cell: Cell
    mark: str
    measured: Measurement
    stored: bool


@dataclass(frozen=True, kw_only=True)
class Desk:
    """What every probe of a call shares."""

    settings: BuildSettings
    ffmpeg: Ffmpeg
    place: Place
    store: Parts
    looked: Looked
    tools: Mapping[str, str]
    two_step: bool
    progress: Progress

    @property
    def clips(self) -> Sequence[Clip]:
        """The clips that were opened, in the order in which they were given."""
        return self.looked.clips

    def cell(self, clip: Clip, choice: Choice, rate: Rate, height: int | None = None) -> Cell:
        """Return what codes `clip` as `choice` does, at another rate and at that height."""
        return cell_of(clip, replace(choice, rate=rate), height or clip.height, self.settings)

    def mark(self, cell: Cell) -> str:
        """Return the name of a cell's part."""
        return mark_of(cell, self.settings, self.tools, self.looked, two_step=self.two_step)

    def find(self, cells: Sequence[Cell]) -> tuple[Probe, ...] | None:
        """Return the probes of all cells where every one is stored."""
        found = []
        for cell in cells:
            mark = self.mark(cell)
            measured = self.store.load(mark)
            if measured is None:
                return None
            found.append(Probe(cell=cell, mark=mark, measured=measured, stored=True))
        return tuple(found)

    def kept(self, cell: Cell, mark: str, *, stored: bool) -> Probe:
        """Return the probe of a cell that is known to be stored; CannotRun where it vanished."""
        measured = self.store.load(mark, patience_s=0.0 if stored else self.place.patience_s)
        if measured is None:
            raise CannotRun("a finished probe vanished", where=str(self.store.folder), found=mark)
        return Probe(cell=cell, mark=mark, measured=measured, stored=stored)

    def cut(
        self, clips: Sequence[Clip], sampling: Sampling
    ) -> list[tuple[Segment, ...] | CannotRun]:
        """Return for each clip the segments that stand for it; none where all of it is coded.

        In their place, what stood in the way of looking for them.
        """
        counts = [sampling.counts(clip) for clip in clips]
        long = [clip for clip, (number, _) in zip(clips, counts, strict=True) if number]
        scans = dict(zip(long, self._scan(long, "looking for cuts and motion"), strict=True))
        frames: dict[Segment, tuple[str, ...]] = {}
        cuts: list[tuple[Segment, ...] | CannotRun] = []
        for clip, (number, length) in zip(clips, counts, strict=True):
            scan = scans.get(clip)
            if not isinstance(scan, Scan):
                cuts.append(() if scan is None else scan)
                continue
            own = cut_out(clip, choose_segments(scan, number, length))
            frames |= {each: scan.frames[each.first :][: each.clip.frames] for each in own}
            cuts.append(own)
        reached = self._reached(frames)
        return [
            own if isinstance(own, CannotRun) else tuple(reached.get(each, each) for each in own)
            for own in cuts
        ]

    def _reached(self, frames: Mapping[Segment, tuple[str, ...]]) -> dict[Segment, Segment]:
        """Return the segments that a seek reaches too: it was seen to give the same `frames`."""
        sought = {segment: there for segment in frames if (there := seek_to(segment)) is not None}
        seen = self._scan([there.clip for there in sought.values()], "trying to seek")
        return {
            segment: there
            for (segment, there), scan in zip(sought.items(), seen, strict=True)
            if isinstance(scan, Scan) and scan.frames == frames[segment]
        }

    def _scan(self, clips: Sequence[Clip], note: str) -> list[Scan | CannotRun]:
        """Return the scan of each clip, or what stood in its way; what is not stored is made."""
        files = [self.store.folder / f"{_scan_mark(clip, self.ffmpeg)}.scan" for clip in clips]
        scans: list[Scan | CannotRun | None] = [
            _stored_scan(file, clip) for file, clip in zip(files, clips, strict=True)
        ]
        futures = {self.place.scan(clip): at for at, clip in enumerate(clips) if scans[at] is None}
        done = 0
        for ended in self.place.follow(list(futures)):
            if ended is not None:
                done += 1
                at = futures[ended]
                scans[at] = _ended_scan(ended, clips[at], files[at])
            self.progress(done, len(futures), note)
        return [scan for scan in scans if scan is not None]


def _scan_mark(clip: Clip, ffmpeg: Ffmpeg) -> str:
    """Return the name of a clip's scan: it changes with whatever can change what is seen."""
    opening = clip.input[: clip.input.index("-i")]  # without the file's name
    content = (clip.sha256, opening, clip.filters, clip.frames, clip.height, ffmpeg.version)
    return hashlib.sha256(json.dumps(content).encode()).hexdigest()


def _ended_scan(ended: Future[Scan], clip: Clip, file: Path) -> Scan | CannotRun:
    """Return a scan that was made, and kept in `file`, or what stood in its way."""
    try:
        scan = ended.result()
    except LostCluster:
        raise
    except CannotRun as failure:
        failure.where = failure.where or clip.src
        return failure
    told = {"activity": scan.activity.tolist(), "is_cut": scan.is_cut.tolist()}
    write_hashed(file, json.dumps(told | {"frames": scan.frames}))
    return scan


def _stored_scan(file: Path, clip: Clip) -> Scan | None:
    """Return a scan that is stored, None where there is none of so many frames."""
    try:
        content = read_hashed(file)
        activity = np.array(content["activity"], dtype=np.float64)
        is_cut = np.array(content["is_cut"], dtype=np.bool_)
        frames = tuple(map(str, content["frames"]))
    except (ValueError, LookupError, TypeError):  # none, or JSON of another shape
        return None
    whole = activity.shape == is_cut.shape == (clip.frames,) == (len(frames),)
    return Scan(activity, is_cut, frames) if whole else None


@contextmanager
def at_desk(
    clips: Sequence[Path],
    settings: BuildSettings,
    ffmpeg: Ffmpeg,
    *,
    parts: Path,
    jobs: int = 1,
    cluster: Cluster | None = None,
    progress: Progress = silent,
    say: Callable[[str], None] = lambda _: None,
) -> Iterator[Desk]:
    """Yield a desk once the model, every encoder and every clip were tried; an error ends its work.

    `settings` has one choice for each way of coding, at any rate. Bad input and missing tools are
    refused before anything is coded, Busy where another process is at work in `parts`.
    """
    store = Parts(parts)
    two_step = not ffmpeg.has_loopback
    somewhere = place_of(
        *(cluster, ffmpeg, settings, store),
        clips=clips,
        two_step=two_step,
        jobs=jobs,
        progress=progress,
        say=say,
    )
    with store.hold(), somewhere as place:
        looked = place.look(clips, settings.clips)
        for warning in warnings_of(looked.clips, settings):
            say(f"warning: {warning}")
        yield Desk(
            settings=settings,
            ffmpeg=ffmpeg,
            place=place,
            store=store,
            looked=looked,
            tools=tools_of(ffmpeg, looked, settings),
            two_step=two_step,
            progress=progress,
        )
