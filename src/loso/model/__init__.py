"""A model folder: its files and records, the graphs in it, how it is made and opened."""
