"""torchgguf beside its peers, on the same files and threads, in one run: `make bench`.

`figures.py` says what is compared, `workers.py` how one process measures it, `runner.py` in which order;
`report.py` and `plot.py` tell the outcome. A new figure is one entry in the table of `figures.py`.
"""
