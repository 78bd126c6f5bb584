"""What junk captions look like: regular expressions for RE2, which takes time linear in the caption."""

import re


def _compact(pattern: str) -> str:
    # RE2 has no verbose mode.
    body = re.sub(r"(\\.)|\s+", lambda match: match[1] or "", pattern.removeprefix("(?ix)"))
    return f"(?i){body}"


_IMAGE_FILE = r"\.(?:jpe?g|jfif|png|gif|webp|avif|bmp|tiff?|svg|heic|psd|ico)"
_LETTER = r"[\p{L}\p{N}]"
_SLUG = r"[\p{L}\p{M}\p{N}_.%+~]+"

FILE_NAME_OR_URL = _compact(rf"""(?ix)^[\s"'(\[]* (?:
    (?: https?:// | ftp:// | www\. ) \S+
  | \S+ {_IMAGE_FILE} (?: \?\S* )?
  | \S+ \.(?: com | net | org | co\.uk | info | html? | php | aspx? ) (?: /\S* )?
  | (?: img | dsc[fn]? | dscn | pict | image | photo | screen[\ _-]?shot | scan | pxl | mvi | gopr | wp | vid | untitled )
    [\s_.-]* \d[\d\s_.:-]* (?: at\s[\d.:\s]+(?:[ap]m)? )? (?: \(\d+\) )? (?: copy )?
  | {_SLUG} (?: [_-]+ {_SLUG} ){{2,}} (?: \s? \(\d+\) )?
)[\s"')\]]*$""")

# The name of a file with spaces in it: with an underscore, and at the end a file, or else a joint in each word.
ENDS_IN_FILE = _compact(rf"""(?ix)\S {_IMAGE_FILE} (?: \?\S* )? [\s"')\]]*$""")
UNDERSCORED = _compact(
    rf"""(?ix)^[\s"'(\[]* \S* {_LETTER} _+ {_LETTER} \S* (?: \s+ \S* [_-] \S* )* (?: \s? \(\d+\) )? [\s"')\]]*$"""
)

_THING = r"(?:image|img|photo|photograph|picture|pic|graphic|icon|logo|thumbnail|thumb|banner|slide|slider|cover|avatar|screenshot|spacer|placeholder|background|gallery|figure|fig|poster|illustration|preview|video|media|file|product|item|profile|user|author|header|footer|hero|default|main|featured|site|page|post|article|blog|website|company|brand|app|alt|alternate|text|description|title|caption|untitled|unnamed|blank|empty|null|none|undefined|loading|loader|pixel|tracking|navigation|button|arrow|animated|gif|jpe?g|png|ad|advertisement|advert|sponsored)"
PLACEHOLDER = _compact(rf"""(?ix)^[\s"'\[(<*.:_-]* (?:
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
)[\s"'\])>*.:!_-]*$""")

# Tags that stand in good sentences, and all tags, either of them escaped or not.
FORMATTING = r"(?i)(?:<|&lt;)/?(?:b|i|u|p|q|s|em|br|wbr|sub|sup|small|big|font|cite|strong|center|span|mark|li|ul|h[1-6])\s*/?(?:>|&gt;)"
TAG = r"(?i)(?:<|&lt;)(?:/?[a-z][a-z0-9]{0,10}(?:\s[^<>]*)?/?(?:>|&gt;)|!--)"
CODE = _compact(r"""(?ix)
    \\(?:displaystyle|frac|mathrm|mathbf|text)\b
  | \{\{ | \}\} | <% | \[/?(?: caption | gallery | img | url | embed | shortcode | vc_\w+ )[\]\s=] | \$\{
  | \bfunction\s*\( | \bvar\s\w+\s*= | (?: href | src | class | style | width | height )\s*=\s*["'] | \\u[0-9a-f]{4} | %20\S*%20""")

# What may stand before a contact, the contact, and what may stand after it.
_CONTACTS = (
    (r"", r"[a-z0-9._%+-]+ @ [a-z0-9-]+ (?: \.[a-z0-9-]+ )* \. [a-z]{2,24} \b", r""),
    (
        r"\b",
        r"(?: tel | phone | mobile | call \s us | call \s now | whats\s?app | fax | hotline ) [\s.:]* (?: at \s | on \s )? \+? [\d(] [\d\s().-]{6,} \d",
        r"",
    ),
    (
        r"^ | [^\w.-]",
        r"(?: \+?1 [\s.-]? )? (?: \(\d{3}\) \s? | \d{3} [\s.-] ) \d{3} [.-] \d{4}",
        r"$ | [^\w-]",
    ),
    (r"^ | \W", r"\+ \d{1,3} [\s.-]? \(?\d{1,4}\)? (?: [\s.-]? \d{2,4} ){2,4}", r"$ | \W"),
)
CONTACTS = tuple(
    _compact(f"(?ix)(?:{before})(?:{contact})(?:{after})") for before, contact, after in _CONTACTS
)
# The same with what stands around a contact as groups 1 and 2.
CONTACTS_IN_PLACE = tuple(
    _compact(f"(?ix)({before})(?:{contact})({after})") for before, contact, after in _CONTACTS
)

PRICE = r"(?i)^\W*(?:(?:only|from|now|price|was|sale|rrp|usd|eur|gbp|rs\.?|us)[\s:]*)*(?:[$€£¥₹]|usd|eur|gbp|rs\.?)\s*\d[\d.,]*(?:\s*(?:usd|eur|gbp|off|each|only|-|–|/|[$€£¥₹]\s*[\d.,]+))*\W*$"
