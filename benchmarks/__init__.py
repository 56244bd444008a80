"""torchgguf beside its peers, on the same files and threads, in one run: `make bench`.

`figures.py` lists what is compared, `workers.py` measures one side in one process, `runner.py` runs all
workers; `report.py` and `plot.py` show the outcome. A new figure is one entry in the table of `figures.py`.
"""
