"""The results of a study: means over seeds, choices, tables and findings."""
