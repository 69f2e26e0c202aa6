"""Health: what is judged, on which evidence, against which expectation; pure, without I/O or a clock."""
