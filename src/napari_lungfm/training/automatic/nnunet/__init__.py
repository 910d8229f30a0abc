"""nnU-Net v2: a cohort in its raw layout, its own planning and training in a process of its own.

`config` has the settings, `export` writes the raw layout with our split, `process` runs `worker`,
which calls nnU-Net's Python API, and `run` leaves the folder of a trained model. Only `worker`,
`planner` and the files in `trainers` import nnU-Net.
"""
