"""Stop strings: what is given out, what is held, what cuts."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tokamak.sampling import StopStrings


def run(stops, pieces):
    matcher = StopStrings(stops)
    given_out = [matcher.push(piece) for piece in pieces]
    return given_out, matcher.matched, matcher.flush()


@pytest.mark.parametrize(
    ("stops", "pieces", "text", "matched"),
    [
        (["STOP"], ["ab ST", "OP cd"], "ab ", "STOP"),  # spans two pieces
        (["STOP"], ["abSTOPcd"], "ab", "STOP"),  # inside one
        (["aab"], ["aaab"], "a", "aab"),  # overlaps itself
        (["aab"], ["a", "a", "a", "b"], "a", "aab"),
        (["\n\n", "\nUser:"], ["x\n", "User", ":"], "x", "\nUser:"),
        (["é€"], ["caf", "é", "€!"], "caf", "é€"),  # several bytes per character
        (["ab", "b"], ["ab"], "", "ab"),  # the one that begins earliest cuts
    ],
)
def test_text_before_the_stop_is_all_that_is_given_out(stops, pieces, text, matched):
    given_out, found, rest = run(stops, pieces)
    assert ("".join(given_out), found, rest) == (text, matched, "")


def test_a_beginning_that_does_not_become_a_stop_is_given_out_later_and_at_the_end():
    assert run(["STOP"], ["ab ST", "AB S"]) == (["ab ", "STAB "], None, "S")


def test_nothing_is_given_out_after_a_stop():
    matcher = StopStrings(["x"])
    assert (matcher.push("ax"), matcher.push("bbb"), matcher.flush()) == ("a", "", "")


@given(
    stops=st.lists(st.text("ab€", min_size=1, max_size=4), min_size=1, max_size=3),
    pieces=st.lists(st.text("ab€", max_size=4), max_size=12),
)
def test_pieces_give_what_searching_the_whole_text_gives(stops, pieces):
    """The oracle: append piece by piece to all the text; the first piece that completes a stop decides."""
    given_out, matched, rest = run(stops, pieces)
    seen = ""
    for piece in pieces:
        seen += piece
        hits = sorted((seen.find(stop), i) for i, stop in enumerate(stops) if stop in seen)
        if hits:
            assert ("".join(given_out) + rest, matched) == (seen[: hits[0][0]], stops[hits[0][1]])
            return
    assert ("".join(given_out) + rest, matched) == (seen, None)


@given(pieces=st.lists(st.text("abc", max_size=3), max_size=12))
def test_only_a_possible_beginning_of_a_stop_is_held(pieces):
    matcher = StopStrings(["abc"])
    seen = out = ""
    for piece in pieces:
        seen, out = seen + piece, out + matcher.push(piece)
        if matcher.matched:
            return
        assert seen[len(out) :] in ("", "a", "ab")
