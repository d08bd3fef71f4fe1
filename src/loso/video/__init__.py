"""Clips in, measurements out: the one door to ffmpeg."""
