"""Small clips that tests make with the ffmpeg that loso brings."""

import subprocess

from loso.video.ffmpeg import find_ffmpeg


def write_picture(path, picture, frames):
    """Write so many frames of one of ffmpeg's pictures, lossless, and return the path."""
    source = ["-f", "lavfi", "-i", picture, "-frames:v", f"{frames}"]
    coding = ["-vf", "format=yuv420p", "-c:v", "ffv1", f"{path}"]
    subprocess.run([find_ffmpeg().path, "-loglevel", "error", *source, *coding], check=True)
    return path
