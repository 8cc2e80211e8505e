"""Web pages around a text: six layouts as real sites have them, with everything that is not the text.

A good extractor returns the paragraphs and nothing of :data:`BOILERPLATE`.
"""

from __future__ import annotations

import html
import random

MENU = ("Home", "News", "About us", "Contact", "Shop", "Archive", "Weather", "Log in", "Search", "Help", "Jobs",
        "Gallery")
COOKIES = ("We use cookies to make this site better. Accept all cookies or manage your settings.",
           "This website stores cookies on your computer. Read our privacy policy to find out more.",
           "Your privacy matters: our 214 partners store cookies. Agree and close.")
ADVERTISEMENTS = ("Advertisement: lamps at half price, only this weekend. Click to order now.",
                  "Sponsored: lose weight fast with this one simple trick. Subscribe today.",
                  "Special offer: free shipping on all orders above 50 dollars. Use code SAVE20 at checkout.",
                  "Download our app and get the first month of premium for free.")
RELATED = ("Ten ways to clean a carpet", "What the stars say this week", "The best phones of the year",
           "You will never guess what came next",
           "Cheap flights for the summer", "Our most read articles", "How to invest your savings")
FOOTERS = ("Copyright 2021. All rights reserved. Imprint and terms of service.",
           "Follow us on social media. Subscribe to the newsletter. Powered by a content system.",
           "Site map. Accessibility. Terms and conditions apply.")
SHARE = "Share this page by mail or on social media. Print this page."

BOILERPLATE = (*COOKIES, *ADVERTISEMENTS, *RELATED, *FOOTERS, SHARE)
"""Every phrase that a page adds to its text, save for the menu and the title."""

NEWS_SITE = """<div id="cookie-banner" class="cookie-consent"><p>{cookies}</p><button>Accept</button></div>
<header><nav><ul>{menu}</ul></nav></header>
<main>
<article>
<h1>{title}</h1>
{body}
</article>
<aside class="sidebar"><h3>Related</h3><ul>{related}</ul></aside>
</main>
<footer><p>{footer}</p></footer>"""

BLOG = """<div class="navbar"><ul class="menu">{menu}</ul></div>
<div class="post">
<h2 class="post-title">{title}</h2>
<div class="post-content entry-content">
{body}
</div>
<div class="share-buttons">{share}</div>
</div>
<div class="ad advertisement"><p>{advertisement}</p></div>
<div class="footer" id="footer">{footer}</div>"""

WIKI = """<div id="sidebar" role="navigation"><ul>{menu}</ul></div>
<div id="content" class="mw-body" role="main">
<h1 id="firstHeading">{title}</h1>
<div id="bodyContent">
{body}
</div>
</div>
<div class="related-links"><h2>Related</h2><ul>{related}</ul></div>
<footer id="footer"><p>{footer}</p></footer>"""

OLD_TABLE = """<table width="100%"><tr><td colspan="2" class="header"><ul class="nav">{menu}</ul></td></tr>
<tr><td width="20%" class="sidebar ad">{advertisement}</td>
<td class="content"><div class="text">
{body}
</div></td></tr>
<tr><td colspan="2" class="footer"><small>{footer}</small></td></tr></table>"""

SHOP = """<header class="site-header"><nav class="main-nav"><ul>{menu}</ul></nav></header>
<section class="promo advertisement"><p>{advertisement}</p></section>
<main id="main"><section class="article-body">
<h1>{title}</h1>
{body}
</section></main>
<div class="recommended related"><ul>{related}</ul></div>
<footer class="site-footer">{footer}</footer>
<div class="cookie-notice" role="dialog">{cookies}</div>"""

MAGAZINE = """<div class="wrapper"><div class="top-bar"><nav><ul>{menu}</ul></nav></div>
<div class="container"><div class="row"><div class="col-8"><div class="article" itemprop="articleBody">
{body}
</div></div>
<div class="col-4 sidebar"><div class="widget ad">{advertisement}</div>
<div class="widget related"><ul>{related}</ul></div></div></div></div>
<footer><div class="newsletter">{footer}</div></footer></div>
<div class="gdpr cookie">{cookies}</div>"""

LAYOUTS = (NEWS_SITE, BLOG, WIKI, OLD_TABLE, SHOP, MAGAZINE)
"""A site with HTML 5 elements, a weblog, a reference work, a table of the nineties, a shop, and nested divisions."""

HEAD = """<!DOCTYPE html>
<html lang="en">
<head><meta charset="utf-8"><title>{title}</title><style>.ad {{ color: red; }}</style></head>
<body>
"""
TAIL = """
<script>var tracker = {page: 1}; window.load = function () { return tracker; };</script>
</body>
</html>
"""


def page(text: str, title: str, rng: random.Random) -> str:
    """An HTML page with ``text`` as its main content, a paragraph a line."""
    paragraphs = [line for line in text.split("\n") if line.strip()]
    parts = {
        "title": html.escape(title),
        "body": "\n".join(f"<p>{html.escape(paragraph, quote=False)}</p>" for paragraph in paragraphs),
        "menu": links(rng, MENU, rng.randint(4, 8)),
        "cookies": rng.choice(COOKIES),
        "advertisement": rng.choice(ADVERTISEMENTS),
        "related": links(rng, RELATED, rng.randint(3, 5)),
        "footer": rng.choice(FOOTERS),
        "share": SHARE,
    }
    return HEAD.format_map(parts) + rng.choice(LAYOUTS).format_map(parts) + TAIL


def links(rng: random.Random, names: tuple[str, ...], count: int) -> str:
    """``count`` list items that link to other pages."""
    return "".join(f'<li><a href="/read/{rng.randint(100, 999)}">{name}</a></li>' for name in rng.sample(names, count))
