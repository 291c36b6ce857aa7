"""An experiment, and its run over the levels."""
