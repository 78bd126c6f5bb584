"""Which words can be part of a bigram: content words that are not rare.

A pair with a function word ("of the", "depends on") or a name's particle ("castellanos de") is a
piece of a phrase and names nothing; single letters are initials and scraps.
"""

from collections.abc import Mapping

_FUNCTION_WORDS = """
a an the this that these those each every either neither some any all both no none such same other
another few more most much many several own
i me my mine myself we us our ours ourselves you your yours yourself yourselves he him his himself
she her hers herself it its itself they them their theirs themselves one ones who whom whose which what
of in on at by to from for with without within into onto upon over under above below between among
through during before after since until till against about across along around behind beside besides
beyond despite down off out near per than toward towards up via as like except
and or but nor so yet if because although though while whereas unless whether
am is are was were be been being do does did done doing have has had having can could may might must
shall should will would ought
not also only just very too then there here now ever never always often again still even already almost
when where why how however thus hence therefore
dont doesnt didnt cant wont isnt arent wasnt im ive youre thats lets et etc ie eg vs re ll ve
"""
_NAME_PARTICLES = """
al bin d da das de degli dei del dell della delle den der des di do dos du e el en het ibn il l la las
le les lo los op ter und van vom von y zu zum zur
"""
FUNCTION_WORDS = frozenset(_FUNCTION_WORDS.split())
NAME_PARTICLES = frozenset(_NAME_PARTICLES.split())


def content_words(counts: Mapping[str, int], *, minimum: int) -> frozenset[str]:
    """Return the words of two letters and more, and letters only, that occur at least `minimum` times."""
    return frozenset(
        word
        for word, count in counts.items()
        if count >= minimum
        and len(word) > 1
        and word.isalpha()
        and word not in FUNCTION_WORDS
        and word not in NAME_PARTICLES
    )
