"""The shop (Fashion-MNIST) and the school (handwritten digits), and the sets kept off them."""

from dataclasses import dataclass
from pathlib import Path

from PIL import Image

from web_builder import sources
from web_builder.captions import DIGITS, PRODUCTS, digit_caption, product_caption
from web_builder.choice import number, pick, shuffled
from web_builder.pictures import png
from web_builder.site import Site, figure, img, listing, page, url

SHOP_PER_CLASS = 500
SHOP_EVALUATION_PER_CLASS = 125
SCHOOL_EVALUATION_PER_CLASS = 30
SCHOOL_PICTURES = 1300
SHOP = "Alder Street Store"
SCHOOL = "Hand and Number"


@dataclass(frozen=True, kw_only=True)
class Shown:
    """A picture of the site, or of an evaluation set, with a true caption."""

    url: str
    """its URL, or SET/CLASS/NAME in an evaluation set"""
    caption: str
    data: bytes


def shop(site: Site, folder: Path) -> tuple[list[Shown], list[Shown]]:
    """Add the shop; return what it shows and what is kept for evaluation."""
    shown: list[Shown] = []
    kept: list[Shown] = []
    links = [("/", "Home"), *((f"/{p.folder}/1.html", p.folder) for p in PRODUCTS)]
    links += [("/offers/1.html", "Offers"), ("/offers/2.html", "More offers")]
    logo = site.add("shop", "/logo.png", png(_logo()))
    for product in PRODUCTS:
        pictures = sources.fashion(folder)[product.folder]
        items = []
        for position in range(SHOP_PER_CLASS):
            caption = product_caption(product, product.folder, position)
            code = 10_000 + PRODUCTS.index(product) + 10 * position
            data = png(Image.fromarray(pictures[position]))
            address = site.add("shop", f"/p/{code}.png", data)
            shown.append(Shown(url=address, caption=caption, data=data))
            items.append(_card(f"/p/{code}.png", caption, code))
        for position in range(SHOP_PER_CLASS, SHOP_PER_CLASS + SHOP_EVALUATION_PER_CLASS):
            name = f"fashion/{product.folder}/{position:04}.png"
            caption = product_caption(product, product.folder, position)
            kept.append(
                Shown(url=name, caption=caption, data=png(Image.fromarray(pictures[position])))
            )
        header = [f"<p>{img(logo, SHOP)}</p>", f"<p>All our {product.bare[0]} at a glance.</p>"]
        items[0] = "\n".join([*header, items[0]])
        listing(
            site, "shop", f"/{product.folder}", product.bare[0].capitalize(), items,
            brand=SHOP, per_page=50, links=links,
        )  # fmt: skip
    _offers(site, shown, links)
    welcome = [f"<p>{img(logo, SHOP)}</p>", "<p>Clothes, shoes and bags since last week.</p>"]
    site.add("shop", "/", page("Welcome", welcome, brand=SHOP, links=links))
    return shown, kept


def _offers(site: Site, shown: list[Shown], links: list[tuple[str, str]]) -> None:
    """Add two pages that show goods again: with another caption, and with the same twice."""
    chosen = shuffled(shown, "offers")
    renamed = [
        (item, f"Reduced today: {item.caption[0].lower()}{item.caption[1:]}") for item in chosen[:8]
    ]
    repeated = [(item, item.caption) for item in chosen[8:16]]
    for turn, items in ((1, renamed + repeated), (2, repeated)):
        path = f"/offers/{turn}.html"
        cards = [figure(item.url, caption) for item, caption in items]
        at = site.add("shop", path, page(f"Offers {turn}", cards, brand=SHOP, links=links))
        for item, caption in items:
            case = "same_pair" if caption == item.caption else "same_url"
            site.plant(case, item.url, caption, at, of=item.url)


def _card(src: str, caption: str, code: int) -> str:
    price = 9 + number("price", code) % 90
    stock = pick(("In stock", "Few left", "Back soon"), "stock", code)
    return (
        f'<article id="p{code}">{img(src, caption, width=28, height=28)}'
        f"<p>{price}.95 EUR</p><p>{stock}</p></article>"
    )


def _logo() -> Image.Image:
    logo = Image.new("RGB", (120, 40), "white")
    logo.paste((30, 90, 60), (4, 4, 36, 36))
    logo.paste((230, 180, 40), (14, 14, 26, 26))
    return logo


def school(site: Site) -> tuple[list[Shown], list[Shown]]:
    """Add the school; return what it shows and what is kept for evaluation."""
    shown: list[Shown] = []
    kept: list[Shown] = []
    links = [("/", "Home"), *((f"/{word}/1.html", word) for word in DIGITS)]
    items: dict[int, list[str]] = {digit: [] for digit in range(10)}
    seen = [0] * 10
    for position, (digit, picture) in enumerate(sources.digits()):
        data, seen[digit] = png(picture), seen[digit] + 1
        caption = digit_caption(digit, digit, position)
        if seen[digit] <= SCHOOL_EVALUATION_PER_CLASS:
            name = f"digits/{DIGITS[digit]}/{position:04}.png"
            kept.append(Shown(url=name, caption=caption, data=data))
        elif len(shown) < SCHOOL_PICTURES:
            address = site.add("school", f"/scans/{position:04}.png", data)
            shown.append(Shown(url=address, caption=caption, data=data))
            items[digit].append(figure(f"/scans/{position:04}.png", caption))
    for digit, word in enumerate(DIGITS):
        listing(
            site, "school", f"/{word}", f"The number {word}", items[digit],
            brand=SCHOOL, per_page=45, links=links,
        )  # fmt: skip
    site.add(
        "school",
        "/",
        page("Learn to read numbers", ["<p>Choose one.</p>"], brand=SCHOOL, links=links),
    )
    return shown, kept


def portal(site: Site, hosts: list[str]) -> None:
    """Add the page that leads to the front page of every host."""
    links = [(url(host, "/"), host) for host in hosts]
    text = page("All sites", ["<p>A miniature web.</p>"], brand="Portal", links=links)
    site.add("portal", "/", text)
