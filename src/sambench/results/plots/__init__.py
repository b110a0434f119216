"""The figures that join several tables, one module per figure: see sambench.results.figure."""
