"""How the site is built: ``sphinx-build -W --keep-going docs docs/_build/html``. No network is needed."""

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

from docutils import nodes
from docutils.utils.math.latex2mathml import tex2mathml
from sphinx.application import Sphinx
from sphinx.errors import SphinxError
from sphinx.writers.html5 import HTML5Translator

import wellposed

sys.path.append(str(Path(__file__).parents[1] / "tests" / "support"))
from peers import prepare_torchvision

prepare_torchvision()  # which the libraries of wellposed.integrations import

project = "wellposed"
author = "The wellposed authors"
release = wellposed.__version__
sys.modules["wellposed.constraints"] = wellposed.constraints  # an attribute to users, where autodoc looks for a module
extensions = ["myst_nb", "sphinx.ext.autodoc", "sphinx.ext.autosummary", "sphinx.ext.napoleon"]
exclude_patterns = ["_build"]
templates_path = ["_templates"]

html_theme = "furo"
html_title = "wellposed"
html_static_path = ["_static"]
html_css_files = ["site.css"]
html_math_renderer = "mathml"
html_copy_source = False
html_show_copyright = False

myst_enable_extensions = ["dollarmath", "deflist"]
myst_heading_anchors = 3
nb_execution_mode = "cache"
nb_execution_raise_on_error = True
nb_execution_timeout = 300
nb_merge_streams = True
nb_render_markdown_format = "myst"  # with tables
os.environ.pop("MPLBACKEND", None)  # figures are shown by the kernel's own

autodoc_typehints = "signature"
autodoc_member_order = "bysource"
python_maximum_signature_line_length = 88
napoleon_use_rtype = False
napoleon_custom_sections = ["Shape"]
strip_signature_backslash = True  # keeps the underscore at the end of a name like in_


def _write_inline(writer: HTML5Translator, node: nodes.math) -> None:
    writer.body.append(tex2mathml(node.astext()))
    raise nodes.SkipNode


def _write_block(writer: HTML5Translator, node: nodes.math_block) -> None:
    writer.body.append(f'<div class="math">{tex2mathml(node.astext(), as_block=True)}</div>')
    raise nodes.SkipNode


def _write_command_line(app: Sphinx) -> None:
    """Have the program itself write what the page on the command line includes, so that it cannot fall behind."""
    page = app.srcdir / "reference" / "generated" / "command_line.txt"
    page.parent.mkdir(exist_ok=True)
    command = [sys.executable, "-m", "typer", "wellposed.cli", "utils", "docs", "--name", "wellposed"]
    text = subprocess.run(command, check=True, capture_output=True, text=True).stdout
    # Its list of commands breaks their sentences off; each has a section of its own below.
    page.write_text(re.sub(r"^\*\*Commands\*\*:\n\n(?:\* .*\n)+\n", "", text, flags=re.MULTILINE))


def _show_public_bases(app: Sphinx, name: str, cls: type, options: object, bases: list[type]) -> None:
    """Show in place of a base class of ours that is not public what that one is based on."""

    def is_shown(base: type) -> bool:
        parts = (wellposed, wellposed.init, wellposed.constraints, wellposed.textbook)
        ours = base.__module__.startswith("wellposed")
        return not ours or any(getattr(part, base.__name__, None) is base for part in parts)

    classes = [getattr(base, "__origin__", base) for base in bases]
    shown = {next(filter(is_shown, getattr(base, "__mro__", [base]))): None for base in classes}
    bases[:] = [base for base in shown if not any(base in getattr(other, "__mro__", [])[1:] for other in shown)]


def _skip_fields(app: Sphinx, what: str, name: str, value: object, skip: bool, options: object) -> bool | None:
    """Skip the fields of named tuples, which the class's docstring has, and what scikit-learn adds to estimators."""
    is_field = type(value).__name__ == "_tuplegetter"  # "Alias for field number 0"
    return True if is_field or str(getattr(value, "__module__", "")).startswith("sklearn") else None


def _refuse_network(app: Sphinx, failure: Exception | None) -> None:
    """Refuse a page that would load something from elsewhere: the site is read offline."""
    if failure is not None:
        return
    loads = re.compile(r"""<(?:script|img|iframe|source|link)\b[^>]*\b(?:src|href)=["']?(?:https?:)?//[^>]*>""")
    for page in Path(app.outdir).rglob("*.html"):
        if found := loads.search(page.read_text()):
            raise SphinxError(f"{page} loads something from a network: {found.group()}")


def _offer_chapter(app: Sphinx, failure: Exception | None) -> None:
    """Put the chapter as it was run, with its figures, beside its page, to be downloaded."""
    if failure is None:
        shutil.copy(Path(app.outdir).parent / "jupyter_execute" / "chapter.ipynb", app.outdir)


def setup(app: Sphinx) -> None:
    """Write mathematics as MathML, which browsers show by themselves: MathJax would be fetched by every reader."""
    app.add_html_math_renderer("mathml", inline_renderers=(_write_inline, None), block_renderers=(_write_block, None))
    app.connect("builder-inited", _write_command_line)
    app.connect("autodoc-process-bases", _show_public_bases)
    app.connect("autodoc-skip-member", _skip_fields)
    app.connect("build-finished", _refuse_network)
    app.connect("build-finished", _offer_chapter)
