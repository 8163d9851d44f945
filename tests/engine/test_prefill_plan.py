"""The plan, as properties."""

from hypothesis import given
from hypothesis import strategies as st

from llmcrdt.engine.prefill_plan import Live, chunk_length, chunks_of, keep_live, plan_prompt, plan_settle, reusable

chunk_sizes = st.sampled_from([8, 16, 32, 64, 128])
totals = st.integers(0, 3000)
whole = st.integers(0, 60)
widths = st.integers(1, 8)


@given(totals, whole, whole, chunk_sizes, widths)
def test_batches_tile_what_is_not_reused(total, live, cached, chunk, width):
    steps = plan_prompt(total, live * chunk, cached * chunk, chunk, width * chunk)
    assert steps.evaluate == total - steps.reused == sum(len(batch) for batch in steps.batches)
    edges = [steps.reused, *(batch.stop for batch in steps.batches)]
    assert [batch.start for batch in steps.batches] == edges[:-1]
    assert edges[-1] == total


@given(totals, whole, whole, chunk_sizes, widths)
def test_reuse_is_all_that_may_be_reused(total, live, cached, chunk, width):
    steps = plan_prompt(total, live * chunk, cached * chunk, chunk, width * chunk)
    assert steps.reused == min(max(live, cached) * chunk, reusable(total, chunk))
    assert steps.reused % chunk == 0
    assert steps.live == min(live * chunk, steps.reused)
    assert total < 2 or steps.reused <= total - 2


@given(totals.filter(lambda n: n >= 2), whole, whole, chunk_sizes, widths)
def test_only_the_tail_is_not_canonical(total, live, cached, chunk, width):
    *body, tail = plan_prompt(total, live * chunk, cached * chunk, chunk, width * chunk).batches
    for batch in body:
        assert batch.canonical
        assert batch.start % chunk == 0
        assert len(batch) % chunk == 0
        assert 0 < len(batch) <= width * chunk
    assert tail.start == chunk * ((total - 2) // chunk)
    assert 2 <= len(tail) <= chunk + 1
    assert tail.canonical is (len(tail) == chunk), "a wider or shorter batch takes other kernels"


@given(totals, whole, whole, chunk_sizes, widths)
def test_a_chunk_is_stored_once_and_only_from_canonical_batches(total, live, cached, chunk, width):
    steps = plan_prompt(total, live * chunk, cached * chunk, chunk, width * chunk)
    stored = [piece for batch in steps.batches for piece in chunks_of(batch, chunk)]
    end = chunk * (total // chunk) if total % chunk == 0 else reusable(total, chunk)
    assert stored == [(at, at + chunk) for at in range(steps.reused, max(end, steps.reused), chunk)]


@given(totals, whole, whole, chunk_sizes, widths)
def test_settling_makes_every_whole_chunk(total, live, cached, chunk, width):
    steps = plan_settle(total, live * chunk, cached * chunk, chunk, width * chunk)
    assert steps.total == chunk * (total // chunk)
    assert steps.reused == min(max(live, cached) * chunk, steps.total)
    assert all(batch.canonical and batch.start % chunk == 0 and len(batch) % chunk == 0 for batch in steps.batches)
    assert sum(len(batch) for batch in steps.batches) == steps.total - steps.reused


@given(st.lists(st.integers(0, 2), max_size=60), st.lists(st.integers(0, 2), max_size=60), st.booleans(), st.data())
def test_live_state_stands_as_far_as_ids_agree(a, b, extra, data):
    chunk = 4
    live = tuple(a[: len(a) // chunk * chunk])
    limit = data.draw(st.integers(0, 15)) * chunk
    agree = 0
    while agree < min(len(live), len(b)) and live[agree] == b[agree]:
        agree += 1
    expected = min(agree // chunk * chunk, limit)
    assert keep_live(Live(live, extra), b, chunk, limit) == expected
    uncut = keep_live(Live(live, extra, can_cut=False), b, chunk, limit)
    assert uncut == (expected if expected == len(live) and not extra else 0), "recurrent state can't be shortened"


def test_one_token_and_none():
    assert [(b.start, b.stop) for b in plan_prompt(1, 0, 0, 64, 512).batches] == [(0, 1)]
    assert plan_prompt(0, 0, 0, 64, 512).batches == ()


@given(st.integers(0, 5000))
def test_a_chunk_fits_the_sliding_window(window):
    length = chunk_length(window)
    assert length <= (window or 64)
    assert length in (0, 8, 16, 32, 64)
    assert (length == 0) is (0 < window < 8)
