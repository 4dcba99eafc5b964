"""Tables as people have them, read as datasets: every decision is told, and what cannot be told is refused."""
