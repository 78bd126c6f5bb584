import pytest

from pipeline.fetching.refusals import FetchRefused
from pipeline.fetching.robots_tag import agents_of, check_headers, forbidding_directive


@pytest.mark.parametrize(
    ("value", "forbidden"),
    [
        ("noai", "noai"),
        ("NoImageAI", "noimageai"),
        ("nofollow, noindex", "noindex"),
        ("none", "none"),
        ("witmill: noai", "noai"),
        ("*: noimageindex", "noimageindex"),
        ("googlebot: noindex", None),
        ("googlebot: nofollow, noindex", None),
        ("googlebot: noindex, witmill: noai", "noai"),
        ("unavailable_after: 25 Jun 2010 15:00:00 PST, noai", "noai"),
        ("max-snippet: 20, noindex", "noindex"),
        ("tdm-reservation: 1", "tdm-reservation"),
        ("googlebot: tdm-reservation: 1", None),
        ("witmill: tdm-reservation: 1", "tdm-reservation"),
        ("tdm-reservation: 0, noai", "noai"),
        ("tdm-reservation", None),
        ("all", None),
        ("nofollow", None),
        ("noaitch", None),
        ("noai: x", "noai"),
        ("noindex:", "noindex"),
        ("noai noimageai", "noai"),
        ("all; noai", "noai"),
        ("witmill/2: noai", "noai"),
        ("360spider: noai", None),
        ("max-image-preview: none", None),
        ("unavailable_after: Wed, 25 Jun 2025 15:00:00 GMT, noai", "noai"),
        ("unavailable_after: 25 Jun 2025, 15:00:00 GMT, noai", "noai"),
        ("googlebot: unavailable_after: Wed, 25 Jun 2025 15:00:00 GMT, noai", None),
        (":,::,", None),
        ("", None),
    ],
)
def test_robots_directives_are_read_as_their_owner_meant(value, forbidden):
    assert forbidding_directive(value, {"witmill"}) == forbidden


def test_the_reservation_of_mining_has_a_header_of_its_own():
    with pytest.raises(FetchRefused, match="tdm_reservation"):
        check_headers([("tdm-reservation", " 1")], ["witmill"])
    check_headers([("tdm-reservation", "0"), ("x-robots-tag", "all")], ["witmill"])


def test_every_header_of_a_name_is_read():
    headers = [("x-robots-tag", "nofollow"), ("x-robots-tag", "img2dataset: noai")]
    with pytest.raises(FetchRefused, match="robots_tag: noai"):
        check_headers(headers, agents_of("witmill/1"))


def test_our_own_name_is_the_one_before_the_version():
    assert agents_of("WitMill/1.0 (+https://example.org)") == ("witmill", "img2dataset")
    assert agents_of("bot")[0] == "bot"
