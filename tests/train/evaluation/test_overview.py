from train.evaluation.overview import notes_in_words, stands_out, variant_in_words


def test_of_robustness_the_clean_pictures_and_the_mean_stand_out() -> None:
    variants = ("clean", "corrupted", "fog", "fog/3", "corrupted/3")
    assert [v for v in variants if stands_out("robustness", v)] == ["clean", "corrupted"]
    assert stands_out("zero_shot", "fog")


def test_variants_are_said_in_words() -> None:
    assert variant_in_words("few_shot", "1") == "1 shot"
    assert variant_in_words("few_shot", "16") == "16 shots"
    assert variant_in_words("retrieval", "image_to_text") == "image to text"


def test_notes_are_said_in_words() -> None:
    notes = {
        "converged": True,
        "strength": 23713.737,
        "prefix": "a photo of",
        "2 shots": {"accuracies": [0.25, 0.5], "not_converged": 0},
    }
    assert notes_in_words(notes) == [
        ("converged", "yes"),
        ("strength", "2.371e+04"),
        ("prefix", "a photo of"),
        ("2 shots", "accuracies 0.25 / 0.5, not converged 0"),
    ]
