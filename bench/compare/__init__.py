"""cybn beside its peers over one table of cells: `python -m bench.compare --help`."""
