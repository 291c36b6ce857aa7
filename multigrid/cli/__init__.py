"""The commands, one a module: ``multigrid <command>`` or ``python -m multigrid <command>``."""

# Name, module and summary of each command: read without importing any of them.
COMMANDS = {
    "run": ("multigrid.run", "train a ladder of networks from an experiment file"),
    "generate": (
        "multigrid.cli.generate",
        "make the samples of an experiment, without training",
    ),
    "inspect": (
        "multigrid.cli.inspect",
        "show what is in a data file, and how to train from it",
    ),
    "floors": ("multigrid.cli.floors", "measure what the coarse grids of a ladder cannot know"),
    "evaluate": ("multigrid.cli.evaluate", "measure a run on its test samples or on any file"),
    "predict": ("multigrid.cli.predict", "apply a trained surrogate to a file"),
    "compare": ("multigrid.cli.compare", "put several runs into one table and one figure"),
    "plot": ("multigrid.cli.plot", "draw the figures of runs again, from their result files"),
    "doctor": ("multigrid.cli.doctor", "check this machine by a short training on every device"),
    "settings": ("multigrid.cli.settings", "list the keys of an experiment file with defaults"),
}
