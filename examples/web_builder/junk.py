"""The blog: alternative texts that describe nothing, odd pages, other alphabets and encodings."""

from collections.abc import Sequence

from web_builder.shops import Shown
from web_builder.site import Site, figure, gzipped, img, page, url

HOST = "blog"
BRAND = "Notes on Everything"
LONG = (
    "In this photograph, which we took on the second day of our journey, you see what we had come for, "
    "though the weather was not as good as we had hoped and the light was already going. "
)
ALTS: dict[str, tuple[str | None, ...]] = {
    "alt_file_name": ("IMG_2034.JPG", "DSC00417.jpg", "photo-2019-04-11.png", "screenshot_03.png", "banner_final_v2.gif"),
    "alt_url": ("http://www.example.com/pictures/23.jpg", "https://example.org/", "www.example.com/shop", "example.net/a/b/c.png"),
    "alt_placeholder": ("image", "logo", "untitled", "picture", "Photo", "thumbnail", "icon", "placeholder"),
    "alt_keywords": (
        "handbag, leather bag, travel bag, evening bag, shoulder bag, beach bag, gift for her, women, fashion, style, summer, sale",
        "cheap shoes, buy shoes, shoes sale, shoes online, best shoes, shoes shop, discount shoes, shoes outlet",
        "wedding, bride, groom, wedding dress, flowers, church, love, marriage, ring, cake, invitation card",
        "hotel berlin, hotels berlin, cheap hotel berlin, berlin hotel booking, hotel, hotels, berlin hotels cheap",
        "free clipart, clip art free, free clip art, clipart download, download clip art, clipart images, images clipart",
        "web design, web designer, website design, website designer, web site design company, web design prices",
    ),
    "alt_short": ("x", "a", ".", "ok", "-", "1"),
    "alt_long": (LONG * 6, "A walk through the old town. " * 40, LONG * 3 + LONG.upper() * 5),
    "alt_huge": (LONG * 25,),
    "alt_digits": ("12345-678 // 99", "2019-04-11 18:22:07", "0049 30 1234567", "++++ 4711 ++++", "(1) [2] {3} <4>"),
    "alt_price": ("Now only $24.99", "From £12.50 each", "No. 12 of 50 in A4", "$19.99 - SKU 88213-B", "EUR 24,95 / Art.-Nr. 100-234", "GTIN 4006381333931", "£5.00 each, 3 for £12.50 REF#0091"),
    "alt_repeated": ("click click click click click click click", "la la la la la la la la la", "!!!!!!!!!!!!!!!!!!!!", "buy now buy now buy now buy now buy now"),
    "alt_markup": ("<b>red</b> balloon in the sky", "<p class='c'>a small boat</p>", "&lt;br&gt; our garden &amp;nbsp; in May", "[caption id=\"a1\"]the house[/caption]"),
    "alt_email": ("write to info@example.com for prints", "photo by jane.doe@example.org", "editor@example.net"),
    "alt_empty": ("", "", "", "   "),
    "alt_missing": (None, None, None),
    "alt_white": ("a picture\n   over\ttwo lines  ", "   a garden in spring   ", "snow\u00a0on\u00a0the\u00a0roof"),
    "alt_broken": ("The caf\ufffd by the ch\ufffdteau: cr\ufffdpes, cr\ufffdme br\ufffdl\ufffde and p\ufffdt\ufffd", "The fa\ufffdade of the old th\ufffd\ufffdtre, as na\ufffdve as its clich\ufffds"),
    "alt_boilerplate": ("Thank you for visiting our blog",) * 20,
    "alt_invisible": ("a red\u200b balloon\ufeff", "a \u202emirrored\u202c word", "soft\u00adware for drawing"),
}  # fmt: skip
SCRIPTS = (
    ("elephant", "zh", "一头大象站在草地上"),
    ("Full Moon", "ja", "夜空に浮かぶ満月"),
    ("electric guitar", "ru", "Электрическая гитара чёрного цвета"),
    ("turtle", "uk", "Маленька зелена черепаха"),
    ("Rainbow", "ar", "قوس قزح فوق السحاب"),
    ("Two Red Dice", "el", "Δύο κόκκινα ζάρια"),
    ("Fire", "hi", "लकड़ियों की जलती हुई आग"),
    ("Key", "he", "מפתח שחור"),
    ("hammer", "ko", "나무 손잡이가 달린 망치"),
)
ENTITIES = (
    ("bread", "Bread &amp; butter &ndash; breakfast at the caf&eacute;", "Bread & butter – breakfast at the café"),
    ("quotes", "&ldquo;Welcome&rdquo; on the door of a house", "“Welcome” on the door of a house"),
    ("number", "The &#8217;moon&#x2019; over a quiet lake", "The ’moon’ over a quiet lake"),
    ("open", "Fish &chips in a paper bag", "Fish &chips in a paper bag"),
)  # fmt: skip
ENCODINGS = (
    # host header, meta, Python's name, language, captions
    ("latin1", "", "iso-8859-1", "en", ("Fresh crème brûlée at the café", "A naïve drawing of a façade", "The Müller family in their garden")),
    ("windows1251", "windows-1251", "cp1251", "ru", ("Красный маяк на берегу моря", "Старый деревянный дом", "Кошка спит на окне")),
    ("shift_jis", "shift_jis", "shift_jis", "ja", ("海辺の赤い灯台", "古い木の家", "窓辺で眠る猫")),
)  # fmt: skip
LINKS = (("/", BRAND), ("/scripts.html", "Alphabets"), ("/entities.html", "Entities"), ("/malformed.html", "Old page"), ("/deep.html", "Deep page"), ("/damaged.html", "Damaged page"), ("/latin1.html", "Latin-1"), ("/windows1251.html", "Windows-1251"), ("/shift_jis.html", "Shift JIS"), ("/empty.html", "Empty"), ("/nowhere.html", "Missing page"), ("/old-home.html", "Moved page"), ("/files/report.pdf", "Report"), ("/files/data.json", "Data"), ("/files/notes.txt", "Notes"), ("/members/secret.html", "Members"), ("mailto:editor@blog.localhost", "Write to us"), ("javascript:history.back()", "Back"), ("http://[broken", "Broken link"), ("http://elsewhere.invalid/", "Elsewhere"))  # fmt: skip


def blog(site: Site, cliparts: Sequence[Shown]) -> None:
    """Add the blog, which shows other hosts' `cliparts` with texts of its own."""
    addresses = iter([item.url for item in cliparts] * 2)
    home = []
    for case, alts in ALTS.items():
        path = f"/{case.replace('_', '-')}.html"
        entries = [(next(addresses), alt) for alt in alts]
        figures = [figure(src, alt) for src, alt in entries]
        at = site.add(HOST, path, page(case, figures, brand=BRAND, links=LINKS[:1]))
        home.append((path, case.replace("_", " ")))
        for src, alt in entries:
            site.plant(case, src, alt, at)
    by_title = {item.caption.lower(): item.url for item in cliparts}
    _scripts(site, by_title)
    _entities(site, [next(addresses) for _ in ENTITIES])
    for encoding in ENCODINGS:
        _encoded(site, encoding, [next(addresses) for _ in encoding[4]])
    _odd_pages(site, [next(addresses) for _ in range(8)])
    site.add(HOST, "/", page("All notes", [], brand=BRAND, links=[*LINKS, *home]))


def _scripts(site: Site, by_title: dict[str, str]) -> None:
    at = url(HOST, "/scripts.html")
    figures = []
    for title, lang, caption in SCRIPTS:
        found = next(v for k, v in sorted(by_title.items()) if title.lower() in k)
        figures.append(figure(found, caption, lang=lang))
        site.plant("alt_script", found, caption, at)
    site.add(HOST, "/scripts.html", page("Alphabets", figures, brand=BRAND, links=LINKS))


def _entities(site: Site, addresses: Sequence[str]) -> None:
    at = url(HOST, "/entities.html")
    figures = []
    for address, (_, written, meant) in zip(addresses, ENTITIES, strict=True):
        figures.append(f'<figure><img src="{address}" alt="{written}"></figure>')
        site.plant("alt_entities", address, meant, at)
    site.add(HOST, "/entities.html", page("Entities", figures, brand=BRAND, links=LINKS))


def _encoded(
    site: Site, encoding: tuple[str, str, str, str, tuple[str, ...]], addresses: Sequence[str]
) -> None:
    name, charset, codec, lang, captions = encoding
    path = f"/{name}.html"
    figures = [figure(src, alt, alt) for src, alt in zip(addresses, captions, strict=True)]
    text = page(name, figures, lang=lang, brand=BRAND, links=LINKS, charset=charset)
    if not charset:
        text = text.replace('<meta charset="">\n', "")
    at = site.add(HOST, path, text.encode(codec))
    for src, caption in zip(addresses, captions, strict=True):
        site.plant(f"page_{name}", src, caption, at)


def _odd_pages(site: Site, addresses: Sequence[str]) -> None:
    """Add pages that are not HTML, are empty, are malformed or nested very deep."""
    site.add(
        HOST,
        "/files/report.pdf",
        b"%PDF-1.4\n% not really\n<img src='/a.png' alt='a pdf'>\n%%EOF\n",
    )
    site.add(HOST, "/files/data.json", '{"html": "<img src=\\"/a.png\\" alt=\\"some data\\">"}\n')
    site.add(HOST, "/files/notes.txt", '<img src="/a.png" alt="plain text, not a page">\n')
    site.add(HOST, "/empty.html", "")
    site.add(HOST, "/damaged.html", _damaged(addresses[0]))
    site.add(
        HOST, "/members/secret.html", page("Members", [img("/a.png", "never crawled")], brand=BRAND)
    )
    deep = [
        *["<div>"] * 300,
        figure(addresses[0], "A picture at the bottom of a deep page"),
        *["</div>"] * 300,
    ]
    at = site.add(HOST, "/deep.html", page("Deep", deep, brand=BRAND, links=LINKS))
    site.plant("page_deep", addresses[0], "A picture at the bottom of a deep page", at)
    malformed = f"""<html><title>Old page<body bgcolor=white><table><tr><td><p>Welcome<b>to<i>my</b>page</i>
<IMG SRC='{addresses[1]}' ALT='Upper case tags from long ago'>
<img src={addresses[2]} alt=Unquoted>
<img src="{addresses[3]}" alt="The first of two texts" alt="The second of two texts">
<img alt="A text that comes before its picture" src="{addresses[4]}"/ >
<div><p><img src="{addresses[5]}" alt="Inside what is never closed"
</html></div></body>"""
    at = site.add(HOST, "/malformed.html", malformed)
    captions = (
        "Upper case tags from long ago",
        "Unquoted",
        "The first of two texts",
        "A text that comes before its picture",
    )
    for address, caption in zip(addresses[1:5], captions, strict=True):
        site.plant("page_malformed", address, caption, at)


def _damaged(address: str) -> bytes:
    """Return a packed page, some bytes of which were lost on the way."""
    text = page("Damaged", [figure(address, "A picture that cannot be unpacked")], brand=BRAND)
    packed = gzipped(text.encode())
    middle = len(packed) // 2
    return packed[:middle] + bytes(8) + packed[middle + 8 :]
