"""Sphinx configuration: ``make docs``. Nothing is fetched while it builds, and no notebook is run."""

import diffdecode

project = "diffdecode"
author = "diffdecode contributors"
project_copyright = "diffdecode contributors, MIT licence"
version = release = diffdecode.__version__

extensions = ["sphinx.ext.autodoc", "sphinx.ext.napoleon", "sphinx.ext.mathjax", "myst_nb"]
exclude_patterns = ["_build"]
html_theme = "furo"
html_title = f"diffdecode {version}"
html_static_path = ["_static"]

myst_enable_extensions = ["colon_fence", "dollarmath"]
myst_heading_anchors = 3
nb_execution_mode = "off"  # a test runs them (tests/test_notebooks.py)

autodoc_member_order = "bysource"
autodoc_typehints = "signature"
autodoc_default_options = {"members": True, "show-inheritance": False}
napoleon_google_docstring = True
napoleon_numpy_docstring = False
napoleon_use_ivar = True
