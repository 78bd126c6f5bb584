"""Captions of the shop and the school: varied, natural English that names the true class.

The class is the data set's own label. Shops, brands and praise are invented; nothing is said that the
grey picture could contradict, such as a colour.
"""

from dataclasses import dataclass

from web_builder.choice import pick

BRANDS = (
    "Nordhaven", "Oakline", "Kestrel Row", "Tilda and Finch", "Juniper Road", "Saltmarsh",
    "Brightwater", "Harrow Pine", "Marlowe", "Little Acre", "Copperfield", "Windermoor",
)  # fmt: skip
ADJECTIVES = (
    "classic", "casual", "comfortable", "simple", "stylish", "modern", "everyday", "practical",
    "popular", "timeless", "smart", "well made", "elegant", "favourite", "basic", "lovely",
    "high quality", "versatile", "affordable", "new",
)  # fmt: skip
WEARERS = {
    "any": ("women's", "men's", "unisex", "kids'", "girls'", "boys'"),
    "women": ("women's", "girls'", "ladies'"),
}
VIEWS = (
    "product photo", "black and white photo", "on a black background", "studio picture",
    "front view", "catalogue picture", "in the new collection", "from the winter sale",
    "for everyday wear", "as a gift", "photographed for our catalogue", "on sale this week",
)  # fmt: skip
SIDE_VIEWS = (*(view for view in VIEWS if view != "front view"), "side view", "seen from the side")


@dataclass(frozen=True, kw_only=True)
class Product:
    """The words for one class of Fashion-MNIST."""

    folder: str
    one: tuple[str, ...]
    """what "a" can stand before"""
    bare: tuple[str, ...]
    """what stands without an article"""
    details: tuple[str, ...]
    wearers: str = "any"
    views: tuple[str, ...] = VIEWS


PRODUCTS = (
    Product(
        folder="t-shirt",
        one=("t-shirt", "T-shirt", "t-shirt top", "cotton t-shirt"),
        bare=("t-shirt", "T-shirt", "t-shirt top"),
        details=("that washes well", "for warm summer days", "made of soft cotton", "for the weekend", "to wear at home", "to wear on holiday"),
    ),
    Product(
        folder="trouser",
        one=("pair of trousers", "trouser", "good pair of trousers"),
        bare=("trousers", "pair of trousers"),
        details=("for a day in town", "for work and the weekend", "free of creases", "for the office", "for travelling light", "to go with everything"),
    ),
    Product(
        folder="pullover",
        one=("pullover", "knitted pullover", "warm pullover", "wool pullover"),
        bare=("pullover", "knit pullover", "pullover sweater"),
        details=("for cool evenings", "for a day by the sea", "for autumn and winter", "to keep you warm", "for walks in the hills", "knitted from soft yarn"),
    ),
    Product(
        folder="dress",
        one=("dress", "summer dress", "party dress"),
        bare=("dress", "day dress", "evening dress"),
        details=("for a garden party", "for special occasions", "for a summer wedding", "for warm evenings", "for the office or a dinner", "to dance in"),
        wearers="women",
    ),
    Product(
        folder="coat",
        one=("coat", "winter coat", "warm coat"),
        bare=("coat", "winter coat", "outdoor coat"),
        details=("for cold and windy days", "for the way to work", "with a warm lining", "for rain and snow", "made to last", "for the cold season"),
    ),
    Product(
        folder="sandal",
        one=("sandal", "pair of sandals", "summer sandal"),
        bare=("sandals", "summer sandals", "sandal"),
        details=("for the beach", "for the garden", "for hot days in the city", "for holidays by the sea", "with a soft footbed", "light enough to pack"),
        views=SIDE_VIEWS,
    ),
    Product(
        folder="shirt",
        one=("shirt", "cotton shirt", "everyday shirt"),
        bare=("shirt", "cotton shirt", "casual shirt"),
        details=("for a job interview", "for the office", "in easy care fabric", "for the theatre", "for dinner with friends", "for a long day"),
    ),
    Product(
        folder="sneaker",
        one=("sneaker", "pair of sneakers", "canvas sneaker"),
        bare=("sneakers", "sneaker", "running sneakers"),
        details=("for running and walking", "with a light sole", "for the gym", "for long days in the city", "for playing outside", "for school and play"),
        views=SIDE_VIEWS,
    ),
    Product(
        folder="bag",
        one=("bag", "travel bag", "handy bag"),
        bare=("bag", "everyday bag", "day bag"),
        details=("to take everywhere", "with room for a laptop", "for work and travel", "with an inside pocket", "for shopping in town", "for all your things"),
        wearers="women",
    ),
    Product(
        folder="ankle-boot",
        one=("ankle boot", "pair of ankle boots", "leather ankle boot"),
        bare=("ankle boots", "ankle boot", "winter ankle boots"),
        details=("for rainy days", "for a walk in the woods", "with a firm sole", "for autumn walks", "easy to put on", "for muddy paths"),
        views=SIDE_VIEWS,
    ),
)  # fmt: skip

PRODUCT_TEMPLATES = (
    "{adjective} {bare} by {brand}",
    "{a_adjective} {one} {detail}",
    "{a_adjective} {one}, {view}",
    "{brand} {bare} {detail}",
    "{adjective} {bare} {detail}, {view}",
    "{a_one} {detail}, {view}",
    "{a_one} from {brand}, {view}",
    "{wearers} {bare} {detail}",
    "{wearers} {adjective} {bare} by {brand}, {view}",
    "{view}: {wearers} {bare} {detail}",
    "picture of {a_adjective} {one} by {brand}",
    "photo of {a_one} {detail}",
    "new in: {wearers} {bare} by {brand}",
    "buy {a_adjective} {one} {detail}",
    "our {adjective} {bare} {detail}",
    "{brand} presents {a_adjective} {one}",
    "{a_adjective} {one} from {brand} {detail}",
    "black and white picture of {a_adjective} {one}",
    "{bare}, {adjective} and {second}, {detail}",
    "the {adjective} {bare} everybody asks for, by {brand}",
)

DIGITS = ("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine")
DIGIT_TEMPLATES = (
    "handwritten digit {word}",
    "the number {figure} written by hand",
    "{a_look} handwritten {word}",
    "a {look2} picture of the digit {word}",
    "the digit {figure} in handwriting, {paper}",
    "{paper}: the handwritten number {word}",
    "somebody wrote the number {word}, {paper}",
    "{a_look} scan of a handwritten {figure}, {example}",
    "how people write the digit {word}, {example}",
    "the figure {figure}, drawn by hand, {example}",
    "{a_look} {word} written in white on black",
    "number {word} in handwriting",
    "{a_look} image of the hand-drawn number {figure}",
    "{example}: the digit {word} written with a pen",
    "handwriting practice with the number {word}, {paper}",
    "a {look2} scan of the number {figure}",
    "one handwritten digit, {a_word}",
    "the number {word} ({figure}) as written on a form",
    "learn to read the digit {word}, {example}",
    "white {word} on a black background, written by hand",
)
LOOKS = ("small", "blurred", "coarse", "soft", "simple", "plain", "low resolution", "tiny")
PAPERS = (
    "low resolution scan", "black and white scan", "from a scanned form", "from our number chart",
    "worksheet for beginners", "for reading machines", "part of an exercise", "enlarged view",
)  # fmt: skip
EXAMPLES = (
    "first example", "second example", "third example", "another example", "one more example",
    "an example from a form", "a typical example", "an unusual example",
)  # fmt: skip


def product_caption(product: Product, *key: object) -> str:
    """Return one caption of `product`, fixed by `key`."""
    adjective = pick(ADJECTIVES, "adjective", *key)
    others = [other for other in ADJECTIVES if other not in (adjective, "new")]
    one = pick(product.one, "one", *key)
    caption = pick(PRODUCT_TEMPLATES, "template", *key).format(
        adjective=adjective,
        a_adjective=with_article(adjective),
        second=pick(others, "second", *key),
        one=one,
        a_one=with_article(one),
        bare=pick(product.bare, "bare", *key),
        brand=pick(BRANDS, "brand", *key),
        detail=pick(product.details, "detail", *key),
        view=pick(product.views, "view", *key),
        wearers=pick(WEARERS[product.wearers], "wearers", *key),
    )
    return in_case(caption, *key)


def digit_caption(digit: int, *key: object) -> str:
    """Return one caption of a handwritten `digit`, fixed by `key`."""
    word = DIGITS[digit]
    caption = pick(DIGIT_TEMPLATES, "template", *key).format(
        word=word,
        a_word=with_article(word),
        figure=digit,
        a_look=with_article(pick(LOOKS, "look", *key)),
        look2=pick(LOOKS, "second look", *key),
        paper=pick(PAPERS, "paper", *key),
        example=pick(EXAMPLES, "example", *key),
    )
    return in_case(caption, *key)


def with_article(words: str) -> str:
    """Put "a" or "an" before `words`."""
    begins_with_a_vowel = words[0] in "aeio" and not words.startswith("one")
    return f"{'an' if begins_with_a_vowel else 'a'} {words}"


def in_case(caption: str, *key: object) -> str:
    """Write `caption` as people do: mostly with a capital, sometimes with a full stop."""
    kind = pick(("capital", "capital", "capital", "stop", "small"), "case", *key)
    if kind == "small":
        return caption
    return caption[0].upper() + caption[1:] + ("." if kind == "stop" else "")
