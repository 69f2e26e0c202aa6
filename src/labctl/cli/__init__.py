"""The command line: one file per group of verbs; each parses, calls one function, and prints."""
