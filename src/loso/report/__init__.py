"""Records of a run, drawn as one HTML file that opens offline."""
