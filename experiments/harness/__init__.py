"""The one harness: a task, a method and a seed become a line of results.

`cell` names what is run, `run` runs what a results file lacks, here or in
processes of their own (`processes`), and `stage` puts cells in an order where
later ones depend on the lines of earlier ones.
"""
