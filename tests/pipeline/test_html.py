import time

import pytest

from pipeline.html import decode_page, find_images, largest_of_srcset
from pipeline.pairs import BrokenRecord, Reference, Skipped

PAGE = "http://h.example/d/p.html"


def images(page: str | bytes, charset: str | None = None) -> list[Reference | Skipped]:
    data = page if isinstance(page, bytes) else page.encode()
    return list(find_images(data, page_url=PAGE, charset=charset, offset=5))


def urls(page: str) -> list[str]:
    return [i.url if isinstance(i, Reference) else i.reason for i in images(page)]


def captions(page: str | bytes, charset: str | None = None) -> list[str]:
    return [i.caption for i in images(page, charset) if isinstance(i, Reference)]


def test_an_image_is_found_with_address_and_text() -> None:
    expected = Reference("http://h.example/d/a.jpg", "A dog & a cat", "alt", PAGE, 5)
    assert images('<p><IMG SRC=a.jpg ALT="A dog &amp; a cat">') == [expected]


@pytest.mark.parametrize(
    ("attributes", "url"),
    [
        ('src="a.jpg" data-src="b.jpg"', "http://h.example/d/b.jpg"),
        ('src="a.jpg" data-src="data:image/gif;base64,R0"', "http://h.example/d/a.jpg"),
        ('src="a.jpg" data-src="true"', "http://h.example/d/a.jpg"),
        ('src="a.jpg" srcset="b.jpg 2x"', "http://h.example/d/a.jpg"),
        ('src="data:,x" srcset="b.jpg 1x, c.jpg 2x"', "http://h.example/d/c.jpg"),
        ('src="blank.gif" data-srcset="b.jpg 100w, c.jpg 50w"', "http://h.example/d/b.jpg"),
        ('srcset="b.jpg"', "http://h.example/d/b.jpg"),
        ('src="data:,x"', "data_url"),
        ('src="blob:abc" data-src="data:,x"', "bad_scheme"),
        ('data-src="data:image/gif;base64,R0"', "data_url"),
        ('src="http://[/"', "bad_url"),
        ('src=" "', "no_url"),
        ("", "no_url"),
    ],
)
def test_the_first_usable_address_counts(attributes: str, url: str) -> None:
    assert urls(f"<img {attributes} alt=text>") == [url]


def test_a_picture_gives_an_address_where_the_image_has_none() -> None:
    sources = '<source srcset="s.webp 1x, l.webp 3x"><source data-srcset="z.jpg">'
    assert urls(f"<picture>{sources}<img alt=text></picture>") == ["http://h.example/d/l.webp"]
    assert urls(f'<picture>{sources}<img src="a.jpg" alt=text></picture>') == [
        "http://h.example/d/a.jpg"
    ]


@pytest.mark.parametrize(
    ("srcset", "largest"),
    [
        ("a.jpg 100w, b.jpg 300w,c.jpg 200w", "b.jpg"),
        ("a.jpg, b.jpg 2x", "b.jpg"),
        ("a.jpg 2x, b.jpg 2.0x", "a.jpg"),
        ("a,b.jpg 2x, c.jpg", "a,b.jpg"),
        ("data:image/gif;base64,AA== 1x, b.jpg 2x", "b.jpg"),
        ("a.jpg -5w", "a.jpg"),
        (" , ,, ", None),
        ("x" * 20_000, None),
    ],
)
def test_the_largest_of_a_srcset(srcset: str, largest: str | None) -> None:
    assert largest_of_srcset(srcset) == largest


def test_addresses_stand_relative_to_the_base() -> None:
    assert urls("<base href='/r/'><img src=a.jpg alt=x>") == ["http://h.example/r/a.jpg"]
    assert urls("<base target=_top><base href=//b/><img src=a alt=x>") == ["http://b/a"]
    assert urls("<base href='data:,'><img src=a.jpg alt=x>") == ["http://h.example/d/a.jpg"]


def test_images_without_scripts_count_and_those_in_comments_scripts_and_templates_do_not() -> None:
    page = (
        "<noscript><img src=1 alt=x></noscript><!-- <img src=2 alt=x> -->"
        "<script>'<img src=3 alt=x>'</script><template><img src=4 alt=x></template>"
        "<textarea><img src=5 alt=x></textarea>"
    )
    assert urls(page) == ["http://h.example/d/1"]


def test_each_image_is_one_row() -> None:
    found = images("<img><img src=a><img src=a alt=''><img src=a alt=b><img src=a alt=b>")
    reasons = [i.reason if isinstance(i, Skipped) else "pair" for i in found]
    assert reasons == ["no_url", "no_caption", "no_caption", "pair", "pair"]


@pytest.mark.parametrize(
    ("page", "charset"),
    [
        ("<img src=a alt='Käse и 犬'>".encode(), "utf-8"),
        ("<img src=a alt='Käse и 犬'>".encode(), None),
        ("\ufeff<img src=a alt='Käse и 犬'>".encode(), "iso-8859-1"),
        ("\ufeff<img src=a alt='Käse и 犬'>".encode("utf-16-le"), None),
        ("<img src=a alt='Käse и 犬'>".encode(), "no-such-charset"),
    ],
)
def test_marks_and_headers_tell_the_encoding(page: bytes, charset: str | None) -> None:
    assert captions(page, charset) == ["Käse и 犬"]


@pytest.mark.parametrize(
    ("text", "encoding", "label"),
    [
        ("Сыр и собака", "windows-1251", "windows-1251"),
        ("“Käse”", "cp1252", "iso-8859-1"),
        ("犬と猫", "euc-jp", "EUC-JP"),
        ("狗和猫", "gbk", "gb2312"),
    ],
)
def test_header_or_meta_name_an_old_encoding(text: str, encoding: str, label: str) -> None:
    image = f"<img src=a alt='{text}'>".encode(encoding)
    assert captions(image, label) == [text]
    assert captions(f"<meta charset={label}>".encode() + image) == [text]
    meta = f"<meta http-equiv=Content-Type content='text/html; charset={label}'>".encode()
    assert captions(meta + image) == [text]
    assert captions(b"<meta charset=utf-8>" + image, label) == [text]


@pytest.mark.parametrize(
    ("text", "encoding"),
    [
        ("Сыр лежит на столе, а собака смотрит на него и ждёт", "windows-1251"),
        ("Le café est très bon à l’été", "windows-1252"),
        ("犬と猫が好きです。今日はいい天気ですね", "shift-jis"),
        ("개와 고양이는 집에 있습니다", "euc-kr"),
    ],
)
def test_an_undeclared_encoding_is_guessed(text: str, encoding: str) -> None:
    page = f"<html><p>{text * 5}<img src=a alt='{text}'>"
    assert captions(page.encode(encoding)) == [text]


def test_wrong_bytes_zero_bytes_and_surrogates_do_no_harm() -> None:
    assert captions(b"<img src=a alt='a\xffb&#xD800;&#0;c'>", "utf-8") == ["a\ufffdb\ufffd\ufffdc"]
    assert decode_page(b"", None) == ""


@pytest.mark.parametrize(
    "page",
    [
        "<font><div>" * 40_000 + "</font>" * 40_000 + "<img src=a alt=b>",
        "<img " + " ".join(f"a{i}=x" for i in range(100_000)) + " src=a alt=b>",
    ],
    ids=["nested", "attributes"],
)
def test_a_page_made_to_keep_the_parser_busy_is_refused(page: str) -> None:
    begun = time.monotonic()
    with pytest.raises(BrokenRecord, match="more than"):
        images(page)
    assert time.monotonic() - begun < 5


def test_many_images_of_one_picture_take_linear_time() -> None:
    begun = time.monotonic()
    page = "<picture>" + "<source srcset='data:x 1x'>" * 2000 + "<img alt=x>" * 2000 + "</picture>"
    assert len(images(page)) == 2000
    assert time.monotonic() - begun < 5
