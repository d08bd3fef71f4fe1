"""Corpora: build one from clips, import logs, read and check one, merge shards."""
