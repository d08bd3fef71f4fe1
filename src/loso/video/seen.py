"""What decoding a clip shows, frame by frame, as ffmpeg's filter showinfo tells it."""

from __future__ import annotations

import re
from array import array
from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction
from typing import Final

__all__ = ["Seen", "Watch"]

# Whole lines, from their start: a title inside the clip may hold whatever it likes, but ffmpeg
# indents it.
_SHOWN: Final = re.compile(r"\[Parsed_showinfo_\d+ @ \w+\] \[info\] ")
_FRAME: Final = re.compile(
    r"n: *(\d{1,18}) pts: *(-?\d{1,18}|NOPTS) .* fmt:(\w+) .* s:(\d{1,6}x\d{1,6}) "
)
_CONFIG: Final = re.compile(
    r"config in time_base: (\d{1,10}/\d{1,10}), frame_rate: (\d{1,10})/(\d{1,10})"
)
_TURNED: Final = re.compile(r"\[info\] +(Display Matrix|displaymatrix): rotation of (?!-?0\.00)")

_MOST_SHAPES: Final = 8


@dataclass(frozen=True, kw_only=True)
class Seen:
    """What decoding a clip showed."""

    frames: int
    whole: bool
    """Whether each frame stood on a line of its own; a number is missing where one did not."""
    shapes: tuple[str, ...]
    """Size and pixel format of the frames, such as `64x48 yuv420p`, sorted; a few where many."""
    restarts: int
    """How often the filters were built anew: frames then count from 0 again."""
    full_range: bool
    rotated: bool
    ticks: Sequence[int]
    """Timestamp of each frame that has one, in units of `tick` seconds."""
    tick: Fraction
    nominal_fps: Fraction
    """What ffmpeg makes of the container's words, 0 where it makes nothing."""

    @property
    def has_constant_rate(self) -> bool:
        """Whether each frame stands within half a frame of where the nominal rate puts it."""
        frames_a_tick = self.nominal_fps * self.tick
        step, per = frames_a_tick.numerator, frames_a_tick.denominator
        return self.nominal_fps > 0 and all(
            2 * abs((at - self.ticks[0]) * step - index * per) <= per
            for index, at in enumerate(self.ticks)
        )

    @property
    def average_fps(self) -> Fraction:
        """Frames a second, 0 where the clip's timestamps give none."""
        if self.has_constant_rate:
            return self.nominal_fps
        span = (self.ticks[-1] - self.ticks[0]) * self.tick if self.ticks else Fraction(0)
        return ((len(self.ticks) - 1) / span).limit_denominator(1001) if span > 0 else Fraction(0)


class Watch:
    """Listens to ffmpeg while showinfo speaks, eight bytes a frame."""

    def __init__(self) -> None:
        self.forget()

    def forget(self) -> None:
        """Start anew, as ffmpeg does."""
        self._frames = self._next = 0
        self._whole = True
        self._shapes: set[str] = set()
        self._configs = 0
        self._full_range = self._rotated = False
        self._ticks = array("q")
        self._timing = ("0/1", "0", "1")

    def __call__(self, line: str) -> bool:
        """Return whether showinfo said this line, and take note of it."""
        shown = _SHOWN.match(line)
        if shown is None:
            self._rotated |= _TURNED.match(line) is not None
            return False
        at = shown.end()
        if frame := _FRAME.match(line, at):
            number, tick, pixel_format, size = frame.groups()
            self._frames += 1
            self._whole &= int(number) == self._next
            self._next = int(number) + 1
            if len(self._shapes) < _MOST_SHAPES:
                self._shapes.add(f"{size} {pixel_format}")
            if tick != "NOPTS":
                self._ticks.append(int(tick))
        elif config := _CONFIG.match(line, at):
            self._configs += 1
            self._next = 0
            if self._configs == 1:
                self._timing = config[1], config[2], config[3]
        elif line.startswith("color_range:pc", at):
            self._full_range = True
        return True

    def seen(self) -> Seen:
        """Return what was shown so far."""
        tick, rate, per = self._timing
        ticks, per_second = map(int, tick.split("/"))
        return Seen(
            frames=self._frames,
            whole=self._whole,
            shapes=tuple(sorted(self._shapes)),
            restarts=max(self._configs - 1, 0),
            full_range=self._full_range or any(" yuvj" in shape for shape in self._shapes),
            rotated=self._rotated,
            ticks=self._ticks,
            tick=Fraction(ticks, per_second) if per_second else Fraction(0),
            nominal_fps=Fraction(int(rate), int(per)) if int(per) else Fraction(0),
        )
