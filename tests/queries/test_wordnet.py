from pathlib import Path

import pytest

from pipeline.errors import InputError, StorageError
from queries.wordnet import wordnet_queries

LICENCE = "  1 This software and database is being provided to you, the LICENSEE, by  \n"
DATA = {
    "noun": "02086723 05 n 03 dog 0 domestic_dog 0 Canis_familiaris 0 001 @ 02085998 n 0000 | an animal\n"
    "02102253 05 n 01 golden_retriever 0 001 @ 02101681 n 0000 | an English breed\n"
    "08524736 15 n 02 New_York 0 Empire_State 0 001 @ 08654360 n 0000 | a state\n",
    "verb": "00445584 30 v 03 melt 1 run 0 melt_down 0 001 @ 00448264 v 0000 01 + 02 00 | reduce\n",
    "adj": "00019769 00 s 02 ready_to_hand(p) 0 handy 0 001 & 00019169 a 0000 | easy to reach\n"
    "02098000 00 a 01 dog 1 000 | a second synset of the same lemma\n",
    "adv": "00001885 02 r 03 A.D. 0 AD 0 anno_Domini 0 000 | in the Christian era\n",
}


@pytest.fixture
def dictionary(tmp_path: Path) -> Path:
    for part, lines in DATA.items():
        (tmp_path / f"data.{part}").write_text(LICENCE + lines)
    return tmp_path


def test_each_synset_gives_its_first_lemma_once_and_normalised(dictionary: Path) -> None:
    table = wordnet_queries(str(dictionary))
    assert table["query"].to_pylist() == [
        "a . d .", "dog", "golden retriever", "melt", "new york", "ready to hand",
    ]  # fmt: skip
    assert set(table["source"].to_pylist()) == {"wordnet"}


def test_a_line_that_is_no_synset_is_named(dictionary: Path) -> None:
    (dictionary / "data.verb").write_text(LICENCE + DATA["verb"] + "<html>\n")
    with pytest.raises(InputError, match=r"data\.verb line 3 is not a synset"):
        wordnet_queries(str(dictionary))


def test_a_missing_data_file_is_refused(dictionary: Path) -> None:
    (dictionary / "data.adv").unlink()
    with pytest.raises(StorageError, match=r"data\.adv"):
        wordnet_queries(str(dictionary))
