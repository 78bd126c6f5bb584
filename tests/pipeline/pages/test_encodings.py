import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.pages.encodings import as_utf8, decode_page


def decoded(page: bytes, charset: str | None = None) -> str:
    """Return the text of the page's image, which both ways must agree on."""
    text = decode_page(page, charset)
    assert str(as_utf8(page, charset), "utf-8", "replace") == text
    return text.partition("alt='")[2].partition("'")[0]


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
    assert decoded(page, charset) == "Käse и 犬"


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
    assert decoded(image, label) == text
    assert decoded(f"<meta charset={label}>".encode() + image) == text
    meta = f"<meta http-equiv=Content-Type content='text/html; charset={label}'>".encode()
    assert decoded(meta + image) == text
    assert decoded(b"<meta charset=utf-8>" + image, label) == text


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
    assert decoded(page.encode(encoding)) == text


def test_wrong_bytes_do_no_harm() -> None:
    assert decoded(b"<img src=a alt='a\xffb'>", "utf-8") == "a\ufffdb"
    assert decode_page(b"", None) == ""


@given(st.binary(max_size=60), st.sampled_from([None, "utf-8", "windows-1251", "shift_jis", "x"]))
def test_any_bytes_have_one_text(page: bytes, charset: str | None) -> None:
    text = decode_page(memoryview(page), charset)
    assert str(as_utf8(page, charset), "utf-8", "replace") == text
    assert decode_page(page, charset) == text
