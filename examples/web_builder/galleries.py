"""The galleries: clip art in four languages, emoji and photographs; and their evaluation set."""

from pathlib import Path

from web_builder import sources
from web_builder.choice import pick
from web_builder.pictures import few_colours, jpeg, on_white, png
from web_builder.shops import Shown
from web_builder.site import Site, figure, listing, page, url

SIDE = 128
EVALUATION_SIDE = 192
EMOJI = 250
LANGUAGES = {
    "clipart": ("en", "Free Clip Art", "Clip art"),
    "bilder": ("de", "Bilderkiste", "Alle Bilder"),
    "dessins": ("fr", "La boîte à dessins", "Tous les dessins"),
    "immagini": ("it", "Immagini libere", "Tutte le immagini"),
}
PHOTOGRAPHS = {
    "astronaut.png": "Astronaut Eileen Collins in an orange space suit",
    "brick.png": "Close-up of a brick wall",
    "camera.png": "Photographer with a camera on a tripod in a field",
    "cell.png": "A single cell seen through a microscope",
    "clock_motion.png": "Blurred wall clock, photographed with a moving camera",
    "grass.png": "Short grass on a lawn",
    "gravel.png": "Grey gravel seen from above",
    "hubble_deep_field.jpg": "Thousands of galaxies in deep space, seen by the Hubble telescope",
    "retina.jpg": "Photograph of the retina of a human eye",
}
EVALUATION_PHOTOGRAPHS = {
    ("animal", "chelsea.png"): "a tabby cat looking into the camera",
    ("food", "coffee.png"): "a cup of coffee on a wooden table",
    ("vehicle", "rocket.jpg"): "a rocket at its launch pad in the evening",
}
CLIPART_FORMS = ("{}", "{}", "{} clip art", "Free clip art: {}", "Clip art of {}")


def galleries(site: Site, folder: Path) -> list[Shown]:
    """Add the four galleries of clip art; return what the English one shows."""
    english: list[Shown] = []
    for host, (lang, brand, title) in LANGUAGES.items():
        chosen = [c for c in sources.cliparts() if c.gallery == host]
        links = [("/", brand), ("/art/1.html", title)]
        items = []
        for position, clipart in enumerate(chosen):
            picture = few_colours(on_white(sources.clipart_image(folder, clipart), SIDE))
            data = png(picture)
            address = site.add(host, f"/pictures/{position:03}.png", data)
            caption = clipart.caption
            if host == "clipart":
                caption = pick(CLIPART_FORMS, "clipart", position).format(caption)
                english.append(Shown(url=address, caption=caption, data=data))
            items.append(figure(f"/pictures/{position:03}.png", caption, clipart.caption))
            if host != "clipart":
                # Found again by its position: the pages show 30 each.
                at = url(host, f"/art/{position // 30 + 1}.html")
                site.plant(f"alt_{lang}", address, caption, at)
        listing(site, host, "/art", title, items, brand=brand, per_page=30, links=links, lang=lang)
        site.add(host, "/", page(title, [], lang=lang, brand=brand, links=links))
    return english


def emoji(site: Site, folder: Path) -> list[Shown]:
    """Add a gallery of emoji by their Unicode names; return what it shows."""
    links = [("/", "Emoji Garden"), ("/list/1.html", "All emoji")]
    forms = ("{} emoji", "Emoji: {}", "{} - emoji picture", "{}", "the {} emoji on your phone")
    shown, items = [], []
    for position, (_, name, data) in enumerate(sources.emoji(folder, EMOJI)):
        caption = pick(forms, "emoji", position).format(name)
        address = site.add("emoji", f"/64/{position:03}.png", data)
        shown.append(Shown(url=address, caption=caption, data=data))
        items.append(figure(f"/64/{position:03}.png", caption, name, width=64, height=64))
    listing(
        site, "emoji", "/list", "All emoji", items, brand="Emoji Garden", per_page=50, links=links
    )
    site.add("emoji", "/", page("Emoji", [], brand="Emoji Garden", links=links))
    return shown


def photographs(site: Site) -> list[Shown]:
    """Add the photographs, large and small; return them. Their pages are `ways.py`'s."""
    shown = []
    for name, caption in PHOTOGRAPHS.items():
        picture = sources.photograph(name)
        stem = name.partition(".")[0]
        data = jpeg(on_white(picture, 480))
        shown.append(
            Shown(url=site.add("photos", f"/large/{stem}.jpg", data), caption=caption, data=data)
        )
        site.add("photos", f"/small/{stem}.jpg", jpeg(on_white(picture, 160)))
    return shown


def evaluation_cliparts(folder: Path) -> list[Shown]:
    """Return the third evaluation set: pictures large enough for perceptual hashes."""
    kept = []
    for clipart in sources.cliparts():
        kind, _, label = clipart.gallery.partition("/")
        if kind == "eval":
            picture = on_white(sources.clipart_image(folder, clipart), EVALUATION_SIDE)
            name = f"clipart/{label}/{clipart.picture.rpartition('/')[2]}.png"
            data = png(few_colours(picture))
            kept.append(Shown(url=name, caption=clipart.caption, data=data))
    for (label, name), caption in EVALUATION_PHOTOGRAPHS.items():
        data = jpeg(on_white(sources.photograph(name), 256), 90)
        kept.append(
            Shown(url=f"clipart/{label}/{name.partition('.')[0]}.jpg", caption=caption, data=data)
        )
    return sorted(kept, key=lambda item: item.url)
