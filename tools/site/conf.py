"How Sphinx reads the notebooks; the folder it reads is put together by build.py"
import sys
from pathlib import Path
HERE = Path(__file__).resolve().parent
sys.path[:0] = [str(HERE), str(HERE.parents[1])]
sys.path.append(str(HERE.parent))
import api

project, author = api.NAME, api.PROJECT['authors'][0]['name']
html_title = project
smartquotes = False  # quotes are code as often as not
html_baseurl = f'https://{api.OWNER}.github.io/{api.NAME}/' if api.KNOWN else ''
extensions = ['myst_nb', 'sphinx_copybutton', 'ext']
needs_sphinx = '8.1'
language, highlight_language = 'en', 'python'
source_suffix = {'.ipynb': 'myst-nb', '.md': 'myst-nb'}

# Notebooks: as they stand, with the outputs they have; nothing from a CDN
nb_execution_mode = 'off'
nb_merge_streams = True
nb_render_markdown_format = 'myst'
nb_ipywidgets_js = {}
myst_enable_extensions = ['dollarmath', 'amsmath']
myst_dmath_allow_space = False
myst_dmath_double_inline = True
myst_heading_anchors = 4
# What only MyST reads as markup stays text, as it is in Jupyter and on GitHub
myst_disable_syntax = ['myst_block_break', 'myst_line_comment', 'myst_target', 'myst_role']

# The parts of MathJax that a page loads are copied from the package sphinx-mathjax-offline by build.py
mathjax_path = 'mathjax/tex-chtml-full.js'
mathjax3_config = {'options': {'enableMenu': False}, 'chtml': {'scale': .96}}

html_theme = 'sphinx_book_theme'
html_static_path = [str(HERE/'static'), str(api.ROOT/'_build'/'site-static')]
html_css_files = ['site.css']
html_js_files = [('site.js', {'defer': 'defer'})]
html_favicon = html_logo = str(HERE/'static'/'logo.svg')
html_copy_source, html_show_sourcelink, html_show_sphinx, html_show_copyright = True, False, False, False
html_context = {'default_mode': 'auto'}
html_use_index = html_domain_indices = False
html_permalinks_icon = '#'
add_module_names = False
toc_object_entries_show_parents = 'hide'
copybutton_exclude = '.linenos, .gp, .go'
copybutton_selector = 'div.cell_input div.highlight pre, div[class*="highlight-"] div.highlight pre'
html_theme_options = {
    **({'repository_url': api.REPO} if api.KNOWN else {}),
    'use_download_button': False, 'use_fullscreen_button': False,
    'navbar_start': [], 'navbar_persistent': [],  # one search box, not two
    'show_toc_level': 2, 'show_navbar_depth': 1,
    'pygments_light_style': 'a11y-high-contrast-light', 'pygments_dark_style': 'a11y-high-contrast-dark',
    'footer_content_items': [], 'logo': {'text': project},
    'icon_links': [{'name': 'The repository', 'url': api.REPO, 'icon': 'fa-brands fa-github'}] if api.KNOWN else [],
}
