"""Fuzzing: what loads files of strangers, tried with files that nobody would write.

`python -m fuzz` (or `make fuzz`) changes the structure of sound files; `python -m fuzz.coverage` lets
libFuzzer look for inputs that reach new lines. docs/testing.md describes both.
"""
