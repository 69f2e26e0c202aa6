"""Fit planning with its effects: headers are read, measurements kept, and what does not fit is refused."""
