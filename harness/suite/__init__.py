"""A suite file -> cells, and the files that it means on this machine."""
