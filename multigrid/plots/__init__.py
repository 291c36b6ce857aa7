"""Figures. They know arrays and result files only, not torch, and redraw to the same bytes."""
