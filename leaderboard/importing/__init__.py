"""Published tables: read from files, kept as figures of their source."""
