"""What mkdocs does to pages beside Markdown: the site needs neither the network nor the repository.

- Formulas become MathML while the site is built, so that a page needs no script to show them.
- What a page links to outside docs/ (reports, figures, code) becomes a part of the site, below repository/.
- In docstrings, Sphinx roles become links to what is on a page, and tables stay as they are typed.
"""

import html
import os
import re
from pathlib import Path
from typing import Any

import griffe
from latex2mathml.converter import convert
from mkdocs.structure.files import File

ROOT = Path(__file__).resolve().parents[1]
LINK = re.compile(r"(\]\()([^)\s#]+)(#[^)\s]*)?(?=\))")
FORMULA = re.compile(r'<(span|div) class="arithmatex">\\[(\[](.+?)\\[)\]]</\1>', re.DOTALL)
NUMBER = re.compile(r"(?<=<td>)[-+x(]?\d[^<]{0,24}(?=</td>)")
OPTION = re.compile(r"(?<=[\s>])--[a-z][\w.]*(?=[^<>]*</code>)")
TABLE = re.compile(r"^( *)=+ [= ]+\n(?:.+\n)+? *=+ [= ]+\n(?:.+\n)+? *=+ [= ]+$", re.MULTILINE)
ROLE = re.compile(r":(?:func|class|meth|mod|data):`([\w.]+)`")
FIRST = ("concepts.md", "algorithms.md", "getting_started.md", "diagnostics.md", "own.md")  # among what is searched for
LANGUAGES = {".py": "python", ".yaml": "yaml", ".yml": "yaml", ".toml": "toml", ".txt": "text", "": "make"}


def on_files(files: Any, config: Any) -> Any:
    waiting = [file.src_uri for file in files if file.src_uri.endswith(".md")]
    while waiting:
        uri = waiting.pop()
        if _path(uri).suffix != ".md":
            continue
        for link in LINK.finditer(_path(uri).read_text()):
            target = _target(uri, link[2])
            if target is None or files.get_file_from_path(_uri(target)):
                continue
            if target.suffix in LANGUAGES:
                code = f"# {target.relative_to(ROOT)}\n\n`````{LANGUAGES[target.suffix]}\n{target.read_text()}\n`````\n"
                files.append(File.generated(config, _uri(target), content=code))
            else:
                files.append(File.generated(config, _uri(target), abs_src_path=str(target)))
                waiting.append(_uri(target))
    return files


def on_page_markdown(markdown: str, page: Any, config: Any, files: Any) -> str:
    here = page.file.src_uri
    page.meta["search"] = {"exclude": True} if here.endswith(".py.md") else {"boost": 4 if here in FIRST else 1}

    def moved(link: re.Match[str]) -> str:
        target = _target(here, link[2])
        if target is None:
            return link[0]
        return link[1] + os.path.relpath(_uri(target), os.path.dirname(here)) + (link[3] or "")

    return LINK.sub(moved, markdown) if _path(here).suffix == ".md" else markdown


def on_page_content(content: str, page: Any, config: Any, files: Any) -> str:
    def mathml(found: re.Match[str]) -> str:
        formula = convert(html.unescape(found[2]), display="block" if found[1] == "div" else "inline")
        return re.sub(r"<mi>(log|exp|cos)</mi>", r'\g<0><mspace width="0.17em" />', formula)  # else it reads: logp

    shown = FORMULA.sub(mathml, content)
    for whole in (NUMBER, OPTION):  # browsers would break them at a minus
        shown = whole.sub(r'<span style="white-space: nowrap">\g<0></span>', shown)
    return shown


class Roles(griffe.Extension):
    """Sphinx's marks in docstrings, as Markdown."""

    def on_object(self, *, obj: griffe.Object, **kwargs: Any) -> None:
        if obj.docstring:
            text = ROLE.sub(r'<autoref identifier="\1" optional><code>\1</code></autoref>', obj.docstring.value)
            obj.docstring.value = TABLE.sub(r"\1```text\n\g<0>\n\1```", text)


def _path(uri: str) -> Path:
    """Where the page with this address in the site is written."""
    inside = uri.removeprefix("repository/")
    path = ROOT / "docs" / uri if inside == uri else ROOT / inside
    return path if path.exists() else path.with_suffix("")


def _uri(path: Path) -> str:
    """The page's address in the site."""
    if path.is_relative_to(ROOT / "docs"):
        return path.relative_to(ROOT / "docs").as_posix()
    return f"repository/{path.relative_to(ROOT).as_posix()}" + (".md" if path.suffix in LANGUAGES else "")


def _target(uri: str, link: str) -> Path | None:
    """The file of the repository that a page links to; of a folder, what introduces it."""
    path = Path(os.path.normpath(_path(uri).parent / link))
    if "://" in link or not path.is_relative_to(ROOT):
        return None
    found = [file for file in (path, path / "README.md", path / "__init__.py") if file.is_file()]
    return found[0] if found else None
