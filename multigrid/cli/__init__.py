"""The commands: ``multigrid <command>`` or ``python -m multigrid <command>``."""

# Module of each command, and its summary: read without importing any.
COMMANDS = {
    "run": ("run", "train a ladder of networks from an experiment file"),
    "sweep": ("cli.sweep", "train an experiment with all combinations of some settings and seeds"),
    "generate": ("cli.experiments", "make the samples of an experiment, without training"),
    "inspect": ("cli.experiments", "show what is in a data file, and how to train from it"),
    "floors": ("cli.experiments", "measure what the coarse grids of a ladder cannot know"),
    "evaluate": ("cli.runs", "measure a run on its test samples or on any file"),
    "predict": ("cli.runs", "apply a trained surrogate to a file"),
    "compare": ("cli.runs", "put several runs into one table and one figure"),
    "plot": ("cli.runs", "draw the figures of runs again, from their result files"),
    "doctor": ("cli.doctor", "check this machine by a short training on every device"),
    "settings": ("cli.experiments", "list the keys of an experiment file with defaults"),
}
