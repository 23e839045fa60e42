"""The study: every method, several seeds, and what moves GMixout's numbers.

`scales` says how large it is, `plan` which methods are compared in which cells,
`choose` with which learning rates, and `parts` in which order; `study_cpu` and
`study_gpu` are the configs.
"""
