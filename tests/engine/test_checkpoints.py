"""The places where recurrent state is kept, as properties."""

from hypothesis import given
from hypothesis import strategies as st

from llmcrdt.engine.checkpoints import DENSE, superseded, wanted

CHUNK = 64
places = st.sets(st.integers(1, 4000), max_size=200).map(lambda found: sorted(CHUNK * place for place in found))
counts = st.integers(1, 40)


@given(places.filter(bool))
def test_the_way_back_at_most_doubles(found):
    """From any place that could be resumed at, the nearest that is kept before it is at most twice as far from the end,
    or the next one there was."""
    end = found[-1]
    gone = superseded(found, end, 1000)
    kept = [place for place in found if place not in gone]
    assert found[-DENSE:] == kept[-DENSE:] and kept[0] == found[0]
    for newer, older in zip(reversed(kept[1:]), reversed(kept[:-1]), strict=True):
        between = [place for place in found if older < place < newer]
        assert not between or end - older <= 2 * (end - newer) or end == newer


@given(places.filter(bool))
def test_few_are_kept(found):
    end = found[-1]
    kept = len(found) - len(superseded(found, end, 1000))
    assert kept <= DENSE + 2 * (end // CHUNK).bit_length() + 1


@given(places.filter(bool), counts)
def test_no_more_than_may_be_and_the_newest_always(found, most):
    gone = superseded(found, found[-1], most)
    assert len(found) - len(gone) <= most
    assert found[-1] not in gone


@given(st.lists(st.integers(1, 900), min_size=1, max_size=60), counts)
def test_a_conversation_that_grows_keeps_its_spread(turns, most):
    """Thinned turn by turn, as it grows: what was dropped once is never missed."""
    end, kept = 0, []
    for turn in turns:
        end += CHUNK * turn
        kept = [*kept, end]
        gone = superseded(kept, end, 1000)
        kept = [place for place in kept if place not in gone]
        for newer, older in zip(reversed(kept[1 : -DENSE or None]), reversed(kept[: -DENSE - 1]), strict=True):
            widest = max(CHUNK * turn for turn in turns)
            assert newer - older <= max(end - newer, 2 * widest) + widest
    assert len(kept) <= DENSE + 2 * (end // CHUNK).bit_length() + 1


@given(st.integers(1, 400), st.lists(st.integers(0, 30_000), max_size=60), counts)
def test_what_is_wanted(chunks, marks, most):
    end = CHUNK * chunks
    found = wanted(end, marks, CHUNK, most)
    assert end in found
    assert len(found) <= most
    assert all(0 < place <= end and place % CHUNK == 0 for place in found)
    ends = sorted({mark // CHUNK * CHUNK for mark in marks if CHUNK <= mark <= end} | {end})
    if most > 40:
        assert set(ends[-2:]) <= found, "the newest ends of entries"
    for place in found - set(ends):
        assert all(abs(place - other) >= 512 for other in ends), "others only where no entry ends nearby"


def test_a_long_text_has_boundaries_and_a_short_turn_has_none_of_its_own():
    assert wanted(8192, [], CHUNK, 100) >= {8192, 7680, 7168, 6656}
    assert 0 < len(wanted(8192, [], CHUNK, 100)) < 12
    assert wanted(640, [200, 420], CHUNK, 100) == {192, 384, 640}
    assert wanted(0, [], CHUNK, 100) == frozenset()
