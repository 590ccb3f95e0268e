"""Records and arrays on disk, several stores into one, all records as one table."""
