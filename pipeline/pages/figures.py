"""Where each `<figure>` of a page and its caption end, told from the tags alone.

A stack holds the elements within the outermost figure that can close one another. What might close the
figure itself, such as the end of an element that began before it, is a doubt, and the page is then left
to the parser.
"""

# ruff: noqa: C901, SIM109
# Calls with arrays cost as much as a tag, and numba has neither generators nor fast tuples.

from pipeline.matching.trie_tables import Ids, Offsets
from pipeline.pages.tags import (
    BARRIER,
    BUTTON,
    CELL,
    DD,
    FIGCAPTION,
    FIGURE,
    HEADING,
    LI,
    LOOSE,
    ROW,
    TABLE,
    word_of,
)
from pipeline.runtime.compiled import compiled, inlined

MAX_FIGURES = 4096
STACK_ROWS = 64

# Places of the state in `found`.
DEPTH, FIGURE_NOW, FIGURES, FIGURE_DOUBT, CAPTIONS, OPEN_BUTTONS = range(6)
# Columns of the stack; a figure's and a caption's NUMBER is the figure's.
WORD, CODE, NUMBER = range(3)

_UL, _OL = word_of("ul"), word_of("ol")


@inlined
def is_barrier(code: int) -> bool:
    """Return whether end tags look no further than an element of this code."""
    return code == TABLE or code == CELL or code == BARRIER


@compiled
def cut(stack: Offsets, captions: Ids, found: Offsets, depth: int, at: int) -> None:
    """Close the elements from `depth` on, of which captions then end at `at`."""
    for row in range(depth, found[DEPTH]):
        number = stack[row, NUMBER]
        if stack[row, CODE] == FIGCAPTION and number >= 0 and captions[number, 1] < 0:
            captions[number, 1] = at
    found[DEPTH] = depth
    found[FIGURE_NOW] = -1
    for row in range(depth - 1, -1, -1):
        if stack[row, CODE] == FIGURE:
            found[FIGURE_NOW] = stack[row, NUMBER]
            return


@compiled
def find(stack: Offsets, depth: int, code: int) -> int:
    """Return the innermost element of `code`, or -1."""
    row = depth - 1
    while row >= 0 and stack[row, CODE] != code:
        row -= 1
    return row


@compiled
def enter(
    stack: Offsets, captions: Ids, found: Offsets, word: int, code: int, at: int, after: int
) -> None:
    """Note the start tag from `at` to `after` of an element within a figure, or of a figure."""
    depth = found[DEPTH]
    number = -1
    if depth == STACK_ROWS:
        found[FIGURE_DOUBT] = 1
        return
    if code == FIGURE:
        if found[FIGURES] == MAX_FIGURES or (depth == 0 and found[OPEN_BUTTONS] > 0):
            found[FIGURE_DOUBT] = 1
            return
        number = found[FIGURES]
        captions[number, 0] = captions[number, 1] = -1
        found[FIGURES] += 1
        found[FIGURE_NOW] = number
    elif code == FIGCAPTION:
        number = start_caption(stack, captions, found, after)
    elif code == BUTTON:
        row = find(stack, depth, BUTTON)
        if row >= 0:
            cut(stack, captions, found, row, at)
    elif code == LI or code == DD:
        row = depth - 1
        while row >= 0 and stack[row, CODE] == LOOSE:
            row -= 1
        if row >= 0 and stack[row, CODE] == code:
            cut(stack, captions, found, row, at)
    elif code == HEADING and depth > 0 and stack[depth - 1, CODE] == HEADING:
        found[FIGURE_DOUBT] = 1
    elif code == TABLE:
        row = depth - 1
        while row >= 0 and not is_barrier(stack[row, CODE]):
            row -= 1
        if find(stack, depth, FIGCAPTION) >= 0 or (row >= 0 and stack[row, CODE] == TABLE):
            found[FIGURE_DOUBT] = 1
    elif code == CELL or code == ROW:
        row = find(stack, depth, TABLE)
        if row < 0:
            found[FIGURE_DOUBT] = 1
            return
        cut(stack, captions, found, row + 1, at)
        if code == ROW:
            return
    depth = found[DEPTH]
    stack[depth, WORD], stack[depth, CODE], stack[depth, NUMBER] = word, code, number
    found[DEPTH] = depth + 1


@compiled
def start_caption(stack: Offsets, captions: Ids, found: Offsets, after: int) -> int:
    """Return the number of the figure that a caption beginning at `after` belongs to, or -1."""
    row = found[DEPTH] - 1
    while row >= 0 and stack[row, CODE] != FIGURE:
        if is_barrier(stack[row, CODE]):
            found[FIGURE_DOUBT] = 1
        row -= 1
    number = found[FIGURE_NOW]
    if number < 0 or captions[number, 0] >= 0:
        return -1
    captions[number, 0] = after
    return int(number)


@compiled
def leave(stack: Offsets, captions: Ids, found: Offsets, word: int, code: int, at: int) -> None:
    """Note the end tag at `at` of an element, while a figure is open."""
    in_table = code == TABLE or code == CELL or code == ROW
    row = found[DEPTH] - 1
    while row >= 0:
        its = stack[row, CODE]
        if code == ROW and its == TABLE:
            cut(stack, captions, found, row + 1, at)
            return
        if stack[row, WORD] == word or (code == HEADING and its == HEADING):
            cut(stack, captions, found, row, at)
            return
        if its == TABLE or (not in_table and is_barrier(its)):
            return
        if code == LI and (stack[row, WORD] == _UL or stack[row, WORD] == _OL):
            return
        row -= 1
    found[FIGURE_DOUBT] = 1
