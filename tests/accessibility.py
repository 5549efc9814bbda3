"""What every HTML page must have for readers who hear it, or use it without a mouse."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import lxml.html
from lxml.html import HtmlElement

PICTURES = "//img | //svg | //canvas | //*[@role='img']"
UNREAD = "ancestor-or-self::*[self::script or self::style or self::code or self::pre]"


def page_faults(page: Path) -> list[str]:
    """What is wrong with a page: a line for each fault."""
    root = lxml.html.fromstring(page.read_bytes())
    return [
        *([] if root.get("lang") else ["no language"]),
        *([] if (root.findtext("head/title") or "").strip() else ["no title"]),
        *([] if len(root.findall(".//h1")) == 1 else [f"{len(root.findall('.//h1'))} first headings"]),
        *_id_faults(root),
        *(f"picture without words: {_start(each)}" for each in root.xpath(PICTURES) if not _has_words(each)),
        *(f"control without a name: {_start(each)}" for each in root.iter("input", "select", "textarea", "button")
          if not _has_name(root, each)),
        *(f"heading of no row or column: {_start(each)}" for each in root.iter("th") if not each.get("scope")),
        *(f"backtick: {text.strip()[:60]}" for text in root.xpath(f"//text()[contains(., '`')][not({UNREAD})]")),
        *(f"title given {count} times: {title}" for title, count in _titles(root).items() if count > 1),
    ]  # fmt: skip


def _start(element: HtmlElement) -> str:
    return lxml.html.tostring(element, encoding="unicode").partition(">")[0][:100]


def _id_faults(root: HtmlElement) -> list[str]:
    ids = Counter(root.xpath("//@id"))
    named = "//@aria-labelledby | //@aria-describedby | //label/@for | //output/@for"
    links = [each.removeprefix("#") for each in root.xpath("//a/@href") if each.startswith("#")]
    wanted = {name for names in (*root.xpath(named), *links) for name in names.split()}
    return [
        *(f"id given {count} times: {name}" for name, count in ids.items() if count > 1),
        *(f"no element has the id {name}" for name in sorted(wanted - set(ids))),
    ]


def _has_words(picture: HtmlElement) -> bool:
    words = (picture.get("alt"), picture.get("aria-label"), picture.get("aria-labelledby"))
    return picture.get("aria-hidden") == "true" or any((each or "").strip() for each in words)


def _has_name(root: HtmlElement, control: HtmlElement) -> bool:
    if control.get("aria-label") or control.get("aria-labelledby"):
        return True
    if control.tag == "button":
        return bool(control.text_content().strip())
    labels = [*control.iterancestors("label"), *root.xpath("//label[@for=$name]", name=control.get("id", ""))]
    return any(label.text_content().strip() for label in labels)


def _titles(root: HtmlElement) -> Counter[str]:
    """How often each heading, caption and name of a picture stands on the page."""
    texts = [each.text_content() for each in root.iter("h1", "h2", "h3", "h4", "caption", "summary")]
    texts += root.xpath("//*[@role='img']/@aria-label")
    return Counter(" ".join(each.split()) for each in texts if each.strip())
