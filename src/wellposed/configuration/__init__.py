"""Values as plain dictionaries, for files of settings."""
