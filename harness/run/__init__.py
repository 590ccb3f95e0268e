"""Cells -> records: what is missing, in what order, stage by stage."""
