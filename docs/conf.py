"""How the documentation is built: ``sphinx-build docs docs/_build``."""

project = "wellposed"
extensions = ["myst_nb"]
html_theme = "furo"
exclude_patterns = ["_build"]
nb_execution_mode = "off"
myst_enable_extensions = ["dollarmath"]
