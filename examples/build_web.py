# /// script
# requires-python = ">=3.11"
# dependencies = ["numpy==2.4.6", "pillow==13.0.0", "scikit-image==0.26.0", "scikit-learn==1.9.1"]
# ///
"""Build `examples/web` from the packages its pictures come from, the same bytes every time.

Run from the repository root, on a Debian system with npm, in an environment with witmill and the
packages named above:

    python examples/build_web.py              # writes examples/web
    python examples/build_web.py --check      # says whether examples/web is what would be written
"""

import argparse
import json
import tempfile
from dataclasses import replace
from pathlib import Path

from web_builder import sources
from web_builder.galleries import emoji, evaluation_cliparts, galleries, photographs
from web_builder.junk import blog
from web_builder.mirror import mirror
from web_builder.pictures import opened
from web_builder.shops import Shown, portal, school, shop
from web_builder.site import Site, zipped
from web_builder.trouble import trouble
from web_builder.ways import ways

HERE = Path(__file__).parent
SMALLEST_LARGE_SIDE = 100
CLOSED = {"blog": ["/members/"], "private": ["/closed/"]}


def main() -> None:
    """Write the site, or compare it with what is there."""
    parser = argparse.ArgumentParser(description="Build the miniature web.")
    parser.add_argument("--sources", type=Path, default=Path(tempfile.gettempdir()) / "witmill-web")
    parser.add_argument("--check", action="store_true")
    arguments = parser.parse_args()
    sources.fetch(arguments.sources)
    target = HERE / "web"
    if not arguments.check:
        build(arguments.sources, target)
        return
    with tempfile.TemporaryDirectory() as folder:
        build(arguments.sources, Path(folder))
        written = [path.relative_to(folder) for path in Path(folder).rglob("*") if path.is_file()]
        changed = [p for p in sorted(written) if not _same(Path(folder) / p, target / p)]
    if changed:
        raise SystemExit(f"differ: {', '.join(map(str, changed))}")


def build(packages: Path, target: Path) -> None:
    """Write the site made from `packages` into the folder `target`."""
    site = Site()
    goods, kept_goods = shop(site, packages)
    numbers, kept_numbers = school(site)
    cliparts = galleries(site, packages)
    faces = emoji(site, packages)
    photos = photographs(site)
    kept_cliparts = evaluation_cliparts(packages)
    ways(site, photos)
    blog(site, cliparts)
    mirror(
        site,
        small=[*goods[::10], *numbers[::10], *faces[::10]],
        large=[item for item in [*cliparts, *photos] if _is_large(item)],
        kept_small=[*kept_goods, *kept_numbers[::2]],
        kept_large=[item for item in kept_cliparts if _is_large(item)],
    )
    trouble(site, packages)
    portal(site, sorted(site.files))
    for host in site.files:
        rules = [f"Disallow: {path}\n" for path in CLOSED.get(host, [])] or ["Disallow:\n"]
        site.add(host, "/robots.txt", f"User-agent: *\n{''.join(rules)}")
    kept = [*kept_goods, *kept_numbers, _cut_off(kept_numbers[0]), *kept_cliparts]
    write(site, kept, target)


def write(site: Site, kept: list[Shown], target: Path) -> None:
    """Write the hosts, the evaluation sets and the list of what was planted."""
    (target / "evalsets").mkdir(parents=True, exist_ok=True)
    site.write(target)
    sets: dict[str, dict[str, bytes]] = {}
    for item in kept:
        name, _, file = item.url.partition("/")
        sets.setdefault(name, {})[file] = item.data
    for name, files in sets.items():
        (target / "evalsets" / f"{name}.zip").write_bytes(zipped(files))
    lines = [json.dumps(entry, ensure_ascii=False) for entry in site.planted]
    text = "[\n" + ",\n".join(lines) + "\n]\n"
    (target / "planted.json").write_text(text, encoding="utf-8")


def _cut_off(item: Shown) -> Shown:
    """Return a picture of an evaluation set of which half is missing."""
    data = item.data[: len(item.data) // 2]
    return replace(item, url=item.url.replace(".png", "-cut-off.png"), data=data)


def _is_large(item: Shown) -> bool:
    return min(opened(item.data).size) >= SMALLEST_LARGE_SIDE


def _same(one: Path, other: Path) -> bool:
    return other.exists() and one.read_bytes() == other.read_bytes()


if __name__ == "__main__":
    main()
