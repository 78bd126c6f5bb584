"""Find the address of an image and make it a URL, where `pipeline.pages.urls` would do so in a plain way."""

# ruff: noqa: C901, SIM109, SIM110
# Calls with arrays cost as much as a tag, and numba has neither generators nor fast tuples.

from pipeline.inputs.pairs import MAX_SEEN_CHARACTERS
from pipeline.matching.trie_tables import Bytes, Ids, Offsets
from pipeline.pages.html_tokens import is_letter
from pipeline.pages.tags import FIRST_SRCSET, SRC, SRCSET
from pipeline.pages.urls import MAX_URL_CHARACTERS
from pipeline.pages.value_kernels import count_characters, is_blank, is_digit, is_text, unescape
from pipeline.runtime.compiled import inlined

# Places in what describes the base: lengths of its scheme, origin and folder, 0 where it is not plain.
SCHEME, ORIGIN, FOLDER = range(3)
# What became of an address, in place of its end.
NOT_PLAIN, NO_ADDRESS, DATA = -1, -2, -3

_MAX_SRCSET_CHARACTERS = 16_384
_MICRO = 1_000_000
_SLASH, _COLON, _SEMICOLON, _DOT, _QUESTION, _HASH, _BACKSLASH, _COMMA = b"/:;.?#\\,"


@inlined
def host_end(text: Bytes, i: int, end: int) -> int:
    """Return the end of the host and port at `i` if they are plain, else -1."""
    start = i
    while i < end:
        c = text[i]
        if not (is_letter(c) or is_digit(c) or c == _DOT or c == 0x5F or c == 0x2D):
            break
        i += 1
    if i == start or not (is_letter(text[i - 1]) or is_digit(text[i - 1])):
        return -1
    if i < end and text[i] == _COLON:
        first = i + 1
        i = first
        while i < end and is_digit(text[i]):
            i += 1
        if i == first or i - first > 4 or text[first] == 48:
            return -1
    return i if i == end or text[i] == _SLASH else -1


@inlined
def is_dots(text: Bytes, i: int, end: int) -> bool:
    """Return whether a segment at `i` might be "." or ".."."""
    while i < end and text[i] == _DOT:
        i += 1
    return i == end or text[i] == _SLASH or text[i] == _QUESTION or text[i] == _SEMICOLON


@inlined
def is_plain_path(text: Bytes, i: int, end: int, is_joined: bool, is_relative: bool) -> bool:
    """Return whether `text[i:end]` stays as it is but for quoting, joined to a base or without."""
    if end > i and text[end - 1] == _QUESTION:
        return False
    before = 0
    for k in range(i, end):
        c = text[k]
        if c < 0x20 or c == 0x7F or c == _HASH or c == _BACKSLASH:
            return False
        if is_joined and before == _SLASH and c == _DOT and is_dots(text, k, end):
            return False
        if is_relative and (c == _COLON or c == _SEMICOLON or (c == _SLASH and before == _SLASH)):
            return False
        before = c
    return True


@inlined
def is_data(text: Bytes, start: int, end: int) -> bool:
    """Return whether an address begins with `data:`, in any case."""
    if end - start < 5 or text[start + 4] != _COLON:
        return False
    for k in range(4):
        if (text[start + k] | 32) != b"data"[k]:
            return False
    return True


@inlined
def prefix_length(text: Bytes, start: int, end: int, lengths: Offsets) -> int:
    """Return how much of the base belongs before the address `text[start:end]`, or NOT_PLAIN."""
    if end - start > 7 and is_text(text, start, b"http"):
        at = start + 5 if text[start + 4] == 0x73 else start + 4
        if text[at] == _COLON and text[at + 1] == _SLASH and text[at + 2] == _SLASH:
            host = host_end(text, at + 3, end)
            is_plain = host > 0 and is_plain_path(text, host, end, False, False)
            return 0 if is_plain else NOT_PLAIN
    if text[start] != _SLASH:
        is_joinable = lengths[FOLDER] > 0 and text[start] != _DOT and text[start] != _QUESTION
        is_plain = is_joinable and is_plain_path(text, start, end, True, True)
        return lengths[FOLDER] if is_plain else NOT_PLAIN
    if lengths[ORIGIN] == 0:
        return NOT_PLAIN
    if end - start > 1 and text[start + 1] == _SLASH:
        host = host_end(text, start + 2, end)
        is_plain = host > 0 and is_plain_path(text, host, end, False, False)
        return lengths[SCHEME] if is_plain else NOT_PLAIN
    return lengths[ORIGIN] if is_plain_path(text, start, end, True, False) else NOT_PLAIN


@inlined
def shift(text: Bytes, start: int, end: int, by: int) -> None:
    """Move `text[start:end]` by so many places, forward or back."""
    if by > 0:
        for i in range(end - 1, start - 1, -1):
            text[i + by] = text[i]
    elif by < 0:
        for i in range(start, end):
            text[i + by] = text[i]


@inlined
def trim(text: Bytes, start: int, end: int) -> int:
    """Remove outer control characters and spaces, and a leading "./"; return the new end."""
    first = start
    while first < end and text[first] <= 32:
        first += 1
    while end > first and text[end - 1] <= 32:
        end -= 1
    is_here = end - first > 2 and text[first] == _DOT and text[first + 1] == _SLASH
    if is_here and text[first + 2] != _SLASH and not has_colon(text, first, end):
        first += 2
    shift(text, first, end, start - first)
    return end - (first - start)


@inlined
def has_colon(text: Bytes, start: int, end: int) -> bool:
    """Return whether `text[start:end]` has a colon, and so might be taken for another address."""
    for k in range(start, end):
        if text[k] == _COLON:
            return True
    return False


@inlined
def quote(text: Bytes, start: int, end: int) -> int:
    """Percent-encode spaces and what is not ASCII; return the new end, or NOT_PLAIN if it is no UTF-8."""
    more = 0
    for i in range(start, end):
        if text[i] >= 0x80 or text[i] == 32:
            more += 2
    if more == 0:
        return end
    if count_characters(text, start, end) < 0:
        return NOT_PLAIN
    o = end + more
    for i in range(end - 1, start - 1, -1):
        c = text[i]
        if c >= 0x80 or c == 32:
            o -= 3
            text[o], text[o + 1], text[o + 2] = 0x25, hex_letter(c >> 4), hex_letter(c & 15)
        else:
            o -= 1
            text[o] = c
    return end + more


@inlined
def hex_letter(digit: int) -> int:
    """Return the hexadecimal digit of a value, in capitals."""
    return digit + 48 if digit < 10 else digit + 55


@inlined
def is_bare_word(text: Bytes, start: int, end: int) -> bool:
    """Return whether a value has neither slash nor dot, so is a script's own business."""
    for k in range(start, end):
        if text[k] == _SLASH or text[k] == _DOT:
            return False
    return True


@inlined
def descriptor_size(text: Bytes, i: int, end: int) -> int:
    """Return the width or density that `text[i:end]` states, in millionths; 1 without one."""
    while i < end and is_blank(text[i]):
        i += 1
    while end > i and is_blank(text[end - 1]):
        end -= 1
    if end == i or (text[end - 1] != 0x77 and text[end - 1] != 0x78):
        return _MICRO
    whole = part = 0
    first = i
    while i < end - 1 and is_digit(text[i]):
        whole = whole * 10 + text[i] - 48 if i - first < 6 else whole
        i += 1
    if i == first or i - first > 6:
        return _MICRO
    if text[i] == _DOT:
        i += 1
        first, unit = i, _MICRO
        while i < end - 1 and is_digit(text[i]):
            unit //= 10
            part += (text[i] - 48) * unit
            i += 1
        if i == first or i - first > 6:
            return _MICRO
    return whole * _MICRO + part if i == end - 1 else _MICRO


@inlined
def keep_largest(text: Bytes, start: int, end: int) -> int:
    """Leave of a `srcset` the address of the largest entry; return its end, `start` if there is none.

    NOT_PLAIN if it has other characters than ASCII, or too many.
    """
    if end - start > _MAX_SRCSET_CHARACTERS:
        return NOT_PLAIN
    best, best_start, best_end = -1, start, start
    i = start
    while i < end:
        if text[i] >= 0x80:
            return NOT_PLAIN
        if is_blank(text[i]) or text[i] == _COMMA:
            i += 1
            continue
        first = i
        while i < end and not is_blank(text[i]):
            if text[i] >= 0x80:
                return NOT_PLAIN
            i += 1
        last, described = i, i
        if text[i - 1] != _COMMA:
            while i < end and text[i] != _COMMA:
                if text[i] >= 0x80:
                    return NOT_PLAIN
                i += 1
        size = descriptor_size(text, described, i)
        if size > best:
            while text[last - 1] == _COMMA:
                last -= 1
            best, best_start, best_end = size, first, last
    shift(text, best_start, best_end, start - best_start)
    return start + best_end - best_start


@inlined
def join(text: Bytes, start: int, end: int, base: Bytes, lengths: Offsets) -> int:
    """Make the address `text[start:end]` a URL; return its end, DATA or NOT_PLAIN."""
    end = trim(text, start, end)
    if end == start or end - start > MAX_URL_CHARACTERS:
        return DATA if is_data(text, start, end) else NOT_PLAIN
    if is_data(text, start, end):
        return DATA
    added = prefix_length(text, start, end, lengths)
    if added < 0:
        return NOT_PLAIN
    end = quote(text, start, end)
    if end < 0 or end - start + added > MAX_URL_CHARACTERS:
        return NOT_PLAIN
    shift(text, start, end, added)
    for i in range(added):
        text[start + i] = base[i]
    return end + added


@inlined
def write_address(
    page: Bytes,
    images: Ids,
    row: int,
    base: Bytes,
    lengths: Offsets,
    urls: Bytes,
    start: int,
    is_json: bool,
    seen: Offsets,
) -> int:
    """Write the URL of the image in `row` to `urls` from `start`; return its end, or what became of it.

    Of an image that has nothing but its own bytes, the beginning of these is written and its end put
    into `seen`.
    """
    data = -1
    for k in range(SRCSET + 1):
        at = images[row, 2 * k]
        if at < 0 or at == images[row, 2 * k + 1]:
            continue
        end = unescape(page, at, images[row, 2 * k + 1], urls, start, is_json, seen)
        if end < 0 or end == start:
            return NOT_PLAIN
        if k >= FIRST_SRCSET and k != SRC:
            end = keep_largest(urls, start, end)
            if end == start:
                continue
        elif k != SRC and is_bare_word(urls, start, end):
            continue
        end = join(urls, start, end, base, lengths) if end >= 0 else NOT_PLAIN
        if end != DATA:
            return end
        if data < 0 or (data < SRC and k >= SRC):
            data = k
    if data < 0:
        return NO_ADDRESS
    if data >= FIRST_SRCSET and data != SRC:
        return NOT_PLAIN
    return start_of_data(
        page, images[row, 2 * data], images[row, 2 * data + 1], urls, start, is_json, seen
    )


@inlined
def start_of_data(
    page: Bytes, i: int, end: int, urls: Bytes, start: int, is_json: bool, seen: Offsets
) -> int:
    """Write what a drop shows of an address that is the image itself; return DATA or NOT_PLAIN."""
    stop = unescape(page, i, end, urls, start, is_json, seen)
    stop = min(stop, start + MAX_SEEN_CHARACTERS)
    for k in range(start, stop):
        if urls[k] >= 0x80:
            return NOT_PLAIN
    seen[0] = stop
    return DATA
