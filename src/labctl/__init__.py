"""labctl: provision and run home and lab GPU racks from one declarative inventory."""

__version__ = "0.1.0"
