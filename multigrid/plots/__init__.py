"""Figures of arrays and result files, without torch; drawn again they give the same bytes."""
