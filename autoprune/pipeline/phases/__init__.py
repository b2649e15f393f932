"""The phases of a run, one file each; `autoprune.pipeline.run` calls them in their order.

Each phase is a function of the run's context. It leaves what it did on disk, and a resumed run does only what is left.
"""
