"""Makes what these tests share importable from the folders below, too: pytest adds this one to the path."""
