"""The study: every method, several seeds, and what moves GMixout's numbers.

`scales` says how large it is and what is compared, `tasks` on what, `plan` in
which cells, `choose` with which learning rates, and `work` runs the cells that
the result files do not hold yet. `python -m experiments.study --help`.
"""
