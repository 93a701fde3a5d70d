"""Small helpers for the frameworks that tasks are written with.  None of them is needed; each imports what it is for."""
