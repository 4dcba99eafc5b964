"""What runs come to: means over seeds, choices and findings."""
