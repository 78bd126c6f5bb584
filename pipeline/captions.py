"""Drop captions that describe no image: file names, placeholders, keyword lists, codes, markup.

Rules are few and plain; each drop names the first that applied. Thresholds were set by reading what
they drop of real alternative texts.
"""

import re
import unicodedata
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass

import pyarrow as pa
import pyarrow.compute as pc
from pydantic import Field

from pipeline import schemas
from pipeline.errors import ConfigError
from pipeline.runtime.executor import Executor
from pipeline.runtime.manifest import Manifest, Outcome, Part
from pipeline.runtime.settings import Settings
from pipeline.runtime.stage import TaskOutput, begin
from pipeline.runtime.workspace import Workspace

_DETAIL_CHARACTERS = 120


class CaptionsConfig(Settings):
    """Drop captions that describe no image: file names, placeholders, keyword lists, codes, markup."""

    min_words: int = Field(2, ge=0)
    """fewest words of a caption; where words are not spaced, each character is one"""
    min_characters: int = Field(5, ge=0)
    """fewest characters of a caption"""
    max_characters: int = Field(1000, ge=1)
    """most characters of a caption; the text encoder reads about 300"""
    max_items: int = Field(9, ge=1)
    """most short items between commas before a caption is a list of keywords"""
    max_repeated_share: float = Field(0.5, ge=0, le=1)
    """most that repeats may make up of a caption's words, from eight words on"""
    min_letter_share: float = Field(0.4, ge=0, le=1)
    """fewest letters among the characters that are not white space"""
    disabled: tuple[str, ...] = ()
    """rules not to apply, by the reason they give"""


@dataclass(frozen=True, kw_only=True)
class Rule:
    """A reason to drop a caption, what it means, and which captions it meets (a boolean array)."""

    reason: str
    about: str
    applies: Callable[[pa.Array, CaptionsConfig], pa.Array]


# One word is a run of letters and digits, joined by apostrophes and hyphens, or one character of a
# script that puts no spaces.
_WORD = r"[\p{Han}\p{Hiragana}\p{Katakana}\p{Thai}\p{Lao}\p{Khmer}\p{Myanmar}]|[\p{L}\p{M}\p{N}]+(?:['’-][\p{L}\p{M}\p{N}]+)*"
_IMAGE_FILE = r"\.(?:jpe?g|jfif|png|gif|webp|avif|bmp|tiff?|svg|heic|psd|ico)"

_FILE_NAME_OR_URL = rf"""(?ix)^[\s"'(\[]* (?:
    (?: https?:// | ftp:// | www\. ) \S+
  | \S+ {_IMAGE_FILE} (?: \?\S* )?
  | \S+ \.(?: com | net | org | co\.uk | info | html? | php | aspx? ) (?: /\S* )?
  | (?: img | dsc[fn]? | dscn | pict | image | photo | screen[\ _-]?shot | scan | pxl | mvi | gopr | wp | vid | untitled )
    [\s_.-]* \d[\d\s_.:-]* (?: at\s[\d.:\s]+(?:[ap]m)? )? (?: \(\d+\) )? (?: copy )? (?: {_IMAGE_FILE} )?
  | [\w.%+~]+ (?: [_-]+ [\w.%+~]+ ){{2,}} (?: \s? \(\d+\) )?
)[\s"')\]]*$"""

_THING = r"(?:image|img|photo|photograph|picture|pic|graphic|icon|logo|thumbnail|thumb|banner|slide|slider|cover|avatar|screenshot|spacer|placeholder|background|gallery|figure|fig|poster|illustration|preview|video|media|file|product|item|profile|user|author|header|footer|hero|default|main|featured|site|page|post|article|blog|website|company|brand|app|alt|alternate|text|description|title|caption|untitled|unnamed|blank|empty|null|none|undefined|loading|loader|pixel|tracking|ad|advertisement|advert|sponsored)"
_PLACEHOLDER = rf"""(?ix)^[\s"'\[(<*.:_-]* (?:
    (?: (?: the | a | an | my | our | your | this | no | alt ) [\s_-]+ )? {_THING} (?: [\s_.:#/-]+ {_THING} )* [\s_.:#()-]* (?: \d+ (?: \s (?: of | / ) \s \d+ )? )?
  | (?: no | missing ) [\s_-]+ (?: image | photo | picture | logo | cover | thumbnail | preview ) s? (?: \s (?: available | found | yet | uploaded | provided | here ) )?
  | (?: an? \s )? (?: image | photo | picture | cover | preview | thumbnail ) s? \s (?: is \s )? (?: not \s (?: yet \s )? (?: available | found | loaded | provided ) | unavailable | coming \s soon | missing | pending )
  | (?: please \s )? click (?: \s (?: here | on .* | image | photo | picture | thumbnail | me | for .* | to \s (?: enlarge | view | zoom | expand | see | open | play | go | visit | download | read ) .{{0,16}} ) )?
  | (?: tap | hover | press | roll \s over ) \s .* \s (?: enlarge | zoom | view | expand ) .*
  | (?: view | see | show | open | enlarge | zoom | download | share | print | play | watch ) \s (?: the \s | this \s | full \s | larger \s | large \s | more \s | all \s | in \s )* (?: {_THING} s? | size | full | larger | more | details | pinterest | facebook | twitter )
  | (?: share | follow \s us | like \s us | join \s us | find \s us ) \s (?: on | via | with | by ) \s \S+
  | lorem \s ipsum .* | insert \s .* \s here | your \s (?: image | text | logo | ad ) \s here .*
  | (?: read | learn | find \s out ) \s more | back \s to \s top | coming \s soon | sold \s out | add \s to \s (?: cart | wishlist | basket )
  | skip \s to .* | loading .{{0,12}} | close | menu | search | home \s page
)[\s"'\])>*.:!_-]*$"""

_MARKUP = r"""(?ix)
    </?[a-z][a-z0-9]{0,10}(?:\s[^<>]*)?/?> | <!-- | &lt;/?[a-z] | \\(?:displaystyle|frac|mathrm|mathbf|text)\b
  | \{\{ | \}\} | <% | \[/?(?: caption | gallery | img | url | embed | shortcode | vc_\w+ )[\]\s=] | \$\{
  | \bfunction\s*\( | \bvar\s\w+\s*= | (?: href | src | class | style | width | height )\s*=\s*["'] | \\u[0-9a-f]{4} | %20\S*%20"""

_CONTACT = r"""(?ix)
    [a-z0-9._%+-]{1,64} @ [a-z0-9-]{1,63} (?: \.[a-z0-9-]{1,63} )* \. [a-z]{2,24} \b
  | (?: ^ | [^\w.-] ) (?: \+?1 [\s.-]? )? (?: \(\d{3}\) \s? | \d{3} [\s.-] ) \d{3} [.-] \d{4} (?: $ | [^\w-] )
  | (?: ^ | [^\w] ) \+ \d{1,3} [\s.-]? \(?\d{1,4}\)? (?: [\s.-]? \d{2,4} ){2,4} (?: $ | \W )
  | \b (?: tel | phone | mobile | call \s us | call \s now | whats\s?app | fax | hotline ) [\s.:]* (?: at \s | on \s )? \+? [\d(] [\d\s().-]{6,} \d"""

_PRICE = r"(?i)^\W*(?:(?:only|from|now|price|was|sale|rrp|usd|eur|gbp|rs\.?|us)[\s:]*)*(?:[$€£¥₹]|usd|eur|gbp|rs\.?)\s*\d[\d.,]*(?:\s*(?:usd|eur|gbp|off|each|only|-|–|/|[$€£¥₹]\s*[\d.,]+))*\W*$"
_HAS_DIGIT = r"\p{N}"
# A word to read: three letters that no digit interrupts, or one letter of a script other than Latin.
_PLAIN_WORD = r"(?:^|[^\p{L}\p{N}_])(?:\p{L}\p{M}*){3,}(?:$|[^\p{L}\p{N}_])|[^\P{L}\p{Latin}]"

_WORDS = re.compile(r"[^\W_]+(?:['’-][^\W_]+)*")
_MIN_WORDS_FOR_REPETITION = 8


def _matches(pattern: str) -> Callable[[pa.Array, CaptionsConfig], pa.Array]:
    compact = _compact(pattern)
    return lambda captions, _: pc.match_substring_regex(captions, compact)


def _compact(pattern: str) -> str:
    # RE2 has no verbose mode.
    flags = re.match(r"\(\?(i?)x\)", pattern)
    if not flags:
        return pattern
    body = re.sub(r"(\\.)|\s+", lambda m: m[1] or "", pattern[flags.end() :])
    return f"(?{flags[1]})" + body if flags[1] else body


def _too_short(captions: pa.Array, config: CaptionsConfig) -> pa.Array:
    words = pc.count_substring_regex(captions, _WORD)
    few_characters = pc.less(pc.utf8_length(captions), config.min_characters)
    return pc.or_(pc.less(words, config.min_words), few_characters)


def _too_long(captions: pa.Array, config: CaptionsConfig) -> pa.Array:
    return pc.greater(pc.utf8_length(captions), config.max_characters)


def _keyword_list(captions: pa.Array, config: CaptionsConfig) -> pa.Array:
    separators = pc.count_substring_regex(captions, r"[,;|、，]")
    return _where(pc.greater_equal(separators, config.max_items), captions, _is_keyword_list)


def _is_keyword_list(caption: str) -> bool:
    items = [item for item in re.split(r"[,;|、，]", caption) if item.strip()]
    lengths = [len(item.split()) for item in items]
    # Names have two words or more, and a long item is a sentence that happens to list something.
    return max(lengths) <= 6 and sum(lengths) <= 2 * len(lengths)


def _repetition(captions: pa.Array, config: CaptionsConfig) -> pa.Array:
    spaces = pc.count_substring_regex(captions, r"\s+")
    candidates = pc.greater_equal(spaces, _MIN_WORDS_FOR_REPETITION - 1)
    return _where(
        candidates, captions, lambda caption: repeated_share(caption) > config.max_repeated_share
    )


def repeated_share(caption: str) -> float:
    """Return which part of a caption's words occurred before in it, 0 to 1."""
    counts = Counter(_WORDS.findall(caption.casefold()))
    total = sum(counts.values())
    return 1 - len(counts) / total if total else 0.0


def _mostly_symbols(captions: pa.Array, config: CaptionsConfig) -> pa.Array:
    # Counting every letter takes ten times as long as counting what is none.
    others = pc.count_substring_regex(captions, r"[\p{N}\p{P}\p{S}]")
    candidates = pc.greater(pc.multiply(others, 5), pc.utf8_length(captions))
    return _where(
        candidates, captions, lambda caption: letter_share(caption) < config.min_letter_share
    )


def letter_share(caption: str) -> float:
    """Return which part of a caption's characters, white space aside, are letters or their marks."""
    categories = Counter(unicodedata.category(character)[0] for character in caption)
    visible = sum(categories[kind] for kind in "LMNPS")
    return (categories["L"] + categories["M"]) / visible if visible else 0.0


def _price_or_code(captions: pa.Array, _: CaptionsConfig) -> pa.Array:
    has_digit = pc.match_substring_regex(captions, _HAS_DIGIT)
    has_word = pc.match_substring_regex(captions, _PLAIN_WORD)
    is_code = pc.and_(has_digit, pc.invert(has_word))
    return pc.or_(is_code, pc.match_substring_regex(captions, _PRICE))


def _where(candidates: pa.Array, captions: pa.Array, test: Callable[[str], bool]) -> pa.Array:
    answers = [
        bool(is_candidate) and test(caption)
        for is_candidate, caption in zip(candidates.to_pylist(), captions.to_pylist(), strict=True)
    ]
    return pa.array(answers, pa.bool_())


RULES = (
    Rule(
        reason="markup",
        about="HTML, template or script code stands in it",
        applies=_matches(_MARKUP),
    ),
    Rule(
        reason="file_name_or_url",
        about="it is the name of a file or an address",
        applies=_matches(_FILE_NAME_OR_URL),
    ),
    Rule(
        reason="placeholder",
        about="it says only that there is an image, or what a button does",
        applies=_matches(_PLACEHOLDER),
    ),
    Rule(reason="too_short", about="fewer characters or words than the least", applies=_too_short),
    Rule(
        reason="price_or_code",
        about="it is a price, or has digits and no word",
        applies=_price_or_code,
    ),
    Rule(reason="too_long", about="more characters than the most", applies=_too_long),
    Rule(
        reason="mostly_symbols",
        about="digits and symbols outnumber letters",
        applies=_mostly_symbols,
    ),
    Rule(
        reason="contact",
        about="an e-mail address or telephone number stands in it",
        applies=_matches(_CONTACT),
    ),
    Rule(reason="keyword_list", about="many short items between commas", applies=_keyword_list),
    Rule(reason="repetition", about="most of its words are repeats", applies=_repetition),
)

REASONS = {rule.reason: rule.about for rule in RULES}


def judge(captions: pa.Array, config: CaptionsConfig) -> pa.Array:
    """Return for each caption the reason to drop it, or null to keep it."""
    rules = [rule for rule in RULES if rule.reason not in config.disabled]
    verdicts = [rule.applies(captions, config) for rule in rules]
    if not rules:
        return pa.nulls(len(captions), pa.string())
    conditions = pa.StructArray.from_arrays(verdicts, names=[rule.reason for rule in rules])
    return pc.case_when(conditions, *[pa.scalar(rule.reason) for rule in rules])


@dataclass(frozen=True, kw_only=True)
class CaptionsTask:
    """One part to judge."""

    part: Part
    config: CaptionsConfig
    output: TaskOutput


def run(config: CaptionsConfig, workspace: Workspace, executor: Executor) -> Manifest:
    """Judge every caption that has the right language and return the manifest.

    Raises:
        ConfigError: if a rule to disable is unknown.
        MissingInput: if `language` has not finished.
        TaskFailed: if a part cannot be judged.
    """
    unknown = [reason for reason in config.disabled if reason not in REASONS]
    if unknown:
        raise ConfigError(
            f"captions.disabled names {', '.join(unknown)}, expected among: {', '.join(REASONS)}"
        )
    stage = begin("captions", config, workspace, reads=["language"])
    if stage.done:
        return stage.done
    tasks = [
        CaptionsTask(part=part, config=config, output=stage.output(i))
        for i, part in enumerate(stage.parts("language"))
    ]
    return stage.finish(stage.map(executor, "captions", judge_part, tasks))


def judge_part(task: CaptionsTask) -> Outcome:
    """Read, judge and write one part; runs in a worker."""
    pairs = task.output.read(task.part, schemas.LANGUAGES)
    kept, drops = judge_table(pairs, task.config)
    return task.output.write(
        rows_in=pairs.num_rows, kept=kept, schema=schemas.CAPTIONS, drops=drops
    )


def judge_table(pairs: pa.Table, config: CaptionsConfig) -> tuple[pa.Table, pa.Table]:
    """Return the rows of `pairs` whose caption no rule meets, and the others as DROPS."""
    captions = pairs.column("caption").combine_chunks()
    reasons = judge(captions, config)
    bad = pc.is_valid(reasons)
    drops = pa.table(
        {
            "pair_id": pairs.column("pair_id").filter(bad),
            "reason": reasons.filter(bad),
            "detail": pc.utf8_slice_codeunits(captions.filter(bad), 0, _DETAIL_CHARACTERS),
        },
        schema=schemas.DROPS,
    )
    return pairs.filter(pc.invert(bad)), drops
