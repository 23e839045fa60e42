"""The harness: a task, a method and a seed give a result line.

`cell` names what is run. `run` runs the cells that a results file lacks, here
or in separate processes (`processes`). `stage` puts cells in order, where later
ones depend on the lines of earlier ones.
"""
